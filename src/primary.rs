//! The primary: puts the parts together, in the order in which they start and stop.
//!
//! Start: limits, listener, the frontend's thread, the pool, the workers; connections are accepted
//! when the first worker of each slot is ready. Stop, in reverse: the backlog is handed out and the
//! listener closed, then the workers drain, then the frontend ends.

use std::io;
use std::net::SocketAddr;
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Config;
use crate::frontend::affinity::Affinity;
use crate::frontend::dispatcher::{DispatchError, Dispatcher};
use crate::frontend::listener::{ListenError, Listener};
use crate::frontend::router::Router;
use crate::frontend::slot_table::SlotTable;
use crate::handoff::kernel::keep_inherited_descriptors;
use crate::handoff::slots::{SlotOrders, seam};
use crate::supervisor::output::Output;
use crate::supervisor::pool::{Order, Pool, PoolError, PoolSettings, Progress, Summary};

/// Why the primary didn't start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrimaryError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The frontend ended.
    #[error("frontend ended")]
    Frontend(#[source] DispatchError),
    /// The workers cannot be run.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The kernel refuses something that the primary itself needs.
    #[error("cannot {what}")]
    Start {
        /// What it refuses.
        what: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// What happened that somebody outside may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// The socket listens; connections wait in its backlog.
    Listening(SocketAddr),
    /// So many workers serve: all of them.
    Ready(u16),
}

/// A primary that listens and has started nothing else yet.
#[derive(Debug)]
pub struct Primary {
    config: Config,
    listener: Listener,
}

impl Primary {
    /// Binds the listener.
    ///
    /// # Errors
    ///
    /// If the address cannot be had.
    pub fn bind(config: Config) -> Result<Self, PrimaryError> {
        raise_descriptor_limit();
        if let Err(error) = keep_inherited_descriptors() {
            tracing::warn!(%error, "workers inherit descriptors that this process has inherited");
        }
        check_backlog(config.listener.backlog);
        let listener = Listener::bind(&config.listener)?;
        Ok(Self { config, listener })
    }

    /// Starts the workers and serves until SIGTERM or SIGINT; a second one ends it at once. What
    /// the workers print goes to `output`, whose files SIGUSR1 opens anew.
    ///
    /// # Errors
    ///
    /// If no worker can be run, or a part ends that should not.
    pub async fn run(
        self,
        output: Output,
        mut report: impl FnMut(Milestone),
    ) -> Result<Summary, PrimaryError> {
        let start = |what| move |source| PrimaryError::Start { what, source };
        let signals = Signals::install().map_err(start("install signal handlers"))?;
        let reopen = signal(SignalKind::user_defined1());
        let reopen = reopen_on(reopen.map_err(start("install a signal handler"))?, output.clone());
        let Self { config, listener } = self;
        let address = listener.local();
        let (commander, events, orders) = seam().map_err(start("make the seam to the frontend"))?;
        let mut frontend = start_frontend(listener, &config, orders)
            .map_err(start("start the frontend's thread"))?;
        report(Milestone::Listening(address));

        let settings = pool_settings(&config, address);
        // The signals wait while the pool is busy; more than two mean nothing new.
        let (order, ordered) = mpsc::channel(2);
        let (progress, mut progressed) = watch::channel(Progress::default());
        let pool = Pool::new(settings, commander, output, events, ordered, progress).run();
        let mut pool = std::pin::pin!(pool);
        let mut signals = std::pin::pin!(signals.forward(order));
        let mut reopen = std::pin::pin!(reopen);
        let mut all_ready = false;
        let result = loop {
            tokio::select! {
                result = pool.as_mut() => break result,
                () = signals.as_mut() => {}
                () = reopen.as_mut() => {}
                Ok(()) = progressed.changed(), if !all_ready => {
                    let serving = progressed.borrow_and_update().serving;
                    if serving == config.workers {
                        all_ready = true;
                        report(Milestone::Ready(serving));
                    }
                }
            }
        };
        match result {
            Err(PoolError::Frontend(gone)) => Err(match frontend.try_recv() {
                Ok(error) => PrimaryError::Frontend(error),
                Err(_) => PoolError::Frontend(gone).into(),
            }),
            result => Ok(result?),
        }
    }
}

fn pool_settings(config: &Config, address: SocketAddr) -> PoolSettings {
    PoolSettings {
        workers: config.workers,
        command: config.command.clone(),
        port: address.port(),
        credits: config.credits,
        slot_wait: config.slots.slot_wait,
        lifecycle: config.lifecycle.clone(),
    }
}

/// Starts the thread that does nothing but hand connections out. It ends when the pool does; an
/// error of its own arrives in what is returned.
fn start_frontend(
    listener: Listener,
    config: &Config,
    orders: SlotOrders,
) -> io::Result<oneshot::Receiver<DispatchError>> {
    let settings = &config.affinity;
    let affinity = Affinity::new(settings.digest, &settings.secret, settings.prefixes);
    let router = Router::new(&config.router);
    let slots = SlotTable::new(config.workers, config.slots);
    let most_held = most_held(config.workers);
    let (failed, failure) = oneshot::channel();
    thread::Builder::new().name("frontend".to_owned()).spawn(move || {
        let dispatcher = Dispatcher::new(listener, affinity, router, slots, most_held, orders);
        let result = dispatcher.and_then(Dispatcher::run);
        if let Err(error) = result {
            // The primary may be gone already.
            let _ = failed.send(error);
        }
    })?;
    Ok(failure)
}

/// The signals that end the primary.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The first one stops, the second stops at once.
    async fn forward(mut self, orders: mpsc::Sender<Order>) {
        for order in [Order::Stop, Order::StopNow] {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            tracing::info!(?order, "signal received");
            // If it fails, the pool has ended, and so will we.
            let _ = orders.send(order).await;
        }
        std::future::pending().await
    }
}

/// SIGUSR1: somebody has renamed the log files.
async fn reopen_on(mut signal: Signal, output: Output) {
    while signal.recv().await.is_some() {
        tracing::info!("log files are opened anew");
        output.reopen();
    }
    std::future::pending().await
}

/// Each connection on its way takes a descriptor here, each established one in a worker, which
/// inherits the limit.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    match raised {
        Ok(limit) => tracing::info!(limit, "descriptor limit raised"),
        Err(error) => tracing::warn!(%error, "cannot raise the descriptor limit"),
    }
}

/// How many clients' descriptors the primary may hold and still start workers: what the limit
/// leaves beside its own, of which each worker takes a few, and more while it is started.
fn most_held(workers: u16) -> u64 {
    const OWN: u64 = 32;
    const EACH_WORKER: u64 = 7;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let left = limit.saturating_sub(OWN + EACH_WORKER * u64::from(workers));
    if left < 64 {
        tracing::warn!(
            limit,
            left,
            "descriptor limit leaves few for clients: raise it (ulimit -n)"
        );
    }
    left.max(1)
}

fn check_backlog(backlog: i32) {
    const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
    let limit = std::fs::read_to_string(SOMAXCONN).ok().and_then(|text| text.trim().parse().ok());
    if let Some(limit) = limit
        && backlog > limit
    {
        tracing::warn!(
            backlog,
            limit,
            "kernel keeps fewer connections in the backlog: raise net.core.somaxconn",
        );
    }
}
