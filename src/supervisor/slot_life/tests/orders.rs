//! The orders of draining workers: how their clients go, and how much time there is.

use super::*;

fn told_first(settings: LifecycleSettings, fact: Fact) -> DrainOrder {
    let mut life = SlotLife::new(settings);
    life.on(Fact::Start, at(0));
    life.on(Fact::Ready(G0), at(10));
    match life.on(fact, at(5_000))[..] {
        [Action::Drain(G0, order)] => order,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn clients_are_told_of_a_restart_unless_everything_ends_and_then_no_worker_is_left_to_move_to() {
    for (set, at_the_end) in [
        (DrainMode::Wait, DrainMode::Wait),
        (DrainMode::Close, DrainMode::Close),
        (DrainMode::Migrate, DrainMode::Close),
    ] {
        let settings = LifecycleSettings { drain: set, ..SETTINGS };
        for fact in [Fact::Drain, Fact::Remove] {
            let expected = DrainOrder { mode: set, ..moves(60) };
            assert_eq!(told_first(settings.clone(), fact), expected, "{fact:?}");
        }
        let expected = DrainOrder { mode: at_the_end, ..ends(10) };
        assert_eq!(told_first(settings, Fact::Stop), expected);
    }
}

#[test]
fn one_that_has_to_hurry_hears_of_it_once() {
    play_on(&[
        (5_000, Fact::Drain, &[Action::Drain(G0, moves(60))]),
        (6_000, Fact::ShortenDeadline(G0), &[Action::ShortenDeadline(G0, moves(10))]),
        (7_000, Fact::ShortenDeadline(G0), &[]),
        (16_000, Fact::Time, &[Action::Kill(G0, KillReason::GraceOver)]),
    ]);
    // One that has little time left anyway has no more for it.
    play_on(&[
        (5_000, Fact::Drain, &[Action::Drain(G0, moves(60))]),
        (60_000, Fact::ShortenDeadline(G0), &[]),
        (65_000, Fact::Time, &[Action::Kill(G0, KillReason::GraceOver)]),
    ]);
}

#[test]
fn one_too_many_hears_that_it_has_to_hurry() {
    let restart = RestartPolicy { min_uptime: Duration::ZERO, ..RestartPolicy::DEFAULT };
    let mut life = SlotLife::new(LifecycleSettings { restart, ..SETTINGS });
    life.on(Fact::Start, at(0));
    life.on(Fact::Ready(G0), at(0));
    for generation in 1..3 {
        life.on(Fact::Replace, at(1_000));
        life.on(Fact::Ready(Generation(generation)), at(1_000));
    }
    life.on(Fact::Replace, at(9_000));
    let expected = [
        Action::Serve(Generation(3)),
        Action::Drain(G2, moves(60)),
        Action::ShortenDeadline(G0, moves(10)),
        Action::Replaced(Generation(3)),
    ];
    assert_eq!(life.on(Fact::Ready(Generation(3)), at(9_000)), expected);
}

#[test]
fn the_end_of_everything_is_told_to_those_who_drain_with_the_time_that_is_left() {
    play_on(&[
        (5_000, Fact::Drain, &[Action::Drain(G0, moves(60))]),
        (60_000, Fact::Stop, &[Action::ShortenDeadline(G0, ends(5))]),
        // Later facts change nothing.
        (61_000, Fact::ShortenDeadline(G0), &[]),
        (62_000, Fact::Remove, &[]),
        (63_000, Fact::Stop, &[]),
        (65_000, Fact::Time, &[Action::Kill(G0, KillReason::GraceOver)]),
    ]);
}

#[test]
fn who_was_terminated_is_told_nothing_and_has_less_time_all_the_same() {
    play(
        SETTINGS,
        &[
            (0, Fact::Start, &[Action::Spawn(G0)]),
            (1_000, Fact::Drain, &[Action::Terminate(G0)]),
            (2_000, Fact::Stop, &[]),
            (12_000, Fact::Time, &[Action::Kill(G0, KillReason::GraceOver)]),
        ],
    );
}
