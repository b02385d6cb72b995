//! Workers as processes: started with their channel, signalled, buried.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio_util::task::AbortOnDropHandle;

use crate::link::Link;
use crate::link::seam::{SlotCommand, WorkerId};
use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::protocol::ids::Timestamp;
use crate::protocol::scoreboard::{Counter, Scoreboard};
use crate::supervisor::event::{End, Event, WorkerChange};
use crate::supervisor::lifecycle::{Fact, KillReason, Phase, SlotState};
use crate::supervisor::pool::health::WorkerStats;
use crate::supervisor::pool::snapshot::WorkerRecord;
use crate::supervisor::pool::stats::Death;
use crate::supervisor::pool::{Pool, PoolError, chain};
use crate::supervisor::process::{Exit, PrimaryFacts, Process};
use crate::system::limits::oom_kills;

/// It stands still, and won't hear it: the frontend gives it no more.
const ABORTED: DrainOrder =
    DrainOrder { mode: DrainMode::Wait, reason: DrainReason::Restart, window: Duration::ZERO };

/// A worker's process and what is known of it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) process: Arc<Process>,
    pub(super) scoreboard: Scoreboard,
    pub(super) started: Timestamp,
    pub(super) vitals: WorkerStats,
    /// From 0 to 1, its own for good.
    pub(super) jitter: f64,
    /// Why it was killed or aborted, if it was.
    pub(super) killed: Option<KillReason>,
    /// Waits for its end.
    _watched: AbortOnDropHandle<()>,
}

impl Pool {
    pub(super) async fn spawn(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        let error = match self.start_process(worker).await? {
            Ok(()) => return Ok(()),
            Err(error) if self.accepting => error,
            Err(error) => return Err(error),
        };
        // It has worked before and may again: a deploy is replacing the program, say, or clients
        // have taken all descriptors for a moment.
        let reason = chain(&error);
        let end = End { reason: reason.clone(), ..End::of_nobody() };
        self.announce_worker(worker, WorkerChange::Gone(end));
        self.stats.died(worker.slot, Death::NotStarted, &reason);
        self.last_failure = Some((worker.slot, reason));
        self.links.frontend.send(SlotCommand::Gone(worker)).await?;
        let generation = worker.generation;
        let fact = Fact::Exited { generation, status: None, jitter: jitter() };
        Box::pin(self.on(worker.slot, fact)).await
    }

    async fn start_process(
        &mut self,
        worker: WorkerId,
    ) -> Result<Result<(), PoolError>, PoolError> {
        let Some(slot) = self.slots.get(&worker.slot) else { return Ok(Ok(())) };
        let command = Arc::clone(slot.candidate.as_ref().unwrap_or(&slot.command));
        let opened = Link::native(self.settings.credits).and_then(|(channel, end)| {
            let scoreboard = Scoreboard::open(end.scoreboard.as_fd())?;
            Ok((channel, end, scoreboard))
        });
        let (channel, end, scoreboard) = match opened {
            Ok(opened) => opened,
            Err(source) => return Ok(Err(PoolError::Channel(source))),
        };
        // Before there is a process that a successor couldn't speak to.
        self.keep_channel(worker, &channel);
        self.links.frontend.send(SlotCommand::Attach(worker, Box::new(channel.into()))).await?;
        Ok(match Process::start(&command, self.facts(), worker, end) {
            Ok((process, printed)) => {
                self.keep_process(worker, &process, &printed);
                self.links.output.take(worker, process.pid(), printed.stdout, printed.stderr);
                self.started(worker, process, scoreboard);
                Ok(())
            }
            Err(source) => {
                self.keep_no_longer(worker);
                Err(PoolError::Command { command: command.program.clone(), source })
            }
        })
    }

    fn facts(&self) -> PrimaryFacts {
        PrimaryFacts {
            port: self.settings.port,
            orphan_timeout: self.settings.orphan_timeout,
            kill_timeout: self.settings.lifecycle.kill_timeout,
            migrate_timeout: self.settings.migrate_timeout,
            protect: self.settings.protect,
        }
    }

    pub(super) fn started(&mut self, worker: WorkerId, process: Process, scoreboard: Scoreboard) {
        if self.stopping.is_ordered() {
            scoreboard.increment(Counter::Stop);
        }
        self.watch(WorkerRecord::fresh(worker, &process), process, scoreboard);
        self.stats.started(worker.slot);
        self.announce_worker(worker, WorkerChange::Spawned);
    }

    /// From now on it is known of when it ends.
    pub(super) fn watch(&mut self, record: WorkerRecord, process: Process, scoreboard: Scoreboard) {
        let WorkerRecord { worker, started, jitter, killed, .. } = record;
        let process = Arc::new(process);
        let (watched, ended) = (Arc::clone(&process), self.ended.0.clone());
        let watching = tokio::spawn(async move {
            watched.ended().await;
            // Without a pool there is nobody to tell.
            let _ = ended.send(worker).await;
        });
        let running = Running {
            process,
            scoreboard,
            started,
            vitals: WorkerStats::default(),
            jitter,
            killed,
            _watched: AbortOnDropHandle::new(watching),
        };
        self.running.insert(worker, running);
    }

    pub(super) async fn bury(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        let Some(running) = self.running.remove(&worker) else { return Ok(()) };
        let exit = running.process.reap();
        self.keep_no_longer(worker);
        let (end, status) = self.look_at_end(worker, &running, exit);
        self.tend_orphans();
        self.links.frontend.send(SlotCommand::Gone(worker)).await?;
        let requests = running.scoreboard.get(Counter::RequestsTotal);
        self.stats.buried(worker.slot, end.connections, requests);
        let (pid, change) = (running.process.pid(), WorkerChange::Gone(end));
        self.links.announcer.announce(Event::Worker { worker, pid, change });
        let generation = worker.generation;
        self.on(worker.slot, Fact::Exited { generation, status, jitter: jitter() }).await?;
        Ok(())
    }

    pub(super) fn tend_orphans(&mut self) {
        let running = self.running.iter();
        let running = running.map(|(worker, running)| (*worker, running.process.pid()));
        self.links.orphans.tend(&running.collect());
    }

    fn look_at_end(
        &mut self,
        worker: WorkerId,
        running: &Running,
        exit: io::Result<Exit>,
    ) -> (End, Option<i32>) {
        let status = if let Ok(Exit::Status(status)) = exit { Some(status) } else { None };
        let mut death = Death::of(running.killed, exit.as_ref().ok().copied());
        let reason = match (running.killed, exit) {
            (Some(KillReason::Stalled), Ok(exit)) => format!("stood still: {exit}"),
            (Some(reason), _) => self.settings.lifecycle.explain(reason),
            (None, Ok(Exit::Signal(9))) if self.has_run_out_of_memory() => {
                death = Some(Death::OutOfMemory);
                "was killed by the kernel: out of memory".to_owned()
            }
            (None, Ok(exit)) => exit.to_string(),
            // As under systemd, which doesn't leave it to others.
            (None, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                "ended, its status is known only to whoever has taken it over".to_owned()
            }
            (None, Err(error)) => format!("ended, its status is unknown: {error}"),
        };
        let death = death.filter(|_| !self.is_ordered(worker));
        if let Some(death) = death {
            self.stats.died(worker.slot, death, &reason);
            self.last_failure = Some((worker.slot, reason.clone()));
        }
        let end = End {
            reason,
            unexpected: death.is_some(),
            uptime: Timestamp::now().since(running.started),
            connections: running.scoreboard.get(Counter::ConnectionsTotal),
        };
        (end, status)
    }

    /// Whether the kernel says that it has killed one more process.
    fn has_run_out_of_memory(&mut self) -> bool {
        let before = std::mem::replace(&mut self.oom_kills, oom_kills());
        self.oom_kills > before
    }

    /// Whether somebody wanted the worker to end.
    pub(super) fn is_ordered(&self, worker: WorkerId) -> bool {
        let Some(slot) = self.slots.get(&worker.slot) else { return true };
        slot.life.state() == SlotState::Removed
            || matches!(slot.life.phase(worker.generation), Some(Phase::Draining { .. }))
    }

    pub(super) fn kill(&mut self, worker: WorkerId, reason: KillReason) {
        let Some(running) = self.running.get_mut(&worker) else { return };
        running.killed = Some(reason);
        let reason = self.settings.lifecycle.explain(reason);
        if self.stopping.is_ordered() {
            self.summary.killed = self.summary.killed.saturating_add(1);
            self.summary.cut += running.scoreboard.get(Counter::Connections);
        }
        self.announce_worker(worker, WorkerChange::Killed(reason));
        self.signal(worker, Signal::KILL);
    }

    /// It drains already, and gets to know that it has less time.
    pub(super) async fn shorten_deadline(
        &self,
        worker: WorkerId,
        order: DrainOrder,
    ) -> Result<(), PoolError> {
        let (slot, generation) = (worker.slot.0, worker.generation.0);
        tracing::info!(slot, generation, left = ?order.window, "draining worker has to be quicker");
        Ok(self.links.frontend.send(SlotCommand::Drain(worker, order)).await?)
    }

    /// Its clients are the successor's at once; SIGABRT lets it write a core.
    pub(super) async fn abort(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        self.links.frontend.send(SlotCommand::Drain(worker, ABORTED)).await?;
        if let Some(running) = self.running.get_mut(&worker) {
            running.killed = Some(KillReason::Stalled);
        }
        self.announce_worker(worker, WorkerChange::Killed("event loop stands still".to_owned()));
        self.signal(worker, Signal::ABORT);
        Ok(())
    }

    pub(super) fn signal(&self, worker: WorkerId, signal: Signal) {
        if let Some(running) = self.running.get(&worker) {
            running.process.signal(signal);
        }
    }

    pub(super) async fn kill_all(&mut self) {
        for (worker, running) in std::mem::take(&mut self.running) {
            running.process.signal(Signal::KILL);
            running.process.ended().await;
            // Its status is of no interest any more.
            let _ = running.process.reap();
            self.keep_no_longer(worker);
        }
    }
}

impl WorkerRecord {
    /// Of a worker that was just started.
    pub(super) fn fresh(worker: WorkerId, process: &Process) -> Self {
        let (pid, started) = (process.pid(), Timestamp::now());
        Self { worker, pid, started, jitter: jitter(), killed: None }
    }
}

impl End {
    pub(super) fn of_nobody() -> Self {
        let uptime = Duration::ZERO;
        Self { reason: String::new(), unexpected: true, uptime, connections: 0 }
    }
}

/// A number from 0 to 1 that differs from slot to slot and from time to time; nothing hangs on how
/// random it is.
pub(super) fn jitter() -> f64 {
    f64::from(Timestamp::now().0.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]) / 255.0
}
