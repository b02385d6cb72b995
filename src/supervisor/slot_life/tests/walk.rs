//! A random walk that checks the promises after each step.

use proptest::prelude::*;

use super::*;

fn facts() -> impl Strategy<Value = Fact> {
    let generation = || (0..8_u32).prop_map(Generation);
    prop_oneof![
        6 => generation().prop_map(Fact::Ready),
        1 => generation().prop_map(Fact::Leave),
        1 => generation().prop_map(Fact::Stalled),
        1 => generation().prop_map(Fact::Hurry),
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
    life.workers.iter().filter(|(_, phase)| is(phase)).count()
}

proptest! {
    #[test]
    fn whatever_happens_the_promises_hold(
        steps in prop::collection::vec((0..4_000_u64, facts()), 1..120), max_restarts in 0..20_u32,
    ) {
        let restart = RestartPolicy {
            max_restarts, stop_exit_codes: vec![2], ..RestartPolicy::DEFAULT
        };
        let mut life = SlotLife::new(LifecycleSettings { restart, ..SETTINGS });
        let mut now = 0;
        let mut unsettled = false;
        // Whether it was said that a drained slot's last worker has ended.
        let mut said = false;
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
            prop_assert!(standby == 0 || serving == 1 || ending > 0, "nobody serves: {life:?}");
            let has = |wanted: fn(&Action) -> bool| actions.iter().any(wanted);
            let out = matches!(life.state(), SlotState::Removed | SlotState::Drained);
            if out {
                prop_assert!(!has(|it| matches!(it, Action::Spawn(_))));
            }
            // A replacement that was asked for is settled once, and by nothing else.
            unsettled |= fact == Fact::Replace && !out;
            if has(|it| matches!(it, Action::Replaced(_) | Action::NotReplaced(_))) {
                prop_assert!(unsettled, "settled what nobody asked for");
                unsettled = false;
            }
            unsettled &= !out;
            prop_assert!(!unsettled || life.candidate.is_some(), "never settled: {life:?}");
            // Nobody who serves is told to go unless somebody else serves, or all is to end.
            if let Some((before, _)) = served_before
                && actions.contains(&Action::Drain(before))
            {
                prop_assert!(serving == 1 || out);
            }
            // A drained slot says once that its last worker has ended, and then has none.
            if life.state() == SlotState::Drained {
                let says = has(|it| *it == Action::Rest(SlotState::Drained));
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
