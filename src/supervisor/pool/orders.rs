//! What the operator orders: reload, more workers or fewer.

use crate::handoff::ids::{SlotId, Timestamp};
use crate::handoff::slots::SlotCommand;
use crate::supervisor::event::Event;
use crate::supervisor::lifecycle::{Fact, SlotState};
use crate::supervisor::pool::handle::Scale;
use crate::supervisor::pool::{MOST_WORKERS, Order, Pool, PoolError, PoolSettings};
use crate::supervisor::rollout::Trigger;

impl Pool {
    pub(super) async fn obey(&mut self, order: Order) -> Result<(), PoolError> {
        match order {
            Order::Stop => self.stop(),
            Order::StopNow => self.stop_now().await?,
            Order::Status(reply) => drop(reply.send(Ok(self.status()))),
            // The end is near: nothing is begun any more.
            _ if self.stopping.is_ordered() => {}
            Order::Reload(trigger, settings, _) => self.reload(trigger, *settings),
            Order::Scale(Scale::By(delta), _) if self.planner.is_rolling() => {
                self.deferred = self.deferred.saturating_add(delta);
            }
            Order::Scale(Scale::By(delta), _) => self.scale_by(delta, "signal").await?,
            Order::Scale(Scale::To(_), _) | Order::Slot(..) => {}
        }
        Ok(())
    }

    /// Slots are added and removed when the new workers have proved themselves.
    fn reload(&mut self, trigger: Trigger, settings: PoolSettings) {
        let before = std::mem::replace(&mut self.settings, settings);
        self.before.get_or_insert(before);
        // What was ordered before the number of workers was read anew counts no more.
        self.deferred = 0;
        self.apply_settings();
        let slots = self.active().map(|(slot, _)| slot).collect();
        self.planner.begin(trigger, slots);
    }

    /// Each slot's life, and what is looked at, go by the pool's settings.
    pub(super) fn apply_settings(&mut self) {
        for slot in self.slots.values_mut() {
            slot.life.change(self.settings.lifecycle.clone());
        }
        self.health.change(&self.settings, Timestamp::now());
    }

    pub(super) async fn scale_by(&mut self, delta: i32, by: &'static str) -> Result<(), PoolError> {
        let now = i32::try_from(self.active().count()).unwrap_or(i32::MAX);
        let to = now.saturating_add(delta).clamp(1, i32::from(MOST_WORKERS));
        let mut to = u16::try_from(to).unwrap_or(MOST_WORKERS);
        if let Some(bounds) = self.settings.autoscale {
            to = to.clamp(bounds.min_workers, bounds.max_workers);
            self.health.scaled(Timestamp::now());
        }
        self.scale_to(to, by).await
    }

    /// Lowest free numbers come first and highest go first, so that numbers stay dense.
    pub(super) async fn scale_to(&mut self, to: u16, by: &'static str) -> Result<(), PoolError> {
        let from = u16::try_from(self.active().count()).unwrap_or(u16::MAX);
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
        self.planner.removed(slot);
        self.on(slot, Fact::Remove).await?;
        self.links.frontend.send(SlotCommand::GiveUp(slot)).await?;
        Ok(())
    }

    fn is_active(&self, slot: SlotId) -> bool {
        let slot = self.slots.get(&slot);
        slot.is_some_and(|slot| slot.life.state() != SlotState::Removed)
    }
}
