//! Sessions that have come from other workers a moment ago: whether they go on here.
//!
//! One task looks at all of them now and then, as there may be thousands that come at once: a task for
//! each would leave a hole in memory beside each.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::protocol::drain::DrainReason;
use crate::protocol::message::{MAX_IDS, encode_migration_failed};
use crate::worker::linger;
use crate::worker::misuse::HandlerFault;
use crate::worker::session::closing;
use crate::worker::session::follow::negotiated::Obstacle;
use crate::worker::session::handle::DECLARE_TIMEOUT;
use crate::worker::session::inner::Inner;
use crate::worker::session::registry::{Resumed, Sessions};

/// How long after it has come to look at one first, and how exact all looks are.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A session that its handler closes within this time after it has come has not gone on.
const FAILURE_WINDOW: Duration = Duration::from_secs(5);

/// Watches whether a session goes on in its new worker: its request may get another answer now, its
/// handler may not know that it isn't the first, or close it at once.
pub(crate) fn watch(sessions: &Arc<Sessions>, session: &Arc<Inner>) {
    if sessions.note_resumed(session) {
        tokio::spawn(watch_all(Arc::clone(sessions)));
    }
}

/// Until none is left to be watched.
async fn watch_all(sessions: Arc<Sessions>) {
    let mut is_any_left = true;
    while is_any_left {
        sleep(LOOK_INTERVAL).await;
        let (seen, left) = sessions.take_resumed(look);
        is_any_left = left;
        for Resumed { session, since, .. } in seen {
            if session.handle.has_ended() {
                tokio::spawn(see_ended(Arc::clone(&sessions), session, since));
            } else {
                sessions.shared.note_settled();
            }
        }
    }
}

/// Looks at it if it is time to. Says whether it has ended, or has gone on for long enough.
fn look(resumed: &mut Resumed) -> bool {
    let Resumed { session, since, look_at, is_checked } = resumed;
    let age = since.elapsed();
    if age < *look_at {
        return false;
    }
    if session.handle.has_ended() {
        return true;
    }
    if !*is_checked && age >= DECLARE_TIMEOUT && !session.handle.is_replaying() {
        *is_checked = true;
        if session.restored().is_some_and(|state| !state.is_empty()) && !session.is_declared() {
            close_undeclared(session);
        }
    }
    *look_at = next_look(age, *is_checked);
    *is_checked && age >= FAILURE_WINDOW
}

/// The age at which to look again: soon while it is young, as most that fail do so at once, and when
/// something is decided. There may be thousands.
fn next_look(age: Duration, is_checked: bool) -> Duration {
    let decided = if is_checked { FAILURE_WINDOW } else { DECLARE_TIMEOUT };
    let next = age.max(LOOK_INTERVAL / 2) * 2;
    if age < decided { next.min(decided) } else { age + LOOK_INTERVAL }
}

/// Its handler can't go on from the state that was left to it, as it doesn't know of it.
fn close_undeclared(session: &Arc<Inner>) {
    let shared = session.shared.iter();
    shared.for_each(|it| it.reported.fault(HandlerFault::Undeclared, session.route()));
    session.handle.note_closing();
    tokio::spawn(closing::close(Arc::clone(session), DrainReason::Restart));
}

/// A session has ended that came at this time.
async fn see_ended(sessions: Arc<Sessions>, session: Arc<Inner>, since: Instant) {
    let is_closed_here = session.handle.is_closed_here() && !sessions.shared.is_draining();
    if session.is_restored && is_closed_here && since.elapsed() < FAILURE_WINDOW + 2 * LOOK_INTERVAL
    {
        report_failed(&sessions, &session).await;
    }
    if session.handle.is_rejected() {
        let connection = session.info.id.0;
        tracing::debug!(connection, "session's request has another answer than before");
        // It has had its close frame.
        if let Some(detached) = session.handle.force_detach() {
            linger::close(detached.stream).await;
            drop((detached.guard, detached.checkpoint));
        }
    }
    // What is left of it was kept until here.
    drop(session);
    sessions.shared.note_settled();
}

/// The migration counts as failed, though this worker has taken the session.
async fn report_failed(sessions: &Sessions, session: &Inner) {
    let id = session.info.id;
    tracing::debug!(connection = id.0, "session doesn't go on in this worker");
    let by_library = !session.handle.is_rejected() && !session.handle.is_detached();
    let obstacle =
        session.handle.obstacle().or_else(|| by_library.then_some(Obstacle::ClosedAtOnce));
    if let Some(obstacle) = obstacle {
        sessions.shared.reported.obstacle(session.route(), obstacle.hint());
    }
    if let Some(sender) = sessions.sender.get() {
        let mut buffer = [0; MAX_IDS];
        let message = encode_migration_failed(&mut buffer, iter::once(id));
        // Without a primary nobody counts.
        let _ = sender.send(message, &[]).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_looked_at_soon_then_seldom_and_when_something_is_decided() {
        let mut age = Duration::ZERO;
        let looks = iter::from_fn(|| {
            age = next_look(age, age >= DECLARE_TIMEOUT);
            (age <= FAILURE_WINDOW).then_some(age.as_millis())
        });
        assert_eq!(looks.collect::<Vec<_>>(), [100, 200, 400, 800, 1_600, 2_000, 4_000, 5_000]);
        let replaying = next_look(DECLARE_TIMEOUT, false);
        assert_eq!(replaying, DECLARE_TIMEOUT + LOOK_INTERVAL);
    }
}
