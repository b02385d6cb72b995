//! Checkpoints: each protected session's state, written whenever it is at rest, so that the primary can
//! give it to another worker if this one is killed. The layout is
//! [the protocol's](crate::protocol::checkpoint).
//!
//! Never makes a system call when a session comes to rest, but for the first time and if its state
//! has outgrown its place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use crate::kernel::PAGE;
use crate::protocol::checkpoint::{EntryWriter, Extent, copy_into};
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::ConnectionRecord;
use crate::protocol::tcp_progress::TcpProgress;
use crate::worker::lock::lock;
use crate::worker::session::image::SessionImage;
use crate::worker::session::image::{ConnectionState, Kind, Negotiated};

mod pages;
mod updates;

use pages::{Pages, Run};
use updates::Updates;
pub(crate) use updates::{Protect, SentFlag, Update};

/// Room for a state of which nothing is known but that it is short.
const MIN_STATE_ROOM: usize = 32;

/// All checkpoints of a worker, and what the primary is to be told of them.
#[derive(Debug, Default)]
pub(crate) struct CheckpointStore {
    pages: Pages,
    updates: Mutex<Updates>,
    /// That there is no memory was logged.
    is_reported: AtomicBool,
}

/// A session's checkpoint. When it is dropped, the primary is told to protect the session no more.
pub(crate) struct Checkpoint {
    store: Arc<CheckpointStore>,
    record: ConnectionRecord,
    /// Before the first byte that its stream has read or written.
    base: TcpProgress,
    entry: Run,
    /// How much of the entry's room the unchanging part of the image takes; or where else that is.
    fixed: usize,
    _elsewhere: Option<Box<Run>>,
    /// The two states that are too long for the room.
    states: [Option<Box<Run>>; 2],
    sent: SentFlag,
    is_released: bool,
}

/// A session at rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtRest<'a> {
    /// Bytes that its stream has read and written so far.
    pub(crate) read: u64,
    pub(crate) written: u64,
    /// Its handler's state.
    pub(crate) state: &'a [u8],
}

impl CheckpointStore {
    /// Writes the first checkpoint of a session that is at rest now. None if there is no memory for it,
    /// or its client is gone: it isn't protected then.
    pub(crate) fn protect(
        self: &Arc<Self>,
        record: &ConnectionRecord,
        socket: impl AsFd,
        head: &[u8],
        negotiated: Option<&Negotiated>,
        rest: AtRest<'_>,
    ) -> Option<Box<Checkpoint>> {
        match self.try_protect(record, socket.as_fd(), head, negotiated, rest) {
            Ok(checkpoint) => checkpoint.map(Box::new),
            Err(error) => {
                if !self.is_reported.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "no memory or descriptor for a session's checkpoint");
                }
                None
            }
        }
    }

    fn try_protect(
        self: &Arc<Self>,
        record: &ConnectionRecord,
        socket: BorrowedFd<'_>,
        head: &[u8],
        negotiated: Option<&Negotiated>,
        rest: AtRest<'_>,
    ) -> io::Result<Option<Checkpoint>> {
        let Some(usage) = TcpProgress::of(socket)? else { return Ok(None) };
        let base = usage.and(rest.read.wrapping_neg(), rest.written.wrapping_neg());
        let copy = socket.try_clone_to_owned()?;
        let fixed = unchanging(head, negotiated);
        let mut checkpoint = self.entry(record, base, &fixed, rest.state.len())?;
        checkpoint.publish(rest)?;
        let (place, sent) = (checkpoint.entry.place(), Arc::clone(&checkpoint.sent));
        let mut updates = lock(&self.updates);
        if !updates.has_file()
            && let Some(file) = self.pages.file()?
        {
            updates.push(Update::File(file));
        }
        updates.push(Update::Protect(Protect { record: *record, place, socket: copy, sent }));
        drop(updates);
        Ok(Some(checkpoint))
    }

    /// A checkpoint that says nothing yet, for states of about this length.
    fn entry(
        self: &Arc<Self>,
        record: &ConnectionRecord,
        base: TcpProgress,
        fixed: &[u8],
        state: usize,
    ) -> io::Result<Checkpoint> {
        let entry = self.pages.take(entry_length(fixed.len(), state))?;
        let writer = EntryWriter::new(entry.cells(), entry.place());
        let elsewhere = if fixed.len() > writer.room_length() {
            Some(Box::new(self.pages.take(fixed.len())?))
        } else {
            None
        };
        let (in_room, (cells, offset)) = match &elsewhere {
            Some(run) => (0, (run.cells(), run.offset())),
            None => {
                let length = fixed.len().next_multiple_of(8);
                (length, writer.room(0, length))
            }
        };
        copy_into(cells, fixed);
        writer.begin(record.id, Extent { offset, length: fixed.len() as u64 });
        Ok(Checkpoint {
            store: Arc::clone(self),
            record: *record,
            base,
            entry,
            fixed: in_room,
            _elsewhere: elsewhere,
            states: [None, None],
            sent: SentFlag::default(),
            is_released: false,
        })
    }

    /// The next thing to tell the primary. Only one task may poll it.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "as all that is polled has it")]
    pub(crate) fn poll_update(&self, cx: &mut Context<'_>) -> Poll<Update> {
        lock(&self.updates).poll(cx)
    }

    /// There is no primary that could be told anything.
    pub(crate) fn close(&self) {
        lock(&self.updates).close();
    }

    /// Another primary has come, which knows nothing yet: it is sent the file. The sessions follow by
    /// [`Checkpoint::protect_again`].
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub(crate) fn resend_file(&self) -> io::Result<()> {
        if let Some(file) = self.pages.file()? {
            lock(&self.updates).push(Update::File(file));
        }
        Ok(())
    }
}

impl Checkpoint {
    /// Writes where the session is at rest.
    ///
    /// # Errors
    ///
    /// If there is no memory for the state; the checkpoint is out of date then.
    pub(crate) fn publish(&mut self, rest: AtRest<'_>) -> io::Result<()> {
        let AtRest { read, written, state } = rest;
        let writer = EntryWriter::new(self.entry.cells(), self.entry.place());
        let which = writer.free_state();
        // Room for two.
        let each = (writer.room_length() - self.fixed) / 16 * 8;
        let (cells, offset) = if state.len() <= each {
            writer.room(self.fixed + which * each, each)
        } else {
            let place = &mut self.states[which];
            if place.as_ref().is_none_or(|run| run.length() < state.len()) {
                // In this order, so that the old one may be the new one's neighbour.
                *place = None;
                *place = Some(Box::new(self.store.pages.take(state.len())?));
            }
            let Some(run) = place else { return Err(io::ErrorKind::OutOfMemory.into()) };
            (run.cells(), run.offset())
        };
        copy_into(cells, state);
        let extent = Extent { offset, length: state.len() as u64 };
        writer.publish(self.base.and(read, written), extent);
        Ok(())
    }

    /// Whether the primary has been sent it: until then the session may not migrate.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Acquire)
    }

    /// Whether there is nothing of it that is still to be sent, as another primary has come.
    pub(crate) fn note_sent(&self, is_sent: bool) {
        self.sent.store(is_sent, Ordering::Release);
    }

    /// For another primary: it must protect the session, too.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub(crate) fn protect_again(&self, socket: impl AsFd) -> io::Result<Protect> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        let (place, sent) = (self.entry.place(), Arc::clone(&self.sent));
        Ok(Protect { record: self.record, place, socket, sent })
    }

    /// The session was offered, by which the primary has ended its protection.
    pub(crate) fn release(mut self) {
        self.is_released = true;
    }

    pub(crate) fn id(&self) -> ConnectionId {
        self.record.id
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        EntryWriter::new(self.entry.cells(), self.entry.place()).clear();
        if !self.is_released {
            lock(&self.store.updates).unprotect(self.record.id);
        }
    }
}

/// Bytes of an entry with its unchanging part and two states of this length, which may grow a little. What
/// doesn't fit into a page has a place of its own.
fn entry_length(fixed: usize, state: usize) -> usize {
    let parts = fixed.next_multiple_of(8) + 2 * state.next_multiple_of(8).max(MIN_STATE_ROOM);
    (EntryWriter::LENGTH + parts).min(PAGE)
}

/// The part of a session's image that stays as it is.
fn unchanging(head: &[u8], negotiated: Option<&Negotiated>) -> Vec<u8> {
    let (kind, head, negotiated) = (Kind::WebSocket, head.to_vec(), negotiated.cloned());
    let connection = ConnectionState { kind, head, negotiated, unread: Vec::new() };
    let state = Some(Vec::new());
    SessionImage { connection, state, left_at: Timestamp::now(), protect: true }.encode_open()
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("id", &self.id()).finish_non_exhaustive()
    }
}
