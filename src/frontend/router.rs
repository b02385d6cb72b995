//! A client's slot, now: placement, what is remembered of the client, and the bound on load.
//!
//! Never does I/O: a function of the key, the slots and the time, and of its own memory.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::frontend::fallback::FallbackReason;
use crate::frontend::memory::Memory;
use crate::frontend::placement::{Availability, Placement, Ranking, Slots, Spread, modulo};
use crate::frontend::steering::{KernelRanking, Steering};
use crate::handover::Carry;
use crate::handover::frontend::RouterSnapshot;
use crate::protocol::ids::{AffinityKey, SlotId, Timestamp};

mod explain;

pub use explain::Explanation;

/// How clients find their slots.
#[derive(Clone, Debug)]
pub struct RouterSettings {
    /// How slots are chosen.
    pub placement: Placement,
    /// One for each slot, above 0; used by rendezvous.
    pub weights: Vec<f64>,
    /// A slot with more than this many times the mean of connections takes no new clients.
    pub load_bound: Option<f64>,
    /// How many clients are remembered that went elsewhere.
    pub memory_capacity: NonZeroUsize,
    /// How long after their last connection.
    pub memory_lifetime: Duration,
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this slot, where its client belongs.
    Home(SlotId),
    /// To this slot, since its client's own cannot take it, or could not before.
    Fallback(SlotId, FallbackReason),
    /// No slot can take it now.
    Nowhere,
}

/// The decision for a client, and the note to be made of it.
#[derive(Clone, Copy, Debug)]
struct Decision {
    route: Route,
    note: Note,
}

#[derive(Clone, Copy, Debug)]
enum Note {
    /// The memory stays as it is.
    Nothing,
    /// It goes there from now on.
    Remember(SlotId),
    /// Its remembered slot can't take it.
    Forget,
}

/// Finds slots for clients.
#[derive(Debug)]
pub struct Router {
    placement: Placement,
    ranking: Order,
    spread: Spread,
    load_bound: Option<f64>,
    memory: Memory,
}

impl Router {
    /// With an empty memory.
    #[must_use]
    pub fn new(settings: &RouterSettings) -> Self {
        Self {
            placement: settings.placement,
            ranking: Order::Digest(Ranking::new(&settings.weights)),
            spread: Spread::default(),
            load_bound: settings.load_bound,
            memory: Memory::new(settings.memory_capacity, settings.memory_lifetime),
        }
    }

    /// As the kernel's program chooses, whose keys are those of `steering`; `placement` says whether clients stick.
    #[must_use]
    pub fn steered(settings: &RouterSettings, placement: Placement, steering: &Steering) -> Self {
        let slots = (0..u16::MAX).map(SlotId).zip(settings.weights.iter().copied());
        let ranking = KernelRanking::new(steering, &slots.collect::<Vec<_>>());
        Self { placement, ranking: Order::Kernel(ranking), ..Self::new(settings) }
    }

    /// The ranking that the kernel's program is made of, if it is to be one.
    #[must_use]
    pub fn kernel_ranking(&self) -> Option<&KernelRanking> {
        match &self.ranking {
            Order::Kernel(ranking) => Some(ranking),
            Order::Digest(_) => None,
        }
    }

    /// As plain data, without its settings.
    #[must_use]
    pub fn into_snapshot(self, now: Timestamp) -> RouterSnapshot {
        let remembered = self.memory.remembered(now);
        RouterSnapshot { remembered, spread: self.spread.snapshot() }
    }

    /// Resumes from the state of another router.
    pub fn resume(&mut self, snapshot: RouterSnapshot) {
        self.spread = Spread::restore(snapshot.spread);
        self.memory.resume(&snapshot.remembered);
    }

    /// From now on clients belong to these slots, with these weights. Those that were elsewhere
    /// still are.
    pub fn rank(&mut self, slots: &[(SlotId, f64)]) {
        self.ranking = match &self.ranking {
            Order::Digest(_) => Order::Digest(Ranking::of(slots)),
            Order::Kernel(before) => Order::Kernel(KernelRanking::new(before.steering(), slots)),
        };
    }

    /// The slot for a connection of the client with this key.
    pub fn route(&mut self, key: AffinityKey, slots: &impl Slots, now: Timestamp) -> Route {
        if !self.placement.is_sticky() {
            return self.spread.choose(self.placement, slots).map_or(Route::Nowhere, Route::Home);
        }
        let remembered = self.memory.recall(key, now);
        let Decision { route, note } = self.decide(key, remembered, slots);
        self.note(key, note, now);
        route
    }

    /// Nothing is remembered where the kernel picks: its program has no memory.
    fn note(&mut self, key: AffinityKey, note: Note, now: Timestamp) {
        match note {
            _ if self.placement == Placement::Kernel => {}
            Note::Nothing => {}
            Note::Remember(slot) => self.memory.remember(key, slot, now),
            Note::Forget => self.memory.forget(key),
        }
    }

    /// The slot for a session of the client with this key. As [`Self::route`], but what is
    /// remembered stays where none can take it: its client may well connect there.
    pub fn route_session(
        &mut self,
        key: AffinityKey,
        slots: &impl Slots,
        now: Timestamp,
    ) -> Option<SlotId> {
        if !self.placement.is_sticky() {
            return self.spread.choose(self.placement, slots);
        }
        let remembered = self.memory.recall(key, now);
        let Decision { route, note } = self.decide(key, remembered, slots);
        let (Route::Home(slot) | Route::Fallback(slot, _)) = route else { return None };
        self.note(key, note, now);
        Some(slot)
    }

    /// A session of the client with this key stays in a slot. If that isn't the client's own, its
    /// next connections go there, too, unless it went elsewhere since.
    pub fn stays(&mut self, key: AffinityKey, slot: SlotId, now: Timestamp) {
        if self.ideal(key).is_some_and(|ideal| ideal != slot)
            && self.memory.recall(key, now).is_none()
        {
            self.memory.remember(key, slot, now);
        }
    }

    /// The slot where the client with this key belongs, whatever its state; none where nothing
    /// sticks.
    #[must_use]
    pub fn ideal(&self, key: AffinityKey) -> Option<SlotId> {
        self.placement.is_sticky().then(|| self.home(key)).flatten()
    }

    /// As [`Self::route`], but past one slot if any other can take it.
    pub fn route_past(
        &mut self,
        avoid: Option<SlotId>,
        key: AffinityKey,
        slots: &impl Slots,
        now: Timestamp,
    ) -> Route {
        match self.route(key, &Without { slots, avoid }, now) {
            Route::Nowhere => self.route(key, slots, now),
            route => route,
        }
    }

    /// Forgets which clients went elsewhere, and says how many were still remembered: they come
    /// back to the first slot of their ranking with their next connection.
    pub fn forget_all(&mut self, now: Timestamp) -> u64 {
        self.memory.clear(now)
    }

    /// How slots are chosen.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Where [`Self::route`] would send a connection of the client with this key now, and why. Not for
    /// the way of connections: it allocates.
    #[must_use]
    pub fn explain(&self, key: AffinityKey, slots: &impl Slots, now: Timestamp) -> Explanation {
        explain::explain(self, key, slots, now)
    }

    /// Where a client of a sticky placement goes, if that slot is remembered for it.
    fn decide(&self, key: AffinityKey, remembered: Option<SlotId>, slots: &impl Slots) -> Decision {
        let mut note = Note::Nothing;
        if let Some(slot) = remembered {
            if slots.availability(slot) != Availability::Closed {
                let at_home = self.home(key) == Some(slot);
                return Decision { route: named(slot, at_home, FallbackReason::Remembered), note };
            }
            note = Note::Forget;
        }
        let Some(home) = self.home(key) else { return Decision { route: Route::Nowhere, note } };
        let limit = self.limit(slots);
        let Some(reason) = obstacle(home, slots, limit) else {
            // Under a bound, a client that is known keeps its place when the slot fills up.
            let note = limit.map_or(note, |_| Note::Remember(home));
            return Decision { route: Route::Home(home), note };
        };
        match self.next(key, slots, limit) {
            Some(next) => {
                Decision { route: named(next, next == home, reason), note: Note::Remember(next) }
            }
            None => Decision { route: Route::Nowhere, note },
        }
    }

    /// The first slot of the key's ranking, whatever its state.
    fn home(&self, key: AffinityKey) -> Option<SlotId> {
        match self.placement {
            Placement::Modulo => modulo(key, self.ranking.slots()),
            _ => self.ranking.first_of(key, |_| true),
        }
    }

    /// The next slot of the ranking that serves and is within the bound; else that serves; else
    /// whose worker is about to come.
    fn next(&self, key: AffinityKey, slots: &impl Slots, limit: Option<f64>) -> Option<SlotId> {
        let state = |slot| slots.availability(slot);
        let open = |slot| state(slot) == Availability::Open;
        self.ranking
            .first_of(key, |slot| open(slot) && within(limit, slots, slot))
            .or_else(|| self.ranking.first_of(key, open))
            .or_else(|| self.ranking.first_of(key, |slot| state(slot) == Availability::Holding))
    }

    /// Connections that a slot may hold before its new clients go on: the bound times the mean,
    /// the new connection counted in ("consistent hashing with bounded loads", Mirrokni, Thorup
    /// and Zadimoghaddam 2016).
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^53")]
    fn limit(&self, slots: &impl Slots) -> Option<f64> {
        let bound = self.load_bound?;
        let usable = |slot: &SlotId| slots.availability(*slot) != Availability::Closed;
        let (mut total, mut count) = (1_u64, 0_u64);
        for slot in slots.ids().filter(usable) {
            total = total.saturating_add(slots.load(slot));
            count += 1;
        }
        Some((bound * total as f64 / count as f64).ceil())
    }
}

/// The order of slots for a key.
#[derive(Debug)]
enum Order {
    Digest(Ranking),
    Kernel(KernelRanking),
}

impl Order {
    fn slots(&self) -> &[SlotId] {
        match self {
            Self::Digest(ranking) => ranking.slots(),
            Self::Kernel(ranking) => ranking.slots(),
        }
    }

    fn first_of(&self, key: AffinityKey, eligible: impl Fn(SlotId) -> bool) -> Option<SlotId> {
        match self {
            Self::Digest(ranking) => ranking.first_of(key, eligible),
            Self::Kernel(ranking) => ranking.first_of(key, eligible),
        }
    }

    fn all(&self, key: AffinityKey) -> Vec<SlotId> {
        match self {
            Self::Digest(ranking) => ranking.order(key),
            Self::Kernel(ranking) => ranking.order(key),
        }
    }
}

/// Slots, one of which counts as closed.
struct Without<'a, S> {
    slots: &'a S,
    avoid: Option<SlotId>,
}

impl<S: Slots> Slots for Without<'_, S> {
    fn count(&self) -> u16 {
        self.slots.count()
    }

    fn availability(&self, slot: SlotId) -> Availability {
        if self.avoid == Some(slot) { Availability::Closed } else { self.slots.availability(slot) }
    }

    fn load(&self, slot: SlotId) -> u64 {
        self.slots.load(slot)
    }

    fn closed_because(&self, slot: SlotId) -> FallbackReason {
        if self.avoid == Some(slot) {
            FallbackReason::Deaths
        } else {
            self.slots.closed_because(slot)
        }
    }
}

fn named(slot: SlotId, at_home: bool, reason: FallbackReason) -> Route {
    if at_home { Route::Home(slot) } else { Route::Fallback(slot, reason) }
}

/// Why a client that is not remembered is not sent to a slot.
fn obstacle(slot: SlotId, slots: &impl Slots, limit: Option<f64>) -> Option<FallbackReason> {
    if slots.availability(slot) == Availability::Closed {
        Some(slots.closed_because(slot))
    } else if within(limit, slots, slot) {
        None
    } else {
        Some(FallbackReason::OverBound)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^53")]
fn within(limit: Option<f64>, slots: &impl Slots, slot: SlotId) -> bool {
    limit.is_none_or(|limit| (slots.load(slot) as f64) < limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frontend::placement::tests::{Facts, open};

    fn router(placement: Placement, slots: usize, load_bound: Option<f64>) -> Router {
        Router::new(&RouterSettings {
            placement,
            weights: vec![1.0; slots],
            load_bound,
            memory_capacity: NonZeroUsize::new(1_000).unwrap(),
            memory_lifetime: Duration::from_secs(60),
        })
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(0) + Duration::from_secs(seconds)
    }

    fn slot_of(route: Route) -> SlotId {
        match route {
            Route::Home(slot) | Route::Fallback(slot, _) => slot,
            Route::Nowhere => panic!("nowhere to go"),
        }
    }

    const KEY: AffinityKey = AffinityKey(0x1234_5678_9abc_def0);

    #[test]
    fn a_client_stays_where_it_spilled_to_until_that_is_forgotten() {
        for placement in [Placement::Rendezvous, Placement::Modulo] {
            let (mut router, mut slots) = (router(placement, 4, None), open(&[0; 4]));
            let home = slot_of(router.route(KEY, &slots, at(0)));
            slots.0[home.index()].0 = Availability::Closed;
            let Route::Fallback(away, reason) = router.route(KEY, &slots, at(1)) else {
                panic!("at home")
            };
            assert_eq!(reason, slots.closed_because(home));
            assert_ne!(away, home);
            slots.0[home.index()].0 = Availability::Open;
            let stays = Route::Fallback(away, FallbackReason::Remembered);
            assert_eq!(router.route(KEY, &slots, at(50)), stays);
            assert_eq!(router.route(KEY, &slots, at(111)), Route::Home(home));
        }
    }

    #[test]
    fn a_slot_between_two_workers_keeps_its_clients() {
        let (mut router, mut slots) = (router(Placement::Rendezvous, 4, None), open(&[0; 4]));
        let home = slot_of(router.route(KEY, &slots, at(0)));
        slots.0[home.index()].0 = Availability::Holding;
        assert_eq!(router.route(KEY, &slots, at(1)), Route::Home(home));
    }

    #[test]
    fn when_the_refuge_closes_too_the_client_goes_on() {
        let (mut router, mut slots) = (router(Placement::Rendezvous, 3, None), open(&[0; 3]));
        let home = slot_of(router.route(KEY, &slots, at(0)));
        slots.0[home.index()].0 = Availability::Closed;
        let second = slot_of(router.route(KEY, &slots, at(0)));
        slots.0[second.index()].0 = Availability::Closed;
        let third = slot_of(router.route(KEY, &slots, at(0)));
        slots.0[third.index()].0 = Availability::Closed;
        assert_eq!(router.route(KEY, &slots, at(0)), Route::Nowhere);
        slots.0[home.index()].0 = Availability::Open;
        assert_eq!(router.route(KEY, &slots, at(0)), Route::Home(home));
    }

    #[test]
    fn a_slot_can_be_passed_unless_there_is_no_other() {
        let (mut router, mut slots) = (router(Placement::Rendezvous, 3, None), open(&[0; 3]));
        let home = slot_of(router.route(KEY, &slots, at(0)));
        let past = router.route_past(Some(home), KEY, &slots, at(0));
        let Route::Fallback(next, FallbackReason::Deaths) = past else {
            panic!("not past its home, for the crashes there: {past:?}")
        };
        for slot in slots.ids().collect::<Vec<_>>() {
            if slot != home {
                slots.0[slot.index()].0 = Availability::Closed;
            }
        }
        assert_ne!(next, home);
        assert_eq!(router.route_past(Some(home), KEY, &slots, at(0)), Route::Home(home));
    }

    #[test]
    fn new_clients_pass_a_full_slot_and_stick_where_they_went() {
        let (mut router, mut slots) =
            (router(Placement::Rendezvous, 4, Some(1.25)), open(&[10; 4]));
        let home = slot_of(router.route(KEY, &slots, at(0)));
        let newcomer = (0..).map(AffinityKey).find(|key| router.home(*key) == Some(home));
        let newcomer = newcomer.unwrap();
        slots.0[home.index()].1 = 20;
        assert_eq!(router.route(KEY, &slots, at(1)), Route::Home(home), "it is known");
        let route = router.route(newcomer, &slots, at(1));
        let Route::Fallback(away, FallbackReason::OverBound) = route else {
            panic!("not elsewhere, for the bound: {route:?}")
        };
        slots.0[home.index()].1 = 0;
        let stays = Route::Fallback(away, FallbackReason::Remembered);
        assert_eq!(router.route(newcomer, &slots, at(2)), stays);
        assert_eq!(router.forget_all(at(2)), 2, "the one at home is remembered, too");
        assert_eq!(router.route(newcomer, &slots, at(3)), Route::Home(home));
    }

    #[test]
    fn the_bound_holds_for_clients_of_one_connection() {
        let (mut router, mut slots) = (router(Placement::Rendezvous, 8, Some(1.25)), open(&[0; 8]));
        for key in 0..20_000_u64 {
            let key = AffinityKey(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let slot = slot_of(router.route(key, &slots, at(0)));
            slots.0[slot.index()].1 += 1;
        }
        let highest = slots.0.iter().map(|slot| slot.1).max().unwrap();
        assert!(highest <= 2_500 * 5 / 4 + 1, "{highest} on one slot, 2,500 on average");
    }

    proptest! {
        #[test]
        fn a_client_never_moves_without_a_reason(
            key: u64, slots in 1..40_usize, loads in prop::collection::vec(0..100_u64, 40),
        ) {
            let mut router = router(Placement::Rendezvous, slots, None);
            let first = router.route(AffinityKey(key), &open(&loads[..slots]), at(0));
            let second = router.route(AffinityKey(key), &open(&vec![0; slots]), at(1_000));
            prop_assert_eq!(first, second);
        }

        #[test]
        fn no_client_is_sent_to_a_closed_slot(
            key: u64, steps in prop::collection::vec(prop::collection::vec(0..3_u8, 6), 1..20),
            modulo: bool, bound in prop::option::of(1.0..2.0_f64),
        ) {
            let placement = if modulo { Placement::Modulo } else { Placement::Rendezvous };
            let mut router = router(placement, 6, bound);
            for (second, states) in (0..).zip(steps) {
                let facts = Facts(states.iter().map(|state| match state {
                    0 => (Availability::Open, 1),
                    1 => (Availability::Holding, 9),
                    _ => (Availability::Closed, 0),
                }).collect());
                match router.route(AffinityKey(key), &facts, at(second)) {
                    Route::Home(slot) | Route::Fallback(slot, _) =>
                        prop_assert!(facts.availability(slot) != Availability::Closed),
                    Route::Nowhere =>
                        prop_assert!(states.iter().all(|state| *state == 2)),
                }
            }
        }
    }
}
