//! One slot's life: who starts, serves, drains and dies in it, and what is to be done about it.
//!
//! Pure: facts and a time in, actions out. Processes, signals and clocks are the pool's.
//!
//! ```text
//! spawning ──ready──► serving ──successor ready──► standby ──it lasts──► draining ──► gone
//!     │                  │  ▲                         │                     └─ grace over: killed
//!     │                  │  └── successor died young ──┘
//!     └─ not in time:    ├─ stands still: aborted
//!        killed          └─ died: the spare if there is one; else back-off, then the next
//!                            generation; too often: errored
//! ```
//!
//! Who begins, serves and follows is decided here; how workers go, in `ending`; who waits beside the
//! one that serves, in `spare`.
//!
//! # Promises
//!
//! * At most one worker of a slot serves.
//! * A worker that is replaced drains only when its successor has served for `min_uptime`; a
//!   successor that dies before leaves its place to its predecessor.
//! * Whoever drains knows how much time it has: it is told again when it has less.
//! * Once stopped or removed, a slot starts nothing any more; a drained one nothing until it is
//!   ordered to. It says when the last worker that it had has ended.

use std::time::Duration;

use crate::handover::carry;
use crate::handover::pool::{DesiredStateSnapshot, SlotLifeSnapshot};
use crate::protocol::ids::{Generation, Timestamp};
use crate::supervisor::lifecycle::{Action, Fact, KillReason, LifecycleSettings, Phase, SlotState};
use crate::supervisor::restart::{Death, Deaths, Verdict};
use crate::supervisor::slot_life::spare::Spare;

mod adoption;
mod ending;
mod spare;

/// How long a worker that was sent SIGABRT may take to write its core.
const CORE_TIME: Duration = Duration::from_secs(10);

/// Out of service until it is ordered to start.
const DRAINED: DesiredState = DesiredState::Idle(SlotState::Drained);

/// One slot's workers.
#[derive(Clone, Debug)]
pub struct SlotLife {
    settings: LifecycleSettings,
    workers: Vec<(Generation, Phase)>,
    next_generation: u32,
    aim: DesiredState,
    crashes: Deaths,
    /// The worker by which the slot's worker is being replaced, as long as that is not settled.
    candidate: Option<Generation>,
    /// When the serving worker has proved itself, if others wait for that.
    proven_at: Option<Timestamp>,
    ever_ready: bool,
    spare: Spare,
}

carry!(struct SlotLife => SlotLifeSnapshot { settings, workers, next_generation, aim, crashes, candidate, proven_at, ever_ready, spare });

/// What the slot is to come to.
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
            workers: Vec::new(),
            next_generation: 0,
            aim: DesiredState::Filled,
            crashes: Deaths::default(),
            candidate: None,
            proven_at: None,
            ever_ready: false,
            spare: Spare::default(),
        }
    }

    /// From now on by other settings. What has begun keeps its time.
    pub fn change(&mut self, settings: LifecycleSettings) {
        self.settings = settings;
    }

    /// What to do about a fact. Facts of workers that are gone are ignored.
    pub fn on(&mut self, fact: Fact, now: Timestamp) -> Vec<Action> {
        let mut actions = match fact {
            Fact::Start => self.start(now),
            Fact::Replace => self.replace(now),
            Fact::Drain => self.take_out(now),
            Fact::Remove => self.end(self.while_others_go_on(), now),
            Fact::Ready(generation) => self.ready(generation, now),
            Fact::Leave(generation) => self.leave(generation, now),
            Fact::Kill(generation, reason) => self.kill(generation, reason),
            Fact::Stalled(generation) => self.stalled(generation, now),
            Fact::Hurry(generation) => self.shorten_deadline(generation, now),
            Fact::Exited { generation, status, jitter } => {
                self.exited(generation, status, jitter, now)
            }
            Fact::Time => self.time(now),
            Fact::Stop => self.end(self.when_everything_ends(), now),
            Fact::StopNow => self.end_at_once(),
        };
        actions.extend(self.keep_spare(now));
        actions
    }

    /// When time alone changes something next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let deadlines = self.workers.iter().filter_map(|(_, phase)| match phase {
            Phase::Spawning { deadline }
            | Phase::Draining { deadline, .. }
            | Phase::Aborted { deadline } => Some(*deadline),
            Phase::Serving { .. }
            | Phase::Standby { .. }
            | Phase::Spare { .. }
            | Phase::Killed { .. } => None,
        });
        deadlines.chain(self.next_start()).chain(self.proven_at).chain(self.next_spare()).min()
    }

    /// How the slot is.
    #[must_use]
    pub fn state(&self) -> SlotState {
        match self.aim {
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
        self.workers.iter().find_map(|(worker, phase)| match phase {
            Phase::Serving { since } => Some((*worker, *since)),
            _ => None,
        })
    }

    /// Whether the slot's first worker has become ready or has failed to.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.ever_ready || self.crashes.in_a_row() > 0 || matches!(self.aim, DesiredState::Idle(_))
    }

    /// Whether none of its workers ever became ready, in as many attempts as the policy grants.
    #[must_use]
    pub fn has_failed_to_start(&self) -> bool {
        let out_of_attempts = self.crashes.in_a_row() >= self.settings.restart.start_attempts;
        let failed = out_of_attempts || self.state() == SlotState::Errored;
        // Whoever has drained it is there to see to it.
        failed && !self.ever_ready && self.aim != DRAINED
    }

    /// Whether a worker of it is being started, or about to.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        !self.is_serving() && matches!(self.aim, DesiredState::Filled | DesiredState::FilledAt(_))
    }

    /// Where a worker stands.
    #[must_use]
    pub fn phase(&self, generation: Generation) -> Option<Phase> {
        self.workers.iter().find(|(worker, _)| *worker == generation).map(|(_, phase)| *phase)
    }

    /// Its workers and where they stand, the oldest first.
    pub fn workers(&self) -> impl Iterator<Item = (Generation, Phase)> {
        self.workers.iter().copied()
    }

    /// When the next worker is started, if that takes a pause.
    #[must_use]
    pub fn next_start(&self) -> Option<Timestamp> {
        if let DesiredState::FilledAt(at) = self.aim { Some(at) } else { None }
    }

    /// What a replacement that is under way waits for.
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
            self.aim = DesiredState::Filled;
            return Vec::new();
        }
        self.crashes = Deaths::default();
        self.spawn(now)
    }

    /// A slot at rest is brought back, with a clean slate; one that starts is started anew, since
    /// what it started may be outdated.
    fn replace(&mut self, now: Timestamp) -> Vec<Action> {
        if matches!(self.aim, DesiredState::Removed | DRAINED) {
            return Vec::new();
        }
        let outdated = self.workers.iter().filter(|(_, it)| matches!(it, Phase::Spawning { .. }));
        let outdated: Vec<_> = outdated.map(|(worker, _)| *worker).collect();
        let mut actions: Vec<_> = outdated
            .into_iter()
            .flat_map(|worker| self.kill(worker, KillReason::Superseded))
            .collect();
        actions.extend(self.dismiss_spare(now));
        if !self.is_serving() {
            self.crashes = Deaths::default();
        }
        self.candidate = Some(Generation(self.next_generation));
        actions.extend(self.spawn(now));
        actions
    }

    fn spawn(&mut self, now: Timestamp) -> Vec<Action> {
        let generation = Generation(self.next_generation);
        self.next_generation += 1;
        self.aim = DesiredState::Filled;
        let deadline = now + self.settings.listen_timeout;
        self.workers.push((generation, Phase::Spawning { deadline }));
        vec![Action::Spawn(generation)]
    }

    fn ready(&mut self, generation: Generation, now: Timestamp) -> Vec<Action> {
        if !matches!(self.phase(generation), Some(Phase::Spawning { .. })) {
            return Vec::new();
        }
        if self.becomes_spare(generation, now) {
            return Vec::new();
        }
        self.ever_ready = true;
        if let Some((predecessor, since)) = self.serving() {
            self.set(predecessor, Phase::Standby { since });
        }
        self.set(generation, Phase::Serving { since: now });
        let mut actions = vec![Action::Serve(generation)];
        self.proven_at = Some(now + self.settings.restart.min_uptime);
        actions.extend(self.prove(now));
        actions
    }

    /// The serving worker has served for long enough: those that stood by for it drain.
    fn prove(&mut self, now: Timestamp) -> Vec<Action> {
        if self.proven_at.take_if(|at| now >= *at).is_none() {
            return Vec::new();
        }
        let Some((proven, _)) = self.serving() else { return Vec::new() };
        let standby = self.standby();
        let order = self.while_others_go_on();
        let mut actions: Vec<_> =
            standby.into_iter().flat_map(|worker| self.drain(worker, order, now)).collect();
        if self.candidate.take_if(|candidate| *candidate == proven).is_some() {
            actions.push(Action::Replaced(proven));
        }
        actions
    }

    /// It serves no longer, so that its successor need not wait for its end.
    fn stalled(&mut self, generation: Generation, now: Timestamp) -> Vec<Action> {
        let Some(Phase::Serving { since }) = self.phase(generation) else { return Vec::new() };
        self.set(generation, Phase::Aborted { deadline: now + CORE_TIME });
        let mut actions = vec![Action::Abort(generation)];
        let death = Death { served: Some(now.since(since)), status: None, jitter: 0.0 };
        actions.extend(self.after_serving(generation, death, now));
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
        self.workers.retain(|(worker, _)| *worker != generation);
        if self.lose_spare(generation, now) && self.is_serving() {
            return Vec::new();
        }
        if self.aim == DRAINED {
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
        self.after_serving(generation, Death { served, status, jitter }, now)
    }

    /// A worker serves or starts no longer: who does now?
    fn after_serving(
        &mut self,
        generation: Generation,
        death: Death,
        now: Timestamp,
    ) -> Vec<Action> {
        if self.aim == DesiredState::Removed {
            return Vec::new();
        }
        let mut actions = Vec::new();
        if self.candidate.take_if(|candidate| *candidate == generation).is_some() {
            actions.push(Action::NotReplaced(generation));
        }
        if self.is_serving() {
            return actions;
        }
        self.proven_at = None;
        // The one that served died young: the one before it goes on.
        if let Some(predecessor) = self.standby().last().copied() {
            self.set(predecessor, Phase::Serving { since: now });
            self.proven_at = Some(now + self.settings.restart.min_uptime);
            actions.push(Action::Serve(predecessor));
            return actions;
        }
        if self.is_starting() {
            return actions;
        }
        if matches!(self.aim, DesiredState::Filled) {
            let verdict = self.crashes.after(death, &self.settings.restart, now);
            let followed = self.follow_by_spare(verdict, now);
            actions.extend(followed.unwrap_or_else(|| self.after_death(verdict, now)));
        }
        actions
    }

    fn after_death(&mut self, verdict: Verdict, now: Timestamp) -> Vec<Action> {
        match verdict {
            Verdict::Restart(delay) if delay.is_zero() => self.spawn(now),
            Verdict::Restart(delay) => {
                self.aim = DesiredState::FilledAt(now + delay);
                vec![Action::BackOff(delay)]
            }
            Verdict::Errored => self.rest(SlotState::Errored),
            Verdict::Stopped => self.rest(SlotState::Stopped),
        }
    }

    fn rest(&mut self, state: SlotState) -> Vec<Action> {
        self.aim = DesiredState::Idle(state);
        vec![Action::Idle(state)]
    }

    fn time(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = self.prove(now);
        for (generation, phase) in self.workers.clone() {
            let reason = match phase {
                Phase::Spawning { deadline } if now >= deadline => KillReason::NotReady,
                Phase::Draining { deadline, .. } if now >= deadline => KillReason::GraceOver,
                Phase::Aborted { deadline } if now >= deadline => KillReason::Stalled,
                _ => continue,
            };
            actions.extend(self.kill(generation, reason));
        }
        if matches!(self.aim, DesiredState::FilledAt(at) if now >= at) {
            actions.extend(self.spawn(now));
        }
        actions
    }

    fn is_starting(&self) -> bool {
        self.workers.iter().any(|(_, phase)| matches!(phase, Phase::Spawning { .. }))
    }

    fn standby(&self) -> Vec<Generation> {
        let stands_by = |(_, phase): &&(_, Phase)| matches!(phase, Phase::Standby { .. });
        self.workers.iter().filter(stands_by).map(|(worker, _)| *worker).collect()
    }

    fn set(&mut self, generation: Generation, phase: Phase) {
        if let Some(worker) = self.workers.iter_mut().find(|(worker, _)| *worker == generation) {
            worker.1 = phase;
        }
    }
}

#[cfg(test)]
mod tests;
