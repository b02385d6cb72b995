//! Streamed answers: live snapshots and events.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

use crate::control::answers::{Control, Items, item};
use crate::control::protocol::Problem;
use crate::control::report::{Event, Live};

/// Past events in the first snapshot.
const PAST_EVENTS: usize = 200;

impl Control {
    pub(super) async fn live(&self, items: &Items) -> Result<Value, Problem> {
        let mut each_second = tokio::time::interval(Duration::from_secs(1));
        each_second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut seen = None;
        loop {
            each_second.tick().await;
            let live = self.live_since(&mut seen).await?;
            item(items, &live).await?;
        }
    }

    /// A snapshot with the events since number `seen`, which becomes the number of the last one.
    ///
    /// # Errors
    ///
    /// If the primary has ended.
    pub async fn live_since(&self, seen: &mut Option<u64>) -> Result<Live, Problem> {
        let last = *seen;
        let live = self.live_with(|number| Some(number) > last).await?;
        *seen = live.events.last().map(|event| event.number).or(last);
        Ok(live)
    }

    /// A snapshot with the events up to number `seen`, or without events.
    ///
    /// # Errors
    ///
    /// If the primary has ended.
    pub async fn live_until(&self, seen: Option<u64>) -> Result<Live, Problem> {
        self.live_with(|number| Some(number) <= seen).await
    }

    async fn live_with(&self, wanted: impl Fn(u64) -> bool) -> Result<Live, Problem> {
        let snapshot = self.snapshots.take().await?;
        let (events, _) = self.history.last(PAST_EVENTS, |it| wanted(it.report.number));
        let events: Vec<Event> = events.iter().map(|entry| entry.report.clone()).collect();
        Ok(Live {
            time_ms: Timestamp::now().as_millisecond(),
            status: snapshot.status.clone(),
            workers: snapshot.workers.clone(),
            events,
        })
    }

    pub(super) async fn events(
        &self,
        follow: bool,
        last: usize,
        items: &Items,
    ) -> Result<Value, Problem> {
        let (past, mut live) = self.history.last(last, |_| true);
        for entry in past {
            item(items, &entry.report).await?;
        }
        if !follow {
            return Ok(json!({}));
        }
        loop {
            match live.recv().await {
                Ok(entry) => item(items, &entry.report).await?,
                // Gaps in the numbers show them.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(json!({})),
            }
        }
    }
}
