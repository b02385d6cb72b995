//! A random walk that checks the promises after each step.

use proptest::prelude::*;

use std::collections::HashMap;

use super::*;

pub(super) fn facts() -> impl Strategy<Value = Fact> {
    let generation = || (0..8_u32).prop_map(Generation);
    prop_oneof![
        6 => generation().prop_map(Fact::Ready),
        1 => generation().prop_map(Fact::Leave),
        1 => generation().prop_map(Fact::Stalled),
        1 => generation().prop_map(Fact::ShortenDeadline),
        1 => generation().prop_map(|g| Fact::Kill(g, KillReason::Violation)),
        6 => (generation(), 0..3_i32, 0.0..1.0).prop_map(|(generation, status, jitter)| {
            Fact::Exited { generation, status: Some(status), jitter }
        }),
        6 => Just(Fact::Time),
        4 => Just(Fact::Replace),
        2 => Just(Fact::Start),
        1 => prop_oneof![3 => Just(Fact::Time), 1 => Just(Fact::Drain)],
        1 => prop_oneof![9 => Just(Fact::Time), 1 => Just(Fact::Remove)],
        1 => prop_oneof![9 => Just(Fact::Time), 1 => Just(Fact::Stop)],
    ]
}

fn phases(life: &SlotLife, is: impl Fn(&Phase) -> bool) -> usize {
    life.workers().filter(|(_, phase)| is(phase)).count()
}

proptest! {
    #[test]
    fn whatever_happens_the_promises_hold(
        steps in prop::collection::vec((0..4_000_u64, facts()), 1..120), max_restarts in 0..20_u32, spare: bool,
    ) {
        let restart = RestartPolicy {
            max_restarts, stop_exit_codes: vec![2], ..RestartPolicy::DEFAULT
        };
        let mut life = SlotLife::new(LifecycleSettings { restart, spare, ..SETTINGS });
        let mut now = 0;
        let mut unsettled = false;
        // Whether it was said that a drained slot's last worker has ended.
        let mut said = false;
        // Until when those who drain were told to have time; those who were terminated were not.
        let mut told: HashMap<Generation, Option<(Timestamp, DrainReason)>> = HashMap::new();
        life.on(Fact::Start, at(0));
        for (millis, fact) in steps {
            now += millis;
            let served_before = life.serving();
            let actions = life.on(fact, at(now));
            let serving = phases(&life, |it| matches!(it, Phase::Serving { .. }));
            let standby = phases(&life, |it| matches!(it, Phase::Standby { .. }));
            let starting = phases(&life, |it| matches!(it, Phase::Spawning { .. }));
            let ending = phases(&life, |it| matches!(it, Phase::Killed { .. }));
            prop_assert!(serving <= 1, "two workers serve: {life:?}");
            prop_assert!(starting <= 1, "two workers start: {life:?}");
            prop_assert!(standby == 0 || serving == 1 || ending > 0, "no worker serves: {life:?}");
            let has = |wanted: fn(&Action) -> bool| actions.iter().any(wanted);
            let out = matches!(life.state(), SlotState::Removed | SlotState::Drained);
            if out {
                prop_assert!(!has(|it| matches!(it, Action::Spawn(_))));
            }
            // A replacement that was asked for is settled once, and by nothing else.
            unsettled |= fact == Fact::Replace && !out;
            if has(|it| matches!(it, Action::Replaced(_) | Action::ReplacementFailed(_))) {
                prop_assert!(unsettled, "completed without an order");
                unsettled = false;
            }
            unsettled &= !out;
            prop_assert!(!unsettled || life.candidate.is_some(), "never settled: {life:?}");
            // A serving worker drains only if another one serves, or all is to end.
            if let Some((before, _)) = served_before
                && actions.iter().any(|it| matches!(it, Action::Drain(it, _) if *it == before))
            {
                prop_assert!(serving == 1 || out);
            }
            // A draining worker knows its time, is told of less alone, and is killed when it is over.
            for action in &actions {
                match *action {
                    Action::Terminate(worker) => drop(told.insert(worker, None)),
                    Action::Drain(worker, order) => {
                        let until = Some((at(now) + order.window, order.reason));
                        prop_assert!(told.insert(worker, until).is_none(), "told twice");
                    }
                    Action::ShortenDeadline(worker, order) => {
                        let until = (at(now) + order.window, order.reason);
                        let before = told.insert(worker, Some(until)).flatten();
                        let Some(before) = before else { panic!("doesn't drain: {life:?}") };
                        // One whose time was over before has none left.
                        prop_assert!(until.0 <= before.0.max(at(now)) && until != before);
                    }
                    Action::Kill(worker, KillReason::GraceOver) => {
                        let until = told.get(&worker).copied();
                        let Some(until) = until else { panic!("doesn't drain: {life:?}") };
                        prop_assert!(until.is_none_or(|(until, _)| at(now) >= until));
                    }
                    _ => {}
                }
            }
            for (worker, phase) in life.workers() {
                let Phase::Draining { deadline, .. } = phase else { continue };
                let until = told.get(&worker).copied().flatten();
                let is_known = |(until, _)| until == deadline || at(now) > deadline;
                prop_assert!(until.is_none_or(is_known), "{life:?}");
            }
            // A drained slot says once that its last worker has ended, and then has none.
            if life.state() == SlotState::Drained {
                let says = has(|it| *it == Action::Idle(SlotState::Drained));
                prop_assert!(!says || !said, "said twice");
                said |= says;
                prop_assert_eq!(said, life.workers.is_empty());
            } else {
                said = false;
            }
            // Whatever is not at rest has a time at which it goes on.
            let at_rest = serving == 1 || ending > 0 || life.state() == SlotState::Errored
                || life.state() == SlotState::Stopped || out && life.workers.is_empty();
            prop_assert!(at_rest || life.next_deadline().is_some(), "stuck: {life:?}");
        }
    }
}
