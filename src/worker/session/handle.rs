//! A stream as its owner holds it: asks to stop, learns when it has, detaches the socket.
//!
//! Never closes anything: what is detached is the caller's.
//!
//! # The order of things
//!
//! 1. [`Handle::ask_to_stop`]: the library gets the rest of the message it is reading, no more.
//! 2. [`Handle::drained`]: it has handled that, has written what it wanted, and wants more.
//! 3. [`Handle::hold`]: nothing is written any more. The app makes its state.
//! 4. [`Handle::detach`]: the library sees the end. Or [`Handle::release`], and all goes on.

use std::sync::{Arc, Weak};
use std::time::Duration;
#[cfg(feature = "hyper")]
use tokio::time::Instant;

use crate::worker::guard::ConnectionGuard;
#[cfg(feature = "hyper")]
use crate::worker::http_limits::HttpLimits;
use crate::worker::session::cell::StreamCell;
use crate::worker::session::checkpoint::Protect;
use crate::worker::session::follow::negotiated::Obstacle;
use crate::worker::session::image::Kind;
use crate::worker::session::parts::{Detached, ForceDetached};
use crate::worker::session::pending_write::PendingWrite;
use crate::worker::session::protection::StateSource;
use crate::worker::session::request_guard::RequestGuard;
use crate::worker::session::state::{Phase, Stage, State};
use crate::worker::shared::Shared;

/// A handler that has a WebSocket and hasn't declared how it migrates within this time doesn't know of
/// migration.
pub(crate) const DECLARE_TIMEOUT: Duration = Duration::from_secs(2);

/// Steers a [`SessionStream`](crate::worker::SessionStream). All clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(super) cell: Arc<StreamCell>,
}

impl Handle {
    pub(super) fn new(cell: &Arc<StreamCell>) -> Self {
        Self { cell: Arc::clone(cell) }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.cell.lock().kind()
    }

    /// The path of the request that became a WebSocket.
    pub(crate) fn path(&self) -> Option<String> {
        self.cell.lock().path()
    }

    /// The reason why it can't migrate, whatever its handler declares.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        self.cell.lock().obstacle()
    }

    /// Its handler has declared how it migrates.
    pub(crate) fn note_declared(&self) {
        if let Some(guard) = &mut self.cell.lock().guard {
            guard.note_declared();
        }
    }

    /// From now on a checkpoint is written whenever it is at rest.
    pub(super) fn protect(&self, source: Weak<dyn StateSource>) {
        let before = self.cell.lock().protection.wanted.replace(source);
        drop(before);
    }

    /// Whether it can be protected.
    pub(super) fn can_protect(&self) -> bool {
        self.cell.lock().guard.as_ref().is_some_and(ConnectionGuard::can_protect)
    }

    /// Another primary has come. Says whether it is protected: then [`Self::protect_again`] follows.
    pub(crate) fn note_unsent(&self) -> bool {
        self.cell.note_unsent()
    }

    /// Whether the primary knows that it is protected.
    #[cfg(test)]
    pub(crate) fn is_known(&self) -> bool {
        self.cell
            .lock()
            .protection
            .checkpoint
            .as_ref()
            .is_some_and(|checkpoint| checkpoint.is_sent())
    }

    /// What another primary must protect, too; none if it has ended or migrated meanwhile.
    pub(crate) fn protect_again(&self) -> Option<Protect> {
        self.cell.protect_again()
    }

    /// Whether the library waits for more, and has nothing half done.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.cell.lock().is_at_rest()
    }

    /// Whether it is an HTTP connection whose client takes too long with its request.
    #[cfg(feature = "hyper")]
    pub(crate) fn is_overdue(&self, limits: &HttpLimits, now: Instant) -> bool {
        self.cell.lock().is_overdue(limits, now)
    }

    /// Whether it became a WebSocket here a moment ago.
    pub(crate) fn is_new(&self) -> bool {
        let state = self.cell.lock();
        state.phase == Phase::Replay || state.since.elapsed() < DECLARE_TIMEOUT
    }

    /// Whether messages may be on their way between its handler's tasks, and nothing says when they are
    /// sent.
    pub(crate) fn sends_beside(&self) -> bool {
        self.cell.lock().shape.sends_beside()
    }

    /// Whether its handler has never waited for a message.
    pub(crate) fn never_received(&self) -> bool {
        self.cell.lock().never_received()
    }

    /// Whether its handler could wait for a message now, and doesn't.
    pub(crate) fn does_not_receive(&self) -> bool {
        self.cell.lock().does_not_receive()
    }

    /// Something is still to be sent, until the guard is dropped.
    pub(crate) fn pending_write(&self) -> PendingWrite {
        PendingWrite::new(&self.cell)
    }

    /// Lets the library read no more than the rest of what it has begun. Asking again changes
    /// nothing.
    pub(crate) fn ask_to_stop(&self) {
        self.cell.change(|state| ((), state.stop()));
    }

    /// Ends [`Handle::ask_to_stop`].
    pub(crate) fn go_on(&self) {
        self.cell.change(|state| ((), state.go_on()));
    }

    /// Waits until the library was asked to stop and has. If it ends instead, [`Handle::ended`]
    /// resolves.
    pub(crate) async fn drained(&self) {
        self.cell.wait(|state| state.stage == Stage::Drained || state.is_held()).await;
    }

    /// As [`Handle::drained`], for a handler that decides itself: one that never receives has handled
    /// all that it was given.
    pub(crate) async fn may_be_told(&self) {
        let may = |state: &State| state.stage == Stage::Drained || state.never_received();
        self.cell.wait(|state| may(state) || state.is_held()).await;
    }

    /// Stops writes, too. False if the library is not at a boundary any more, since it wrote
    /// something meanwhile; [`Handle::drained`] tells when it is again.
    #[must_use]
    pub(crate) fn hold(&self) -> bool {
        self.cell.change(|state| state.hold(false))
    }

    /// As [`Handle::hold`], for a handler that was told when it was drained, has written more since,
    /// and will not read again.
    #[must_use]
    pub(crate) fn hold_departed(&self) -> bool {
        self.cell.change(|state| state.hold(true))
    }

    /// Ends [`Handle::hold`]. If it is still asked to stop, it is drained again soon.
    pub(crate) fn release(&self) {
        self.cell.change(|state| ((), state.release()));
    }

    /// Takes the socket that is held. None if it isn't, or if the handler has tried to write
    /// meanwhile: that would be lost. It is released then, as the state may be out of date;
    /// [`Handle::drained`] tells when to try again.
    pub(crate) fn detach(&self) -> Option<Detached> {
        self.cell.change(State::detach)
    }

    /// Takes the socket, whatever passes. None if there is none any more.
    pub(crate) fn force_detach(&self) -> Option<ForceDetached> {
        self.cell.change(State::force_detach)
    }

    /// Whether the socket was detached.
    pub(crate) fn is_detached(&self) -> bool {
        self.cell.lock().stage == Stage::Detached
    }

    /// Whether the request of a session from another worker has not been answered yet.
    pub(crate) fn is_replaying(&self) -> bool {
        self.cell.lock().phase == Phase::Replay
    }

    /// Whether the request that was read again got another answer than in the worker before. The
    /// client was sent a close frame then; its socket is to be detached by force, and lingers.
    pub(crate) fn is_rejected(&self) -> bool {
        self.cell.lock().is_rejected()
    }

    /// The app closes it.
    pub(crate) fn note_closing(&self) {
        self.cell.lock().note_closing();
    }

    /// Whether it was closed here, and neither by its client nor for what that has sent, nor with its worker.
    pub(crate) fn is_closed_here(&self) -> bool {
        self.cell.lock().output.is_closed_here
    }

    /// A request of this connection is being answered, until the guard is dropped. Either each
    /// request of a connection is counted or none.
    pub(crate) fn request_started(&self, shared: Option<&Arc<Shared>>) -> RequestGuard {
        RequestGuard::new(&self.cell, shared)
    }

    /// Whether the library has dropped its end, the socket was detached, or a replay was rejected.
    pub(crate) fn has_ended(&self) -> bool {
        self.cell.lock().has_ended()
    }

    /// Waits until [`Handle::has_ended`].
    pub(crate) async fn ended(&self) {
        self.cell.wait(State::has_ended).await;
    }
}
