//! The queue between the thread that reads and one that writes.
//!
//! Bounded by bytes: when it is full, lines are dropped and counted. Who fills it never waits.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::protocol::ids::Timestamp;
use crate::supervisor::output::lines::Chunk;

/// Bytes of lines that may wait.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// Orders that may wait, beside the lines. They are few; beyond this they are dropped too.
const MOST_ORDERS: usize = 16 * 1024;
/// Bytes that are written together.
const BATCH: usize = 256 * 1024;
/// Drops are said at most so often,
const SAY_EVERY: Duration = Duration::from_secs(1);
/// and when the queue is empty again; or after so long, if it never is.
const SAY_AFTER: Duration = Duration::from_secs(10);

/// An item of the queue: lines, or a command between them.
#[derive(Debug)]
pub(super) enum Item<O> {
    Lines(Arc<Chunk>),
    Order(O),
}

/// Lines and orders on their way to one writer, in their order.
#[derive(Debug)]
pub(super) struct Queue<O> {
    state: Mutex<State<O>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<O> {
    items: VecDeque<Item<O>>,
    bytes: usize,
    orders: usize,
    closed: bool,
    drops: Drops,
}

/// Lines that were dropped and not spoken of yet.
#[derive(Debug, Default)]
struct Drops {
    lines: u64,
    since: Option<Timestamp>,
    said: Option<Timestamp>,
}

impl<O> Queue<O> {
    pub(super) fn new() -> Arc<Self> {
        let state = State {
            items: VecDeque::new(),
            bytes: 0,
            orders: 0,
            closed: false,
            drops: Drops::default(),
        };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Adds lines, and returns how many had to be dropped: all of them or none.
    pub(super) fn push(&self, chunk: &Arc<Chunk>) -> u64 {
        let mut state = self.lock();
        let size = chunk.size();
        if state.bytes + size > MOST_BYTES {
            let lines = chunk.text.count();
            state.drops.lines += lines;
            state.drops.since.get_or_insert_with(Timestamp::now);
            return lines;
        }
        state.bytes += size;
        state.items.push_back(Item::Lines(Arc::clone(chunk)));
        self.changed.notify_one();
        0
    }

    /// Adds an order, however many lines wait.
    pub(super) fn order(&self, order: O) {
        let mut state = self.lock();
        if state.orders < MOST_ORDERS {
            state.orders += 1;
            state.items.push_back(Item::Order(order));
            self.changed.notify_one();
        }
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits for items and moves some to `batch`; or for a moment only, when there are drops to be
    /// spoken of. False when it is closed and empty.
    pub(super) fn take(&self, batch: &mut Vec<Item<O>>) -> bool {
        let mut state = self.lock();
        while state.items.is_empty() && !state.closed {
            if state.drops.lines > 0 {
                let waited = self.changed.wait_timeout(state, SAY_EVERY);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.take(batch);
        !(batch.is_empty() && state.closed)
    }

    /// How many lines were dropped, if it is time to say so.
    pub(super) fn drops_to_say(&self) -> Option<u64> {
        let mut state = self.lock();
        let (flows, closed) = (state.items.is_empty(), state.closed);
        state.drops.say(flows, closed, Timestamp::now())
    }

    /// How many lines wait.
    pub(super) fn lines(&self) -> u64 {
        let state = self.lock();
        let lines = |item: &Item<O>| match item {
            Item::Lines(chunk) => chunk.text.count(),
            Item::Order(_) => 0,
        };
        state.items.iter().map(lines).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State<O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O> State<O> {
    fn take(&mut self, batch: &mut Vec<Item<O>>) {
        let mut taken = 0;
        while taken < BATCH
            && let Some(item) = self.items.pop_front()
        {
            match &item {
                Item::Lines(chunk) => taken += chunk.size(),
                Item::Order(_) => self.orders -= 1,
            }
            batch.push(item);
        }
        self.bytes -= taken;
    }
}

impl Drops {
    fn say(&mut self, flows: bool, closed: bool, now: Timestamp) -> Option<u64> {
        let ago = |time: Option<Timestamp>| time.map_or(Duration::MAX, |time| now.since(time));
        let long = ago(self.since) >= SAY_AFTER;
        let time = (flows || long) && ago(self.said) >= SAY_EVERY;
        if self.lines == 0 || !(time || closed) {
            return None;
        }
        self.since = None;
        self.said = Some(now);
        Some(std::mem::take(&mut self.lines))
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::seam::WorkerId;
    use crate::protocol::ids::{Generation, SlotId};
    use crate::supervisor::output::lines::{OVERHEAD, Origin, Stream, Text};

    fn chunk(bytes: Vec<u8>) -> Arc<Chunk> {
        let worker = WorkerId { slot: SlotId(0), generation: Generation(0) };
        let origin = Origin { worker, pid: 1, stream: Stream::Out };
        let text = Text { bytes, partial: false };
        Arc::new(Chunk { origin, time: jiff::Timestamp::UNIX_EPOCH, text })
    }

    #[test]
    fn a_full_queue_drops_lines_but_no_order() {
        let queue = Queue::new();
        let long = chunk(vec![b'\n'; MOST_BYTES - 4 * OVERHEAD]);
        assert_eq!(queue.push(&long), 0);
        assert_eq!(queue.push(&chunk(vec![b'\n'; 1_000])), 1_000);
        assert_eq!(queue.push(&chunk(b"still fits\n".to_vec())), 0);
        queue.order("an order");
        assert_eq!(queue.drops_to_say(), None, "it does not flow yet");
        let mut batch = Vec::new();
        assert!(queue.take(&mut batch) && batch.len() == 1, "one batch is more than enough");
        assert!(queue.take(&mut batch));
        assert!(matches!(batch[..], [Item::Lines(_), Item::Lines(_), Item::Order("an order")]));
        assert_eq!(queue.drops_to_say(), Some(1_000));
        assert_eq!(queue.drops_to_say(), None);
        assert_eq!(queue.push(&long), 0, "its room is free again");
    }

    #[test]
    fn a_closed_queue_is_emptied_first() {
        let (queue, mut batch) = (Queue::<()>::new(), Vec::new());
        queue.push(&chunk(b"x\n".to_vec()));
        queue.close();
        assert!(queue.take(&mut batch));
        batch.clear();
        assert!(!queue.take(&mut batch));
    }

    #[test]
    fn drops_are_said_seldom() {
        let second = Duration::from_secs(1);
        let begin = Timestamp::now() + second * 60;
        let mut drops = Drops { lines: 5, since: Some(begin), said: None };
        assert_eq!(drops.say(false, false, begin + second), None, "still full");
        assert_eq!(drops.say(false, false, begin + SAY_AFTER), Some(5));
        drops.lines = 7;
        assert_eq!(drops.say(true, false, begin + SAY_AFTER), None, "just said");
        assert_eq!(drops.say(true, false, begin + SAY_AFTER + second), Some(7));
        drops.lines = 1;
        assert_eq!(drops.say(false, true, begin + SAY_AFTER + second), Some(1), "the end");
    }
}
