//! A pool goes on where another one was: with its document and the workers that run.
//!
//! After an upgrade both fit. After a crash the document may be behind by one turn: what was decided in
//! it is found out from the workers themselves, or decided again.

use std::collections::BTreeMap;

use crate::link::seam::{SlotCommand, WorkerId};
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::event::Event;
use crate::supervisor::lifecycle::SlotState;
use crate::supervisor::pool::snapshot::{
    AdoptedWorker, After, PoolDocument, Said, WrittenStopping, WrittenWorker,
};
use crate::supervisor::pool::stop::Stopping;
use crate::supervisor::pool::{Pool, PoolError, PoolLinks, Slot};

/// What is still to be gone on with.
#[derive(Debug)]
pub(super) struct Resumption {
    running: Vec<WrittenWorker>,
    workers: BTreeMap<WorkerId, AdoptedWorker>,
    unheard: Vec<(WorkerId, Said)>,
    stopping: WrittenStopping,
    after: After,
}

impl Pool {
    /// A pool that goes on where another one was, which `document` describes. Of `workers` it takes
    /// those that it knows, and those that were started since. Settings are the document's.
    #[must_use]
    pub fn resume(
        document: PoolDocument,
        workers: Vec<AdoptedWorker>,
        after: After,
        links: PoolLinks,
    ) -> Self {
        let slots = document.slots.iter().map(|written| {
            let slot = Slot {
                life: written.life.clone(),
                command: document.command(&written.command),
                candidate: written.candidate.as_ref().map(|kind| document.command(kind)),
                ranked: written.ranked,
            };
            (written.slot, slot)
        });
        let slots = slots.collect();
        let resumption = Resumption {
            running: document.running,
            workers: workers.into_iter().map(|worker| (worker.id, worker)).collect(),
            unheard: document.unheard,
            stopping: document.stopping,
            after,
        };
        Self {
            before: document.before,
            deferred: document.deferred,
            slots,
            planner: document.planner,
            accepting: document.accepting,
            summary: document.summary,
            stats: document.stats,
            last_failure: document.last_failure,
            resumption: Some(resumption),
            ..Self::empty(document.settings, links)
        }
    }

    pub(super) async fn go_on(&mut self, resumption: Resumption) -> Result<(), PoolError> {
        let Resumption { running, mut workers, unheard, stopping, after } = resumption;
        self.rank().await?;
        let mut adopted = Vec::new();
        for written in running {
            if let Some(worker) = workers.remove(&written.worker) {
                adopted.extend(self.adopt(worker, written).await?);
            }
        }
        for worker in workers.into_values() {
            adopted.extend(self.adopt_unknown(worker).await?);
        }
        self.show_frontend(stopping).await?;
        self.health.change(&self.settings, Timestamp::now());
        let workers = u16::try_from(self.running.len()).unwrap_or(u16::MAX);
        self.links.announcer.announce(Event::Resumed { workers, after });
        self.bury_lost().await?;
        self.go_on_stopping_from(stopping);
        if after == After::Crash {
            for worker in adopted {
                self.catch_up(worker).await?;
            }
        }
        for (worker, said) in unheard {
            self.heard_say(worker, said).await?;
        }
        self.tend_orphans();
        Ok(())
    }

    /// What the frontend knew of slots and workers.
    async fn show_frontend(&self, stopping: WrittenStopping) -> Result<(), PoolError> {
        let frontend = &self.links.frontend;
        for slot in self.slots.keys() {
            if let Some(worker) = self.serving(*slot) {
                frontend.send(SlotCommand::Serve(worker)).await?;
            }
        }
        for slot in self.slots.keys().filter(|slot| self.is_given_up(**slot)) {
            frontend.send(SlotCommand::GiveUp(*slot)).await?;
        }
        // Whoever has closed the listener doesn't open it again.
        let accepts = !matches!(stopping, WrittenStopping::Draining);
        if self.accepting && accepts {
            frontend.send(SlotCommand::Accept).await?;
        }
        Ok(())
    }

    /// Whether clients don't wait for the slot's next worker.
    fn is_given_up(&self, slot: SlotId) -> bool {
        let Some(Slot { life, .. }) = self.slots.get(&slot) else { return false };
        match life.state() {
            SlotState::Errored | SlotState::Stopped | SlotState::Drained => true,
            SlotState::BackOff => {
                let delay = life.next_start().map(|at| at.since(Timestamp::now()));
                delay.is_some_and(|delay| delay > self.settings.slot_wait)
            }
            SlotState::Serving | SlotState::Spawning | SlotState::Removed => false,
        }
    }

    fn go_on_stopping_from(&mut self, stopping: WrittenStopping) {
        self.stopping = match stopping {
            WrittenStopping::No => Stopping::No,
            WrittenStopping::LameDuck(until) => Stopping::LameDuck(until),
            // Whatever came last is handed out again.
            WrittenStopping::Closing => self.closing(),
            WrittenStopping::Draining => Stopping::Draining,
        };
    }
}
