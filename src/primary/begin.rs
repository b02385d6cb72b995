//! The start, up to where clients can connect: limits, listener, endpoints; and what is kept for a successor
//! after a crash.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::config::Config;
use crate::control::links::Replacements;
use crate::frontend::listener::Listener;
use crate::frontend::shared_counters::{COUNTERS, SharedCounters};
use crate::frontend::snapshot::FrontendEstate;
use crate::kernel::keep_inherited_descriptors;
use crate::primary::endpoints::Endpoints;
use crate::primary::record::Record;
use crate::primary::snapshot::{Estate, Journals, PRIMARY, PrimaryDocument};
use crate::primary::startup::{Beginning, Kind};
use crate::primary::{PoolStart, Primary, PrimaryError};
use crate::protocol::ids::Timestamp;
use crate::supervisor::pool::snapshot::After;
use crate::system::activation::LISTENER;
use crate::system::descriptors::raise_descriptor_limit;
use crate::system::journal::Journal;
use crate::system::store::{PROGRAM, Store};

impl Primary {
    /// Binds the listener, or takes the one that was passed or left; with that everything else that was
    /// left.
    ///
    /// # Errors
    ///
    /// If the address cannot be had, or what was passed is no listener.
    pub fn begin(config: Config, beginning: Beginning) -> Result<Self, PrimaryError> {
        raise_limits();
        if let Err(error) = keep_inherited_descriptors() {
            tracing::warn!(%error, "workers inherit descriptors that this process has inherited");
        }
        check_backlog(config.listener.backlog);
        let store = Store::from_environment();
        if let Some(store) = &store {
            keep_program(store);
        }
        match beginning.0 {
            Kind::First { listener, is_kept, lost, source: _ } => {
                if let Some(error) = lost {
                    tracing::error!(
                        error,
                        "what the primary before has left is of no use: its workers drain, new ones are started"
                    );
                }
                Self::first(config, listener, is_kept, store)
            }
            Kind::Successor(estate) => Self::successor(config, *estate, store),
        }
    }

    fn first(
        config: Config,
        passed: Option<OwnedFd>,
        is_kept: bool,
        store: Option<Store>,
    ) -> Result<Self, PrimaryError> {
        let listener = match passed {
            None => Listener::bind(&config.listener)?,
            Some(socket) => {
                let listener = Listener::inherited(socket, config.listener.backlog)?;
                let address = listener.local();
                tracing::info!(%address, "inherited socket is used, not --host and --port");
                listener
            }
        };
        let failed = |source| PrimaryError::Start { what: "write anything down", source };
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
        let doors = Endpoints::open(&config, address.port(), None)?;
        let document = PrimaryDocument {
            started: Timestamp::now(),
            replacements: Replacements::default(),
            source: None,
            secret: Vec::new(),
            control: None,
            admin: None,
            all_ready: false,
        };
        let frontend = FrontendEstate::from(listener).with_page(page);
        let begun = Begun { frontend, address, pool: PoolStart::New, doors, document, journals };
        Ok(begun.primary(config, store))
    }

    fn successor(
        mut config: Config,
        estate: Estate,
        store: Option<Store>,
    ) -> Result<Self, PrimaryError> {
        let Estate { after, primary: document, pool, frontend, workers, mut doors, .. } = estate;
        let address = frontend.listener().map(Listener::local);
        let address = address.ok_or_else(|| PrimaryError::Start {
            what: "go on with the listener",
            source: io::ErrorKind::NotFound.into(),
        })?;
        if after == After::Crash {
            config.frontend.affinity.secret.clone_from(&document.secret);
        }
        let doors = Endpoints::open(&config, address.port(), Some((&document, &mut doors)))?;
        let pool = PoolStart::Resumed(Box::new(pool), workers, after);
        let journals = estate.journals;
        let begun = Begun { frontend, address, pool, doors, document, journals };
        Ok(begun.primary(config, store))
    }
}

/// What a primary begins with.
struct Begun {
    frontend: FrontendEstate,
    address: SocketAddr,
    pool: PoolStart,
    doors: Endpoints,
    document: PrimaryDocument,
    journals: Journals,
}

impl Begun {
    fn primary(self, config: Config, store: Option<Store>) -> Primary {
        let Self { frontend, address, pool, doors, document, journals } = self;
        if let Some(store) = &store {
            doors.keep(store);
        }
        let (control, admin) = doors.describe(&config);
        let document = PrimaryDocument {
            source: config.source.clone(),
            secret: config.frontend.affinity.secret.clone(),
            control,
            admin,
            ..document
        };
        let record = Record::new(document, journals.primary);
        Primary { config, frontend, address, pool, doors, record, journal: journals.pool, store }
    }
}

/// A crash is followed by this very program, whatever becomes of its file.
fn keep_program(store: &Store) {
    match File::open("/proc/self/exe") {
        Ok(program) => {
            store.remove(PROGRAM);
            store.keep(PROGRAM, program);
        }
        Err(error) => tracing::warn!(%error, "after a crash, the program's file is run anew"),
    }
}

/// Each connection on its way takes a descriptor here, each established one in a worker, which
/// inherits the limit.
fn raise_limits() {
    match raise_descriptor_limit() {
        Ok(limit) => tracing::info!(limit, "descriptor limit raised"),
        Err(error) => tracing::warn!(%error, "cannot raise the descriptor limit"),
    }
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
