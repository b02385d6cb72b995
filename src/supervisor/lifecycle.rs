//! One slot's life: who starts, serves, drains and dies in it, and what is to be done about it.
//!
//! Pure: facts and a time in, actions out. Processes, signals and clocks are the pool's.
//!
//! ```text
//! spawning ──ready──► serving ──drain──► draining ──► gone
//!     │                  │                   └─ grace period over: killed
//!     └─ not ready in time: killed           
//!                        └─ died: back-off, then the next generation
//! ```
//!
//! # Promises
//!
//! * At most one worker of a slot serves.
//! * A worker that is replaced drains only when its successor is ready.
//! * Once stopped, a slot starts nothing any more.

use std::time::Duration;

use crate::handoff::ids::{Generation, Timestamp};
use crate::supervisor::restart::{Deaths, RestartPolicy};

/// How long each phase may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifecycleSettings {
    /// From start to ready; longer is a failure.
    pub listen_timeout: Duration,
    /// The grace period when everything ends: from the order to drain to SIGKILL.
    pub kill_timeout: Duration,
    /// The grace period of a worker that is replaced or removed while others go on.
    pub drain_timeout: Duration,
    /// Generations of a slot that may drain at a time; with one more, the oldest has only
    /// `kill_timeout` left.
    pub max_draining: u16,
    /// When to start again.
    pub restart: RestartPolicy,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its process was started.
    Spawning {
        /// When it has to be ready.
        deadline: Timestamp,
    },
    /// It takes its slot's connections.
    Serving {
        /// When it began to.
        since: Timestamp,
    },
    /// It finishes what it has.
    Draining {
        /// When it served, if it ever did.
        since: Option<Timestamp>,
        /// When it is killed.
        deadline: Timestamp,
    },
    /// It was sent SIGKILL and is about to end.
    Killed {
        /// When it served, if it ever did.
        since: Option<Timestamp>,
    },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fact {
    /// The slot is to be filled.
    Start,
    /// A worker takes connections.
    Ready(Generation),
    /// A worker wants to be replaced.
    Leave(Generation),
    /// A worker broke the protocol.
    Violation(Generation),
    /// A worker's process has ended, or could not be started. `jitter` from 0 to 1.
    Exited(Generation, f64),
    /// Time has passed.
    Time,
    /// The whole is to end.
    Stop,
    /// The whole is to end at once.
    StopNow,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a worker.
    Spawn(Generation),
    /// Give it the slot's connections.
    Serve(Generation),
    /// Give it no more, and tell it so.
    Drain(Generation),
    /// Send it SIGTERM: it hasn't attached, so that it cannot be told otherwise.
    Terminate(Generation),
    /// Send it SIGKILL.
    Kill(Generation, KillReason),
    /// The next start is at that time.
    BackOff(Duration),
}

/// Why a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// It wasn't ready in time.
    NotReady,
    /// It broke the protocol.
    Violation,
    /// Its grace period is over.
    GraceOver,
    /// Everything is to end at once.
    StopNow,
}

/// One slot's workers.
#[derive(Clone, Debug)]
pub struct SlotLife {
    settings: LifecycleSettings,
    workers: Vec<(Generation, Phase)>,
    next_generation: u32,
    next_spawn: Option<Timestamp>,
    deaths: Deaths,
    ever_ready: bool,
    stopped: bool,
}

impl SlotLife {
    /// An empty slot.
    #[must_use]
    pub fn new(settings: LifecycleSettings) -> Self {
        Self {
            settings,
            workers: Vec::new(),
            next_generation: 0,
            next_spawn: None,
            deaths: Deaths::default(),
            ever_ready: false,
            stopped: false,
        }
    }

    /// What to do about a fact. Facts of workers that are gone are ignored.
    pub fn on(&mut self, fact: Fact, now: Timestamp) -> Vec<Action> {
        match fact {
            Fact::Start => self.spawn(now),
            Fact::Ready(generation) => self.ready(generation, now),
            Fact::Leave(generation) => self.leave(generation, now),
            Fact::Violation(generation) => self.kill(generation, KillReason::Violation),
            Fact::Exited(generation, jitter) => self.exited(generation, jitter, now),
            Fact::Time => self.time(now),
            Fact::Stop => self.stop(now),
            Fact::StopNow => {
                self.stopped = true;
                self.next_spawn = None;
                let all = self.workers.clone().into_iter();
                all.flat_map(|(worker, _)| self.kill(worker, KillReason::StopNow)).collect()
            }
        }
    }

    /// When time alone changes something next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let deadlines = self.workers.iter().filter_map(|(_, phase)| match phase {
            Phase::Spawning { deadline } | Phase::Draining { deadline, .. } => Some(*deadline),
            Phase::Serving { .. } | Phase::Killed { .. } => None,
        });
        deadlines.chain(self.next_spawn).min()
    }

    /// Whether one of its workers serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.workers.iter().any(|(_, phase)| matches!(phase, Phase::Serving { .. }))
    }

    /// Whether the slot's first worker has become ready or has failed to.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.ever_ready || self.deaths.in_a_row() > 0
    }

    /// Whether none of its workers ever became ready, in as many attempts as the policy grants.
    #[must_use]
    pub fn has_failed_to_start(&self) -> bool {
        !self.ever_ready && self.deaths.in_a_row() >= self.settings.restart.start_attempts
    }

    /// Whether it has no worker.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Where a worker stands.
    #[must_use]
    pub fn phase(&self, generation: Generation) -> Option<Phase> {
        self.workers.iter().find(|(worker, _)| *worker == generation).map(|(_, phase)| *phase)
    }

    fn spawn(&mut self, now: Timestamp) -> Vec<Action> {
        if self.stopped {
            return Vec::new();
        }
        let generation = Generation(self.next_generation);
        self.next_generation += 1;
        self.next_spawn = None;
        let deadline = now + self.settings.listen_timeout;
        self.workers.push((generation, Phase::Spawning { deadline }));
        vec![Action::Spawn(generation)]
    }

    fn ready(&mut self, generation: Generation, now: Timestamp) -> Vec<Action> {
        if !matches!(self.phase(generation), Some(Phase::Spawning { .. })) {
            return Vec::new();
        }
        self.ever_ready = true;
        let mut actions = vec![Action::Serve(generation)];
        let before = self.workers.iter().find(|(_, phase)| matches!(phase, Phase::Serving { .. }));
        if let Some((predecessor, _)) = before.copied() {
            actions.extend(self.drain(predecessor, now));
        }
        self.set(generation, Phase::Serving { since: now });
        actions
    }

    fn leave(&mut self, generation: Generation, now: Timestamp) -> Vec<Action> {
        match self.phase(generation) {
            Some(Phase::Serving { .. }) if self.is_starting() => Vec::new(),
            Some(Phase::Serving { .. }) => self.spawn(now),
            Some(Phase::Spawning { .. }) => self.drain(generation, now).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn exited(&mut self, generation: Generation, jitter: f64, now: Timestamp) -> Vec<Action> {
        let Some(phase) = self.phase(generation) else { return Vec::new() };
        self.workers.retain(|(worker, _)| *worker != generation);
        if self.stopped || self.is_serving() || self.is_starting() || self.next_spawn.is_some() {
            return Vec::new();
        }
        let since = match phase {
            Phase::Spawning { .. } => None,
            Phase::Serving { since } => Some(since),
            Phase::Draining { since, .. } | Phase::Killed { since } => since,
        };
        let served = since.map(|since| now.since(since));
        let delay = self.deaths.after_death(&self.settings.restart, served, jitter);
        if delay.is_zero() {
            return self.spawn(now);
        }
        self.next_spawn = Some(now + delay);
        vec![Action::BackOff(delay)]
    }

    fn time(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        for (generation, phase) in self.workers.clone() {
            match phase {
                Phase::Spawning { deadline } if now >= deadline => {
                    actions.extend(self.kill(generation, KillReason::NotReady));
                }
                Phase::Draining { deadline, .. } if now >= deadline => {
                    actions.extend(self.kill(generation, KillReason::GraceOver));
                }
                _ => {}
            }
        }
        if self.next_spawn.is_some_and(|at| now >= at) {
            actions.extend(self.spawn(now));
        }
        actions
    }

    fn stop(&mut self, now: Timestamp) -> Vec<Action> {
        self.stopped = true;
        self.next_spawn = None;
        let all = self.workers.clone().into_iter();
        all.flat_map(|(generation, _)| self.drain(generation, now)).collect()
    }

    fn drain(&mut self, generation: Generation, now: Timestamp) -> Option<Action> {
        let deadline = now + self.settings.kill_timeout;
        let (since, action) = match self.phase(generation)? {
            Phase::Serving { since } => (Some(since), Action::Drain(generation)),
            Phase::Spawning { .. } => (None, Action::Terminate(generation)),
            Phase::Draining { .. } | Phase::Killed { .. } => return None,
        };
        self.set(generation, Phase::Draining { since, deadline });
        Some(action)
    }

    fn kill(&mut self, generation: Generation, reason: KillReason) -> Vec<Action> {
        let since = match self.phase(generation) {
            None | Some(Phase::Killed { .. }) => return Vec::new(),
            Some(Phase::Spawning { .. }) => None,
            Some(Phase::Serving { since }) => Some(since),
            Some(Phase::Draining { since, .. }) => since,
        };
        self.set(generation, Phase::Killed { since });
        vec![Action::Kill(generation, reason)]
    }

    fn is_starting(&self) -> bool {
        self.workers.iter().any(|(_, phase)| matches!(phase, Phase::Spawning { .. }))
    }

    fn set(&mut self, generation: Generation, phase: Phase) {
        if let Some(worker) = self.workers.iter_mut().find(|(worker, _)| *worker == generation) {
            worker.1 = phase;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: LifecycleSettings = LifecycleSettings {
        listen_timeout: Duration::from_secs(3),
        kill_timeout: Duration::from_secs(10),
        drain_timeout: Duration::from_secs(600),
        max_draining: 2,
        restart: RestartPolicy::DEFAULT,
    };

    fn at(millis: u64) -> Timestamp {
        Timestamp(0) + Duration::from_millis(millis)
    }

    const G0: Generation = Generation(0);
    const G1: Generation = Generation(1);

    /// Plays facts at times, and compares what is done about each.
    fn play(steps: &[(u64, Fact, &[Action])]) -> SlotLife {
        let mut life = SlotLife::new(SETTINGS);
        for (step, (millis, fact, expected)) in steps.iter().enumerate() {
            assert_eq!(life.on(*fact, at(*millis)), *expected, "step {step}: {fact:?}");
        }
        life
    }

    const STARTED: [(u64, Fact, &[Action]); 2] =
        [(0, Fact::Start, &[Action::Spawn(G0)]), (10, Fact::Ready(G0), &[Action::Serve(G0)])];

    fn play_on(steps: &[(u64, Fact, &[Action])]) -> SlotLife {
        play(&[&STARTED[..], steps].concat())
    }

    #[test]
    fn a_death_after_a_good_time_is_followed_at_once() {
        play_on(&[(2_000, Fact::Exited(G0, 0.0), &[Action::Spawn(G1)])]);
    }

    #[test]
    fn a_death_too_soon_is_followed_after_a_pause() {
        let pause = Action::BackOff(Duration::from_millis(100));
        play_on(&[
            (500, Fact::Exited(G0, 0.0), &[pause]),
            (599, Fact::Time, &[]),
            (600, Fact::Time, &[Action::Spawn(G1)]),
        ]);
    }

    #[test]
    fn a_worker_that_is_not_ready_in_time_is_killed() {
        play(&[
            (0, Fact::Start, &[Action::Spawn(G0)]),
            (2_999, Fact::Time, &[]),
            (3_000, Fact::Time, &[Action::Kill(G0, KillReason::NotReady)]),
            (3_001, Fact::Ready(G0), &[]),
        ]);
    }

    #[test]
    fn a_worker_that_leaves_serves_until_its_successor_is_ready() {
        play_on(&[
            (5_000, Fact::Leave(G0), &[Action::Spawn(G1)]),
            (5_001, Fact::Leave(G0), &[]),
            (5_100, Fact::Ready(G1), &[Action::Serve(G1), Action::Drain(G0)]),
            (5_200, Fact::Exited(G0, 0.0), &[]),
        ]);
    }

    #[test]
    fn a_drain_ends_with_the_grace_period() {
        play_on(&[
            (5_000, Fact::Stop, &[Action::Drain(G0)]),
            (14_999, Fact::Time, &[]),
            (15_000, Fact::Time, &[Action::Kill(G0, KillReason::GraceOver)]),
            (15_001, Fact::Exited(G0, 0.0), &[]),
        ]);
    }

    #[test]
    fn what_has_not_attached_is_terminated() {
        play(&[(0, Fact::Start, &[Action::Spawn(G0)]), (1, Fact::Stop, &[Action::Terminate(G0)])]);
    }

    #[test]
    fn a_second_stop_ends_all_at_once() {
        play_on(&[
            (5_000, Fact::Stop, &[Action::Drain(G0)]),
            (5_001, Fact::StopNow, &[Action::Kill(G0, KillReason::StopNow)]),
            (5_002, Fact::StopNow, &[]),
        ]);
    }

    #[test]
    fn whoever_breaks_the_protocol_is_killed_and_followed() {
        let life = play_on(&[
            (5_000, Fact::Violation(G0), &[Action::Kill(G0, KillReason::Violation)]),
            (5_001, Fact::Exited(G0, 0.0), &[Action::Spawn(G1)]),
        ]);
        assert!(life.has_started() && !life.is_serving());
    }

    #[test]
    fn a_start_fails_after_its_attempts() {
        let mut life = SlotLife::new(SETTINGS);
        life.on(Fact::Start, at(0));
        for generation in 0..3 {
            assert!(!life.has_failed_to_start());
            life.on(Fact::Exited(Generation(generation), 0.0), at(1));
            life.on(Fact::Time, at(60_000));
        }
        assert!(life.has_failed_to_start());
    }

    fn facts() -> impl Strategy<Value = Fact> {
        let generation = || (0..6_u32).prop_map(Generation);
        prop_oneof![
            4 => generation().prop_map(Fact::Ready),
            2 => generation().prop_map(Fact::Leave),
            1 => generation().prop_map(Fact::Violation),
            4 => (generation(), 0.0..1.0).prop_map(|(g, jitter)| Fact::Exited(g, jitter)),
            4 => Just(Fact::Time),
            1 => prop_oneof![9 => Just(Fact::Time), 1 => Just(Fact::Stop)],
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_promises_hold(
            steps in prop::collection::vec((0..4_000_u64, facts()), 1..80)
        ) {
            let mut life = SlotLife::new(SETTINGS);
            let mut now = 0;
            let mut stopped = false;
            life.on(Fact::Start, at(0));
            for (millis, fact) in steps {
                now += millis;
                let actions = life.on(fact, at(now));
                stopped |= fact == Fact::Stop;
                let phases = || life.workers.iter().map(|(_, phase)| phase);
                let serving = phases().filter(|phase| matches!(phase, Phase::Serving { .. })).count();
                let starting =
                    phases().filter(|phase| matches!(phase, Phase::Spawning { .. })).count();
                prop_assert!(serving <= 1, "two workers serve");
                prop_assert!(starting <= 1, "two workers start");
                let spawned = actions.iter().any(|action| matches!(action, Action::Spawn(_)));
                prop_assert!(!(stopped && spawned), "a stopped slot starts a worker");
                // Whatever is not at rest has a time at which it goes on.
                let at_rest = stopped && life.is_empty()
                    || serving == 1
                    || phases().any(|phase| matches!(phase, Phase::Killed { .. }));
                prop_assert!(at_rest || life.next_deadline().is_some(), "stuck: {life:?}");
            }
        }
    }
}
