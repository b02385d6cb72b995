//! The pool stops where it is, for a successor: it kills no worker and sends none a message.

use std::time::Duration;

use crate::handover::encode;
use crate::handover::pool::WorkerMessage;
use crate::link::seam::{SlotCommand, WorkerId};
use crate::supervisor::pool::handle::Refusal;
use crate::supervisor::pool::snapshot::{PoolHandover, worker_message};
use crate::supervisor::pool::{Pool, PoolError};

/// How long the frontend may take to stop.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Pool {
    /// Begins, unless everything is about to end: a successor would find little left.
    pub(super) fn begin_hand_over(&mut self) -> Result<(), Refusal> {
        if self.stopping.is_ordered() {
            return Err(Refusal::Stopping);
        }
        self.is_handing_over = true;
        Ok(())
    }

    /// The frontend stops first, so that no message of a worker gets lost.
    pub(super) async fn stop_frontend(
        &mut self,
    ) -> Result<Vec<(WorkerId, WorkerMessage)>, PoolError> {
        self.links.frontend.send(SlotCommand::HandOver).await?;
        Ok(self.listen_to_the_last().await)
    }

    pub(super) fn into_handover(mut self, unheard: Vec<(WorkerId, WorkerMessage)>) -> PoolHandover {
        let mut snapshot = self.snapshot();
        snapshot.unheard = unheard;
        // Should the successor crash before it has written anything.
        self.write_to_journal(encode(&snapshot).unwrap_or_default());
        let copies = self.running.iter().filter_map(|(worker, running)| {
            let copy = running.process.pidfd().inspect_err(
                |error| tracing::warn!(slot = worker.slot.0, %error, "pidfd not copied"),
            );
            Some((*worker, copy.ok()?))
        });
        let processes = copies.collect();
        PoolHandover { snapshot, processes, links: self.links }
    }

    /// The messages of workers until the frontend stopped.
    async fn listen_to_the_last(&mut self) -> Vec<(WorkerId, WorkerMessage)> {
        let mut unheard = Vec::new();
        let listening = async {
            while let Some(event) = self.links.events.recv().await {
                unheard.extend(worker_message(&event.kind).map(|message| (event.worker, message)));
            }
        };
        if tokio::time::timeout(TIMEOUT, listening).await.is_err() {
            tracing::warn!("frontend slow to stop");
        }
        unheard
    }
}
