//! A limit for the lines that workers and clients can provoke: of each kind, for each slot, some at once,
//! and then one a second. The others are left out and counted, and a line says how many.
//!
//! These are all lines from level info on of the parts that speak with workers and clients; what they do
//! in other parts is paced by restarts. Lines below that level are for those who look for all of them.
//!
//! Never drops the count of what it has dropped.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::levels::part;
use crate::protocol::ids::Timestamp;

/// The parts whose lines are limited.
const PARTS: [&str; 4] = ["bus", "frontend", "link", "sessions"];

/// So many lines of a kind for a slot may come at once,
const BURST: u32 = 10;

/// and then one in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Leaves out lines of a kind that comes too often. As many buckets as there are kinds and slots.
#[derive(Clone, Debug, Default)]
pub(super) struct LineLimit(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    buckets: Mutex<HashMap<(Identifier, Option<u64>), Bucket>>,
    has_suppressed: AtomicBool,
}

/// Lines of one kind that were left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suppressed {
    pub(super) lines: u64,
    pub(super) slot: Option<u64>,
    pub(super) message: String,
}

/// The lines of one kind for one slot.
#[derive(Debug)]
struct Bucket {
    message: String,
    tokens: u32,
    filled_at: Timestamp,
    suppressed: u64,
}

impl Bucket {
    fn new(message: String, now: Timestamp) -> Self {
        Self { message, tokens: BURST, filled_at: now, suppressed: 0 }
    }

    /// Whether a line may be written now. Counts it if not.
    fn take(&mut self, now: Timestamp) -> bool {
        let intervals = now.since(self.filled_at).as_nanos() / INTERVAL.as_nanos();
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        if intervals > 0 {
            self.tokens = self.tokens.saturating_add(intervals).min(BURST);
            self.filled_at = self.filled_at + INTERVAL * intervals;
        }
        let may_go = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        self.suppressed += u64::from(!may_go);
        may_go
    }
}

impl LineLimit {
    /// The lines that were left out since the last time.
    pub(super) fn take_suppressed(&self) -> Vec<Suppressed> {
        if !self.0.has_suppressed.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        let mut buckets = self.0.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let some = buckets.iter_mut().filter(|(_, bucket)| bucket.suppressed > 0);
        let taken = some.map(|((_, slot), bucket)| Suppressed {
            lines: std::mem::take(&mut bucket.suppressed),
            slot: *slot,
            message: bucket.message.clone(),
        });
        taken.collect()
    }

    /// Whether lines were left out since [`LineLimit::take_suppressed`].
    pub(super) fn has_suppressed(&self) -> bool {
        self.0.has_suppressed.load(Ordering::Relaxed)
    }

    /// Whether this line may be written; and whether it is the first one in a row that may not.
    fn take(&self, event: &Event<'_>, now: Timestamp) -> (bool, bool) {
        let mut found = Found::default();
        event.record(&mut found);
        let key = (event.metadata().callsite(), found.slot);
        let mut buckets = self.0.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(key).or_insert_with(|| {
            let mut message = Message::default();
            event.record(&mut message);
            Bucket::new(message.0, now)
        });
        let may_go = bucket.take(now);
        // Under the lock, so that none is taken between the count and this.
        (may_go, !may_go && !self.0.has_suppressed.swap(true, Ordering::Relaxed))
    }
}

/// Limits lines, and has `wake` called when the first one was left out.
#[derive(Debug)]
pub(super) struct LimitLayer<Wake> {
    pub(super) limit: LineLimit,
    pub(super) wake: Wake,
}

impl<S: Subscriber, Wake: Fn() + 'static> Layer<S> for LimitLayer<Wake> {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || !PARTS.contains(&part(metadata.target())) {
            return true;
        }
        let (may_go, is_first) = self.limit.take(event, Timestamp::now());
        if is_first {
            (self.wake)();
        }
        may_go
    }
}

/// The slot that a line is about.
#[derive(Debug, Default)]
struct Found {
    slot: Option<u64>,
}

impl Visit for Found {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "slot" {
            self.slot = Some(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// A line's message.
#[derive(Debug, Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_lines_come_at_once_and_then_one_a_second() {
        let start = Timestamp(5_000_000_000);
        let mut bucket = Bucket::new(String::new(), start);
        let mut count = |millis: u64, tries: u32| {
            let now = start + Duration::from_millis(millis);
            (0..tries).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(count(0, 100), 10);
        assert_eq!(count(999, 100), 0);
        assert_eq!(count(1_000, 100), 1);
        assert_eq!(count(3_500, 100), 2);
        assert_eq!(count(4_000, 100), 1, "half a second was left");
        assert_eq!(count(60_000, 100), 10, "no more than at first");
        assert_eq!(bucket.suppressed, 600 - 24);
    }

    #[test]
    fn each_kind_and_slot_has_its_own_limit_and_what_is_left_out_is_counted() {
        use tracing_subscriber::layer::SubscriberExt;
        let limit = LineLimit::default();
        let layer = LimitLayer { limit: limit.clone(), wake: || {} };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for _ in 0..30 {
                for slot in 0..2_u16 {
                    tracing::warn!(target: "sticky_lb::frontend::test", slot, "worker floods");
                }
                tracing::debug!(target: "sticky_lb::frontend::test", slot = 0, "all of these");
                tracing::warn!(target: "sticky_lb::supervisor", slot = 0, "no such part");
            }
        });
        let mut suppressed = limit.take_suppressed();
        suppressed.sort_by_key(|one| one.slot);
        let expected =
            |slot| Suppressed { lines: 20, slot: Some(slot), message: "worker floods".to_owned() };
        assert_eq!(suppressed, [expected(0), expected(1)]);
        assert!(limit.take_suppressed().is_empty());
    }
}
