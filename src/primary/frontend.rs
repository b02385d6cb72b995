//! The frontend's thread: it hands connections to workers, and ends when the pool does.

use std::io;
use std::thread;

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::control::admin;
use crate::frontend::affinity::Affinity;
use crate::frontend::dispatcher::{DispatchError, Dispatcher, DispatcherSettings};
use crate::frontend::keys::ClientKeys;
use crate::frontend::query::Queries;
use crate::frontend::router::Router;
use crate::frontend::slot_table::SlotTable;
use crate::frontend::snapshot::FrontendHandover;
use crate::frontend::steering::Steering;
use crate::link::interface::Dispatch;
use crate::link::seam::CommandReceiver;
use crate::primary::PrimaryError;
use crate::supervisor::pool::PoolError;

/// The thread, until its end.
#[derive(Debug)]
pub(super) struct FrontendThread {
    end: oneshot::Receiver<Result<Option<Box<FrontendHandover>>, DispatchError>>,
}

impl FrontendThread {
    /// Why the pool has failed.
    pub(super) fn explain(&mut self, error: PoolError) -> PrimaryError {
        match (error, self.end.try_recv()) {
            (PoolError::Frontend(_), Ok(Err(error))) => PrimaryError::Frontend(error),
            (error, _) => error.into(),
        }
    }

    /// Waits until it has handed over.
    pub(super) async fn handover(self) -> Result<FrontendHandover, PrimaryError> {
        match self.end.await {
            Ok(Ok(Some(handover))) => Ok(*handover),
            Ok(Err(error)) => Err(PrimaryError::Frontend(error)),
            Ok(Ok(None)) | Err(_) => Err(PrimaryError::Start {
                what: "take over from the frontend",
                source: io::ErrorKind::BrokenPipe.into(),
            }),
        }
    }
}

/// Starts it.
pub(super) fn start(
    before: FrontendHandover,
    config: &Config,
    workers: u16,
    orders: CommandReceiver,
    queries: Queries,
) -> io::Result<FrontendThread> {
    let keys = keys(config);
    let router = match config.frontend.dispatch {
        Dispatch::Kernel | Dispatch::Os => {
            Router::steered(&config.frontend.router, config.frontend.placement(), &steering(config))
        }
        Dispatch::Primary => Router::new(&config.frontend.router),
    };
    let slots = SlotTable::new(config.frontend.slots);
    let most = config.workers.autoscale.map_or(workers, |bounds| bounds.max_workers.max(workers));
    let all = max_held(most, config.admin.is_some());
    let max_protected = if config.protect { all / 2 } else { 0 };
    let max_held = all - max_protected;
    let settings = DispatcherSettings { max_held, max_protected, pace: config.frontend.pace };
    let (ended, end) = oneshot::channel();
    let before = Box::new(before);
    thread::Builder::new().name("frontend".to_owned()).spawn(move || {
        let dispatcher = Dispatcher::new(*before, keys, router, slots, settings, orders, queries);
        let result = dispatcher.and_then(Dispatcher::run);
        // The primary may be gone already.
        let _ = ended.send(result);
    })?;
    Ok(FrontendThread { end })
}

/// How clients are told apart.
pub(super) fn keys(config: &Config) -> ClientKeys {
    let settings = &config.frontend.affinity;
    let affinity = Affinity::new(settings.digest, &settings.secret, settings.prefixes);
    match config.frontend.dispatch {
        Dispatch::Kernel => ClientKeys::Steering(steering(config), affinity),
        Dispatch::Primary | Dispatch::Os => affinity.into(),
    }
}

/// How the kernel tells clients apart, if it does.
fn steering(config: &Config) -> Steering {
    let settings = &config.frontend.affinity;
    match config.frontend.dispatch {
        Dispatch::Os => Steering::random(),
        Dispatch::Kernel | Dispatch::Primary => Steering::new(&settings.secret, settings.prefixes),
    }
}

/// How many clients' descriptors the primary may hold and still start workers: the limit without its own
/// descriptors, and without those of each worker and of the worker's successor.
fn max_held(workers: u16, admin: bool) -> u64 {
    const OWN: u64 = 32;
    const EACH_WORKER: u64 = 9;
    let admin = if admin { admin::MAX_CONNECTIONS as u64 } else { 0 };
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let left = limit.saturating_sub(OWN + admin + 2 * EACH_WORKER * u64::from(workers));
    if left < 64 {
        tracing::warn!(limit, left, "descriptor limit low for clients: raise it (ulimit -n)");
    }
    left.max(1)
}
