//! The end of a worker, seen from its handlers: when it begins, and when all is done.
//!
//! Never closes anything itself: it tells those who can.
//!
//! # The order of things
//!
//! 1. The primary orders it. No new connection comes any more: draining has *begun*.
//! 2. [Sessions](crate::worker::session) move to other workers, if the order says so and the worker
//!    can; the other WebSockets are sent away in their turn. HTTP answers its last request.
//! 3. A connection that came just before has not been read from yet. It is *settled* when its first
//!    bytes are read, or a second has passed; only then may it be told to go. One that is kept alive has
//!    half a second to be used once more, and its answer says `Connection: close`.
//! 4. When the last connection is closed, draining is *finished*, and the process can end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::protocol::ids::{Generation, SlotId};
use crate::protocol::message::REPLACE_ME;
use crate::protocol::scm_rights::{self, Sent};
use crate::protocol::scoreboard::{Counter, Scoreboard};
use crate::worker::connection::{Connection, RequestGuard};
use crate::worker::orphan::OrphanTimes;
use crate::worker::session::closing::send_all_away;
use crate::worker::session::migration::move_all;
use crate::worker::session::registry::{Draining, Sessions};

/// How long a connection that came just before the drain may take to send its first bytes.
const SETTLE: Duration = Duration::from_secs(1);

/// How long connections that are kept alive may take to be used once more. Their answer then tells the
/// client to make a new one; closed without that, the next request of a busy client would meet the
/// end of the connection (RFC 9112, 9.5 and 9.6).
const LINGER: Duration = Duration::from_millis(500);

/// What a worker has for itself.
#[derive(Debug)]
pub(crate) struct Own {
    /// To the primary, if there is one.
    pub(crate) channel: Option<OwnedFd>,
    pub(crate) scoreboard: Scoreboard,
    pub(crate) slot: SlotId,
    pub(crate) generation: Generation,
    pub(crate) orphan: OrphanTimes,
    /// How long a session may take to move.
    pub(crate) migrate_timeout: Duration,
    /// Whether sessions may be protected.
    pub(crate) protect: bool,
}

/// What a worker and all of its connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) own: Own,
    /// The primary is gone, and so is the time that is left without it.
    abandoned: CancellationToken,
    begun: CancellationToken,
    open: AtomicUsize,
    /// Those of the open ones that nobody has read from yet.
    fresh: AtomicUsize,
    changed: Notify,
    pub(crate) sessions: Sessions,
}

impl Shared {
    /// And the sessions that come back.
    pub(crate) fn new(own: Own) -> (Arc<Self>, mpsc::Receiver<Connection>) {
        let (sessions, returned) = Sessions::new(own.protect);
        let shared = Arc::new(Self {
            own,
            abandoned: CancellationToken::new(),
            begun: CancellationToken::new(),
            open: AtomicUsize::new(0),
            fresh: AtomicUsize::new(0),
            changed: Notify::new(),
            sessions,
        });
        (shared, returned)
    }

    /// Begins to drain, or goes on by a newer order.
    pub(crate) fn begin_drain(self: &Arc<Self>, order: DrainOrder) {
        self.follow(Draining { order, deadline: Instant::now() + order.window, alone: false });
    }

    fn follow(self: &Arc<Self>, draining: Draining) {
        let before = self.sessions.draining.send_replace(Some(draining));
        if before.is_none() {
            self.begun.cancel();
            tokio::spawn(let_go(Arc::clone(self)));
        }
    }

    pub(crate) fn has_begun_to_drain(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Begins to drain where nobody says how, and nobody's sessions are followed.
    pub(crate) fn begin_plain_drain(&self) {
        self.begun.cancel();
        self.sessions.over.cancel();
    }

    /// Begins to drain without a primary, who would bound it.
    pub(crate) fn begin_orphaned_drain(self: &Arc<Self>) {
        let (mode, reason) = (DrainMode::Close, DrainReason::Restart);
        let window = self.own.orphan.drain;
        let deadline = Instant::now() + window;
        self.follow(Draining { order: DrainOrder { mode, reason, window }, deadline, alone: true });
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(shared.own.orphan.drain).await;
            shared.abandoned.cancel();
        });
    }

    pub(crate) fn connection_opened(&self) {
        self.own.scoreboard.increment(Counter::Connections);
        self.own.scoreboard.increment(Counter::ConnectionsTotal);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.fresh.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_used(&self) {
        // The last one to go wakes whoever waits for that; the others are nobody's concern.
        if self.fresh.fetch_sub(1, Ordering::AcqRel) == 1 && self.begun.is_cancelled() {
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn connection_closed(&self) {
        self.own.scoreboard.decrement(Counter::Connections);
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_waiters();
        }
    }

    async fn wait_for_zero(&self, counter: &AtomicUsize) {
        loop {
            // In this order, so that a change between the two is not missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if counter.load(Ordering::Acquire) == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// First those go who can move, then whoever is left is sent away in his turn.
async fn let_go(shared: Arc<Shared>) {
    move_all(&shared).await;
    shared.sessions.over.cancel();
    send_all_away(shared).await;
}

/// Tells a worker's handlers of its end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain {
    shared: Arc<Shared>,
}

impl Drain {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// For an app that runs without a primary: one that never begins.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory or no descriptor left.
    pub fn detached() -> io::Result<Self> {
        let (scoreboard, _) = Scoreboard::create()?;
        let (shared, _) = Shared::new(Own {
            channel: None,
            scoreboard,
            slot: SlotId(0),
            generation: Generation(0),
            orphan: OrphanTimes::default(),
            migrate_timeout: Duration::ZERO,
            protect: false,
        });
        Ok(Self { shared })
    }

    /// Waits until the worker is to end. A WebSocket's handler selects on this beside its socket,
    /// and sends a close frame with code 1001 ("going away", RFC 6455, 7.4.1).
    pub async fn begun(&self) {
        self.shared.begun.cancelled().await;
    }

    /// Whether the worker is to end.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.shared.begun.is_cancelled()
    }

    /// Whether connections are to be ended now: the worker is to end, and whoever could move has. From
    /// then on an answer should say that it is its connection's last.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.shared.sessions.over.is_cancelled()
    }

    /// What a health check should say: whether new clients are welcome. They are not once this
    /// worker drains, and not once everything is to end, though connections come for as long as
    /// `lameduck` says, so that load balancers have time to notice.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.has_begun() && self.shared.own.scoreboard.get(Counter::Stop) == 0
    }

    /// Waits until the worker is to end, what could move has moved, and no connection is left that was never read from, for half a
    /// second at least and a second at most. This is what to give to a server's graceful shutdown: told to shut down
    /// earlier, hyper closes a connection that it hasn't read from without an answer.
    pub async fn settled(&self) {
        self.begun().await;
        self.shared.sessions.over.cancelled().await;
        let used = self.shared.wait_for_zero(&self.shared.fresh);
        let settled = async { tokio::join!(used, tokio::time::sleep(LINGER)) };
        tokio::select! {
            // That it takes longer means that some client says nothing. It gets no more time.
            _ = tokio::time::timeout(SETTLE, settled) => {}
            () = self.shared.wait_for_zero(&self.shared.open) => {}
        }
        // What has come on idle connections is read first, so that its request is answered.
        tokio::task::yield_now().await;
    }

    /// Waits until the worker is to end and its last connection is closed, WebSockets included. A
    /// worker whose primary is gone waits for no more than `kill_timeout`.
    pub async fn finished(&self) {
        self.begun().await;
        tokio::select! {
            () = self.shared.wait_for_zero(&self.shared.open) => {}
            () = self.abandoned() => {}
        }
    }

    /// Waits until the primary is gone and the time is over that the worker has without it: it has
    /// to end now, whatever is open.
    pub async fn abandoned(&self) {
        self.shared.abandoned.cancelled().await;
    }

    /// Asks the primary to replace this worker: a successor is started, and when it serves, this one
    /// drains. For an app that knows when it has had its time, such as when its memory runs full.
    /// Asking again changes nothing.
    ///
    /// # Errors
    ///
    /// If there is no primary, or none any more, or it reads so slowly that the channel is full.
    pub fn request_replacement(&self) -> io::Result<()> {
        let Some(channel) = &self.shared.own.channel else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        match scm_rights::send(channel, &REPLACE_ME, &[])? {
            Sent::Queued => Ok(()),
            Sent::Full => Err(io::ErrorKind::WouldBlock.into()),
            Sent::Closed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Counts a request as in flight until the guard is dropped; for servers of one's own.
    #[must_use]
    pub fn request(&self) -> RequestGuard {
        RequestGuard::new(&self.shared)
    }
}
