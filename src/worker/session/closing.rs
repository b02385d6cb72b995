//! Clients that are closed: with a close frame, in their turn, and lingering.
//!
//! Never ends a WebSocket without a close frame, unless its client has stopped reading in the middle
//! of one of its frames. The primary grants turns, so that clients that come back at once never are
//! too many.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::protocol::drain::{DrainMode, DrainReason};
use crate::protocol::message::encode_close_request;
use crate::worker::guard::{ConnectionGuard, Ending};
use crate::worker::linger;
use crate::worker::misuse::Misuse;
use crate::worker::session::inner::Inner;
use crate::worker::session::registry::{Draining, Sessions};
use crate::worker::shared::Shared;

/// How long a session may take to come to rest when it is to be closed, and its client to read.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often to look for WebSockets that weren't there before.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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

/// At a boundary if it comes to one in time, else as it is.
pub(crate) async fn close(session: Arc<Inner>, reason: DrainReason) {
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
