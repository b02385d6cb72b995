//! The last events of the pool, with numbers and times, for readers and followers.
//!
//! One task listens to the pool. A follower that is too slow misses the oldest events.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::control::report;
use crate::supervisor::event;

mod format;

pub(super) use format::rollout_text;

/// Events in the history.
const MAX_EVENTS: usize = 2048;

/// Events that a follower may lag behind.
const MAX_LAG: usize = 1024;

/// An event, as the pool announces it and as clients get it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As clients get it.
    pub report: report::Event,
    /// As the pool announces it.
    pub event: event::Event,
}

/// The last events.
#[derive(Clone, Debug)]
pub struct History {
    events: Arc<Mutex<VecDeque<Arc<Entry>>>>,
    live: broadcast::Sender<Arc<Entry>>,
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self { events: Arc::default(), live: broadcast::Sender::new(MAX_LAG) }
    }

    /// Records all events until the pool has ended.
    pub async fn record(self, mut announced: broadcast::Receiver<event::Event>) {
        let mut number = 0;
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
        let events = self.lock();
        // Nothing is added while the lock is held: no event is missed or comes twice.
        let live = self.live.subscribe();
        let wanted = events.iter().rev().filter(|entry| wanted(entry));
        let mut last: Vec<_> = wanted.take(count).cloned().collect();
        last.reverse();
        (last, live)
    }

    /// The number of the newest event.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        self.lock().back().map(|entry| entry.report.number)
    }

    fn add(&self, number: u64, event: event::Event) {
        let report = format::report(number, Timestamp::now().as_millisecond(), &event);
        let entry = Arc::new(Entry { report, event });
        let mut events = self.lock();
        if events.len() == MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(Arc::clone(&entry));
        // Fails only without followers.
        let _ = self.live.send(entry);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Entry>>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}
