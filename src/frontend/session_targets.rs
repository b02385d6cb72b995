//! Slots and the router as targets for sessions.

use crate::frontend::fallback::FallbackReason;
use crate::frontend::placement::{Availability, Slots};
use crate::frontend::router::Router;
use crate::protocol::ids::{AffinityKey, SlotId, Timestamp};
use crate::sessions::host::{MigrationTargets, TargetState};

/// Slots whose workers take sessions, or don't.
pub(super) trait SessionSlots: Slots {
    /// Whether the slot's worker takes sessions.
    fn takes_sessions(&self, slot: SlotId) -> bool;

    /// Whether any worker could take a session sooner or later.
    fn expects_sessions(&self) -> bool;
}

/// Slots and the router, now.
#[derive(Debug)]
pub(super) struct SessionTargets<'a, S> {
    pub(super) router: &'a mut Router,
    pub(super) slots: &'a S,
    pub(super) now: Timestamp,
}

impl<S: SessionSlots> MigrationTargets for SessionTargets<'_, S> {
    fn state(&self, slot: SlotId) -> TargetState {
        match self.slots.availability(slot) {
            Availability::Open if self.slots.takes_sessions(slot) => TargetState::Open,
            Availability::Open => TargetState::WithoutSessions,
            Availability::Holding => TargetState::Awaited,
            Availability::Closed => match self.slots.closed_because(slot) {
                FallbackReason::QueueFull => TargetState::Full,
                _ => TargetState::Closed,
            },
        }
    }

    fn is_any_expected(&self) -> bool {
        self.slots.expects_sessions()
    }

    fn ideal(&self, key: AffinityKey) -> Option<SlotId> {
        self.router.ideal(key)
    }

    fn choose(&mut self, key: AffinityKey, failed: &[SlotId]) -> Option<SlotId> {
        let open = Open { slots: self.slots, failed };
        self.router.route_session(key, &open, self.now)
    }

    fn stay(&mut self, key: AffinityKey, slot: SlotId) {
        self.router.stays(key, slot, self.now);
    }
}

/// Slots that sessions can go to now; all others, and those in `failed`, count as closed.
struct Open<'a, S> {
    slots: &'a S,
    failed: &'a [SlotId],
}

impl<S: SessionSlots> Slots for Open<'_, S> {
    fn count(&self) -> u16 {
        self.slots.count()
    }

    fn availability(&self, slot: SlotId) -> Availability {
        let is_open = !self.failed.contains(&slot)
            && self.slots.availability(slot) == Availability::Open
            && self.slots.takes_sessions(slot);
        if is_open { Availability::Open } else { Availability::Closed }
    }

    fn load(&self, slot: SlotId) -> u64 {
        self.slots.load(slot)
    }

    fn closed_because(&self, slot: SlotId) -> FallbackReason {
        self.slots.closed_because(slot)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::frontend::placement::Placement;
    use crate::frontend::placement::tests::Facts;
    use crate::frontend::router::{Route, RouterSettings};
    use crate::sessions::host::Sender;
    use crate::sessions::route::{RouteDecision, RouteRequest, decide};

    /// Those with any load take sessions.
    impl SessionSlots for Facts {
        fn takes_sessions(&self, slot: SlotId) -> bool {
            self.load(slot) > 0
        }

        fn expects_sessions(&self) -> bool {
            self.ids()
                .any(|slot| self.load(slot) > 0 && self.availability(slot) != Availability::Closed)
        }
    }

    /// Workers are expected, but where all slots are closed.
    fn route(request: &RouteRequest<'_>, router: &mut Router, slots: &Facts) -> RouteDecision {
        decide(request, &mut SessionTargets { router, slots, now: NOW })
    }

    fn router(placement: Placement) -> Router {
        Router::new(&RouterSettings {
            placement,
            weights: vec![1.0; 3],
            load_bound: None,
            memory_capacity: NonZeroUsize::new(10).unwrap(),
            memory_lifetime: Duration::from_secs(60),
        })
    }

    /// By letters: Open, Holding, Closed, or P for open and without sessions (plain).
    fn slots(states: &str) -> Facts {
        let facts = states.chars().map(|state| match state {
            'O' => (Availability::Open, 1),
            'P' => (Availability::Open, 0),
            'H' => (Availability::Holding, 1),
            _ => (Availability::Closed, 1),
        });
        Facts(facts.collect())
    }

    const NOW: Timestamp = Timestamp(0);

    /// Keys whose order of the three slots is 0, 1, 2, and 1, 0, 2.
    fn keys() -> [AffinityKey; 2] {
        let router = router(Placement::Rendezvous);
        let of = |order: [u16; 3]| {
            let order = order.map(SlotId).to_vec();
            let facts = Facts(vec![(Availability::Open, 0); 3]);
            let ranking = |key| {
                let ranking = router.explain(key, &facts, NOW).ranking.into_iter();
                ranking.map(|ranked| ranked.slot).collect::<Vec<_>>()
            };
            (0..).map(AffinityKey).find(|key| ranking(*key) == order).unwrap()
        };
        [of([0, 1, 2]), of([1, 0, 2])]
    }

    #[test]
    fn a_session_finds_its_route() {
        type Case<'a> = (&'a str, &'a str, Sender, &'a [u16], u8, [RouteDecision; 2]);
        use RouteDecision::{Close, Return, To, Wait};
        use Sender::{Dead, Gone, Leaving, Serving};
        let to = |slot| To(SlotId(slot));
        // All from slot 0. What slots are like, who sends, who failed, crashes, and the decision for a client
        // of slot 0 and of one of slot 1.
        let cases: [Case<'_>; 27] = [
            ("a deploy: to the successor", "OOO", Leaving, &[], 0, [to(0), to(0)]),
            ("after two failures still", "OOO", Leaving, &[1, 2], 2, [to(0), to(0)]),
            ("after three, back", "OOO", Leaving, &[1, 2, 1], 0, [Return, Return]),
            ("a rebalance: where it belongs", "OOO", Serving, &[], 0, [Return, to(1)]),
            ("unless no worker takes it there", "OPO", Serving, &[], 0, [Return, Return]),
            ("or no worker is there yet", "OHO", Serving, &[], 0, [Return, Return]),
            ("a slot given up: to the next", "COO", Leaving, &[], 0, [to(1), to(1)]),
            ("the next that takes any", "CPO", Leaving, &[], 0, [to(2), to(2)]),
            ("a successor without sessions", "POO", Leaving, &[], 0, [to(1), to(1)]),
            ("a successor that is still to come", "HOO", Leaving, &[], 0, [to(1), to(1)]),
            ("no taker: back", "HHC", Leaving, &[], 0, [Return, Return]),
            ("no worker takes any: back", "PPP", Leaving, &[], 0, [Return, Return]),
            ("its worker died: to the successor", "OOO", Gone, &[], 0, [to(0), to(0)]),
            ("or to the next", "HOO", Gone, &[], 0, [to(1), to(1)]),
            ("or it waits for the successor", "HCC", Gone, &[], 0, [to(0), to(0)]),
            ("or it waits for anybody", "CHC", Gone, &[], 0, [Wait, Wait]),
            ("refused thrice, by whom it was", "CCO", Gone, &[1, 2, 1], 2, [to(2), to(2)]),
            ("but not for ever", "CCO", Gone, &[2; 16], 0, [Close, Close]),
            ("and not to kill a fourth", "OOO", Gone, &[1, 2, 1], 3, [Close, Close]),
            ("it has recovered: with the successor", "OOO", Dead, &[], 1, [to(0), to(0)]),
            ("or until it is there", "HOO", Dead, &[], 1, [Wait, Wait]),
            ("or in place of one that isn't to come", "COO", Dead, &[], 1, [to(1), to(1)]),
            ("or has no sessions", "POO", Dead, &[], 1, [to(1), to(1)]),
            ("or with anybody, some time", "CHC", Dead, &[], 1, [Wait, Wait]),
            ("after three refusals", "HCO", Dead, &[1, 2, 1], 1, [to(0), to(0)]),
            ("which are enough, some time", "HCO", Dead, &[2; 16], 1, [Close, Close]),
            ("but it has killed enough", "OOO", Dead, &[], 3, [Close, Close]),
        ];
        for (what, states, sender, failed, crashes, expected) in cases {
            let failed: Vec<_> = failed.iter().copied().map(SlotId).collect();
            for (key, expected) in keys().into_iter().zip(expected) {
                let request =
                    RouteRequest { key, from: SlotId(0), sender, failed: &failed, crashes };
                let mut router = router(Placement::Rendezvous);
                let found = route(&request, &mut router, &slots(states));
                assert_eq!(found, expected, "{what}");
            }
        }
    }

    #[test]
    fn a_worker_that_has_refused_is_not_asked_again_at_once() {
        let go = |sender, states: &str, failed: &[u16]| {
            let [_, guest] = keys();
            let failed: Vec<_> = failed.iter().copied().map(SlotId).collect();
            let (key, from) = (guest, SlotId(0));
            let request = RouteRequest { key, from, sender, failed: &failed, crashes: 0 };
            route(&request, &mut router(Placement::Rendezvous), &slots(states))
        };
        assert_eq!(go(Sender::Leaving, "OOO", &[0]), RouteDecision::To(SlotId(1)));
        assert_eq!(go(Sender::Leaving, "COO", &[1]), RouteDecision::To(SlotId(2)));
        assert_eq!(go(Sender::Leaving, "OOO", &[0, 1]), RouteDecision::To(SlotId(2)));
        assert_eq!(go(Sender::Leaving, "OCC", &[0]), RouteDecision::Return);
        assert_eq!(
            go(Sender::Gone, "OCC", &[0]),
            RouteDecision::To(SlotId(0)),
            "no other worker is left"
        );
        assert_eq!(go(Sender::Serving, "OOO", &[1]), RouteDecision::Return);
    }

    #[test]
    fn with_no_worker_left_it_does_not_wait() {
        let [key, _] = keys();
        let (from, sender) = (SlotId(0), Sender::Gone);
        let request = RouteRequest { key, from, sender, failed: &[], crashes: 0 };
        let mut router = router(Placement::Rendezvous);
        assert_eq!(route(&request, &mut router, &slots("CPC")), RouteDecision::Close);
    }

    #[test]
    fn its_client_follows_a_session_that_is_not_at_home() {
        let [home, guest] = keys();
        let follows = |key, states, expected: Route| {
            let mut router = router(Placement::Rendezvous);
            let (from, sender) = (SlotId(0), Sender::Leaving);
            let request = RouteRequest { key, from, sender, failed: &[], crashes: 0 };
            route(&request, &mut router, &slots(states));
            assert_eq!(router.route(key, &slots("OOO"), NOW), expected, "{states}");
        };
        let remembered = |slot| Route::Fallback(SlotId(slot), FallbackReason::Remembered);
        follows(home, "OOO", Route::Home(SlotId(0)));
        follows(home, "COO", remembered(1));
        follows(guest, "OOO", remembered(0));
        follows(guest, "COO", Route::Home(SlotId(1)));
        follows(home, "CPC", Route::Home(SlotId(0)));
    }

    #[test]
    fn where_nothing_sticks_sessions_leave_only_workers_that_end() {
        let key = AffinityKey(1);
        let mut router = router(Placement::LeastConnections);
        let mut go = |sender, states: &str| {
            let request = RouteRequest { key, from: SlotId(0), sender, failed: &[], crashes: 0 };
            route(&request, &mut router, &slots(states))
        };
        assert_eq!(go(Sender::Serving, "OOO"), RouteDecision::Return);
        assert_eq!(go(Sender::Leaving, "OOO"), RouteDecision::To(SlotId(0)));
        assert_eq!(go(Sender::Leaving, "CCO"), RouteDecision::To(SlotId(2)));
    }

    proptest! {
        #[test]
        fn no_session_goes_where_no_worker_takes_it_or_away_from_a_sender_that_lives(
            key: u64, states in "[OHCP]{3}", modulo: bool, failed in prop::collection::vec(0..3_u16, 0..5),
            crashes in 0..5_u8,
            sender in prop::sample::select(
                vec![Sender::Serving, Sender::Leaving, Sender::Gone, Sender::Dead],
            ),
        ) {
            let placement = if modulo { Placement::Modulo } else { Placement::Rendezvous };
            let slots = slots(&states);
            let failed: Vec<_> = failed.into_iter().map(SlotId).collect();
            let (key, from) = (AffinityKey(key), SlotId(0));
            let request = RouteRequest { key, from, sender, failed: &failed, crashes };
            let decision = route(&request, &mut router(placement), &slots);
            let is_gone = matches!(sender, Sender::Gone | Sender::Dead);
            match decision {
                RouteDecision::To(slot) => prop_assert!(
                    slots.availability(slot) == Availability::Open && slots.takes_sessions(slot)
                        || (is_gone && slots.availability(slot) == Availability::Holding)
                ),
                RouteDecision::Return => prop_assert!(!is_gone),
                RouteDecision::Wait | RouteDecision::Close => prop_assert!(is_gone),
            }
        }
    }
}
