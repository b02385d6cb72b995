//! Tables and a random walk for the order of replacements.

use proptest::prelude::*;

use super::*;

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
        planner.want(slot, "old", at(0));
    }
    let old = |slot| [Step::Replace(SlotId(slot), Some("old".to_owned()))];
    assert_eq!(planner.steps(&ONE), old(0));
    planner.want(SlotId(0), "old", at(1));
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
    planner.want(SlotId(1), "old", at(0));
    planner.steps(&ONE);
    planner.failed(SlotId(1), "exited", at(1));
    planner.want(SlotId(1), "old", at(60));
    assert!(planner.steps(&ONE).is_empty());
    planner.want(SlotId(1), "old", at(61));
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

proptest! {
    /// Slots 0 to 5; whatever is under way ends some time, well or not.
    #[test]
    fn whatever_happens_the_promises_hold(
        facts in prop::collection::vec((0..6_u8, 0..6_u16), 1..120), parallel in 1..4_u16,
    ) {
        let settings = RolloutSettings { parallel, ..ONE };
        let mut planner = Planner::default();
        let mut under_way: Vec<(SlotId, bool)> = Vec::new();
        let mut rolling = false;
        for (second, (fact, slot)) in (0..).zip(facts) {
            let slot = SlotId(slot);
            match fact {
                0 => planner.begin(Trigger::Signal, slots(6)),
                1 => planner.want(slot, "old", at(second)),
                2 => planner.removed(slot),
                3 => planner.failed(slot, "exited", at(second)),
                _ => planner.replaced(slot),
            }
            if fact >= 2 {
                under_way.retain(|(busy, _)| *busy != slot);
            }
            for step in planner.steps(&settings) {
                match step {
                    Step::Begin { .. } => {
                        prop_assert!(!rolling && under_way.is_empty(), "rolling restarts mix");
                        rolling = true;
                    }
                    Step::Replace(slot, single) => {
                        prop_assert!(!under_way.iter().any(|(busy, _)| *busy == slot));
                        prop_assert!(single.is_none() || under_way.is_empty() && !rolling);
                        under_way.push((slot, single.is_some()));
                        prop_assert!(under_way.len() <= usize::from(parallel));
                    }
                    Step::End(_) => {
                        prop_assert!(rolling && under_way.is_empty());
                        rolling = false;
                    }
                }
            }
            for slot in slots(6) {
                let busy = under_way.iter().any(|(busy, _)| *busy == slot);
                prop_assert_eq!(planner.is_replacing(slot), busy);
            }
            // Whatever is to come waits for something that is under way.
            prop_assert!(planner.is_idle() || !under_way.is_empty());
        }
    }
}
