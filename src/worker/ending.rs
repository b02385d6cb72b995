//! How a worker's end begins: by the primary's order, without a primary, or by a signal.
//!
//! Closes nothing itself: migration and closing do.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::worker::session::closing::close_all;
use crate::worker::session::migration::migrate_all;
use crate::worker::session::registry::{Draining, Sessions};

/// Without a primary: the time over which WebSockets are closed, and how long the end may take.
const STANDALONE_WINDOW: Duration = Duration::from_secs(1);
const STANDALONE_TIMEOUT: Duration = Duration::from_secs(5);

/// Begins to drain, or goes on by a newer order.
pub(crate) fn begin_drain(sessions: &Arc<Sessions>, order: DrainOrder) {
    let deadline = Instant::now() + order.window;
    follow(sessions, Draining { order, deadline, has_primary: true });
}

/// Begins to drain as a worker that takes no sessions: by the end of its channel, with the order that the
/// primary has left on the scoreboard.
pub(crate) fn begin_unled_drain(sessions: &Arc<Sessions>) {
    let Some(order) = sessions.shared.own.scoreboard.drain_order() else {
        return begin_plain_drain(sessions);
    };
    let deadline = Instant::now() + order.window;
    follow(sessions, Draining { order, deadline, has_primary: false });
}

/// Begins to drain without an order, and without following any session.
pub(crate) fn begin_plain_drain(sessions: &Sessions) {
    sessions.shared.started.cancel();
    sessions.shared.closing.cancel();
}

/// Begins to drain without a primary, which would bound it.
pub(crate) fn begin_orphaned_drain(sessions: &Arc<Sessions>) {
    let window = sessions.shared.own.orphan.drain;
    close_within(sessions, window, DrainReason::Restart);
    let expired = sessions.shared.expired.clone();
    tokio::spawn(async move {
        sleep(window).await;
        expired.cancel();
    });
}

/// Begins to drain as a person has asked for it; a second signal ends the worker at once.
pub(crate) fn begin_standalone_drain(sessions: &Arc<Sessions>) {
    close_within(sessions, STANDALONE_WINDOW, DrainReason::GoingAway);
    let expired = sessions.shared.expired.clone();
    tokio::spawn(async move {
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        if let (Ok(mut terminate), Ok(mut interrupt)) = signals {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = sleep(STANDALONE_TIMEOUT) => {}
            }
        }
        expired.cancel();
    });
}

fn close_within(sessions: &Arc<Sessions>, window: Duration, reason: DrainReason) {
    let deadline = Instant::now() + window;
    let order = DrainOrder { mode: DrainMode::Close, reason, window };
    follow(sessions, Draining { order, deadline, has_primary: false });
}

fn follow(sessions: &Arc<Sessions>, draining: Draining) {
    let before = sessions.draining.send_replace(Some(draining));
    if before.is_none() {
        sessions.shared.started.cancel();
        if !sessions.can_offer() {
            sessions.shared.closing.cancel();
        }
        tokio::spawn(release_clients(Arc::clone(sessions)));
    }
}

/// Migrates the sessions that can, then closes the others in their turn.
async fn release_clients(sessions: Arc<Sessions>) {
    if sessions.can_offer() {
        migrate_all(&sessions).await;
    }
    sessions.shared.closing.cancel();
    close_all(sessions).await;
}
