//! The figures of the whole: what they are called, what they are now, how they were. Pure.

use std::collections::VecDeque;

use crate::control::report::Status;

use super::format::{count, millis, rate, whole};

/// Seconds that are remembered: as many as a wide terminal shows.
const KEPT: usize = 200;

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    Accepts,
    HalfWithin,
    Fallbacks,
    Connections,
    NearlyAllWithin,
    Redispatched,
    Requests,
    Stalls,
    Refused,
    Migrated,
    Closed,
    SessionsLost,
    Crashes,
    TopClient,
}

impl Figure {
    /// Row by row, three each; the last has the room of two.
    pub(super) const ALL: [Self; 14] = [
        Self::Accepts,
        Self::HalfWithin,
        Self::Fallbacks,
        Self::Connections,
        Self::NearlyAllWithin,
        Self::Redispatched,
        Self::Requests,
        Self::Stalls,
        Self::Refused,
        Self::Migrated,
        Self::Closed,
        Self::SessionsLost,
        Self::Crashes,
        Self::TopClient,
    ];

    /// Of 12 characters at most.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accepts => "accepts/s",
            Self::HalfWithin => "p50 ms",
            Self::Fallbacks => "fallbacks",
            Self::Connections => "connections",
            Self::NearlyAllWithin => "p99 ms",
            Self::Redispatched => "redispatched",
            Self::Requests => "requests",
            Self::Stalls => "stalls",
            Self::Refused => "refused",
            Self::Migrated => "migrated",
            Self::Closed => "closed",
            Self::SessionsLost => "ws lost",
            Self::Crashes => "crashes",
            Self::TopClient => "top client",
        }
    }

    /// As it is now.
    pub(super) fn text(self, status: &Status) -> String {
        match self {
            Self::Accepts => rate(status.accepts_per_second),
            Self::HalfWithin => millis(status.handoff_p50_ms),
            Self::NearlyAllWithin => millis(status.handoff_p99_ms),
            Self::TopClient => status.top_client.as_ref().map_or_else(
                || "-".to_owned(),
                |it| format!("{}% {}", whole(it.share * 100.0), it.address),
            ),
            _ => count(self.number(status)),
        }
    }

    /// Something is or was wrong.
    pub(super) fn is_bad(self, status: &Status) -> bool {
        let tells_of_trouble =
            matches!(self, Self::Stalls | Self::Refused | Self::SessionsLost | Self::Crashes);
        tells_of_trouble && self.number(status) > 0
    }

    /// The value to show; of a counter, the difference to `before`.
    fn sample(self, before: &Status, now: &Status) -> u64 {
        let is_a_total = matches!(
            self,
            Self::Fallbacks
                | Self::Redispatched
                | Self::Stalls
                | Self::Refused
                | Self::Migrated
                | Self::Closed
                | Self::SessionsLost
                | Self::Crashes
        );
        let past = if is_a_total { self.number(before) } else { 0 };
        self.number(now).saturating_sub(past)
    }

    fn number(self, status: &Status) -> u64 {
        let micros = |millis: Option<f64>| whole(millis.unwrap_or_default() * 1_000.0);
        match self {
            Self::Accepts => whole(status.accepts_per_second),
            Self::HalfWithin => micros(status.handoff_p50_ms),
            Self::Fallbacks => status.fallbacks,
            Self::Connections => status.connections,
            Self::NearlyAllWithin => micros(status.handoff_p99_ms),
            Self::Redispatched => status.redispatched,
            Self::Requests => status.requests,
            Self::Stalls => status.stalls,
            Self::Refused => status.refused,
            Self::Migrated => status.sessions_migrated,
            Self::Closed => status.clients_closed,
            Self::SessionsLost => status.sessions_lost,
            Self::Crashes => status.crashes,
            Self::TopClient => {
                whole(status.top_client.as_ref().map_or(0.0, |it| it.share) * 1_000.0)
            }
        }
    }
}

/// How all figures were, second by second.
#[derive(Clone, Debug, Default)]
pub(super) struct Trends {
    lines: [VecDeque<u64>; Figure::ALL.len()],
}

impl Trends {
    /// Another second.
    pub(super) fn add(&mut self, before: &Status, now: &Status) {
        for (line, figure) in self.lines.iter_mut().zip(Figure::ALL) {
            if line.len() == KEPT {
                line.pop_front();
            }
            line.push_back(figure.sample(before, now));
        }
    }

    /// The last `length` seconds of a figure, the newest first.
    pub(super) fn newest(&self, figure: Figure, length: usize) -> Vec<u64> {
        let line = self.lines.iter().zip(Figure::ALL).find(|(_, it)| *it == figure);
        line.into_iter().flat_map(|(line, _)| line.iter().rev().take(length).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_totals_the_line_shows_what_came() {
        let mut trends = Trends::default();
        let status =
            |fallbacks, connections| Status { fallbacks, connections, ..Status::default() };
        for (before, now) in [((5, 1), (7, 4)), ((7, 4), (7, 2))] {
            trends.add(&status(before.0, before.1), &status(now.0, now.1));
        }
        assert_eq!(trends.newest(Figure::Fallbacks, 9), [0, 2]);
        assert_eq!(trends.newest(Figure::Connections, 9), [2, 4]);
        assert_eq!(trends.newest(Figure::Connections, 1), [2]);
    }

    #[test]
    fn the_past_is_bounded() {
        let mut trends = Trends::default();
        for _ in 0..1_000 {
            trends.add(&Status::default(), &Status::default());
        }
        assert_eq!(trends.newest(Figure::Accepts, 10_000).len(), KEPT);
    }

    #[test]
    fn names_fit() {
        assert!(Figure::ALL.iter().all(|figure| figure.name().len() <= 12));
    }
}
