//! The last lines that workers have printed, for readers of these and of those that follow.
//!
//! One ring of lines, bounded by bytes, is memory and queue in one; a follower is a place in it. One
//! that is too slow finds what it has yet to take gone, and learns how many lines that was. So
//! followers block nothing, need no memory of their own, and cost nothing once they are dropped.
//!
//! All workers share the ring: one that prints a lot leaves little of the others'. A copy of it, in memory that
//! outlives this process, is where a successor begins.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::link::seam::WorkerId;
use crate::protocol::ids::SlotId;
use crate::supervisor::output::lines::{Chunk, Origin, Stream};
use crate::system::ring::Ring;

/// Bytes of lines in memory.
const MOST_BYTES: usize = 1024 * 1024;
/// Bytes of lines in the memory that a successor gets.
const RING_BYTES: u64 = 1024 * 1024;

/// The lines that are wanted; all of them by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineFilter {
    /// Of this slot only.
    pub slot: Option<SlotId>,
    /// Of standard error only.
    pub err: bool,
}

impl LineFilter {
    fn takes(self, slot: SlotId, stream: Stream) -> bool {
        self.slot.is_none_or(|wanted| wanted == slot) && (!self.err || stream == Stream::Err)
    }

    fn takes_of(self, origin: &Origin) -> bool {
        self.takes(origin.worker.slot, origin.stream)
    }
}

/// A line that a worker has printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrintedLine<'a> {
    /// When it was read.
    pub time: jiff::Timestamp,
    /// The worker that printed it.
    pub worker: WorkerId,
    /// The worker's process.
    pub pid: i32,
    /// Where to.
    pub stream: Stream,
    /// The line without its end, as the worker wrote it: not always UTF-8.
    pub text: &'a [u8],
    /// It goes on in the next line of this stream: it is a piece of one of more than 64 KiB.
    pub partial: bool,
}

/// Lines that workers have printed, in the order in which they were read.
#[derive(Clone, Debug, Default)]
pub struct Printed {
    /// Lines before these that are gone: they were not taken in time.
    pub missed: u64,
    chunks: Vec<Arc<Chunk>>,
    /// Lines of the first chunk that are not meant.
    skipped: usize,
}

impl Printed {
    /// The lines.
    pub fn lines(&self) -> impl Iterator<Item = PrintedLine<'_>> {
        self.chunks.iter().flat_map(|chunk| lines_of(chunk)).skip(self.skipped)
    }

    fn is_empty(&self) -> bool {
        self.missed == 0 && self.chunks.is_empty()
    }
}

fn lines_of(chunk: &Chunk) -> impl Iterator<Item = PrintedLine<'_>> {
    let Chunk { origin: Origin { worker, pid, stream }, time, text } = chunk;
    let line = |text, partial| PrintedLine {
        time: *time,
        worker: *worker,
        pid: *pid,
        stream: *stream,
        text,
        partial,
    };
    text.lines().map(move |bytes| line(bytes, text.partial))
}

/// The last lines, and all that follow them.
#[derive(Debug)]
pub struct Recent {
    /// The last ones.
    pub printed: Printed,
    /// Goes on where those end, without a gap.
    pub follower: Follower,
}

/// Goes along with what workers print.
#[derive(Debug)]
pub struct Follower {
    tail: Arc<Tail>,
    place: Place,
}

impl Follower {
    /// Waits for lines, and takes all that there are; none when no more come. May be dropped and
    /// called again without losing one. A follower that takes them too seldom misses some: 1 MiB of lines
    /// is in memory.
    pub async fn next(&mut self) -> Option<Printed> {
        loop {
            // Registered before it looks, so that no later line is missed.
            let changed = self.tail.changed.notified();
            {
                let state = self.tail.lock();
                let printed = self.place.take(&state);
                if !printed.is_empty() {
                    return Some(printed);
                }
                if state.closed {
                    return None;
                }
            }
            changed.await;
        }
    }
}

/// How far a follower is.
#[derive(Debug)]
struct Place {
    filter: LineFilter,
    /// The number of the chunk that it takes next.
    next: u64,
    /// How many lines before that are such as it wants.
    before: u64,
}

impl Place {
    fn take(&mut self, state: &State) -> Printed {
        let filter = self.filter;
        // All chunks before the first are forgotten, those before its own place among them.
        let behind = self.next < state.first;
        let missed = if behind { state.forgotten(filter) - self.before } else { 0 };
        let from = usize::try_from(self.next.saturating_sub(state.first)).unwrap_or(usize::MAX);
        let wanted = state.entries.range(from.min(state.entries.len())..);
        let wanted = wanted.filter(|entry| filter.takes_of(&entry.chunk.origin));
        let (mut chunks, mut count) = (Vec::new(), 0);
        for entry in wanted {
            chunks.push(Arc::clone(&entry.chunk));
            count += entry.lines;
        }
        self.next = state.end();
        self.before += missed + count;
        Printed { missed, chunks, skipped: 0 }
    }
}

/// The last lines of all workers.
#[derive(Debug, Default)]
pub(super) struct Tail {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    /// The number of the first entry, from the start.
    first: u64,
    bytes: usize,
    /// How many lines are no longer there, of each slot: of standard output, of standard error.
    forgotten: Vec<[u64; 2]>,
    closed: bool,
    /// The copy for a successor, if there is memory for it.
    ring: Option<Ring>,
}

#[derive(Debug)]
struct Entry {
    chunk: Arc<Chunk>,
    lines: u64,
}

impl Entry {
    fn new(chunk: &Arc<Chunk>) -> Self {
        Self { chunk: Arc::clone(chunk), lines: chunk.text.count() }
    }
}

impl Tail {
    /// With the lines that a predecessor has left.
    pub(super) fn resume(memory: Option<OwnedFd>) -> Self {
        let tail = Self::default();
        match Ring::resume(memory, RING_BYTES) {
            Ok((ring, records)) => {
                let mut state = tail.lock();
                let chunks = records.iter().filter_map(|record| Chunk::decode(record));
                chunks.for_each(|chunk| state.push(Entry::new(&Arc::new(chunk))));
                state.ring = Some(ring);
            }
            Err(error) => {
                tracing::warn!(%error, "no memory for workers' last lines: an upgrade loses them");
            }
        }
        tail
    }

    /// The memory for a successor, if there is any.
    pub(super) fn memory(&self) -> Option<io::Result<OwnedFd>> {
        self.lock().ring.as_ref().map(Ring::memory)
    }

    /// Remembers lines, and forgets the oldest for it.
    pub(super) fn push(&self, chunk: &Arc<Chunk>) {
        let mut state = self.lock();
        // Without memory the copy ends where it is.
        state.ring.take_if(|ring| ring.push(&chunk.encode()).is_err());
        state.push(Entry::new(chunk));
        drop(state);
        self.changed.notify_waiters();
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }

    /// The last `count` lines that `filter` takes, or as many as are in memory.
    pub(super) fn recent(self: &Arc<Self>, filter: LineFilter, count: usize) -> Recent {
        let state = self.lock();
        let mut place = Place { filter, next: state.first, before: state.forgotten(filter) };
        let mut printed = place.take(&state);
        drop(state);
        let mut missing = u64::try_from(count).unwrap_or(u64::MAX);
        let begins = printed.chunks.iter().rposition(|chunk| {
            let lines = chunk.text.count();
            printed.skipped = usize::try_from(lines.saturating_sub(missing)).unwrap_or(usize::MAX);
            missing = missing.saturating_sub(lines);
            missing == 0
        });
        printed.chunks.drain(..begins.unwrap_or(0));
        Recent { printed, follower: Follower { tail: Arc::clone(self), place } }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.chunk.size();
        self.entries.push_back(entry);
        while self.bytes > MOST_BYTES
            && let Some(oldest) = self.entries.pop_front()
        {
            self.first += 1;
            self.bytes -= oldest.chunk.size();
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, entry: &Entry) {
        let Origin { worker, stream, .. } = entry.chunk.origin;
        let slot = worker.slot.index();
        if self.forgotten.len() <= slot {
            self.forgotten.resize(slot + 1, [0; 2]);
        }
        self.forgotten[slot][usize::from(stream == Stream::Err)] += entry.lines;
    }

    /// How many of the lines that `filter` takes are no longer there.
    fn forgotten(&self, filter: LineFilter) -> u64 {
        let slots = (0..).map(SlotId).zip(&self.forgotten);
        let counts = slots
            .flat_map(|(slot, [out, err])| [(slot, Stream::Out, out), (slot, Stream::Err, err)]);
        counts
            .filter(|(slot, stream, _)| filter.takes(*slot, *stream))
            .map(|(.., count)| count)
            .sum()
    }

    /// The number of the entry that comes next.
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
}

#[cfg(test)]
mod tests;
