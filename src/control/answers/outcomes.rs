//! Outcomes of orders: events are followed, from before the order, until one decides it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::control::answers::{Control, Items, item, to_json};
use crate::control::history::{Entry, rollout_text};
use crate::control::protocol::{Code, Problem};
use crate::control::report::{NotApplied, Rollout};
use crate::control::snapshot::rollout;
use crate::protocol::ids::SlotId;
use crate::supervisor::event::{End, Event, WorkerChange};
use crate::supervisor::lifecycle::SlotState;
use crate::supervisor::rollout::{Outcome, Report};

/// How often the progress of a rolling restart is read, in addition to each event.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Receives all events from its creation on.
pub(super) struct Follow {
    events: broadcast::Receiver<Arc<Entry>>,
}

impl Control {
    /// Starts to follow events; to be called before the order.
    pub(super) fn follow(&self) -> Follow {
        Follow { events: self.history.last(0, |_| false).1 }
    }

    /// Orders a rolling restart and follows it.
    pub(super) async fn reload(&self, items: &Items) -> Result<Value, Problem> {
        let follow = self.follow();
        let (number, not_applied) = self.links.primary.reload().await?;
        let report = self.until_rolled_out(follow, number, items).await?;
        outcome(&report, not_applied)
    }

    /// Follows a rolling restart that another primary may have begun.
    pub(super) async fn rollout(&self, number: u64, items: &Items) -> Result<Value, Problem> {
        let (past, events) = self.history.last(usize::MAX, |_| true);
        let mut past = past.iter().rev().filter_map(|entry| entry.event.as_ref());
        if let Some(report) = past.find_map(|event| ended(event, number)) {
            return outcome(&report, Vec::new());
        }
        let pool = self.links.pool.status().await?;
        if pool.rollout.is_none_or(|rollout| rollout.number != number) {
            let text = format!("rolling restart {number} is not under way: see `events`");
            return Err(Problem::new(Code::Refused, text));
        }
        let report = self.until_rolled_out(Follow { events }, number, items).await?;
        outcome(&report, Vec::new())
    }

    /// Sends the progress of a rolling restart whenever that changes, until its end.
    async fn until_rolled_out(
        &self,
        mut follow: Follow,
        number: u64,
        items: &Items,
    ) -> Result<Report, Problem> {
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        let mut last = None;
        loop {
            tokio::select! {
                biased;
                event = follow.next() => {
                    if let Some(report) = ended(&event?, number) {
                        return Ok(report);
                    }
                }
                _ = poll.tick() => {}
            }
            let pool = self.links.pool.status().await?;
            let now = pool.rollout.as_ref().filter(|it| it.number == number).map(rollout);
            if let Some(now) = now.filter(|now| last.as_ref() != Some(now)) {
                item(items, &now).await?;
                last = Some(now);
            }
        }
    }

    /// Waits until the slot has no worker. Fails if another client undrains or removes it meanwhile.
    pub(super) async fn until_drained(
        &self,
        mut follow: Follow,
        slot: SlotId,
    ) -> Result<(), Problem> {
        loop {
            match self.state_of(slot).await? {
                (SlotState::Drained, 0) => return Ok(()),
                (SlotState::Drained, _) => {}
                (state, _) => {
                    let text = format!("slot {slot} is no longer drained: it is {state}");
                    return Err(Problem::new(Code::Failed, text));
                }
            }
            fail_if_stopping(&follow.next().await?)?;
        }
    }

    /// Waits until a worker serves the slot. Fails with the first crash, even though another start
    /// follows, and if another client drains or removes the slot meanwhile.
    pub(super) async fn until_serving(
        &self,
        mut follow: Follow,
        slot: SlotId,
    ) -> Result<(), Problem> {
        loop {
            let event = follow.next().await?;
            fail_if_stopping(&event)?;
            match event {
                Event::Worker { worker, change: WorkerChange::Ready { .. }, .. }
                    if worker.slot == slot =>
                {
                    return Ok(());
                }
                Event::Worker {
                    worker,
                    change: WorkerChange::Exited(End { reason, unexpected: true, .. }),
                    ..
                } if worker.slot == slot => {
                    let text = format!("new worker in slot {slot} {reason}; another start follows");
                    return Err(Problem::new(Code::Failed, text));
                }
                _ => {}
            }
            let (state, _) = self.state_of(slot).await?;
            if matches!(state, SlotState::Drained | SlotState::Removed) {
                let text = format!("slot {slot} was taken out of service again: it is {state}");
                return Err(Problem::new(Code::Failed, text));
            }
        }
    }

    /// A slot's state and number of workers. A slot that no longer exists is removed.
    async fn state_of(&self, slot: SlotId) -> Result<(SlotState, usize), Problem> {
        let pool = self.links.pool.status().await?;
        let found = pool.slots.iter().find(|it| it.slot == slot);
        Ok(found.map_or((SlotState::Removed, 0), |it| (it.state, it.workers.len())))
    }
}

impl Follow {
    async fn next(&mut self) -> Result<Event, Problem> {
        loop {
            match self.events.recv().await.map(|entry| entry.event.clone()) {
                Ok(Some(event)) => return Ok(event),
                // None that comes is another primary's.
                Ok(None) => {}
                Err(RecvError::Lagged(_)) => {
                    let text = "too many events to follow: see `status` and `events`";
                    return Err(Problem::new(Code::Failed, text));
                }
                Err(RecvError::Closed) => {
                    return Err(Problem::new(Code::Failed, "the primary has ended"));
                }
            }
        }
    }

    /// Waits until the slot's new worker is stable.
    pub(super) async fn until_replaced(mut self, slot: SlotId) -> Result<(), Problem> {
        loop {
            match self.next().await? {
                Event::Replaced { slot: other } if other == slot => return Ok(()),
                Event::ReplacementFailed { slot: other, reason } if other == slot => {
                    let text = format!("slot {slot} keeps its worker: the new one {reason}");
                    return Err(Problem::new(Code::Failed, text));
                }
                event => fail_if_stopping(&event)?,
            }
        }
    }
}

fn fail_if_stopping(event: &Event) -> Result<(), Problem> {
    match event {
        Event::Stopping { .. } => Err(Problem::new(Code::Failed, "the primary is stopping")),
        _ => Ok(()),
    }
}

fn ended(event: &Event, number: u64) -> Option<Report> {
    match event {
        Event::RolloutEnded(report) if report.number == number => Some(report.clone()),
        _ => None,
    }
}

/// Every result but `done` is a failure.
fn outcome(report: &Report, not_applied: Vec<NotApplied>) -> Result<Value, Problem> {
    let Report { number, trigger, outcome, replaced, of } = report;
    if *outcome != Outcome::Done {
        return Err(Problem::new(Code::Failed, rollout_text(report).1));
    }
    to_json(&Rollout {
        number: *number,
        trigger: trigger.to_string(),
        replaced: *replaced,
        of: *of,
        result: Some("done".to_owned()),
        not_applied,
        ..Rollout::default()
    })
}
