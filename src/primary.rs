//! The primary: puts the parts together, in the order in which they start and stop.
//!
//! Start: limits, listener, the frontend's thread, the pool, the workers; connections are accepted
//! when the first worker of each slot is ready. Stop, in reverse: the backlog is handed out and the
//! listener closed, then the workers drain, then the frontend ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{oneshot, watch};

use crate::config::Config;
use crate::control::admin::{self, AdminError, AdminListener};
use crate::control::links::Reloader;
use crate::control::socket::{ControlSocket, SocketError};
use crate::frontend::affinity::Affinity;
use crate::frontend::dispatcher::{DispatchError, Dispatcher, DispatcherSettings};
use crate::frontend::inquiry::{Inquiries, inquiries};
use crate::frontend::listener::{ListenError, Listener};
use crate::frontend::placement::Placement;
use crate::frontend::router::Router;
use crate::frontend::slot_table::SlotTable;
use crate::handoff::kernel::keep_inherited_descriptors;
use crate::handoff::slots::{SlotOrders, seam};
use crate::log::LogHandle;
use crate::supervisor::event::Announcer;
use crate::supervisor::orphans::Orphans;
use crate::supervisor::output::Output;
use crate::supervisor::pool::handle::PoolHandle;
use crate::supervisor::pool::{Pool, PoolError, PoolLinks, PoolSettings, Progress, Summary};
use crate::supervisor::rollout::Report;
use crate::system::activation::{ActivationError, inherited_listener};
use crate::system::notify::Notifier;
use crate::triggers::watch::WatchError;

mod control;
mod operator;
mod signals;
mod triggers;

use operator::Operator;
use signals::Signals;
use triggers::Triggers;

/// Why the primary didn't start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrimaryError {
    /// The socket that the service manager has passed cannot be used.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// It cannot watch files.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// It cannot have its control socket.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// It cannot have its admin listener.
    #[error(transparent)]
    Admin(#[from] AdminError),
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// The socket listens; connections wait in its backlog.
    Listening(SocketAddr),
    /// So many workers serve: all of them.
    Ready(u16),
    /// A rolling restart has ended.
    RolledOut(Report),
    /// The configuration is wrong: nothing was changed.
    ReloadRefused(String),
    /// There are to be so many workers now.
    Scaled(u16),
}

/// A primary that listens and has started nothing else yet.
#[derive(Debug)]
pub struct Primary {
    config: Config,
    listener: Listener,
    socket: Option<ControlSocket>,
    admin: Option<AdminListener>,
}

impl Primary {
    /// Binds the listener, or takes the one that the service manager has passed.
    ///
    /// # Errors
    ///
    /// If the address cannot be had, or what was passed is no listener.
    pub fn bind(config: Config) -> Result<Self, PrimaryError> {
        raise_descriptor_limit();
        if let Err(error) = keep_inherited_descriptors() {
            tracing::warn!(%error, "workers inherit descriptors that this process has inherited");
        }
        check_backlog(config.listener.backlog);
        let listener = match inherited_listener()? {
            None => Listener::bind(&config.listener)?,
            Some(socket) => {
                let listener = Listener::inherited(socket, config.listener.backlog)?;
                let address = listener.local();
                tracing::info!(%address, "inherited socket is used, not --host and --port");
                listener
            }
        };
        let socket = control::socket(&config, listener.local().port())?;
        let admin = config.admin.as_ref().map(AdminListener::bind).transpose()?;
        Ok(Self { config, listener, socket, admin })
    }

    /// Starts the workers and serves until SIGTERM or SIGINT; a second one ends it at once. `reread`
    /// reads the configuration again, for a rolling restart. What the workers print goes to `output`,
    /// whose files SIGUSR1 opens anew.
    ///
    /// Takes care of every child that this process gets from now on, and kills what is left at the
    /// end: nothing else in it may start any.
    ///
    /// # Errors
    ///
    /// If no worker can be run, or a part ends that should not.
    pub async fn run(
        self,
        output: Output,
        log: LogHandle,
        reread: impl Fn() -> Result<Config, String>,
        report: impl FnMut(Milestone),
    ) -> Result<Summary, PrimaryError> {
        let start = |what| move |source| PrimaryError::Start { what, source };
        let signals = Signals::install().map_err(start("install signal handlers"))?;
        let orphans = Orphans::adopt().map_err(start("take care of orphaned processes"))?;
        let triggers = Triggers::start(&self.config)?;
        let notifier = Notifier::from_environment();
        let heartbeat = notifier.as_ref().and_then(Notifier::watchdog_interval);
        let Self { config, listener, socket, admin } = self;
        let address = listener.local();
        let (commander, events, orders) = seam().map_err(start("make the seam to the frontend"))?;
        let (frontend_handle, inquiries) =
            inquiries().map_err(start("make the way in for questions"))?;
        let mut frontend = start_frontend(listener, &config, orders, inquiries)
            .map_err(start("start the frontend's thread"))?;

        let (handle, ordered) = PoolHandle::new();
        let (progress, progressed) = watch::channel(Progress::default());
        let announcer = Announcer::new();
        let pool_settings = PoolOf { port: address.port(), heartbeat };
        let settings = pool_settings.settings(&config);
        let announced = announcer.subscribe();
        let (reloader, reloads) = Reloader::new();
        let parts = control::Parts {
            frontend: frontend_handle,
            pool: handle.clone(),
            reloader,
            output: output.clone(),
            log: log.clone(),
        };
        let doors = control::Doors { socket: socket.as_ref(), admin };
        let _server = control::start(parts, &config, address, doors, &announcer)
            .map_err(start("start the thread of the control socket"))?;
        let mut operator = Operator {
            pool: pool_settings,
            signals,
            output: output.clone(),
            log,
            output_settings: None,
            triggers,
            notifier,
            handle: handle.clone(),
            reloads,
            reread,
            report,
            progressed,
        };
        operator.tell(Milestone::Listening(address));
        let links = PoolLinks {
            frontend: commander,
            events,
            output,
            orphans,
            orders: ordered,
            progress,
            announcer,
        };
        let pool = Pool::new(settings, links).run();
        let result = tokio::select! {
            biased;
            result = pool => result,
            never = operator.attend(announced) => match never {},
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

/// What the pool of this primary runs on, beside its configuration.
#[derive(Clone, Copy, Debug)]
struct PoolOf {
    port: u16,
    heartbeat: Option<Duration>,
}

impl PoolOf {
    fn settings(self, config: &Config) -> PoolSettings {
        PoolSettings {
            workers: config.workers,
            weights: config.router.weights.clone(),
            command: Arc::new(config.command.clone()),
            port: self.port,
            credits: config.credits,
            slot_wait: config.slots.slot_wait,
            wait_ready: config.wait_ready,
            lifecycle: config.lifecycle.clone(),
            rollout: config.rollout,
            autoscale: config.autoscale,
            dense: config.router.placement == Placement::Modulo,
            limits: config.limits,
            stall_timeout: config.stall_timeout,
            orphan_grace: config.orphan_grace,
            move_timeout: config.move_timeout,
            crash_safe: config.crash_safe,
            lameduck: config.lameduck,
            heartbeat: self.heartbeat,
        }
    }
}

/// Starts the thread that does nothing but hand connections out. It ends when the pool does; an
/// error of its own arrives in what is returned.
fn start_frontend(
    listener: Listener,
    config: &Config,
    orders: SlotOrders,
    inquiries: Inquiries,
) -> io::Result<oneshot::Receiver<DispatchError>> {
    let settings = &config.affinity;
    let affinity = Affinity::new(settings.digest, &settings.secret, settings.prefixes);
    let router = Router::new(&config.router);
    let slots = SlotTable::new(config.slots);
    let most = config.autoscale.map_or(config.workers, |bounds| bounds.max_workers);
    let all = most_held(most.max(config.workers), config.admin.is_some());
    let most_retained = if config.crash_safe { all / 2 } else { 0 };
    let most_held = all - most_retained;
    let settings = DispatcherSettings { most_held, most_retained, pace: config.pace };
    let (failed, failure) = oneshot::channel();
    thread::Builder::new().name("frontend".to_owned()).spawn(move || {
        let dispatcher =
            Dispatcher::new(listener, affinity, router, slots, settings, orders, inquiries);
        let result = dispatcher.and_then(Dispatcher::run);
        if let Err(error) = result {
            // The primary may be gone already.
            let _ = failed.send(error);
        }
    })?;
    Ok(failure)
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
/// leaves beside its own, of which each worker takes a few, and its successor beside it.
fn most_held(workers: u16, admin: bool) -> u64 {
    const OWN: u64 = 32;
    const EACH_WORKER: u64 = 8;
    let admin = if admin { admin::CONNECTIONS as u64 } else { 0 };
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let left = limit.saturating_sub(OWN + admin + 2 * EACH_WORKER * u64::from(workers));
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
