//! The worker that waits beside the one that serves.

use super::*;

fn with_spare() -> LifecycleSettings {
    LifecycleSettings { spare: true, ..SETTINGS }
}

/// As far as a spare is ready.
const BOTH: [(u64, Fact, &[Action]); 4] = [
    (0, Fact::Start, &[Action::Spawn(G0)]),
    (10, Fact::Ready(G0), &[Action::Serve(G0)]),
    (1_010, Fact::Time, &[Action::Spawn(G1)]),
    (1_100, Fact::Ready(G1), &[]),
];

fn play_on_both(steps: &Steps<'_>) -> SlotLife {
    play(with_spare(), &[&BOTH[..], steps].concat())
}

#[test]
fn a_spare_serves_in_the_moment_in_which_the_other_dies_and_is_followed_once_proved() {
    let life = play_on_both(&[
        (5_000, exited(G0), &[Action::Serve(G1)]),
        (5_999, Fact::Time, &[]),
        (6_000, Fact::Time, &[Action::Spawn(G2)]),
    ]);
    assert_eq!(life.serving().unwrap().0, G1);
}

#[test]
fn a_spare_takes_over_from_one_that_stands_still() {
    play_on_both(&[(5_000, Fact::Stalled(G0), &[Action::Abort(G0), Action::Serve(G1)])]);
}

#[test]
fn a_spare_that_is_still_starting_serves_when_it_is_ready() {
    play(
        with_spare(),
        &[
            &BOTH[..3],
            &[
                (1_050, exited(G0), &[][..]),
                (1_100, Fact::Ready(G1), &[Action::Serve(G1)]),
                (2_100, Fact::Time, &[Action::Spawn(G2)]),
            ],
        ]
        .concat(),
    );
}

#[test]
fn a_spare_that_crashes_is_no_crash_of_the_slot_and_followed_later() {
    let life = play_on_both(&[
        (2_000, exited(G1), &[]),
        (16_999, Fact::Time, &[]),
        (17_000, Fact::Time, &[Action::Spawn(G2)]),
        (20_000, Fact::Time, &[Action::Kill(G2, KillReason::NotReady)]),
        (20_001, exited(G2), &[]),
    ]);
    assert_eq!(life.serving().unwrap().0, G0);
    assert_eq!(life.next_deadline(), Some(at(35_001)));
}

#[test]
fn a_replacement_ends_the_spare_and_a_new_one_follows_it() {
    const G3: Generation = Generation(3);
    let short = DrainOrder { window: Duration::from_secs(10), ..moves(0) };
    play_on_both(&[
        (5_000, Fact::Replace, &[Action::Drain(G1, short), Action::Spawn(G2)]),
        (5_100, Fact::Ready(G2), &[Action::Serve(G2)]),
        (5_200, exited(G1), &[]),
        (
            6_100,
            Fact::Time,
            &[Action::Drain(G0, moves(60)), Action::Replaced(G2), Action::Spawn(G3)],
        ),
    ]);
}

#[test]
fn one_who_dies_too_often_is_not_saved_by_spares() {
    let restart = RestartPolicy { max_restarts: 0, ..RestartPolicy::DEFAULT };
    let settings = LifecycleSettings { restart, ..with_spare() };
    let short = DrainOrder { window: Duration::from_secs(10), ..moves(0) };
    let end =
        [(5_000, exited(G0), &[Action::Drain(G1, short), Action::Idle(SlotState::Errored)][..])];
    play(settings, &[&BOTH[..], &end].concat());
}

#[test]
fn the_end_of_everything_and_a_changed_setting_end_it() {
    play_on_both(&[(
        5_000,
        Fact::Stop,
        &[Action::Drain(G0, ends(10)), Action::Drain(G1, ends(10))],
    )]);
    let mut life = play_on_both(&[]);
    life.change(SETTINGS);
    let short = DrainOrder { window: Duration::from_secs(10), ..moves(0) };
    assert_eq!(life.on(Fact::Time, at(5_000)), [Action::Drain(G1, short)]);
}
