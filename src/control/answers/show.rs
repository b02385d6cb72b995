//! Descriptions of slots.

use crate::control::answers::Control;
use crate::control::protocol::Problem;
use crate::control::report::Slot;
use crate::control::snapshot::{Snapshot, millis};
use crate::frontend::placement::Availability;
use crate::protocol::ids::SlotId;
use crate::supervisor::pool::handle::Refusal;
use crate::supervisor::pool::status::{PoolStatus, SlotStatus};

/// Events in the description of a slot.
const MAX_EVENTS: usize = 20;

impl Control {
    pub(super) async fn describe(&self, slot: u16) -> Result<Slot, Problem> {
        let snapshot = self.snapshots.take().await?;
        let found = find(&snapshot.pool, slot)?;
        let (events, _) = self.history.last(MAX_EVENTS, |entry| entry.report.slot == Some(slot));
        let events = events.iter().map(|entry| entry.report.clone()).collect();
        Ok(Slot { events, ..description(&snapshot, found) })
    }
}

fn description(snapshot: &Snapshot, slot: &SlotStatus) -> Slot {
    let facts = snapshot.frontend.slots.get(slot.slot.index());
    let serving = slot.workers.iter().find(|worker| worker.phase == "serving");
    Slot {
        slot: slot.slot.0,
        state: slot.state.to_string(),
        availability: facts.map_or("closed", |facts| availability(facts.availability)).to_owned(),
        weight: slot.weight,
        crashes: slot.crashes,
        last_failure: slot.last_failure.clone(),
        started: slot.started,
        delay_ms: slot.delay.map(millis),
        queued: facts.map_or(0, |facts| facts.queued),
        in_flight: facts.map_or(0, |facts| facts.in_flight),
        handed_off: facts.map_or(0, |facts| facts.handed_off),
        refused: facts.map_or(0, |facts| facts.refused),
        requests_total: slot.requests_total,
        lag_ms: serving.and_then(|worker| worker.lag).map(millis),
        workers: snapshot.workers.iter().filter(|it| it.slot == slot.slot.0).cloned().collect(),
        events: Vec::new(),
    }
}

/// The slot with this number.
pub(super) fn find(pool: &PoolStatus, slot: u16) -> Result<&SlotStatus, Refusal> {
    let found = pool.slots.iter().find(|it| it.slot.0 == slot);
    found.ok_or_else(|| {
        let slots: Vec<_> = pool.slots.iter().map(|it| it.slot).collect();
        Refusal::no_slot(SlotId(slot), &slots)
    })
}

/// Its name in JSON.
pub(super) fn availability(availability: Availability) -> &'static str {
    match availability {
        Availability::Open => "open",
        Availability::Holding => "holding",
        Availability::Closed => "closed",
    }
}
