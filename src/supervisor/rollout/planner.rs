//! The choice of the worker that is replaced next.
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
//! * Each rolling restart whose number was given ends in one report, and each replacement that was
//!   ordered in one of [`Planner::replaced`], [`Planner::failed`], [`Planner::removed`] and
//!   [`Planner::stop`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::handover::carry;
use crate::handover::pool::{PlannerSnapshot, RolloutSnapshot};
use crate::protocol::ids::{SlotId, Timestamp};
use crate::supervisor::rollout::{
    Cause, Outcome, Part, Report, RolloutProgress, RolloutSettings, Step, Trigger,
};

/// A single slot whose replacement has failed is left alone for so long.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Decides which slot is next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planner {
    begun: u64,
    current: Option<Rollout>,
    /// The one that was ordered last, while one is under way.
    next: Option<(Trigger, Vec<SlotId>)>,
    /// Single slots that want a new worker, and why.
    wanted: BTreeMap<SlotId, Cause>,
    /// The single slot that is being replaced.
    single: Option<(SlotId, Cause)>,
    /// Single slots whose replacement has failed, and when.
    failed: BTreeMap<SlotId, Timestamp>,
    stopped: bool,
}

carry!(struct Planner => PlannerSnapshot { begun, current, next, wanted, single, failed, stopped });

#[derive(Clone, Debug, PartialEq)]
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

carry!(struct Rollout => RolloutSnapshot { number, trigger, waiting, under_way, replaced, of, ending });

impl Planner {
    /// Begins a rolling restart of `slots`, now or after the one that is under way, and says which
    /// number it will have. One that has not begun yet gives way: it shares the number.
    pub fn begin(&mut self, trigger: Trigger, slots: Vec<SlotId>) -> u64 {
        if let Some(current) = &mut self.current {
            current.ending.get_or_insert(Outcome::Superseded);
        }
        self.next = Some((trigger, slots));
        self.begun + 1
    }

    /// A slot has come back, with a worker of the old kind: it gets a new one with the others.
    pub fn join(&mut self, slot: SlotId) {
        if let Some(current) = self.current.as_mut().filter(|current| current.ending.is_none()) {
            current.waiting.push_back(slot);
            current.of = current.of.saturating_add(1);
        }
        if let Some((_, slots)) = &mut self.next {
            slots.push(slot);
        }
    }

    /// A single slot wants a new worker. Nothing new while it is being replaced anyway.
    pub fn want(&mut self, slot: SlotId, cause: Cause, now: Timestamp) {
        if self.failed.get(&slot).is_some_and(|at| now.since(*at) < RETRY_AFTER) {
            return;
        }
        self.failed.remove(&slot);
        if !self.stopped && !self.is_replacing(slot) && !self.is_planned(slot) {
            self.wanted.entry(slot).or_insert(cause);
        }
    }

    /// An operator wants a slot to get a new worker, whatever became of it before. It is done
    /// whatever becomes of a rolling restart that is still to come to it.
    pub fn order(&mut self, slot: SlotId) {
        self.failed.remove(&slot);
        if !self.stopped && !self.is_replacing(slot) {
            self.wanted.insert(slot, Cause::Ordered);
        }
    }

    /// A slot has its new worker. Says what that was part of, if it was under way.
    pub fn replaced(&mut self, slot: SlotId) -> Option<Part> {
        let part = self.end_of(slot)?;
        if let (Part::Rollout, Some(current)) = (part, &mut self.current) {
            current.replaced += 1;
        }
        Some(part)
    }

    /// A slot's new worker came to nothing. Says what it was part of, if it was under way.
    pub fn failed(&mut self, slot: SlotId, reason: &str, now: Timestamp) -> Option<Part> {
        let part = self.end_of(slot)?;
        match (part, &mut self.current) {
            (Part::Single(_), _) => {
                self.failed.insert(slot, now);
            }
            (Part::Rollout, Some(current)) => {
                current.ending = Some(Outcome::Aborted(slot, reason.to_owned()));
            }
            (Part::Rollout, None) => {}
        }
        Some(part)
    }

    /// A slot is not there any more, or out of service. Says whether a replacement of it was under
    /// way, or ordered, which comes to nothing by that.
    pub fn removed(&mut self, slot: SlotId) -> bool {
        let ordered = self.wanted.remove(&slot) == Some(Cause::Ordered);
        self.failed.remove(&slot);
        if let Some(current) = &mut self.current {
            current.waiting.retain(|waiting| *waiting != slot);
        }
        if let Some((_, slots)) = &mut self.next {
            slots.retain(|planned| *planned != slot);
        }
        self.end_of(slot).is_some() || ordered
    }

    /// Nothing more is to be replaced. Returns the slots whose replacement was under way, or
    /// ordered, which comes to nothing by that.
    pub fn stop(&mut self) -> Vec<SlotId> {
        self.stopped = true;
        let ordered = std::mem::take(&mut self.wanted).into_iter();
        let ordered = ordered.filter(|(_, cause)| *cause == Cause::Ordered);
        let mut ended: Vec<_> = ordered.chain(self.single.take()).map(|(slot, _)| slot).collect();
        if let Some(current) = &mut self.current {
            ended.append(&mut current.under_way);
            current.ending = Some(Outcome::Stopped);
        }
        ended
    }

    /// The steps to carry out now. To be called after each fact.
    pub fn steps(&mut self, settings: &RolloutSettings) -> Vec<Step> {
        let mut steps = Vec::new();
        loop {
            steps.extend(self.advance(settings));
            match self.current.take_if(|current| current.is_over()) {
                Some(over) => steps.push(Step::End(over.report())),
                None if self.current.is_some() => return steps,
                None => {}
            }
            if self.single.is_some() {
                return steps;
            }
            if let Some((trigger, slots)) = self.next.take() {
                steps.extend(self.start(trigger, slots));
            } else if let Some((slot, cause)) = self.wanted.pop_first() {
                self.single = Some((slot, cause));
                steps.push(Step::Replace(slot, Some(cause)));
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
        let single = self.single.is_some_and(|(single, _)| single == slot);
        single || rollout.is_some_and(|it| it.under_way.contains(&slot))
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

    /// How far the rolling restart that is under way is.
    #[must_use]
    pub fn progress(&self) -> Option<RolloutProgress<'_>> {
        let Rollout { number, trigger, under_way, replaced, of, .. } = self.current.as_ref()?;
        Some(RolloutProgress { number: *number, trigger, replaced: *replaced, of: *of, under_way })
    }

    fn is_planned(&self, slot: SlotId) -> bool {
        let current = self.current.as_ref().filter(|current| current.ending.is_none());
        current.is_some_and(|current| current.waiting.contains(&slot))
            || self.next.as_ref().is_some_and(|(_, slots)| slots.contains(&slot))
    }

    /// Where everything is to end, it ends before it has begun.
    fn start(&mut self, trigger: Trigger, slots: Vec<SlotId>) -> Option<Step> {
        self.begun += 1;
        self.failed.clear();
        let (number, of) = (self.begun, u16::try_from(slots.len()).unwrap_or(u16::MAX));
        let begin = Step::Begin { number, trigger: trigger.clone(), of };
        self.current = Some(Rollout {
            number,
            trigger,
            waiting: slots.into(),
            under_way: Vec::new(),
            replaced: 0,
            of,
            ending: self.stopped.then_some(Outcome::Stopped),
        });
        (!self.stopped).then_some(begin)
    }

    /// Continues the rolling restart. A slot that gets a new worker by it needs no other one.
    fn advance(&mut self, settings: &RolloutSettings) -> Vec<Step> {
        let Some(current) = &mut self.current else { return Vec::new() };
        let mut steps = Vec::new();
        let most = usize::from(settings.parallel.max(1));
        while current.ending.is_none() && current.under_way.len() < most {
            let Some(slot) = current.waiting.pop_front() else { break };
            current.under_way.push(slot);
            self.wanted.remove(&slot);
            steps.push(Step::Replace(slot, None));
        }
        steps
    }

    /// Takes a slot out of what is under way, and says what it was part of.
    fn end_of(&mut self, slot: SlotId) -> Option<Part> {
        if let Some((_, cause)) = self.single.take_if(|(single, _)| *single == slot) {
            return Some(Part::Single(cause));
        }
        let under_way = &mut self.current.as_mut()?.under_way;
        let position = under_way.iter().position(|under_way| *under_way == slot)?;
        under_way.remove(position);
        Some(Part::Rollout)
    }
}

impl Rollout {
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
