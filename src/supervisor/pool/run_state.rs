//! How far the pool's run is: it goes on, is handed over, or ends step by step. Health checks fail
//! first, then the backlog is handed out, then workers drain.

use tokio::task::JoinHandle;

use crate::link::seam::{CommandSender, FrontendGone};
use crate::protocol::ids::Timestamp;
use crate::supervisor::pool::timer::sleep_until;

/// How far the run is.
#[derive(Debug, Default)]
pub(super) enum RunState {
    /// No order to end has come.
    #[default]
    Running,
    /// It ends with this turn, and a successor goes on.
    HandingOver,
    /// Health checks fail, connections are still accepted until then.
    LameDuck(Timestamp),
    /// The backlog is being handed out.
    Closing(JoinHandle<Result<(), FrontendGone>>),
    /// Workers drain, or have drained.
    Draining,
}

impl RunState {
    /// The backlog is being handed out from now on.
    pub(super) fn closing(frontend: &CommandSender) -> Self {
        let frontend = frontend.clone();
        Self::Closing(tokio::spawn(async move { frontend.stop_accepting().await }))
    }

    /// Whether everything is to end.
    pub(super) fn is_stopping(&self) -> bool {
        !matches!(self, Self::Running | Self::HandingOver)
    }

    /// Waits for the next step of the end, if it takes time.
    pub(super) async fn next(&mut self) -> Result<(), FrontendGone> {
        match self {
            Self::LameDuck(until) => {
                sleep_until(Some(*until)).await;
                Ok(())
            }
            Self::Closing(closing) => closing.await.unwrap_or(Err(FrontendGone)),
            Self::Running | Self::HandingOver | Self::Draining => std::future::pending().await,
        }
    }
}
