//! What the operator orders: each order is carried out, or refused, and answered.

use crate::protocol::ids::Timestamp;
use crate::supervisor::lifecycle::SlotState;
use crate::supervisor::pool::handle::{Refusal, Reply};
use crate::supervisor::pool::{Order, Pool, PoolError, PoolSettings};
use crate::supervisor::rollout::Trigger;

impl Pool {
    pub(super) async fn obey(&mut self, order: Order) -> Result<(), PoolError> {
        match order {
            Order::Stop => self.stop(),
            Order::StopNow => self.stop_now().await?,
            Order::HandOver(reply) => answer(Some(reply), self.begin_hand_over()),
            Order::Status(reply) => answer(Some(reply), Ok(self.status())),
            // The end is near: nothing is begun any more.
            Order::Reload(_, _, reply) if self.is_stopping() => refuse(reply),
            Order::Scale(_, reply) if self.is_stopping() => refuse(reply),
            Order::Slot(_, _, reply) if self.is_stopping() => refuse(Some(reply)),
            Order::Reload(trigger, settings, reply) => {
                let number = self.reload(trigger, *settings);
                answer(reply, Ok(number));
            }
            Order::Scale(scale, None) => self.scale_as_signalled(scale).await?,
            Order::Scale(scale, reply) => answer(reply, self.scale_as_ordered(scale).await?),
            Order::Slot(slot, order, reply) => {
                let result = self.obey_for_slot(slot, order).await?;
                answer(Some(reply), result);
            }
        }
        Ok(())
    }

    /// Slots are added and removed when the new workers have proved themselves; drained ones are
    /// left alone. Returns the number of the rolling restart.
    fn reload(&mut self, trigger: Trigger, settings: PoolSettings) -> u64 {
        let before = std::mem::replace(&mut self.settings, settings);
        self.before.get_or_insert(before);
        // What was ordered before the number of workers was read anew counts no more.
        self.deferred = None;
        self.apply_settings();
        let slots = self.active().filter(|(_, slot)| slot.life.state() != SlotState::Drained);
        let slots = slots.map(|(slot, _)| slot).collect();
        self.planner.begin(trigger, slots)
    }

    /// Each slot's life, and what is looked at, go by the pool's settings.
    pub(super) fn apply_settings(&mut self) {
        for slot in self.slots.values_mut() {
            slot.life.change(self.settings.lifecycle.clone());
        }
        self.health.change(&self.settings, Timestamp::now());
    }

    fn is_stopping(&self) -> bool {
        self.stopping.is_ordered()
    }
}

fn refuse<T>(reply: Option<Reply<T>>) {
    answer(reply, Err(Refusal::Stopping));
}

/// Whoever has ordered may have gone.
fn answer<T>(reply: Option<Reply<T>>, answer: Result<T, Refusal>) {
    if let Some(reply) = reply {
        let _ = reply.send(answer);
    }
}
