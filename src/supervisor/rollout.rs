//! Which worker is replaced next: rolling restarts over all slots, and single slots whose worker has
//! had its time.
//!
//! Pure: facts in, slots to replace and outcomes out.
//!
//! # Promises
//!
//! * At most `parallel` slots are replaced at a time, and single ones one by one: a pool whose
//!   workers all reach their limit together keeps serving.
//! * Rolling restarts don't mix. Another one that comes during one lets the replacements that are
//!   under way end, drops the rest, and then begins with all slots.
//! * A replacement that fails ends its rolling restart; the slots that are left keep their workers.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::handoff::ids::{SlotId, Timestamp};

/// How replacements are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutSettings {
    /// Slots of a rolling restart that are replaced at the same time, 1 at least.
    pub parallel: u16,
    /// Draining workers may take so many bytes of memory together; beyond, the oldest ends.
    pub max_draining_memory: Option<u64>,
}

impl Default for RolloutSettings {
    fn default() -> Self {
        Self { parallel: 1, max_draining_memory: None }
    }
}

/// A single slot whose replacement has failed is left alone for so long.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What a rolling restart was begun by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// An operator's command.
    Command,
    /// This file has changed.
    Watch(std::path::PathBuf),
    /// It is time.
    Cron,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal => f.write_str("signal"),
            Self::Command => f.write_str("command"),
            Self::Watch(path) => write!(f, "change of {}", path.display()),
            Self::Cron => f.write_str("cron_restart"),
        }
    }
}

/// How a rolling restart ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every slot has a new worker.
    Done,
    /// The new worker of this slot failed, for this reason.
    Aborted(SlotId, String),
    /// Another one was ordered.
    Superseded,
    /// Everything is to end.
    Stopped,
}

/// What became of a rolling restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its number, from 1.
    pub number: u64,
    /// What it was begun by.
    pub trigger: Trigger,
    /// How it ended.
    pub outcome: Outcome,
    /// Slots that have a new worker.
    pub replaced: u16,
    /// Slots that were to get one.
    pub of: u16,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A rolling restart begins, of so many slots.
    Begin {
        /// Its number.
        number: u64,
        /// What it was begun by.
        trigger: Trigger,
        /// Its slots.
        of: u16,
    },
    /// Start a successor in this slot. The reason is that of a single slot.
    Replace(SlotId, Option<String>),
    /// A rolling restart has ended.
    End(Report),
}

/// Decides which slot is next.
#[derive(Debug, Default)]
pub struct Planner {
    begun: u64,
    current: Option<Rollout>,
    /// The one that was ordered last, while one is under way.
    next: Option<(Trigger, Vec<SlotId>)>,
    /// Single slots that want a new worker, and why.
    wanted: BTreeMap<SlotId, String>,
    /// The single slot that is being replaced.
    single: Option<SlotId>,
    /// Single slots whose replacement has failed, and when.
    failed: BTreeMap<SlotId, Timestamp>,
}

#[derive(Debug)]
struct Rollout {
    number: u64,
    trigger: Trigger,
    waiting: VecDeque<SlotId>,
    under_way: Vec<SlotId>,
    replaced: u16,
    of: u16,
    /// Why it goes no further, once that is so.
    ending: Option<Outcome>,
}

impl Planner {
    /// Begins a rolling restart of `slots`, now or after the one that is under way.
    pub fn begin(&mut self, trigger: Trigger, slots: Vec<SlotId>) {
        if let Some(current) = &mut self.current {
            current.ending.get_or_insert(Outcome::Superseded);
        }
        self.next = Some((trigger, slots));
    }

    /// A single slot wants a new worker. Nothing new while it is being replaced anyway.
    pub fn want(&mut self, slot: SlotId, reason: &str, now: Timestamp) {
        if self.failed.get(&slot).is_some_and(|at| now.since(*at) < RETRY_AFTER) {
            return;
        }
        self.failed.remove(&slot);
        if !self.is_replacing(slot) && !self.is_planned(slot) {
            self.wanted.insert(slot, reason.to_owned());
        }
    }

    /// A slot has its new worker.
    pub fn replaced(&mut self, slot: SlotId) {
        if self.end_of(slot)
            && let Some(current) = &mut self.current
        {
            current.replaced += 1;
        }
    }

    /// A slot's new worker came to nothing.
    pub fn failed(&mut self, slot: SlotId, reason: &str, now: Timestamp) {
        if self.single == Some(slot) {
            self.failed.insert(slot, now);
        }
        if self.end_of(slot)
            && let Some(current) = &mut self.current
        {
            current.ending = Some(Outcome::Aborted(slot, reason.to_owned()));
        }
    }

    /// A slot is not there any more.
    pub fn removed(&mut self, slot: SlotId) {
        self.wanted.remove(&slot);
        self.failed.remove(&slot);
        self.end_of(slot);
        if let Some(current) = &mut self.current {
            current.waiting.retain(|waiting| *waiting != slot);
        }
        if let Some((_, slots)) = &mut self.next {
            slots.retain(|planned| *planned != slot);
        }
    }

    /// Nothing more is to be replaced.
    pub fn stop(&mut self) {
        (self.next, self.single) = (None, None);
        self.wanted.clear();
        if let Some(current) = &mut self.current {
            current.under_way.clear();
            current.ending = Some(Outcome::Stopped);
        }
    }

    /// What is to be done now. To be called after each fact, and carried out.
    pub fn steps(&mut self, settings: &RolloutSettings) -> Vec<Step> {
        let mut steps = Vec::new();
        loop {
            steps.extend(self.current.as_mut().map(|it| it.advance(settings)).unwrap_or_default());
            match self.current.take_if(|current| current.is_over()) {
                Some(over) => steps.push(Step::End(over.report())),
                None if self.current.is_some() => return steps,
                None => {}
            }
            if self.single.is_some() {
                return steps;
            }
            if let Some((trigger, slots)) = self.next.take() {
                steps.push(self.start(trigger, slots));
            } else if let Some((slot, reason)) = self.wanted.pop_first() {
                self.single = Some(slot);
                steps.push(Step::Replace(slot, Some(reason)));
                return steps;
            } else {
                return steps;
            }
        }
    }

    /// Whether a slot's worker is being replaced now.
    #[must_use]
    pub fn is_replacing(&self, slot: SlotId) -> bool {
        let rollout = self.current.as_ref();
        self.single == Some(slot) || rollout.is_some_and(|it| it.under_way.contains(&slot))
    }

    /// Whether anything is under way or to come.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.current.is_none()
            && self.next.is_none()
            && self.single.is_none()
            && self.wanted.is_empty()
    }

    /// Whether a rolling restart is under way or to come.
    #[must_use]
    pub fn is_rolling(&self) -> bool {
        self.current.is_some() || self.next.is_some()
    }

    fn is_planned(&self, slot: SlotId) -> bool {
        let current = self.current.as_ref().filter(|current| current.ending.is_none());
        current.is_some_and(|current| current.waiting.contains(&slot))
            || self.next.as_ref().is_some_and(|(_, slots)| slots.contains(&slot))
    }

    /// Whoever gets a new worker by it has no other wish.
    fn start(&mut self, trigger: Trigger, slots: Vec<SlotId>) -> Step {
        self.begun += 1;
        self.failed.clear();
        self.wanted.retain(|slot, _| !slots.contains(slot));
        let (number, of) = (self.begun, u16::try_from(slots.len()).unwrap_or(u16::MAX));
        let begin = Step::Begin { number, trigger: trigger.clone(), of };
        self.current = Some(Rollout {
            number,
            trigger,
            waiting: slots.into(),
            under_way: Vec::new(),
            replaced: 0,
            of,
            ending: None,
        });
        begin
    }

    /// Takes a slot out of what is under way, and says whether it was part of a rolling restart.
    fn end_of(&mut self, slot: SlotId) -> bool {
        self.single.take_if(|single| *single == slot);
        let Some(current) = &mut self.current else { return false };
        let before = current.under_way.len();
        current.under_way.retain(|under_way| *under_way != slot);
        current.under_way.len() < before
    }
}

impl Rollout {
    fn advance(&mut self, settings: &RolloutSettings) -> Vec<Step> {
        let mut steps = Vec::new();
        while self.ending.is_none() && self.under_way.len() < usize::from(settings.parallel.max(1))
        {
            let Some(slot) = self.waiting.pop_front() else { break };
            self.under_way.push(slot);
            steps.push(Step::Replace(slot, None));
        }
        steps
    }

    fn is_over(&self) -> bool {
        self.under_way.is_empty() && (self.waiting.is_empty() || self.ending.is_some())
    }

    fn report(self) -> Report {
        let Self { number, trigger, replaced, of, ending, .. } = self;
        let complete = self.waiting.is_empty() && ending == Some(Outcome::Superseded);
        let outcome = if complete { Outcome::Done } else { ending.unwrap_or(Outcome::Done) };
        Report { number, trigger, outcome, replaced, of }
    }
}

#[cfg(test)]
mod tests;
