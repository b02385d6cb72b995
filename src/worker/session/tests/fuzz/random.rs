//! Random numbers that a seed repeats (splitmix64).

use std::time::SystemTime;

pub(super) struct Random(u64);

/// Another one each time.
pub(super) fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    // Short enough to be typed.
    u64::from(now.subsec_nanos()) + now.as_secs() % 1000 * 1_000_000_000
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(super) fn up_to(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64 + 1)).unwrap()
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    pub(super) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.up_to(choices.len() - 1)]
    }

    /// Mostly short.
    pub(super) fn length(&mut self) -> usize {
        match self.below(20) {
            0 => self.up_to(70_000),
            1..5 => self.up_to(300),
            _ => self.up_to(20),
        }
    }
}
