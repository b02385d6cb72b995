//! Sessions on their way out: stopped between two messages, encoded, offered, and returned if no
//! worker takes them.
//!
//! Never gives a socket up before the primary has said that another worker has it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until};

use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::{
    ConnectionRecord, MAX_INLINE_IMAGE, MAX_TO_PRIMARY, encode_offer, encode_offer_with_progress,
};
use crate::protocol::sealed::seal;
use crate::protocol::tcp_progress::{TcpProgress, is_untouched_since};
use crate::worker::guard::{ConnectionGuard, Ending};
use crate::worker::lock::lock;
use crate::worker::session::checkpoint::Checkpoint;
use crate::worker::session::closing;
use crate::worker::session::image::Kind;
use crate::worker::session::image::{MAX_STATE_BYTES, SessionImage};
use crate::worker::session::inner::Inner;
use crate::worker::session::parts::Detached;
use crate::worker::session::protection::StateSource;
use crate::worker::session::registry::{Deadline, OfferOutcome, Returned, Sessions};
use crate::worker::session::window::Place;

/// A session that was at rest and takes longer to stop makes room for others.
const STOP_TIMEOUT: Duration = Duration::from_millis(100);

/// How soon a session that was returned is offered again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// How often to look for other sessions that have become able to migrate.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Migrates all sessions that can, until none is left that could, or time is over.
///
/// Those at rest go first, each in its turn. The others are waited for beside them: they hold no place,
/// and read on to the end of what they have begun. A session's time begins with its turn, however many
/// have theirs before it.
pub(crate) async fn migrate_all(sessions: &Arc<Sessions>) {
    let mut deadline = sessions.deadline();
    sessions.window.forget_least();
    let mut has_turned = false;
    let mut migrations = JoinSet::new();
    while !deadline.is_over() {
        let (mut busy, mut free) = (Vec::new(), None);
        for session in sessions.migratable() {
            let place = match free.take() {
                Some(place) => place,
                None => match sessions.window.place().await {
                    Some(place) => place,
                    None => return,
                },
            };
            if !has_turned {
                deadline = sessions.deadline();
            }
            if session.handle.is_at_rest() {
                start(&mut migrations, sessions, session, Some(place), &deadline);
            } else {
                free = Some(place);
                busy.push(session);
            }
        }
        drop(free);
        has_turned = true;
        for session in busy {
            start(&mut migrations, sessions, session, None, &deadline);
        }
        let next_look = Instant::now() + LOOK_INTERVAL;
        loop {
            tokio::select! {
                migrated = migrations.join_next() => if migrated.is_none() { break },
                () = sleep_until(next_look) => break,
            }
        }
        if !sessions.may_migrate() {
            return;
        }
        sleep_until(next_look).await;
    }
    // Those that are on their way go on.
    migrations.detach_all();
}

fn start(
    migrations: &mut JoinSet<()>,
    sessions: &Arc<Sessions>,
    session: Arc<Inner>,
    place: Option<Place>,
    deadline: &Deadline,
) {
    if sessions.mark_busy(session.info.id) {
        migrations.spawn(migrate(Arc::clone(sessions), session, place, deadline.clone()));
    }
}

/// Migrates these, if they are there and can.
pub(crate) fn migrate_some(sessions: &Arc<Sessions>, ids: impl Iterator<Item = ConnectionId>) {
    let deadline = sessions.deadline();
    for session in ids.filter_map(|id| sessions.find(id)) {
        if sessions.mark_busy(session.info.id) {
            tokio::spawn(migrate(Arc::clone(sessions), session, None, deadline.clone()));
        }
    }
}

/// Tries to migrate one. One with a place is at rest.
async fn migrate(
    sessions: Arc<Sessions>,
    session: Arc<Inner>,
    place: Option<Place>,
    mut deadline: Deadline,
) {
    let id = session.info.id;
    session.handle.ask_to_stop();
    if let Some(transfer) = stop_and_detach(&sessions, &session, place, &mut deadline).await {
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
    place: Place,
}

impl SessionTransfer {
    fn note_ending(&mut self, ending: Ending) {
        if let Some(guard) = &mut self.guard {
            guard.note_ending(ending);
        }
    }
}

/// Waits until it is at rest, holds it, has its state made, and takes the socket. None if it stays.
async fn stop_and_detach(
    sessions: &Sessions,
    session: &Arc<Inner>,
    mut place: Option<Place>,
    deadline: &mut Deadline,
) -> Option<SessionTransfer> {
    loop {
        let stop_until = Instant::now() + STOP_TIMEOUT;
        tokio::select! {
            () = stopped(session) => {}
            () = session.handle.ended() => return None,
            () = deadline.over() => return None,
            () = sleep_until(stop_until) => {
                place = None;
                if !session.can_migrate() {
                    return None;
                }
                continue;
            }
        }
        let state = match session.handle.kind() {
            Kind::WebSocket if session.is_deferred() => {
                // As long as the handler likes.
                place = None;
                Some(let_handler_decide(session, deadline).await?)
            }
            _ => None,
        };
        let held = match place.take() {
            Some(place) => place,
            None => sessions.window.place().await?,
        };
        if let Pause::Held(state) = pause(session, state)
            && let Some(Detached { stream, guard, connection, checkpoint }) = detach(session).await
        {
            let (left_at, protect) = (Timestamp::now(), checkpoint.is_some());
            let image = SessionImage { connection, state, left_at, protect };
            return Some(SessionTransfer { stream, guard, image, checkpoint, place: held });
        }
        drop(held);
        if !session.can_migrate() {
            return None;
        }
        // It has begun something meanwhile; soon it has ended.
        sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until it has stopped, or its handler can be told to leave.
async fn stopped(session: &Inner) {
    if session.is_deferred() {
        session.handle.may_be_told().await;
    } else {
        session.handle.drained().await;
    }
}

/// A task of its handler that is about to write has its chance to do so: then it isn't at rest.
async fn detach(session: &Inner) -> Option<Detached> {
    yield_now().await;
    session.detach()
}

/// Whether a session could be held.
enum Pause {
    /// It is held, and this is its state.
    Held(Option<Vec<u8>>),
    /// It is not at rest any more, or can't migrate.
    Busy,
}

/// Holds it if it is at rest. `departure` is the state of one whose handler has decided to migrate.
fn pause(session: &Arc<Inner>, departure: Option<Vec<u8>>) -> Pause {
    if departure.is_some() {
        if session.handle.hold_departed() {
            return Pause::Held(departure);
        }
        give_up(session);
        return Pause::Busy;
    }
    // An upgrade may have been answered meanwhile.
    if !session.can_migrate() || session.is_deferred() || !session.handle.hold() {
        return Pause::Busy;
    }
    if session.handle.kind() == Kind::Http {
        return Pause::Held(None);
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

/// Tells the handler, and waits until it migrates, with this state. From then on it can't go on: one that
/// is late, or leaves too much, is closed.
async fn let_handler_decide(session: &Arc<Inner>, deadline: &mut Deadline) -> Option<Vec<u8>> {
    session.asked().cancel();
    let in_time = tokio::select! {
        () = session.departed.notified() => true,
        () = session.handle.ended() => return None,
        () = deadline.over() => false,
    };
    let state = lock(&session.departure).take();
    let state = state.filter(|state| in_time && state.len() <= MAX_STATE_BYTES);
    if state.is_none() {
        give_up(session);
    }
    state
}

/// The handler of a session that should have migrated can't go on.
fn give_up(session: &Arc<Inner>) {
    let connection = session.info.id.0;
    tracing::warn!(connection, "session migrates late, with too much, or with unsent data");
    session.note_failed();
    closing::reject_state(Arc::clone(session));
}

/// Offers it, and waits for the outcome.
async fn send(sessions: &Arc<Sessions>, session: &Arc<Inner>, mut transfer: SessionTransfer) {
    let usage = TcpProgress::of(&transfer.stream).ok().flatten();
    let offered = Instant::now();
    let outcome = offer(sessions, session, &transfer, usage).await;
    if outcome.is_ok()
        && let Some(checkpoint) = transfer.checkpoint.take()
    {
        checkpoint.release();
    }
    let connection = session.info.id.0;
    match outcome {
        Ok(OfferOutcome::Migrated) => {
            transfer.note_ending(Ending::Migrated);
            sessions.window.migrated(transfer.place, offered.elapsed());
            tracing::debug!(connection, "session migrated");
        }
        Ok(OfferOutcome::ReturnedUnverified) if !is_unused(&transfer.stream, usage) => {
            transfer.note_ending(Ending::Cut);
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
        Err(error) => {
            transfer.note_ending(Ending::Cut);
            tracing::warn!(connection, %error, "primary is gone with a session");
        }
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
    transfer: &SessionTransfer,
    usage: Option<TcpProgress>,
) -> io::Result<OfferOutcome> {
    let record = session.info.record();
    let usage = usage.filter(|_| sessions.shared.own.allowed.offer_progress);
    let (message, memory) = encode(&record, usage, &transfer.image)?;
    let mut descriptors = vec![transfer.stream.as_fd()];
    descriptors.extend(memory.as_ref().map(AsFd::as_fd));
    sessions.offer(&record, &message, &descriptors).await
}

/// The message, and the memory that holds an image that is too long for it.
fn encode(
    record: &ConnectionRecord,
    usage: Option<TcpProgress>,
    image: &SessionImage,
) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let bytes = image.encode();
    let memory = (bytes.len() > MAX_INLINE_IMAGE).then(|| seal(&bytes)).transpose()?;
    let mut buffer = Box::new([0; MAX_TO_PRIMARY]);
    let message = match usage {
        Some(usage) => encode_offer_with_progress(&mut buffer, record, usage, &bytes),
        None => encode_offer(&mut buffer, record, &bytes),
    };
    Ok((message.to_vec(), memory))
}
