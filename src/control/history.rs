//! What has happened, with numbers and times: the last events kept, all of them passed on.
//!
//! One task listens to the pool; whoever follows gets what comes, and misses the oldest if too slow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::control::report;
use crate::supervisor::event;

mod words;

pub(super) use words::rollout_words;

/// Events that are kept.
const KEPT: usize = 2048;

/// Events that a follower may be behind.
const BEHIND: usize = 1024;

/// Something that happened, as the pool says it and as it travels.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As it travels.
    pub report: report::Event,
    /// As the pool says it.
    pub event: event::Event,
}

/// The last events.
#[derive(Clone, Debug)]
pub struct History {
    kept: Arc<Mutex<VecDeque<Arc<Entry>>>>,
    live: broadcast::Sender<Arc<Entry>>,
}

impl History {
    /// Without events yet.
    #[must_use]
    pub fn new() -> Self {
        Self { kept: Arc::default(), live: broadcast::Sender::new(BEHIND) }
    }

    /// Takes in all events until the pool has ended.
    pub async fn keep(self, mut announced: broadcast::Receiver<event::Event>) {
        let mut number = 0;
        loop {
            match announced.recv().await {
                Ok(event) => {
                    number += 1;
                    self.add(number, event);
                }
                // Their numbers are missing then.
                Err(broadcast::error::RecvError::Lagged(missed)) => number += missed,
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// The last events that `wanted` picks, the oldest first, and all that come after them.
    pub fn last(
        &self,
        count: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> (Vec<Arc<Entry>>, broadcast::Receiver<Arc<Entry>>) {
        let kept = self.lock();
        // While it is locked nothing is added: none is missed and none comes twice.
        let live = self.live.subscribe();
        let wanted = kept.iter().rev().filter(|entry| wanted(entry));
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
        let report = words::report(number, Timestamp::now().as_millisecond(), &event);
        let entry = Arc::new(Entry { report, event });
        let mut kept = self.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&entry));
        // That nobody follows is no error.
        let _ = self.live.send(entry);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Entry>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}
