//! Slots and their workers: carries out what each slot's life asks for.
//!
//! Everything that follows from a fact goes through [`Fleet::on`]. Who learns of facts, and when, is
//! decided elsewhere: in `health`, `scaling`, `slot_commands`, `stop` and the pool itself.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::error::chain;
use crate::link::interface::{Interface, InterfaceChoice};
use crate::link::seam::{CommandSender, SlotCommand, WorkerId};
use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::ended::EndedConnections;
use crate::supervisor::event::{Announcer, End, Event, WorkerChange};
use crate::supervisor::lifecycle::{Action, Fact, KillReason, Phase, SlotState};
use crate::supervisor::orphans::Orphans;
use crate::supervisor::output::Output;
use crate::supervisor::pool::crash_record::CrashRecord;
use crate::supervisor::pool::error::PoolError;
use crate::supervisor::pool::hints::Hints;
use crate::supervisor::pool::history::History;
use crate::supervisor::pool::launch::{Launched, Launcher};
use crate::supervisor::pool::run_state::RunState;
use crate::supervisor::pool::settings::PoolSettings;
use crate::supervisor::pool::slots::Slots;
use crate::supervisor::pool::stats::Crash;
use crate::supervisor::pool::worker_message::WorkerMessage;
use crate::supervisor::pool::workers::{WorkerStart, Workers, jitter};
use crate::supervisor::rollout::planner::Planner;
use crate::supervisor::rollout::{Cause, Part};

/// How long the end of killed workers is waited for.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// For a worker whose event loop has stalled: the frontend gives it no more connections, and it will
/// not read the order.
const ABORTED: DrainOrder =
    DrainOrder { mode: DrainMode::Wait, reason: DrainReason::Restart, window: Duration::ZERO };

/// Slots, workers, and all that a slot's life can ask for.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) settings: PoolSettings,
    /// The settings before the rolling restart that is under way. They hold again if it is aborted.
    pub(super) before: Option<PoolSettings>,
    pub(super) slots: Slots,
    pub(super) workers: Workers,
    pub(super) planner: Planner,
    pub(super) history: History,
    pub(super) state: RunState,
    /// Connections are accepted: the first workers were ready.
    pub(super) accepting: bool,
    pub(super) frontend: CommandSender,
    pub(super) announcer: Announcer,
    pub(super) output: Output,
    pub(super) orphans: Orphans,
    pub(super) record: CrashRecord,
    pub(super) hints: Hints,
}

impl Fleet {
    /// Tells a slot's life of a fact, and carries out what follows.
    pub(super) async fn on(&mut self, slot: SlotId, fact: Fact) -> Result<(), PoolError> {
        let Some(found) = self.slots.get_mut(slot) else { return Ok(()) };
        for action in found.life.on(fact, Timestamp::now()) {
            self.carry_out(slot, action).await?;
        }
        Ok(())
    }

    pub(super) async fn on_all(&mut self, fact: Fact) -> Result<(), PoolError> {
        for slot in self.slots.ids() {
            self.on(slot, fact).await?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, slot: SlotId, action: Action) -> Result<(), PoolError> {
        let worker = |generation| WorkerId { slot, generation };
        match action {
            Action::Spawn(generation) => self.spawn(worker(generation)).await?,
            Action::Serve(generation) => self.serve(worker(generation)).await?,
            Action::Drain(generation, order) => {
                self.frontend.send(SlotCommand::Drain(worker(generation), order)).await?;
                let reason = self.reason_to_drain(slot);
                self.announce(worker(generation), WorkerChange::Draining(reason));
            }
            Action::ShortenDeadline(generation, order) => {
                self.shorten_deadline(worker(generation), order).await?;
            }
            Action::Disconnect(generation) => {
                self.frontend.send(SlotCommand::Disconnect(worker(generation))).await?;
            }
            Action::Stop(generation) => self.stop(worker(generation)),
            Action::Terminate(generation) => {
                self.workers.signal(worker(generation), Signal::TERM);
            }
            Action::Abort(generation) => self.abort(worker(generation)).await?,
            Action::Kill(generation, reason) => self.kill(worker(generation), reason),
            Action::BackOff(delay) => {
                let state = SlotState::BackOff;
                self.announcer.announce(Event::Slot { slot, state, delay: Some(delay) });
                if delay > self.settings.slot_wait {
                    self.frontend.send(SlotCommand::GiveUp(slot)).await?;
                }
            }
            Action::Idle(state) => {
                self.announcer.announce(Event::Slot { slot, state, delay: None });
                self.frontend.send(SlotCommand::GiveUp(slot)).await?;
            }
            Action::Replaced(_) => self.replaced(slot),
            Action::ReplacementFailed(_) => self.replacement_failed(slot),
        }
        Ok(())
    }

    async fn serve(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        self.frontend.send(SlotCommand::Serve(worker)).await?;
        if self.slots.rank(worker.slot) {
            self.send_ranks().await?;
        }
        let (serving, of) = self.slots.count_serving();
        self.announce(worker, WorkerChange::Ready { serving, of });
        Ok(())
    }

    /// Tells the frontend which slots clients belong to.
    pub(super) async fn send_ranks(&self) -> Result<(), PoolError> {
        let ranked = self.slots.ranked(&self.settings.weights);
        Ok(self.frontend.send(SlotCommand::Rank(ranked)).await?)
    }

    /// Takes what a worker has said.
    pub(super) async fn receive(
        &mut self,
        worker: WorkerId,
        message: WorkerMessage,
    ) -> Result<(), PoolError> {
        let generation = worker.generation;
        if message == WorkerMessage::Hello {
            self.hints.attached();
        }
        let fact = match message {
            WorkerMessage::Hello if self.settings.wait_ready => return Ok(()),
            WorkerMessage::Hello | WorkerMessage::Ready => Fact::Ready(generation),
            WorkerMessage::Leave => return self.replacement_requested(worker).await,
            WorkerMessage::Violation => Fact::Kill(generation, KillReason::Violation),
        };
        if matches!(fact, Fact::Ready(_))
            && let Some(running) = self.workers.get(worker)
        {
            running.sample_start();
        }
        self.on(worker.slot, fact).await
    }

    /// A worker asks to be replaced. One that isn't ready just ends.
    async fn replacement_requested(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        let WorkerId { slot, generation } = worker;
        if self.state.is_stopping() {
            return Ok(());
        }
        match self.slots.phase(worker) {
            Some(Phase::Spawning { .. } | Phase::Spare { .. }) => {
                self.on(slot, Fact::Leave(generation)).await?;
            }
            Some(Phase::Serving { .. }) => {
                self.planner.want(slot, Cause::Asked, Timestamp::now());
            }
            _ => {}
        }
        Ok(())
    }

    async fn spawn(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        let Some(slot) = self.slots.get(worker.slot) else { return Ok(()) };
        let command = Arc::clone(slot.candidate.as_ref().unwrap_or(&slot.command));
        let launcher = Launcher {
            settings: &self.settings,
            frontend: &self.frontend,
            record: &self.record,
            output: &self.output,
        };
        match launcher.start(worker, command).await? {
            Ok(launched) => {
                self.started(worker, launched);
                Ok(())
            }
            // It has worked before and may work again: a deploy is replacing the program, say, or
            // clients have taken all descriptors for a moment.
            Err(error) if self.accepting => self.not_started(worker, &error).await,
            Err(error) => Err(error),
        }
    }

    fn started(&mut self, worker: WorkerId, launched: Launched) {
        let Launched { process, stats, interface, member } = launched;
        self.workers.watch(WorkerStart::now(worker), process, stats, member);
        if let Some(interface) = interface {
            self.note_interface(worker, interface);
        }
        if self.state.is_stopping() {
            self.workers.note_stopping(worker);
        }
        self.history.stats.started(worker.slot);
        self.announce(worker, WorkerChange::Spawned);
    }

    async fn not_started(&mut self, worker: WorkerId, error: &PoolError) -> Result<(), PoolError> {
        let reason = chain(error);
        self.history.crashed(worker.slot, Crash::NotStarted, &reason);
        self.announce(worker, WorkerChange::Exited(End::unseen(reason, true)));
        Box::pin(self.exited(worker, None)).await
    }

    /// The error of a pool whose workers never became ready.
    pub(super) fn never_ready(&mut self) -> PoolError {
        let (slot, reason) = self.history.last_failure.take().unwrap_or_default();
        let words = self.settings.command.words();
        PoolError::NeverReady {
            slot,
            reason: reason + &self.hints.no_worker(&words, &self.settings),
        }
    }

    fn stop(&self, worker: WorkerId) {
        let signal = self.settings.stop_signal;
        tracing::debug!(
            slot = worker.slot.0,
            generation = worker.generation.0,
            signal,
            "signal sent"
        );
        if let Some(signal) = Signal::from_named_raw(signal) {
            self.workers.signal(worker, signal);
        }
    }

    /// Whether a worker drains and gets its signal when its last client has gone.
    pub(super) fn waits_for_signal(&self, worker: WorkerId) -> bool {
        let slot = self.slots.get(worker.slot);
        slot.is_some_and(|slot| slot.life.waits_for_signal(worker.generation))
    }

    /// It is known what a worker speaks.
    pub(super) fn note_interface(&mut self, worker: WorkerId, interface: Interface) {
        self.hints.speaks(worker, interface, self.settings.interface == InterfaceChoice::Auto);
        if let Some(running) = self.workers.get_mut(worker) {
            running.interface = Some(interface);
        }
        if interface.ends_by_signal()
            && let Some(slot) = self.slots.get_mut(worker.slot)
        {
            slot.life.end_by_signal(worker.generation);
        }
    }

    /// Handles the end of a worker's process.
    pub(super) async fn reap(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        let Some(running) = self.workers.remove(worker) else { return Ok(()) };
        let exit = running.process.reap();
        self.record.remove_worker(worker);
        let status = exit.as_ref().ok().and_then(|exit| exit.status());
        let lifecycle = &self.settings.lifecycle;
        let (reason, crash) = self.workers.explain_end(&running, exit, lifecycle);
        let crash = crash.filter(|_| !self.slots.is_end_ordered(worker));
        if running.has_attached() {
            self.hints.attached();
        }
        let was_late = running.killed == Some(KillReason::NotReady);
        self.hints.gone(worker, was_late, &self.settings);
        if let Some(crash) = crash {
            self.history.crashed(worker.slot, crash, &reason);
        }
        self.reap_orphans();
        if running.interface.is_some_and(Interface::ends_by_signal) && status == Some(0) {
            // It has ended by itself, as programs do whose last client has gone: the last count was a moment before.
            running.note_clients(0);
        }
        let stats = running.stats();
        let connections = stats.connections_total.unwrap_or(0);
        self.history.stats.exited(worker.slot, connections, stats.requests_total.unwrap_or(0));
        let uptime = Timestamp::now().since(running.started);
        let ended = EndedConnections::new(&stats);
        self.history.summary.ended.add(&ended);
        let unexpected = crash.is_some();
        self.hints.died(&ended, unexpected && self.settings.protect);
        let end = End { reason, unexpected, uptime, connections, ended };
        let (pid, change) = (running.process.pid(), WorkerChange::Exited(end));
        self.announcer.announce(Event::Worker { worker, pid, change });
        self.exited(worker, status).await
    }

    /// Handles the end of a worker whose process is gone without having been watched.
    pub(super) async fn lost(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        let reason = "ended when there was no primary, its status is unknown".to_owned();
        let unexpected = !self.slots.is_end_ordered(worker);
        if unexpected {
            self.history.crashed(worker.slot, Crash::Exited, &reason);
        }
        self.announce(worker, WorkerChange::Exited(End::unseen(reason, unexpected)));
        self.record.remove_worker(worker);
        self.exited(worker, None).await
    }

    async fn exited(&mut self, worker: WorkerId, status: Option<i32>) -> Result<(), PoolError> {
        self.frontend.send(SlotCommand::Gone(worker)).await?;
        let generation = worker.generation;
        self.on(worker.slot, Fact::Exited { generation, status, jitter: jitter() }).await
    }

    /// Kills what workers that are gone have left behind.
    pub(super) fn reap_orphans(&mut self) {
        self.orphans.reap(&self.workers.pids());
    }

    fn kill(&mut self, worker: WorkerId, reason: KillReason) {
        if self.workers.mark_killed(worker, reason).is_none() {
            return;
        }
        if self.state.is_stopping() {
            let summary = &mut self.history.summary;
            summary.killed = summary.killed.saturating_add(1);
        }
        let reason = self.settings.lifecycle.explain(reason);
        self.announce(worker, WorkerChange::Killed(reason));
        self.workers.signal(worker, Signal::KILL);
    }

    /// Tells a worker that drains already that it has less time.
    async fn shorten_deadline(&self, worker: WorkerId, order: DrainOrder) -> Result<(), PoolError> {
        let (slot, generation) = (worker.slot.0, worker.generation.0);
        tracing::info!(slot, generation, left = ?order.window, "drain deadline shortened");
        Ok(self.frontend.send(SlotCommand::Drain(worker, order)).await?)
    }

    /// Gives a worker's clients to its successor at once. SIGABRT lets it write a core.
    async fn abort(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        let stalled = self.workers.mark_killed(worker, KillReason::Stalled);
        let overdue = stalled.is_some_and(|running| running.health.watchdog.is_overdue());
        let reason = match overdue {
            true => "does not acknowledge what it has received",
            false => "event loop stands still",
        };
        self.announce(worker, WorkerChange::Aborted(reason.to_owned()));
        // First: it may end by itself when it is told to drain.
        self.workers.signal(worker, Signal::ABORT);
        Ok(self.frontend.send(SlotCommand::Drain(worker, ABORTED)).await?)
    }

    /// Kills all workers and waits for their ends, if these come in time.
    pub(super) async fn kill_all(&mut self) {
        let killed: Vec<_> = self.workers.drain().collect();
        killed.iter().for_each(|(_, running)| running.process.signal(Signal::KILL));
        let until = tokio::time::Instant::now() + KILL_TIMEOUT;
        for (worker, running) in killed {
            if tokio::time::timeout_at(until, running.process.ended()).await.is_err() {
                let (slot, pid) = (worker.slot.0, running.process.pid());
                tracing::error!(slot, pid, "killed worker does not end: left behind");
            }
            // The status is of no interest any more.
            let _ = running.process.reap();
            self.record.remove_worker(worker);
        }
    }

    /// Starts the successor of a slot's worker. A single slot gets a worker of the kind that it has;
    /// in a rolling restart, of the new kind.
    pub(super) async fn replace(
        &mut self,
        slot: SlotId,
        cause: Option<Cause>,
    ) -> Result<(), PoolError> {
        let worker = self.slots.serving(slot);
        let Some(found) = self.slots.get_mut(slot) else { return Ok(()) };
        let command = if cause.is_some() { &found.command } else { &self.settings.command };
        found.candidate = Some(Arc::clone(command));
        if let (Some(worker), Some(cause)) = (worker, cause) {
            self.announce(worker, WorkerChange::Replacing(cause.to_string()));
        }
        self.on(slot, Fact::Replace).await
    }

    fn replaced(&mut self, slot: SlotId) {
        if let Some(found) = self.slots.get_mut(slot)
            && let Some(command) = found.candidate.take()
        {
            found.command = command;
        }
        let Some(part) = self.planner.replaced(slot) else { return };
        self.announcer.announce(Event::Replaced { slot });
        if let Part::Single(cause) = part {
            self.history.stats.replaced(cause);
        }
    }

    fn replacement_failed(&mut self, slot: SlotId) {
        self.forget_candidate(slot);
        let reason = self.history.why_replacement_failed(slot);
        if self.planner.failed(slot, &reason, Timestamp::now()).is_some() {
            self.announcer.announce(Event::ReplacementFailed { slot, reason });
        }
    }

    /// Cancels the replacement of a slot's worker.
    pub(super) fn cancel_replacement(&mut self, slot: SlotId, reason: &str) {
        self.forget_candidate(slot);
        if self.planner.removed(slot) {
            let reason = reason.to_owned();
            self.announcer.announce(Event::ReplacementFailed { slot, reason });
        }
    }

    /// Cancels all replacements, for good.
    pub(super) fn cancel_all_replacements(&mut self) {
        for slot in self.planner.stop() {
            let reason = "everything ends".to_owned();
            self.announcer.announce(Event::ReplacementFailed { slot, reason });
        }
    }

    fn forget_candidate(&mut self, slot: SlotId) {
        if let Some(found) = self.slots.get_mut(slot) {
            found.candidate = None;
        }
    }

    /// The command of a slot that comes back. The workers of a rolling restart that is under way are
    /// not known to be stable yet.
    pub(super) fn stable_command(&self) -> Arc<WorkerCommand> {
        Arc::clone(&self.before.as_ref().unwrap_or(&self.settings).command)
    }

    fn reason_to_drain(&self, slot: SlotId) -> &'static str {
        match self.slots.get(slot).map(|slot| slot.life.state()) {
            _ if self.state.is_stopping() => "everything ends",
            Some(SlotState::Removed) => "its slot is removed",
            Some(SlotState::Drained) => "its slot is drained",
            _ => "its successor is stable",
        }
    }

    fn announce(&self, worker: WorkerId, change: WorkerChange) {
        let pid = self.workers.pid(worker);
        self.announcer.announce(Event::Worker { worker, pid, change });
    }
}
