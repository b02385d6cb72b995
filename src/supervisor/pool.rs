//! The one owner of all workers: carries out what each slot's life asks for.
//!
//! Thin: what to do is decided in `lifecycle` and `restart`; here are the processes, the timers and
//! the log lines. Never touches a client's socket.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::handoff::channel::Channel;
use crate::handoff::ids::{SlotId, Timestamp};
use crate::handoff::slots::{
    Counters, FrontendGone, SlotCommand, SlotCommander, SlotEvent, SlotEventKind, WorkerId,
};
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::lifecycle::{Action, Fact, KillReason, LifecycleSettings, SlotLife};
use crate::supervisor::output::Output;
use crate::supervisor::process::{Exit, Process};

/// What the pool runs on.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// How many slots.
    pub workers: u16,
    /// What each worker runs.
    pub command: WorkerCommand,
    /// The port that the primary listens on, as `PORT`.
    pub port: u16,
    /// Connections that a worker may have unacknowledged.
    pub credits: usize,
    /// How long a slot's clients wait for a successor: for a later one they don't wait at all.
    pub slot_wait: Duration,
    /// How long each phase may take.
    pub lifecycle: LifecycleSettings,
}

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Drain all and end.
    Stop,
    /// End all at once.
    StopNow,
}

/// How far the start is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Slots that serve.
    pub serving: u16,
}

/// Why the pool ended without being asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The command cannot be run.
    #[error("cannot run worker command {command:?}")]
    Command {
        /// The program.
        command: std::ffi::OsString,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No worker ever got ready.
    #[error("no worker became ready: the last one, in slot {slot}, {reason}")]
    NeverReady {
        /// The slot of the last attempt.
        slot: SlotId,
        /// What became of it.
        reason: String,
    },
    /// A worker's channel cannot be made.
    #[error("cannot make a channel for a worker")]
    Channel(#[source] io::Error),
    /// The frontend has ended.
    #[error(transparent)]
    Frontend(#[from] FrontendGone),
}

/// How it all went, when it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// What became of connections.
    pub counters: Counters,
    /// Workers that had to be killed at the end.
    pub killed: u16,
}

/// Supervises all workers.
#[derive(Debug)]
pub struct Pool {
    settings: PoolSettings,
    lives: Vec<SlotLife>,
    processes: HashMap<WorkerId, Running>,
    frontend: SlotCommander,
    output: Output,
    events: mpsc::Receiver<SlotEvent>,
    orders: mpsc::Receiver<Order>,
    progress: watch::Sender<Progress>,
    ended: (mpsc::Sender<WorkerId>, mpsc::Receiver<WorkerId>),
    closing: Option<JoinHandle<Result<(), FrontendGone>>>,
    accepting: bool,
    stopping: bool,
    killed: u16,
    last_failure: Option<(SlotId, String)>,
}

#[derive(Debug)]
struct Running {
    process: Arc<Process>,
    started: Timestamp,
    /// Why it was killed, if it was.
    killed: Option<KillReason>,
}

impl Pool {
    /// A pool that has started nothing yet.
    #[must_use]
    pub fn new(
        settings: PoolSettings,
        frontend: SlotCommander,
        output: Output,
        events: mpsc::Receiver<SlotEvent>,
        orders: mpsc::Receiver<Order>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let lives =
            (0..settings.workers).map(|_| SlotLife::new(settings.lifecycle.clone())).collect();
        Self {
            settings,
            lives,
            processes: HashMap::new(),
            frontend,
            output,
            events,
            orders,
            progress,
            // A worker's end waits its turn where there are many.
            ended: mpsc::channel(64),
            closing: None,
            accepting: false,
            stopping: false,
            killed: 0,
            last_failure: None,
        }
    }

    /// Starts all workers and keeps them running until ordered to stop.
    ///
    /// # Errors
    ///
    /// If no worker can be run at all, or the frontend has ended. The workers are killed then.
    pub async fn run(mut self) -> Result<Summary, PoolError> {
        let result = self.supervise().await;
        if result.is_err() {
            self.kill_all().await;
        }
        result
    }

    async fn supervise(&mut self) -> Result<Summary, PoolError> {
        for slot in self.slots() {
            self.on(slot, Fact::Start).await?;
        }
        while !(self.stopping && self.closing.is_none() && self.processes.is_empty()) {
            let deadline = self.lives.iter().filter_map(SlotLife::next_deadline).min();
            tokio::select! {
                Some(worker) = self.ended.1.recv() => self.bury(worker).await?,
                Some(event) = self.events.recv() => self.heard(event).await?,
                Some(order) = self.orders.recv() => self.obey(order).await?,
                () = until(deadline) => self.on_all(Fact::Time).await?,
                closed = join(self.closing.as_mut()) => {
                    self.closing = None;
                    closed?;
                    self.on_all(Fact::Stop).await?;
                }
            }
            self.look_at_start().await?;
        }
        let counters = self.frontend.count().await?;
        self.frontend.send(SlotCommand::End).await?;
        Ok(Summary { counters, killed: self.killed })
    }

    async fn on(&mut self, slot: SlotId, fact: Fact) -> Result<(), PoolError> {
        let actions = self.lives[slot.index()].on(fact, Timestamp::now());
        for action in actions {
            self.carry_out(slot, action).await?;
        }
        Ok(())
    }

    async fn on_all(&mut self, fact: Fact) -> Result<(), PoolError> {
        for slot in self.slots() {
            self.on(slot, fact).await?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, slot: SlotId, action: Action) -> Result<(), PoolError> {
        let worker = |generation| WorkerId { slot, generation };
        match action {
            Action::Spawn(generation) => self.spawn(worker(generation)).await?,
            Action::Serve(generation) => {
                self.frontend.send(SlotCommand::Serve(worker(generation))).await?;
                self.count_serving(worker(generation));
            }
            Action::Drain(generation) => {
                self.frontend.send(SlotCommand::Drain(worker(generation))).await?;
                tracing::info!(%slot, %generation, "worker drains");
            }
            Action::Terminate(generation) => self.signal(worker(generation), Signal::TERM),
            Action::Kill(generation, reason) => self.kill(worker(generation), reason),
            Action::BackOff(delay) => {
                tracing::warn!(%slot, delay_ms = delay.as_millis(), "slot waits before its next worker");
                if delay > self.settings.slot_wait {
                    self.frontend.send(SlotCommand::GiveUp(slot)).await?;
                }
            }
        }
        Ok(())
    }

    async fn spawn(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        let error = match Channel::create(self.settings.credits) {
            Err(source) if self.accepting => source,
            Err(source) => return Err(PoolError::Channel(source)),
            Ok((channel, end)) => {
                self.frontend.send(SlotCommand::Attach(worker, Box::new(channel))).await?;
                match Process::start(&self.settings.command, self.settings.port, worker, end) {
                    Ok((process, printed)) => {
                        self.output.take(worker, process.pid(), printed.stdout, printed.stderr);
                        self.started(worker, process);
                        return Ok(());
                    }
                    Err(source) if self.accepting => source,
                    Err(source) => {
                        let command = self.settings.command.program.clone();
                        return Err(PoolError::Command { command, source });
                    }
                }
            }
        };
        // It has worked before and may again: a deploy is replacing the program, say, or clients
        // have taken all descriptors for a moment.
        tracing::error!(slot = %worker.slot, %error, "worker cannot be started");
        self.frontend.send(SlotCommand::Gone(worker)).await?;
        Box::pin(self.on(worker.slot, Fact::Exited(worker.generation, jitter()))).await
    }

    fn started(&mut self, worker: WorkerId, process: Process) {
        tracing::debug!(
            slot = %worker.slot, generation = %worker.generation, pid = process.pid(),
            "worker started",
        );
        let process = Arc::new(process);
        let (watched, ended) = (Arc::clone(&process), self.ended.0.clone());
        tokio::spawn(async move {
            watched.ended().await;
            // Without a pool there is nobody to tell.
            let _ = ended.send(worker).await;
        });
        self.processes.insert(worker, Running { process, started: Timestamp::now(), killed: None });
    }

    async fn bury(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        let Some(running) = self.processes.remove(&worker) else { return Ok(()) };
        let reason = match running.process.reap() {
            Ok(exit) => describe(running.killed, exit, self.settings.lifecycle.listen_timeout),
            Err(error) => format!("ended, its status is unknown: {error}"),
        };
        self.frontend.send(SlotCommand::Gone(worker)).await?;
        let expected = self.stopping || !self.is_last_of_slot(worker);
        let uptime = Timestamp::now().since(running.started);
        let (slot, generation, pid) = (worker.slot, worker.generation, running.process.pid());
        if expected {
            tracing::info!(%slot, %generation, pid, reason, ?uptime, "worker is gone");
        } else {
            tracing::warn!(%slot, %generation, pid, reason, ?uptime, "worker died");
            self.last_failure = Some((slot, reason));
        }
        self.on(slot, Fact::Exited(generation, jitter())).await
    }

    async fn heard(&mut self, event: SlotEvent) -> Result<(), PoolError> {
        let SlotEvent { worker, kind } = event;
        let generation = worker.generation;
        let fact = match kind {
            SlotEventKind::Ready => Fact::Ready(generation),
            SlotEventKind::Leave if self.stopping => return Ok(()),
            SlotEventKind::Leave => {
                tracing::info!(slot = %worker.slot, %generation, "worker asks to be replaced");
                Fact::Leave(generation)
            }
            SlotEventKind::Violation(error) => {
                tracing::error!(
                    slot = %worker.slot, %generation, %error,
                    "worker breaks the protocol and is killed",
                );
                Fact::Violation(generation)
            }
        };
        self.on(worker.slot, fact).await
    }

    async fn obey(&mut self, order: Order) -> Result<(), PoolError> {
        match order {
            Order::Stop if !self.stopping => {
                self.stopping = true;
                let frontend = self.frontend.clone();
                self.closing = Some(tokio::spawn(async move { frontend.stop_accepting().await }));
                Ok(())
            }
            Order::Stop => Ok(()),
            Order::StopNow => {
                self.stopping = true;
                self.closing = None;
                self.on_all(Fact::StopNow).await
            }
        }
    }

    /// Begins to accept as soon as each slot's first worker is ready or has failed, and gives up
    /// when all have failed too often.
    async fn look_at_start(&mut self) -> Result<(), PoolError> {
        if self.accepting || self.stopping {
            return Ok(());
        }
        if self.lives.iter().all(SlotLife::has_failed_to_start) {
            let (slot, reason) = self.last_failure.take().unwrap_or((SlotId(0), String::new()));
            return Err(PoolError::NeverReady { slot, reason });
        }
        let some_serve = self.lives.iter().any(SlotLife::is_serving);
        if some_serve && self.lives.iter().all(SlotLife::has_started) {
            self.accepting = true;
            self.frontend.send(SlotCommand::Accept).await?;
        }
        Ok(())
    }

    fn count_serving(&self, worker: WorkerId) {
        let serving = self.lives.iter().filter(|life| life.is_serving()).count();
        let serving = u16::try_from(serving).unwrap_or(u16::MAX);
        let of = self.settings.workers;
        let pid = self.processes.get(&worker).map(|running| running.process.pid());
        let (slot, generation) = (worker.slot, worker.generation);
        tracing::info!(%slot, %generation, pid, serving, of, "worker serves");
        self.progress.send_replace(Progress { serving });
    }

    fn kill(&mut self, worker: WorkerId, reason: KillReason) {
        if let Some(running) = self.processes.get_mut(&worker) {
            running.killed = Some(reason);
            self.killed = self.killed.saturating_add(u16::from(self.stopping));
        }
        self.signal(worker, Signal::KILL);
    }

    fn signal(&self, worker: WorkerId, signal: Signal) {
        if let Some(running) = self.processes.get(&worker) {
            running.process.signal(signal);
        }
    }

    async fn kill_all(&mut self) {
        for (_, running) in self.processes.drain() {
            running.process.signal(Signal::KILL);
            running.process.ended().await;
            // Its status is of no interest any more.
            let _ = running.process.reap();
        }
    }

    fn is_last_of_slot(&self, worker: WorkerId) -> bool {
        !self.processes.keys().any(|other| other.slot == worker.slot)
    }

    fn slots(&self) -> impl Iterator<Item = SlotId> + use<> {
        (0..self.settings.workers).map(SlotId)
    }
}

fn describe(killed: Option<KillReason>, exit: Exit, listen_timeout: Duration) -> String {
    match killed {
        Some(KillReason::NotReady) => {
            format!("was not ready within {listen_timeout:?} (--listen-timeout) and was killed")
        }
        Some(KillReason::Violation) => "broke the protocol and was killed".to_owned(),
        Some(KillReason::GraceOver) => {
            "was killed at the end of its grace period (--kill-timeout)".to_owned()
        }
        Some(KillReason::StopNow) => "was killed, as ordered".to_owned(),
        None => exit.to_string(),
    }
}

/// A number from 0 to 1 that differs from slot to slot and from time to time; nothing hangs on how
/// random it is.
fn jitter() -> f64 {
    f64::from(Timestamp::now().0.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]) / 255.0
}

async fn until(deadline: Option<Timestamp>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(Timestamp::now())).await,
        None => std::future::pending().await,
    }
}

async fn join(
    closing: Option<&mut JoinHandle<Result<(), FrontendGone>>>,
) -> Result<(), FrontendGone> {
    match closing {
        Some(closing) => closing.await.unwrap_or(Err(FrontendGone)),
        None => std::future::pending().await,
    }
}
