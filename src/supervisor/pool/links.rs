//! The pool's connections, its progress, and the summary of its run.

use tokio::sync::{mpsc, watch};

use crate::handover::carry;
use crate::handover::pool::SummarySnapshot;
use crate::link::seam::{CommandSender, Counters, SlotEvent};
use crate::supervisor::ended::EndedConnections;
use crate::supervisor::event::Announcer;
use crate::supervisor::orphans::Orphans;
use crate::supervisor::output::Output;
use crate::supervisor::pool::handle::Order;
use crate::system::journal::Journal;
use crate::system::store::Store;

/// The pool's connections.
#[derive(Debug)]
pub struct PoolLinks {
    /// Commands to the frontend.
    pub frontend: CommandSender,
    /// Events of workers, from the frontend.
    pub events: mpsc::Receiver<SlotEvent>,
    /// The output of workers.
    pub output: Output,
    /// Processes that workers leave behind.
    pub orphans: Orphans,
    /// Commands of the operator.
    pub orders: mpsc::Receiver<Order>,
    /// The progress of the start.
    pub progress: watch::Sender<Progress>,
    /// Announces events.
    pub announcer: Announcer,
    /// Stores descriptors for a successor after a crash, if there is a store.
    pub store: Option<Store>,
    /// The memory that the pool's snapshots are written to.
    pub journal: Option<Journal>,
}

/// The progress of the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Slots that serve.
    pub serving: u16,
    /// Slots that are to serve.
    pub of: u16,
    /// Connections are accepted.
    pub accepting: bool,
    /// Heartbeats since the start.
    pub beats: u64,
}

/// The summary of a run that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The counts of connections.
    pub counters: Counters,
    /// The end was forced, not graceful.
    pub at_once: bool,
    /// Workers that had to be killed at the end.
    pub killed: u16,
    /// Connections that were open in workers when those ended, by how they ended.
    pub ended: EndedConnections,
}

carry!(struct Summary => SummarySnapshot { counters, at_once, killed, ended });
