//! Events as text: a kind for programs, a line for people.

use crate::control::report;
use crate::supervisor::ended::EndedConnections;
use crate::supervisor::event::{End, Event, WorkerChange};
use crate::supervisor::rollout::{Outcome, Report};

/// An event as clients get it.
pub(super) fn report(number: u64, time_ms: i64, event: &Event) -> report::Event {
    let (kind, text) = text(event);
    let base = report::Event { number, time_ms, kind, text, ..report::Event::default() };
    match event {
        Event::Worker { worker, pid, change } => report::Event {
            ended: ended(change),
            slot: Some(worker.slot.0),
            generation: Some(worker.generation.0),
            pid: Some(*pid).filter(|pid| *pid > 0),
            ..base
        },
        Event::Slot { slot, .. }
        | Event::Replaced { slot }
        | Event::ReplacementFailed { slot, .. } => report::Event { slot: Some(slot.0), ..base },
        Event::RolloutEnded(ended) => {
            let rollout = rollout(ended, time_ms);
            report::Event { slot: rollout.failed_slot, rollout: Some(rollout), ..base }
        }
        _ => base,
    }
}

fn text(event: &Event) -> (String, String) {
    let (kind, text) = match event {
        Event::Worker { change, .. } => return worker_text(change),
        Event::Slot { state, delay: Some(delay), .. } => {
            let text = format!("back-off: next worker in {}", seconds(*delay));
            return (format!("slot-{state}"), text);
        }
        Event::Slot { state, .. } => return (format!("slot-{state}"), format!("slot is {state}")),
        Event::Replaced { .. } => ("slot-replaced", "new worker is stable".to_owned()),
        Event::ReplacementFailed { reason, .. } => {
            ("replacement-failed", format!("slot keeps its worker: the new one {reason}"))
        }
        Event::RolloutStarted { number, trigger, of } => (
            "rollout-started",
            format!("rolling restart {number} of {} started, by {trigger}", counted(*of, "slot")),
        ),
        Event::RolloutEnded(report) => rollout_text(report),
        Event::Scaled { from, to, by } => {
            ("scaled", format!("scaled from {} to {to}, by {by}", counted(*from, "worker")))
        }
        Event::Resumed { workers, after } => {
            ("resumed", format!("{} resumed after {after}", counted(*workers, "worker")))
        }
        Event::Stopping { at_once: true } => ("stopping", "stopping, forced".to_owned()),
        Event::Stopping { at_once: false } => ("stopping", "stopping gracefully".to_owned()),
    };
    (kind.to_owned(), text)
}

fn rollout(report: &Report, time_ms: i64) -> report::Rollout {
    let Report { number, trigger, outcome, replaced, of } = report;
    let (failed_slot, reason) = match outcome {
        Outcome::Aborted(slot, reason) => {
            (Some(slot.0), Some(format!("new worker in slot {slot} {reason}")))
        }
        Outcome::Done | Outcome::Superseded | Outcome::Stopped => (None, None),
    };
    report::Rollout {
        number: *number,
        trigger: trigger.to_string(),
        replaced: *replaced,
        of: *of,
        result: Some(outcome.name().to_owned()),
        reason,
        ended_ms: Some(time_ms),
        failed_slot,
        ..report::Rollout::default()
    }
}

fn ended(change: &WorkerChange) -> Option<report::Ended> {
    let WorkerChange::Exited(End { ended, .. }) = change else { return None };
    let EndedConnections { open, finished, migrated, closed, protected, cut } = *ended;
    Some(report::Ended { open, finished, migrated, closed, protected, cut })
}

fn worker_text(change: &WorkerChange) -> (String, String) {
    let (kind, text) = match change {
        WorkerChange::Spawned => ("worker-started", "worker started".to_owned()),
        WorkerChange::Ready { serving, of } => {
            let serve = if *of == 1 { "serves" } else { "serve" };
            let of = counted(*of, "slot");
            ("worker-ready", format!("worker ready, {serving} of {of} {serve}"))
        }
        WorkerChange::Replacing(reason) => {
            ("worker-replacing", format!("worker replacing: {reason}"))
        }
        WorkerChange::Draining(reason) => ("worker-draining", format!("worker draining: {reason}")),
        WorkerChange::Killed(reason) | WorkerChange::Aborted(reason) => {
            ("worker-killed", format!("worker {reason}"))
        }
        WorkerChange::Exited(End { reason, unexpected, uptime, connections, ended }) => {
            let (kind, verb) = if *unexpected {
                ("worker-crashed", "crashed")
            } else {
                ("worker-exited", "exited")
            };
            let (uptime, connections) = (seconds(*uptime), counted(*connections, "connection"));
            let open = if ended.open > 0 { format!("; {ended}") } else { String::new() };
            (kind, format!("worker {verb} after {uptime} and {connections}: {reason}{open}"))
        }
    };
    (kind.to_owned(), text)
}

/// The end of a rolling restart: kind and text.
pub(in crate::control) fn rollout_text(report: &Report) -> (&'static str, String) {
    let Report { number, outcome, replaced, of, .. } = report;
    let of = counted(*of, "slot");
    let begin = format!("rolling restart {number}, {replaced} of {of} replaced,");
    match outcome {
        Outcome::Done => ("rollout-done", format!("rolling restart {number} done")),
        Outcome::Aborted(slot, reason) => {
            ("rollout-aborted", format!("{begin} aborted: new worker in slot {slot} {reason}"))
        }
        Outcome::Superseded => ("rollout-superseded", format!("{begin} superseded by a newer one")),
        Outcome::Stopped => ("rollout-stopped", format!("{begin} stopped")),
    }
}

/// `1 slot`, `2 slots`.
fn counted(count: impl Into<u64>, one: &str) -> String {
    let count = count.into();
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
