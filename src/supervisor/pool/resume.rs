//! A pool resumes another one: from its snapshot and the workers that run.
//!
//! After an upgrade both fit. After a crash the snapshot may be one turn behind: the decisions of that
//! turn are read off the workers themselves, or made again.

use std::collections::BTreeMap;

use crate::handover::Carry;
use crate::handover::pool::{PoolSnapshot, StoppingSnapshot, WorkerMessage};
use crate::link::seam::{SlotCommand, WorkerId};
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::event::Event;
use crate::supervisor::lifecycle::SlotState;
use crate::supervisor::pool::snapshot::{AdoptedWorker, After, RestoredSettings, WorkerRecord};
use crate::supervisor::pool::stop::Stopping;
use crate::supervisor::pool::{Pool, PoolError, PoolLinks, Slot};

/// The part of a snapshot that is restored when the pool runs.
#[derive(Debug)]
pub(super) struct Resume {
    running: Vec<WorkerRecord>,
    workers: BTreeMap<WorkerId, AdoptedWorker>,
    unheard: Vec<(WorkerId, WorkerMessage)>,
    stopping: StoppingSnapshot,
    after: After,
}

impl Pool {
    /// A pool that resumes the one of `snapshot`, by the settings of that one. Of `workers` it takes those
    /// that the snapshot names, and those that were started since.
    #[must_use]
    pub fn resume(
        snapshot: PoolSnapshot,
        workers: Vec<AdoptedWorker>,
        after: After,
        links: PoolLinks,
    ) -> Self {
        let settings = RestoredSettings {
            current: Carry::restore(snapshot.settings),
            before: Carry::restore(snapshot.before),
        };
        let slots = snapshot.slots.into_iter().map(|one| {
            let slot = Slot {
                life: Carry::restore(one.life),
                command: settings.command(one.command),
                candidate: one.candidate.map(|command| settings.command(command)),
                ranked: one.ranked,
            };
            (one.slot, slot)
        });
        let slots = slots.collect();
        let resume = Resume {
            running: Carry::restore(snapshot.running),
            workers: workers.into_iter().map(|worker| (worker.id, worker)).collect(),
            unheard: snapshot.unheard,
            stopping: snapshot.stopping,
            after,
        };
        Self {
            before: settings.before,
            deferred: Carry::restore(snapshot.deferred),
            slots,
            planner: Carry::restore(snapshot.planner),
            accepting: snapshot.accepting,
            summary: Carry::restore(snapshot.summary),
            stats: Carry::restore(snapshot.stats),
            last_failure: snapshot.last_failure,
            resume: Some(resume),
            ..Self::empty(settings.current, links)
        }
    }

    pub(super) async fn go_on(&mut self, resume: Resume) -> Result<(), PoolError> {
        let Resume { running, mut workers, unheard, stopping, after } = resume;
        self.rank().await?;
        let mut adopted = Vec::new();
        for record in running {
            if let Some(worker) = workers.remove(&record.worker) {
                adopted.extend(self.adopt(worker, record).await?);
            }
        }
        for worker in workers.into_values() {
            adopted.extend(self.adopt_unknown(worker).await?);
        }
        self.show_frontend(stopping).await?;
        self.health.change(&self.settings, Timestamp::now());
        let workers = u16::try_from(self.running.len()).unwrap_or(u16::MAX);
        self.links.announcer.announce(Event::Resumed { workers, after });
        self.log_lost().await?;
        self.go_on_stopping_from(stopping);
        if after == After::Crash {
            for worker in adopted {
                self.catch_up(worker).await?;
            }
        }
        for (worker, message) in unheard {
            self.heard_say(worker, message).await?;
        }
        self.tend_orphans();
        Ok(())
    }

    /// Tells the frontend what the one before knew of slots and workers.
    async fn show_frontend(&self, stopping: StoppingSnapshot) -> Result<(), PoolError> {
        let frontend = &self.links.frontend;
        for slot in self.slots.keys() {
            if let Some(worker) = self.serving(*slot) {
                frontend.send(SlotCommand::Serve(worker)).await?;
            }
        }
        for slot in self.slots.keys().filter(|slot| self.is_given_up(**slot)) {
            frontend.send(SlotCommand::GiveUp(*slot)).await?;
        }
        // A closed listener is not opened again.
        let accepts = !matches!(stopping, StoppingSnapshot::Draining);
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

    fn go_on_stopping_from(&mut self, stopping: StoppingSnapshot) {
        self.stopping = match stopping {
            StoppingSnapshot::No => Stopping::No,
            StoppingSnapshot::LameDuck(until) => Stopping::LameDuck(until),
            // The connections that came last are handed out again.
            StoppingSnapshot::Closing => self.closing(),
            StoppingSnapshot::Draining => Stopping::Draining,
        };
    }
}
