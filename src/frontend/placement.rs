//! The slot that a key belongs to, and those that follow when it cannot take a client.
//!
//! Pure: functions of the key and of what is known about the slots; nothing is remembered but the
//! turn of round-robin and the state of a random generator.

use std::cmp::Reverse;

use crate::frontend::fallback::FallbackReason;
use crate::handover::carry;
use crate::handover::frontend::SpreadSnapshot;
use crate::protocol::ids::{AffinityKey, SlotId};

/// How slots are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Each key ranks all slots; the first that can take it does. One slot more or fewer moves
    /// only the clients of that slot.
    Rendezvous,
    /// The same ranking of another kind of key: the kernel's program computes both, and picks the worker itself.
    Kernel,
    /// Key modulo the number of slots, as the sticky sessions of Node's tutorials. One slot more
    /// or fewer moves nearly everybody.
    Modulo,
    /// The slot with the fewest connections. Not sticky.
    LeastConnections,
    /// One slot after the other. Not sticky.
    RoundRobin,
    /// The less loaded of two random slots. Not sticky.
    Random,
}

impl Placement {
    /// Whether a client always reaches the same slot.
    #[must_use]
    pub fn is_sticky(self) -> bool {
        matches!(self, Self::Rendezvous | Self::Kernel | Self::Modulo)
    }
}

/// Whether a slot takes connections now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Its worker serves.
    Open,
    /// Its worker has just died; connections wait for the successor, for a while.
    Holding,
    /// Stalled, refusing, draining, given up or full: others take its clients.
    Closed,
}

/// Facts about slots that placement depends on. Slots are numbered from 0.
pub trait Slots {
    /// How many there are.
    fn count(&self) -> u16;
    /// Whether a slot takes connections now.
    fn availability(&self, slot: SlotId) -> Availability;
    /// Its connections, established and on their way.
    fn load(&self, slot: SlotId) -> u64;
    /// Why it takes none, of one that is closed.
    fn closed_because(&self, slot: SlotId) -> FallbackReason;

    /// All of them.
    fn ids(&self) -> impl Iterator<Item = SlotId> {
        (0..self.count()).map(SlotId)
    }
}

/// A key's order of the slots, by rendezvous hashing with weights ("highest random weight",
/// Thaler and Ravishankar 1998): each slot draws a number from the key, and the highest wins.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// Together, for they are read together, for each connection.
    draws: Vec<Draw>,
    slots: Vec<SlotId>,
    uniform: bool,
}

/// A slot's seed and weight.
#[derive(Clone, Copy, Debug)]
struct Draw {
    seed: u64,
    weight: f64,
    slot: SlotId,
}

impl Ranking {
    /// For the first slots, with these weights.
    #[must_use]
    pub fn new(weights: &[f64]) -> Self {
        let slots = (0..u16::MAX).map(SlotId).zip(weights.iter().copied());
        Self::of(&slots.collect::<Vec<_>>())
    }

    /// For these slots, with these weights, each above 0: a slot of weight 2 gets twice the clients
    /// of one of weight 1. What a slot draws depends on its number alone, so that those that stay
    /// keep their clients when others come and go.
    #[must_use]
    pub fn of(slots: &[(SlotId, f64)]) -> Self {
        let draw = |(slot, weight): &(SlotId, f64)| Draw {
            seed: mix(u64::from(slot.0) + 1),
            weight: *weight,
            slot: *slot,
        };
        let uniform = slots.windows(2).all(|pair| pair[0].1.total_cmp(&pair[1].1).is_eq());
        let draws = slots.iter().map(draw).collect();
        Self { draws, slots: slots.iter().map(|(slot, _)| *slot).collect(), uniform }
    }

    /// Its slots.
    #[must_use]
    pub fn slots(&self) -> &[SlotId] {
        &self.slots
    }

    /// The slot of a key, whatever its state.
    #[must_use]
    pub fn first(&self, key: AffinityKey) -> Option<SlotId> {
        self.first_of(key, |_| true)
    }

    /// The first slot of the key's order that is `eligible`.
    pub fn first_of(&self, key: AffinityKey, eligible: impl Fn(SlotId) -> bool) -> Option<SlotId> {
        if self.uniform {
            self.highest(eligible, |draw| draw.plain(key))
        } else {
            self.highest(eligible, |draw| draw.weighted(key).to_bits())
        }
    }

    /// All slots in the key's order: each is the [`Self::first_of`] those that follow.
    #[must_use]
    pub fn order(&self, key: AffinityKey) -> Vec<SlotId> {
        let score = |draw: &Draw| {
            if self.uniform { draw.plain(key) } else { draw.weighted(key).to_bits() }
        };
        let mut draws = self.draws.clone();
        // Stable: of two that draw the same, the first is the first.
        draws.sort_by_cached_key(|draw| Reverse(score(draw)));
        draws.iter().map(|draw| draw.slot).collect()
    }

    fn highest(
        &self,
        eligible: impl Fn(SlotId) -> bool,
        score: impl Fn(&Draw) -> u64,
    ) -> Option<SlotId> {
        let mut best = None;
        let mut highest = 0;
        for draw in &self.draws {
            let score = score(draw);
            if (score > highest || best.is_none()) && eligible(draw.slot) {
                (best, highest) = (Some(draw.slot), score);
            }
        }
        best
    }
}

impl Draw {
    fn plain(&self, key: AffinityKey) -> u64 {
        mix(key.0 ^ self.seed)
    }

    /// `-weight / ln(u)` for u in (0, 1): positive, so that its bits are in the order of its value.
    fn weighted(&self, key: AffinityKey) -> f64 {
        let drawn = mix(key.0 ^ self.seed) >> 11;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let unit = (drawn as f64 + 0.5) / (1_u64 << 53) as f64;
        -self.weight / unit.ln()
    }
}

/// Spreads a number over 64 bits; the finalizer of MurmurHash3.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// The slot of a key by Node's rule: its first 4 bytes, little-endian, modulo the slots.
#[must_use]
pub fn modulo(key: AffinityKey, slots: &[SlotId]) -> Option<SlotId> {
    let first_four = key.0 & u64::from(u32::MAX);
    let remainder = first_four.checked_rem(slots.len() as u64)?;
    usize::try_from(remainder).ok().map(|index| slots[index])
}

/// Chooses slots where nothing needs to stick.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    turn: u64,
}

carry!(struct Spread => SpreadSnapshot { turn });

impl Spread {
    /// The next slot by `placement`, of those that are open, else of those that hold.
    pub fn choose(&mut self, placement: Placement, slots: &impl Slots) -> Option<SlotId> {
        self.turn = self.turn.wrapping_add(1);
        [Availability::Open, Availability::Holding].into_iter().find_map(|wanted| {
            let usable = |slot: &SlotId| slots.availability(*slot) == wanted;
            match placement {
                Placement::RoundRobin => self.next_after_turn(slots).find(usable),
                Placement::Random => self.better_of_two(slots, usable),
                // Ties go to the one whose turn it is.
                _ => self.next_after_turn(slots).filter(usable).min_by_key(|id| slots.load(*id)),
            }
        })
    }

    fn next_after_turn(&self, slots: &impl Slots) -> impl Iterator<Item = SlotId> {
        let count = slots.count();
        let start = self.turn.checked_rem(u64::from(count)).unwrap_or(0);
        let start = u16::try_from(start).unwrap_or(0);
        (start..count).chain(0..start).map(SlotId)
    }

    fn better_of_two(
        &self,
        slots: &impl Slots,
        usable: impl Fn(&SlotId) -> bool,
    ) -> Option<SlotId> {
        let count = slots.ids().filter(&usable).count() as u64;
        let draw = mix(self.turn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let first = (draw >> 32).checked_rem(count)?;
        let second =
            (first + 1 + (draw & u64::from(u32::MAX)) % count.max(2).saturating_sub(1)) % count;
        let nth = |n: u64| slots.ids().filter(&usable).nth(usize::try_from(n).ok()?);
        [nth(first), nth(second)].into_iter().flatten().min_by_key(|id| slots.load(*id))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::SizeRange;
    use proptest::prelude::*;

    use super::*;

    /// Slots as a test wants them: availability and load.
    #[derive(Clone, Debug)]
    pub(in crate::frontend) struct Facts(pub(in crate::frontend) Vec<(Availability, u64)>);

    impl Slots for Facts {
        fn count(&self) -> u16 {
            u16::try_from(self.0.len()).unwrap()
        }

        fn availability(&self, slot: SlotId) -> Availability {
            self.0[slot.index()].0
        }

        fn load(&self, slot: SlotId) -> u64 {
            self.0[slot.index()].1
        }

        /// One of several, so that tests see whether the right slot was asked.
        fn closed_because(&self, slot: SlotId) -> FallbackReason {
            let reasons =
                [FallbackReason::NotServing, FallbackReason::Stalled, FallbackReason::QueueFull];
            reasons[slot.index() % 3]
        }
    }

    pub(in crate::frontend) fn open(loads: &[u64]) -> Facts {
        Facts(loads.iter().map(|load| (Availability::Open, *load)).collect())
    }

    fn keys(count: u64) -> impl Iterator<Item = AffinityKey> {
        (0..count).map(|n| AffinityKey(mix(n ^ 0x5eed)))
    }

    fn shares(ranking: &Ranking, slots: usize, count: u64) -> Vec<u64> {
        let mut shares = vec![0; slots];
        for key in keys(count) {
            shares[ranking.first(key).unwrap().index()] += 1;
        }
        shares
    }

    #[test]
    fn rendezvous_spreads_evenly() {
        for slots in [2, 3, 8, 64] {
            let count = slots as u64 * 10_000;
            for share in shares(&Ranking::new(&vec![1.0; slots]), slots, count) {
                assert!((9_600..=10_400).contains(&share), "{share} of 10,000 on one of {slots}");
            }
        }
    }

    #[test]
    fn weights_say_who_gets_how_much() {
        let shares = shares(&Ranking::new(&[1.0, 2.0, 0.5, 4.5]), 4, 80_000);
        for (share, expected) in shares.iter().zip([10_000, 20_000, 5_000, 45_000_u64]) {
            assert!(share.abs_diff(expected) < expected / 20, "{shares:?}");
        }
    }

    #[test]
    fn a_ninth_slot_takes_its_share_and_moves_no_other_client() {
        let (eight, nine) = (Ranking::new(&[1.0; 8]), Ranking::new(&[1.0; 9]));
        let mut moved = 0;
        for key in keys(40_000) {
            let (before, after) = (eight.first(key), nine.first(key));
            if before != after {
                assert_eq!(after, Some(SlotId(8)));
                moved += 1;
            }
        }
        assert!(moved <= 5_000, "{moved} of 40,000 moved, more than 12.5 %");
        assert!(moved >= 4_000, "{moved} of 40,000 moved, too few to be even");
    }

    #[test]
    fn equal_weights_other_than_one_change_nothing() {
        let (ones, threes) = (Ranking::new(&[1.0; 5]), Ranking::new(&[3.0; 5]));
        assert!(keys(1_000).all(|key| ones.first(key) == threes.first(key)));
    }

    #[test]
    fn modulo_is_the_mapping_of_nodes_tutorials() {
        // Of "127.0.0.1": md5 f528764d…, read as little-endian u32 1299589365.
        let key = AffinityKey(0x29b1_4d62_4d76_28f5);
        for (slots, slot) in [(2, 1), (3, 0), (4, 1), (8, 5), (16, 5)] {
            let slots: Vec<_> = (0..slots).map(SlotId).collect();
            assert_eq!(modulo(key, &slots), Some(SlotId(slot)));
        }
        assert_eq!(modulo(key, &[]), None);
    }

    #[test]
    fn least_connections_takes_the_least_and_shares_ties() {
        let mut spread = Spread::default();
        let choice = spread.choose(Placement::LeastConnections, &open(&[3, 1, 2]));
        assert_eq!(choice, Some(SlotId(1)));
        let ties = open(&[5, 5, 5]);
        let mut seen: Vec<_> =
            (0..3).filter_map(|_| spread.choose(Placement::LeastConnections, &ties)).collect();
        seen.sort();
        assert_eq!(seen, [SlotId(0), SlotId(1), SlotId(2)]);
    }

    #[test]
    fn random_prefers_the_less_loaded_of_two() {
        let (mut spread, slots) = (Spread::default(), open(&[0, 1_000, 0, 1_000]));
        let mut hits = [0; 4];
        for _ in 0..4_000 {
            hits[spread.choose(Placement::Random, &slots).unwrap().index()] += 1;
        }
        // A loaded one is only taken where both draws are loaded: 1 pair of 6.
        assert!(hits[1] + hits[3] < 900, "{hits:?}");
        assert!(hits.iter().all(|hits| *hits > 100), "{hits:?}");
    }

    pub(in crate::frontend) fn facts(count: impl Into<SizeRange>) -> impl Strategy<Value = Facts> {
        let state = prop_oneof![
            Just(Availability::Open),
            Just(Availability::Holding),
            Just(Availability::Closed)
        ];
        prop::collection::vec((state, 0..50_u64), count).prop_map(Facts)
    }

    proptest! {
        #[test]
        fn the_chosen_slot_can_take_it(facts in facts(0..20), turns in 1..40_u64) {
            for placement in [Placement::LeastConnections, Placement::RoundRobin, Placement::Random] {
                let mut spread = Spread { turn: turns };
                let chosen = spread.choose(placement, &facts).map(|slot| facts.availability(slot));
                let states = || facts.ids().map(|slot| facts.availability(slot));
                let best = states().find(|state| *state == Availability::Open)
                    .or_else(|| states().find(|state| *state == Availability::Holding));
                prop_assert_eq!(chosen, best);
            }
        }

        #[test]
        fn each_in_the_order_is_the_first_of_those_that_follow(
            key: u64, weights in prop::collection::vec(0.1..9.0_f64, 0..20), equal: bool,
        ) {
            let weights = if equal { vec![1.0; weights.len()] } else { weights };
            let (key, ranking) = (AffinityKey(key), Ranking::new(&weights));
            let order = ranking.order(key);
            prop_assert_eq!(order.len(), weights.len());
            for (place, slot) in order.iter().enumerate() {
                let rest = &order[place..];
                prop_assert_eq!(ranking.first_of(key, |slot| rest.contains(&slot)), Some(*slot));
            }
        }

        #[test]
        fn losing_a_slot_moves_only_its_own_clients(key: u64, slots in 2..40_usize, gone in 0..40_u16) {
            let key = AffinityKey(key);
            let ranking = Ranking::new(&vec![1.0; slots]);
            let first = ranking.first(key).unwrap();
            let next = ranking.first_of(key, |slot| slot.0 != gone).unwrap();
            prop_assert!(next.0 != gone);
            prop_assert!(first.0 == gone || next == first);
        }
    }
}
