//! One slot's life: its workers start, serve, drain and end, and each fact has its reactions.
//!
//! Pure: facts and a time in, actions out. Processes, signals and clocks are the pool's.
//!
//! ```text
//! spawning ──ready──► serving ──successor ready──► standby ──it lasts──► draining ──► gone
//!     │                  │  ▲                         │                     └─ grace over: killed
//!     │                  │  └── successor crashed ──┘
//!     └─ not in time:    ├─ stands still: aborted
//!        killed          └─ crashed: the spare if there is one; else back-off, then the next
//!                            generation; too often: errored
//! ```
//!
//! Starts and successions are decided here, ends in `ending`. `phases` has where each worker stands,
//! `spare` the worker that waits beside the serving one.
//!
//! # Promises
//!
//! * At most one worker of a slot serves.
//! * A worker that is replaced drains only when its successor has served for `min_uptime`; a
//!   successor that crashes before leaves its place to its predecessor.
//! * A draining worker knows how much time it has: it is told again when it has less.
//! * Once stopped or removed, a slot starts nothing any more; a drained one nothing until it is
//!   ordered to. It says when the last worker that it had has ended.

use std::time::Duration;

use crate::handover::carry;
use crate::handover::pool::{DesiredStateSnapshot, SlotLifeSnapshot};
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::{Generation, Timestamp};
use crate::supervisor::lifecycle::{Action, Fact, KillReason, LifecycleSettings, Phase, SlotState};
use crate::supervisor::restart::{Crashes, Ended, RestartDecision};

mod ending;
mod phases;
mod spare;

use ending::{when_everything_ends, while_others_go_on};
use phases::Phases;
use spare::Spare;

/// How long a worker that was sent SIGABRT may take to write its core.
const CORE_TIME: Duration = Duration::from_secs(10);

/// Out of service until it is ordered to start.
const DRAINED: DesiredState = DesiredState::Idle(SlotState::Drained);

/// One slot's workers.
#[derive(Clone, Debug)]
pub struct SlotLife {
    settings: LifecycleSettings,
    workers: Phases,
    next_generation: u32,
    desired: DesiredState,
    crashes: Crashes,
    /// The worker by which the slot's worker is being replaced, until that has succeeded or failed.
    candidate: Option<Generation>,
    /// When the serving worker is stable, if others wait for that.
    stable_at: Option<Timestamp>,
    ever_ready: bool,
    spare: Spare,
}

carry!(struct SlotLife => SlotLifeSnapshot { settings, workers, next_generation, desired, crashes, candidate, stable_at, ever_ready, spare });

/// The state that the slot is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DesiredState {
    /// To be filled, now.
    Filled,
    /// To be filled, at that time.
    FilledAt(Timestamp),
    /// As errored, stopped or drained: nothing is started by itself.
    Idle(SlotState),
    /// Not wanted any more.
    Removed,
}

carry!(enum DesiredState => DesiredStateSnapshot { Filled, FilledAt(at), Idle(state), Removed });

impl SlotLife {
    /// An empty slot.
    #[must_use]
    pub fn new(settings: LifecycleSettings) -> Self {
        Self {
            settings,
            workers: Phases::default(),
            next_generation: 0,
            desired: DesiredState::Filled,
            crashes: Crashes::default(),
            candidate: None,
            stable_at: None,
            ever_ready: false,
            spare: Spare::default(),
        }
    }

    /// Follows other settings from now on. Deadlines that are set stay.
    pub fn change(&mut self, settings: LifecycleSettings) {
        self.settings = settings;
    }

    /// This worker ends by a signal, and gets no order.
    pub fn end_by_signal(&mut self, generation: Generation) {
        self.workers.end_by_signal(generation);
    }

    /// The reactions to a fact. Facts of workers that are gone are ignored.
    pub fn on(&mut self, fact: Fact, now: Timestamp) -> Vec<Action> {
        let mut actions = match fact {
            Fact::Start => self.start(now),
            Fact::Replace => self.replace(now),
            Fact::Drain => self.take_out(now),
            Fact::Remove => self.end(while_others_go_on(&self.settings), now),
            Fact::Ready(generation) => self.ready(generation, now),
            Fact::Leave(generation) => self.leave(generation, now),
            Fact::Kill(generation, reason) => self.kill(generation, reason),
            Fact::Stalled(generation) => self.stalled(generation, now),
            Fact::ShortenDeadline(generation) => {
                ending::shorten_deadline(&mut self.workers, &self.settings, generation, now)
            }
            Fact::Exited { generation, status, jitter } => {
                self.exited(generation, status, jitter, now)
            }
            Fact::Idle(generation) => ending::signal(&mut self.workers, generation),
            Fact::Time => self.time(now),
            Fact::Stop => self.end(when_everything_ends(&self.settings), now),
            Fact::StopNow => self.end_at_once(),
        };
        actions.extend(self.keep_spare(now));
        actions
    }

    /// When time alone changes something next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let deadlines = self.workers.next_deadline().into_iter();
        deadlines.chain(self.next_start()).chain(self.stable_at).chain(self.next_spare()).min()
    }

    /// How the slot is.
    #[must_use]
    pub fn state(&self) -> SlotState {
        match self.desired {
            DesiredState::Removed => SlotState::Removed,
            _ if self.is_serving() => SlotState::Serving,
            DesiredState::Filled => SlotState::Spawning,
            DesiredState::FilledAt(_) => SlotState::BackOff,
            DesiredState::Idle(state) => state,
        }
    }

    /// Whether one of its workers serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving().is_some()
    }

    /// The worker that serves, and since when.
    #[must_use]
    pub fn serving(&self) -> Option<(Generation, Timestamp)> {
        self.workers.serving()
    }

    /// Whether the slot's first worker has become ready or has failed to.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.ever_ready
            || self.crashes.in_a_row() > 0
            || matches!(self.desired, DesiredState::Idle(_))
    }

    /// Whether none of its workers ever became ready, in as many attempts as the policy grants.
    #[must_use]
    pub fn has_failed_to_start(&self) -> bool {
        let out_of_attempts = self.crashes.in_a_row() >= self.settings.restart.start_attempts;
        let failed = out_of_attempts || self.state() == SlotState::Errored;
        // The operator who has drained it takes care of it.
        failed && !self.ever_ready && self.desired != DRAINED
    }

    /// Whether a worker of it is being started, or about to.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        !self.is_serving()
            && matches!(self.desired, DesiredState::Filled | DesiredState::FilledAt(_))
    }

    /// Where a worker stands.
    #[must_use]
    pub fn phase(&self, generation: Generation) -> Option<Phase> {
        self.workers.get(generation)
    }

    /// Its workers and where they stand, the oldest first.
    pub fn workers(&self) -> impl Iterator<Item = (Generation, Phase)> {
        self.workers.iter()
    }

    /// Whether a draining worker waits for its last client before it gets its signal.
    #[must_use]
    pub fn waits_for_signal(&self, generation: Generation) -> bool {
        self.workers.end_times(generation).is_some()
    }

    /// When the next worker is started, if that takes a pause.
    #[must_use]
    pub fn next_start(&self) -> Option<Timestamp> {
        if let DesiredState::FilledAt(at) = self.desired { Some(at) } else { None }
    }

    /// The condition that a replacement under way waits for.
    #[must_use]
    pub fn waits_for(&self) -> &'static str {
        match self.candidate.and_then(|candidate| self.phase(candidate)) {
            Some(Phase::Spawning { .. }) => "its new worker to be ready",
            Some(Phase::Serving { .. }) => "its new worker to last for min_uptime",
            _ => "its new worker to end",
        }
    }

    fn start(&mut self, now: Timestamp) -> Vec<Action> {
        if self.is_serving() || self.is_starting() {
            self.desired = DesiredState::Filled;
            return Vec::new();
        }
        self.crashes = Crashes::default();
        self.spawn(now)
    }

    /// An idle slot is brought back, its crashes forgotten; a starting one is started again, since
    /// its command may be outdated.
    fn replace(&mut self, now: Timestamp) -> Vec<Action> {
        if matches!(self.desired, DesiredState::Removed | DRAINED) {
            return Vec::new();
        }
        let outdated = self.workers.starting().into_iter();
        let mut actions: Vec<_> =
            outdated.flat_map(|worker| self.kill(worker, KillReason::Superseded)).collect();
        actions.extend(self.dismiss_spare(now));
        if !self.is_serving() {
            self.crashes = Crashes::default();
        }
        self.candidate = Some(Generation(self.next_generation));
        actions.extend(self.spawn(now));
        actions
    }

    fn spawn(&mut self, now: Timestamp) -> Vec<Action> {
        let generation = Generation(self.next_generation);
        self.next_generation += 1;
        self.desired = DesiredState::Filled;
        let deadline = now + self.settings.listen_timeout;
        self.workers.add(generation, Phase::Spawning { deadline });
        vec![Action::Spawn(generation)]
    }

    fn ready(&mut self, generation: Generation, now: Timestamp) -> Vec<Action> {
        if !matches!(self.phase(generation), Some(Phase::Spawning { .. })) {
            return Vec::new();
        }
        let is_serving = self.is_serving();
        if self.spare.waits(generation, is_serving) {
            self.set(generation, Phase::Spare { since: now });
            return Vec::new();
        }
        self.ever_ready = true;
        if let Some((predecessor, since)) = self.serving() {
            self.set(predecessor, Phase::Standby { since });
        }
        self.set(generation, Phase::Serving { since: now });
        let mut actions = vec![Action::Serve(generation)];
        self.stable_at = Some(now + self.settings.restart.min_uptime);
        actions.extend(self.drain_standby(now));
        actions
    }

    /// The serving worker has served for long enough: those that stood by for it drain.
    fn drain_standby(&mut self, now: Timestamp) -> Vec<Action> {
        if self.stable_at.take_if(|at| now >= *at).is_none() {
            return Vec::new();
        }
        let Some((stable, _)) = self.serving() else { return Vec::new() };
        let standby = self.workers.standby();
        let order = while_others_go_on(&self.settings);
        let mut actions: Vec<_> =
            standby.into_iter().flat_map(|worker| self.drain(worker, order, now)).collect();
        if self.candidate.take_if(|candidate| *candidate == stable).is_some() {
            actions.push(Action::Replaced(stable));
        }
        actions
    }

    /// It serves no longer, so that its successor need not wait for its end.
    fn stalled(&mut self, generation: Generation, now: Timestamp) -> Vec<Action> {
        let Some(Phase::Serving { since }) = self.phase(generation) else { return Vec::new() };
        self.set(generation, Phase::Aborted { deadline: now + CORE_TIME });
        let mut actions = vec![Action::Abort(generation)];
        let ended = Ended { served: Some(now.since(since)), status: None, jitter: 0.0 };
        actions.extend(self.after_serving(generation, ended, now));
        actions
    }

    fn exited(
        &mut self,
        generation: Generation,
        status: Option<i32>,
        jitter: f64,
        now: Timestamp,
    ) -> Vec<Action> {
        let Some(phase) = self.phase(generation) else { return Vec::new() };
        self.workers.remove(generation);
        let next_spare = now + self.settings.restart.longest_delay;
        if self.spare.lose(generation, next_spare) && self.is_serving() {
            return Vec::new();
        }
        if self.desired == DRAINED {
            return self.drained();
        }
        let since = match phase {
            Phase::Spawning { .. } => None,
            Phase::Serving { since } => Some(since),
            Phase::Killed { since } | Phase::Draining { since, .. } => since,
            // Its successor was seen to when it was.
            Phase::Aborted { .. } | Phase::Standby { .. } | Phase::Spare { .. } => {
                return Vec::new();
            }
        };
        let served = since.map(|since| now.since(since));
        self.after_serving(generation, Ended { served, status, jitter }, now)
    }

    /// A worker serves or starts no longer: who does now?
    fn after_serving(
        &mut self,
        generation: Generation,
        ended: Ended,
        now: Timestamp,
    ) -> Vec<Action> {
        if self.desired == DesiredState::Removed {
            return Vec::new();
        }
        let mut actions = Vec::new();
        if self.candidate.take_if(|candidate| *candidate == generation).is_some() {
            actions.push(Action::ReplacementFailed(generation));
        }
        if self.is_serving() {
            return actions;
        }
        self.stable_at = None;
        // The serving worker crashed before it was stable: its predecessor serves again.
        if let Some(predecessor) = self.workers.standby().last().copied() {
            self.set(predecessor, Phase::Serving { since: now });
            self.stable_at = Some(now + self.settings.restart.min_uptime);
            actions.push(Action::Serve(predecessor));
            return actions;
        }
        if self.is_starting() {
            return actions;
        }
        if matches!(self.desired, DesiredState::Filled) {
            let decision = self.crashes.after(ended, &self.settings.restart, now);
            let followed = self.follow_by_spare(decision, now);
            actions.extend(followed.unwrap_or_else(|| self.after_crash(decision, now)));
        }
        actions
    }

    fn after_crash(&mut self, decision: RestartDecision, now: Timestamp) -> Vec<Action> {
        match decision {
            RestartDecision::Restart(delay) if delay.is_zero() => self.spawn(now),
            RestartDecision::Restart(delay) => {
                self.desired = DesiredState::FilledAt(now + delay);
                vec![Action::BackOff(delay)]
            }
            RestartDecision::Errored => self.idle(SlotState::Errored),
            RestartDecision::Stopped => self.idle(SlotState::Stopped),
        }
    }

    fn idle(&mut self, state: SlotState) -> Vec<Action> {
        self.desired = DesiredState::Idle(state);
        vec![Action::Idle(state)]
    }

    fn time(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = self.drain_standby(now);
        let disconnected = self.workers.take_due_disconnects(now).into_iter();
        actions.extend(disconnected.map(Action::Disconnect));
        for generation in self.workers.due_signals(now) {
            actions.extend(ending::signal(&mut self.workers, generation));
        }
        for (generation, reason) in self.workers.overdue(now) {
            actions.extend(self.kill(generation, reason));
        }
        if matches!(self.desired, DesiredState::FilledAt(at) if now >= at) {
            actions.extend(self.spawn(now));
        }
        actions
    }

    fn is_starting(&self) -> bool {
        !self.workers.starting().is_empty()
    }

    fn set(&mut self, generation: Generation, phase: Phase) {
        self.workers.set(generation, phase);
    }

    /// A worker that takes no connections yet wants to go.
    fn leave(&mut self, generation: Generation, now: Timestamp) -> Vec<Action> {
        match self.phase(generation) {
            Some(Phase::Spawning { .. } | Phase::Spare { .. }) => {
                self.drain(generation, while_others_go_on(&self.settings), now)
            }
            _ => Vec::new(),
        }
    }

    /// All workers drain, and none follows.
    fn end(&mut self, order: DrainOrder, now: Timestamp) -> Vec<Action> {
        self.desired = DesiredState::Removed;
        self.drain_all(order, now)
    }

    /// All workers are killed, and none follows.
    fn end_at_once(&mut self) -> Vec<Action> {
        self.desired = DesiredState::Removed;
        let all = self.workers.all().into_iter();
        all.flat_map(|worker| self.kill(worker, KillReason::StopNow)).collect()
    }

    /// All workers drain, and none follows until an order to start.
    fn take_out(&mut self, now: Timestamp) -> Vec<Action> {
        if matches!(self.desired, DesiredState::Removed | DRAINED) {
            return Vec::new();
        }
        self.desired = DRAINED;
        let mut actions = self.drain_all(while_others_go_on(&self.settings), now);
        actions.extend(self.drained());
        actions
    }

    /// Says so once the last worker has ended.
    fn drained(&self) -> Vec<Action> {
        let empty = self.workers.is_empty();
        empty.then_some(Action::Idle(SlotState::Drained)).into_iter().collect()
    }

    fn drain_all(&mut self, order: DrainOrder, now: Timestamp) -> Vec<Action> {
        (self.candidate, self.stable_at) = (None, None);
        let all = self.workers.all().into_iter();
        all.flat_map(|generation| self.drain(generation, order, now)).collect()
    }

    fn drain(&mut self, generation: Generation, order: DrainOrder, now: Timestamp) -> Vec<Action> {
        ending::drain(&mut self.workers, &self.settings, generation, order, now)
    }

    fn kill(&mut self, generation: Generation, reason: KillReason) -> Vec<Action> {
        ending::kill(&mut self.workers, generation, reason)
    }

    /// When the next spare is due.
    fn next_spare(&self) -> Option<Timestamp> {
        self.spare.not_before().filter(|_| self.needs_spare())
    }

    /// Starts a spare where one is missing, and ends one that is not wanted any more.
    fn keep_spare(&mut self, now: Timestamp) -> Vec<Action> {
        if !self.settings.spare {
            return self.dismiss_spare(now);
        }
        if !self.needs_spare() || self.spare.not_before().is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.spare.started(Generation(self.next_generation));
        self.spawn(now)
    }

    fn needs_spare(&self) -> bool {
        self.settings.spare
            && self.spare.worker().is_none()
            && self.desired == DesiredState::Filled
            && self.is_serving()
            && self.stable_at.is_none()
            && self.candidate.is_none()
            && !self.is_starting()
    }

    /// Ends the spare: it has no clients, so that it needs little time.
    fn dismiss_spare(&mut self, now: Timestamp) -> Vec<Action> {
        let Some(generation) = self.spare.take(None) else { return Vec::new() };
        let window = self.settings.kill_timeout;
        let order = DrainOrder { window, ..while_others_go_on(&self.settings) };
        self.drain(generation, order, now)
    }

    /// The serving worker has crashed: the spare serves, if it is ready and the slot goes on.
    fn follow_by_spare(
        &mut self,
        decision: RestartDecision,
        now: Timestamp,
    ) -> Option<Vec<Action>> {
        let generation = self.spare.worker()?;
        let is_ready = matches!(self.phase(generation), Some(Phase::Spare { .. }));
        let RestartDecision::Restart(delay) = decision else {
            let mut actions = self.dismiss_spare(now);
            actions.extend(self.after_crash(decision, now));
            return Some(actions);
        };
        if !is_ready {
            return None;
        }
        self.spare.take(Some(now + delay));
        self.set(generation, Phase::Serving { since: now });
        self.stable_at = Some(now + self.settings.restart.min_uptime);
        Some(vec![Action::Serve(generation)])
    }

    /// Adopts a worker that is in no snapshot, as if it was just started: the primary died in
    /// between. False if the slot has no place for it, so that it is to end.
    pub fn adopt(&mut self, generation: Generation, now: Timestamp) -> bool {
        self.skip(generation);
        let fills = matches!(self.desired, DesiredState::Filled | DesiredState::FilledAt(_));
        if !fills || self.is_starting() || self.phase(generation).is_some() {
            return false;
        }
        self.desired = DesiredState::Filled;
        let deadline = now + self.settings.listen_timeout;
        self.workers.add(generation, Phase::Spawning { deadline });
        true
    }

    /// No worker gets this generation any more, nor one before it.
    pub fn skip(&mut self, generation: Generation) {
        self.next_generation = self.next_generation.max(generation.0.saturating_add(1));
    }
}

#[cfg(test)]
mod tests;
