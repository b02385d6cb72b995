//! When a worker has had its time: memory, age, connections served.
//!
//! Pure: what is known of a worker in, whether and why it is to be replaced out. Never measures.

use std::fmt;
use std::time::Duration;

use crate::handover::carry;
use crate::handover::pool::LimitReasonSnapshot;
use crate::handover::settings::LimitSettingsSnapshot;

/// The limits of a worker's use before it is replaced. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// Bytes of memory beyond which it is replaced, its successor first.
    pub max_memory_restart: Option<u64>,
    /// Bytes of memory beyond which it is killed at once.
    pub max_memory_kill: Option<u64>,
    /// Its age from ready.
    pub max_age: Option<Duration>,
    /// Connections that it has taken over since its start.
    pub max_connections_served: Option<u64>,
}

carry!(struct LimitSettings => LimitSettingsSnapshot { max_memory_restart, max_memory_kill, max_age, max_connections_served });

/// A worker's use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerUse {
    /// Bytes of memory, if they could be read.
    pub memory: Option<u64>,
    /// The time since it was ready.
    pub age: Duration,
    /// Connections that it has taken over.
    pub connections_served: u64,
}

/// The consequence for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitVerdict {
    /// It goes on.
    Fine,
    /// It drains when its successor is ready.
    Replace(LimitReason),
    /// It is killed at once.
    Kill(LimitReason),
}

/// The limit that was reached. `limit` is the one for this worker, jitter taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReason {
    /// It has lived for long enough.
    Age {
        /// The time since it was ready.
        age: Duration,
        /// How old it may become.
        limit: Duration,
    },
    /// It has served enough.
    Connections {
        /// Connections that it has taken over.
        served: u64,
        /// How many it may take over.
        limit: u64,
    },
    /// It uses too much.
    Memory {
        /// Bytes that it uses.
        used: u64,
        /// Bytes that it may use.
        limit: u64,
    },
}

carry!(enum LimitReason => LimitReasonSnapshot { Age { age, limit }, Connections { served, limit }, Memory { used, limit } });

/// Whether a worker has had its time. `jitter`, from 0 to 1 and always the same for the same
/// worker, takes up to a tenth off age and connections, so that workers that were started together
/// are not replaced together. Memory limits are exact.
#[must_use]
pub fn judge(settings: &LimitSettings, usage: &WorkerUse, jitter: f64) -> LimitVerdict {
    let memory_beyond = |limit: Option<u64>| {
        let (used, limit) = (usage.memory?, limit?);
        (used > limit).then_some(LimitReason::Memory { used, limit })
    };
    if let Some(reason) = memory_beyond(settings.max_memory_kill) {
        return LimitVerdict::Kill(reason);
    }
    let share = share_of_limit(jitter);
    let reason = memory_beyond(settings.max_memory_restart)
        .or_else(|| too_old(settings.max_age?, share, usage.age))
        .or_else(|| {
            enough_served(settings.max_connections_served?, share, usage.connections_served)
        });
    reason.map_or(LimitVerdict::Fine, LimitVerdict::Replace)
}

const WHOLE: u32 = 10_000;

/// How much of a limit is left to a worker, in parts of [`WHOLE`].
fn share_of_limit(jitter: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and what is no number becomes 0"
    )]
    let off = (jitter * f64::from(WHOLE / 10)) as u32;
    WHOLE - off.min(WHOLE / 10)
}

fn too_old(limit: Duration, share: u32, age: Duration) -> Option<LimitReason> {
    let limit = (limit / WHOLE).saturating_mul(share);
    (age >= limit).then_some(LimitReason::Age { age, limit })
}

fn enough_served(limit: u64, share: u32, served: u64) -> Option<LimitReason> {
    let limit = u128::from(limit) * u128::from(share) / u128::from(WHOLE);
    // The share is never more than the whole.
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    (served >= limit).then_some(LimitReason::Connections { served, limit })
}

impl fmt::Display for LimitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Age { age, limit } => {
                write!(f, "has served for {}, its limit is {}", Span(age), Span(limit))
            }
            Self::Connections { served, limit } => {
                let noun = if served == 1 { "connection" } else { "connections" };
                write!(f, "has taken {served} {noun}, its limit is {limit}")
            }
            Self::Memory { used, limit } => {
                write!(f, "uses {} of memory, the limit is {}", Bytes(used), Bytes(limit))
            }
        }
    }
}

/// Bytes for people: whole if they are, else with one digit.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let Some((unit, bits)) = UNITS.into_iter().find(|(_, bits)| self.0 >> bits > 0) else {
            return write!(f, "{} bytes", self.0);
        };
        let whole = self.0 >> bits;
        match self.0 - (whole << bits) {
            0 => write!(f, "{whole} {unit}"),
            rest => write!(f, "{whole}.{} {unit}", (u128::from(rest) * 10) >> bits),
        }
    }
}

/// A time for people: its two largest units.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
        let seconds = self.0.as_secs();
        let first = UNITS.iter().position(|(_, length)| seconds >= *length).unwrap_or(3);
        let (unit, length) = UNITS[first];
        write!(f, "{}{unit}", seconds / length)?;
        let rest = seconds % length;
        match UNITS.get(first + 1) {
            Some((unit, length)) if rest >= *length => write!(f, " {}{unit}", rest / length),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const HOUR: Duration = Duration::from_secs(3_600);

    const SETTINGS: LimitSettings = LimitSettings {
        max_memory_restart: Some(300 * MIB),
        max_memory_kill: Some(500 * MIB),
        max_age: Some(HOUR),
        max_connections_served: Some(1_000),
    };

    fn judged(settings: &LimitSettings, usage: (Option<u64>, u64, u64), jitter: f64) -> String {
        let (memory, seconds, connections_served) = usage;
        let usage = WorkerUse { memory, age: Duration::from_secs(seconds), connections_served };
        match judge(settings, &usage, jitter) {
            LimitVerdict::Fine => "fine".to_owned(),
            LimitVerdict::Replace(reason) => format!("replace: {reason}"),
            LimitVerdict::Kill(reason) => format!("kill: {reason}"),
        }
    }

    #[test]
    fn a_worker_that_reaches_a_limit_is_replaced_and_the_log_says_why() {
        let table = [
            ((None, 0, 0), 0.0, "fine"),
            ((Some(300 * MIB), 3_599, 999), 0.0, "fine"),
            ((Some(312 * MIB), 0, 0), 1.0, "replace: uses 312 MiB of memory, the limit is 300 MiB"),
            // Memory is exact, whatever the jitter.
            ((Some(299 * MIB), 0, 0), 1.0, "fine"),
            (
                (Some(1_536 * MIB + 1), 9_999, 9_999),
                0.0,
                "kill: uses 1.5 GiB of memory, the limit is 500 MiB",
            ),
            ((Some(500 * MIB), 0, 0), 0.0, "replace: uses 500 MiB of memory, the limit is 300 MiB"),
            ((None, 3_600, 0), 0.0, "replace: has served for 1h, its limit is 1h"),
            ((None, 3_239, 0), 1.0, "fine"),
            ((None, 3_245, 0), 1.0, "replace: has served for 54m 5s, its limit is 54m"),
            ((None, 3_419, 0), 0.5, "fine"),
            ((None, 0, 1_000), 0.0, "replace: has taken 1000 connections, its limit is 1000"),
            ((None, 0, 899), 1.0, "fine"),
            ((None, 0, 900), 1.0, "replace: has taken 900 connections, its limit is 900"),
            // A jitter out of bounds takes nothing, or a tenth at most.
            ((None, 3_599, 999), f64::NAN, "fine"),
            ((None, 3_599, 999), -5.0, "fine"),
            ((None, 3_239, 899), f64::INFINITY, "fine"),
        ];
        for (usage, jitter, expected) in table {
            assert_eq!(judged(&SETTINGS, usage, jitter), expected, "{usage:?}, jitter {jitter}");
        }
    }

    #[test]
    fn without_limits_no_worker_is_replaced() {
        let most = (Some(u64::MAX), u64::MAX, u64::MAX);
        assert_eq!(judged(&LimitSettings::default(), most, 1.0), "fine");
    }

    #[test]
    fn the_largest_limits_hold() {
        let settings = LimitSettings {
            max_age: Some(Duration::MAX),
            max_connections_served: Some(u64::MAX),
            ..LimitSettings::default()
        };
        assert_eq!(judged(&settings, (None, u64::MAX / 2, u64::MAX / 2), 1.0), "fine");
    }

    #[test]
    fn numbers_are_written_for_people() {
        let bytes = [1_023, 1_024, 1_536, 300 * MIB + 1, 5 << 30, u64::MAX];
        let bytes = bytes.map(|bytes| Bytes(bytes).to_string());
        assert_eq!(
            bytes,
            ["1023 bytes", "1 KiB", "1.5 KiB", "300.0 MiB", "5 GiB", "17179869183.9 GiB"]
        );
        let spans = [0, 59, 60, 3_605, 90_000, 86_399].map(Duration::from_secs);
        let spans = spans.map(|span| Span(span).to_string());
        assert_eq!(spans, ["0s", "59s", "1m", "1h", "1d 1h", "23h 59m"]);
    }
}
