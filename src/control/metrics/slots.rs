//! Slots: state, work, hand-offs, memory. Counters include workers that have ended.

use crate::control::metrics::{counts, flag, labelled};
use crate::control::snapshot::Snapshot;
use crate::frontend::query::SlotFacts;
use crate::link::seam::WorkerId;
use crate::supervisor::pool::status::{PoolStatus, SlotStatus, WorkerStatus};

/// States of a slot.
const STATES: [&str; 7] =
    ["serving", "spawning", "back-off", "errored", "stopped", "drained", "removed"];

pub(super) fn record(snapshot: &Snapshot) {
    states(&snapshot.pool.slots);
    work(&snapshot.pool.slots);
    totals(&snapshot.pool);
    handoffs(snapshot);
    memory(snapshot);
}

fn states(slots: &[SlotStatus]) {
    let states = slots.iter().flat_map(|slot| {
        let (number, current) = (slot.slot.to_string(), slot.state.to_string());
        STATES.map(|state| {
            ([("slot", number.clone()), ("state", state.to_owned())], flag(state == current))
        })
    });
    labelled(
        "sticky_lb_slot_state",
        "State of a slot: 1 for the current one, 0 for others.",
        states,
    );
    gauges(
        "sticky_lb_slot_workers",
        "Workers of a slot, draining ones included.",
        slots.iter().map(|slot| (slot, slot.workers.len() as u64)),
    );
}

fn work(slots: &[SlotStatus]) {
    let sum = |slot: &SlotStatus, of: fn(&WorkerStatus) -> u64| slot.workers.iter().map(of).sum();
    gauges(
        "sticky_lb_established_connections",
        "Connections established in workers of a slot.",
        slots.iter().map(|slot| (slot, sum(slot, |worker| worker.connections))),
    );
    gauges(
        "sticky_lb_requests_in_flight",
        "Requests in flight in workers of a slot.",
        slots.iter().map(|slot| (slot, sum(slot, |worker| worker.requests))),
    );
    gauges(
        "sticky_lb_websockets",
        "WebSockets in workers of a slot.",
        slots.iter().map(|slot| (slot, sum(slot, |worker| worker.websockets))),
    );
    gauges(
        "sticky_lb_sessions",
        "WebSockets in workers of a slot that can migrate.",
        slots.iter().map(|slot| (slot, sum(slot, |worker| worker.sessions))),
    );
}

/// Counters, those of slots that were removed included: they never go back.
fn totals(pool: &PoolStatus) {
    by_slot(
        "sticky_lb_slot_crashes_total",
        "Workers of a slot that exited without an order.",
        all(pool).map(|slot| (slot, slot.crashes)),
    );
    by_slot(
        "sticky_lb_slot_started_workers_total",
        "Workers started in a slot.",
        all(pool).map(|slot| (slot, slot.started)),
    );
    by_slot(
        "sticky_lb_connections_total",
        "Connections acknowledged by workers of a slot, by their own count.",
        all(pool).map(|slot| (slot, slot.connections_total)),
    );
    by_slot(
        "sticky_lb_requests_total",
        "Requests completed by workers of a slot.",
        all(pool).map(|slot| (slot, slot.requests_total)),
    );
}

/// All slots that there ever were.
fn all(pool: &PoolStatus) -> impl Iterator<Item = &SlotStatus> {
    pool.slots.iter().chain(&pool.removed)
}

/// The frontend's counters of each slot.
fn handoffs(snapshot: &Snapshot) {
    let facts = |slot: &SlotStatus| snapshot.frontend.slots.get(slot.slot.index());
    let of = |count: fn(&SlotFacts) -> u64| {
        all(&snapshot.pool).filter_map(move |slot| Some((slot, count(facts(slot)?))))
    };
    by_slot(
        "sticky_lb_handed_off_connections_total",
        "Connections acknowledged by workers of a slot, by the primary's count.",
        of(|facts| facts.handed_off),
    );
    by_slot(
        "sticky_lb_refused_connections_total",
        "Connections refused by workers of a slot.",
        of(|facts| facts.refused),
    );
    by_slot(
        "sticky_lb_stalls_total",
        "Times that a worker of a slot did not acknowledge within ack_timeout.",
        of(|facts| facts.stalls),
    );
    gauges(
        "sticky_lb_slot_waiting_connections",
        "Connections queued for a slot or in flight to its workers.",
        snapshot.pool.slots.iter().filter_map(|slot| {
            let facts = facts(slot)?;
            Some((slot, facts.queued + facts.in_flight))
        }),
    );
}

fn memory(snapshot: &Snapshot) {
    let memory = |slot: &SlotStatus| {
        let workers = slot.workers.iter().map(|worker| {
            let worker = WorkerId { slot: slot.slot, generation: worker.generation };
            snapshot.usage.get(&worker).and_then(|usage| usage.memory).unwrap_or(0)
        });
        workers.sum::<u64>()
    };
    gauges(
        "sticky_lb_worker_memory_bytes",
        "Memory of a slot's workers and their child processes.",
        snapshot.pool.slots.iter().map(|slot| (slot, memory(slot))),
    );
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn gauges<'a>(
    name: &'static str,
    help: &'static str,
    series: impl Iterator<Item = (&'a SlotStatus, u64)>,
) {
    labelled(name, help, series.map(|(slot, value)| ([("slot", slot.slot)], value as f64)));
}

fn by_slot<'a>(
    name: &'static str,
    help: &'static str,
    series: impl Iterator<Item = (&'a SlotStatus, u64)>,
) {
    counts(name, help, "slot", series.map(|(slot, value)| (slot.slot, value)));
}
