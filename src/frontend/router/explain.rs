//! Explains where a client's next connection would go and why, by the router's own decision. Changes
//! nothing: the client's memory is not prolonged.

use std::time::Duration;

use crate::frontend::fallback::FallbackReason;
use crate::frontend::placement::Slots;
use crate::frontend::query::Ranked;
use crate::frontend::router::{Route, Router, obstacle};
use crate::protocol::ids::{AffinityKey, SlotId, Timestamp};

/// Where a client goes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// All slots that clients belong to, its own first. By their numbers where nothing sticks.
    pub ranking: Vec<Ranked>,
    /// The slot that is remembered for it, and for how long if it doesn't come back.
    pub remembered: Option<(SlotId, Duration)>,
    /// The slot that its next connection goes to.
    pub target: Option<SlotId>,
    /// Why that isn't the first, if it isn't.
    pub why: Option<FallbackReason>,
}

/// Where [`Router::route`] would send a connection of the client with this key now.
pub(super) fn explain(
    router: &Router,
    key: AffinityKey,
    slots: &impl Slots,
    now: Timestamp,
) -> Explanation {
    if router.placement.is_sticky() {
        sticky(router, key, slots, now)
    } else {
        spread(router, slots)
    }
}

fn sticky(router: &Router, key: AffinityKey, slots: &impl Slots, now: Timestamp) -> Explanation {
    let remembered = router.memory.peek(key, now);
    let route = router.decide(key, remembered.map(|(slot, _)| slot), slots).route;
    let (target, why) = match route {
        Route::Home(slot) => (Some(slot), None),
        Route::Fallback(slot, reason) => (Some(slot), Some(reason)),
        Route::Nowhere => (None, None),
    };
    let limit = router.limit(slots);
    let stays = why == Some(FallbackReason::Remembered);
    let skip_reason = |slot| match obstacle(slot, slots, limit) {
        _ if stays => FallbackReason::Remembered,
        Some(reason) => reason,
        // Its worker is about to come, and another slot's is there.
        None => FallbackReason::NotServing,
    };
    let order = order(router, key);
    let turns = order.iter().position(|slot| Some(*slot) == target).unwrap_or(order.len());
    let ranked = order.iter().enumerate().map(|(turn, slot)| {
        let skip_reason = (turn < turns).then(|| skip_reason(*slot));
        ranked(*slot, slots, skip_reason)
    });
    let ranking: Vec<_> = ranked.collect();
    let why = why.or_else(|| ranking.first().and_then(|first| first.skip_reason));
    Explanation { ranking, remembered, target, why }
}

/// The slot whose turn it is says nothing about the client. Slots that take no connection are skipped.
fn spread(router: &Router, slots: &impl Slots) -> Explanation {
    let target = router.spread.clone().choose(router.placement, slots);
    let mut order = router.ranking.slots().to_vec();
    order.sort_unstable();
    let ranked = |slot| ranked(slot, slots, obstacle(slot, slots, None));
    let ranking = order.into_iter().map(ranked).collect();
    Explanation { ranking, remembered: None, target, why: None }
}

/// The order in which slots have their turn: home first.
fn order(router: &Router, key: AffinityKey) -> Vec<SlotId> {
    let mut order = router.ranking.all(key);
    if let Some(home) = router.home(key)
        && let Some(place) = order.iter().position(|slot| *slot == home)
    {
        order[..=place].rotate_right(1);
    }
    order
}

fn ranked(slot: SlotId, slots: &impl Slots, skip_reason: Option<FallbackReason>) -> Ranked {
    let (availability, load) = (slots.availability(slot), slots.load(slot));
    Ranked { slot, availability, load, skip_reason }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proptest::prelude::*;

    use super::*;
    use crate::frontend::placement::tests::{Facts, facts, open};
    use crate::frontend::placement::{Availability, Placement};
    use crate::frontend::router::RouterSettings;

    const SLOTS: usize = 6;

    fn router(placement: Placement, load_bound: Option<f64>) -> Router {
        Router::new(&RouterSettings {
            placement,
            weights: vec![1.0; SLOTS],
            load_bound,
            memory_capacity: NonZeroUsize::new(4).unwrap(),
            memory_lifetime: Duration::from_secs(60),
        })
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(0) + Duration::from_secs(seconds)
    }

    /// A route in an explanation's words.
    fn told(route: Route) -> (Option<SlotId>, Option<FallbackReason>) {
        match route {
            Route::Home(slot) => (Some(slot), None),
            Route::Fallback(slot, reason) => (Some(slot), Some(reason)),
            Route::Nowhere => (None, None),
        }
    }

    #[test]
    fn each_slot_before_the_one_that_it_goes_to_has_a_reason() {
        let (key, mut slots) = (AffinityKey(0x1234_5678_9abc_def0), open(&[0; SLOTS]));
        let mut router = router(Placement::Rendezvous, None);
        let ranking = router.explain(key, &slots, at(0)).ranking;
        assert!(ranking.iter().all(|ranked| ranked.skip_reason.is_none()));
        let place = |place: usize| ranking[place].slot;
        slots.0[place(0).index()].0 = Availability::Closed;
        slots.0[place(1).index()].0 = Availability::Holding;
        let reasons = |explanation: &Explanation| -> Vec<_> {
            explanation.ranking.iter().map(|ranked| ranked.skip_reason).collect()
        };
        let told = router.explain(key, &slots, at(0));
        let home = Some(slots.closed_because(place(0)));
        assert_eq!((told.target, told.why), (Some(place(2)), home));
        let waits = Some(FallbackReason::NotServing);
        assert_eq!(reasons(&told), [home, waits, None, None, None, None]);

        router.route(key, &slots, at(0));
        let told = router.explain(key, &open(&[0; SLOTS]), at(20));
        assert_eq!(told.remembered, Some((place(2), Duration::from_secs(40))));
        let stays = Some(FallbackReason::Remembered);
        assert_eq!((told.target, told.why), (Some(place(2)), stays));
        assert_eq!(reasons(&told), [stays, stays, None, None, None, None]);

        slots.0.fill((Availability::Closed, 0));
        let told = router.explain(key, &slots, at(20));
        assert_eq!((told.target, told.why), (None, home));
        assert!(reasons(&told).iter().all(Option::is_some));
    }

    #[test]
    fn modulo_has_its_home_first_and_then_the_usual_order() {
        let (key, mut slots) = (AffinityKey(0x29b1_4d62_4d76_28f5), open(&[0; SLOTS]));
        let mut router = router(Placement::Modulo, None);
        let ranking = router.explain(key, &slots, at(0)).ranking;
        let mut passed = Vec::new();
        while let (Some(slot), _) = told(router.route(key, &slots, at(0))) {
            passed.push(slot);
            slots.0[slot.index()].0 = Availability::Closed;
        }
        let order: Vec<_> = ranking.iter().map(|ranked| ranked.slot).collect();
        assert_eq!(passed, order);
        assert_eq!(passed[0], SlotId(3), "1299589365 modulo 6");
    }

    /// The history: clients, and the state of slots then.
    fn past() -> impl Strategy<Value = Vec<(u64, Facts, u64)>> {
        prop::collection::vec((0..6_u64, facts(SLOTS), 0..40_u64), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn what_is_explained_is_what_happens_then(
            past in past(), slots in facts(SLOTS), key in 0..6_u64, pause in 0..70_u64,
            bound in prop::option::of(1.0..2.0_f64),
            placement in prop::sample::select(vec![
                Placement::Rendezvous, Placement::Modulo, Placement::LeastConnections,
                Placement::RoundRobin, Placement::Random,
            ]),
        ) {
            let (mut asked, mut unasked) = (router(placement, bound), router(placement, bound));
            let (key, mut now) = (AffinityKey(key.wrapping_mul(0x9e37_79b9_7f4a_7c15)), 0);
            for (other, slots, pause) in &past {
                now += pause;
                let other = AffinityKey(other.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let before = asked.explain(key, slots, at(now));
                prop_assert_eq!(&asked.explain(key, slots, at(now)), &before);
                let route = asked.route(other, slots, at(now));
                prop_assert_eq!(route, unasked.route(other, slots, at(now)), "it was changed");
            }
            let now = at(now + pause);
            let explanation = asked.explain(key, &slots, now);
            let (target, why) = told(asked.route(key, &slots, now));
            prop_assert_eq!(target, explanation.target);
            if target.is_some() || !placement.is_sticky() {
                prop_assert_eq!(why, explanation.why);
            }
            let mut numbers: Vec<_> = explanation.ranking.iter().map(|one| one.slot.0).collect();
            if placement.is_sticky() {
                let turn = numbers.iter().position(|slot| target == Some(SlotId(*slot)));
                for (place, ranked) in explanation.ranking.iter().enumerate() {
                    let passed = place < turn.unwrap_or(SLOTS);
                    prop_assert_eq!(ranked.skip_reason.is_some(), passed);
                }
                prop_assert_eq!(explanation.why, explanation.ranking[0].skip_reason);
                prop_assert_eq!(why.is_some(), turn.is_some_and(|turn| turn > 0));
            }
            numbers.sort_unstable();
            prop_assert!(numbers.into_iter().eq(0..6));
        }
    }
}
