//! What the pool is connected to, what it shows, and how it all went.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::link::seam::{CommandSender, Counters, SlotEvent};
use crate::supervisor::event::Announcer;
use crate::supervisor::orphans::Orphans;
use crate::supervisor::output::Output;
use crate::supervisor::pool::handle::Order;
use crate::system::journal::Journal;
use crate::system::store::Store;

/// What the pool is connected to.
#[derive(Debug)]
pub struct PoolLinks {
    /// Takes what workers are to be given.
    pub frontend: CommandSender,
    /// What workers say on their channels.
    pub events: mpsc::Receiver<SlotEvent>,
    /// What workers print.
    pub output: Output,
    /// What workers leave behind.
    pub orphans: Orphans,
    /// What the operator wants.
    pub orders: mpsc::Receiver<Order>,
    /// How far the start is.
    pub progress: watch::Sender<Progress>,
    /// What happens.
    pub announcer: Announcer,
    /// Keeps descriptors for a successor after a crash, if anybody does.
    pub store: Option<Store>,
    /// Where the pool is written down for that one.
    pub journal: Option<Journal>,
}

/// How far the start is.
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

/// How it all went, when it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// What became of connections.
    pub counters: Counters,
    /// It was ended at once, not gracefully.
    pub at_once: bool,
    /// Workers that had to be killed at the end.
    pub killed: u16,
    /// Connections that were established in those.
    pub cut: u64,
}
