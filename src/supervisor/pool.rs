//! The one owner of all workers: carries out what each slot's life asks for.
//!
//! Thin: what to do is decided in `slot_life`, `restart`, `rollout`, `autoscale`, `limits` and
//! `watchdog`; here are the processes and the timers. Never touches a client's socket.
//!
//! The pool itself takes turns: it waits for the next event of any kind, and has the part handle it
//! that owns it. [`Fleet`] has slots and workers, [`Health`] looks at them,
//! [`Scaling`] changes their number.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::handover::pool::PoolSnapshot;
use crate::handover::{Carry, encode};
use crate::link::seam::{SlotCommand, SlotEvent, SlotEventKind, WorkerId};
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::event::{After, Event};
use crate::supervisor::lifecycle::{Fact, SlotState};
use crate::supervisor::rollout::planner::Planner;
use crate::supervisor::rollout::{Outcome, Report, Step, Trigger};
use crate::supervisor::slot_life::SlotLife;

mod adoption;
mod client_counts;
mod crash_record;
pub mod error;
mod fleet;
pub mod handle;
mod health;
mod hints;
mod history;
mod launch;
pub mod links;
mod report;
mod resume;
mod run_state;
mod scaling;
pub mod settings;
mod slot_commands;
mod slots;
pub mod snapshot;
mod stats;
pub mod status;
mod stop;
mod timer;
mod worker_health;
mod worker_message;
mod workers;

pub use error::PoolError;
pub use handle::Order;
pub use links::{PoolLinks, Progress, Summary};
pub use settings::{MAX_WORKERS, PoolSettings};

use crash_record::CrashRecord;
use fleet::Fleet;
use handle::{Refusal, Reply};
use health::Health;
use hints::Hints;
use history::History;
use resume::Resume;
use run_state::RunState;
use scaling::Scaling;
use slots::{Slot, Slots};
use snapshot::{AdoptedWorker, PoolEnd, PoolHandover, RestoredSettings};
use timer::sleep_until;
use worker_message::WorkerMessage;
use workers::Workers;

/// How long the frontend may take to stop at a hand-over.
const FRONTEND_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Supervises all workers.
#[derive(Debug)]
pub struct Pool {
    fleet: Fleet,
    health: Health,
    scaling: Scaling,
    events: mpsc::Receiver<SlotEvent>,
    orders: mpsc::Receiver<Order>,
    progress: watch::Sender<Progress>,
    /// The next heartbeat.
    beat_at: Option<Timestamp>,
    /// A predecessor's run, until it is continued.
    resume: Option<Resume>,
}

/// How a run ended.
enum Supervised {
    Ended(Summary),
    /// With what workers said last.
    HandingOver(Vec<(WorkerId, WorkerMessage)>),
}

impl Pool {
    /// A pool that has started nothing yet.
    #[must_use]
    pub fn new(settings: PoolSettings, links: PoolLinks) -> Self {
        let pool = Self::empty(settings, links);
        pool.fleet.record.store_journal();
        pool
    }

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
        let mut pool = Self::empty(settings.current, links);
        pool.fleet.slots = slots;
        pool.fleet.before = settings.before;
        pool.fleet.planner = Carry::restore(snapshot.planner);
        pool.fleet.accepting = snapshot.accepting;
        if snapshot.accepting {
            pool.fleet.hints.attached();
        }
        if after == After::Crash {
            pool.fleet.hints.crashed();
        }
        pool.fleet.history = History {
            stats: Carry::restore(snapshot.stats),
            summary: Carry::restore(snapshot.summary),
            last_failure: snapshot.last_failure,
        };
        pool.scaling.deferred = Carry::restore(snapshot.deferred);
        pool.resume = Some(Resume {
            running: Carry::restore(snapshot.running),
            workers: workers.into_iter().map(|worker| (worker.id, worker)).collect(),
            unheard: Carry::restore(snapshot.unheard),
            stopping: snapshot.stopping,
            after,
        });
        pool
    }

    fn empty(settings: PoolSettings, links: PoolLinks) -> Self {
        let PoolLinks {
            frontend,
            events,
            output,
            orphans,
            orders,
            progress,
            announcer,
            store,
            journal,
        } = links;
        let fleet = Fleet {
            settings,
            before: None,
            slots: Slots::default(),
            workers: Workers::new(),
            planner: Planner::default(),
            history: History::default(),
            state: RunState::default(),
            accepting: false,
            frontend,
            announcer,
            output,
            orphans,
            record: CrashRecord::new(store, journal),
            hints: Hints::default(),
        };
        let (health, scaling) = (Health::default(), Scaling::default());
        Self { fleet, health, scaling, events, orders, progress, beat_at: None, resume: None }
    }

    /// Starts all workers, or continues with those that there are, and keeps them running until
    /// ordered to stop or to hand over.
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
                self.fleet.kill_all().await;
                Err(error)
            }
        };
        self.fleet.orphans.end().await;
        result
    }

    async fn supervise(&mut self) -> Result<Supervised, PoolError> {
        match self.resume.take() {
            None => self.start().await?,
            Some(resume) => resume.carry_out(&mut self.fleet).await?,
        }
        self.follow_settings();
        self.beat_at = self.fleet.settings.heartbeat.map(|every| Timestamp::now() + every);
        self.end_turn(true).await?;
        while !self.is_over()? {
            let may_differ = self.take_turn().await?;
            self.end_turn(may_differ).await?;
        }
        if matches!(self.fleet.state, RunState::HandingOver) {
            return Ok(Supervised::HandingOver(self.stop_frontend().await?));
        }
        self.fleet.history.summary.counters = self.fleet.frontend.count().await?;
        self.fleet.frontend.send(SlotCommand::End).await?;
        Ok(Supervised::Ended(self.fleet.history.summary))
    }

    /// Waits for what happens next and handles it. Says whether a snapshot may differ then.
    async fn take_turn(&mut self) -> Result<bool, PoolError> {
        let deadline = self.fleet.slots.next_deadline();
        let fleet = &mut self.fleet;
        tokio::select! {
            Some(worker) = fleet.workers.next_ended() => fleet.reap(worker).await?,
            () = fleet.orphans.child_ended() => fleet.reap_orphans(),
            () = sleep_until(self.beat_at) => {
                self.beat().await?;
                return Ok(false);
            }
            Some(event) = self.events.recv() => {
                let may_differ = !matches!(event.kind, SlotEventKind::Pong { .. });
                receive(fleet, event).await?;
                return Ok(may_differ);
            }
            Some(order) = self.orders.recv() => self.handle_command(order).await?,
            () = sleep_until(deadline) => fleet.on_all(Fact::Time).await?,
            look = self.health.next() => self.health.look(fleet, look).await?,
            () = self.scaling.next() => {
                self.health.compare(fleet);
                self.scaling.look_at_load(fleet).await?;
            }
            step = fleet.state.next() => stop::continue_stopping(fleet, step).await?,
        }
        Ok(true)
    }

    async fn start(&mut self) -> Result<(), PoolError> {
        for slot in (0..self.fleet.settings.workers).map(SlotId) {
            self.fleet.slots.add(slot, true, &self.fleet.settings);
        }
        self.fleet.send_ranks().await?;
        self.fleet.on_all(Fact::Start).await
    }

    async fn end_turn(&mut self, may_differ: bool) -> Result<(), PoolError> {
        self.plan().await?;
        self.accept_when_started().await?;
        self.show_progress();
        if may_differ {
            self.health.count_clients(&self.fleet);
        }
        if may_differ {
            self.fleet.record.mark_outdated();
        }
        let is_idle = self.events.is_empty() && self.orders.is_empty();
        if self.fleet.record.is_due(!is_idle || self.fleet.workers.has_ended()) {
            let snapshot = snapshot::snapshot(&self.fleet, self.scaling.deferred);
            self.fleet.record.write(|| encode(&snapshot).unwrap_or_default());
        }
        Ok(())
    }

    /// Whether the run ends: handed over, drained as ordered, or every slot idle. A drained slot may
    /// be undrained, so that it doesn't count as idle.
    fn is_over(&mut self) -> Result<bool, PoolError> {
        let fleet = &mut self.fleet;
        match fleet.state {
            RunState::HandingOver => return Ok(true),
            _ if !fleet.workers.is_empty() => return Ok(false),
            RunState::Draining => return Ok(true),
            RunState::LameDuck(_) | RunState::Closing(_) => return Ok(false),
            RunState::Running => {}
        }
        let states: Vec<_> = fleet.slots.active().map(|(_, slot)| slot.life.state()).collect();
        if !states.iter().all(|state| matches!(state, SlotState::Errored | SlotState::Stopped)) {
            return Ok(false);
        }
        if states.iter().all(|state| *state == SlotState::Stopped) {
            tracing::info!("every slot is stopped: nothing is left to do");
            return Ok(true);
        }
        if !fleet.accepting {
            return Err(fleet.never_ready());
        }
        let (slot, reason) = fleet.history.last_failure.take().unwrap_or_default();
        Err(PoolError::AllErrored { slot, reason })
    }

    /// Begins to accept as soon as each slot's first worker is ready or has failed, and gives up
    /// when all have failed too often.
    async fn accept_when_started(&mut self) -> Result<(), PoolError> {
        let fleet = &mut self.fleet;
        if fleet.accepting || fleet.state.is_stopping() {
            return Ok(());
        }
        let lives = || fleet.slots.active().map(|(_, slot)| &slot.life);
        if lives().all(SlotLife::has_failed_to_start) {
            return Err(fleet.never_ready());
        }
        if lives().any(SlotLife::is_serving) && lives().all(SlotLife::has_started) {
            fleet.accepting = true;
            fleet.frontend.send(SlotCommand::Accept).await?;
        }
        Ok(())
    }

    fn show_progress(&self) {
        let (serving, of) = self.fleet.slots.count_serving();
        self.progress.send_if_modified(|shown| {
            let now = Progress { serving, of, accepting: self.fleet.accepting, ..*shown };
            std::mem::replace(shown, now) != now
        });
    }

    /// Asks the frontend something, so that the heartbeat stands for both.
    async fn beat(&mut self) -> Result<(), PoolError> {
        self.fleet.frontend.count().await?;
        self.progress.send_modify(|progress| progress.beats += 1);
        self.beat_at = self.fleet.settings.heartbeat.map(|every| Timestamp::now() + every);
        Ok(())
    }

    /// Carries out an operator's command, or refuses it, and answers.
    async fn handle_command(&mut self, order: Order) -> Result<(), PoolError> {
        let is_stopping = self.fleet.state.is_stopping();
        match order {
            Order::Stop => stop::stop(&mut self.fleet),
            Order::StopNow => stop::stop_now(&mut self.fleet).await?,
            Order::Status(reply) => {
                self.health.compare(&self.fleet);
                answer(Some(reply), Ok(report::status(&self.fleet, &self.health)));
            }
            // Nothing is begun any more.
            Order::HandOver(reply) if is_stopping => refuse(Some(reply)),
            Order::Reload(_, _, reply) if is_stopping => refuse(reply),
            Order::Scale(_, reply) if is_stopping => refuse(reply),
            Order::Slot(_, _, reply) if is_stopping => refuse(Some(reply)),
            Order::HandOver(reply) => {
                self.fleet.state = RunState::HandingOver;
                answer(Some(reply), Ok(()));
            }
            Order::Reload(trigger, settings, reply) => {
                let number = self.reload(trigger, *settings);
                answer(reply, Ok(number));
            }
            Order::Scale(scale, None) => self.scaling.by_signal(&mut self.fleet, scale).await?,
            Order::Scale(scale, reply) => {
                answer(reply, self.scaling.by_command(&mut self.fleet, scale).await?);
            }
            Order::Slot(slot, order, reply) => {
                let result = slot_commands::execute(&mut self.fleet, slot, order).await?;
                answer(Some(reply), result);
            }
        }
        Ok(())
    }

    /// Begins a rolling restart and returns its number. Slots are added and removed when the new
    /// workers are stable; drained slots stay as they are.
    fn reload(&mut self, trigger: Trigger, settings: PoolSettings) -> u64 {
        let fleet = &mut self.fleet;
        if settings.is_resized(&fleet.settings) {
            self.scaling.deferred = None;
        }
        let settings = settings.after(&fleet.settings);
        let before = std::mem::replace(&mut fleet.settings, settings);
        fleet.before.get_or_insert(before);
        fleet.slots.change(&fleet.settings.lifecycle);
        let is_drained = |slot: &Slot| slot.life.state() == SlotState::Drained;
        let slots = fleet.slots.active().filter(|(_, slot)| !is_drained(slot));
        let slots = slots.map(|(slot, _)| slot).collect();
        let number = fleet.planner.begin(trigger, slots);
        self.follow_settings();
        number
    }

    /// Timers follow the settings that hold now.
    fn follow_settings(&mut self) {
        let now = Timestamp::now();
        self.health.change(&self.fleet.settings, now);
        self.scaling.change(&self.fleet.settings, now);
    }

    /// Carries out what is planned, until there is nothing to do but wait.
    async fn plan(&mut self) -> Result<(), PoolError> {
        loop {
            let steps = self.fleet.planner.steps(&self.fleet.settings.rollout);
            if steps.is_empty() {
                return Ok(());
            }
            for step in steps {
                match step {
                    Step::Begin { number, trigger, of } => {
                        let event = Event::RolloutStarted { number, trigger, of };
                        self.fleet.announcer.announce(event);
                    }
                    Step::Replace(slot, cause) => self.fleet.replace(slot, cause).await?,
                    Step::End(report) => self.end_rollout(report).await?,
                }
            }
        }
    }

    async fn end_rollout(&mut self, report: Report) -> Result<(), PoolError> {
        let outcome = report.outcome.clone();
        let fleet = &mut self.fleet;
        fleet.history.stats.rolled_out(&outcome);
        fleet.announcer.announce(Event::RolloutEnded(report));
        // The next rolling restart, or the end, decides instead.
        if fleet.planner.is_rolling() || outcome == Outcome::Stopped {
            return Ok(());
        }
        let before = fleet.before.take();
        if outcome == Outcome::Done {
            fleet.send_ranks().await?;
            if fleet.settings.autoscale.is_none() {
                scaling::scale_to(fleet, fleet.settings.workers, "reload").await?;
            }
        } else if let Some(before) = before {
            fleet.settings = before;
            fleet.slots.change(&fleet.settings.lifecycle);
            self.follow_settings();
        }
        self.scaling.resume(&mut self.fleet).await
    }

    /// Stops the frontend, and returns what workers have said until then.
    async fn stop_frontend(&mut self) -> Result<Vec<(WorkerId, WorkerMessage)>, PoolError> {
        self.fleet.frontend.send(SlotCommand::HandOver).await?;
        let mut unheard = Vec::new();
        let receiving = async {
            while let Some(event) = self.events.recv().await {
                let message = WorkerMessage::new(&event.kind);
                unheard.extend(message.map(|message| (event.worker, message)));
            }
        };
        if tokio::time::timeout(FRONTEND_STOP_TIMEOUT, receiving).await.is_err() {
            tracing::warn!("frontend slow to stop");
        }
        Ok(unheard)
    }

    /// Hands everything over to a successor. No worker is killed or gets a message.
    fn into_handover(self, unheard: Vec<(WorkerId, WorkerMessage)>) -> PoolHandover {
        let Self { mut fleet, scaling, events, orders, progress, .. } = self;
        let mut snapshot = snapshot::snapshot(&fleet, scaling.deferred);
        snapshot.unheard = unheard.snapshot();
        // In case the successor crashes before it has written anything.
        fleet.record.write(|| encode(&snapshot).unwrap_or_default());
        let processes = copy_pidfds(&fleet.workers);
        let Fleet { frontend, output, orphans, announcer, record, .. } = fleet;
        let (store, journal) = record.into_parts();
        let links = PoolLinks {
            frontend,
            events,
            output,
            orphans,
            orders,
            progress,
            announcer,
            store,
            journal,
        };
        PoolHandover { snapshot, processes, links }
    }
}

async fn receive(fleet: &mut Fleet, event: SlotEvent) -> Result<(), PoolError> {
    let SlotEvent { worker, kind } = event;
    if let SlotEventKind::Violation(error) = &kind {
        tracing::error!(
            slot = worker.slot.0, generation = worker.generation.0, %error,
            "worker killed: it breaks the protocol",
        );
    }
    if let Some(message) = WorkerMessage::new(&kind) {
        return fleet.receive(worker, message).await;
    }
    match kind {
        SlotEventKind::Speaks(interface) => {
            fleet.note_interface(worker, interface);
        }
        SlotEventKind::Note(note) => fleet.hints.noted(worker, note),
        _ => {}
    }
    if let Some(running) = fleet.workers.get_mut(worker)
        && let SlotEventKind::Pong { overdue } = kind
    {
        running.health.watchdog.answered(Timestamp::now(), overdue);
    }
    Ok(())
}

/// Copies of the workers' pidfds. A worker for which no descriptor is left is missing.
fn copy_pidfds(workers: &Workers) -> Vec<(WorkerId, OwnedFd)> {
    let copies = workers.iter().filter_map(|(worker, running)| {
        let copy = running.process.pidfd().inspect_err(
            |error| tracing::warn!(slot = worker.slot.0, %error, "cannot copy a pidfd"),
        );
        Some((worker, copy.ok()?))
    });
    copies.collect()
}

fn refuse<T>(reply: Option<Reply<T>>) {
    answer(reply, Err(Refusal::Stopping));
}

/// Answers, unless nobody waits any more.
fn answer<T>(reply: Option<Reply<T>>, answer: Result<T, Refusal>) {
    if let Some(reply) = reply {
        let _ = reply.send(answer);
    }
}
