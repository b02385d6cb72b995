//! What the primary's end of control is connected to: handles, and facts that don't change.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::frontend::placement::Placement;
use crate::frontend::query::FrontendHandle;
use crate::handover::carry;
use crate::handover::primary::ReplacementsSnapshot;
use crate::log::LogHandle;
use crate::protocol::ids::Timestamp;
use crate::supervisor::output::Output;
use crate::supervisor::pool::handle::{PoolHandle, Refusal, Reply};

/// Orders that may wait. Whoever orders one more waits.
const ORDERS: usize = 4;

/// Handles of all that can be seen and steered.
#[derive(Clone, Debug)]
pub struct Links {
    /// Counts connections, and knows where clients go.
    pub frontend: FrontendHandle,
    /// Has the workers.
    pub pool: PoolHandle,
    /// Reads the configuration again, and becomes its own successor.
    pub primary: PrimaryHandle,
    /// What workers print.
    pub output: Output,
    /// The primary's own log.
    pub log: LogHandle,
    /// What doesn't change.
    pub facts: Arc<Facts>,
}

/// What doesn't change while the primary runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The app's name.
    pub name: String,
    /// When it was started.
    pub started: Timestamp,
    /// Where clients connect to.
    pub address: SocketAddr,
    /// How slots are chosen.
    pub placement: Placement,
    /// Where the admin listener is.
    pub admin: Option<SocketAddr>,
    /// Where the control socket is.
    pub control: Option<PathBuf>,
    /// How often it was replaced.
    pub replacements: Replacements,
}

/// How often a primary was replaced by a successor that took everything over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replacements {
    /// By an upgrade in place.
    pub upgrades: u64,
    /// After a crash.
    pub recoveries: u64,
    /// Upgrades for which everything was stopped, and that came to nothing: the program could not be run.
    pub failed_upgrades: u64,
    /// Why the last of them.
    pub upgrade_failed: Option<String>,
}

carry!(struct Replacements => ReplacementsSnapshot { upgrades, recoveries, failed_upgrades, upgrade_failed });

/// What concerns the primary as a whole.
#[derive(Debug)]
pub enum PrimaryOrder {
    /// A rolling restart, with the configuration as it is now; its number is wanted.
    Reload(Reply<u64>),
    /// An upgrade in place.
    Upgrade(Reply<()>),
}

/// Orders what takes more than the pool: whoever has configuration and program does it.
#[derive(Clone, Debug)]
pub struct PrimaryHandle {
    orders: mpsc::Sender<PrimaryOrder>,
}

impl PrimaryHandle {
    /// Makes it, and what orders come out of.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<PrimaryOrder>) {
        let (orders, ordered) = mpsc::channel(ORDERS);
        (Self { orders }, ordered)
    }

    /// Orders a rolling restart, and returns its number.
    ///
    /// # Errors
    ///
    /// If the configuration is wrong, or everything ends.
    pub async fn reload(&self) -> Result<u64, Refusal> {
        self.order(PrimaryOrder::Reload).await
    }

    /// Orders an upgrade in place. It is about to be done when this returns.
    ///
    /// # Errors
    ///
    /// If the program on disk would not go on, or everything ends.
    pub async fn upgrade(&self) -> Result<(), Refusal> {
        self.order(PrimaryOrder::Upgrade).await
    }

    async fn order<T>(&self, order: impl FnOnce(Reply<T>) -> PrimaryOrder) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| Refusal::Gone)?;
        answer.await.map_err(|_| Refusal::Gone)?
    }
}
