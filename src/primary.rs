//! The primary: puts the parts together, in the order in which they start and stop.
//!
//! Start: limits, listener, the frontend's thread, the pool, the workers; connections are accepted
//! when the first worker of each slot is ready. Stop, in reverse: the backlog is handed out and the
//! listener closed, then the workers drain, then the frontend ends.
//!
//! A successor starts from what was left to it ([`Startup`]) and goes the same way; a primary that is
//! upgraded ends with everything in its hands ([`PrimaryEnd`]).

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use crate::bus::{self, COUNTER};
use crate::config::Config;
use crate::control::admin::AdminError;
use crate::control::history::{EVENTS, History};
use crate::control::links::{Notes, PrimaryHandle};
use crate::control::report::NotApplied;
use crate::control::socket::SocketError;
use crate::control::token_file::TokenError;
use crate::error::chain;
use crate::frontend::dispatcher::DispatchError;
use crate::frontend::keys::ClientKeys;
use crate::frontend::listener::ListenError;
use crate::frontend::listener_group::GroupError;
use crate::frontend::query::queries;
use crate::frontend::snapshot::FrontendHandover;
use crate::handover::StateError;
use crate::handover::pool::PoolSnapshot;
use crate::link::interface::{Interface, InterfaceChoice};
use crate::link::node::settings::TicketKeys;
use crate::link::seam::seam;
use crate::log::LogHandle;
use crate::protocol::ids::Timestamp;
use crate::supervisor::event::Announcer;
use crate::supervisor::orphans::Orphans;
use crate::supervisor::output::{LINES, Output};
use crate::supervisor::pool::handle::PoolHandle;
use crate::supervisor::pool::snapshot::{AdoptedWorker, After, PoolEnd, PoolHandover};
use crate::supervisor::pool::{Pool, PoolError, PoolLinks, PoolSettings, Progress, Summary};
use crate::supervisor::rollout::Report;
use crate::system::journal::Journal;
use crate::system::keeper::Keeper;
use crate::system::notify::Notifier;
use crate::system::store::Store;
use crate::triggers::watch::WatchError;
use crate::upgrade::exec::hold_signals;

mod control_loop;
mod control_server;
mod endpoints;
mod frontend;
mod handover;
mod journal;
mod listen;
mod operators;
mod pool_settings;
pub mod preflight;
mod signals;
mod startup;
mod triggers;
mod upgrade;

pub use handover::Handover;
pub use startup::{Startup, StartupError};

use control_loop::{ControlLoop, Reload};
use endpoints::Endpoints;
use frontend::FrontendThread;
use journal::PrimaryJournal;
use operators::{Left, Operators};
use pool_settings::PoolContext;
use signals::Signals;
use triggers::Triggers;
use upgrade::{NextListener, Upgrade};

/// How long an upgrade waits for the readers of what was printed, all together.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the keeper and the service manager may take to hear the last of this primary. Nobody is served
/// meanwhile.
const MESSAGE_TIMEOUT: Duration = Duration::from_millis(250);

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
    /// It cannot keep the token of its admin listener.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It cannot be carried over.
    #[error(transparent)]
    State(#[from] StateError),
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Workers can have no listening sockets of their own.
    #[error(transparent)]
    Group(#[from] GroupError),
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
        /// Its error.
        #[source]
        source: io::Error,
    },
}

/// An event that a program outside may wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusEvent {
    /// The socket listens; connections wait in its backlog.
    Listening(SocketAddr),
    /// All workers, so many, are ready.
    Ready(u16),
    /// A rolling restart has ended.
    RolledOut(Report),
    /// The configuration is wrong: nothing was changed.
    ReloadRefused(String),
    /// The number of workers was changed to this.
    Scaled(u16),
    /// This primary follows another one; so many workers run on.
    Resumed(u16, After),
    /// The new program would not go on, or couldn't be run: the old one stays.
    UpgradeRefused(String),
}

/// What the configuration is read again for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A rolling restart.
    Reload,
    /// An upgrade.
    Upgrade,
}

/// The configuration, read again.
#[derive(Clone, Debug)]
pub struct Reread {
    /// The configuration.
    pub config: Config,
    /// Settings that have changed and that the occasion does not apply.
    pub not_applied: Vec<NotApplied>,
}

/// How a primary's run ended.
#[derive(Debug)]
pub enum PrimaryEnd {
    /// With everything.
    Ended(Summary),
    /// It is to become this program, its successor.
    HandedOver {
        /// All that the successor gets.
        handover: Box<Handover>,
        /// The program.
        program: PathBuf,
        /// Until then the readers of what was printed have time, while clients wait.
        flush_by: Timestamp,
    },
}

/// A primary that listens and has started nothing else yet.
#[derive(Debug)]
pub struct Primary {
    config: Config,
    frontend: FrontendHandover,
    address: SocketAddr,
    pool: PoolStart,
    endpoints: Endpoints,
    journal: PrimaryJournal,
    pool_journal: Journal,
    /// The memory with the last events of the primary before.
    events: Option<OwnedFd>,
    /// The memory with the programs' counter of the primary before.
    counter: Option<OwnedFd>,
    store: Option<Store>,
}

/// What the pool starts from.
#[derive(Debug)]
enum PoolStart {
    New,
    Resumed(Box<PoolSnapshot>, Vec<AdoptedWorker>, After),
}

/// What runs beside the pool.
struct Services<Read, Report> {
    control_loop: ControlLoop<Read, Report>,
    frontend: FrontendThread,
    keys: ClientKeys,
}

impl Primary {
    /// The start of the first primary of this run: upgrades and crashes don't change it.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        self.journal.snapshot().started
    }

    /// Binds the listener, or takes the one that was passed or left; with that everything else that was
    /// left.
    ///
    /// # Errors
    ///
    /// If the address cannot be had, or what was passed is no listener.
    pub fn listen(config: Config, startup: Startup) -> Result<Self, PrimaryError> {
        listen::listen(config, startup)
    }

    /// Starts the workers, or goes on with those that run, and serves until SIGTERM or SIGINT; a second
    /// one ends it at once. `reread` reads the configuration again, for a rolling restart. The workers'
    /// output goes to `output`, whose files SIGUSR1 reopens.
    ///
    /// Takes care of every child that this process gets from now on, and kills those that are left at the
    /// end: nothing else in it may start any.
    ///
    /// # Errors
    ///
    /// If no worker can be run, or a part ends that should not.
    pub async fn run(
        self,
        output: Output,
        log: LogHandle,
        reread: impl Fn(Occasion) -> Result<Reread, String>,
        report: impl FnMut(StatusEvent),
    ) -> Result<PrimaryEnd, PrimaryError> {
        let announcer = Announcer::new();
        let events = announcer.subscribe();
        let (pool, mut services) = self.start(announcer, output, log, reread, report)?;
        let result = tokio::select! {
            biased;
            result = pool.run() => result,
            never = services.control_loop.serve(events) => match never {},
        };
        match result {
            Ok(PoolEnd::Ended(summary)) => {
                services.control_loop.flush(MESSAGE_TIMEOUT);
                Ok(PrimaryEnd::Ended(summary))
            }
            Ok(PoolEnd::HandedOver(pool)) => services.hand_over(*pool).await,
            Err(error) => Err(services.frontend.explain(error)),
        }
    }

    /// Starts everything but the pool, which is run by the caller.
    fn start<Read: Fn(Occasion) -> Result<Reread, String>, Report: FnMut(StatusEvent)>(
        self,
        announcer: Announcer,
        output: Output,
        log: LogHandle,
        reread: Read,
        report: Report,
    ) -> Result<(Pool, Services<Read, Report>), PrimaryError> {
        let start = |what| move |source| PrimaryError::Start { what, source };
        let signals = Signals::install().map_err(start("install signal handlers"))?;
        let keeper = Keeper::from_environment().map_err(start("watch its keeper"))?;
        let orphans = self.pool.orphans(keeper.as_ref());
        let orphans = orphans.map_err(start("take care of orphaned processes"))?;
        let Self { mut config, address, pool, mut endpoints, journal, pool_journal, .. } = self;
        let (store, history) = (self.store, History::resume(self.events));
        if let Some(store) = &store {
            keep(store, LINES, output.memory());
            keep(store, EVENTS, history.memory());
        }
        let triggers = match (Triggers::start(&config), &pool) {
            (Err(error), PoolStart::Resumed(..)) => {
                config.not_renewed.push(chain(&error));
                config.triggers.watch = None;
                Triggers::start(&config)?
            }
            (started, _) => started?,
        };
        let notifier = Notifier::from_environment();
        let heartbeat = notifier.as_ref().and_then(Notifier::watchdog_interval);
        let (commander, events, mut commands) =
            seam().map_err(start("make the seam to the frontend"))?;
        let (frontend_handle, queries) =
            queries().map_err(start("make the way in for questions"))?;
        let slots = pool.slots(&config);
        let end = commands.connect_bus();
        let (bus, counter) =
            bus::service::start(end, &config.messages, output.clone(), self.counter)
                .map_err(start("start the thread of the bus"))?;
        if let Some(store) = store
            .as_ref()
            .filter(|_| config.workers.interface != InterfaceChoice::Only(Interface::Native))
        {
            keep(store, COUNTER, counter.as_ref().and_then(|memory| memory.try_clone().ok()));
        }
        let mut before = self.frontend;
        if let Some(store) = &store {
            before.keep_ports_in(Box::new(store.clone()));
            before.keep_group_in(Box::new(store.clone()));
        }
        let frontend = frontend::start(before, &config, slots, commands, queries)
            .map_err(start("start the frontend's thread"))?;

        let (pool_handle, pool_orders) = PoolHandle::new();
        let (progress, progressed) = watch::channel(Progress::default());
        let (primary_handle, primary_orders) = PrimaryHandle::new();
        let handles = control_server::Handles {
            frontend: frontend_handle,
            pool: pool_handle.clone(),
            primary: primary_handle,
            bus: bus.clone(),
            output: output.clone(),
            log: log.clone(),
        };
        let listeners = control_server::Listeners {
            socket: endpoints.socket.as_ref(),
            admin: endpoints.admin.take(),
            token: endpoints.token.as_ref(),
        };
        for what in &config.not_renewed {
            tracing::warn!(what, "goes on as before, or without: cannot be had any more");
        }
        let (notes, noted) = watch::channel(Notes {
            control: endpoints.socket.as_ref().map(|socket| socket.path().to_owned()),
            configuration: config.file.clone(),
            command: config.workers.command.words(),
            not_renewed: config.not_renewed.clone(),
        });
        let server = control_server::start(
            handles,
            &config,
            address,
            journal.snapshot(),
            listeners,
            noted,
            (&announcer, history.clone()),
        );
        let server = server.map_err(start("start the thread of the control socket"))?;
        let operators =
            Operators::new(endpoints, server, notes, Left { history, counter }, store.clone());
        let context = PoolContext { port: address.port(), heartbeat };
        let mut control_loop = ControlLoop {
            signals,
            triggers,
            orders: primary_orders,
            progress: progressed,
            keeper,
            notifier,
            store: store.clone(),
            pool: pool_handle,
            output: output.clone(),
            log,
            reload: Reload::new(reread, context, bus),
            report,
            upgrade: Upgrade::new(&journal, &pool_journal),
            journal,
            operators,
        };
        if matches!(pool, PoolStart::New) {
            control_loop.report_listening(address);
        }
        let links = PoolLinks {
            frontend: commander,
            events,
            output,
            orphans,
            orders: pool_orders,
            progress,
            announcer,
            store,
            journal: Some(pool_journal),
        };
        let pool = pool.start(context.settings(&config), links);
        let keys = frontend::keys(&config);
        Ok((pool, Services { control_loop, frontend, keys }))
    }
}

/// Replaces what is stored by that name, if anything.
fn keep(store: &Store, name: &str, memory: Option<OwnedFd>) {
    store.remove(name);
    if let Some(memory) = memory {
        store.keep(name, memory);
    }
}

impl PoolStart {
    /// The workers of earlier primaries are children of the keeper.
    fn orphans(&self, keeper: Option<&Keeper>) -> io::Result<Orphans> {
        let subreaper = keeper.and_then(|keeper| i32::try_from(keeper.pid()).ok());
        match self {
            Self::New => Orphans::adopt(subreaper),
            Self::Resumed(snapshot, ..) => {
                Orphans::resume(subreaper, snapshot.inherited.iter().copied().collect())
            }
        }
    }

    fn slots(&self, config: &Config) -> u16 {
        match self {
            Self::New => config.workers.count,
            Self::Resumed(snapshot, ..) => snapshot.settings.workers,
        }
    }

    fn start(self, settings: PoolSettings, links: PoolLinks) -> Pool {
        match self {
            Self::New => Pool::new(with_ticket_keys(settings), links),
            Self::Resumed(snapshot, workers, after) => {
                Pool::resume(*snapshot, workers, after, links)
            }
        }
    }
}

/// Workers' TLS sessions resume in other workers. Without random numbers they don't.
fn with_ticket_keys(settings: PoolSettings) -> PoolSettings {
    match TicketKeys::random() {
        Ok(keys) => settings.with_ticket_keys(keys),
        Err(error) => {
            tracing::warn!(%error, "no keys for TLS sessions of Node workers");
            settings
        }
    }
}

impl<Read, Report> Services<Read, Report> {
    /// Gathers everything. From here on signals wait for the successor.
    async fn hand_over(self, pool: PoolHandover) -> Result<PrimaryEnd, PrimaryError> {
        let flush_by = Timestamp::now() + FLUSH_TIMEOUT;
        let Self { mut control_loop, frontend, keys } = self;
        control_loop.upgrade.reply(Ok(()));
        let mut frontend = frontend.handover().await?;
        hold_signals();
        if let Some(NextListener { listener, settings }) = control_loop.upgrade.listener.take() {
            control_loop.note_listener(&listener, &settings);
            frontend.switch_listener(listener, &keys);
        }
        control_loop.flush(MESSAGE_TIMEOUT);
        let output = control_loop.output.hand_over(FLUSH_TIMEOUT).await;
        let ControlLoop { journal, upgrade, operators, .. } = control_loop;
        let endpoints = operators.into_descriptors();
        let handover = Handover::gather(frontend, pool, output, endpoints, journal)?;
        let (handover, program) = (Box::new(handover), upgrade.into_program());
        Ok(PrimaryEnd::HandedOver { handover, program, flush_by })
    }
}
