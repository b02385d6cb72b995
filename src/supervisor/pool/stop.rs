//! The end of it all, step by step: health checks fail, the backlog is handed out, workers drain.

use tokio::task::JoinHandle;

use crate::link::seam::FrontendGone;
use crate::protocol::ids::Timestamp;
use crate::protocol::scoreboard::Counter;
use crate::supervisor::event::Event;
use crate::supervisor::lifecycle::Fact;
use crate::supervisor::pool::{Pool, PoolError, until_then};

/// How far the end is.
#[derive(Debug, Default)]
pub(super) enum Stopping {
    /// Nobody has ordered it.
    #[default]
    No,
    /// Health checks fail, connections are still accepted until then.
    LameDuck(Timestamp),
    /// The backlog is being handed out.
    Closing(JoinHandle<Result<(), FrontendGone>>),
    /// Workers drain, or have.
    Draining,
}

impl Stopping {
    pub(super) fn is_ordered(&self) -> bool {
        !matches!(self, Self::No)
    }

    /// Waits for the next step of the end, if it takes time.
    pub(super) async fn next(&mut self) -> Result<(), FrontendGone> {
        match self {
            Self::LameDuck(until) => {
                until_then(Some(*until)).await;
                Ok(())
            }
            Self::Closing(closing) => closing.await.unwrap_or(Err(FrontendGone)),
            Self::No | Self::Draining => std::future::pending().await,
        }
    }
}

impl Pool {
    pub(super) fn stop(&mut self) {
        if self.stopping.is_ordered() {
            return;
        }
        self.links.announcer.announce(Event::Stopping { at_once: false });
        self.give_up_all_replacing();
        for running in self.running.values() {
            running.scoreboard.increment(Counter::Stop);
        }
        self.stopping = Stopping::LameDuck(Timestamp::now() + self.settings.lameduck);
    }

    pub(super) async fn stop_now(&mut self) -> Result<(), PoolError> {
        self.links.announcer.announce(Event::Stopping { at_once: true });
        self.give_up_all_replacing();
        self.stopping = Stopping::Draining;
        self.summary.at_once = true;
        self.on_all(Fact::StopNow).await
    }

    /// The backlog is handed out before workers are told to drain.
    pub(super) async fn go_on_stopping(
        &mut self,
        step: Result<(), FrontendGone>,
    ) -> Result<(), PoolError> {
        step?;
        if matches!(self.stopping, Stopping::LameDuck(_)) {
            self.stopping = self.closing();
            return Ok(());
        }
        self.stopping = Stopping::Draining;
        self.on_all(Fact::Stop).await
    }

    /// The backlog is being handed out from now on.
    pub(super) fn closing(&self) -> Stopping {
        let frontend = self.links.frontend.clone();
        Stopping::Closing(tokio::spawn(async move { frontend.stop_accepting().await }))
    }
}
