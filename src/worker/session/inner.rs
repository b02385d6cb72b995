//! One session, as the library sees it: its facts, its stream, and how its handler lets it migrate.
//!
//! Never moves a socket itself.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::worker::connection_info::ConnectionInfo;
use crate::worker::lock::lock;
use crate::worker::misuse::{HandlerFault, Misuse};
use crate::worker::session::handle::Handle;
use crate::worker::session::image::Kind;
use crate::worker::session::image::MAX_STATE_BYTES;
use crate::worker::session::parts::Detached;
use crate::worker::session::protection::StateSource;
use crate::worker::shared::Shared;

pub(crate) struct Inner {
    pub(crate) info: ConnectionInfo,
    pub(crate) handle: Handle,
    /// It came from another worker's handler, with a state.
    pub(crate) is_restored: bool,
    /// That state, until its handler here declares how it goes on.
    restored: Mutex<Option<Arc<Vec<u8>>>>,
    /// That of its worker, if there is one.
    pub(crate) shared: Option<Arc<Shared>>,
    pub(crate) mode: Mutex<MigrationMode>,
    /// Cancelled when a session whose handler decides is to migrate. Others have none.
    asked: OnceLock<CancellationToken>,
    /// The state that its handler has decided to migrate with.
    pub(crate) departure: Mutex<Option<Vec<u8>>>,
    pub(crate) departed: Notify,
    has_migrated: AtomicBool,
    /// The route that serves it, where a router knows it.
    route: OnceLock<String>,
}

/// How a session migrates, as its handler has declared it.
pub(crate) enum MigrationMode {
    /// It hasn't.
    Undeclared,
    /// At any time: it makes its state when it is asked to.
    OnDemand(Box<dyn FnMut() -> Vec<u8> + Send>),
    /// It is told, and decides when.
    Deferred,
    /// It has failed to: it stays.
    Failed,
}

impl MigrationMode {
    fn is_same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Inner {
    pub(crate) fn new(
        info: ConnectionInfo,
        handle: Handle,
        restored: Option<Vec<u8>>,
        shared: Option<Arc<Shared>>,
    ) -> Self {
        Self {
            info,
            handle,
            is_restored: restored.is_some(),
            restored: Mutex::new(restored.map(Arc::new)),
            shared,
            mode: Mutex::new(MigrationMode::Undeclared),
            asked: OnceLock::new(),
            departure: Mutex::new(None),
            departed: Notify::new(),
            has_migrated: AtomicBool::new(false),
            route: OnceLock::new(),
        }
    }

    /// Its handler declares how it migrates. Of two ways, the first one counts.
    pub(crate) fn declare(&self, mode: MigrationMode) {
        let mut declared = lock(&self.mode);
        let is_other = matches!(*declared, MigrationMode::OnDemand(_) | MigrationMode::Deferred)
            && !declared.is_same_kind(&mode);
        if !is_other {
            let before = std::mem::replace(&mut *declared, mode);
            drop(declared);
            // Not under the lock: it is the app's.
            drop(before);
        }
        // Who has it keeps it.
        let restored = lock(&self.restored).take();
        drop(restored);
        self.handle.note_declared();
        if let Some(shared) = &self.shared {
            if is_other {
                shared.reported.misuse(Misuse::DeclaredTwice);
            } else if !shared.is_migration_enabled() {
                shared.reported.misuse(Misuse::MigrationNotEnabled);
            }
        }
    }

    /// The state that it came with, until its handler here declares how it goes on.
    pub(crate) fn restored(&self) -> Option<Arc<Vec<u8>>> {
        lock(&self.restored).clone()
    }

    /// Cancelled when it is to migrate.
    pub(crate) fn asked(&self) -> &CancellationToken {
        self.asked.get_or_init(CancellationToken::new)
    }

    pub(crate) fn is_declared(&self) -> bool {
        !matches!(*lock(&self.mode), MigrationMode::Undeclared)
    }

    /// Whether its handler decides when it migrates.
    pub(crate) fn is_deferred(&self) -> bool {
        matches!(*lock(&self.mode), MigrationMode::Deferred)
    }

    /// Whether its handler may still declare how it migrates.
    pub(crate) fn may_declare(&self) -> bool {
        self.handle.kind() == Kind::WebSocket && !self.is_declared() && self.handle.is_new()
    }

    pub(crate) fn can_migrate(&self) -> bool {
        match self.handle.kind() {
            Kind::Http => true,
            Kind::WebSocket => {
                self.is_declared() && self.fault().is_none() && self.handle.obstacle().is_none()
            }
            _ => false,
        }
    }

    /// The reason why its handler keeps it from migrating, if there is one.
    pub(crate) fn fault(&self) -> Option<HandlerFault> {
        match *lock(&self.mode) {
            MigrationMode::Undeclared => Some(HandlerFault::Undeclared),
            MigrationMode::Failed => Some(HandlerFault::Failed),
            MigrationMode::Deferred => None,
            MigrationMode::OnDemand(_) if self.handle.sends_beside() => {
                Some(HandlerFault::SendsBeside)
            }
            MigrationMode::OnDemand(_) if self.handle.never_received() && !self.handle.is_new() => {
                Some(HandlerFault::NeverReceives)
            }
            MigrationMode::OnDemand(_) => None,
        }
    }

    /// The same, for one that had time to migrate and has not.
    pub(crate) fn fault_so_far(&self) -> Option<HandlerFault> {
        let not_receiving = || self.handle.does_not_receive().then_some(HandlerFault::NotReceiving);
        self.fault().or_else(not_receiving)
    }

    /// It can't migrate after all.
    pub(crate) fn note_failed(&self) {
        let before = std::mem::replace(&mut *lock(&self.mode), MigrationMode::Failed);
        drop(before);
    }

    pub(crate) fn has_migrated(&self) -> bool {
        self.has_migrated.load(Ordering::Acquire)
    }

    /// Its handler sees the end of the socket, and that this is why.
    pub(crate) fn detach(&self) -> Option<Detached> {
        self.has_migrated.store(true, Ordering::Release);
        let detached = self.handle.detach();
        if detached.is_none() {
            self.has_migrated.store(false, Ordering::Release);
        }
        detached
    }

    /// A router says which route serves it.
    #[cfg(feature = "axum")]
    pub(crate) fn note_route(&self, route: &str) {
        let _ = self.route.set(route.to_owned());
    }

    /// The route that serves it, or its path where no router has said it.
    pub(crate) fn route(&self) -> Option<String> {
        self.route.get().cloned().or_else(|| self.handle.path())
    }
}

impl StateSource for Inner {
    /// A handler that panics, or makes too much, stays.
    fn make_state(&self) -> Option<Vec<u8>> {
        let mut mode = lock(&self.mode);
        let MigrationMode::OnDemand(make) = &mut *mode else { return None };
        let state = catch_unwind(AssertUnwindSafe(make)).ok()?;
        if state.len() > MAX_STATE_BYTES {
            let (connection, bytes) = (self.info.id.0, state.len());
            tracing::warn!(connection, bytes, "session's state is too large, it stays");
            return None;
        }
        Some(state)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("info", &self.info).finish_non_exhaustive()
    }
}
