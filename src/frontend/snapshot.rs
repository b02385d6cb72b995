//! What a frontend leaves to its successor, and what a new one begins with.
//!
//! After an upgrade that is everything, exactly. After a crash it is the listener and the counters; the
//! channels come from whoever has kept their descriptors
//! ([`Link::adopt`]). Channels go to the supervisor in either
//! case, who attaches them again; the rest to the next dispatcher.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::frontend::acceptor::AcceptErrors;
use crate::frontend::listener::Listener;
use crate::frontend::measure::stats::Stats;
use crate::frontend::router::RouterEstate;
use crate::frontend::shared_counters::{COUNTERS, SharedCounters};
use crate::frontend::slot_table::SlotEstate;
use crate::handover::descriptors::{Descriptors, LISTENER, TakeOverError};
use crate::link::Link;
use crate::link::connection::PendingConnection;
use crate::link::native::ConnectionDocument;
use crate::link::seam::{Counters, WorkerId};
use crate::link::snapshot::LinkSnapshot;
use crate::protocol::ids::SlotId;
use crate::sessions::close_requests::CloseRequestsSnapshot;
use crate::sessions::open_offers::OpenOffers;
use crate::sessions::recovery::Recovery;

/// All that a frontend has. Dropping it closes whatever no worker owns.
#[derive(Debug, Default)]
pub struct FrontendEstate {
    pub(super) listener: Option<Listener>,
    pub(super) accept_errors: AcceptErrors,
    pub(super) slots: SlotEstate,
    pub(super) counters: Counters,
    pub(super) stats: Stats,
    pub(super) router: RouterEstate,
    pub(super) wishes: CloseRequestsSnapshot,
    pub(super) unroutable: Vec<PendingConnection>,
    pub(super) sessions: Vec<PendingConnection>,
    pub(super) recovery: Option<Recovery>,
    pub(super) page: Option<SharedCounters>,
    pub(super) is_successor: bool,
}

/// A frontend without its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub struct FrontendDocument {
    listens: bool,
    accept_errors: AcceptErrors,
    channels: Vec<(WorkerId, LinkSnapshot)>,
    queues: Vec<(SlotId, Vec<ConnectionDocument>)>,
    quarantined: Vec<WorkerId>,
    stalled: Vec<WorkerId>,
    counters: Counters,
    stats: Stats,
    router: RouterEstate,
    wishes: CloseRequestsSnapshot,
    unroutable: Vec<ConnectionDocument>,
    sessions: Vec<ConnectionDocument>,
    recovery: Option<(OpenOffers, Vec<ConnectionDocument>)>,
    is_counted: bool,
}

impl From<Listener> for FrontendEstate {
    /// What the first of all begins with.
    fn from(listener: Listener) -> Self {
        Self { listener: Some(listener), ..Self::default() }
    }
}

impl FrontendEstate {
    /// What is left of a primary that has died.
    #[must_use]
    pub fn after_crash(listener: Listener, page: SharedCounters) -> Self {
        Self {
            counters: page.read(),
            page: Some(page),
            recovery: Some(Recovery::default()),
            is_successor: true,
            ..Self::from(listener)
        }
    }

    /// Counters are written there, for whoever follows after a crash.
    #[must_use]
    pub fn with_page(self, page: SharedCounters) -> Self {
        Self { page: Some(page), ..self }
    }

    /// Where it listens, unless it does no more.
    #[must_use]
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// The channels, to be attached to the next dispatcher one by one.
    pub fn take_channels(&mut self) -> Vec<(WorkerId, Link)> {
        std::mem::take(&mut self.slots.channels)
    }

    /// Writes it down; its descriptors go to `descriptors`.
    pub fn pack(self, descriptors: &mut Descriptors) -> FrontendDocument {
        let listens = self.listener.is_some();
        if let Some(listener) = self.listener {
            descriptors.insert(LISTENER, listener.into_socket());
        }
        let is_counted = self.page.is_some();
        if let Some(page) = self.page {
            descriptors.insert(COUNTERS, page.into_file());
        }
        let channels = self.slots.channels.into_iter();
        let channels = channels
            .map(|(worker, it)| (worker, LinkSnapshot::pack(it, worker, descriptors)))
            .collect();
        let mut waiting = Waiting { descriptors, number: 0 };
        let queues = self.slots.queues.into_iter();
        FrontendDocument {
            listens,
            accept_errors: self.accept_errors,
            channels,
            queues: queues.map(|(slot, queue)| (slot, waiting.pack(queue))).collect(),
            quarantined: self.slots.quarantined,
            stalled: self.slots.stalled,
            counters: self.counters,
            stats: self.stats,
            router: self.router,
            wishes: self.wishes,
            unroutable: waiting.pack(self.unroutable),
            sessions: waiting.pack(self.sessions),
            recovery: self.recovery.map(|it| (it.open_offers, waiting.pack(it.held))),
            is_counted,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// If a descriptor is missing or is not what it should be.
    pub fn unpack(
        document: FrontendDocument,
        descriptors: &mut Descriptors,
    ) -> Result<Self, TakeOverError> {
        let listener = document.listens.then(|| open(LISTENER, descriptors, Listener::handed_over));
        let page = document.is_counted.then(|| open(COUNTERS, descriptors, SharedCounters::open));
        let channels = document
            .channels
            .into_iter()
            .map(|(worker, channel)| Ok((worker, channel.unpack(worker, descriptors)?)));
        let channels = channels.collect::<Result<_, TakeOverError>>()?;
        let mut waiting = Waiting { descriptors, number: 0 };
        let queues = document.queues.into_iter();
        let queues = queues.map(|(slot, queue)| Ok((slot, waiting.unpack(queue)?)));
        let queues = queues.collect::<Result<_, TakeOverError>>()?;
        let (quarantined, stalled) = (document.quarantined, document.stalled);
        Ok(Self {
            listener: listener.transpose()?,
            page: page.transpose()?,
            slots: SlotEstate { channels, queues, quarantined, stalled },
            unroutable: waiting.unpack(document.unroutable)?,
            sessions: waiting.unpack(document.sessions)?,
            recovery: match document.recovery {
                Some((open_offers, held)) => {
                    Some(Recovery { open_offers, held: waiting.unpack(held)? })
                }
                None => None,
            },
            accept_errors: document.accept_errors,
            counters: document.counters,
            stats: document.stats,
            router: document.router,
            wishes: document.wishes,
            is_successor: true,
        })
    }
}

fn open<T>(
    name: &str,
    descriptors: &mut Descriptors,
    open: impl FnOnce(OwnedFd) -> std::io::Result<T>,
) -> Result<T, TakeOverError> {
    let unusable = |source| TakeOverError::Unusable { name: name.to_owned(), source };
    open(descriptors.require(name)?).map_err(unusable)
}

/// Names whoever waits, one after the other, in the same order both times.
struct Waiting<'a> {
    descriptors: &'a mut Descriptors,
    number: u64,
}

impl Waiting<'_> {
    fn next_name(&mut self) -> String {
        self.number += 1;
        format!("waiting.{}", self.number)
    }

    fn pack(&mut self, all: Vec<PendingConnection>) -> Vec<ConnectionDocument> {
        let pack = |one: PendingConnection| {
            ConnectionDocument::pack(one, &self.next_name(), self.descriptors)
        };
        all.into_iter().map(pack).collect()
    }

    fn unpack(
        &mut self,
        all: Vec<ConnectionDocument>,
    ) -> Result<Vec<PendingConnection>, TakeOverError> {
        let unpack = |one: ConnectionDocument| one.unpack(&self.next_name(), self.descriptors);
        all.into_iter().map(unpack).collect()
    }
}
