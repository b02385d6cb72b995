//! The slot of a client where the kernel picks it: the same choice in user space and as a program of the kernel.
//!
//! Pure. The choice is rendezvous hashing by what classic BPF can compute: 32-bit words, no division, no logarithm.
//! Weights are numbers of draws: a slot of weight 2 draws twice where one of weight 1 draws once, and the highest
//! draw of all wins. NAT64 addresses are folded as by [`fold`], in the program, too.
//!
//! # Promises
//!
//! * [`KernelRanking::first_of`] and the program of [`program::compile`] agree on every address.
//! * A slot more or fewer moves only the clients of that slot, as long as the weights of the others are the same.
//! * [`MAX_DRAWS`] slots of one weight fit into a program.

use std::cmp::Reverse;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::frontend::affinity::{Prefixes, fold};
use crate::protocol::ids::{AffinityKey, SlotId};

pub mod program;

/// Draws of all slots together, at most: more don't fit into a program.
pub const MAX_DRAWS: usize = 256;

/// Draws of the lightest slot, at most.
const MAX_UNIT: u16 = 32;

/// Weights are met that closely where that takes few draws.
const WEIGHT_TOLERANCE: f64 = 0.01;

/// Turns client addresses into hashes, as the kernel's program does.
#[derive(Clone, PartialEq, Eq)]
pub struct Steering {
    prefixes: Prefixes,
    /// The hash of each connection is a random number: nobody sticks.
    is_random: bool,
    /// What the hash of an IPv4 address, of an IPv6 address and of a draw begins with.
    seeds: Seeds,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seeds {
    v4: u32,
    v6: u32,
    draw: u32,
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the seeds: they are as secret as the secret.
        f.debug_struct("Steering").field("prefixes", &self.prefixes).finish_non_exhaustive()
    }
}

impl Steering {
    /// A random number for each connection instead of a hash: the kernel spreads them, and nobody sticks.
    #[must_use]
    pub fn random() -> Self {
        Self { is_random: true, ..Self::new(b"", Prefixes { v4: 0, v6: 0 }) }
    }

    /// With a `secret`, the program can't be told from outside.
    #[must_use]
    pub fn new(secret: &[u8], prefixes: Prefixes) -> Self {
        let prefixes = Prefixes { v4: prefixes.v4.min(32), v6: prefixes.v6.min(128) };
        let seed = |label: &str| {
            let digest = Sha256::new().chain_update(secret).chain_update(label).finalize();
            digest.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let seeds = Seeds { v4: seed("steer-v4"), v6: seed("steer-v6"), draw: seed("steer-draw") };
        Self { prefixes, is_random: false, seeds }
    }

    /// The hash of the client at `address`, folded and cut to its prefix.
    #[must_use]
    pub fn hash(&self, address: IpAddr) -> u32 {
        match fold(address) {
            IpAddr::V4(v4) => mix((v4.to_bits() & self.mask_v4()) ^ self.seeds.v4),
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                let words = [96, 64, 32, 0].map(|shift| low_word(bits >> shift));
                let masks = self.masks_v6();
                let counted = words.into_iter().zip(masks).filter(|(_, mask)| *mask != 0);
                counted.fold(self.seeds.v6, |hash, (word, mask)| mix(hash ^ (word & mask)))
            }
        }
    }

    /// The hash, as a key.
    #[must_use]
    pub fn key(&self, address: IpAddr) -> AffinityKey {
        AffinityKey(self.hash(address).into())
    }

    fn mask_v4(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefixes.v4)).unwrap_or(0)
    }

    /// For each 32 bits of an address, the first ones first.
    fn masks_v6(&self) -> [u32; 4] {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.prefixes.v6)).unwrap_or(0);
        [96, 64, 32, 0].map(|shift| low_word(mask >> shift))
    }
}

/// A key's order of the slots, as the kernel's program has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRanking {
    steering: Steering,
    /// Those of a slot stand together.
    draws: Vec<Draw>,
    slots: Vec<SlotId>,
}

/// One draw of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Draw {
    seed: u32,
    slot: SlotId,
}

impl KernelRanking {
    /// For these slots, with these weights, each above 0. A slot's draws depend on its number and its weight
    /// beside that of the lightest one alone.
    #[must_use]
    pub fn new(steering: &Steering, slots: &[(SlotId, f64)]) -> Self {
        let weights: Vec<_> = slots.iter().map(|(_, weight)| *weight).collect();
        let draws = slots.iter().zip(numbers_of_draws(&weights)).flat_map(|((slot, _), count)| {
            (0..count).map(|number| Draw {
                // Mixing is one to one, so that no two draws have the same seed.
                seed: mix(steering.seeds.draw ^ (u32::from(slot.0) << 16 | u32::from(number))),
                slot: *slot,
            })
        });
        Self {
            draws: draws.collect(),
            slots: slots.iter().map(|(slot, _)| *slot).collect(),
            steering: steering.clone(),
        }
    }

    /// What its keys come from.
    #[must_use]
    pub fn steering(&self) -> &Steering {
        &self.steering
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
        let hash = low_word(key.0.into());
        let mut best = None;
        let mut highest = 0;
        for draw in &self.draws {
            let score = draw.score(hash);
            if (score > highest || best.is_none()) && eligible(draw.slot) {
                (best, highest) = (Some(draw.slot), score);
            }
        }
        best
    }

    /// All slots in the key's order: each is the [`Self::first_of`] those that follow.
    #[must_use]
    pub fn order(&self, key: AffinityKey) -> Vec<SlotId> {
        let hash = low_word(key.0.into());
        let mut best: Vec<(SlotId, u32)> = Vec::with_capacity(self.slots.len());
        for draw in &self.draws {
            let score = draw.score(hash);
            match best.last_mut().filter(|(slot, _)| *slot == draw.slot) {
                Some((_, highest)) => *highest = score.max(*highest),
                None => best.push((draw.slot, score)),
            }
        }
        // Stable: of two that draw the same, the first is the first.
        best.sort_by_key(|(_, score)| Reverse(*score));
        best.into_iter().map(|(slot, _)| slot).collect()
    }
}

impl Draw {
    /// The last step of [`mix`] is left out: it changes low bits only, and the program is shorter.
    fn score(&self, hash: u32) -> u32 {
        half_mix(hash ^ self.seed)
    }
}

const FACTORS: [u32; 2] = [0x85eb_ca6b, 0xc2b2_ae35];

fn half_mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(FACTORS[0]);
    (x ^ (x >> 13)).wrapping_mul(FACTORS[1])
}

/// Spreads a number over 32 bits, one to one; the finalizer of `MurmurHash3`.
fn mix(x: u32) -> u32 {
    let x = half_mix(x);
    x ^ (x >> 16)
}

#[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are meant")]
fn low_word(bits: u128) -> u32 {
    bits as u32
}

/// How often each slot draws: once where all weigh the same; else as often as it takes to meet the weights, as far as
/// [`MAX_DRAWS`] allow.
fn numbers_of_draws(weights: &[f64]) -> Vec<u16> {
    let lightest = weights.iter().copied().fold(f64::INFINITY, f64::min);
    let mut best: Option<(f64, Vec<u16>)> = None;
    for unit in 1..=MAX_UNIT {
        let wanted = weights.iter().map(|weight| weight / lightest * f64::from(unit));
        let counts: Vec<_> = wanted.clone().map(rounded).collect();
        if counts.iter().copied().map(usize::from).sum::<usize>() > MAX_DRAWS {
            break;
        }
        let error =
            wanted.zip(&counts).map(|(wanted, count)| (f64::from(*count) / wanted - 1.0).abs());
        let error = error.fold(0.0, f64::max);
        if error <= WEIGHT_TOLERANCE {
            return counts;
        }
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, counts));
        }
    }
    best.map_or_else(|| shares(weights), |(_, counts)| counts)
}

/// Where the heaviest weighs too much beside the lightest: one draw each, and what is left by weight.
fn shares(weights: &[f64]) -> Vec<u16> {
    let total: f64 = weights.iter().sum();
    let left = u16::try_from(MAX_DRAWS.saturating_sub(weights.len())).unwrap_or(0);
    weights.iter().map(|weight| 1 + rounded((weight / total * f64::from(left)).floor())).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts of floats saturate"
)]
fn rounded(number: f64) -> u16 {
    number.round() as u16
}

#[cfg(test)]
mod tests;
