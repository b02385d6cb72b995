//! More slots, or fewer: by signal, by command, by load, by a reload.
//!
//! During a rolling restart it is not known yet of which kind new workers are to be: what is ordered
//! then is done when it has ended.

use crate::handover::carry;
use crate::handover::pool::{DeferredSnapshot, RequesterSnapshot};
use crate::link::seam::SlotCommand;
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::event::Event;
use crate::supervisor::lifecycle::{Fact, SlotState};
use crate::supervisor::pool::handle::{Refusal, Scale, Scaled};
use crate::supervisor::pool::{MOST_WORKERS, Pool, PoolError};

/// What was ordered during a rolling restart, one order after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deferred {
    /// So many there are to be, whatever there will be then.
    to: Option<u16>,
    /// And so many more, or fewer.
    by: i32,
    /// Who has ordered last.
    who: Who,
}

carry!(struct Deferred => DeferredSnapshot { to, by, who });

/// Who has ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Signal,
    Command,
}

carry!(enum Who => RequesterSnapshot { Signal, Command });

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Command => "command",
        }
    }
}

/// How few and how many workers there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    least: u16,
    most: u16,
}

impl Bounds {
    fn clamp(self, count: i32) -> u16 {
        let count = u16::try_from(count.max(0)).unwrap_or(u16::MAX);
        count.min(self.most).max(self.least)
    }

    /// # Errors
    ///
    /// If there cannot be so many.
    fn check(self, count: i64) -> Result<u16, Refusal> {
        let within = u16::try_from(count).ok().filter(|it| (self.least..=self.most).contains(it));
        within.ok_or(Refusal::OutOfRange(count, self.least, self.most))
    }
}

impl Scale {
    /// So many are meant, where there are `count` before.
    fn of(self, count: u16) -> i64 {
        match self {
            Self::To(to) => to.into(),
            Self::By(by) => i64::from(count) + i64::from(by),
        }
    }
}

impl Deferred {
    /// Nothing, before the first order.
    pub(super) const NOTHING: Self = Self { to: None, by: 0, who: Who::Signal };

    /// What there will be if there are `count` when it is done.
    fn outcome(self, count: u16, bounds: Bounds) -> u16 {
        bounds.clamp(i32::from(self.to.unwrap_or(count)).saturating_add(self.by))
    }

    /// One order more, with nobody to hear that it can't be done.
    pub(super) fn then(self, scale: Scale) -> Self {
        let who = Who::Signal;
        match scale {
            Scale::To(to) => Self { to: Some(to), by: 0, who },
            Scale::By(by) => Self { by: self.by.saturating_add(by), who, ..self },
        }
    }

    /// One order more, where `count` are expected at the end: from how many to how many that is.
    fn then_by_command(
        self,
        scale: Scale,
        count: u16,
        bounds: Bounds,
    ) -> Result<(Self, Scaled), Refusal> {
        let from = self.outcome(count, bounds);
        let to = bounds.check(scale.of(from))?;
        let scaled = Scaled { from, to, deferred: true };
        let who = Who::Command;
        let next = match scale {
            Scale::To(to) => Self { to: Some(to), by: 0, who },
            // Whatever went beyond the bounds before is forgotten.
            Scale::By(_) => {
                let before = i32::from(self.to.unwrap_or(count));
                Self { by: i32::from(to) - before, who, ..self }
            }
        };
        Ok((next, scaled))
    }
}

impl Pool {
    /// As far as there can be so many.
    pub(super) async fn scale_as_signalled(&mut self, scale: Scale) -> Result<(), PoolError> {
        if self.planner.is_rolling() {
            self.deferred = Some(self.deferred.unwrap_or(Deferred::NOTHING).then(scale));
            return Ok(());
        }
        let order = Deferred::NOTHING.then(scale);
        self.scale_as(order).await
    }

    pub(super) async fn scale_as_ordered(
        &mut self,
        scale: Scale,
    ) -> Result<Result<Scaled, Refusal>, PoolError> {
        let bounds = self.bounds();
        if self.planner.is_rolling() {
            let deferred = self.deferred.unwrap_or(Deferred::NOTHING);
            let ordered = deferred.then_by_command(scale, self.count_expected(), bounds);
            return Ok(ordered.map(|(deferred, scaled)| {
                self.deferred = Some(deferred);
                scaled
            }));
        }
        let from = self.count_active();
        let to = match bounds.check(scale.of(from)) {
            Ok(to) => to,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.health.scaled(Timestamp::now());
        self.scale_to(to, "command").await?;
        Ok(Ok(Scaled { from, to, deferred: false }))
    }

    /// The rolling restart that orders waited for has ended.
    pub(super) async fn scale_as_deferred(&mut self) -> Result<(), PoolError> {
        match self.deferred.take() {
            Some(deferred) => self.scale_as(deferred).await,
            None => Ok(()),
        }
    }

    async fn scale_as(&mut self, order: Deferred) -> Result<(), PoolError> {
        self.health.scaled(Timestamp::now());
        let to = order.outcome(self.count_active(), self.bounds());
        self.scale_to(to, order.who.name()).await
    }

    /// Lowest free numbers come first and highest go first, drained or not, so that numbers stay
    /// contiguous.
    pub(super) async fn scale_to(&mut self, to: u16, by: &'static str) -> Result<(), PoolError> {
        let from = self.count_active();
        self.settings.workers = to;
        if from == to {
            return Ok(());
        }
        self.links.announcer.announce(Event::Scaled { from, to, by });
        for _ in from..to {
            let free = (0..MOST_WORKERS).map(SlotId).find(|slot| !self.is_active(*slot));
            let Some(slot) = free else { break };
            self.add_slot(slot, false);
            self.on(slot, Fact::Start).await?;
        }
        for _ in to..from {
            let highest = self.active().map(|(slot, _)| slot).last();
            let Some(slot) = highest else { break };
            self.remove_slot(slot).await?;
        }
        Ok(())
    }

    /// Its clients go to the others before it drains.
    pub(super) async fn remove_slot(&mut self, slot: SlotId) -> Result<(), PoolError> {
        if let Some(removed) = self.slots.get_mut(&slot) {
            removed.ranked = false;
        }
        self.rank().await?;
        self.give_up_replacing(slot, "its slot is removed");
        self.on(slot, Fact::Remove).await?;
        self.links.frontend.send(SlotCommand::GiveUp(slot)).await?;
        Ok(())
    }

    pub(super) fn is_active(&self, slot: SlotId) -> bool {
        let slot = self.slots.get(&slot);
        slot.is_some_and(|slot| slot.life.state() != SlotState::Removed)
    }

    fn bounds(&self) -> Bounds {
        match self.settings.autoscale {
            Some(bounds) => Bounds { least: bounds.min_workers.max(1), most: bounds.max_workers },
            None => Bounds { least: 1, most: MOST_WORKERS },
        }
    }

    fn count_active(&self) -> u16 {
        u16::try_from(self.active().count()).unwrap_or(u16::MAX)
    }

    /// So many there will be when the rolling restart that is under way is done.
    fn count_expected(&self) -> u16 {
        match self.settings.autoscale {
            Some(_) => self.count_active(),
            None => self.settings.workers,
        }
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
            // What a signal could not have is not in the way of a command.
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
        assert_eq!(ordered.then(By(1)).who, Who::Signal);
    }
}
