//! Clients that are sent away: with a close frame, in their turn, and lingering.
//!
//! Never ends a WebSocket without a close frame, unless its client has stopped reading in the middle
//! of one of ours. When it is whose turn is the primary's to say, so that those who come back at once
//! never are too many.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::protocol::drain::{DrainMode, DrainReason};
use crate::protocol::message::encode_close_request;
use crate::worker::connection::Connection;
use crate::worker::drain::Shared;
use crate::worker::linger;
use crate::worker::session::Inner;
use crate::worker::session::registry::Draining;

/// How long a session may take to come to rest when it is to be closed, and its client to read.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How often it is looked for WebSockets that weren't there before.
const LOOK: Duration = Duration::from_secs(1);

/// Sends away all WebSockets, as ordered, until the worker ends.
pub(crate) async fn send_all_away(shared: Arc<Shared>) {
    let mut orders = shared.sessions.draining.subscribe();
    let asked = &shared.sessions.asked;
    // Gives turns where no primary does.
    let mut own_turns = JoinSet::new();
    loop {
        let Some(draining) = *orders.borrow_and_update() else { return };
        let waiting = shared.sessions.websockets();
        let count = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
        let now = Instant::now();
        if now >= draining.last_call() {
            waiting.iter().for_each(|session| close_soon(&shared, session, draining.order.reason));
        } else if now >= draining.begins() && count != asked.load(Ordering::Relaxed) {
            asked.store(count, Ordering::Relaxed);
            own_turns.abort_all();
            if !ask(&shared, count, draining).await {
                own_turns.spawn(take_turns(Arc::clone(&shared), count, draining));
            }
        }
        let next = draining.next_change(now).unwrap_or(now + LOOK).min(now + LOOK);
        tokio::select! {
            turn = shared.sessions.granted.acquire(), if asked.load(Ordering::Relaxed) > 0 => {
                let Ok(turn) = turn else { return };
                turn.forget();
                asked.fetch_sub(1, Ordering::Relaxed);
                if let Some(session) = waiting.first() {
                    close_soon(&shared, session, draining.order.reason);
                }
            }
            changed = orders.changed() => {
                if changed.is_err() {
                    return;
                }
                asked.store(0, Ordering::Relaxed);
            }
            () = sleep_until(next) => {}
        }
    }
}

impl Draining {
    /// When clients begin to be sent away.
    fn begins(&self) -> Instant {
        match self.order.mode {
            DrainMode::Close | DrainMode::Migrate => self.deadline - self.order.window,
            DrainMode::Wait => self.deadline - self.part(5, Duration::from_secs(5)),
        }
    }

    /// When whoever is left is sent away, whoever else comes back then.
    fn last_call(&self) -> Instant {
        self.deadline - self.part(10, Duration::from_secs(1))
    }

    pub(crate) fn left(&self) -> Duration {
        self.last_call().saturating_duration_since(Instant::now())
    }

    fn next_change(&self, now: Instant) -> Option<Instant> {
        [self.begins(), self.last_call()].into_iter().filter(|at| *at > now).min()
    }

    /// A part of the time, but no more than `most`.
    fn part(&self, parts: u32, most: Duration) -> Duration {
        (self.order.window / parts).min(most)
    }
}

/// Asks the primary for as many turns. Whether there is one.
async fn ask(shared: &Shared, count: u32, draining: Draining) -> bool {
    let message = encode_close_request(count, draining.left());
    match shared.sessions.outlet.get() {
        Some(outlet) if !draining.alone => outlet.send(&message, &[]).await.is_ok(),
        _ => false,
    }
}

/// As many turns, spread over the time that is left.
async fn take_turns(shared: Arc<Shared>, count: u32, draining: Draining) {
    let pause = draining.left() / count.max(1);
    for _ in 0..count {
        sleep(pause).await;
        shared.sessions.granted.add_permits(1);
    }
}

fn close_soon(shared: &Arc<Shared>, session: &Arc<Inner>, reason: DrainReason) {
    if shared.sessions.claim(session.info.id) {
        tokio::spawn(close(Arc::clone(session), reason));
    }
}

/// A handler refuses to go on.
pub(crate) fn refuse(session: Arc<Inner>) {
    tracing::debug!(connection = session.info.id.0, "session refused");
    tokio::spawn(close(session, DrainReason::Restart));
}

/// A handler that has not asked what was left to it within this time never will.
const HEED: Duration = Duration::from_secs(2);

/// Sees whether a session goes on in its new worker: its request may be answered otherwise now, and
/// its handler may not know that it isn't the first.
pub(crate) async fn see_resumed(session: Arc<Inner>) {
    tokio::select! {
        () = session.handle.ended() => {}
        () = refuse_if_unheeded(&session) => {}
    }
    session.handle.ended().await;
    if session.handle.replay_refused() {
        let connection = session.info.id.0;
        tracing::debug!(connection, "session's request was answered otherwise than before");
        // It has had its close frame.
        if let Some(seized) = session.handle.seize() {
            linger::close(seized.stream).await;
            drop((seized.guard, seized.kept));
        }
    }
}

async fn refuse_if_unheeded(session: &Arc<Inner>) {
    sleep(HEED).await;
    while session.handle.is_replaying() {
        sleep(HEED).await;
    }
    let left_something = session.state.as_ref().is_some_and(|state| !state.is_empty());
    if left_something && !session.heeded.load(Ordering::Relaxed) {
        tracing::warn!(
            connection = session.info.id.0,
            "session's handler does not ask for what was left to it, its client is sent away",
        );
        close(Arc::clone(session), DrainReason::Restart).await;
    }
}

/// At a boundary if it comes to one in time, else as it is.
async fn close(session: Arc<Inner>, reason: DrainReason) {
    session.handle.ask_to_stop();
    tokio::select! {
        () = session.handle.drained() => {}
        () = session.handle.ended() => return,
        () = sleep(TIMEOUT) => {}
    }
    // The client's unread bytes are of no use to anybody: it is told to come anew.
    let Some(seized) = session.handle.seize() else { return };
    say_goodbye(seized.stream, seized.at_frame_boundary, reason).await;
    drop((seized.guard, seized.kept));
}

/// One that nobody has taken and nobody here serves any more. It is at rest.
pub(crate) async fn send_away_unserved(shared: &Shared, connection: Connection) {
    let reason = shared.sessions.draining.borrow().map(|draining| draining.order.reason);
    let is_websocket = connection.is_websocket();
    let (stream, guard) = connection.into_parts();
    say_goodbye(stream, is_websocket, reason.unwrap_or(DrainReason::Restart)).await;
    drop(guard);
}

async fn say_goodbye(mut stream: TcpStream, with_frame: bool, reason: DrainReason) {
    if with_frame {
        // A final close frame of two bytes, the code (RFC 6455, 5.5.1).
        let [high, low] = reason.close_code().to_be_bytes();
        let _ = timeout(TIMEOUT, stream.write_all(&[0x88, 2, high, low])).await;
    }
    linger::close(stream).await;
}
