//! Clients that are closed: with a close frame, in their turn, and lingering.
//!
//! Never ends a WebSocket without a close frame, unless its client has stopped reading in the middle
//! of one of its frames. The primary grants turns, so that clients that come back at once never are
//! too many.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::protocol::drain::{DrainMode, DrainReason};
use crate::protocol::message::{MAX_IDS, encode_close_request, encode_migration_failed};
use crate::worker::guard::{ConnectionGuard, Ending};
use crate::worker::linger;
use crate::worker::misuse::{HandlerFault, Misuse};
use crate::worker::session::follow::negotiated::Obstacle;
use crate::worker::session::handle::DECLARE_TIMEOUT;
use crate::worker::session::inner::Inner;
use crate::worker::session::registry::{Draining, Sessions};
use crate::worker::shared::Shared;

/// How long a session may take to come to rest when it is to be closed, and its client to read.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often to look for WebSockets that weren't there before.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A session that its handler closes within this time after it has come has not gone on.
const FAILURE_WINDOW: Duration = Duration::from_secs(5);

/// Closes all WebSockets, as ordered, until the worker ends.
pub(crate) async fn close_all(sessions: Arc<Sessions>) {
    let mut orders = sessions.draining.subscribe();
    // Grants turns if no primary does.
    let mut own_turns = JoinSet::new();
    loop {
        let Some(draining) = *orders.borrow_and_update() else { return };
        let waiting = sessions.websockets();
        let count = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
        let now = Instant::now();
        if now >= draining.last_call() {
            waiting.iter().for_each(|session| close_soon(&sessions, session, draining));
            if sessions.shared.bare.load(Ordering::Relaxed) > 0 {
                sessions.shared.reported.misuse(Misuse::BareLeftOpen);
            }
        } else if now >= draining.closes_from() && count != sessions.asked.load(Ordering::Relaxed) {
            sessions.asked.store(count, Ordering::Relaxed);
            own_turns.abort_all();
            if !ask(&sessions, count, draining).await {
                own_turns.spawn(take_turns(Arc::clone(&sessions), count, draining));
            }
        }
        let next_look = now + LOOK_INTERVAL;
        let next = draining.next_change(now).unwrap_or(next_look).min(next_look);
        tokio::select! {
            turn = sessions.granted.acquire(), if sessions.asked.load(Ordering::Relaxed) > 0 => {
                let Ok(turn) = turn else { return };
                turn.forget();
                sessions.asked.fetch_sub(1, Ordering::Relaxed);
                if let Some(session) = waiting.first() {
                    close_soon(&sessions, session, draining);
                }
            }
            changed = orders.changed() => {
                if changed.is_err() {
                    return;
                }
                sessions.asked.store(0, Ordering::Relaxed);
            }
            () = sleep_until(next) => {}
        }
    }
}

/// Asks the primary for as many turns. False if there is no primary.
async fn ask(sessions: &Sessions, count: u32, draining: Draining) -> bool {
    let message = encode_close_request(count, draining.left());
    match sessions.sender.get() {
        Some(sender) if draining.has_primary => sender.send(&message, &[]).await.is_ok(),
        _ => false,
    }
}

/// As many turns, spread over the time that is left.
async fn take_turns(sessions: Arc<Sessions>, count: u32, draining: Draining) {
    let pause = draining.left() / count.max(1);
    for _ in 0..count {
        sleep(pause).await;
        sessions.granted.add_permits(1);
    }
}

fn close_soon(sessions: &Arc<Sessions>, session: &Arc<Inner>, draining: Draining) {
    if !sessions.mark_busy(session.info.id) {
        return;
    }
    if draining.order.mode == DrainMode::Migrate {
        report_stay(&sessions.shared, session);
    }
    tokio::spawn(close(Arc::clone(session), draining.order.reason));
}

/// Says why it hasn't migrated, if that is the route's.
fn report_stay(shared: &Shared, session: &Inner) {
    match session.handle.obstacle().filter(|_| session.is_declared()) {
        Some(obstacle) => shared.reported.obstacle(session.route(), obstacle.hint()),
        None => {
            let fault = session.fault_so_far().into_iter();
            fault.for_each(|fault| shared.reported.fault(fault, session.route()));
        }
    }
}

/// A handler can't go on from the state that was left to it.
pub(crate) fn reject_state(session: Arc<Inner>) {
    tracing::debug!(connection = session.info.id.0, "session's state is rejected");
    session.handle.note_closing();
    tokio::spawn(close(session, DrainReason::Restart));
}

/// Watches whether a session goes on in its new worker: its request may get another answer now, its
/// handler may not know that it isn't the first, or close it at once.
pub(crate) async fn see_resumed(sessions: Arc<Sessions>, session: Arc<Inner>) {
    let resumed_at = Instant::now();
    // There is one of these for each session that comes: it is short, and what is seldom needed is boxed.
    let watched = async {
        sleep(DECLARE_TIMEOUT).await;
        while session.handle.is_replaying() {
            sleep(DECLARE_TIMEOUT).await;
        }
        let has_state = session.restored.as_ref().is_some_and(|state| !state.is_empty());
        if has_state && !session.is_declared() {
            Box::pin(close_undeclared(&session)).await;
        }
        sleep_until(resumed_at + FAILURE_WINDOW).await;
    };
    let has_ended = tokio::select! {
        () = session.handle.ended() => true,
        () = watched => session.handle.is_rejected(),
    };
    match has_ended {
        true => Box::pin(see_ended(sessions, session, resumed_at)).await,
        false => sessions.shared.note_settled(),
    }
}

/// A session has ended that came a while ago.
async fn see_ended(sessions: Arc<Sessions>, session: Arc<Inner>, resumed_at: Instant) {
    let is_closed_here = session.handle.is_closed_here() && !sessions.shared.is_draining();
    if session.restored.is_some() && is_closed_here && resumed_at.elapsed() < FAILURE_WINDOW {
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

/// Its handler can't go on from the state that was left to it, as it doesn't know of it.
async fn close_undeclared(session: &Arc<Inner>) {
    let shared = session.shared.iter();
    shared.for_each(|it| it.reported.fault(HandlerFault::Undeclared, session.route()));
    session.handle.note_closing();
    close(Arc::clone(session), DrainReason::Restart).await;
}

/// At a boundary if it comes to one in time, else as it is.
async fn close(session: Arc<Inner>, reason: DrainReason) {
    session.handle.ask_to_stop();
    tokio::select! {
        () = session.handle.drained() => {}
        () = session.handle.ended() => return,
        () = sleep(CLOSE_TIMEOUT) => {}
    }
    // The client's unread bytes are dropped: it is told to come back.
    let Some(detached) = session.handle.force_detach() else { return };
    send_close(detached.stream, detached.at_frame_boundary, reason).await;
    drop((detached.guard, detached.checkpoint));
}

/// Closes a connection at rest that no worker has taken and nothing here serves any more.
pub(crate) async fn close_unserved(
    sessions: &Sessions,
    stream: TcpStream,
    mut guard: ConnectionGuard,
    is_websocket: bool,
) {
    if is_websocket {
        guard.note_ending(Ending::Closed);
    }
    send_close(stream, is_websocket, sessions.close_reason()).await;
    drop(guard);
}

async fn send_close(mut stream: TcpStream, with_frame: bool, reason: DrainReason) {
    if with_frame {
        // A final close frame of two bytes, the code (RFC 6455, 5.5.1).
        let [high, low] = reason.close_code().to_be_bytes();
        let _ = timeout(CLOSE_TIMEOUT, stream.write_all(&[0x88, 2, high, low])).await;
    }
    linger::close(stream).await;
}
