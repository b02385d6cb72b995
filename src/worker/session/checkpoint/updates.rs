//! The news of checkpoints for the primary, until the accept loop sends it.
//!
//! Bounded by the sessions there are and those that the primary still protects: one that is protected
//! and ends before anything was told is not told of.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

use crate::protocol::ids::ConnectionId;
use crate::protocol::message::ConnectionRecord;

/// Whether the primary was sent it, whatever has become of it since.
pub(crate) type SentFlag = Arc<AtomicBool>;

/// One thing to tell.
#[derive(Debug)]
pub(crate) enum Update {
    /// The file of all checkpoints.
    File(OwnedFd),
    /// This session is to be protected.
    Protect(Protect),
    /// This session is not to be protected any more.
    Unprotect(ConnectionId),
}

/// That a session is to be protected.
#[derive(Debug)]
pub(crate) struct Protect {
    pub(crate) record: ConnectionRecord,
    /// Of its entry.
    pub(crate) place: u64,
    /// A copy of its socket.
    pub(crate) socket: OwnedFd,
    /// Set when it is sent.
    pub(crate) sent: SentFlag,
}

/// Everything to tell, in order.
#[derive(Debug, Default)]
pub(super) struct Updates {
    waiting: VecDeque<Update>,
    /// Of the accept loop.
    waker: Option<Waker>,
    /// The primary has got the file, or will before anything else.
    has_file: bool,
    is_closed: bool,
}

impl Updates {
    pub(super) fn has_file(&self) -> bool {
        self.has_file
    }

    pub(super) fn push(&mut self, update: Update) {
        self.has_file |= matches!(update, Update::File(_));
        if !self.is_closed {
            self.waiting.push_back(update);
            self.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    pub(super) fn unprotect(&mut self, id: ConnectionId) {
        let is_its = |update: &Update| matches!(update, Update::Protect(it) if it.record.id == id);
        match self.waiting.iter().rposition(is_its) {
            Some(position) => drop(self.waiting.remove(position)),
            None => self.push(Update::Unprotect(id)),
        }
    }

    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Update> {
        match self.waiting.pop_front() {
            Some(update) => Poll::Ready(update),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.waiting.clear();
    }
}
