//! A slot that is carried over at any time goes on as if it weren't.

use proptest::prelude::*;

use super::walk::facts;
use super::*;
use crate::handover::{Carry, decode, encode};

proptest! {
    #[test]
    fn whenever_it_is_carried_over_it_goes_on_the_same(
        steps in prop::collection::vec((0..4_000_u64, facts()), 1..120),
        max_restarts in 0..20_u32, spare in any::<bool>(),
    ) {
        let restart = RestartPolicy { max_restarts, ..RestartPolicy::DEFAULT };
        let mut life = SlotLife::new(LifecycleSettings { restart, spare, ..SETTINGS });
        let mut now = 0;
        life.on(Fact::Start, at(0));
        for (millis, fact) in steps {
            now += millis;
            let snapshot = life.snapshot();
            let bytes = encode(&snapshot).unwrap();
            let mut read = SlotLife::restore(decode(&bytes).unwrap());
            prop_assert_eq!(&read.snapshot(), &snapshot);
            prop_assert_eq!(read.next_deadline(), life.next_deadline());
            prop_assert_eq!(read.state(), life.state());
            prop_assert_eq!(read.on(fact, at(now)), life.on(fact, at(now)));
            prop_assert_eq!(read.has_failed_to_start(), life.has_failed_to_start());
            life = read;
        }
    }
}

#[test]
fn a_worker_that_nobody_remembers_fills_a_slot_that_is_to_be_filled() {
    // The order to replace was forgotten, its worker is there.
    let mut life = play_on(&[]);
    assert!(life.adopt(G1, at(2_000)));
    assert!(!life.adopt(G1, at(2_000)), "it is known now");
    assert!(!life.adopt(G2, at(2_000)), "one starts already");
    assert_eq!(life.next_deadline(), Some(at(5_000)));
    assert_eq!(life.on(Fact::Ready(G1), at(3_000)), [Action::Serve(G1)]);
    // The number of the one that was refused is used, too.
    let again = life.on(Fact::Replace, at(9_000));
    assert_eq!(again.last(), Some(&Action::Spawn(Generation(3))));
}

#[test]
fn a_worker_that_nobody_remembers_ends_a_pause() {
    let mut life = play(SETTINGS, &[(0, Fact::Start, &[Action::Spawn(G0)])]);
    life.on(exited(G0), at(10));
    assert_eq!(life.state(), SlotState::BackOff);
    assert!(life.adopt(G1, at(200)));
    assert_eq!(life.on(Fact::Time, at(300)), []);
    assert_eq!(life.on(Fact::Ready(G1), at(400)), [Action::Serve(G1)]);
}

#[test]
fn a_slot_that_is_out_of_service_has_no_place_for_anybody() {
    for fact in [Fact::Drain, Fact::Remove, Fact::Stop] {
        let mut life = play_on(&[]);
        life.on(fact, at(2_000));
        assert!(!life.adopt(Generation(7), at(2_000)), "{fact:?}");
    }
}
