//! A table of single decisions, simulated days, and whatever loads there may be.

use proptest::prelude::*;

use super::*;

const COOL_DOWN: u64 = 60;
const LOOK_EVERY: u64 = 5;

const SETTINGS: AutoscaleSettings = AutoscaleSettings {
    min_workers: 2,
    max_workers: 8,
    measure: LoadMeasure::Connections,
    scale_up_load: 100.0,
    scale_down_load: 20.0,
    interval: Duration::from_secs(LOOK_EVERY),
    scale_down_after: Duration::from_secs(COOL_DOWN),
};

fn at(seconds: u64) -> Timestamp {
    Timestamp(0) + Duration::from_secs(seconds)
}

/// Workers in slots 0, 1, 2 … with these loads, and as many connections.
fn loads(loads: &[f64]) -> Vec<WorkerLoad> {
    let worker = |(slot, load): (u16, &f64)| WorkerLoad {
        slot: SlotId(slot),
        load: *load,
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        connections: *load as u64,
    };
    (0..).zip(loads).map(worker).collect()
}

use Decision::{Down, Stay, Up};

/// Looks at the same loads for longer than the cool-down; the decision of the first and the last.
fn first_and_last(of: &[f64]) -> [Decision; 2] {
    let mut scaler = Autoscaler::new(SETTINGS);
    let first = scaler.look(at(0), &loads(of), false);
    let later = (1..=12).map(|look| scaler.look(at(look * LOOK_EVERY), &loads(of), false));
    [first, later.last().unwrap()]
}

#[test]
fn one_look_at_a_time() {
    let table: [(&[f64], [Decision; 2]); 15] = [
        (&[100.0, 100.0], [Stay, Stay]),
        (&[100.0, 101.0], [Up, Up]),
        (&[0.0, 202.0], [Up, Up]),
        (&[500.0; 8], [Stay, Stay]),
        (&[20.0, 20.0, 20.0], [Stay, Stay]),
        // Two are the least.
        (&[0.0, 0.0], [Stay, Stay]),
        // The fewest connections; the highest slot.
        (&[9.0, 5.0, 7.0], [Stay, Down(SlotId(1))]),
        (&[9.0, 5.0, 5.0], [Stay, Down(SlotId(2))]),
        (&[0.0; 8], [Stay, Down(SlotId(7))]),
        // Outside the bounds, whatever the load.
        (&[50.0], [Up, Up]),
        (&[], [Up, Up]),
        (&[50.0; 9], [Down(SlotId(8)), Down(SlotId(8))]),
        (&[500.0; 10], [Down(SlotId(9)), Down(SlotId(9))]),
        // An unknown load doesn't count for more, and prevents fewer.
        (&[f64::NAN, 1.0, 1.0], [Stay, Stay]),
        (&[f64::INFINITY, -1.0, f64::NEG_INFINITY, f64::NAN], [Stay, Stay]),
    ];
    for (of, expected) in table {
        assert_eq!(first_and_last(of), expected, "{of:?}");
    }
}

#[test]
fn fewer_only_after_a_whole_time_of_low_load() {
    let (low, high) = (loads(&[5.0; 3]), loads(&[50.0; 3]));
    let mut scaler = Autoscaler::new(SETTINGS);
    assert_eq!(scaler.look(at(0), &low, false), Stay);
    assert_eq!(scaler.look(at(55), &low, false), Stay);
    assert_eq!(scaler.look(at(59), &high, false), Stay);
    assert_eq!(scaler.look(at(60), &low, false), Stay);
    assert_eq!(scaler.look(at(119), &low, false), Stay);
    assert_eq!(scaler.look(at(120), &low, false), Down(SlotId(2)));
}

#[test]
fn scaling_by_hand_is_not_reverted_at_once() {
    let low = loads(&[5.0; 4]);
    let mut scaler = Autoscaler::new(SETTINGS);
    scaler.look(at(0), &low, false);
    scaler.scaled(at(30));
    assert_eq!(scaler.look(at(89), &low, false), Stay);
    assert_eq!(scaler.look(at(90), &low, false), Down(SlotId(3)));
    assert_eq!(scaler.look(at(149), &low, false), Stay, "its own decision begins a cool-down");
    assert_eq!(scaler.look(at(150), &low, false), Down(SlotId(3)));
}

#[test]
fn while_something_changes_it_only_looks() {
    let mut scaler = Autoscaler::new(SETTINGS);
    assert_eq!(scaler.look(at(0), &loads(&[500.0; 2]), true), Stay);
    let low = loads(&[5.0; 3]);
    for seconds in (5..60).step_by(5) {
        assert_eq!(scaler.look(at(seconds), &low, true), Stay);
    }
    assert_eq!(scaler.look(at(65), &low, false), Down(SlotId(2)), "what it saw counts");
}

#[test]
fn no_worker_goes_that_the_others_could_not_replace() {
    let close = AutoscaleSettings { scale_down_load: 90.0, ..SETTINGS };
    for (load, expected) in [(54.0, Stay), (53.0, Down(SlotId(2)))] {
        let mut scaler = Autoscaler::new(close);
        scaler.look(at(0), &loads(&[load; 3]), false);
        // Three with 54 would be two with 81, of a hundred that are allowed.
        assert_eq!(scaler.look(at(60), &loads(&[load; 3]), false), expected, "{load}");
    }
}

#[test]
fn other_settings_hold_at_once_and_nothing_is_forgotten() {
    let mut scaler = Autoscaler::new(SETTINGS);
    let busy = loads(&[15.0; 4]);
    scaler.look(at(0), &busy, false);
    scaler.change(AutoscaleSettings { max_workers: 3, ..SETTINGS });
    assert_eq!(scaler.look(at(5), &busy, false), Down(SlotId(3)));
    scaler.change(AutoscaleSettings { min_workers: 5, ..SETTINGS });
    assert_eq!(scaler.look(at(10), &busy, false), Up);
    scaler.change(SETTINGS);
    assert_eq!(scaler.look(at(69), &busy, false), Stay);
    assert_eq!(scaler.look(at(70), &busy, false), Down(SlotId(3)));
}

/// Workers with a population of connections that stay where they are until they end.
struct Simulation {
    scaler: Autoscaler,
    settings: AutoscaleSettings,
    now: u64,
    workers: Vec<WorkerLoad>,
    /// When the worker that starts will serve.
    starting: Option<u64>,
    /// When, and whether up.
    changes: Vec<(u64, bool)>,
    random: u64,
}

impl Simulation {
    const START_TAKES: u64 = 7;

    fn new(settings: AutoscaleSettings) -> Self {
        let workers = loads(&vec![0.0; usize::from(settings.min_workers)]);
        let scaler = Autoscaler::new(settings);
        Self { scaler, settings, now: 0, workers, starting: None, changes: vec![], random: 1 }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Lets connections come or end until there are `target`, each at whatever worker.
    fn populate(&mut self, target: u64) {
        let mut total: u64 = self.workers.iter().map(|worker| worker.connections).sum();
        while total != target {
            let count = u64::try_from(self.workers.len()).unwrap();
            let index = usize::try_from(self.random(count)).unwrap();
            let worker = &mut self.workers[index];
            if total < target {
                worker.connections += 1;
                total += 1;
            } else if worker.connections > 0 {
                worker.connections -= 1;
                total -= 1;
            }
            worker.load = f64::from(u32::try_from(worker.connections).unwrap());
        }
    }

    fn step(&mut self, population: u64) {
        self.now += LOOK_EVERY;
        if self.starting.is_some_and(|ready| ready <= self.now) {
            self.starting = None;
            let slot = self.workers.iter().map(|worker| worker.slot.0 + 1).max().unwrap_or(0);
            self.workers.push(WorkerLoad { slot: SlotId(slot), load: 0.0, connections: 0 });
        }
        self.populate(population);
        let changing = self.starting.is_some();
        match self.scaler.look(at(self.now), &self.workers, changing) {
            Stay => {}
            Up => {
                self.starting = Some(self.now + Self::START_TAKES);
                self.changes.push((self.now, true));
            }
            Down(slot) => {
                let fewest = self.workers.iter().map(|worker| worker.connections).min();
                let gone = self.workers.iter().position(|worker| worker.slot == slot).unwrap();
                assert_eq!(Some(self.workers.remove(gone).connections), fewest);
                // Its clients come again at the others.
                self.populate(population);
                self.changes.push((self.now, false));
            }
        }
        let count = self.workers.len() + usize::from(self.starting.is_some());
        let bounds = self.settings.min_workers.into()..=self.settings.max_workers.into();
        assert!(bounds.contains(&count), "{count} workers at {}", self.now);
    }

    fn run(&mut self, looks: u64, population: impl Fn(u64) -> u64) {
        for look in 0..looks {
            self.step(population(look));
        }
    }

    /// How often what came after an up was a down, or the other way round.
    fn turns(&self) -> usize {
        self.changes.windows(2).filter(|pair| pair[0].1 != pair[1].1).count()
    }

    /// A way down begins only after a cool-down, and two turns are as far apart.
    fn assert_calm(&self) {
        for pair in self.changes.windows(2) {
            let [(before, _), (after, up)] = [pair[0], pair[1]];
            assert!(up || after - before >= COOL_DOWN, "{:?}", self.changes);
        }
    }
}

#[test]
fn a_day_with_a_ramp_up_and_down() {
    let mut day = Simulation::new(SETTINGS);
    day.run(200, |look| look * 3);
    assert_eq!(day.workers.len(), 6, "600 connections, 100 each");
    day.run(200, |look| 600 - look * 3);
    day.run(100, |_| 0);
    assert_eq!(day.workers.len(), 2);
    assert_eq!(day.turns(), 1, "{:?}", day.changes);
    day.assert_calm();
}

#[test]
fn a_flash_crowd_is_met_as_fast_as_workers_start() {
    let mut day = Simulation::new(SETTINGS);
    day.run(20, |_| 100);
    // Six more; each takes two looks to start and one is decided on at the first.
    day.run(6 * 2 + 1, |_| 5_000);
    assert_eq!(day.workers.len(), 8);
    day.run(30, |_| 100);
    day.assert_calm();
    assert_eq!(day.turns(), 1);
}

#[test]
fn a_slow_square_wave_is_followed_and_a_fast_one_is_not() {
    let wave = |half: u64| move |look: u64| if (look / half).is_multiple_of(2) { 500 } else { 30 };
    let mut slow = Simulation::new(SETTINGS);
    slow.run(4 * 2 * 120, wave(120));
    assert!(slow.turns() < 4 * 2, "once a half: {:?}", slow.changes);
    assert!(slow.turns() > 4);
    slow.assert_calm();

    let mut fast = Simulation::new(SETTINGS);
    fast.run(960, wave(6));
    assert_eq!(fast.turns(), 0, "{:?}", fast.changes);
    assert_eq!(fast.workers.len(), 5, "500 connections, 100 each");
}

#[test]
fn noise_around_a_threshold_moves_nothing_to_and_fro() {
    // With the distance of the defaults, and with next to none.
    for scale_down_load in [20.0, 95.0] {
        let settings = AutoscaleSettings { scale_down_load, ..SETTINGS };
        // Around the upper threshold of four workers, and around the lower.
        for (middle, spread) in [(400, 60), (400, 8), (80, 30), (160, 60), (320, 40)] {
            let mut day = Simulation::new(settings);
            day.run(100, |_| 4 * 70 + 60);
            let settled = day.changes.len();
            for _ in 0..2_000 {
                let noise = day.random(2 * spread + 1);
                day.step(middle - spread + noise);
            }
            let changes = &day.changes[settled..];
            assert!(changes.len() <= 4, "{scale_down_load} {middle}±{spread}: {changes:?}");
            assert!(day.turns() <= 1, "{scale_down_load} {middle}±{spread}: {changes:?}");
            day.assert_calm();
        }
    }
}

proptest! {
    #[test]
    fn whatever_the_loads_the_promises_hold(
        looks in prop::collection::vec(
            (0..40_u64, prop::collection::vec(any::<f64>(), 0..12), any::<bool>()), 1..60,
        ),
        up: f64, down: f64, min in 0..10_u16, max in 0..10_u16,
    ) {
        let settings = AutoscaleSettings {
            min_workers: min, max_workers: max, scale_up_load: up, scale_down_load: down,
            ..SETTINGS
        };
        let (min, max) = (min.max(1), max.max(min).max(1));
        let mut scaler = Autoscaler::new(settings);
        let mut now = 0;
        let mut last_change: Option<u64> = None;
        for (seconds, of, changing) in looks {
            now += seconds;
            let workers = loads(&of);
            let count = u16::try_from(of.len()).unwrap();
            let decision = scaler.look(at(now), &workers, changing);
            match decision {
                Stay => prop_assert!(changing || (min..=max).contains(&count)),
                Up => prop_assert!(!changing && count < max),
                Down(slot) => {
                    prop_assert!(!changing && count > min && slot.0 < count);
                    let cool = last_change.is_none_or(|before| now - before >= COOL_DOWN);
                    prop_assert!(count > max || cool, "down too soon");
                }
            }
            if decision != Stay {
                last_change = Some(now);
            }
        }
    }
}
