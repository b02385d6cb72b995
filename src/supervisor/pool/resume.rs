//! Continues where another pool was, from its snapshot and the workers that run.
//!
//! After an upgrade both agree. After a crash the snapshot may be behind by one turn: the decisions of
//! that turn are found out from the workers themselves, or made again.

use std::collections::BTreeMap;

use crate::handover::pool::StoppingSnapshot;
use crate::link::seam::{SlotCommand, WorkerId};
use crate::protocol::ids::Timestamp;
use crate::supervisor::event::{After, Event};
use crate::supervisor::lifecycle::SlotState;
use crate::supervisor::pool::adoption;
use crate::supervisor::pool::error::PoolError;
use crate::supervisor::pool::fleet::Fleet;
use crate::supervisor::pool::run_state::RunState;
use crate::supervisor::pool::slots::Slot;
use crate::supervisor::pool::snapshot::{AdoptedWorker, WorkerRecord};
use crate::supervisor::pool::worker_message::WorkerMessage;

/// The run that is still to be continued.
#[derive(Debug)]
pub(super) struct Resume {
    pub(super) running: Vec<WorkerRecord>,
    pub(super) workers: BTreeMap<WorkerId, AdoptedWorker>,
    pub(super) unheard: Vec<(WorkerId, WorkerMessage)>,
    pub(super) stopping: StoppingSnapshot,
    pub(super) after: After,
}

impl Resume {
    /// Adopts the workers, and brings the frontend and the slots' lives up to date.
    pub(super) async fn carry_out(self, fleet: &mut Fleet) -> Result<(), PoolError> {
        let Self { running, mut workers, unheard, stopping, after } = self;
        fleet.send_ranks().await?;
        let mut adopted = Vec::new();
        for record in running {
            if let Some(worker) = workers.remove(&record.worker) {
                adopted.extend(adoption::adopt(fleet, worker, record).await?);
            }
        }
        for worker in workers.into_values() {
            adopted.extend(adoption::adopt_unknown(fleet, worker).await?);
        }
        inform_frontend(fleet, stopping).await?;
        let workers = u16::try_from(fleet.workers.len()).unwrap_or(u16::MAX);
        fleet.announcer.announce(Event::Resumed { workers, after });
        adoption::report_lost(fleet).await?;
        fleet.state = run_state(fleet, stopping);
        if after == After::Crash {
            for worker in adopted {
                adoption::catch_up(fleet, worker).await?;
            }
        }
        for (worker, message) in unheard {
            fleet.receive(worker, message).await?;
        }
        fleet.reap_orphans();
        Ok(())
    }
}

/// Tells the frontend what the one before it knew of slots and workers.
async fn inform_frontend(fleet: &Fleet, stopping: StoppingSnapshot) -> Result<(), PoolError> {
    let Fleet { frontend, slots, .. } = fleet;
    for slot in slots.ids() {
        if let Some(worker) = slots.serving(slot) {
            frontend.send(SlotCommand::Serve(worker)).await?;
        }
    }
    for (slot, found) in slots.iter() {
        if is_given_up(fleet, found) {
            frontend.send(SlotCommand::GiveUp(slot)).await?;
        }
    }
    // A listener that was closed is not opened again.
    let accepts = !matches!(stopping, StoppingSnapshot::Draining);
    if fleet.accepting && accepts {
        frontend.send(SlotCommand::Accept).await?;
    }
    Ok(())
}

/// Whether clients don't wait for the slot's next worker.
fn is_given_up(fleet: &Fleet, Slot { life, .. }: &Slot) -> bool {
    match life.state() {
        SlotState::Errored | SlotState::Stopped | SlotState::Drained => true,
        SlotState::BackOff => {
            let delay = life.next_start().map(|at| at.since(Timestamp::now()));
            delay.is_some_and(|delay| delay > fleet.settings.slot_wait)
        }
        SlotState::Serving | SlotState::Spawning | SlotState::Removed => false,
    }
}

fn run_state(fleet: &Fleet, stopping: StoppingSnapshot) -> RunState {
    match stopping {
        StoppingSnapshot::No => RunState::Running,
        StoppingSnapshot::LameDuck(until) => RunState::LameDuck(until),
        // Connections that came last are handed out again.
        StoppingSnapshot::Closing => RunState::closing(&fleet.frontend),
        StoppingSnapshot::Draining => RunState::Draining,
    }
}
