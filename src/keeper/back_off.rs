//! The pause between a crashed primary and the next one: none at first, longer and longer if they keep
//! crashing, and no next one in the end. Pure.

use std::time::Duration;

/// After so many crashes in a row that came too soon, there is no next one.
pub(super) const MAX_CRASHES: u32 = 8;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What follows a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another primary, after this pause.
    After(Duration),
    /// None.
    GiveUp,
}

/// Counts crashes.
#[derive(Debug)]
pub(super) struct BackOff {
    /// A crash before this uptime came too soon.
    min_uptime: Duration,
    /// Such crashes in a row.
    too_soon: u32,
}

impl BackOff {
    pub(super) fn new(min_uptime: Duration) -> Self {
        Self { min_uptime, too_soon: 0 }
    }

    /// A primary has crashed after this uptime.
    pub(super) fn crashed(&mut self, uptime: Duration) -> Next {
        if uptime >= self.min_uptime {
            self.too_soon = 0;
            return Next::After(Duration::ZERO);
        }
        self.too_soon += 1;
        match self.too_soon {
            1 => Next::After(Duration::ZERO),
            MAX_CRASHES.. => Next::GiveUp,
            count => {
                let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(count - 2));
                Next::After(pause.min(MAX_PAUSE))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uptimes in milliseconds in, pauses in milliseconds out; none is the end.
    fn pauses(uptimes: &[u64]) -> Vec<Option<u64>> {
        let mut back_off = BackOff::new(Duration::from_secs(10));
        let next = |uptime: &u64| match back_off.crashed(Duration::from_millis(*uptime)) {
            Next::After(pause) => Some(u64::try_from(pause.as_millis()).unwrap()),
            Next::GiveUp => None,
        };
        uptimes.iter().map(next).collect()
    }

    #[test]
    fn a_primary_that_keeps_crashing_is_started_later_and_later_and_then_no_more() {
        for (uptimes, expected) in [
            (&[0][..], &[Some(0)][..]),
            (&[3_600_000], &[Some(0)]),
            (
                &[0, 9_999, 0, 5, 0, 0, 0, 0],
                &[
                    Some(0),
                    Some(100),
                    Some(200),
                    Some(400),
                    Some(800),
                    Some(1_600),
                    Some(3_200),
                    None,
                ],
            ),
            // A long uptime ends the row.
            (
                &[0, 0, 0, 10_000, 0, 0, 0],
                &[Some(0), Some(100), Some(200), Some(0), Some(0), Some(100), Some(200)],
            ),
            (&[10_000, 10_001, 20_000], &[Some(0), Some(0), Some(0)]),
        ] {
            assert_eq!(pauses(uptimes), expected, "{uptimes:?}");
        }
    }

    #[test]
    fn no_row_is_so_long_that_it_begins_again() {
        let mut back_off = BackOff::new(Duration::MAX);
        let last = (0..100).map(|_| back_off.crashed(Duration::ZERO)).skip(7).collect::<Vec<_>>();
        assert!(last.iter().all(|next| *next == Next::GiveUp));
    }
}
