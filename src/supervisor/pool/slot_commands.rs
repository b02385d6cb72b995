//! Commands for a single slot: drain, undrain, restart, kill, signal.

use rustix::process::Signal;

use crate::link::seam::SlotCommand;
use crate::protocol::ids::SlotId;
use crate::supervisor::lifecycle::{Fact, KillReason, SlotState};
use crate::supervisor::pool::error::PoolError;
use crate::supervisor::pool::fleet::Fleet;
use crate::supervisor::pool::handle::{Refusal, SlotOrder};
use crate::supervisor::pool::slots::Slots;

/// Carries out a command, or refuses it.
pub(super) async fn execute(
    fleet: &mut Fleet,
    slot: SlotId,
    order: SlotOrder,
) -> Result<Result<(), Refusal>, PoolError> {
    if let Err(refusal) = check(&fleet.slots, slot, order) {
        return Ok(Err(refusal));
    }
    tracing::info!(slot = slot.0, ?order, "slot command received");
    match order {
        SlotOrder::Drain => drain(fleet, slot).await?,
        SlotOrder::Undrain => undrain(fleet, slot).await?,
        SlotOrder::Restart => fleet.planner.order(slot),
        SlotOrder::Kill => {
            if let Some(worker) = fleet.slots.serving(slot) {
                fleet.on(slot, Fact::Kill(worker.generation, KillReason::Ordered)).await?;
            }
        }
        SlotOrder::Signal(signal) => send(fleet, slot, signal),
    }
    Ok(Ok(()))
}

/// Whether a slot can do that now.
fn check(slots: &Slots, slot: SlotId, order: SlotOrder) -> Result<(), Refusal> {
    let Some(found) = slots.get(slot).filter(|_| slots.is_active(slot)) else {
        let active: Vec<_> = slots.active().map(|(slot, _)| slot).collect();
        return Err(Refusal::no_slot(slot, &active));
    };
    let state = found.life.state();
    match order {
        SlotOrder::Drain if state == SlotState::Drained => Err(Refusal::Already(slot, "drained")),
        SlotOrder::Restart if state == SlotState::Drained => Err(Refusal::Drained(slot)),
        SlotOrder::Drain if state == SlotState::Serving && slots.count_serving().0 == 1 => {
            Err(Refusal::LastServing(slot))
        }
        SlotOrder::Undrain if state == SlotState::Serving => Err(Refusal::Already(slot, "serving")),
        SlotOrder::Kill | SlotOrder::Signal(_) if !found.life.is_serving() => {
            Err(Refusal::NoWorker(slot))
        }
        _ => Ok(()),
    }
}

/// Its clients go to the next slots of their ranking. It stays in all rankings, so that its own
/// clients reach it again when it is back.
async fn drain(fleet: &mut Fleet, slot: SlotId) -> Result<(), PoolError> {
    fleet.cancel_replacement(slot, "its slot is drained");
    fleet.on(slot, Fact::Drain).await?;
    Ok(fleet.frontend.send(SlotCommand::GiveUp(slot)).await?)
}

/// A drained slot may have an outdated command; an idle or starting one has not.
async fn undrain(fleet: &mut Fleet, slot: SlotId) -> Result<(), PoolError> {
    let command = fleet.stable_command();
    if let Some(found) = fleet.slots.get_mut(slot)
        && found.life.state() == SlotState::Drained
    {
        found.command = command;
        fleet.planner.join(slot);
    }
    fleet.on(slot, Fact::Start).await
}

/// Signals the worker alone: processes that it has started may not know the signal.
fn send(fleet: &Fleet, slot: SlotId, signal: Signal) {
    let serving = fleet.slots.serving(slot).and_then(|worker| fleet.workers.get(worker));
    if let Some(running) = serving {
        running.process.signal_alone(signal);
    }
}
