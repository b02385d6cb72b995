//! Tables of what is done about each fact.

use super::*;
use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::supervisor::restart::RestartPolicy;

mod carried_over;
mod drained;
mod orders;
mod spare;
mod walk;

const SETTINGS: LifecycleSettings = LifecycleSettings {
    signal_drain_timeout: Duration::from_secs(30),
    signal_at_once: false,
    listen_timeout: Duration::from_secs(3),
    kill_timeout: Duration::from_secs(10),
    drain_timeout: Duration::from_secs(60),
    drain: DrainMode::Migrate,
    max_draining: 2,
    spare: false,
    restart: RestartPolicy::DEFAULT,
};

fn at(millis: u64) -> Timestamp {
    Timestamp(0) + Duration::from_millis(millis)
}

const G0: Generation = Generation(0);
const G1: Generation = Generation(1);
const G2: Generation = Generation(2);

/// The order while others go on.
const fn moves(seconds: u64) -> DrainOrder {
    let window = Duration::from_secs(seconds);
    DrainOrder { mode: DrainMode::Migrate, reason: DrainReason::Restart, window }
}

/// The order when everything ends.
const fn ends(seconds: u64) -> DrainOrder {
    let window = Duration::from_secs(seconds);
    DrainOrder { mode: DrainMode::Close, reason: DrainReason::GoingAway, window }
}

fn exited(generation: Generation) -> Fact {
    Fact::Exited { generation, status: Some(1), jitter: 0.0 }
}

type Steps<'a> = [(u64, Fact, &'a [Action])];

/// Plays facts at times, and compares what is done about each.
fn play(settings: LifecycleSettings, steps: &Steps<'_>) -> SlotLife {
    let mut life = SlotLife::new(settings);
    for (step, (millis, fact, expected)) in steps.iter().enumerate() {
        assert_eq!(life.on(*fact, at(*millis)), *expected, "step {step}: {fact:?}");
    }
    life
}

const STARTED: [(u64, Fact, &[Action]); 3] = [
    (0, Fact::Start, &[Action::Spawn(G0)]),
    (10, Fact::Ready(G0), &[Action::Serve(G0)]),
    (1_010, Fact::Time, &[]),
];

fn play_on(steps: &Steps<'_>) -> SlotLife {
    play(SETTINGS, &[&STARTED[..], steps].concat())
}

/// As far as the successor serves and the predecessor stands by.
const REPLACED: [(u64, Fact, &[Action]); 2] =
    [(5_000, Fact::Replace, &[Action::Spawn(G1)]), (5_100, Fact::Ready(G1), &[Action::Serve(G1)])];

fn play_on_replaced(steps: &Steps<'_>) -> SlotLife {
    play_on(&[&REPLACED[..], steps].concat())
}

#[test]
fn a_crash_after_a_good_time_is_followed_at_once() {
    play_on(&[(2_000, exited(G0), &[Action::Spawn(G1)])]);
}

#[test]
fn a_crash_too_soon_is_followed_after_a_pause() {
    let pause = Action::BackOff(Duration::from_millis(100));
    let life = play(
        SETTINGS,
        &[
            (0, Fact::Start, &[Action::Spawn(G0)]),
            (10, Fact::Ready(G0), &[Action::Serve(G0)]),
            (500, exited(G0), &[pause]),
            (599, Fact::Time, &[]),
        ],
    );
    assert_eq!(life.state(), SlotState::BackOff);
    play_on(&[(2_000, exited(G0), &[Action::Spawn(G1)]), (2_001, exited(G1), &[pause])]);
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_killed_and_is_never_taken_for_ready() {
    play(
        SETTINGS,
        &[
            (0, Fact::Start, &[Action::Spawn(G0)]),
            (2_999, Fact::Time, &[]),
            (3_000, Fact::Time, &[Action::Kill(G0, KillReason::NotReady)]),
            (3_001, Fact::Ready(G0), &[]),
        ],
    );
}

#[test]
fn a_successor_serves_and_its_predecessor_drains_once_it_has_proved_itself() {
    play_on_replaced(&[
        (6_099, Fact::Time, &[]),
        (6_100, Fact::Time, &[Action::Drain(G0, moves(60)), Action::Replaced(G1)]),
        (6_200, exited(G0), &[]),
    ]);
}

#[test]
fn a_successor_that_dies_young_leaves_its_place_to_its_predecessor() {
    let life = play_on_replaced(&[
        (6_000, exited(G1), &[Action::ReplacementFailed(G1), Action::Serve(G0)]),
        (9_000, Fact::Time, &[]),
    ]);
    assert_eq!(life.serving().unwrap().0, G0);
}

#[test]
fn of_two_that_stand_by_the_younger_goes_on_and_the_older_drains() {
    play_on_replaced(&[
        (5_200, Fact::Replace, &[Action::Spawn(G2)]),
        (5_300, Fact::Ready(G2), &[Action::Serve(G2)]),
        (5_400, exited(G2), &[Action::ReplacementFailed(G2), Action::Serve(G1)]),
        (6_400, Fact::Time, &[Action::Drain(G0, moves(60))]),
    ]);
}

#[test]
fn a_successor_that_does_not_come_up_changes_nothing() {
    let life = play_on(&[
        (5_000, Fact::Replace, &[Action::Spawn(G1)]),
        (5_001, exited(G1), &[Action::ReplacementFailed(G1)]),
        (6_000, Fact::Replace, &[Action::Spawn(G2)]),
        (9_000, Fact::Time, &[Action::Kill(G2, KillReason::NotReady)]),
        (9_001, exited(G2), &[Action::ReplacementFailed(G2)]),
        (99_000, Fact::Time, &[]),
    ]);
    assert_eq!(life.serving().unwrap().0, G0);
}

#[test]
fn a_predecessor_that_dies_meanwhile_is_followed_by_what_is_on_its_way() {
    play_on(&[
        (5_000, Fact::Replace, &[Action::Spawn(G1)]),
        (5_050, exited(G0), &[]),
        (5_100, Fact::Ready(G1), &[Action::Serve(G1)]),
        (6_100, Fact::Time, &[Action::Replaced(G1)]),
    ]);
    play_on_replaced(&[(5_500, exited(G0), &[]), (6_100, Fact::Time, &[Action::Replaced(G1)])]);
}

#[test]
fn the_proof_of_a_restarted_worker_is_not_that_of_its_successor() {
    play_on(&[
        (2_000, exited(G0), &[Action::Spawn(G1)]),
        (2_100, Fact::Ready(G1), &[Action::Serve(G1)]),
        (2_200, Fact::Replace, &[Action::Spawn(G2)]),
        (3_100, Fact::Time, &[]),
        (3_200, exited(G2), &[Action::ReplacementFailed(G2)]),
    ]);
}

#[test]
fn a_start_with_the_old_configuration_is_repeated() {
    play(
        SETTINGS,
        &[
            (0, Fact::Start, &[Action::Spawn(G0)]),
            (10, Fact::Replace, &[Action::Kill(G0, KillReason::Superseded), Action::Spawn(G1)]),
            (11, exited(G0), &[]),
            (20, Fact::Ready(G1), &[Action::Serve(G1)]),
            (1_020, Fact::Time, &[Action::Replaced(G1)]),
        ],
    );
}

#[test]
fn too_many_crashes_make_the_slot_idle_until_it_is_brought_back() {
    let restart = RestartPolicy { max_restarts: 1, ..RestartPolicy::DEFAULT };
    let settings = LifecycleSettings { restart, ..SETTINGS };
    let errored: [(u64, Fact, &[Action]); 4] = [
        (0, Fact::Start, &[Action::Spawn(G0)]),
        (1, exited(G0), &[Action::BackOff(Duration::from_millis(100))]),
        (101, Fact::Time, &[Action::Spawn(G1)]),
        (102, exited(G1), &[Action::Idle(SlotState::Errored)]),
    ];
    let life = play(settings.clone(), &errored);
    assert_eq!((life.state(), life.next_deadline()), (SlotState::Errored, None));
    for bring_back in [Fact::Start, Fact::Replace] {
        let back = [(60_000, bring_back, &[Action::Spawn(G2)][..])];
        play(settings.clone(), &[&errored[..], &back].concat());
    }
}

#[test]
fn some_exit_codes_put_the_slot_to_rest() {
    let restart = RestartPolicy { stop_exit_codes: vec![1], ..RestartPolicy::DEFAULT };
    let settings = LifecycleSettings { restart, ..SETTINGS };
    let last = [(5_000, exited(G0), &[Action::Idle(SlotState::Stopped)][..])];
    play(settings, &[&STARTED[..], &last].concat());
}

#[test]
fn a_worker_that_stands_still_is_followed_before_its_core_is_written() {
    play_on(&[
        (5_000, Fact::Stalled(G0), &[Action::Abort(G0), Action::Spawn(G1)]),
        (14_999, Fact::Ready(G1), &[Action::Serve(G1)]),
        (15_000, Fact::Time, &[Action::Kill(G0, KillReason::Stalled)]),
        (15_001, exited(G0), &[]),
    ]);
}

#[test]
fn a_drain_ends_with_the_grace_period() {
    play_on(&[
        (5_000, Fact::Stop, &[Action::Drain(G0, ends(10))]),
        (14_999, Fact::Time, &[]),
        (15_000, Fact::Time, &[Action::Kill(G0, KillReason::GraceOver)]),
        (15_001, exited(G0), &[]),
    ]);
}

#[test]
fn a_replaced_worker_has_the_longer_grace_period_until_everything_ends() {
    let drained: [(u64, Fact, &[Action]); 1] =
        [(7_000, Fact::Time, &[Action::Drain(G0, moves(60)), Action::Replaced(G1)])];
    let killed: &[Action] = &[Action::Kill(G0, KillReason::GraceOver)];
    let long = [(66_999, Fact::Time, &[][..]), (67_000, Fact::Time, killed)];
    play_on_replaced(&[&drained[..], &long].concat());
    let short = [
        (
            8_000,
            Fact::Stop,
            &[Action::ShortenDeadline(G0, ends(10)), Action::Drain(G1, ends(10))][..],
        ),
        (
            18_000,
            Fact::Time,
            &[Action::Kill(G0, KillReason::GraceOver), Action::Kill(G1, KillReason::GraceOver)][..],
        ),
    ];
    play_on_replaced(&[&drained[..], &short].concat());
}

#[test]
fn the_oldest_of_too_many_that_drain_has_little_time_left() {
    let mut life = SlotLife::new(LifecycleSettings {
        restart: RestartPolicy { min_uptime: Duration::ZERO, ..RestartPolicy::DEFAULT },
        ..SETTINGS
    });
    life.on(Fact::Start, at(0));
    life.on(Fact::Ready(G0), at(0));
    for generation in 1..4 {
        life.on(Fact::Replace, at(1_000));
        life.on(Fact::Ready(Generation(generation)), at(1_000));
    }
    assert_eq!(life.on(Fact::Time, at(10_999)), []);
    let killed = [Action::Kill(G0, KillReason::GraceOver)];
    assert_eq!(life.on(Fact::Time, at(11_000)), killed);
    life.on(Fact::ShortenDeadline(G1), at(20_000));
    assert_eq!(life.on(Fact::Time, at(30_000)), [Action::Kill(G1, KillReason::GraceOver)]);
}

#[test]
fn what_has_not_attached_is_terminated() {
    for fact in [Fact::Stop, Fact::Remove, Fact::Leave(G0)] {
        let first = (0, Fact::Start, &[Action::Spawn(G0)][..]);
        play(SETTINGS, &[first, (1, fact, &[Action::Terminate(G0)])]);
    }
}

#[test]
fn a_removed_slot_drains_and_can_come_back() {
    play_on(&[
        (5_000, Fact::Remove, &[Action::Drain(G0, moves(60))]),
        (5_001, Fact::Replace, &[]),
        (5_002, Fact::Start, &[Action::Spawn(G1)]),
        (5_003, exited(G0), &[]),
        (5_004, Fact::Ready(G1), &[Action::Serve(G1)]),
    ]);
}

#[test]
fn a_worker_killed_by_command_is_followed_as_after_a_crash() {
    play_on(&[
        (2_000, Fact::Kill(G0, KillReason::Ordered), &[Action::Kill(G0, KillReason::Ordered)]),
        (2_001, exited(G0), &[Action::Spawn(G1)]),
        (2_002, Fact::Ready(G1), &[Action::Serve(G1)]),
        (2_003, Fact::Kill(G1, KillReason::Ordered), &[Action::Kill(G1, KillReason::Ordered)]),
        (2_004, exited(G1), &[Action::BackOff(Duration::from_millis(100))]),
    ]);
}

#[test]
fn it_is_known_what_a_replacement_waits_for() {
    let mut life = play_on(&[(5_000, Fact::Replace, &[Action::Spawn(G1)])]);
    assert_eq!(life.waits_for(), "its new worker to be ready");
    life.on(Fact::Ready(G1), at(5_100));
    assert_eq!(life.waits_for(), "its new worker to last for min_uptime");
    life.on(Fact::Kill(G1, KillReason::Violation), at(5_200));
    assert_eq!(life.waits_for(), "its new worker to end");
}

#[test]
fn a_second_stop_ends_all_at_once() {
    play_on(&[
        (5_000, Fact::Stop, &[Action::Drain(G0, ends(10))]),
        (5_001, Fact::StopNow, &[Action::Kill(G0, KillReason::StopNow)]),
        (5_002, Fact::StopNow, &[]),
    ]);
}

#[test]
fn a_worker_that_breaks_the_protocol_is_killed_and_followed() {
    let kill = Fact::Kill(G0, KillReason::Violation);
    let life = play_on(&[
        (5_000, kill, &[Action::Kill(G0, KillReason::Violation)]),
        (5_001, exited(G0), &[Action::Spawn(G1)]),
    ]);
    assert!(life.has_started() && !life.is_serving());
}

#[test]
fn a_start_fails_after_its_attempts() {
    let mut life = SlotLife::new(SETTINGS);
    life.on(Fact::Start, at(0));
    for generation in 0..3 {
        assert!(!life.has_failed_to_start());
        life.on(exited(Generation(generation)), at(1));
        life.on(Fact::Time, at(60_000));
    }
    assert!(life.has_failed_to_start());
}
