//! Queries to the frontend: its counters and measures, the route of a client, and a rebalance.
//!
//! Never changes where connections go but by [`FrontendHandle::forget`] and
//! [`FrontendHandle::rebalance`]. Asked through a bounded queue of its own; where it is full, the caller
//! waits. The frontend answers between two turns, so that an answer also shows that its loop turns.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::{mpsc, oneshot};

pub use crate::frontend::fallback::FallbackReason;
use crate::frontend::placement::{Availability, Placement};
use crate::link::seam::{Counters, FrontendGone};
use crate::protocol::ids::{AffinityKey, SlotId};
pub use crate::sessions::rebalance::Rebalanced;

/// Queries that may wait.
const QUERIES: usize = 64;

/// A query, and the sender for its answer.
#[derive(Debug)]
pub enum Query {
    /// Counters and measures.
    Facts(oneshot::Sender<FrontendFacts>),
    /// The route of a client.
    RouteExplanation(Client, oneshot::Sender<RouteExplanation>),
    /// Forget which clients went elsewhere, and count them.
    Forget(oneshot::Sender<u64>),
    /// The same, and migrate sessions that are elsewhere.
    Rebalance(oneshot::Sender<Rebalanced>),
}

/// A client, by one of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The client with this address.
    Address(IpAddr),
    /// The clients with this key.
    Key(AffinityKey),
}

/// Counters, measures and state of the frontend.
#[derive(Clone, Debug, Default)]
pub struct FrontendFacts {
    /// Counters of connections since the start.
    pub counters: Counters,
    /// Connections that went elsewhere than to the first of their ranking, by reason.
    pub fallback: Vec<(FallbackReason, u64)>,
    /// Errors of accept by the kernel's name for them, `EMFILE`.
    pub accept_errors: Vec<(&'static str, u64)>,
    /// Connections accepted in the last second.
    pub accepts_per_second: f64,
    /// From accept to acknowledgement, over all slots, lately.
    pub recent: Quantiles,
    /// The same since the start, as how many took up to how long: upper bounds, rising, and counts
    /// of each alone.
    pub handoff_times: Vec<(Duration, u64)>,
    /// All of those times together.
    pub handoff_total: Duration,
    /// The client with the largest share of connections lately.
    pub top_client: Option<TopClients>,
    /// Connections accepted that no worker owns yet.
    pub waiting: u64,
    /// Sessions that were offered by one worker and have no other yet.
    pub sessions_waiting: u64,
    /// Protected sessions.
    pub sessions_protected: u64,
    /// Sessions that a rebalance has still to migrate.
    pub rebalance_pending: u64,
    /// Connections are taken from the backlog.
    pub accepting: bool,
    /// All slots that the frontend knows, from 0.
    pub slots: Vec<SlotFacts>,
}

/// Facts about one slot.
#[derive(Clone, Debug)]
pub struct SlotFacts {
    /// Which.
    pub slot: SlotId,
    /// Whether it takes connections now.
    pub availability: Availability,
    /// Connections established, by its workers' count, and on their way.
    pub load: u64,
    /// Connections that wait for it.
    pub queued: u64,
    /// Connections on their way to its workers.
    pub in_flight: u64,
    /// Connections acknowledged by its workers since the start.
    pub handed_off: u64,
    /// The same in the last second.
    pub handoffs_per_second: f64,
    /// From accept to acknowledgement, lately.
    pub recent: Quantiles,
    /// Times one of its workers didn't acknowledge in time.
    pub stalls: u64,
    /// Connections that its workers refused.
    pub refused: u64,
    /// Sessions that its workers took from others.
    pub sessions_taken: u64,
}

/// Half take up to `p50`, all but one in a hundred up to `p99`; nothing if there were none lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// The median.
    pub p50: Option<Duration>,
    /// The 99th percentile.
    pub p99: Option<Duration>,
}

/// A client with many connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopClients {
    /// The client's address, as it connected last.
    pub address: IpAddr,
    /// Its share of connections lately, 0 to 1.
    pub share: f64,
}

/// Where a client goes, and why.
#[derive(Clone, Debug)]
pub struct RouteExplanation {
    /// The part of its address that counts: folded and cut to its prefix. Nothing if a key was given.
    pub counts: Option<IpAddr>,
    /// The digest of that in hexadecimal, with its name, `md5`. Nothing if a key was given.
    pub digest: Option<(&'static str, String)>,
    /// Its key.
    pub key: AffinityKey,
    /// How slots are chosen.
    pub placement: Placement,
    /// All slots that clients belong to, its own first. By their numbers where nothing sticks.
    pub ranking: Vec<Ranked>,
    /// The slot that is remembered for it, and for how long if it doesn't come back.
    pub remembered: Option<(SlotId, Duration)>,
    /// The slot that its next connection goes to.
    pub target: Option<SlotId>,
    /// Why that isn't the first, if it isn't.
    pub why: Option<FallbackReason>,
}

/// A slot in a client's ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// Which.
    pub slot: SlotId,
    /// Whether it takes connections now.
    pub availability: Availability,
    /// Its connections, established and on their way.
    pub load: u64,
    /// Why this client's next connection doesn't go there, if it would be its turn.
    pub skip_reason: Option<FallbackReason>,
}

/// Asks the frontend.
#[derive(Clone, Debug)]
pub struct FrontendHandle {
    queries: mpsc::Sender<Query>,
    wake: Arc<OwnedFd>,
}

/// The frontend's side.
#[derive(Debug)]
pub struct Queries {
    queries: mpsc::Receiver<Query>,
    wake: Arc<OwnedFd>,
}

impl FrontendHandle {
    /// Counters and measures.
    ///
    /// # Errors
    ///
    /// If the frontend has ended.
    pub async fn facts(&self) -> Result<FrontendFacts, FrontendGone> {
        self.ask(Query::Facts).await
    }

    /// The route of a client's next connection.
    ///
    /// # Errors
    ///
    /// If the frontend has ended.
    pub async fn explain(&self, client: Client) -> Result<RouteExplanation, FrontendGone> {
        self.ask(|answer| Query::RouteExplanation(client, answer)).await
    }

    /// Forgets which clients went elsewhere, so that they come back to the first slot of their
    /// ranking with their next connection. Says how many there were.
    ///
    /// # Errors
    ///
    /// If the frontend has ended.
    pub async fn forget(&self) -> Result<u64, FrontendGone> {
        self.ask(Query::Forget).await
    }

    /// As [`Self::forget`], and sessions of clients that are elsewhere move to the first slot of
    /// their ranking, one by one. Answers as soon as it is known how many, within seconds; a
    /// rebalance before that has still some to move ends with it.
    ///
    /// # Errors
    ///
    /// If the frontend has ended.
    pub async fn rebalance(&self) -> Result<Rebalanced, FrontendGone> {
        self.ask(Query::Rebalance).await
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Query,
    ) -> Result<T, FrontendGone> {
        let (reply, answer) = oneshot::channel();
        self.queries.send(question(reply)).await.map_err(|_| FrontendGone)?;
        // An eventfd takes 2^64 - 2 of these before the frontend has to read.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        answer.await.map_err(|_| FrontendGone)
    }
}

impl Queries {
    /// The next query, if there is one.
    pub fn next_query(&mut self) -> Option<Query> {
        self.queries.try_recv().ok()
    }

    /// To be called before queries are taken: later ones make the descriptor readable again.
    pub fn quiet(&self) {
        // There is nothing to read if there was no query.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
    }
}

impl AsFd for Queries {
    /// Readable when there are queries.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Makes both sides.
///
/// # Errors
///
/// If the kernel has no descriptor left.
pub fn queries() -> io::Result<(FrontendHandle, Queries)> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = mpsc::channel(QUERIES);
    let handle = FrontendHandle { queries: sender, wake: Arc::clone(&wake) };
    Ok((handle, Queries { queries: receiver, wake }))
}
