//! The one owner of all workers: carries out what each slot's life asks for.
//!
//! Thin: what to do is decided in `slot_life`, `restart`, `rollout`, `autoscale`, `limits` and
//! `watchdog`; here are the processes and the timers. Never touches a client's socket.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustix::process::Signal;
use tokio::sync::mpsc;

use crate::handover::pool::WorkerMessage;
use crate::link::seam::{SlotCommand, SlotEvent, SlotEventKind, WorkerId};
use crate::protocol::ids::{Generation, SlotId, Timestamp};
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::event::{Event, WorkerChange};
use crate::supervisor::lifecycle::{Action, Fact, KillReason, SlotState};
use crate::supervisor::rollout::Planner;
use crate::supervisor::slot_life::SlotLife;
use crate::system::limits::oom_kills;

mod adoption;
pub mod handle;
mod handover;
mod health;
mod interface;
mod keeping;
mod orders;
mod replacements;
mod resume;
mod scaling;
mod show;
mod slot_orders;
pub mod snapshot;
mod stats;
pub mod status;
mod stop;
mod workers;

use health::Health;
pub use interface::{MOST_WORKERS, Order, PoolError, PoolLinks, PoolSettings, Progress, Summary};
use keeping::Written;
use resume::Resume;
use scaling::Deferred;
use snapshot::{PoolEnd, worker_message};
use stats::Stats;
use stop::Stopping;
use workers::Running;

/// Supervises all workers.
#[derive(Debug)]
pub struct Pool {
    settings: PoolSettings,
    links: PoolLinks,
    /// What held before the rolling restart that is under way, and holds again if it is aborted.
    before: Option<PoolSettings>,
    /// More workers or fewer, ordered meanwhile: it is not known yet of which kind.
    deferred: Option<Deferred>,
    /// Those that were removed stay, so that their generations go on.
    slots: BTreeMap<SlotId, Slot>,
    running: HashMap<WorkerId, Running>,
    planner: Planner,
    health: Health,
    ended: (mpsc::Sender<WorkerId>, mpsc::Receiver<WorkerId>),
    accepting: bool,
    stopping: Stopping,
    summary: Summary,
    stats: Stats,
    last_failure: Option<(SlotId, String)>,
    /// Processes that the kernel has killed since memory ran out, where it says so.
    oom_kills: Option<u64>,
    /// Left by the one before, as long as it wasn't gone on with.
    resume: Option<Resume>,
    /// It ends with this turn, and another one goes on.
    is_handing_over: bool,
    written: Written,
}

/// What a run came to.
enum Supervised {
    Ended(Summary),
    /// With what workers said last.
    HandingOver(Vec<(WorkerId, WorkerMessage)>),
}

#[derive(Debug)]
struct Slot {
    life: SlotLife,
    /// What its workers run.
    command: Arc<WorkerCommand>,
    /// What they will run, once the worker that tries it has proved itself.
    candidate: Option<Arc<WorkerCommand>>,
    /// Clients belong to it. A new slot gets clients when its first worker serves.
    ranked: bool,
}

impl Pool {
    /// A pool that has started nothing yet.
    #[must_use]
    pub fn new(settings: PoolSettings, links: PoolLinks) -> Self {
        let pool = Self::empty(settings, links);
        pool.keep_journal();
        pool
    }

    fn empty(settings: PoolSettings, links: PoolLinks) -> Self {
        Self {
            settings,
            links,
            before: None,
            deferred: None,
            slots: BTreeMap::new(),
            running: HashMap::new(),
            planner: Planner::default(),
            health: Health::default(),
            // A worker's end waits its turn where there are many.
            ended: mpsc::channel(64),
            accepting: false,
            stopping: Stopping::No,
            summary: Summary::default(),
            stats: Stats::default(),
            last_failure: None,
            oom_kills: oom_kills(),
            resume: None,
            is_handing_over: false,
            written: Written::default(),
        }
    }

    /// Starts all workers, or goes on with those that there are, and keeps them running until ordered
    /// to stop, or to hand over.
    ///
    /// # Errors
    ///
    /// If no worker can be run at all, or any more, or the frontend has ended. The workers are
    /// killed then.
    pub async fn run(mut self) -> Result<PoolEnd, PoolError> {
        let result = match self.supervise().await {
            Ok(Supervised::HandingOver(unheard)) => {
                return Ok(PoolEnd::HandedOver(Box::new(self.into_handover(unheard))));
            }
            Ok(Supervised::Ended(summary)) => Ok(PoolEnd::Ended(summary)),
            Err(error) => {
                self.kill_all().await;
                Err(error)
            }
        };
        self.links.orphans.end().await;
        result
    }

    async fn supervise(&mut self) -> Result<Supervised, PoolError> {
        match self.resume.take() {
            None => self.begin().await?,
            Some(resume) => self.go_on(resume).await?,
        }
        let mut next_beat = self.settings.heartbeat.map(|every| Timestamp::now() + every);
        self.end_turn(true).await?;
        while !self.is_handing_over && !self.is_over()? {
            let deadline = self.slots.values().filter_map(|slot| slot.life.next_deadline()).min();
            let mut decides = true;
            tokio::select! {
                Some(worker) = self.ended.1.recv() => self.bury(worker).await?,
                () = self.links.orphans.child_ended() => self.tend_orphans(),
                () = until_then(next_beat) => {
                    decides = false;
                    next_beat = self.beat().await?;
                }
                Some(event) = self.links.events.recv() => {
                    decides = !matches!(event.kind, SlotEventKind::Pong);
                    self.heard(event).await?;
                }
                Some(order) = self.links.orders.recv() => self.obey(order).await?,
                () = until_then(deadline) => self.on_all(Fact::Time).await?,
                look = self.health.next() => self.look(look).await?,
                step = self.stopping.next() => self.go_on_stopping(step).await?,
            }
            self.end_turn(decides).await?;
        }
        if self.is_handing_over {
            return Ok(Supervised::HandingOver(self.stop_frontend().await?));
        }
        self.summary.counters = self.links.frontend.count().await?;
        self.links.frontend.send(SlotCommand::End).await?;
        Ok(Supervised::Ended(self.summary))
    }

    async fn begin(&mut self) -> Result<(), PoolError> {
        for slot in (0..self.settings.workers).map(SlotId) {
            self.add_slot(slot, true);
        }
        self.rank().await?;
        self.on_all(Fact::Start).await?;
        self.health.change(&self.settings, Timestamp::now());
        Ok(())
    }

    /// `decides`: what has happened may have changed something that a successor has to know.
    async fn end_turn(&mut self, decides: bool) -> Result<(), PoolError> {
        self.plan().await?;
        self.look_at_start().await?;
        self.show_progress();
        if decides {
            self.written.outdate();
        }
        self.write_journal();
        Ok(())
    }

    /// Whether all is done: drained as ordered, or every slot at rest. A drained one may be wanted
    /// again.
    fn is_over(&mut self) -> Result<bool, PoolError> {
        if !self.running.is_empty() {
            return Ok(false);
        }
        if matches!(self.stopping, Stopping::Draining) {
            return Ok(true);
        }
        let states: Vec<_> = self.active().map(|(_, slot)| slot.life.state()).collect();
        let at_rest = |state: &_| matches!(state, SlotState::Errored | SlotState::Stopped);
        if self.stopping.is_ordered() || !states.iter().all(at_rest) {
            return Ok(false);
        }
        if states.iter().all(|state| *state == SlotState::Stopped) {
            tracing::info!("every slot is stopped: nothing is left to do");
            return Ok(true);
        }
        let (slot, reason) = self.last_failure.take().unwrap_or_default();
        Err(if self.accepting {
            PoolError::AllErrored { slot, reason }
        } else {
            PoolError::NeverReady { slot, reason }
        })
    }

    async fn on(&mut self, slot: SlotId, fact: Fact) -> Result<(), PoolError> {
        let Some(found) = self.slots.get_mut(&slot) else { return Ok(()) };
        for action in found.life.on(fact, Timestamp::now()) {
            self.carry_out(slot, action).await?;
        }
        Ok(())
    }

    async fn on_all(&mut self, fact: Fact) -> Result<(), PoolError> {
        for slot in self.slots.keys().copied().collect::<Vec<_>>() {
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
                self.links.frontend.send(SlotCommand::Drain(worker(generation), order)).await?;
                let reason = self.reason_to_drain(slot);
                self.announce_worker(worker(generation), WorkerChange::Drains(reason));
            }
            Action::Hasten(generation, order) => {
                self.shorten_deadline(worker(generation), order).await?
            }
            Action::Terminate(generation) => self.signal(worker(generation), Signal::TERM),
            Action::Abort(generation) => self.abort(worker(generation)).await?,
            Action::Kill(generation, reason) => self.kill(worker(generation), reason),
            Action::BackOff(delay) => {
                let state = SlotState::BackOff;
                self.links.announcer.announce(Event::Slot { slot, state, delay: Some(delay) });
                if delay > self.settings.slot_wait {
                    self.links.frontend.send(SlotCommand::GiveUp(slot)).await?;
                }
            }
            Action::Idle(state) => {
                self.links.announcer.announce(Event::Slot { slot, state, delay: None });
                self.links.frontend.send(SlotCommand::GiveUp(slot)).await?;
            }
            Action::Replaced(_) => self.replaced(slot),
            Action::NotReplaced(_) => self.not_replaced(slot),
        }
        Ok(())
    }

    async fn serve(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        self.links.frontend.send(SlotCommand::Serve(worker)).await?;
        if let Some(slot) = self.slots.get_mut(&worker.slot)
            && !std::mem::replace(&mut slot.ranked, true)
        {
            self.rank().await?;
        }
        let (serving, of) = self.count_serving();
        self.announce_worker(worker, WorkerChange::Serves { serving, of });
        Ok(())
    }

    async fn heard(&mut self, event: SlotEvent) -> Result<(), PoolError> {
        let SlotEvent { worker, kind } = event;
        if let SlotEventKind::Violation(error) = &kind {
            tracing::error!(
                slot = worker.slot.0, generation = worker.generation.0, %error,
                "worker breaks the protocol and is killed",
            );
        }
        match worker_message(&kind) {
            Some(message) => self.heard_say(worker, message).await,
            None => {
                if let Some(running) = self.running.get_mut(&worker) {
                    running.vitals.watchdog.pong(Timestamp::now());
                }
                Ok(())
            }
        }
    }

    async fn heard_say(
        &mut self,
        worker: WorkerId,
        message: WorkerMessage,
    ) -> Result<(), PoolError> {
        let generation = worker.generation;
        let fact = match message {
            WorkerMessage::Hello if self.settings.wait_ready => return Ok(()),
            WorkerMessage::Hello | WorkerMessage::Ready => Fact::Ready(generation),
            WorkerMessage::Leave => return self.heard_leave(worker).await,
            WorkerMessage::Violation => Fact::Kill(generation, KillReason::Violation),
        };
        self.on(worker.slot, fact).await
    }

    /// Begins to accept as soon as each slot's first worker is ready or has failed, and gives up
    /// when all have failed too often.
    async fn look_at_start(&mut self) -> Result<(), PoolError> {
        if self.accepting || self.stopping.is_ordered() {
            return Ok(());
        }
        let lives = || self.active().map(|(_, slot)| &slot.life);
        if lives().all(SlotLife::has_failed_to_start) {
            let (slot, reason) = self.last_failure.take().unwrap_or_default();
            return Err(PoolError::NeverReady { slot, reason });
        }
        if lives().any(SlotLife::is_serving) && lives().all(SlotLife::has_started) {
            self.accepting = true;
            self.links.frontend.send(SlotCommand::Accept).await?;
        }
        Ok(())
    }

    /// Tells the frontend which slots clients belong to.
    async fn rank(&self) -> Result<(), PoolError> {
        let weight = |slot: SlotId| self.settings.weights.get(slot.index()).copied();
        let ranked = self.slots.iter().filter(|(_, slot)| slot.ranked);
        let ranked = ranked.map(|(slot, _)| (*slot, weight(*slot).unwrap_or(1.0))).collect();
        Ok(self.links.frontend.send(SlotCommand::Rank(ranked)).await?)
    }

    fn add_slot(&mut self, slot: SlotId, ranked: bool) {
        let command = Arc::clone(&self.settings.command);
        let life = SlotLife::new(self.settings.lifecycle.clone());
        let new = Slot { life, command: Arc::clone(&command), candidate: None, ranked };
        let slot = self.slots.entry(slot).or_insert(new);
        (slot.command, slot.candidate) = (command, None);
    }

    /// The slots that are not removed.
    fn active(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        let slots = self.slots.iter().map(|(id, slot)| (*id, slot));
        slots.filter(|(_, slot)| slot.life.state() != SlotState::Removed)
    }

    /// Slots that serve, and slots.
    fn count_serving(&self) -> (u16, u16) {
        let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        let serving = self.active().filter(|(_, slot)| slot.life.is_serving()).count();
        (count(serving), count(self.active().count()))
    }

    fn show_progress(&self) {
        let (serving, of) = self.count_serving();
        self.links.progress.send_if_modified(|shown| {
            let now = Progress { serving, of, accepting: self.accepting, ..*shown };
            std::mem::replace(shown, now) != now
        });
    }

    /// Asks the frontend something, so that the beat stands for both.
    async fn beat(&self) -> Result<Option<Timestamp>, PoolError> {
        self.links.frontend.count().await?;
        self.links.progress.send_modify(|progress| progress.beats += 1);
        Ok(self.settings.heartbeat.map(|every| Timestamp::now() + every))
    }

    /// The worker that serves a slot.
    fn serving(&self, slot: SlotId) -> Option<WorkerId> {
        let (generation, _): (Generation, _) = self.slots.get(&slot)?.life.serving()?;
        Some(WorkerId { slot, generation })
    }

    fn reason_to_drain(&self, slot: SlotId) -> &'static str {
        match self.slots.get(&slot).map(|slot| slot.life.state()) {
            _ if self.stopping.is_ordered() => "everything ends",
            Some(SlotState::Removed) => "its slot is removed",
            Some(SlotState::Drained) => "its slot is drained",
            _ => "its successor has proved itself",
        }
    }

    fn announce_worker(&self, worker: WorkerId, change: WorkerChange) {
        let pid = self.running.get(&worker).map_or(0, |running| running.process.pid());
        self.links.announcer.announce(Event::Worker { worker, pid, change });
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

async fn until_then(deadline: Option<Timestamp>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(Timestamp::now())).await,
        None => std::future::pending().await,
    }
}
