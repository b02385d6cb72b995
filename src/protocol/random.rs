//! Random numbers that a seed repeats (splitmix64), for tests that try very many things.
//!
//! `STICKY_LB_FUZZ_SECONDS` is how long such a test goes on (3 if unset), `STICKY_LB_FUZZ_SEED` its first seed.

use std::time::{Duration, SystemTime};

pub(crate) struct Random(u64);

/// How long to go on.
pub(crate) fn time() -> Duration {
    Duration::from_secs(variable("STICKY_LB_FUZZ_SECONDS").unwrap_or(3))
}

/// Another one each time, if none is asked for.
pub(crate) fn seed() -> u64 {
    if let Some(seed) = variable("STICKY_LB_FUZZ_SEED") {
        return seed;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    // Short enough to be typed.
    u64::from(now.subsec_nanos()) + now.as_secs() % 1000 * 1_000_000_000
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn up_to(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64 + 1)).unwrap()
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.up_to(choices.len() - 1)]
    }

    /// Mostly short.
    pub(crate) fn length(&mut self) -> usize {
        match self.below(20) {
            0 => self.up_to(70_000),
            1..5 => self.up_to(300),
            _ => self.up_to(20),
        }
    }
}
