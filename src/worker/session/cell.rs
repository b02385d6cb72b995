//! A stream's state under its lock, and the tasks that wait for it.
//!
//! Never holds the lock but for a moment, in which nothing else wants it.

use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use crate::worker::lock::lock;
use crate::worker::session::checkpoint::{AtRest, Checkpoint, Protect};
use crate::worker::session::protection::RestPoint;
use crate::worker::session::state::{Phase, State, UpgradeRequest, Wake, park};

/// The state of a stream, shared with its handles.
#[derive(Debug)]
pub(super) struct StreamCell {
    state: Mutex<State>,
    /// It is drained or has ended.
    changed: Notify,
}

impl StreamCell {
    pub(super) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Wakes when the lock is free: a task that is woken may want it, or drop what wants it.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut State) -> (R, Wake)) -> R {
        let mut state = self.lock();
        let (result, wake) = change(&mut state);
        let has_ended = state.has_ended();
        drop(state);
        wake.into_iter().flatten().for_each(Waker::wake);
        if has_ended {
            self.notify();
        }
        result
    }

    /// Writes, and wakes the tasks that waited for that.
    pub(super) fn write<R>(&self, write: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = write(&mut state);
        let (reader, is_rejected) = (state.reader_to_wake(), state.is_rejected());
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        if is_rejected {
            self.notify();
        }
        result
    }

    /// As [`StreamCell::write`], for a write that may have to wait.
    pub(super) fn poll_write<R>(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut State, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let mut replaced = None;
        self.write(|state| {
            let result = write(state, cx);
            if result.is_pending() {
                replaced = park(&mut state.wakers.writer, cx);
            }
            result
        })
    }

    pub(super) async fn wait(&self, condition: impl Fn(&State) -> bool) {
        loop {
            // In this order, so that a change between the two is not missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if condition(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// Has the handler make its state, and writes the checkpoint.
    pub(super) fn write_checkpoint(&self, point: &RestPoint) {
        let Some(source) = point.source.upgrade() else { return };
        let made = source.make_state();
        let mut state = self.lock();
        let given_up = match made {
            None => state.protection.give_up(),
            Some(_) if state.protection.has_moved_since(point) || !is_at_rest(&state) => return,
            Some(made) => write_checkpoint(&mut state, &made),
        };
        drop(state);
        // Not under the lock: the primary is told of it.
        drop(given_up);
    }

    /// Another primary has come. Says whether the session is protected; it doesn't migrate then before
    /// [`Self::protect_again`], as that ends the protection.
    pub(super) fn note_unsent(&self) -> bool {
        let state = self.lock();
        let checkpoint = state.protection.checkpoint.as_ref().filter(|_| state.stream.is_some());
        checkpoint.inspect(|checkpoint| checkpoint.note_sent(false)).is_some()
    }

    /// What another primary must protect, too. Without a descriptor it can't, and the session may migrate
    /// all the same.
    pub(super) fn protect_again(&self) -> Option<Protect> {
        let state = self.lock();
        let stream = state.stream.as_ref()?;
        let checkpoint = state.protection.checkpoint.as_ref()?;
        let protect = checkpoint.protect_again(stream);
        protect.inspect_err(|_| checkpoint.note_sent(true)).ok()
    }
}

/// Whether the library wants to read, nothing has come, and nothing is half done.
pub(super) fn is_at_rest(state: &State) -> bool {
    let served = state.stream.is_some() && !state.is_held() && state.phase == Phase::WebSocket;
    let is_portable = state.obstacle().is_none();
    served && is_portable && state.input.unread.is_empty() && state.at_boundary()
}

/// Returns what is to be dropped if it fails.
fn write_checkpoint(state: &mut State, made: &[u8]) -> Option<Box<Checkpoint>> {
    let protection = &mut state.protection;
    let rest = AtRest { read: protection.read, written: protection.written, state: made };
    if let Some(checkpoint) = &mut protection.checkpoint {
        if checkpoint.publish(rest).is_ok() {
            return None;
        }
    } else if let (Some(stream), Some(guard)) = (&state.stream, &state.guard) {
        let UpgradeRequest { head, negotiated, .. } = &state.upgrade;
        protection.checkpoint = guard.protect(stream, head, negotiated.as_ref(), rest);
        if protection.checkpoint.is_some() {
            return None;
        }
    }
    protection.give_up()
}
