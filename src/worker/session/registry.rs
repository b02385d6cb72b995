//! The sessions of one worker: who is open, who is on his way, and what the primary has said of them.
//!
//! Holds no sockets and does nothing by itself.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::protocol::drain::{DrainMode, DrainOrder};
use crate::protocol::ids::{AffinityKey, ConnectionId};
use crate::protocol::message::MAX_ACCEPTED;
use crate::worker::connection::Connection;
use crate::worker::session::checkpoint::OwnLedger;
use crate::worker::session::handle::Kind;
use crate::worker::session::{Inner, Leaver, lock};
use crate::worker::session_sender::Outlet;

/// Sessions that may be on their way at a time: enough to keep the primary busy, and few enough that
/// none waits long for those before it.
pub(crate) const WINDOW: usize = 16;

/// What became of a session that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Another worker has it.
    Moved,
    /// Nobody has taken it.
    Returned,
    /// The same, by the word of a primary that follows the one that knew: to be proven.
    ReturnedAsFarAsKnown,
}

/// Who waits for the primary's word on a session.
#[derive(Debug)]
struct Offered {
    told: oneshot::Sender<Verdict>,
    /// Another primary was told since that it is offered.
    is_reported: bool,
}

/// An order to drain, and when it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draining {
    pub(crate) order: DrainOrder,
    pub(crate) deadline: Instant,
    /// There is no primary that could be asked.
    pub(crate) alone: bool,
}

impl Draining {
    /// Until when sessions may try to move.
    pub(crate) fn moves_until(&self) -> Instant {
        match self.order.mode {
            DrainMode::Migrate => self.deadline - self.order.window / 5,
            DrainMode::Wait | DrainMode::Close => self.deadline - self.order.window,
        }
    }
}

/// How long sessions may try to move: until then, or less if an order to drain says so meanwhile.
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
        let ordered = self.orders.borrow().map(|draining| draining.moves_until());
        ordered.map_or(self.until, |ordered| ordered.min(self.until))
    }
}

/// A session may leave and come again before its first stay is tidied up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stay(u64);

#[derive(Debug)]
struct Open {
    stay: Stay,
    session: Arc<Inner>,
}

/// All sessions of a worker.
#[derive(Debug)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<ConnectionId, Open>>,
    next_stay: AtomicU64,
    /// Those that are being moved, or sent away.
    leaving: Mutex<HashSet<ConnectionId>>,
    /// Who waits for the primary's word. The message is sent under this lock: whoever holds it sees
    /// either both or none.
    offered: Mutex<HashMap<ConnectionId, Offered>>,
    /// The last ones that came from other workers, and didn't go on to others, the oldest first.
    taken: Mutex<VecDeque<ConnectionId>>,
    /// Clients that the primary was asked to let go, and that haven't had their turn.
    pub(crate) asked: AtomicU32,
    pub(crate) outlet: OnceLock<Outlet>,
    pub(crate) window: Arc<Semaphore>,
    /// Clients that may be sent away, by the primary's word.
    pub(crate) granted: Semaphore,
    /// The newest order.
    pub(crate) draining: watch::Sender<Option<Draining>>,
    /// Nothing moves any more: what is left may be told to go.
    pub(crate) over: CancellationToken,
    returned: mpsc::Sender<Connection>,
    /// Where protected sessions are written down, if any may be protected.
    pub(crate) ledger: Option<Arc<OwnLedger>>,
}

impl Sessions {
    /// None yet; and where those arrive whom nobody has taken. As many wait there as may be on their
    /// way.
    pub(crate) fn new(protect: bool) -> (Self, mpsc::Receiver<Connection>) {
        let (returned, arrived) = mpsc::channel(WINDOW);
        let sessions = Self {
            open: Mutex::default(),
            next_stay: AtomicU64::new(0),
            leaving: Mutex::default(),
            offered: Mutex::default(),
            taken: Mutex::default(),
            asked: AtomicU32::new(0),
            outlet: OnceLock::new(),
            window: Arc::new(Semaphore::new(WINDOW)),
            granted: Semaphore::new(0),
            draining: watch::Sender::new(None),
            over: CancellationToken::new(),
            returned,
            ledger: protect.then(Arc::default),
        };
        (sessions, arrived)
    }

    /// For sessions that begin to move now.
    pub(crate) fn patience(&self, migrate_timeout: Duration) -> Deadline {
        Deadline { until: Instant::now() + migrate_timeout, orders: self.draining.subscribe() }
    }

    /// A connection's stay in this process.
    pub(crate) fn stay(&self) -> Stay {
        Stay(self.next_stay.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn insert(&self, stay: Stay, session: &Arc<Inner>) {
        let session = Arc::clone(session);
        let before = lock(&self.open).insert(session.info.id, Open { stay, session });
        drop(before);
    }

    /// Its socket is closed, or another worker's.
    pub(crate) fn forget(&self, id: ConnectionId, stay: Stay) {
        let mut open = lock(&self.open);
        let gone = open.get(&id).is_some_and(|it| it.stay == stay).then(|| open.remove(&id));
        // Not under the lock: what goes with it may have more to say.
        drop(open);
        drop(gone);
    }

    pub(crate) fn find(&self, id: ConnectionId) -> Option<Arc<Inner>> {
        lock(&self.open).get(&id).map(|open| Arc::clone(&open.session))
    }

    /// Those that could move and aren't on their way yet.
    pub(crate) fn on_migrate(&self) -> Vec<Arc<Inner>> {
        self.who(|session| match session.handle.kind() {
            Kind::Http => true,
            Kind::WebSocket => !matches!(*lock(&session.leaver), Leaver::Stays),
            _ => false,
        })
    }

    /// WebSockets that are neither on their way nor being closed.
    pub(crate) fn websockets(&self) -> Vec<Arc<Inner>> {
        self.who(|session| session.handle.kind() == Kind::WebSocket)
    }

    fn who(&self, is_meant: impl Fn(&Inner) -> bool) -> Vec<Arc<Inner>> {
        let all: Vec<_> = lock(&self.open).values().map(|open| Arc::clone(&open.session)).collect();
        let leaving = lock(&self.leaving).clone();
        all.into_iter()
            .filter(|session| !leaving.contains(&session.info.id) && is_meant(session))
            .collect()
    }

    /// The on_migrate WebSockets and whose they are.
    pub(crate) fn census(&self) -> Vec<(ConnectionId, AffinityKey)> {
        let on_migrate = self.on_migrate().into_iter();
        let websockets = on_migrate.filter(|session| session.handle.kind() == Kind::WebSocket);
        websockets.map(|session| (session.info.id, session.info.key)).collect()
    }

    /// Whether nobody else does anything with it already; from now on, the caller does.
    pub(crate) fn claim(&self, id: ConnectionId) -> bool {
        lock(&self.leaving).insert(id)
    }

    pub(crate) fn unclaim(&self, id: ConnectionId) {
        lock(&self.leaving).remove(&id);
    }

    /// Offers a session by this message as soon as there is room, and waits for the primary's word.
    ///
    /// # Errors
    ///
    /// If there is no primary, or none any more.
    pub(crate) async fn offer(
        &self,
        id: ConnectionId,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<Verdict> {
        let outlet = self.outlet.get().ok_or(io::ErrorKind::NotConnected)?;
        loop {
            if let Some(verdict) = self.try_offer(outlet, id, message, descriptors)? {
                return verdict.await.map_err(|_| io::ErrorKind::BrokenPipe.into());
            }
            outlet.room().await?;
        }
    }

    fn try_offer(
        &self,
        outlet: &Outlet,
        id: ConnectionId,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<Option<oneshot::Receiver<Verdict>>> {
        let mut offered = lock(&self.offered);
        if !outlet.try_send(message, descriptors)? {
            return Ok(None);
        }
        let (told, verdict) = oneshot::channel();
        offered.insert(id, Offered { told, is_reported: false });
        Ok(Some(verdict))
    }

    /// The primary's word. One about a session that wasn't offered is not heard.
    pub(crate) fn judge(&self, id: ConnectionId, verdict: Verdict) {
        let Some(Offered { told, is_reported }) = lock(&self.offered).remove(&id) else { return };
        if verdict == Verdict::Moved {
            lock(&self.taken).retain(|taken| *taken != id);
        }
        let _ = told.send(match verdict {
            Verdict::Returned if is_reported => Verdict::ReturnedAsFarAsKnown,
            verdict => verdict,
        });
    }

    /// Who is offered and has heard nothing; another primary is told so now.
    pub(crate) fn report_offers(&self) -> Vec<ConnectionId> {
        let mut offered = lock(&self.offered);
        offered.values_mut().for_each(|one| one.is_reported = true);
        offered.keys().copied().collect()
    }

    /// A session has come from another worker.
    pub(crate) fn note_taken(&self, id: ConnectionId) {
        let mut taken = lock(&self.taken);
        if taken.len() == MAX_ACCEPTED {
            taken.pop_front();
        }
        taken.push_back(id);
    }

    /// The last ones that have.
    pub(crate) fn taken(&self) -> Vec<ConnectionId> {
        lock(&self.taken).iter().copied().collect()
    }

    /// There is no primary any more: no word will come, and none is heard.
    pub(crate) fn give_up_offers(&self) {
        lock(&self.offered).clear();
        self.ledger.iter().for_each(|ledger| ledger.close());
    }

    /// Another primary has come on the same channel: the ledger and all sessions that are to be kept
    /// are sent to it.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub(crate) fn keep_again(&self) -> io::Result<()> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        ledger.introduce()?;
        let all: Vec<_> = lock(&self.open).values().map(|open| Arc::clone(&open.session)).collect();
        all.iter().for_each(|session| session.handle.keep_again());
        Ok(())
    }

    /// Gives a connection back to the accept loop.
    ///
    /// # Errors
    ///
    /// If nobody accepts any more.
    pub(crate) async fn give_back(&self, connection: Connection) -> Result<(), Connection> {
        self.returned.send(connection).await.map_err(|error| error.0)
    }
}
