//! The sessions of one worker: which are open, which are on their way, and the primary's answers.
//!
//! Holds no sockets and does nothing by itself.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Duration, Instant, sleep_until};

use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::protocol::ids::{AffinityKey, ConnectionId, Timestamp};
use crate::protocol::message::{ConnectionRecord, MAX_ACCEPTED};
use crate::worker::guard::{ConnectionGuard, Residency, Residents};
#[cfg(feature = "hyper")]
use crate::worker::http_limits::HttpLimits;
use crate::worker::lock::lock;
use crate::worker::session::image::Kind;
use crate::worker::session::image::SessionImage;
use crate::worker::session::inner::Inner;
use crate::worker::session::window::{self, Window};
use crate::worker::session_sender::SessionSender;
use crate::worker::shared::Shared;

/// Sessions for which there may always be room.
const MIN_ROOM: usize = 256;

/// The outcome of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OfferOutcome {
    /// Another worker has it.
    Migrated,
    /// No worker has taken it.
    Returned,
    /// The same, by the word of a primary that follows the one that knew: to be verified.
    ReturnedUnverified,
}

/// An offer that the primary hasn't answered yet.
#[derive(Debug)]
struct Offered {
    /// Before it was sent.
    at: Timestamp,
    /// Of its record.
    tag: u64,
    answer: oneshot::Sender<OfferOutcome>,
    /// Another primary was told since that it is offered.
    is_reported: bool,
}

/// An order to drain, and when its time is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draining {
    pub(crate) order: DrainOrder,
    pub(crate) deadline: Instant,
    /// There is a primary that can be asked.
    pub(crate) has_primary: bool,
}

impl Draining {
    /// Until when sessions may try to migrate.
    fn migrates_until(&self) -> Instant {
        match self.order.mode {
            DrainMode::Migrate => self.deadline - self.order.window / 5,
            DrainMode::Wait | DrainMode::Close => self.deadline - self.order.window,
        }
    }

    /// When WebSockets begin to be closed.
    pub(crate) fn closes_from(&self) -> Instant {
        match self.order.mode {
            DrainMode::Close | DrainMode::Migrate => self.deadline - self.order.window,
            DrainMode::Wait => self.deadline - self.part(5, Duration::from_secs(5)),
        }
    }

    /// When those that are left are closed, without a turn.
    pub(crate) fn last_call(&self) -> Instant {
        self.deadline - self.part(10, Duration::from_secs(1))
    }

    /// The time until the last call.
    pub(crate) fn left(&self) -> Duration {
        self.last_call().saturating_duration_since(Instant::now())
    }

    pub(crate) fn next_change(&self, now: Instant) -> Option<Instant> {
        [self.closes_from(), self.last_call()].into_iter().filter(|at| *at > now).min()
    }

    /// A part of the time, but no more than `most`.
    fn part(&self, parts: u32, most: Duration) -> Duration {
        (self.order.window / parts).min(most)
    }
}

/// How long sessions may try to migrate: until then, or less if an order to drain says so meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Deadline {
    until: Instant,
    orders: watch::Receiver<Option<Draining>>,
}

impl Deadline {
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.until()
    }

    /// Waits until it is over.
    pub(crate) async fn over(&mut self) {
        loop {
            let until = self.until();
            tokio::select! {
                () = sleep_until(until) => return,
                changed = self.orders.changed() => if changed.is_err() { return },
            }
        }
    }

    fn until(&self) -> Instant {
        let ordered = self.orders.borrow().map(|draining| draining.migrates_until());
        ordered.map_or(self.until, |ordered| ordered.min(self.until))
    }
}

/// A session that no other worker has taken.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) stream: TcpStream,
    pub(crate) guard: ConnectionGuard,
    pub(crate) image: SessionImage,
}

/// A session that has come from another worker a moment ago.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) session: Arc<Inner>,
    pub(crate) since: Instant,
    /// The age at which it is looked at next.
    pub(crate) look_at: Duration,
    /// Its handler had time to declare how it goes on.
    pub(crate) is_checked: bool,
}

#[derive(Debug)]
struct Open {
    residency: Residency,
    session: Arc<Inner>,
}

/// All sessions of a worker.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) shared: Arc<Shared>,
    open: Mutex<HashMap<ConnectionId, Open>>,
    next_residency: AtomicU64,
    /// Sessions that are being migrated or closed.
    busy: Mutex<HashSet<ConnectionId>>,
    /// Offers without an answer. The message is sent under this lock: under it, either both or none
    /// are seen.
    offered: Mutex<HashMap<ConnectionId, Offered>>,
    /// The last sessions that came from other workers, and didn't go on to others, the oldest first, with
    /// the tags of their records.
    accepted: Mutex<VecDeque<(ConnectionId, u64)>>,
    /// Those that are watched, as they have just come.
    resumed: Mutex<Vec<Resumed>>,
    /// Turns to close a WebSocket that the primary was asked for, and hasn't granted.
    pub(crate) asked: AtomicU32,
    /// Set once migration is enabled.
    pub(crate) sender: OnceLock<SessionSender>,
    pub(crate) window: Window,
    /// WebSockets that may be closed now.
    pub(crate) granted: Semaphore,
    /// The newest order.
    pub(crate) draining: watch::Sender<Option<Draining>>,
    returned: mpsc::Sender<Returned>,
}

impl Sessions {
    /// None yet; and where those arrive that no other worker has taken. As many wait there as may be
    /// on their way.
    pub(crate) fn new(shared: Arc<Shared>) -> (Arc<Self>, mpsc::Receiver<Returned>) {
        let (returned, arrived) = mpsc::channel(window::MAX);
        let sessions = Self {
            shared,
            open: Mutex::default(),
            next_residency: AtomicU64::new(0),
            busy: Mutex::default(),
            offered: Mutex::default(),
            accepted: Mutex::default(),
            resumed: Mutex::default(),
            asked: AtomicU32::new(0),
            sender: OnceLock::new(),
            window: Window::new(),
            granted: Semaphore::new(0),
            draining: watch::Sender::new(None),
            returned,
        };
        (Arc::new(sessions), arrived)
    }

    /// For sessions that begin to migrate now.
    pub(crate) fn deadline(&self) -> Deadline {
        let until = Instant::now() + self.shared.own.migrate_timeout;
        Deadline { until, orders: self.draining.subscribe() }
    }

    /// For a connection that begins in this process.
    pub(crate) fn new_residency(&self) -> Residency {
        Residency(self.next_residency.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn insert(&self, residency: Residency, session: &Arc<Inner>) {
        let session = Arc::clone(session);
        let before = lock(&self.open).insert(session.info.id, Open { residency, session });
        drop(before);
    }

    pub(crate) fn find(&self, id: ConnectionId) -> Option<Arc<Inner>> {
        lock(&self.open).get(&id).map(|open| Arc::clone(&open.session))
    }

    /// Whether sessions can be offered to other workers.
    pub(crate) fn can_offer(&self) -> bool {
        self.sender.get().is_some()
    }

    /// Sessions that could migrate and aren't on their way yet.
    pub(crate) fn migratable(&self) -> Vec<Arc<Inner>> {
        self.select(Inner::can_migrate)
    }

    /// Whether one is on its way, which may come back, could migrate, or may soon declare that it can.
    pub(crate) fn may_migrate(&self) -> bool {
        let is_any_busy = !lock(&self.busy).is_empty();
        is_any_busy
            || !self.select(|session| session.can_migrate() || session.may_declare()).is_empty()
    }

    /// HTTP connections whose clients take too long with a request.
    #[cfg(feature = "hyper")]
    pub(crate) fn overdue(&self, limits: &HttpLimits, now: Instant) -> Vec<Arc<Inner>> {
        self.select(|session| session.handle.is_overdue(limits, now))
    }

    /// WebSockets that are neither on their way nor being closed.
    pub(crate) fn websockets(&self) -> Vec<Arc<Inner>> {
        self.select(|session| session.handle.kind() == Kind::WebSocket)
    }

    /// The reason for clients that are closed now.
    pub(crate) fn close_reason(&self) -> DrainReason {
        let reason = self.draining.borrow().map(|draining| draining.order.reason);
        reason.unwrap_or(DrainReason::Restart)
    }

    fn select(&self, is_meant: impl Fn(&Inner) -> bool) -> Vec<Arc<Inner>> {
        let all: Vec<_> = lock(&self.open).values().map(|open| Arc::clone(&open.session)).collect();
        let busy = lock(&self.busy).clone();
        all.into_iter()
            .filter(|session| !busy.contains(&session.info.id) && is_meant(session))
            .collect()
    }

    /// The WebSockets that could migrate, and their keys.
    pub(crate) fn list(&self) -> Vec<(ConnectionId, AffinityKey)> {
        let migratable = self.migratable().into_iter();
        let websockets = migratable.filter(|session| session.handle.kind() == Kind::WebSocket);
        websockets.map(|session| (session.info.id, session.info.key)).collect()
    }

    /// Whether nothing else is done with it already; from now on, the caller does something with it.
    pub(crate) fn mark_busy(&self, id: ConnectionId) -> bool {
        lock(&self.busy).insert(id)
    }

    pub(crate) fn unmark_busy(&self, id: ConnectionId) {
        lock(&self.busy).remove(&id);
    }

    /// Offers a session by this message as soon as there is room, and waits for the primary's answer.
    ///
    /// # Errors
    ///
    /// If there is no primary, or none any more.
    pub(crate) async fn offer(
        &self,
        record: &ConnectionRecord,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<OfferOutcome> {
        let sender = self.sender.get().ok_or(io::ErrorKind::NotConnected)?;
        loop {
            if let Some(answer) = self.try_offer(sender, record, message, descriptors)? {
                return answer.await.map_err(|_| io::ErrorKind::BrokenPipe.into());
            }
            sender.room().await?;
        }
    }

    fn try_offer(
        &self,
        sender: &SessionSender,
        record: &ConnectionRecord,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<Option<oneshot::Receiver<OfferOutcome>>> {
        let mut offered = lock(&self.offered);
        let at = Timestamp::now();
        if !sender.try_send(message, descriptors)? {
            return Ok(None);
        }
        let (answer, outcome) = oneshot::channel();
        offered.insert(record.id, Offered { at, tag: record.tag, answer, is_reported: false });
        Ok(Some(outcome))
    }

    /// The primary's answer. One about a session that wasn't offered is ignored.
    pub(crate) fn resolve(&self, id: ConnectionId, outcome: OfferOutcome) {
        let Some(Offered { answer, is_reported, .. }) = lock(&self.offered).remove(&id) else {
            return;
        };
        if outcome == OfferOutcome::Migrated {
            let mut accepted = lock(&self.accepted);
            // The oldest ones are the first to go on.
            if let Some(position) = accepted.iter().position(|(accepted, _)| *accepted == id) {
                accepted.remove(position);
            }
        }
        let _ = answer.send(match outcome {
            OfferOutcome::Returned if is_reported => OfferOutcome::ReturnedUnverified,
            outcome => outcome,
        });
    }

    /// Offers without an answer, with their times and tags; another primary is told of them now.
    pub(crate) fn report_offers(&self) -> Vec<(ConnectionId, Timestamp, u64)> {
        let mut offered = lock(&self.offered);
        offered.values_mut().for_each(|offer| offer.is_reported = true);
        offered.iter().map(|(id, offer)| (*id, offer.at, offer.tag)).collect()
    }

    /// A session has come from another worker.
    pub(crate) fn note_accepted(&self, record: &ConnectionRecord) {
        let mut accepted = lock(&self.accepted);
        if accepted.len() == MAX_ACCEPTED {
            accepted.pop_front();
        }
        accepted.push_back((record.id, record.tag));
    }

    /// The last sessions that have, with their tags.
    pub(crate) fn accepted(&self) -> Vec<(ConnectionId, u64)> {
        lock(&self.accepted).iter().copied().collect()
    }

    /// A session that has come is to be watched. Whether it is the only one: nothing watches any then.
    pub(crate) fn note_resumed(&self, session: &Arc<Inner>) -> bool {
        let mut resumed = lock(&self.resumed);
        let session = Arc::clone(session);
        let (since, look_at) = (Instant::now(), Duration::ZERO);
        resumed.push(Resumed { session, since, look_at, is_checked: false });
        resumed.len() == 1
    }

    /// Takes those that need not be watched any more. Whether others are left.
    pub(crate) fn take_resumed(
        &self,
        is_seen: impl FnMut(&mut Resumed) -> bool,
    ) -> (Vec<Resumed>, bool) {
        let mut resumed = lock(&self.resumed);
        let seen = resumed.extract_if(.., is_seen).collect();
        let is_any_left = !resumed.is_empty();
        if !is_any_left {
            *resumed = Vec::new();
        }
        (seen, is_any_left)
    }

    /// There is no primary any more: no answer will come, and none is waited for.
    pub(crate) fn give_up_offers(&self) {
        lock(&self.offered).clear();
        self.shared.checkpoints.iter().for_each(|checkpoints| checkpoints.close());
    }

    /// Another primary has come on the same channel: it is sent the checkpoints, and is to protect
    /// these sessions.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub(crate) fn protect_again(&self) -> io::Result<Vec<Arc<Inner>>> {
        let Some(checkpoints) = &self.shared.checkpoints else { return Ok(Vec::new()) };
        checkpoints.resend_file()?;
        let all: Vec<_> = lock(&self.open).values().map(|open| Arc::clone(&open.session)).collect();
        Ok(all.into_iter().filter(|session| session.handle.note_unsent()).collect())
    }

    /// Gives a session back to the accept loop.
    ///
    /// # Errors
    ///
    /// If no connections are accepted any more.
    pub(crate) async fn give_back(&self, returned: Returned) -> Result<(), Returned> {
        self.returned.send(returned).await.map_err(|error| error.0)
    }
}

impl Residents for Sessions {
    fn remove(&self, id: ConnectionId, residency: Residency) {
        let mut open = lock(&self.open);
        let is_it = open.get(&id).is_some_and(|it| it.residency == residency);
        let gone = is_it.then(|| open.remove(&id));
        // After a crowd it doesn't keep the room for one.
        if open.capacity() > MIN_ROOM.max(8 * open.len()) {
            let room = 2 * open.len();
            open.shrink_to(room);
        }
        // Not under the lock: dropping it may need the lock.
        drop(open);
        drop(gone);
    }

    fn close_code(&self) -> u16 {
        self.close_reason().close_code()
    }
}
