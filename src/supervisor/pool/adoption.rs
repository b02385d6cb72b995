//! Workers that another pool has started become this one's: those of its snapshot, those that it started
//! after its last snapshot, and those of which nothing is left.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::handover::descriptors::WorkerPart;
use crate::link::native;
use crate::link::seam::{SlotCommand, WorkerId};
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::Timestamp;
use crate::protocol::scoreboard::{Counter, Scoreboard};
use crate::supervisor::event::{End, WorkerChange};
use crate::supervisor::lifecycle::{Fact, Phase};
use crate::supervisor::output::{PipeHandover, PipeState, Stream};
use crate::supervisor::pool::snapshot::{AdoptedWorker, WorkerRecord};
use crate::supervisor::pool::stats::Death;
use crate::supervisor::pool::workers::jitter;
use crate::supervisor::pool::{Pool, PoolError};
use crate::supervisor::process::Process;
use crate::supervisor::procfs::{pid_of, process_of};
use crate::supervisor::rollout::Cause;

/// What is known of a worker that was adopted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adopted {
    worker: WorkerId,
    /// It may serve.
    is_ready: bool,
    /// It was ordered to drain.
    drains: bool,
}

impl Pool {
    /// A worker of the snapshot.
    pub(super) async fn adopt(
        &mut self,
        mut worker: AdoptedWorker,
        record: WorkerRecord,
    ) -> Result<Option<Adopted>, PoolError> {
        let pidfd = worker.process.take();
        let pidfd = pidfd.or_else(|| {
            let (pid, pidfd) = self.find(worker.id)?;
            (pid == record.pid).then_some(pidfd)
        });
        let process = pidfd.and_then(|pidfd| Process::adopt(record.pid, pidfd).ok());
        self.attach(worker, record, process).await
    }

    /// A worker that the snapshot doesn't name: it was started, or about to be, in the turn in which the
    /// pool crashed. It counts as started just now.
    pub(super) async fn adopt_unknown(
        &mut self,
        mut worker: AdoptedWorker,
    ) -> Result<Option<Adopted>, PoolError> {
        let id = worker.id;
        let known = worker.process.take().and_then(|pidfd| Some((pid_of(&pidfd)?, pidfd)));
        let is_kept = known.is_some();
        let found = known.or_else(|| self.find(id));
        let process = found.and_then(|(pid, pidfd)| Process::adopt(pid, pidfd).ok());
        let has_place = self.make_place(id, process.is_some()).await?;
        let process = match process {
            Some(process) if has_place => process,
            process => {
                if let Some(process) = process {
                    let (slot, generation, pid) = (id.slot.0, id.generation.0, process.pid());
                    tracing::warn!(slot, generation, pid, "worker killed: its slot has no place");
                    process.signal(Signal::KILL);
                }
                self.keep_no_longer(id);
                return Ok(None);
            }
        };
        if !is_kept {
            self.keep(id, WorkerPart::Process, &process);
        }
        self.stats.started(id.slot);
        let record = WorkerRecord::fresh(id, &process);
        self.attach(worker, record, Some(process)).await
    }

    /// Whether its slot has a place for a worker that the snapshot doesn't name. Its generation is used
    /// up in either case.
    async fn make_place(&mut self, worker: WorkerId, runs: bool) -> Result<bool, PoolError> {
        let WorkerId { slot, generation } = worker;
        if !self.slots.contains_key(&slot) {
            self.add_slot(slot, false);
            self.on(slot, Fact::Remove).await?;
        }
        let Some(found) = self.slots.get_mut(&slot) else { return Ok(false) };
        found.life.skip(generation);
        Ok(runs && found.life.adopt(generation, Timestamp::now()))
    }

    /// The frontend gets the channel of a worker that has ended, too: its connections go to others.
    async fn attach(
        &mut self,
        worker: AdoptedWorker,
        record: WorkerRecord,
        process: Option<Process>,
    ) -> Result<Option<Adopted>, PoolError> {
        let AdoptedWorker { id, channel, stdout, stderr, .. } = worker;
        let is_ready = channel.is_ready() || channel.is_attached() && !self.settings.wait_ready;
        let page = channel.descriptors().into_iter().find(|(part, _)| *part == native::PARTS[2]);
        let scoreboard = page.and_then(|(_, page)| Scoreboard::open(page).ok());
        self.links.frontend.send(SlotCommand::Attach(id, Box::new(channel.into()))).await?;
        let gone = process.is_none();
        for (descriptor, stream) in [(stdout, Stream::Out), (stderr, Stream::Err)] {
            let state = PipeState { worker: id, pid: record.pid, stream, begun: Vec::new(), gone };
            if let Some(descriptor) = descriptor {
                self.links.output.go_on(PipeHandover { state, descriptor });
            }
        }
        let (Some(process), Some(scoreboard)) = (process, scoreboard) else { return Ok(None) };
        let drains = scoreboard.get(Counter::Drain) > 0;
        self.watch(record, process, scoreboard);
        Ok(Some(Adopted { worker: id, is_ready, drains }))
    }

    /// Looks for a worker's process among the candidates.
    fn find(&self, worker: WorkerId) -> Option<(i32, OwnedFd)> {
        let found = process_of(worker, &self.links.orphans.candidates())?;
        let pidfd = pidfd_open(Pid::from_raw(found)?, PidfdFlags::NONBLOCK).ok()?;
        // It may have ended meanwhile, and its number be another process's.
        (process_of(worker, &[found]) == Some(found)).then_some((found, pidfd))
    }

    /// Workers of which nothing is left.
    pub(super) async fn log_lost(&mut self) -> Result<(), PoolError> {
        let all = self.slots.iter().flat_map(|(slot, found)| {
            let slot = *slot;
            found.life.workers().map(move |(generation, _)| WorkerId { slot, generation })
        });
        let lost: Vec<_> = all.filter(|worker| !self.running.contains_key(worker)).collect();
        for worker in lost {
            let reason = "ended while there was no primary, its status is unknown".to_owned();
            let unexpected = !self.is_ordered(worker);
            if unexpected {
                self.stats.died(worker.slot, Death::Exited, &reason);
                self.last_failure = Some((worker.slot, reason.clone()));
            }
            let end = End { reason, unexpected, ..End::of_nobody() };
            self.announce_worker(worker, WorkerChange::Gone(end));
            self.keep_no_longer(worker);
            self.links.frontend.send(SlotCommand::Gone(worker)).await?;
            let generation = worker.generation;
            let fact = Fact::Exited { generation, status: None, jitter: jitter() };
            self.on(worker.slot, fact).await?;
        }
        Ok(())
    }

    /// After a crash: the messages to and from a worker in the pool's last turn.
    pub(super) async fn catch_up(&mut self, adopted: Adopted) -> Result<(), PoolError> {
        let Adopted { worker, is_ready, drains } = adopted;
        let WorkerId { slot, generation } = worker;
        let now = Timestamp::now();
        let phase = self.slots.get(&slot).and_then(|slot| slot.life.phase(generation));
        match phase {
            Some(Phase::Spawning { .. }) if is_ready => {
                self.on(slot, Fact::Ready(generation)).await?;
            }
            Some(Phase::Spare { .. }) if drains => self.on(slot, Fact::Leave(generation)).await?,
            // It takes no clients any more, and the reason is unknown.
            Some(Phase::Serving { .. }) if drains => self.planner.want(slot, Cause::Asked, now),
            // The order may have died with the primary.
            Some(Phase::Draining { deadline, told: Some(told), .. }) => {
                let order = DrainOrder { window: deadline.since(now), ..told };
                self.links.frontend.send(SlotCommand::Drain(worker, order)).await?;
            }
            _ => {}
        }
        Ok(())
    }
}
