//! What the primary is to be told of the ledger, until the accept loop tells it.
//!
//! Bounded by the sessions there are and those that the primary still keeps: who is to be kept and
//! forgotten again before anything was told is not spoken of.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

use crate::protocol::ids::ConnectionId;
use crate::protocol::message::ConnectionRecord;

/// Whether the primary was sent it, whatever has become of it since.
pub(crate) type Told = Arc<AtomicBool>;

/// One thing.
#[derive(Debug)]
pub(crate) enum Note {
    /// The ledger itself.
    Ledger(OwnedFd),
    /// This session's entry is at that page.
    Keep { record: ConnectionRecord, page: u64, socket: OwnedFd, told: Told },
    /// This session is not to be kept any more.
    Forget(ConnectionId),
}

/// In order.
#[derive(Debug, Default)]
pub(super) struct Notes {
    waiting: VecDeque<Note>,
    /// Of the accept loop.
    waker: Option<Waker>,
    /// The primary has got the ledger, or will before anything else.
    introduced: bool,
    closed: bool,
}

impl Notes {
    pub(super) fn is_introduced(&self) -> bool {
        self.introduced
    }

    pub(super) fn push(&mut self, note: Note) {
        self.introduced |= matches!(note, Note::Ledger(_));
        if !self.closed {
            self.waiting.push_back(note);
            self.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    pub(super) fn forget(&mut self, id: ConnectionId) {
        let untold = |note: &Note| matches!(note, Note::Keep { record, .. } if record.id == id);
        match self.waiting.iter().rposition(untold) {
            Some(position) => drop(self.waiting.remove(position)),
            None => self.push(Note::Forget(id)),
        }
    }

    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Note> {
        match self.waiting.pop_front() {
            Some(note) => Poll::Ready(note),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
    }
}
