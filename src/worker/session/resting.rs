//! A gate at rest: its library wants to read and nothing has come, which is when a protected session
//! is written down.
//!
//! Never calls the app under the lock: what it leaves counts only if nothing has passed meanwhile.

use std::sync::{Arc, Weak};

use crate::worker::session::Inner;
use crate::worker::session::checkpoint::{Kept, Rest};
use crate::worker::session::state::{Phase, State};
use crate::worker::session::stream::Shared;

/// What makes a session protected.
#[derive(Debug, Default)]
pub(super) struct Safety {
    /// Bytes read from the socket and written to it since the gate was made.
    pub(super) read: u64,
    pub(super) written: u64,
    /// Whose handler has said that it is.
    pub(super) wanted: Option<Weak<Inner>>,
    /// Its entry, once there is one.
    pub(super) kept: Option<Box<Kept>>,
}

/// A gate found at rest.
pub(super) struct Found {
    session: Weak<Inner>,
    read: u64,
    written: u64,
}

impl State {
    /// Whether it is at rest, and somebody wants to know.
    pub(super) fn found_at_rest(&self) -> Option<Found> {
        let session = self.safety.wanted.as_ref().filter(|_| self.rests())?;
        let Safety { read, written, .. } = self.safety;
        Some(Found { session: Weak::clone(session), read, written })
    }

    fn rests(&self) -> bool {
        let served = self.stream.is_some() && !self.held && self.phase == Phase::WebSocket;
        served && self.unread.is_empty() && self.at_boundary()
    }

    /// One that came from another worker and whose handler here doesn't want it to be protected.
    pub(super) fn unwanted(&mut self) -> Option<Box<Kept>> {
        let unwanted = self.safety.wanted.is_none() && self.rests();
        if unwanted { self.safety.kept.take() } else { None }
    }

    fn write_down(&mut self, state: &[u8]) -> Option<Box<Kept>> {
        let Safety { read, written, .. } = self.safety;
        let rest = Rest { read, written, state };
        if let Some(kept) = &mut self.safety.kept {
            if kept.publish(rest).is_ok() {
                return None;
            }
        } else if let (Some(stream), Some(guard)) = (&self.stream, &self.guard) {
            self.safety.kept = guard.keep(stream, &self.head, rest);
            if self.safety.kept.is_some() {
                return None;
            }
        }
        self.give_up()
    }

    /// It is no more than on_migrate from now on.
    fn give_up(&mut self) -> Option<Box<Kept>> {
        self.safety.wanted = None;
        self.safety.kept.take()
    }
}

impl Shared {
    /// Has the handler say what it leaves, and writes it down.
    pub(super) fn write_down(&self, found: &Found) {
        let Some(session) = found.session.upgrade() else { return };
        let state = session.ask();
        let mut gate = self.lock();
        let given_up = match state {
            None => gate.give_up(),
            Some(state) => {
                let Safety { read, written, .. } = gate.safety;
                if (read, written) != (found.read, found.written) || !gate.rests() {
                    return;
                }
                gate.write_down(&state)
            }
        };
        drop(gate);
        // Not under the lock: the primary is told of it.
        drop(given_up);
    }

    /// Its handler says that it is to survive its worker.
    pub(super) fn want_safety(&self, session: &Arc<Inner>) {
        self.lock().safety.wanted = Some(Arc::downgrade(session));
    }

    /// Another primary has come: it is to keep the session, too. Without a descriptor it can't.
    pub(super) fn keep_again(&self) {
        let gate = self.lock();
        if let (Some(stream), Some(kept)) = (&gate.stream, &gate.safety.kept) {
            let _ = kept.keep_again(stream);
        }
    }
}
