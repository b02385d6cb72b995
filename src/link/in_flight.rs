//! Connections on their way to one worker: in the order in which it gets them, and at most as many as its
//! credits.
//!
//! Common to all dialects. Does no I/O and reads no clock: a dialect says what its worker has completed,
//! refused or never received.

use std::collections::VecDeque;

use crate::handover::carry;
use crate::handover::link::CountsSnapshot;
use crate::link::connection::PendingConnection;
use crate::link::error::ChannelError;
use crate::protocol::ids::{ConnectionId, Timestamp};

/// Connections on their way to one worker.
#[derive(Debug)]
pub struct InFlight {
    entries: VecDeque<Entry>,
    credits: usize,
    counts: Counts,
    /// Whether the number of sessions has gone down since [`InFlight::take_sessions_changed`].
    sessions_changed: bool,
}

/// One place in the order.
#[derive(Debug)]
struct Entry {
    id: ConnectionId,
    sent_at: Timestamp,
    /// None once the worker has refused it; its place stays until the worker has completed it.
    connection: Option<PendingConnection>,
}

/// What a worker has done with its connections since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged or refused, by the worker's own count.
    pub completed: u64,
    /// Refused.
    pub refused: u64,
    /// Acknowledged.
    pub acknowledged: u64,
}

carry!(struct Counts => CountsSnapshot { completed, refused, acknowledged });

/// What it takes to go on with the same entries in another process.
pub type EntryParts = (ConnectionId, Timestamp, Option<PendingConnection>);

impl InFlight {
    /// None yet, and at most `credits` at a time.
    #[must_use]
    pub fn new(credits: usize) -> Self {
        Self {
            entries: VecDeque::with_capacity(credits),
            credits,
            counts: Counts::default(),
            sessions_changed: false,
        }
    }

    /// As another process has left them.
    #[must_use]
    pub fn restore(credits: usize, counts: Counts, entries: Vec<EntryParts>) -> Self {
        let mut restored = Self { counts, sessions_changed: true, ..Self::new(credits) };
        let entry = |(id, sent_at, connection)| Entry { id, sent_at, connection };
        restored.entries.extend(entries.into_iter().map(entry));
        restored
    }

    /// The entries, for [`InFlight::restore`].
    pub fn into_entries(self) -> impl Iterator<Item = EntryParts> {
        self.entries.into_iter().map(|entry| (entry.id, entry.sent_at, entry.connection))
    }

    /// At most so many are on their way at a time.
    #[must_use]
    pub fn credits(&self) -> usize {
        self.credits
    }

    /// So many more may be sent now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.credits.saturating_sub(self.entries.len())
    }

    /// How many are on their way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the worker has done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many of those on their way are sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.connections().filter(|one| one.transfer.is_some()).count()
    }

    /// How many of those on their way are clients, without refused ones.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.connections().filter(|one| one.transfer.is_none()).count()
    }

    /// When the oldest one was sent.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.entries.front().map(|oldest| oldest.sent_at)
    }

    /// Whether this one is on its way and not refused.
    #[must_use]
    pub fn contains(&self, id: ConnectionId) -> bool {
        self.entries.iter().any(|entry| entry.is(id))
    }

    /// The last ones that were sent, the first of them first.
    pub fn last(&self, count: usize) -> impl Iterator<Item = &PendingConnection> {
        let last = self.entries.iter().skip(self.entries.len().saturating_sub(count));
        last.filter_map(|entry| entry.connection.as_ref())
    }

    /// These were sent, in this order.
    pub fn sent(&mut self, connections: impl Iterator<Item = PendingConnection>, now: Timestamp) {
        self.entries.extend(connections.map(|connection| Entry {
            id: connection.record.id,
            sent_at: now,
            connection: Some(connection),
        }));
    }

    /// The worker has refused this one: it is the primary's again, once. Its place stays until the worker
    /// has completed it.
    pub fn refuse(&mut self, id: ConnectionId) -> Option<PendingConnection> {
        let entry = self.entries.iter_mut().find(|entry| entry.is(id))?;
        let connection = entry.connection.take()?;
        self.counts.refused += 1;
        self.sessions_changed |= connection.transfer.is_some();
        Some(connection)
    }

    /// Takes out one that the worker has not received and will never complete.
    pub fn withdraw(&mut self, id: ConnectionId) -> Option<PendingConnection> {
        let position = self.entries.iter().position(|entry| entry.is(id))?;
        let connection = self.entries.remove(position)?.connection?;
        self.sessions_changed |= connection.transfer.is_some();
        Some(connection)
    }

    /// The worker has completed so many since its start and refused so many of them. Gives those that it
    /// has acknowledged since the last time to `acknowledged`, and returns how many there were; `None` where
    /// a refusal is counted and [`InFlight::refuse`] has not been called for it: that comes first.
    ///
    /// # Errors
    ///
    /// If that is more than was sent.
    pub fn complete(
        &mut self,
        completed: u64,
        refused: u64,
        acknowledged: impl FnMut(PendingConnection),
    ) -> Result<Option<usize>, ChannelError> {
        let more = completed.wrapping_sub(self.counts.completed);
        if more == 0 {
            return Ok(Some(0));
        }
        let breach = ChannelError::Scoreboard { completed, refused };
        let count = usize::try_from(more).ok().filter(|more| *more <= self.entries.len());
        let Some(count) = count else { return Err(breach) };
        if refused > self.counts.refused {
            return Ok(None);
        }
        self.counts.completed = completed;
        let sessions = &mut self.sessions_changed;
        let gone = self.entries.drain(..count).filter_map(|entry| entry.connection);
        let gone = gone.inspect(|one| *sessions |= one.transfer.is_some());
        let count = gone.map(acknowledged).count();
        self.counts.acknowledged += count as u64;
        Ok(Some(count))
    }

    /// Counts on from what another primary has seen of the worker: `completed`, and of those `refused`.
    pub fn count_from(&mut self, completed: u64, refused: u64) {
        let acknowledged = completed.saturating_sub(refused);
        self.counts = Counts { completed, refused, acknowledged };
        self.sessions_changed = true;
    }

    /// Whether the number of sessions has gone down since this was asked.
    pub fn take_sessions_changed(&mut self) -> bool {
        std::mem::take(&mut self.sessions_changed)
    }

    /// Takes out all, without refused ones.
    pub fn drain(&mut self) -> impl Iterator<Item = PendingConnection> {
        self.entries.drain(..).filter_map(|entry| entry.connection)
    }

    fn connections(&self) -> impl Iterator<Item = &PendingConnection> {
        self.entries.iter().filter_map(|entry| entry.connection.as_ref())
    }
}

impl Entry {
    fn is(&self, id: ConnectionId) -> bool {
        self.id == id && self.connection.is_some()
    }
}
