//! Sessions on their way out: stopped between two messages, encoded, offered, and returned if no
//! worker takes them.
//!
//! Never gives a socket up before the primary has said that another worker has it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::{MAX_INLINE_IMAGE, MAX_TO_PRIMARY, encode_offer};
use crate::protocol::sealed::seal;
use crate::protocol::tcp_progress::{TcpProgress, is_untouched_since};
use crate::worker::guard::ConnectionGuard;
use crate::worker::lock::lock;
use crate::worker::session::checkpoint::Checkpoint;
use crate::worker::session::closing;
use crate::worker::session::image::Kind;
use crate::worker::session::image::{MAX_STATE_BYTES, SessionImage};
use crate::worker::session::inner::{Inner, MigrationMode};
use crate::worker::session::parts::Detached;
use crate::worker::session::protection::StateSource;
use crate::worker::session::registry::{Deadline, OfferOutcome, Returned, Sessions};

/// A session that takes longer to stop makes room for others in the window.
const STOP_TIMEOUT: Duration = Duration::from_millis(100);

/// How soon a session that was returned is offered again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// How often to look for other sessions that have become able to migrate.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Migrates all sessions that can, until none is left that could, or time is over.
pub(crate) async fn migrate_all(sessions: &Arc<Sessions>) {
    let deadline = sessions.deadline();
    let mut migrations = JoinSet::new();
    while !deadline.is_over() {
        for session in sessions.migratable() {
            let Ok(permit) = Arc::clone(&sessions.window).acquire_owned().await else {
                return;
            };
            if sessions.mark_busy(session.info.id) {
                migrations.spawn(migrate(Arc::clone(sessions), session, permit, deadline.clone()));
            }
        }
        let next_look = Instant::now() + LOOK_INTERVAL;
        loop {
            tokio::select! {
                migrated = migrations.join_next() => if migrated.is_none() { break },
                () = sleep_until(next_look) => break,
            }
        }
        if migrations.is_empty() && sessions.migratable().is_empty() {
            return;
        }
    }
    // Those that are on their way go on.
    migrations.detach_all();
}

/// Migrates these, if they are there and can.
pub(crate) fn migrate_some(sessions: &Arc<Sessions>, ids: impl Iterator<Item = ConnectionId>) {
    let deadline = sessions.deadline();
    for session in ids.filter_map(|id| sessions.find(id)) {
        let (sessions, deadline) = (Arc::clone(sessions), deadline.clone());
        tokio::spawn(async move {
            let window = Arc::clone(&sessions.window);
            let Ok(permit) = window.acquire_owned().await else { return };
            if sessions.mark_busy(session.info.id) {
                migrate(sessions, session, permit, deadline).await;
            }
        });
    }
}

/// Tries to migrate one.
async fn migrate(
    sessions: Arc<Sessions>,
    session: Arc<Inner>,
    permit: OwnedSemaphorePermit,
    mut deadline: Deadline,
) {
    let id = session.info.id;
    session.handle.ask_to_stop();
    if let Some(transfer) = stop_and_detach(&sessions, &session, permit, &mut deadline).await {
        send(&sessions, &session, transfer).await;
    } else {
        session.handle.go_on();
    }
    sessions.unmark_busy(id);
}

/// A session that has left its handler.
struct SessionTransfer {
    stream: TcpStream,
    guard: Option<ConnectionGuard>,
    image: SessionImage,
    /// Its checkpoint, until it is offered.
    checkpoint: Option<Box<Checkpoint>>,
    /// Its place among those that are on their way.
    _permit: OwnedSemaphorePermit,
}

/// Waits until it is at rest, holds it, has its state made, and takes the socket. None if it stays.
async fn stop_and_detach(
    sessions: &Sessions,
    session: &Arc<Inner>,
    permit: OwnedSemaphorePermit,
    deadline: &mut Deadline,
) -> Option<SessionTransfer> {
    let mut permit = Some(permit);
    let stop_until = Instant::now() + STOP_TIMEOUT;
    loop {
        tokio::select! {
            () = session.handle.drained() => {}
            () = session.handle.ended() => return None,
            () = deadline.over() => return None,
            () = sleep_until(stop_until), if permit.is_some() => {
                permit = None;
                continue;
            }
        }
        let held = match permit.take() {
            Some(permit) => permit,
            None => Arc::clone(&sessions.window).acquire_owned().await.ok()?,
        };
        if let Pause::Held(state) = pause(session, deadline).await
            && let Some(Detached { stream, guard, connection, checkpoint }) = session.detach()
        {
            let (left_at, protect) = (Timestamp::now(), checkpoint.is_some());
            let image = SessionImage { connection, state, left_at, protect };
            return Some(SessionTransfer { stream, guard, image, checkpoint, _permit: held });
        }
        if !session.can_migrate() {
            return None;
        }
        // It has begun something meanwhile; soon it has ended.
        permit = Some(held);
        sleep(Duration::from_millis(1)).await;
    }
}

/// Whether a session could be held.
enum Pause {
    /// It is held, and this is its state.
    Held(Option<Vec<u8>>),
    /// It is not at rest any more, or can't migrate.
    Busy,
}

async fn pause(session: &Arc<Inner>, deadline: &mut Deadline) -> Pause {
    if session.handle.kind() == Kind::Http {
        return if session.handle.hold() { Pause::Held(None) } else { Pause::Busy };
    }
    if matches!(*lock(&session.mode), MigrationMode::Deferred) {
        return let_handler_decide(session, deadline).await;
    }
    if !session.handle.hold() {
        return Pause::Busy;
    }
    match session.make_state() {
        Some(state) => Pause::Held(Some(state)),
        None => {
            session.note_failed();
            session.handle.release();
            Pause::Busy
        }
    }
}

/// Tells the handler, and waits until it migrates. From then on it can't go on: one that is late, or
/// leaves too much, is closed.
async fn let_handler_decide(session: &Arc<Inner>, deadline: &mut Deadline) -> Pause {
    session.asked.cancel();
    let in_time = tokio::select! {
        () = session.departed.notified() => true,
        () = session.handle.ended() => return Pause::Busy,
        () = deadline.over() => false,
    };
    let state = lock(&session.departure).take().filter(|_| in_time);
    match state.filter(|state| state.len() <= MAX_STATE_BYTES) {
        Some(state) if session.handle.hold_departed() => Pause::Held(Some(state)),
        _ => {
            let connection = session.info.id.0;
            tracing::warn!(connection, "session migrates late, with too much, or with unsent data");
            session.note_failed();
            closing::reject_state(Arc::clone(session));
            Pause::Busy
        }
    }
}

/// Offers it, and waits for the outcome.
async fn send(sessions: &Arc<Sessions>, session: &Arc<Inner>, mut transfer: SessionTransfer) {
    let usage = TcpProgress::of(&transfer.stream).ok().flatten();
    let outcome = offer(sessions, session, &transfer.stream, &transfer.image).await;
    if outcome.is_ok()
        && let Some(checkpoint) = transfer.checkpoint.take()
    {
        checkpoint.release();
    }
    let connection = session.info.id.0;
    match outcome {
        Ok(OfferOutcome::Migrated) => tracing::debug!(connection, "session migrated"),
        Ok(OfferOutcome::ReturnedUnverified) if !is_unused(&transfer.stream, usage) => {
            tracing::warn!(
                connection,
                "primary died while the session migrated, and it was used since: given up",
            );
        }
        Ok(OfferOutcome::Returned | OfferOutcome::ReturnedUnverified) => {
            tracing::debug!(connection, "no worker takes the session, it goes on");
            take_back(sessions, transfer).await;
            sleep(RETRY_DELAY).await;
        }
        Err(error) => tracing::warn!(connection, %error, "primary is gone with a session"),
    }
}

/// Whether a session's socket was not used since it was offered. As long as one primary lives this
/// needs no proof here: it returns a session only if no worker has received it, or the one that has
/// refused it, which comes before the first read, or died and the primary's own copy proves the same.
fn is_unused(socket: &impl AsFd, usage: Option<TcpProgress>) -> bool {
    usage.is_some_and(|usage| is_untouched_since(socket, usage).unwrap_or(false))
}

/// It goes on here, or is closed if no connections are accepted any more.
async fn take_back(sessions: &Arc<Sessions>, transfer: SessionTransfer) {
    let SessionTransfer { stream, guard, image, .. } = transfer;
    let Some(guard) = guard else { return };
    if let Err(returned) = sessions.give_back(Returned { stream, guard, image }).await {
        let Returned { stream, guard, image } = returned;
        let is_websocket = image.connection.kind == Kind::WebSocket;
        closing::close_unserved(sessions, stream, guard, is_websocket).await;
    }
}

async fn offer(
    sessions: &Sessions,
    session: &Inner,
    socket: &impl AsFd,
    image: &SessionImage,
) -> io::Result<OfferOutcome> {
    let (message, memory) = encode(session, image)?;
    let mut descriptors = vec![socket.as_fd()];
    descriptors.extend(memory.as_ref().map(AsFd::as_fd));
    sessions.offer(session.info.id, &message, &descriptors).await
}

/// The message, and the memory that holds an image that is too long for it.
fn encode(session: &Inner, image: &SessionImage) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let bytes = image.encode();
    let memory = (bytes.len() > MAX_INLINE_IMAGE).then(|| seal(&bytes)).transpose()?;
    let mut buffer = Box::new([0; MAX_TO_PRIMARY]);
    let message = encode_offer(&mut buffer, &session.info.record(), &bytes);
    Ok((message.to_vec(), memory))
}
