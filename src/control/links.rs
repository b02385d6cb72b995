//! What the primary's end of control is connected to: handles, and facts that don't change.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::frontend::inquiry::FrontendHandle;
use crate::frontend::placement::Placement;
use crate::handoff::ids::Timestamp;
use crate::log::LogHandle;
use crate::supervisor::output::Output;
use crate::supervisor::pool::handle::{PoolHandle, Refusal, Reply};

/// Orders to reload that may wait. Whoever orders one more waits.
const RELOADS: usize = 4;

/// Handles of all that can be seen and steered.
#[derive(Clone, Debug)]
pub struct Links {
    /// Counts connections, and knows where clients go.
    pub frontend: FrontendHandle,
    /// Has the workers.
    pub pool: PoolHandle,
    /// Reads the configuration again.
    pub reloader: Reloader,
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
}

/// Orders rolling restarts: whoever has the configuration reads it again.
#[derive(Clone, Debug)]
pub struct Reloader {
    orders: mpsc::Sender<Reply<u64>>,
}

impl Reloader {
    /// Makes it, and what orders come out of: each wants the number of a rolling restart.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Reply<u64>>) {
        let (orders, ordered) = mpsc::channel(RELOADS);
        (Self { orders }, ordered)
    }

    /// Orders one, and returns its number.
    ///
    /// # Errors
    ///
    /// If the configuration is wrong, or everything ends.
    pub async fn reload(&self) -> Result<u64, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(reply).await.map_err(|_| Refusal::Gone)?;
        answer.await.map_err(|_| Refusal::Gone)?
    }
}
