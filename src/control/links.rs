//! The primary's side of control: handles of the parts, and constant facts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::bus::service::BusHandle;
use crate::control::report::{NotApplied, Upgrading};
use crate::frontend::placement::Placement;
use crate::frontend::query::FrontendHandle;
use crate::handover::carry;
use crate::handover::primary::ReplacementsSnapshot;
use crate::log::LogHandle;
use crate::protocol::ids::Timestamp;
use crate::supervisor::output::Output;
use crate::supervisor::pool::handle::{PoolHandle, Refusal, Reply};

/// Capacity of the channel of orders.
const MAX_ORDERS: usize = 4;

/// Handles of the parts.
#[derive(Clone, Debug)]
pub struct Links {
    /// The frontend: counters and routes.
    pub frontend: FrontendHandle,
    /// The pool of workers.
    pub pool: PoolHandle,
    /// The primary: reload and upgrade.
    pub primary: PrimaryHandle,
    /// Messages of workers' programs.
    pub bus: BusHandle,
    /// Workers' output.
    pub output: Output,
    /// The primary's own log.
    pub log: LogHandle,
    /// Constant facts.
    pub facts: Arc<Facts>,
    /// What may change.
    pub notes: watch::Receiver<Notes>,
}

/// What the primary says of itself, and may change.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The path of the control socket.
    pub control: Option<PathBuf>,
    /// The path of the configuration file.
    pub configuration: Option<PathBuf>,
    /// The command of workers that are started from now on; empty for the demo.
    pub command: Vec<String>,
    /// What this primary could not read again, and has as the one before.
    pub not_renewed: Vec<String>,
}

/// Facts that are constant while the primary runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The app's name.
    pub name: String,
    /// The start of the run.
    pub started: Timestamp,
    /// The address that clients connect to.
    pub address: SocketAddr,
    /// The placement.
    pub placement: Placement,
    /// The address of the admin listener.
    pub admin: Option<SocketAddr>,
    /// The file with the token that the primary has made for it.
    pub admin_token_file: Option<PathBuf>,
    /// Upgrades and crashes so far.
    pub replacements: Replacements,
}

/// Upgrades and crashes of the primary in this run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replacements {
    /// Upgrades in place.
    pub upgrades: u64,
    /// Crashes after which a successor took over.
    pub recoveries: u64,
    /// Upgrades that failed after the hand-over had started: the program could not be run.
    pub failed_upgrades: u64,
    /// The reason of the last failed upgrade.
    pub upgrade_failed: Option<String>,
}

carry!(struct Replacements => ReplacementsSnapshot { upgrades, recoveries, failed_upgrades, upgrade_failed });

/// An order to the primary as a whole.
#[derive(Debug)]
pub enum PrimaryOrder {
    /// A rolling restart with the current configuration; the answer is its number. Before, the settings are
    /// sent that it leaves as they are.
    Reload(Reply<u64>, oneshot::Sender<Vec<NotApplied>>),
    /// An upgrade in place.
    Upgrade(Reply<Upgrading>),
}

/// Sends orders that need the configuration or the program.
#[derive(Clone, Debug)]
pub struct PrimaryHandle {
    orders: mpsc::Sender<PrimaryOrder>,
}

impl PrimaryHandle {
    /// The handle and the receiver of its orders.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<PrimaryOrder>) {
        let (orders, ordered) = mpsc::channel(MAX_ORDERS);
        (Self { orders }, ordered)
    }

    /// Orders a rolling restart, and returns its number and the settings that it leaves as they are.
    ///
    /// # Errors
    ///
    /// If the configuration is wrong, or the primary is stopping.
    pub async fn reload(&self) -> Result<(u64, Vec<NotApplied>), Refusal> {
        let (sender, mut not_applied) = oneshot::channel();
        let number = self.order(|reply| PrimaryOrder::Reload(reply, sender)).await?;
        Ok((number, not_applied.try_recv().unwrap_or_default()))
    }

    /// Orders an upgrade in place, and returns just before it, with what is known of its result.
    ///
    /// # Errors
    ///
    /// If the program on disk cannot take over, or the primary is stopping.
    pub async fn upgrade(&self) -> Result<Upgrading, Refusal> {
        self.order(PrimaryOrder::Upgrade).await
    }

    async fn order<T>(&self, order: impl FnOnce(Reply<T>) -> PrimaryOrder) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| Refusal::Gone)?;
        answer.await.map_err(|_| Refusal::Gone)?
    }
}
