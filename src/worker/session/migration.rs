//! Sessions on their way out: stopped between two messages, packed, offered, and brought back where
//! nobody takes them.
//!
//! Never gives a socket up before the primary has said that another worker has it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::message::{MAX_INLINE_IMAGE, MAX_TO_PRIMARY, encode_offer};
use crate::protocol::sealed::seal;
use crate::protocol::tcp_progress::{TcpProgress, is_untouched_since};
use crate::worker::connection::{Connection, ConnectionGuard};
use crate::worker::drain::Shared;
use crate::worker::session::checkpoint::Kept;
use crate::worker::session::handle::{Kind, Taken};
use crate::worker::session::image::{MAX_STATE_BYTES, Parcel};
use crate::worker::session::registry::{Deadline, Verdict};
use crate::worker::session::{Inner, Leaver, closing, lock};

/// One that takes longer to stop makes room for others in the window.
const PROMPT: Duration = Duration::from_millis(100);

/// How soon one that came back is offered again.
const AGAIN: Duration = Duration::from_millis(500);

/// How often it is looked for others that have become able to move.
const LOOK: Duration = Duration::from_millis(100);

/// Moves everybody who can, until nobody is left who could, or time is over.
pub(crate) async fn move_all(shared: &Arc<Shared>) {
    let patience = shared.sessions.patience(shared.own.migrate_timeout);
    let mut moves = JoinSet::new();
    while !patience.is_over() {
        for session in shared.sessions.on_migrate() {
            let Ok(permit) = Arc::clone(&shared.sessions.window).acquire_owned().await else {
                return;
            };
            if shared.sessions.claim(session.info.id) {
                moves.spawn(move_out(Arc::clone(shared), session, permit, patience.clone()));
            }
        }
        let next_look = Instant::now() + LOOK;
        loop {
            tokio::select! {
                moved = moves.join_next() => if moved.is_none() { break },
                () = sleep_until(next_look) => break,
            }
        }
        if moves.is_empty() && shared.sessions.on_migrate().is_empty() {
            return;
        }
    }
    // Those that are on their way go on.
    moves.detach_all();
}

/// Moves one, if it is there and can.
pub(crate) fn move_some(shared: &Arc<Shared>, ids: impl Iterator<Item = ConnectionId>) {
    let patience = shared.sessions.patience(shared.own.migrate_timeout);
    for session in ids.filter_map(|id| shared.sessions.find(id)) {
        let (shared, patience) = (Arc::clone(shared), patience.clone());
        tokio::spawn(async move {
            let window = Arc::clone(&shared.sessions.window);
            let Ok(permit) = window.acquire_owned().await else { return };
            if shared.sessions.claim(session.info.id) {
                move_out(shared, session, permit, patience).await;
            }
        });
    }
}

/// One's way out, whatever comes of it.
async fn move_out(
    shared: Arc<Shared>,
    session: Arc<Inner>,
    permit: OwnedSemaphorePermit,
    mut patience: Deadline,
) {
    let id = session.info.id;
    session.handle.ask_to_stop();
    if let Some(leaving) = stop_and_take(&shared, &session, permit, &mut patience).await {
        send(&shared, &session, leaving).await;
    } else {
        session.handle.go_on();
    }
    shared.sessions.unclaim(id);
}

/// One that has left its handler.
struct Leaving {
    stream: TcpStream,
    guard: Option<ConnectionGuard>,
    parcel: Parcel,
    /// Its entry in the ledger: until it has left.
    kept: Option<Box<Kept>>,
    /// Its place among those that are on their way.
    _place: OwnedSemaphorePermit,
}

/// Waits until it is at rest, holds it, has its state made, and takes the socket. Nothing if it
/// stays.
async fn stop_and_take(
    shared: &Shared,
    session: &Arc<Inner>,
    permit: OwnedSemaphorePermit,
    patience: &mut Deadline,
) -> Option<Leaving> {
    let mut permit = Some(permit);
    let prompt = Instant::now() + PROMPT;
    loop {
        tokio::select! {
            () = session.handle.drained() => {}
            () = session.handle.ended() => return None,
            () = patience.over() => return None,
            () = sleep_until(prompt), if permit.is_some() => {
                permit = None;
                continue;
            }
        }
        let held = match permit.take() {
            Some(permit) => permit,
            None => Arc::clone(&shared.sessions.window).acquire_owned().await.ok()?,
        };
        if let Left::With(state) = session.leave(patience).await
            && let Some(Taken { stream, guard, baggage, kept }) = session.take()
        {
            let (left_at, protect) = (Timestamp::now(), kept.is_some());
            let parcel = Parcel { baggage, state, left_at, protect };
            return Some(Leaving { stream, guard, parcel, kept, _place: held });
        }
        if !session.may_move() {
            return None;
        }
        // It has begun something meanwhile; soon it has ended.
        permit = Some(held);
        sleep(Duration::from_millis(1)).await;
    }
}

/// What came of asking a handler to leave.
enum Left {
    /// The socket is held, and this is to be left.
    With(Option<Vec<u8>>),
    /// Not at rest any more, or unable to.
    Not,
}

impl Inner {
    fn may_move(&self) -> bool {
        match self.handle.kind() {
            Kind::Http => true,
            Kind::WebSocket => !matches!(*lock(&self.leaver), Leaver::Stays),
            _ => false,
        }
    }

    /// Its handler sees the end of the socket, and that this is why.
    fn take(&self) -> Option<Taken> {
        self.moved.store(true, Ordering::Release);
        let taken = self.handle.take();
        if taken.is_none() {
            self.moved.store(false, Ordering::Release);
        }
        taken
    }

    async fn leave(self: &Arc<Self>, patience: &mut Deadline) -> Left {
        if self.handle.kind() == Kind::Http {
            return if self.handle.hold() { Left::With(None) } else { Left::Not };
        }
        if matches!(*lock(&self.leaver), Leaver::Says) {
            return self.let_say(patience).await;
        }
        if !self.handle.hold() {
            return Left::Not;
        }
        match self.ask() {
            Some(state) => Left::With(Some(state)),
            None => {
                *lock(&self.leaver) = Leaver::Stays;
                self.handle.release();
                Left::Not
            }
        }
    }

    /// It is told, and comes when it is done. From then on it can't go on: one that is late, or
    /// leaves too much, is sent away.
    async fn let_say(self: &Arc<Self>, patience: &mut Deadline) -> Left {
        self.leaves.send_replace(true);
        let in_time = tokio::select! {
            () = self.departed.notified() => true,
            () = self.handle.ended() => return Left::Not,
            () = patience.over() => false,
        };
        let state = lock(&self.departure).take().filter(|_| in_time);
        match state.filter(|state| state.len() <= MAX_STATE_BYTES) {
            Some(state) if self.handle.hold_departed() => Left::With(Some(state)),
            _ => {
                let connection = self.info.id.0;
                tracing::warn!(connection, "session left late, or too much, or something unsent");
                *lock(&self.leaver) = Leaver::Stays;
                closing::refuse(Arc::clone(self));
                Left::Not
            }
        }
    }

    /// The state that its handler leaves. A handler that panics stays.
    pub(super) fn ask(&self) -> Option<Vec<u8>> {
        let mut leaver = lock(&self.leaver);
        let Leaver::Asked(make) = &mut *leaver else { return None };
        let state = catch_unwind(AssertUnwindSafe(make)).ok()?;
        if state.len() > MAX_STATE_BYTES {
            let (connection, bytes) = (self.info.id.0, state.len());
            tracing::warn!(connection, bytes, "session's state is too large, it stays");
            return None;
        }
        Some(state)
    }
}

/// Offers it, and waits for what becomes of it.
async fn send(shared: &Arc<Shared>, session: &Arc<Inner>, mut leaving: Leaving) {
    let usage = TcpProgress::of(&leaving.stream).ok().flatten();
    let verdict = offer(shared, session, &leaving.stream, &leaving.parcel).await;
    if verdict.is_ok()
        && let Some(kept) = leaving.kept.take()
    {
        kept.surrender();
    }
    let connection = session.info.id.0;
    match verdict {
        Ok(Verdict::Moved) => tracing::debug!(connection, "session moved"),
        Ok(Verdict::ReturnedAsFarAsKnown) if !is_unused(&leaving.stream, usage) => {
            tracing::warn!(
                connection,
                "primary died while the session moved, and somebody has used it since: let go",
            );
        }
        Ok(Verdict::Returned | Verdict::ReturnedAsFarAsKnown) => {
            tracing::debug!(connection, "nobody takes the session, it goes on");
            take_back(shared, leaving).await;
            sleep(AGAIN).await;
        }
        Err(error) => tracing::warn!(connection, %error, "primary is gone with a session"),
    }
}

/// Whether nobody has used a session's socket since it was offered. As long as one primary lives this
/// needs no proof here: it gives a session back only if nobody has received it, or whoever did has
/// refused it, which comes before the first read, or is dead and the primary's own copy proves the same.
fn is_unused(socket: &impl AsFd, usage: Option<TcpProgress>) -> bool {
    usage.is_some_and(|usage| is_untouched_since(socket, usage).unwrap_or(false))
}

/// It goes on here, or is sent away where nobody accepts any more.
async fn take_back(shared: &Arc<Shared>, leaving: Leaving) {
    let Leaving { stream, guard, parcel, .. } = leaving;
    let Some(guard) = guard else { return };
    let connection = Connection::resumed(stream, guard, parcel);
    if let Err(connection) = shared.sessions.give_back(connection).await {
        closing::send_away_unserved(shared, connection).await;
    }
}

async fn offer(
    shared: &Shared,
    session: &Inner,
    socket: &impl AsFd,
    parcel: &Parcel,
) -> io::Result<Verdict> {
    let (message, memory) = pack(session, parcel)?;
    let mut descriptors = vec![socket.as_fd()];
    descriptors.extend(memory.as_ref().map(AsFd::as_fd));
    shared.sessions.offer(session.info.id, &message, &descriptors).await
}

/// The message, and the memory that holds what is too long for it.
fn pack(session: &Inner, parcel: &Parcel) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let bytes = parcel.encode();
    let memory = (bytes.len() > MAX_INLINE_IMAGE).then(|| seal(&bytes)).transpose()?;
    let mut buffer = Box::new([0; MAX_TO_PRIMARY]);
    let message = encode_offer(&mut buffer, &session.info.record(), &bytes);
    Ok((message.to_vec(), memory))
}
