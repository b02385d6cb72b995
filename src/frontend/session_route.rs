//! Where a session goes that a worker offers: to its slot's next worker, to another slot, or back.
//!
//! Never does I/O: a function of the session's request so far, the slots, and the router's memory.

use crate::frontend::fallback::FallbackReason;
use crate::frontend::placement::{Availability, Slots};
use crate::frontend::router::Router;
use crate::protocol::ids::{AffinityKey, SlotId, Timestamp};

/// After so many workers that refused it, stalled or died, a session goes back.
const ATTEMPTS: usize = 3;

/// So many workers may die with a session.
const DEATHS: u8 = 3;

/// What became of the worker that has offered a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// It serves its slot.
    Serving,
    /// It drains, or another serves its slot.
    Leaving,
    /// It is dead, or not heard any more.
    Gone,
    /// It is dead, and the session has recovered it.
    Dead,
}

/// A session's request so far.
#[derive(Clone, Copy, Debug)]
pub struct RouteRequest<'a> {
    /// Its client's key.
    pub key: AffinityKey,
    /// The slot that it comes from.
    pub from: SlotId,
    /// Who offers it.
    pub sender: Sender,
    /// Slots whose workers should have taken it and refused, stalled or died.
    pub failed: &'a [SlotId],
    /// How many of those died.
    pub crashes: u8,
}

/// Where a session goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To this slot's worker, or its successor that is about to come.
    To(SlotId),
    /// Back to whom it comes from.
    Back,
    /// Nowhere yet: somebody may take it later.
    Wait,
    /// Nowhere: nobody is left who could, or it has killed too many.
    Nowhere,
}

/// Slots whose workers take sessions, or don't.
pub trait MigrationTargets: Slots {
    /// Whether the slot's worker takes sessions.
    fn takes_sessions(&self, slot: SlotId) -> bool;

    /// Whether a session can go there now.
    fn is_open(&self, slot: SlotId) -> bool {
        self.availability(slot) == Availability::Open && self.takes_sessions(slot)
    }
}

/// The way of a session. The router notes where its client is now.
pub fn way(
    request: &RouteRequest<'_>,
    router: &mut Router,
    slots: &impl MigrationTargets,
    later: bool,
    now: Timestamp,
) -> Way {
    if request.sender == Sender::Dead {
        if request.crashes >= DEATHS {
            return Way::Nowhere;
        }
        if request.failed.len() < ATTEMPTS && is_awaited(request.from, slots) {
            return Way::Wait;
        }
    }
    let taker =
        (request.failed.len() < ATTEMPTS).then(|| taker(request, router, slots, now)).flatten();
    match (taker, request.sender) {
        (Some(slot), _) => Way::To(slot),
        (None, Sender::Serving | Sender::Leaving) => Way::Back,
        (None, Sender::Gone | Sender::Dead) => orphan_way(request, router, slots, later, now),
    }
}

/// A worker's sessions come back all at once. So that its clients find room in the queue, too, they
/// wait outside of it for the successor.
fn is_awaited(slot: SlotId, slots: &impl MigrationTargets) -> bool {
    match slots.availability(slot) {
        Availability::Open => false,
        Availability::Holding => true,
        Availability::Closed => slots.closed_because(slot) == FallbackReason::QueueFull,
    }
}

/// Who should take it.
fn taker(
    request: &RouteRequest<'_>,
    router: &mut Router,
    slots: &impl MigrationTargets,
    now: Timestamp,
) -> Option<SlotId> {
    let RouteRequest { key, from, sender, failed, .. } = *request;
    let open = Open { slots, past: failed };
    if sender == Sender::Serving {
        // It stays, unless it was elsewhere than where its client belongs.
        return router.ideal(key).filter(|ideal| *ideal != from && open.has(*ideal));
    }
    if open.has(from) {
        router.stays(key, from, now);
        return Some(from);
    }
    router.route_session(key, &open, now)
}

/// It has nobody to go back to. `later` says whether any worker could take it sooner or later.
fn orphan_way(
    request: &RouteRequest<'_>,
    router: &mut Router,
    slots: &impl MigrationTargets,
    later: bool,
    now: Timestamp,
) -> Way {
    if request.crashes >= DEATHS {
        return Way::Nowhere;
    }
    if slots.availability(request.from) == Availability::Holding {
        return Way::To(request.from);
    }
    match router.route_session(request.key, &Open { slots, past: &[] }, now) {
        Some(slot) => Way::To(slot),
        None if later => Way::Wait,
        None => Way::Nowhere,
    }
}

/// Slots that sessions can go to now; all others, and those to pass, count as closed.
struct Open<'a, S> {
    slots: &'a S,
    past: &'a [SlotId],
}

impl<S: MigrationTargets> Open<'_, S> {
    fn has(&self, slot: SlotId) -> bool {
        !self.past.contains(&slot) && self.slots.is_open(slot)
    }
}

impl<S: MigrationTargets> Slots for Open<'_, S> {
    fn count(&self) -> u16 {
        self.slots.count()
    }

    fn availability(&self, slot: SlotId) -> Availability {
        if self.has(slot) { Availability::Open } else { Availability::Closed }
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

    /// Those with any load take sessions.
    impl MigrationTargets for Facts {
        fn takes_sessions(&self, slot: SlotId) -> bool {
            self.load(slot) > 0
        }
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
    fn a_session_finds_its_way() {
        type Case<'a> = (&'a str, &'a str, Sender, &'a [u16], u8, [Way; 2]);
        use Sender::{Dead, Gone, Leaving, Serving};
        use Way::{Back, Nowhere, To, Wait};
        let to = |slot| To(SlotId(slot));
        // All from slot 0. What slots are like, who sends, who failed, crashes, and the way of a client
        // of slot 0 and of one of slot 1.
        let cases: [Case<'_>; 25] = [
            ("a deploy: to the successor", "OOO", Leaving, &[], 0, [to(0), to(0)]),
            ("after two failures still", "OOO", Leaving, &[1, 2], 2, [to(0), to(0)]),
            ("after three, back", "OOO", Leaving, &[1, 2, 1], 0, [Back, Back]),
            ("a rebalance: where it belongs", "OOO", Serving, &[], 0, [Back, to(1)]),
            ("unless nobody takes it there", "OPO", Serving, &[], 0, [Back, Back]),
            ("or nobody is there yet", "OHO", Serving, &[], 0, [Back, Back]),
            ("a slot given up: to the next", "COO", Leaving, &[], 0, [to(1), to(1)]),
            ("the next that takes any", "CPO", Leaving, &[], 0, [to(2), to(2)]),
            ("a successor without sessions", "POO", Leaving, &[], 0, [to(1), to(1)]),
            ("a successor that is still to come", "HOO", Leaving, &[], 0, [to(1), to(1)]),
            ("no taker: back", "HHC", Leaving, &[], 0, [Back, Back]),
            ("nobody takes any: back", "PPP", Leaving, &[], 0, [Back, Back]),
            ("its worker died: to the successor", "OOO", Gone, &[], 0, [to(0), to(0)]),
            ("or to the next", "HOO", Gone, &[], 0, [to(1), to(1)]),
            ("or it waits for the successor", "HCC", Gone, &[], 0, [to(0), to(0)]),
            ("or it waits for anybody", "CHC", Gone, &[], 0, [Wait, Wait]),
            ("refused thrice, by whom it was", "CCO", Gone, &[1, 2, 1], 2, [to(2), to(2)]),
            ("but not to kill a fourth", "OOO", Gone, &[1, 2, 1], 3, [Nowhere, Nowhere]),
            ("it has recovered: with the successor", "OOO", Dead, &[], 1, [to(0), to(0)]),
            ("or until it is there", "HOO", Dead, &[], 1, [Wait, Wait]),
            ("or in place of one that isn't to come", "COO", Dead, &[], 1, [to(1), to(1)]),
            ("or has no sessions", "POO", Dead, &[], 1, [to(1), to(1)]),
            ("or with anybody, some time", "CHC", Dead, &[], 1, [Wait, Wait]),
            ("after three refusals", "HCO", Dead, &[1, 2, 1], 1, [to(0), to(0)]),
            ("but it has killed enough", "OOO", Dead, &[], 3, [Nowhere, Nowhere]),
        ];
        for (what, states, sender, failed, crashes, expected) in cases {
            let failed: Vec<_> = failed.iter().copied().map(SlotId).collect();
            for (key, expected) in keys().into_iter().zip(expected) {
                let request =
                    RouteRequest { key, from: SlotId(0), sender, failed: &failed, crashes };
                let mut router = router(Placement::Rendezvous);
                let found = way(&request, &mut router, &slots(states), true, NOW);
                assert_eq!(found, expected, "{what}");
            }
        }
    }

    #[test]
    fn whoever_has_refused_is_not_asked_again_at_once() {
        let go = |sender, states: &str, failed: &[u16]| {
            let [_, guest] = keys();
            let failed: Vec<_> = failed.iter().copied().map(SlotId).collect();
            let (key, from) = (guest, SlotId(0));
            let request = RouteRequest { key, from, sender, failed: &failed, crashes: 0 };
            way(&request, &mut router(Placement::Rendezvous), &slots(states), true, NOW)
        };
        assert_eq!(go(Sender::Leaving, "OOO", &[0]), Way::To(SlotId(1)));
        assert_eq!(go(Sender::Leaving, "COO", &[1]), Way::To(SlotId(2)));
        assert_eq!(go(Sender::Leaving, "OOO", &[0, 1]), Way::To(SlotId(2)));
        assert_eq!(go(Sender::Leaving, "OCC", &[0]), Way::Back);
        assert_eq!(go(Sender::Gone, "OCC", &[0]), Way::To(SlotId(0)), "nobody else is left");
        assert_eq!(go(Sender::Serving, "OOO", &[1]), Way::Back);
    }

    #[test]
    fn with_nobody_left_it_waits_for_nobody() {
        let [key, _] = keys();
        let (from, sender) = (SlotId(0), Sender::Gone);
        let request = RouteRequest { key, from, sender, failed: &[], crashes: 0 };
        let mut router = router(Placement::Rendezvous);
        assert_eq!(way(&request, &mut router, &slots("CPC"), false, NOW), Way::Nowhere);
    }

    #[test]
    fn its_client_follows_a_session_that_is_not_at_home() {
        let [home, guest] = keys();
        let follows = |key, states, expected: Route| {
            let mut router = router(Placement::Rendezvous);
            let (from, sender) = (SlotId(0), Sender::Leaving);
            let request = RouteRequest { key, from, sender, failed: &[], crashes: 0 };
            way(&request, &mut router, &slots(states), true, NOW);
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
            way(&request, &mut router, &slots(states), true, NOW)
        };
        assert_eq!(go(Sender::Serving, "OOO"), Way::Back);
        assert_eq!(go(Sender::Leaving, "OOO"), Way::To(SlotId(0)));
        assert_eq!(go(Sender::Leaving, "CCO"), Way::To(SlotId(2)));
    }

    proptest! {
        #[test]
        fn no_session_goes_where_nobody_takes_it_or_away_from_a_sender_that_lives(
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
            let way = way(&request, &mut router(placement), &slots, true, NOW);
            let is_gone = matches!(sender, Sender::Gone | Sender::Dead);
            match way {
                Way::To(slot) => prop_assert!(
                    slots.is_open(slot)
                        || (is_gone && slots.availability(slot) == Availability::Holding)
                ),
                Way::Back => prop_assert!(!is_gone),
                Way::Wait | Way::Nowhere => prop_assert!(is_gone),
            }
        }
    }
}
