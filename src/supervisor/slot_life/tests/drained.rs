//! Out of service and back.

use super::*;

const SAYS_DRAINED: &[Action] = &[Action::Idle(SlotState::Drained)];

#[test]
fn a_drained_slot_finishes_what_it_has_and_waits_for_an_order() {
    let life = play_on(&[
        (5_000, Fact::Drain, &[Action::Drain(G0, moves(60))]),
        (5_001, Fact::Drain, &[]),
        (5_002, Fact::Replace, &[]),
        (5_003, exited(G0), SAYS_DRAINED),
        (99_000, Fact::Time, &[]),
        (99_001, Fact::Replace, &[]),
    ]);
    assert_eq!((life.state(), life.next_deadline()), (SlotState::Drained, None));
    assert!(!life.is_filling() && life.has_started() && !life.has_failed_to_start());
    play_on(&[
        (5_000, Fact::Drain, &[Action::Drain(G0, moves(60))]),
        (64_999, Fact::Time, &[]),
        (65_000, Fact::Time, &[Action::Kill(G0, KillReason::GraceOver)]),
        (65_001, exited(G0), SAYS_DRAINED),
    ]);
}

#[test]
fn an_undrained_slot_is_filled_even_if_its_last_worker_still_drains() {
    let life = play_on(&[
        (5_000, Fact::Drain, &[Action::Drain(G0, moves(60))]),
        (5_001, Fact::Start, &[Action::Spawn(G1)]),
        (5_002, exited(G0), &[]),
        (5_003, Fact::Ready(G1), &[Action::Serve(G1)]),
    ]);
    assert_eq!(life.state(), SlotState::Serving);
}

#[test]
fn what_is_on_its_way_is_drained_too() {
    play(
        SETTINGS,
        &[
            (0, Fact::Start, &[Action::Spawn(G0)]),
            (1, Fact::Drain, &[Action::Terminate(G0)]),
            (2, exited(G0), SAYS_DRAINED),
        ],
    );
    // Two that stood by or served, in the middle of a replacement.
    play_on_replaced(&[
        (5_200, Fact::Drain, &[Action::Drain(G0, moves(60)), Action::Drain(G1, moves(60))]),
        (5_300, exited(G1), &[]),
        (6_100, Fact::Time, &[]),
        (6_200, exited(G0), SAYS_DRAINED),
    ]);
    // One that is killed or aborted ends as it would.
    play_on(&[
        (5_000, Fact::Stalled(G0), &[Action::Abort(G0), Action::Spawn(G1)]),
        (5_001, Fact::Drain, &[Action::Terminate(G1)]),
        (5_002, exited(G1), &[]),
        (15_000, Fact::Time, &[Action::Kill(G0, KillReason::Stalled)]),
        (15_001, exited(G0), SAYS_DRAINED),
    ]);
}

#[test]
fn a_slot_without_a_worker_is_drained_at_once_and_comes_back_with_a_clean_slate() {
    let restart = RestartPolicy { max_restarts: 1, ..RestartPolicy::DEFAULT };
    let settings = LifecycleSettings { restart, ..SETTINGS };
    let pause = Action::BackOff(Duration::from_millis(100));
    let life = play(
        settings,
        &[
            (0, Fact::Start, &[Action::Spawn(G0)]),
            (1, exited(G0), &[pause]),
            (2, Fact::Drain, SAYS_DRAINED),
            (101, Fact::Time, &[]),
            (102, Fact::Start, &[Action::Spawn(G1)]),
            (103, exited(G1), &[pause]),
        ],
    );
    assert_eq!(life.next_start(), Some(at(203)));
}

#[test]
fn a_drained_slot_is_removed_and_stopped_as_any_other() {
    let shortened = [Action::ShortenDeadline(G0, ends(10))];
    for (fact, told) in [(Fact::Remove, &[][..]), (Fact::Stop, &shortened)] {
        let life = play_on(&[
            (5_000, Fact::Drain, &[Action::Drain(G0, moves(60))]),
            (5_001, fact, told),
            (5_002, Fact::Drain, &[]),
            (5_003, exited(G0), &[]),
        ]);
        assert_eq!(life.state(), SlotState::Removed);
    }
    // The grace period is that of the end.
    play_on(&[
        (5_000, Fact::Drain, &[Action::Drain(G0, moves(60))]),
        (6_000, Fact::Stop, &[Action::ShortenDeadline(G0, ends(10))]),
        (16_000, Fact::Time, &[Action::Kill(G0, KillReason::GraceOver)]),
    ]);
}
