//! More slots, or fewer: by signal, by command, by load, by a reload.
//!
//! During a rolling restart it is not known yet which command new workers are to run: an order that
//! comes then is carried out when it has ended.

use crate::handover::carry;
use crate::handover::pool::{DeferredSnapshot, OriginSnapshot};
use crate::link::seam::{SlotCommand, WorkerId};
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::autoscale::{Autoscaler, Decision, LoadMeasure, WorkerLoad};
use crate::supervisor::event::Event;
use crate::supervisor::lifecycle::Fact;
use crate::supervisor::pool::error::PoolError;
use crate::supervisor::pool::fleet::Fleet;
use crate::supervisor::pool::handle::{Refusal, Scale, Scaled};
use crate::supervisor::pool::settings::{MAX_WORKERS, PoolSettings};
use crate::supervisor::pool::timer::sleep_until;

/// The sum of the orders that came during a rolling restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deferred {
    /// The number of slots that was ordered, whatever their number will be then.
    to: Option<u16>,
    /// Slots to add to that, or to remove.
    by: i32,
    /// Where the last order came from.
    who: Origin,
}

carry!(struct Deferred => DeferredSnapshot { to, by, who });

/// Where an order came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Signal,
    Command,
}

carry!(enum Origin => OriginSnapshot { Signal, Command });

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Command => "command",
        }
    }
}

/// The bounds of the number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    least: u16,
    most: u16,
}

impl Bounds {
    fn new(settings: &PoolSettings) -> Self {
        match settings.autoscale {
            Some(bounds) => Self { least: bounds.min_workers.max(1), most: bounds.max_workers },
            None => Self { least: 1, most: MAX_WORKERS.min(settings.dispatch.max_slots()) },
        }
    }

    fn clamp(self, count: i32) -> u16 {
        let count = u16::try_from(count.max(0)).unwrap_or(u16::MAX);
        count.min(self.most).max(self.least)
    }

    /// # Errors
    ///
    /// If it is out of bounds.
    fn check(self, count: i64) -> Result<u16, Refusal> {
        let within = u16::try_from(count).ok().filter(|it| (self.least..=self.most).contains(it));
        within.ok_or(Refusal::OutOfRange(count, self.least, self.most))
    }
}

impl Scale {
    /// The number that is meant, where there are `count` before.
    fn target(self, count: u16) -> i64 {
        match self {
            Self::To(to) => to.into(),
            Self::By(by) => i64::from(count) + i64::from(by),
        }
    }
}

impl Deferred {
    /// The sum of no orders.
    pub(super) const NOTHING: Self = Self { to: None, by: 0, who: Origin::Signal };

    /// The number of slots afterwards, if there are `count` when it is carried out.
    fn outcome(self, count: u16, bounds: Bounds) -> u16 {
        bounds.clamp(i32::from(self.to.unwrap_or(count)).saturating_add(self.by))
    }

    /// Adds an order that gets no answer.
    pub(super) fn then(self, scale: Scale) -> Self {
        let who = Origin::Signal;
        match scale {
            Scale::To(to) => Self { to: Some(to), by: 0, who },
            Scale::By(by) => Self { by: self.by.saturating_add(by), who, ..self },
        }
    }

    /// Adds an order, where `count` slots are expected at the end, and says what it comes to.
    fn then_by_command(
        self,
        scale: Scale,
        count: u16,
        bounds: Bounds,
    ) -> Result<(Self, Scaled), Refusal> {
        let from = self.outcome(count, bounds);
        let to = bounds.check(scale.target(from))?;
        let scaled = Scaled { from, to, deferred: true };
        let who = Origin::Command;
        let next = match scale {
            Scale::To(to) => Self { to: Some(to), by: 0, who },
            // An earlier excess over the bounds is forgotten.
            Scale::By(_) => {
                let before = i32::from(self.to.unwrap_or(count));
                Self { by: i32::from(to) - before, who, ..self }
            }
        };
        Ok((next, scaled))
    }
}

/// When and how the number of slots changes.
#[derive(Debug, Default)]
pub(super) struct Scaling {
    /// Orders that wait for the end of the rolling restart.
    pub(super) deferred: Option<Deferred>,
    autoscaler: Option<Autoscaler>,
    /// When load is looked at next.
    look_at: Option<Timestamp>,
}

impl Scaling {
    /// Follows these settings from now on.
    pub(super) fn change(&mut self, settings: &PoolSettings, now: Timestamp) {
        self.autoscaler = settings.autoscale.map(|new| match self.autoscaler.take() {
            Some(mut autoscaler) => {
                autoscaler.change(new);
                autoscaler
            }
            None => Autoscaler::new(new),
        });
        self.look_at = settings.autoscale.map(|settings| now + settings.interval);
    }

    /// Waits until load is to be looked at. May be dropped and called again.
    pub(super) async fn next(&self) {
        sleep_until(self.look_at).await;
    }

    /// An order that gets no answer, carried out as far as the bounds allow.
    pub(super) async fn by_signal(
        &mut self,
        fleet: &mut Fleet,
        scale: Scale,
    ) -> Result<(), PoolError> {
        if fleet.planner.is_rolling() {
            self.deferred = Some(self.deferred.unwrap_or(Deferred::NOTHING).then(scale));
            return Ok(());
        }
        self.carry_out(fleet, Deferred::NOTHING.then(scale)).await
    }

    /// An order that is answered.
    pub(super) async fn by_command(
        &mut self,
        fleet: &mut Fleet,
        scale: Scale,
    ) -> Result<Result<Scaled, Refusal>, PoolError> {
        let bounds = Bounds::new(&fleet.settings);
        if fleet.planner.is_rolling() {
            let deferred = self.deferred.unwrap_or(Deferred::NOTHING);
            let ordered = deferred.then_by_command(scale, count_expected(fleet), bounds);
            return Ok(ordered.map(|(deferred, scaled)| {
                self.deferred = Some(deferred);
                scaled
            }));
        }
        let from = fleet.slots.count_active();
        let to = match bounds.check(scale.target(from)) {
            Ok(to) => to,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.note_order();
        scale_to(fleet, to, "command").await?;
        Ok(Ok(Scaled { from, to, deferred: false }))
    }

    /// The rolling restart that orders waited for has ended.
    pub(super) async fn resume(&mut self, fleet: &mut Fleet) -> Result<(), PoolError> {
        match self.deferred.take() {
            Some(deferred) => self.carry_out(fleet, deferred).await,
            None => Ok(()),
        }
    }

    async fn carry_out(&mut self, fleet: &mut Fleet, order: Deferred) -> Result<(), PoolError> {
        self.note_order();
        let to = order.outcome(fleet.slots.count_active(), Bounds::new(&fleet.settings));
        scale_to(fleet, to, order.who.name()).await
    }

    /// The number of slots was ordered: load decides nothing for a while.
    fn note_order(&mut self) {
        if let Some(autoscaler) = &mut self.autoscaler {
            autoscaler.scaled(Timestamp::now());
        }
    }

    /// Adds or removes a slot if load asks for it.
    pub(super) async fn look_at_load(&mut self, fleet: &mut Fleet) -> Result<(), PoolError> {
        let now = Timestamp::now();
        let Some(settings) = fleet.settings.autoscale else { return Ok(()) };
        self.look_at = Some(now + settings.interval);
        let serving = fleet.slots.all_serving().into_iter();
        let loads: Vec<_> =
            serving.filter_map(|worker| load(fleet, worker, settings.measure, now)).collect();
        let changing = fleet.slots.active().any(|(_, slot)| slot.life.is_filling())
            || fleet.planner.is_rolling()
            || fleet.state.is_stopping();
        let count = fleet.slots.count_active();
        let Some(autoscaler) = &mut self.autoscaler else { return Ok(()) };
        match autoscaler.look(now, &loads, changing) {
            Decision::Up if count < settings.max_workers => {
                scale_to(fleet, count.saturating_add(1), "load").await
            }
            Decision::Down(slot) => scale_down(fleet, slot, count).await,
            Decision::Up | Decision::Stay => Ok(()),
        }
    }
}

fn load(
    fleet: &Fleet,
    worker: WorkerId,
    measure: LoadMeasure,
    now: Timestamp,
) -> Option<WorkerLoad> {
    let running = fleet.workers.get(worker)?;
    let stats = running.stats();
    // An unknown load is not a number, and decides nothing.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let known = |count: Option<u64>| count.map_or(f64::NAN, |count| count as f64);
    let load = match measure {
        LoadMeasure::Connections => known(stats.connections),
        LoadMeasure::Requests => known(stats.requests),
        LoadMeasure::Cpu => running.health.cpu.unwrap_or(f64::NAN),
        LoadMeasure::Lag => running.health.watchdog.lag(now).as_secs_f64() * 1_000.0,
    };
    let connections = stats.connections.unwrap_or(0);
    Some(WorkerLoad { slot: worker.slot, load, connections })
}

/// Removes the slot that has the fewest connections to lose, or the last one if slots are numbered
/// without gaps.
async fn scale_down(fleet: &mut Fleet, slot: SlotId, from: u16) -> Result<(), PoolError> {
    let to = from.saturating_sub(1);
    if fleet.settings.contiguous {
        return scale_to(fleet, to, "load").await;
    }
    fleet.announcer.announce(Event::Scaled { from, to, by: "load" });
    fleet.settings.workers = to;
    remove_slot(fleet, slot).await
}

/// Adds slots with the lowest free numbers, or removes those with the highest, drained or not, so
/// that numbers stay contiguous.
pub(super) async fn scale_to(
    fleet: &mut Fleet,
    to: u16,
    by: &'static str,
) -> Result<(), PoolError> {
    let from = fleet.slots.count_active();
    fleet.settings.workers = to;
    if from == to {
        return Ok(());
    }
    fleet.announcer.announce(Event::Scaled { from, to, by });
    for _ in from..to {
        let Some(slot) = fleet.slots.first_free() else { break };
        fleet.slots.add(slot, false, &fleet.settings);
        fleet.on(slot, Fact::Start).await?;
    }
    for _ in to..from {
        let Some(slot) = fleet.slots.last_active() else { break };
        remove_slot(fleet, slot).await?;
    }
    Ok(())
}

/// Removes a slot. Its clients go to the others before it drains.
async fn remove_slot(fleet: &mut Fleet, slot: SlotId) -> Result<(), PoolError> {
    fleet.slots.unrank(slot);
    fleet.send_ranks().await?;
    fleet.cancel_replacement(slot, "its slot is removed");
    fleet.on(slot, Fact::Remove).await?;
    fleet.frontend.send(SlotCommand::GiveUp(slot)).await?;
    Ok(())
}

/// The number of slots when the rolling restart that is under way is done.
fn count_expected(fleet: &Fleet) -> u16 {
    match fleet.settings.autoscale {
        Some(_) => fleet.slots.count_active(),
        None => fleet.settings.workers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { least: 1, most: 8 };

    enum Ordered {
        Signal(i32),
        Command(Scale),
    }
    use Ordered::{Command, Signal};
    use Scale::{By, To};

    /// Four are expected. What came of the last order, and how many there will be, with four and
    /// with two.
    fn play(orders: &[Ordered]) -> (Option<Result<Scaled, Refusal>>, u16, u16) {
        let (mut deferred, mut last) = (Deferred::NOTHING, None);
        for order in orders {
            match order {
                Signal(by) => deferred = deferred.then(By(*by)),
                Command(scale) => match deferred.then_by_command(*scale, 4, BOUNDS) {
                    Ok((next, scaled)) => (deferred, last) = (next, Some(Ok(scaled))),
                    Err(refusal) => last = Some(Err(refusal)),
                },
            }
        }
        (last, deferred.outcome(4, BOUNDS), deferred.outcome(2, BOUNDS))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as it is compared")]
    fn scaled(from: u16, to: u16) -> Option<Result<Scaled, Refusal>> {
        Some(Ok(Scaled { from, to, deferred: true }))
    }

    #[test]
    fn what_is_ordered_during_a_rolling_restart_adds_up_in_order() {
        let refused = |count| Some(Err(Refusal::OutOfRange(count, 1, 8)));
        let table = [
            (vec![], (None, 4, 2)),
            (vec![Signal(1), Signal(1)], (None, 6, 4)),
            (vec![Signal(-9)], (None, 1, 1)),
            (vec![Command(By(2)), Command(By(-1))], (scaled(6, 5), 5, 3)),
            (vec![Command(By(2)), Command(To(3))], (scaled(6, 3), 3, 3)),
            (vec![Command(To(3)), Command(By(2))], (scaled(3, 5), 5, 5)),
            (vec![Command(To(3)), Signal(-1)], (scaled(4, 3), 2, 2)),
            // The excess of a signal doesn't limit a later command.
            (vec![Signal(-9), Command(By(1))], (scaled(1, 2), 2, 1)),
            (vec![Signal(99), Command(By(1))], (refused(9), 8, 8)),
            (vec![Command(By(-4))], (refused(0), 4, 2)),
            (vec![Command(By(1)), Command(To(0))], (refused(0), 5, 3)),
            (vec![Command(By(i32::MAX)), Command(To(9))], (refused(9), 4, 2)),
            (vec![Signal(i32::MAX), Signal(i32::MAX)], (None, 8, 8)),
        ];
        for (row, (orders, expected)) in table.into_iter().enumerate() {
            assert_eq!(play(&orders), expected, "row {row}");
        }
    }

    #[test]
    fn the_one_who_ordered_last_is_named() {
        let signalled = Deferred::NOTHING.then(By(1));
        let (ordered, _) = signalled.then_by_command(By(1), 4, BOUNDS).unwrap();
        assert_eq!((signalled.who.name(), ordered.who.name()), ("signal", "command"));
        assert_eq!(ordered.then(By(1)).who, Origin::Signal);
    }
}
