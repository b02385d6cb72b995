//! The worker's ledger: what is written down of each protected session whenever it is at rest, so that
//! the primary can give it to another worker if this one is killed. The layout is
//! [the handoff's](crate::protocol::checkpoint).
//!
//! Never makes a system call when a session comes to rest, but for the first time and where its
//! state has outgrown its place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use crate::protocol::checkpoint::{EntryWriter, Extent, copy_into};
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::ConnectionRecord;
use crate::protocol::tcp_progress::TcpProgress;
use crate::worker::session::handle::{Baggage, Kind};
use crate::worker::session::image::Parcel;
use crate::worker::session::lock;

mod notes;
mod pages;

use notes::Notes;
pub(crate) use notes::{Note, Told};
use pages::{Pages, Run};

/// All entries of a worker, and what the primary is to be told of them.
#[derive(Debug, Default)]
pub(crate) struct OwnLedger {
    pages: Pages,
    notes: Mutex<Notes>,
    /// It was said that there is no memory for it.
    complained: AtomicBool,
}

/// A session's entry, for as long as it is kept. Dropped, the primary is told to forget it.
pub(crate) struct Kept {
    ledger: Arc<OwnLedger>,
    record: ConnectionRecord,
    /// Before the first byte that its gate has read or written.
    base: TcpProgress,
    page: Run,
    /// Of the page's room, taken by the unchanging part of the image; or where else that is.
    fixed: usize,
    _elsewhere: Option<Run>,
    /// The two states that are too long for the page.
    states: [Option<Run>; 2],
    told: Told,
    surrendered: bool,
}

/// A session at rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest<'a> {
    /// Bytes that its gate has read and written so far.
    pub(crate) read: u64,
    pub(crate) written: u64,
    /// What its handler leaves now.
    pub(crate) state: &'a [u8],
}

impl OwnLedger {
    /// Writes down a session that is at rest now, and has it kept. None if there is no memory for
    /// it, or its client is gone: then it is as sessions are that aren't protected.
    pub(crate) fn keep(
        self: &Arc<Self>,
        record: &ConnectionRecord,
        socket: impl AsFd,
        head: &[u8],
        rest: Rest<'_>,
    ) -> Option<Box<Kept>> {
        match self.try_keep(record, socket.as_fd(), head, rest) {
            Ok(kept) => kept.map(Box::new),
            Err(error) => {
                if !self.complained.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "no memory or descriptor for a session's ledger");
                }
                None
            }
        }
    }

    fn try_keep(
        self: &Arc<Self>,
        record: &ConnectionRecord,
        socket: BorrowedFd<'_>,
        head: &[u8],
        rest: Rest<'_>,
    ) -> io::Result<Option<Kept>> {
        let Some(usage) = TcpProgress::of(socket)? else { return Ok(None) };
        let base = usage.and(rest.read.wrapping_neg(), rest.written.wrapping_neg());
        let copy = socket.try_clone_to_owned()?;
        let fixed = unchanging(head);
        let mut kept = self.entry(record, base, &fixed)?;
        kept.publish(rest)?;
        let (page, told) = (kept.page.first(), Arc::clone(&kept.told));
        let mut notes = lock(&self.notes);
        if !notes.is_introduced()
            && let Some(ledger) = self.pages.file()?
        {
            notes.push(Note::Ledger(ledger));
        }
        notes.push(Note::Keep { record: *record, page, socket: copy, told });
        drop(notes);
        Ok(Some(kept))
    }

    /// An entry that says nothing yet.
    fn entry(
        self: &Arc<Self>,
        record: &ConnectionRecord,
        base: TcpProgress,
        fixed: &[u8],
    ) -> io::Result<Kept> {
        let page = self.pages.take(1)?;
        let writer = EntryWriter::new(page.cells(), page.first());
        let elsewhere = if fixed.len() > EntryWriter::ROOM {
            Some(self.pages.take(fixed.len())?)
        } else {
            None
        };
        let (in_page, (cells, offset)) = match &elsewhere {
            Some(run) => (0, (run.cells(), run.offset())),
            None => {
                let length = fixed.len().next_multiple_of(8);
                (length, writer.room(0, length))
            }
        };
        copy_into(cells, fixed);
        writer.begin(record.id, Extent { offset, length: fixed.len() as u64 });
        Ok(Kept {
            ledger: Arc::clone(self),
            record: *record,
            base,
            page,
            fixed: in_page,
            _elsewhere: elsewhere,
            states: [None, None],
            told: Told::default(),
            surrendered: false,
        })
    }

    /// What the primary is to be told next. To be asked from one place alone.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "as all that is polled has it")]
    pub(crate) fn poll_note(&self, cx: &mut Context<'_>) -> Poll<Note> {
        lock(&self.notes).poll(cx)
    }

    /// There is no primary that could be told anything.
    pub(crate) fn close(&self) {
        lock(&self.notes).close();
    }

    /// Another primary has come, which knows nothing yet: it gets the ledger. The sessions follow by
    /// [`Kept::keep_again`].
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub(crate) fn introduce(&self) -> io::Result<()> {
        if let Some(ledger) = self.pages.file()? {
            lock(&self.notes).push(Note::Ledger(ledger));
        }
        Ok(())
    }
}

impl Kept {
    /// Writes down where the session is at rest.
    ///
    /// # Errors
    ///
    /// If there is no memory for the state; then the entry is out of date.
    pub(crate) fn publish(&mut self, rest: Rest<'_>) -> io::Result<()> {
        let Rest { read, written, state } = rest;
        let writer = EntryWriter::new(self.page.cells(), self.page.first());
        let which = writer.free_state();
        // Room for two.
        let each = (EntryWriter::ROOM - self.fixed) / 16 * 8;
        let (cells, offset) = if state.len() <= each {
            writer.room(self.fixed + which * each, each)
        } else {
            let place = &mut self.states[which];
            if place.as_ref().is_none_or(|run| run.length() < state.len()) {
                // In this order, so that the old one may be the new one's neighbour.
                *place = None;
                *place = Some(self.ledger.pages.take(state.len())?);
            }
            let Some(run) = place else { return Err(io::ErrorKind::OutOfMemory.into()) };
            (run.cells(), run.offset())
        };
        copy_into(cells, state);
        let extent = Extent { offset, length: state.len() as u64 };
        writer.publish(self.base.and(read, written), extent);
        Ok(())
    }

    /// Whether the primary has been sent it: until then it may not leave.
    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }

    /// Another primary has come: it is to keep it, too.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub(crate) fn keep_again(&self, socket: impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        let (page, told) = (self.page.first(), Arc::clone(&self.told));
        lock(&self.ledger.notes).push(Note::Keep { record: self.record, page, socket, told });
        Ok(())
    }

    /// It was offered to others, by which the primary has forgotten it: it needn't be told.
    pub(crate) fn surrender(mut self) {
        self.surrendered = true;
    }

    pub(crate) fn id(&self) -> ConnectionId {
        self.record.id
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        EntryWriter::new(self.page.cells(), self.page.first()).clear();
        if !self.surrendered {
            lock(&self.ledger.notes).forget(self.record.id);
        }
    }
}

/// The part of a session's parcel that stays as it is.
fn unchanging(head: &[u8]) -> Vec<u8> {
    let baggage = Baggage { kind: Kind::WebSocket, head: head.to_vec(), unread: Vec::new() };
    let state = Some(Vec::new());
    Parcel { baggage, state, left_at: Timestamp::now(), protect: true }.encode_open()
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("id", &self.id()).finish_non_exhaustive()
    }
}
