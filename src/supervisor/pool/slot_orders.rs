//! What the operator orders of a single slot: drain, undrain, restart, kill, signal.

use rustix::process::Signal;

use crate::link::seam::SlotCommand;
use crate::protocol::ids::SlotId;
use crate::supervisor::lifecycle::{Fact, KillReason, SlotState};
use crate::supervisor::pool::handle::{Refusal, SlotOrder};
use crate::supervisor::pool::{Pool, PoolError};

impl Pool {
    pub(super) async fn obey_for_slot(
        &mut self,
        slot: SlotId,
        order: SlotOrder,
    ) -> Result<Result<(), Refusal>, PoolError> {
        if let Err(refusal) = self.may(slot, order) {
            return Ok(Err(refusal));
        }
        tracing::info!(slot = slot.0, ?order, "slot is ordered to do something");
        match order {
            SlotOrder::Drain => self.drain_slot(slot).await?,
            SlotOrder::Undrain => self.undrain_slot(slot).await?,
            SlotOrder::Restart => self.planner.order(slot),
            SlotOrder::Kill => {
                if let Some(worker) = self.serving(slot) {
                    self.on(slot, Fact::Kill(worker.generation, KillReason::Ordered)).await?;
                }
            }
            SlotOrder::Signal(signal) => self.send(slot, signal),
        }
        Ok(Ok(()))
    }

    /// Whether a slot can do that now.
    fn may(&self, slot: SlotId, order: SlotOrder) -> Result<(), Refusal> {
        let found = self.slots.get(&slot).filter(|_| self.is_active(slot));
        let Some(found) = found else {
            let slots: Vec<_> = self.active().map(|(slot, _)| slot).collect();
            return Err(Refusal::no_slot(slot, &slots));
        };
        let state = found.life.state();
        match order {
            SlotOrder::Drain | SlotOrder::Restart if state == SlotState::Drained => {
                Err(Refusal::Already(slot, "drained"))
            }
            SlotOrder::Drain if state == SlotState::Serving && self.count_serving().0 == 1 => {
                Err(Refusal::LastServing(slot))
            }
            SlotOrder::Undrain if state == SlotState::Serving => {
                Err(Refusal::Already(slot, "serving"))
            }
            SlotOrder::Kill | SlotOrder::Signal(_) if !found.life.is_serving() => {
                Err(Refusal::NoWorker(slot))
            }
            _ => Ok(()),
        }
    }

    /// Its clients go to the next slots of their ranking. It stays in all rankings, so that those
    /// who come when it is back are its own again.
    async fn drain_slot(&mut self, slot: SlotId) -> Result<(), PoolError> {
        self.give_up_replacing(slot, "its slot is drained");
        self.on(slot, Fact::Drain).await?;
        Ok(self.links.frontend.send(SlotCommand::GiveUp(slot)).await?)
    }

    /// What was drained may be of a kind that is outdated; what is at rest or starts is not.
    async fn undrain_slot(&mut self, slot: SlotId) -> Result<(), PoolError> {
        let command = self.proven_command();
        if let Some(found) = self.slots.get_mut(&slot)
            && found.life.state() == SlotState::Drained
        {
            found.command = command;
            self.planner.join(slot);
        }
        self.on(slot, Fact::Start).await
    }

    /// To the worker itself: what it has started may not know the signal.
    fn send(&self, slot: SlotId, signal: Signal) {
        let serving = self.serving(slot).and_then(|worker| self.running.get(&worker));
        if let Some(running) = serving {
            running.process.signal_alone(signal);
        }
    }
}
