//! The primary: puts the parts together, in the order in which they start and stop.
//!
//! Start: limits, listener, the frontend's thread, the pool, the workers; connections are accepted
//! when the first worker of each slot is ready. Stop, in reverse: the backlog is handed out and the
//! listener closed, then the workers drain, then the frontend ends.
//!
//! A successor begins with what was left to it ([`Beginning`]) and goes the same way; a primary that
//! is upgraded ends with everything in its hands ([`PrimaryEnd`]).

use std::io;
use std::net::SocketAddr;

use tokio::sync::watch;

use crate::config::Config;
use crate::control::admin::AdminError;
use crate::control::links::PrimaryHandle;
use crate::control::server::Server;
use crate::control::socket::SocketError;
use crate::frontend::dispatcher::DispatchError;
use crate::frontend::listener::ListenError;
use crate::frontend::query::queries;
use crate::frontend::snapshot::FrontendEstate;
use crate::link::seam::seam;
use crate::log::LogHandle;
use crate::protocol::ids::Timestamp;
use crate::supervisor::event::Announcer;
use crate::supervisor::orphans::Orphans;
use crate::supervisor::output::Output;
use crate::supervisor::pool::handle::PoolHandle;
use crate::supervisor::pool::snapshot::{AdoptedWorker, After, PoolDocument, PoolEnd, PoolEstate};
use crate::supervisor::pool::{Pool, PoolError, PoolLinks, PoolSettings, Progress, Summary};
use crate::supervisor::rollout::Report;
use crate::system::journal::Journal;
use crate::system::keeper::Keeper;
use crate::system::notify::Notifier;
use crate::system::store::Store;
use crate::triggers::watch::WatchError;
use crate::upgrade::EstateError;
use crate::upgrade::exec::hold_signals;

mod begin;
mod control;
mod control_loop;
mod endpoints;
mod frontend;
mod handover;
mod pool;
mod record;
mod signals;
mod snapshot;
mod startup;
mod triggers;

pub use handover::HandOver;
pub use snapshot::Estate;
pub use startup::{Beginning, BeginningError};

use control_loop::{Operator, Upgrading};
use endpoints::Endpoints;
use frontend::FrontendThread;
use pool::PoolOf;
use record::Record;
use signals::Signals;
use triggers::Triggers;

/// Why the primary didn't start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrimaryError {
    /// It cannot watch files.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// It cannot have its control socket.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// It cannot have its admin listener.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// It cannot be carried over.
    #[error(transparent)]
    Estate(#[from] EstateError),
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
pub enum StatusEvent {
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
    /// So many workers run on under this primary, which follows another one.
    Resumed(u16, After),
    /// The new program would not go on, or couldn't be run: the old one stays.
    UpgradeRefused(String),
}

/// How a primary's run ended.
#[derive(Debug)]
pub enum PrimaryEnd {
    /// With everything.
    Ended(Summary),
    /// It is to become its successor.
    HandedOver(Box<HandOver>),
}

/// A primary that listens and has started nothing else yet.
#[derive(Debug)]
pub struct Primary {
    config: Config,
    frontend: FrontendEstate,
    address: SocketAddr,
    pool: PoolStart,
    doors: Endpoints,
    record: Record,
    journal: Journal,
    store: Option<Store>,
}

/// What the pool begins with.
#[derive(Debug)]
enum PoolStart {
    New,
    Resumed(Box<PoolDocument>, Vec<AdoptedWorker>, After),
}

/// What runs beside the pool.
struct Services<Reread, Tell> {
    operator: Operator<Reread, Tell>,
    frontend: FrontendThread,
    doors: Endpoints,
    /// Ends when it is dropped.
    _server: Server,
}

impl Primary {
    /// When the first primary of this run has started: upgrades and crashes don't change it.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        self.record.document().started
    }

    /// Starts the workers, or goes on with those that run, and serves until SIGTERM or SIGINT; a second
    /// one ends it at once. `reread` reads the configuration again, for a rolling restart. What the
    /// workers print goes to `output`, whose files SIGUSR1 opens anew.
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
        report: impl FnMut(StatusEvent),
    ) -> Result<PrimaryEnd, PrimaryError> {
        let announcer = Announcer::new();
        let announced = announcer.subscribe();
        let (pool, mut beside) = self.start(announcer, output, log, reread, report)?;
        let result = tokio::select! {
            biased;
            result = pool.run() => result,
            never = beside.operator.attend(announced) => match never {},
        };
        match result {
            Ok(PoolEnd::Ended(summary)) => Ok(PrimaryEnd::Ended(summary)),
            Ok(PoolEnd::HandedOver(estate)) => beside.hand_over(*estate).await,
            Err(error) => Err(beside.frontend.explain(error)),
        }
    }

    /// Starts everything but the pool, which is run by the caller.
    fn start<Reread: Fn() -> Result<Config, String>, Tell: FnMut(StatusEvent)>(
        self,
        announcer: Announcer,
        output: Output,
        log: LogHandle,
        reread: Reread,
        report: Tell,
    ) -> Result<(Pool, Services<Reread, Tell>), PrimaryError> {
        let start = |what| move |source| PrimaryError::Start { what, source };
        let signals = Signals::install().map_err(start("install signal handlers"))?;
        let keeper = Keeper::from_environment().map_err(start("watch its keeper"))?;
        let orphans = self.pool.orphans(keeper.as_ref());
        let orphans = orphans.map_err(start("take care of orphaned processes"))?;
        let Self { config, frontend, address, pool, mut doors, record, journal, store } = self;
        let triggers = Triggers::start(&config)?;
        let notifier = Notifier::from_environment();
        let heartbeat = notifier.as_ref().and_then(Notifier::watchdog_interval);
        let (commander, events, orders) = seam().map_err(start("make the seam to the frontend"))?;
        let (frontend_handle, queries) =
            queries().map_err(start("make the way in for questions"))?;
        let frontend = frontend::start(frontend, &config, pool.slots(&config), orders, queries)
            .map_err(start("start the frontend's thread"))?;

        let (handle, ordered) = PoolHandle::new();
        let (progress, progressed) = watch::channel(Progress::default());
        let pool_settings = PoolOf { port: address.port(), heartbeat };
        let (primary, ordered_of_primary) = PrimaryHandle::new();
        let parts = control::Parts {
            frontend: frontend_handle,
            pool: handle.clone(),
            primary,
            output: output.clone(),
            log: log.clone(),
        };
        let server =
            control::Endpoints { socket: doors.socket.as_ref(), admin: doors.admin.take() };
        let server = control::start(parts, &config, address, record.document(), server, &announcer)
            .map_err(start("start the thread of the control socket"))?;
        let upgrading = Upgrading::new(&record, &journal);
        let mut operator = Operator {
            pool: pool_settings,
            signals,
            keeper,
            output: output.clone(),
            log,
            output_settings: None,
            triggers,
            notifier,
            store: store.clone(),
            handle,
            ordered: ordered_of_primary,
            reread,
            report,
            progressed,
            record,
            upgrading,
        };
        operator.begin(address, matches!(pool, PoolStart::New));
        let links = PoolLinks {
            frontend: commander,
            events,
            output,
            orphans,
            orders: ordered,
            progress,
            announcer,
            store,
            journal: Some(journal),
        };
        let pool = pool.start(pool_settings.settings(&config), links);
        Ok((pool, Services { operator, frontend, doors, _server: server }))
    }
}

impl PoolStart {
    /// Of the primaries before this one the workers are children of its keeper.
    fn orphans(&self, keeper: Option<&Keeper>) -> io::Result<Orphans> {
        let subreaper = keeper.and_then(|keeper| i32::try_from(keeper.pid()).ok());
        match self {
            Self::New => Orphans::adopt(subreaper),
            Self::Resumed(document, ..) => {
                Orphans::resume(subreaper, document.inherited().into_iter().collect())
            }
        }
    }

    fn slots(&self, config: &Config) -> u16 {
        match self {
            Self::New => config.workers.count,
            Self::Resumed(document, ..) => document.settings().workers,
        }
    }

    fn start(self, settings: PoolSettings, links: PoolLinks) -> Pool {
        match self {
            Self::New => Pool::new(settings, links),
            Self::Resumed(document, workers, after) => {
                Pool::resume(*document, workers, after, links)
            }
        }
    }
}

impl<Reread, Tell> Services<Reread, Tell> {
    /// Gathers everything. From here on signals wait for the successor.
    async fn hand_over(self, pool: PoolEstate) -> Result<PrimaryEnd, PrimaryError> {
        let Self { mut operator, frontend, doors, .. } = self;
        operator.upgrading.tell(Ok(()));
        let frontend = frontend.estate().await?;
        hold_signals();
        let output = operator.output.hand_over().await;
        let program = operator.upgrading.program;
        let gathered = HandOver::gather(program, frontend, pool, output, doors, operator.record)?;
        Ok(PrimaryEnd::HandedOver(Box::new(gathered)))
    }
}
