//! The state that a worker and all of its connections share.
//!
//! Counts, and wakes what waits for a count; decides nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::protocol::ids::{Generation, SlotId};
use crate::protocol::scoreboard::{Counter, Scoreboard};
use crate::worker::misuse::Reported;
use crate::worker::orphan::OrphanTimes;
use crate::worker::session::checkpoint::CheckpointStore;
use crate::worker::trim::Trim;

/// A worker's inheritance, and its settings.
#[derive(Debug)]
pub(crate) struct Own {
    /// To the primary, if there is one.
    pub(crate) channel: Option<OwnedFd>,
    pub(crate) scoreboard: Scoreboard,
    pub(crate) slot: SlotId,
    pub(crate) generation: Generation,
    pub(crate) orphan: OrphanTimes,
    /// How long a session may take to migrate.
    pub(crate) migrate_timeout: Duration,
    pub(crate) allowed: Allowed,
}

/// What the primary that started this process understands, and what it allows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowed {
    /// Offers may say how far a socket has been used.
    pub(crate) offer_progress: bool,
    /// Sessions may be protected.
    pub(crate) protect: bool,
    /// A message may protect several.
    pub(crate) protect_several: bool,
}

impl Own {
    /// That of a worker without a primary.
    pub(crate) fn standalone() -> io::Result<Self> {
        let (scoreboard, _) = Scoreboard::create()?;
        Ok(Self {
            channel: None,
            scoreboard,
            slot: SlotId(0),
            generation: Generation(0),
            orphan: OrphanTimes::default(),
            migrate_timeout: Duration::ZERO,
            allowed: Allowed::default(),
        })
    }
}

/// The state that a worker and all of its connections share, but for its sessions.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) own: Own,
    /// The primary is gone, and the time is over that there is without it.
    pub(crate) expired: CancellationToken,
    pub(crate) started: CancellationToken,
    /// Nothing migrates any more: connections that are left may be told to go.
    pub(crate) closing: CancellationToken,
    pub(crate) open: AtomicUsize,
    /// Open connections that nothing was read from yet.
    pub(crate) fresh: AtomicUsize,
    changed: Notify,
    /// Checkpoints of protected sessions, if sessions may be protected.
    pub(crate) checkpoints: Option<Arc<CheckpointStore>>,
    pub(crate) reported: Reported,
    pub(crate) is_migration_enabled: AtomicBool,
    /// The app has called accept.
    pub(crate) is_accepting: AtomicBool,
    /// Something waits for the last connection.
    is_awaited: AtomicBool,
    /// The accept loop is gone.
    is_left: AtomicBool,
    /// Open connections whose sockets are the app's own.
    pub(crate) bare: AtomicUsize,
    trim: Arc<Trim>,
}

impl Shared {
    pub(crate) fn new(own: Own) -> Arc<Self> {
        let checkpoints = own.allowed.protect.then(Arc::default);
        Arc::new(Self {
            own,
            expired: CancellationToken::new(),
            started: CancellationToken::new(),
            closing: CancellationToken::new(),
            open: AtomicUsize::new(0),
            fresh: AtomicUsize::new(0),
            changed: Notify::new(),
            checkpoints,
            reported: Reported::default(),
            is_migration_enabled: AtomicBool::new(false),
            is_accepting: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            is_left: AtomicBool::new(false),
            bare: AtomicUsize::new(0),
            trim: Arc::default(),
        })
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Whether sessions can migrate, as far as this worker is concerned. Without a primary there is
    /// nothing to enable.
    pub(crate) fn is_migration_enabled(&self) -> bool {
        self.own.channel.is_none() || self.is_migration_enabled.load(Ordering::Relaxed)
    }

    /// Something waits for the last connection, or will.
    pub(crate) fn note_awaited(&self) {
        self.is_awaited.store(true, Ordering::Relaxed);
    }

    /// No more connections are accepted, whatever the primary says.
    pub(crate) fn note_left(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }

    /// Whether the accept loop is gone.
    pub(crate) fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Relaxed)
    }

    /// Whether connections are open and nothing waits for their end.
    pub(crate) fn is_left_open(&self) -> bool {
        !self.is_awaited.load(Ordering::Relaxed) && self.open.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn connection_opened(&self) {
        self.own.scoreboard.increment(Counter::Connections);
        self.own.scoreboard.increment(Counter::ConnectionsTotal);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.fresh.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_used(&self) {
        // The last one wakes the drain that waits for it.
        if self.fresh.fetch_sub(1, Ordering::AcqRel) == 1 && self.started.is_cancelled() {
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn connection_closed(&self) {
        self.own.scoreboard.decrement(Counter::Connections);
        let open = self.open.fetch_sub(1, Ordering::AcqRel) - 1;
        if open == 0 {
            self.changed.notify_waiters();
        }
        self.trim.note_released(open);
    }

    /// What a connection needed for a while is freed.
    pub(crate) fn note_settled(&self) {
        self.trim.note_released(self.open.load(Ordering::Relaxed));
    }

    pub(crate) async fn wait_for_zero(&self, counter: &AtomicUsize) {
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
