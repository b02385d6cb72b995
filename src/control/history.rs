//! The last events of the pool, with numbers and times, for readers and followers.
//!
//! One task listens to the pool. A follower that is too slow misses the oldest events. A copy of the events, in
//! memory that outlives this process, is where a successor begins.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::control::report;
use crate::supervisor::event;
use crate::system::ring::Ring;

mod format;

pub(super) use format::rollout_text;

/// The name of the events' memory among the descriptors of a successor.
pub const EVENTS: &str = "events";

/// Events in the history.
const MAX_EVENTS: usize = 2048;

/// Bytes of events in the memory that a successor gets.
const RING_BYTES: u64 = 512 * 1024;

/// Events that a follower may lag behind.
const MAX_LAG: usize = 1024;

/// An event, as the pool announces it and as clients get it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As clients get it.
    pub report: report::Event,
    /// As the pool has announced it; `None` if that was another primary's.
    pub event: Option<event::Event>,
}

/// The last events.
#[derive(Clone, Debug)]
pub struct History {
    past: Arc<Mutex<Past>>,
    live: broadcast::Sender<Arc<Entry>>,
}

#[derive(Debug, Default)]
struct Past {
    events: VecDeque<Arc<Entry>>,
    /// The copy for a successor, if there is memory for it.
    ring: Option<Ring>,
}

impl History {
    /// With the events that a predecessor has left.
    #[must_use]
    pub fn resume(memory: Option<OwnedFd>) -> Self {
        let mut past = Past::default();
        match Ring::resume(memory, RING_BYTES) {
            Ok((ring, records)) => {
                let reports = records.iter().filter_map(|it| serde_json::from_slice(it).ok());
                reports.for_each(|report| past.push(Arc::new(Entry { report, event: None })));
                past.ring = Some(ring);
            }
            Err(error) => {
                tracing::warn!(%error, "no memory for events: an upgrade loses them");
            }
        }
        Self { past: Arc::new(Mutex::new(past)), live: broadcast::Sender::new(MAX_LAG) }
    }

    /// The memory for a successor; `None` if there is none, or no free descriptor.
    #[must_use]
    pub fn memory(&self) -> Option<OwnedFd> {
        self.lock().ring.as_ref().and_then(|ring| ring.memory().ok())
    }

    /// Records all events until the pool has ended.
    pub async fn record(self, mut announced: broadcast::Receiver<event::Event>) {
        let mut number = self.newest().unwrap_or(0);
        loop {
            match announced.recv().await {
                Ok(event) => {
                    number += 1;
                    self.add(number, event);
                }
                // A gap in the numbers shows that events were missed.
                Err(broadcast::error::RecvError::Lagged(missed)) => number += missed,
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// The last `count` events for which `wanted` is true, oldest first, and a receiver of all later
    /// ones.
    pub fn last(
        &self,
        count: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> (Vec<Arc<Entry>>, broadcast::Receiver<Arc<Entry>>) {
        let past = self.lock();
        // Nothing is added while the lock is held: no event is missed or comes twice.
        let live = self.live.subscribe();
        let wanted = past.events.iter().rev().filter(|entry| wanted(entry));
        let mut last: Vec<_> = wanted.take(count).cloned().collect();
        last.reverse();
        (last, live)
    }

    /// The last rolling restart that has ended, and the generation of its worker that failed, if one did.
    #[must_use]
    pub fn last_rollout(&self) -> Option<(report::Rollout, Option<u32>)> {
        let past = self.lock();
        let mut reports = past.events.iter().rev().map(|entry| &entry.report);
        let rollout = reports.find_map(|report| report.rollout.clone())?;
        let ends = ["worker-crashed", "worker-exited"];
        let failed = rollout.failed_slot.and_then(|slot| {
            // Its worker's end comes just before.
            reports.find(|it| it.slot == Some(slot) && ends.contains(&it.kind.as_str()))
        });
        let generation = failed.and_then(|report| report.generation);
        Some((rollout, generation))
    }

    /// The number of the newest event.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        self.lock().events.back().map(|entry| entry.report.number)
    }

    fn add(&self, number: u64, event: event::Event) {
        let report = format::report(number, Timestamp::now().as_millisecond(), &event);
        let record = serde_json::to_vec(&report).unwrap_or_default();
        let entry = Arc::new(Entry { report, event: Some(event) });
        let mut past = self.lock();
        // Without memory the copy ends where it is.
        past.ring.take_if(|ring| ring.push(&record).is_err());
        past.push(Arc::clone(&entry));
        // Fails only without followers.
        let _ = self.live.send(entry);
    }

    fn lock(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    fn push(&mut self, entry: Arc<Entry>) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(entry);
    }
}
