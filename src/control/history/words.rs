//! Events in words: a kind for programs, a sentence for people.

use crate::control::report;
use crate::supervisor::event::{End, Event, WorkerChange};
use crate::supervisor::rollout::{Outcome, Report};

/// An event as it travels.
pub(super) fn report(number: u64, time_ms: i64, event: &Event) -> report::Event {
    let (kind, text) = words(event);
    let base = report::Event { number, time_ms, kind, text, ..report::Event::default() };
    match event {
        Event::Worker { worker, pid, .. } => report::Event {
            slot: Some(worker.slot.0),
            generation: Some(worker.generation.0),
            pid: Some(*pid).filter(|pid| *pid > 0),
            ..base
        },
        Event::Slot { slot, .. }
        | Event::Replaced { slot }
        | Event::ReplacementFailed { slot, .. }
        | Event::RolloutEnded(Report { outcome: Outcome::Aborted(slot, _), .. }) => {
            report::Event { slot: Some(slot.0), ..base }
        }
        _ => base,
    }
}

fn words(event: &Event) -> (String, String) {
    let (kind, text) = match event {
        Event::Worker { change, .. } => return worker_words(change),
        Event::Slot { state, delay: Some(delay), .. } => {
            let text = format!("slot waits {} before its next worker", seconds(*delay));
            return (format!("slot-{state}"), text);
        }
        Event::Slot { state, .. } => return (format!("slot-{state}"), format!("slot is {state}")),
        Event::Replaced { .. } => ("slot-replaced", "new worker has proved itself".to_owned()),
        Event::ReplacementFailed { reason, .. } => {
            ("replacement-failed", format!("keeps its worker: the new one {reason}"))
        }
        Event::RolloutStarted { number, trigger, of } => (
            "rollout-started",
            format!("rolling restart {number} of {of} slots begins, by {trigger}"),
        ),
        Event::RolloutEnded(report) => rollout_words(report),
        Event::Scaled { from, to, by } => {
            ("scaled", format!("from {from} workers to {to}, by {by}"))
        }
        Event::Resumed { workers, after } => {
            ("resumed", format!("{workers} workers are taken over after {after}"))
        }
        Event::Stopping { at_once: true } => ("stopping", "everything ends at once".to_owned()),
        Event::Stopping { at_once: false } => ("stopping", "everything ends gracefully".to_owned()),
    };
    (kind.to_owned(), text)
}

fn worker_words(change: &WorkerChange) -> (String, String) {
    let (kind, text) = match change {
        WorkerChange::Spawned => ("worker-started", "worker is started".to_owned()),
        WorkerChange::Ready { serving, of } => {
            ("worker-ready", format!("worker serves, {serving} of {of} slots do"))
        }
        WorkerChange::Replacing(reason) => {
            ("worker-replacing", format!("worker is to be replaced: {reason}"))
        }
        WorkerChange::Draining(reason) => ("worker-draining", format!("worker drains: {reason}")),
        WorkerChange::Killed(reason) => ("worker-killed", format!("worker {reason}")),
        WorkerChange::Exited(End { reason, unexpected, uptime, connections }) => {
            let (kind, verb) =
                if *unexpected { ("worker-crashed", "died") } else { ("worker-exited", "is gone") };
            let uptime = seconds(*uptime);
            (kind, format!("worker {verb} after {uptime} and {connections} connections: {reason}"))
        }
    };
    (kind.to_owned(), text)
}

/// A rolling restart that has ended: its kind, and a sentence.
pub(in crate::control) fn rollout_words(report: &Report) -> (&'static str, String) {
    let Report { number, outcome, replaced, of, .. } = report;
    let begin = format!("rolling restart {number}, {replaced} of {of} slots replaced,");
    match outcome {
        Outcome::Done => ("rollout-done", format!("rolling restart {number} is done")),
        Outcome::Aborted(slot, reason) => {
            ("rollout-aborted", format!("{begin} is aborted: new worker in slot {slot} {reason}"))
        }
        Outcome::Superseded => ("rollout-superseded", format!("{begin} gives way to a newer one")),
        Outcome::Stopped => ("rollout-stopped", format!("{begin} is cut short")),
    }
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
