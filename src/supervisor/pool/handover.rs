//! The pool stops where it is, and leaves everything to a successor: nothing is killed, nobody is told.

use std::time::Duration;

use crate::link::seam::{SlotCommand, WorkerId};
use crate::supervisor::pool::handle::Refusal;
use crate::supervisor::pool::snapshot::{PoolEstate, Said};
use crate::supervisor::pool::{Pool, PoolError};

/// How long the frontend may take to stop.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Pool {
    /// Whether it may be: who goes on with the end of everything would find little left.
    pub(super) fn begin_hand_over(&mut self) -> Result<(), Refusal> {
        if self.stopping.is_ordered() {
            return Err(Refusal::Stopping);
        }
        self.is_handing_over = true;
        Ok(())
    }

    /// The frontend stops first, so that nothing that a worker has said gets lost.
    pub(super) async fn stop_frontend(&mut self) -> Result<Vec<(WorkerId, Said)>, PoolError> {
        self.links.frontend.send(SlotCommand::HandOver).await?;
        Ok(self.listen_to_the_last().await)
    }

    pub(super) fn into_estate(mut self, unheard: Vec<(WorkerId, Said)>) -> PoolEstate {
        let mut document = self.document();
        document.unheard = unheard;
        // Should the successor die before it has written anything.
        self.write_to_journal(document.encode());
        let copies = self.running.iter().filter_map(|(worker, running)| {
            let copy = running.process.pidfd().inspect_err(
                |error| tracing::warn!(slot = worker.slot.0, %error, "cannot copy a pidfd"),
            );
            Some((*worker, copy.ok()?))
        });
        let processes = copies.collect();
        PoolEstate { document, processes, links: self.links }
    }

    /// What workers have said until the frontend stopped.
    async fn listen_to_the_last(&mut self) -> Vec<(WorkerId, Said)> {
        let mut unheard = Vec::new();
        let listening = async {
            while let Some(event) = self.links.events.recv().await {
                unheard.extend(Said::of(&event.kind).map(|said| (event.worker, said)));
            }
        };
        if tokio::time::timeout(TIMEOUT, listening).await.is_err() {
            tracing::warn!("frontend takes long to stop");
        }
        unheard
    }
}
