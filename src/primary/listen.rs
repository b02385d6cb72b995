//! The start, up to where clients can connect: limits, listener, endpoints, journals; and what is kept
//! for a successor after a crash.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::bus::COUNTER;
use crate::config::Config;
use crate::control::history::EVENTS;
use crate::frontend::listener::Listener;
use crate::frontend::shared_counters::{COUNTERS, SharedCounters};
use crate::frontend::snapshot::FrontendHandover;
use crate::handover::Carry;
use crate::handover::descriptors::LISTENER;
use crate::handover::primary::{PrimarySnapshot, ReplacementsSnapshot};
use crate::kernel::keep_inherited_descriptors;
use crate::primary::endpoints::Endpoints;
use crate::primary::handover::{Handover, Journals, PRIMARY};
use crate::primary::journal::PrimaryJournal;
use crate::primary::startup::Startup;
use crate::primary::{PoolStart, Primary, PrimaryError};
use crate::protocol::ids::Timestamp;
use crate::supervisor::pool::snapshot::After;
use crate::system::descriptors::raise_descriptor_limit;
use crate::system::journal::Journal;
use crate::system::store::{PROGRAM, Store};

/// Binds the listener, or takes the one that was passed or left; with that everything else that was
/// left.
pub(super) fn listen(config: Config, startup: Startup) -> Result<Primary, PrimaryError> {
    match raise_descriptor_limit() {
        Ok(limit) => tracing::info!(limit, "descriptor limit raised"),
        Err(error) => tracing::warn!(%error, "descriptor limit not raised"),
    }
    if let Err(error) = keep_inherited_descriptors() {
        tracing::warn!(%error, "descriptors that this process has inherited go on to workers");
    }
    check_backlog(config.listener.backlog);
    let store = Store::from_environment();
    if let Some(store) = &store {
        keep_program(store);
    }
    match startup {
        Startup::First { listener, is_kept, lost, source: _ } => {
            if let Some(error) = lost {
                tracing::error!(
                    error,
                    "state of the primary before is unusable: its workers drain, new ones start"
                );
            }
            first(config, listener, is_kept, store)
        }
        Startup::Successor(handover) => successor(config, *handover, store),
    }
}

fn first(
    mut config: Config,
    passed: Option<OwnedFd>,
    is_kept: bool,
    store: Option<Store>,
) -> Result<Primary, PrimaryError> {
    let opened_by = passed.is_none().then(|| config.listener.snapshot());
    let listener = match passed {
        None if config.frontend.dispatch.is_by_listeners() => {
            Listener::bind_shared(&config.listener, config.frontend.family)?
        }
        None => Listener::bind(&config.listener)?,
        Some(socket) => {
            let listener = Listener::inherited(socket, config.listener.backlog)?;
            let address = listener.local();
            tracing::info!(%address, "inherited socket is used, not --host and --port");
            listener
        }
    };
    let failed = |source| PrimaryError::Start { what: "create a journal", source };
    let journals = Journals {
        primary: Journal::create().map_err(failed)?,
        pool: Journal::create().map_err(failed)?,
    };
    let (page, page_copy) = SharedCounters::create().map_err(failed)?;
    if let Some(store) = &store {
        if !is_kept {
            store.keep(LISTENER, &listener);
        }
        store.keep(PRIMARY, &journals.primary);
        store.keep(COUNTERS, &page_copy);
    }
    let address = listener.local();
    let endpoints = Endpoints::open(&mut config, address.port(), None)?;
    let snapshot = PrimarySnapshot {
        started: Timestamp::now(),
        replacements: ReplacementsSnapshot::default(),
        source: None,
        secret: Vec::new(),
        token: None,
        control: None,
        admin: None,
        all_ready: false,
        dispatch: config.frontend.dispatch.snapshot(),
        listener: opened_by,
    };
    let mut frontend = FrontendHandover::from(listener).with_page(page);
    if config.frontend.dispatch.is_by_listeners() {
        frontend = frontend.with_group(config.listener.backlog)?;
    }
    let pool = PoolStart::New;
    let parts = Parts {
        frontend,
        address,
        pool,
        endpoints,
        snapshot,
        journals,
        events: None,
        counter: None,
    };
    Ok(parts.primary(config, store))
}

fn successor(
    mut config: Config,
    handover: Handover,
    store: Option<Store>,
) -> Result<Primary, PrimaryError> {
    let Handover { after, primary: snapshot, mut pool, frontend, workers, journals, .. } = handover;
    let address = frontend.listener().map(Listener::local);
    let address = address.ok_or_else(|| PrimaryError::Start {
        what: "go on with the listener",
        source: io::ErrorKind::NotFound.into(),
    })?;
    config.frontend.dispatch = Carry::restore(snapshot.dispatch);
    // It may have changed in the upgrade.
    pool.settings.port = address.port();
    match after {
        After::Crash => config.frontend.affinity.secret.clone_from(&snapshot.secret),
        After::Upgrade => set_backlog(&frontend, config.listener.backlog),
    }
    let mut left = handover.endpoints;
    let (events, counter) = (left.take(EVENTS), left.take(COUNTER));
    let frontend = match config.frontend.dispatch.is_by_listeners() {
        true => frontend.with_group_of(config.listener.backlog, &mut left)?,
        false => frontend,
    };
    let endpoints = Endpoints::open(&mut config, address.port(), Some((&snapshot, &mut left)))?;
    let pool = PoolStart::Resumed(Box::new(pool), workers, after);
    let parts = Parts { frontend, address, pool, endpoints, snapshot, journals, events, counter };
    Ok(parts.primary(config, store))
}

/// Everything of a primary but its configuration.
struct Parts {
    frontend: FrontendHandover,
    address: SocketAddr,
    pool: PoolStart,
    endpoints: Endpoints,
    snapshot: PrimarySnapshot,
    journals: Journals,
    events: Option<OwnedFd>,
    counter: Option<OwnedFd>,
}

impl Parts {
    fn primary(self, config: Config, store: Option<Store>) -> Primary {
        let Self { frontend, address, pool, endpoints, snapshot, journals, events, counter } = self;
        if let Some(store) = &store {
            endpoints.keep(store);
        }
        let (control, admin) = endpoints.snapshot(&config);
        let snapshot = PrimarySnapshot {
            source: config.source.clone(),
            secret: config.frontend.affinity.secret.clone(),
            token: endpoints.token(&config),
            control,
            admin,
            ..snapshot
        };
        let journal = PrimaryJournal::new(snapshot, journals.primary);
        let pool_journal = journals.pool;
        Primary {
            config,
            frontend,
            address,
            pool,
            endpoints,
            journal,
            pool_journal,
            events,
            counter,
            store,
        }
    }
}

/// After a crash the same program runs again, even if its file has changed.
fn keep_program(store: &Store) {
    match File::open("/proc/self/exe") {
        Ok(program) => {
            store.remove(PROGRAM);
            store.keep(PROGRAM, program);
        }
        Err(error) => {
            tracing::warn!(%error, "program not kept: after a crash, its file is opened again");
        }
    }
}

fn set_backlog(frontend: &FrontendHandover, backlog: i32) {
    let set = frontend.listener().map(|listener| listener.set_backlog(backlog));
    if let Some(Err(error)) = set {
        tracing::warn!(backlog, %error, "backlog unchanged");
    }
}

fn check_backlog(backlog: i32) {
    const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
    let limit = std::fs::read_to_string(SOMAXCONN).ok().and_then(|text| text.trim().parse().ok());
    if let Some(limit) = limit
        && backlog > limit
    {
        tracing::warn!(backlog, limit, "backlog shortened by the kernel: raise net.core.somaxconn");
    }
}
