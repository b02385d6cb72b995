//! Tables and a random walk for the order of replacements.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::planner::Planner;
use super::*;
use crate::protocol::ids::Timestamp;

mod carried_over;

const ONE: RolloutSettings = RolloutSettings { parallel: 1, max_draining_memory: None };

fn slots(count: u16) -> Vec<SlotId> {
    (0..count).map(SlotId).collect()
}

fn at(seconds: u64) -> Timestamp {
    Timestamp(0) + Duration::from_secs(seconds)
}

fn replace(slot: u16) -> Step {
    Step::Replace(SlotId(slot), None)
}

fn single(slot: u16, cause: Cause) -> Step {
    Step::Replace(SlotId(slot), Some(cause))
}

fn begin(number: u64, of: u16) -> Step {
    Step::Begin { number, trigger: Trigger::Signal, of }
}

fn end(number: u64, outcome: Outcome, replaced: u16, of: u16) -> Step {
    Step::End(Report { number, trigger: Trigger::Signal, outcome, replaced, of })
}

#[test]
fn slot_by_slot() {
    let mut planner = Planner::default();
    planner.begin(Trigger::Signal, slots(2));
    assert_eq!(planner.steps(&ONE), [begin(1, 2), replace(0)]);
    assert_eq!(planner.steps(&ONE), []);
    planner.replaced(SlotId(0));
    assert_eq!(planner.steps(&ONE), [replace(1)]);
    planner.replaced(SlotId(1));
    assert_eq!(planner.steps(&ONE), [end(1, Outcome::Done, 2, 2)]);
    assert!(planner.is_idle());
}

#[test]
fn some_at_a_time() {
    let mut planner = Planner::default();
    planner.begin(Trigger::Signal, slots(5));
    let two = RolloutSettings { parallel: 2, ..ONE };
    assert_eq!(planner.steps(&two), [begin(1, 5), replace(0), replace(1)]);
    planner.replaced(SlotId(1));
    assert_eq!(planner.steps(&two), [replace(2)]);
}

#[test]
fn a_failure_ends_it_when_the_others_under_way_have_ended() {
    let mut planner = Planner::default();
    planner.begin(Trigger::Signal, slots(5));
    planner.steps(&RolloutSettings { parallel: 2, ..ONE });
    planner.failed(SlotId(0), "exited", at(0));
    assert_eq!(planner.steps(&ONE), []);
    planner.replaced(SlotId(1));
    let aborted = Outcome::Aborted(SlotId(0), "exited".to_owned());
    assert_eq!(planner.steps(&ONE), [end(1, aborted, 1, 5)]);
}

#[test]
fn the_last_one_ordered_follows_and_never_mixes() {
    let mut planner = Planner::default();
    planner.begin(Trigger::Signal, slots(3));
    planner.steps(&ONE);
    planner.begin(Trigger::Cron, slots(3));
    planner.begin(Trigger::Signal, slots(3));
    assert_eq!(planner.steps(&ONE), [], "slot 0 is under way");
    planner.replaced(SlotId(0));
    assert_eq!(planner.steps(&ONE), [end(1, Outcome::Superseded, 1, 3), begin(2, 3), replace(0)]);
}

#[test]
fn single_slots_go_one_by_one_and_after_a_rolling_restart() {
    let mut planner = Planner::default();
    for slot in slots(3) {
        planner.want(slot, Cause::Asked, at(0));
    }
    let old = |slot| [single(slot, Cause::Asked)];
    assert_eq!(planner.steps(&ONE), old(0));
    planner.want(SlotId(0), Cause::Asked, at(1));
    planner.begin(Trigger::Signal, vec![SlotId(1)]);
    assert_eq!(planner.steps(&ONE), []);
    planner.replaced(SlotId(0));
    assert_eq!(planner.steps(&ONE), [begin(1, 1), replace(1)]);
    planner.replaced(SlotId(1));
    assert_eq!(planner.steps(&ONE), [vec![end(1, Outcome::Done, 1, 1)], old(2).to_vec()].concat());
    planner.replaced(SlotId(2));
    assert!(planner.steps(&ONE).is_empty() && planner.is_idle());
}

#[test]
fn a_single_slot_that_failed_is_left_alone_for_a_while() {
    let mut planner = Planner::default();
    planner.want(SlotId(1), Cause::Asked, at(0));
    planner.steps(&ONE);
    planner.failed(SlotId(1), "exited", at(1));
    planner.want(SlotId(1), Cause::Asked, at(60));
    assert!(planner.steps(&ONE).is_empty());
    planner.want(SlotId(1), Cause::Asked, at(61));
    assert_eq!(planner.steps(&ONE).len(), 1);
}

#[test]
fn a_removed_slot_holds_nothing_up() {
    let mut planner = Planner::default();
    planner.begin(Trigger::Signal, slots(3));
    planner.steps(&ONE);
    planner.removed(SlotId(0));
    planner.removed(SlotId(1));
    assert_eq!(planner.steps(&ONE), [replace(2)]);
    planner.stop();
    assert_eq!(planner.steps(&ONE), [end(1, Outcome::Stopped, 0, 3)]);
    assert!(planner.is_idle());
}

#[test]
fn numbers_are_known_beforehand_and_the_newest_order_has_that_of_the_one_it_replaces() {
    let mut planner = Planner::default();
    assert_eq!(planner.begin(Trigger::Command, slots(2)), 1);
    assert_eq!(planner.begin(Trigger::Signal, slots(2)), 1, "none has begun");
    assert_eq!(planner.steps(&ONE), [begin(1, 2), replace(0)]);
    assert_eq!(planner.begin(Trigger::Command, slots(2)), 2);
    assert_eq!(planner.begin(Trigger::Signal, slots(2)), 2);
    planner.replaced(SlotId(0));
    assert_eq!(planner.steps(&ONE), [end(1, Outcome::Superseded, 1, 2), begin(2, 2), replace(0)]);
}

#[test]
fn one_whose_number_was_given_ends_even_if_it_never_begins() {
    let mut planner = Planner::default();
    planner.begin(Trigger::Signal, slots(2));
    planner.steps(&ONE);
    planner.begin(Trigger::Signal, slots(3));
    assert_eq!(planner.stop(), slots(1));
    let both = [end(1, Outcome::Stopped, 0, 2), end(2, Outcome::Stopped, 0, 3)];
    assert_eq!(planner.steps(&ONE), both);
    planner.want(SlotId(0), Cause::Asked, at(0));
    planner.order(SlotId(0));
    assert!(planner.steps(&ONE).is_empty() && planner.is_idle(), "nothing more is replaced");
}

#[test]
fn an_order_is_carried_out_whatever_became_of_the_slot_before() {
    let mut planner = Planner::default();
    planner.want(SlotId(1), Cause::Asked, at(0));
    planner.steps(&ONE);
    assert_eq!(planner.failed(SlotId(1), "exited", at(1)), Some(Part::Single(Cause::Asked)));
    planner.order(SlotId(1));
    assert_eq!(planner.steps(&ONE), [single(1, Cause::Ordered)]);
    planner.order(SlotId(1));
    assert_eq!(planner.replaced(SlotId(1)), Some(Part::Single(Cause::Ordered)));
    assert_eq!(planner.steps(&ONE), [], "it was being replaced anyway");
    assert_eq!(planner.replaced(SlotId(1)), None, "without an order");
}

#[test]
fn an_order_outlives_a_rolling_restart_that_ends_before_it_comes_to_the_slot() {
    let mut planner = Planner::default();
    planner.begin(Trigger::Signal, slots(3));
    planner.steps(&ONE);
    planner.order(SlotId(2));
    planner.failed(SlotId(0), "exited", at(0));
    let aborted = Outcome::Aborted(SlotId(0), "exited".to_owned());
    assert_eq!(planner.steps(&ONE), [end(1, aborted, 0, 3), single(2, Cause::Ordered)]);
}

#[test]
fn an_order_is_done_by_a_rolling_restart_that_comes_to_the_slot() {
    let mut planner = Planner::default();
    planner.begin(Trigger::Signal, slots(2));
    planner.steps(&ONE);
    planner.order(SlotId(1));
    planner.replaced(SlotId(0));
    assert_eq!(planner.steps(&ONE), [replace(1)]);
    assert_eq!(planner.replaced(SlotId(1)), Some(Part::Rollout));
    assert_eq!(planner.steps(&ONE), [end(1, Outcome::Done, 2, 2)]);
    assert!(planner.is_idle());
}

#[test]
fn an_order_that_comes_to_nothing_is_reported() {
    let mut planner = Planner::default();
    planner.begin(Trigger::Signal, slots(3));
    planner.steps(&ONE);
    planner.order(SlotId(1));
    planner.order(SlotId(2));
    planner.want(SlotId(4), Cause::Asked, at(0));
    assert!(planner.removed(SlotId(1)) && !planner.removed(SlotId(1)));
    assert!(!planner.removed(SlotId(4)), "it was not ordered");
    assert_eq!(planner.stop(), [SlotId(2), SlotId(0)]);
    assert_eq!(planner.stop(), []);
}

#[test]
fn a_slot_that_is_drained_while_it_is_replaced_holds_nothing_up_and_gets_a_new_worker_with_undrain()
{
    let mut planner = Planner::default();
    planner.begin(Trigger::Signal, slots(2));
    planner.steps(&ONE);
    assert!(planner.removed(SlotId(0)));
    assert_eq!(planner.failed(SlotId(0), "drained", at(0)), None, "that is no failure");
    assert_eq!(planner.steps(&ONE), [replace(1)]);
    planner.join(SlotId(0));
    planner.replaced(SlotId(1));
    assert_eq!(planner.steps(&ONE), [replace(0)]);
    let progress = planner.progress().unwrap();
    assert_eq!((progress.number, progress.replaced, progress.of), (1, 1, 3));
    assert_eq!(progress.under_way, [SlotId(0)]);
    planner.replaced(SlotId(0));
    assert_eq!(planner.steps(&ONE), [end(1, Outcome::Done, 2, 3)]);
    assert_eq!(planner.progress(), None);
    planner.join(SlotId(0));
    assert!(planner.is_idle(), "nothing is under way that it could join");
}

proptest! {
    /// Slots 0 to 5; whatever is under way ends some time, well or not. A slot that is out of
    /// service is neither ordered nor begun with until it joins again.
    #[test]
    fn whatever_happens_the_promises_hold(
        facts in prop::collection::vec((0..9_u8, 0..6_u16), 1..120), parallel in 1..4_u16,
        stops in any::<bool>(),
    ) {
        let settings = RolloutSettings { parallel, ..ONE };
        let mut planner = Planner::default();
        let mut under_way: Vec<(SlotId, bool)> = Vec::new();
        let mut rolling = false;
        let (mut out, mut ordered) = (BTreeSet::new(), BTreeSet::new());
        let (mut expected, mut ended) = (0, 0);
        let last = facts.len() - 1;
        for (second, (fact, slot)) in (0..).zip(facts) {
            let slot = SlotId(slot);
            let stop = stops && second == last as u64;
            // Whose replacement has been settled by this fact.
            let mut settled: Vec<SlotId> = Vec::new();
            let is_out = out.contains(&slot);
            match fact {
                _ if stop => settled = planner.stop(),
                0 => {
                    let slots = slots(6).into_iter().filter(|slot| !out.contains(slot));
                    expected = planner.begin(Trigger::Signal, slots.collect());
                }
                1 if !is_out => planner.want(slot, Cause::Asked, at(second)),
                2 if !is_out => {
                    settled.extend(planner.removed(slot).then_some(slot));
                    out.insert(slot);
                }
                3 => settled.extend(planner.failed(slot, "exited", at(second)).map(|_| slot)),
                4 if !is_out => {
                    planner.order(slot);
                    ordered.insert(slot);
                }
                5 if out.remove(&slot) => planner.join(slot),
                6.. => settled.extend(planner.replaced(slot).map(|_| slot)),
                _ => {}
            }
            ordered.retain(|slot| !settled.contains(slot));
            under_way.retain(|(busy, _)| !settled.contains(busy));
            for step in planner.steps(&settings) {
                match step {
                    Step::Begin { .. } => {
                        prop_assert!(!rolling && under_way.is_empty(), "rolling restarts mix");
                        prop_assert!(!stop);
                        rolling = true;
                    }
                    Step::Replace(slot, single) => {
                        prop_assert!(!out.contains(&slot), "out of service, and replaced");
                        prop_assert!(!under_way.iter().any(|(busy, _)| *busy == slot));
                        prop_assert!(single.is_none() || under_way.is_empty() && !rolling);
                        under_way.push((slot, single.is_some()));
                        prop_assert!(under_way.len() <= usize::from(parallel));
                    }
                    Step::End(report) => {
                        prop_assert!((rolling || stop) && under_way.is_empty());
                        rolling = false;
                        ended += 1;
                        prop_assert_eq!(report.number, ended, "each number ends once");
                        prop_assert!(report.replaced <= report.of);
                    }
                }
            }
            for slot in slots(6) {
                let busy = under_way.iter().any(|(busy, _)| *busy == slot);
                prop_assert_eq!(planner.is_replacing(slot), busy);
            }
            // Whatever is to come waits for something that is under way.
            prop_assert!(planner.is_idle() || !under_way.is_empty());
            prop_assert!(!planner.is_idle() || ordered.is_empty(), "an order is forgotten");
            prop_assert!(planner.is_rolling() || ended == expected, "a number never ends");
        }
    }
}
