//! What becomes of an order: events are followed, from before it was given, until one settles it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::control::answers::{Control, Items, item, to_json};
use crate::control::history::Entry;
use crate::control::protocol::{Code, Problem};
use crate::control::report::Rollout;
use crate::control::snapshot::rollout;
use crate::handoff::ids::SlotId;
use crate::supervisor::event::{End, Event, WorkerChange};
use crate::supervisor::lifecycle::SlotState;
use crate::supervisor::rollout::{Outcome, Report};

/// How often it is looked how far a rolling restart is, beside each event.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Hears all events from the moment it is made.
pub(super) struct Follow {
    events: broadcast::Receiver<Arc<Entry>>,
}

impl Control {
    /// To be called before the order is given.
    pub(super) fn follow(&self) -> Follow {
        Follow { events: self.history.last(0, |_| false).1 }
    }

    /// Orders a rolling restart and tells how far it is, whenever that changes.
    pub(super) async fn reload(&self, items: &Items) -> Result<Value, Problem> {
        let mut follow = self.follow();
        let number = self.links.reloader.reload().await?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut last = None;
        loop {
            tokio::select! {
                biased;
                event = follow.next() => {
                    if let Some(report) = ended(&event?, number) {
                        return outcome(&report);
                    }
                }
                _ = look.tick() => {}
            }
            let pool = self.links.pool.status().await?;
            let now = pool.rollout.as_ref().filter(|it| it.number == number).map(rollout);
            if let Some(now) = now.filter(|now| last.as_ref() != Some(now)) {
                item(items, &now).await?;
                last = Some(now);
            }
        }
    }
}

impl Follow {
    async fn next(&mut self) -> Result<Event, Problem> {
        match self.events.recv().await {
            Ok(entry) => Ok(entry.event.clone()),
            Err(RecvError::Lagged(_)) => {
                let text = "more happened than could be followed: look at `status` and `events`";
                Err(Problem::new(Code::Failed, text))
            }
            Err(RecvError::Closed) => Err(Problem::new(Code::Failed, "the primary has ended")),
        }
    }

    /// The slot has no worker any more.
    pub(super) async fn until_drained(mut self, slot: SlotId) -> Result<(), Problem> {
        loop {
            match self.next().await? {
                Event::Slot { slot: other, state: SlotState::Drained, .. } if other == slot => {
                    return Ok(());
                }
                event => fail_if_stopping(&event)?,
            }
        }
    }

    /// A worker serves the slot. The first that dies instead is the answer, though it is tried
    /// again.
    pub(super) async fn until_serving(mut self, slot: SlotId) -> Result<(), Problem> {
        loop {
            match self.next().await? {
                Event::Worker { worker, change: WorkerChange::Serves { .. }, .. }
                    if worker.slot == slot =>
                {
                    return Ok(());
                }
                Event::Worker {
                    worker,
                    change: WorkerChange::Gone(End { reason, unexpected: true, .. }),
                    ..
                } if worker.slot == slot => {
                    let text = format!("new worker in slot {slot} {reason}; it is tried again");
                    return Err(Problem::new(Code::Failed, text));
                }
                event => fail_if_stopping(&event)?,
            }
        }
    }

    /// The slot's new worker has proved itself.
    pub(super) async fn until_replaced(mut self, slot: SlotId) -> Result<(), Problem> {
        loop {
            match self.next().await? {
                Event::Replaced { slot: other } if other == slot => return Ok(()),
                Event::NotReplaced { slot: other, reason } if other == slot => {
                    let text =
                        format!("slot {slot} keeps the worker that it has: the new one {reason}");
                    return Err(Problem::new(Code::Failed, text));
                }
                event => fail_if_stopping(&event)?,
            }
        }
    }
}

fn fail_if_stopping(event: &Event) -> Result<(), Problem> {
    match event {
        Event::Stopping { .. } => Err(Problem::new(Code::Failed, "everything is being stopped")),
        _ => Ok(()),
    }
}

fn ended(event: &Event, number: u64) -> Option<Report> {
    match event {
        Event::RolloutEnded(report) if report.number == number => Some(report.clone()),
        _ => None,
    }
}

/// A rolling restart that didn't do what was ordered is a failure.
fn outcome(report: &Report) -> Result<Value, Problem> {
    let Report { number, trigger, outcome, replaced, of } = report;
    let begin = format!("rolling restart {number}, {replaced} of {of} slots replaced,");
    let text = match outcome {
        Outcome::Done => {
            return to_json(&Rollout {
                number: *number,
                trigger: trigger.to_string(),
                replaced: *replaced,
                of: *of,
                result: Some("done".to_owned()),
                ..Rollout::default()
            });
        }
        Outcome::Aborted(slot, reason) => format!(
            "{begin} is aborted: new worker in slot {slot} {reason}; all other slots keep their \
             workers",
        ),
        Outcome::Superseded => format!("{begin} gave way to a newer one"),
        Outcome::Stopped => format!("{begin} was cut short: everything is being stopped"),
    };
    Err(Problem::new(Code::Failed, text))
}
