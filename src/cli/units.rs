//! Numbers as people read them.

use crate::cli::screen::turns;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Stands for a missing value.
pub(super) const NOTHING: &str = "-";

/// Bytes: `1.2 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = as_float(bytes);
    let mut unit = 0;
    // A value that rounds to 1024 takes the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 9.95);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// Seconds: `4.2 s`, `3m 12s`, `2d 14h`.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{}m {}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h {}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d {}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// Milliseconds: `0.04 ms`, `4.1 ms`, `1.2 s`.
pub(super) fn millis(millis: f64) -> String {
    match millis {
        ..0.995 => format!("{:.2} ms", millis.max(0.0)),
        ..9.95 => format!("{millis:.1} ms"),
        ..999.5 => format!("{millis:.0} ms"),
        _ => seconds(millis / 1_000.0),
    }
}

/// So many a second: `4.1`, `41`.
pub(super) fn rate(rate: f64) -> String {
    // Zero is a zero, not a small number.
    let decimals = usize::from(rate > 0.0 && rate < 9.95);
    format!("{rate:.decimals$}")
}

/// Percent: `4.1%`, `41%`.
pub(super) fn percent(percent: f64) -> String {
    rate(percent) + "%"
}

/// Or nothing.
pub(super) fn maybe<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| NOTHING.to_owned(), show)
}

/// `1 slot`, `2 slots`.
pub(super) fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// The time of day; the date too if it was on another day than `now`.
pub(super) fn clock(time_ms: i64, now: Timestamp, zone: &TimeZone) -> String {
    let Ok(time) = Timestamp::from_millisecond(time_ms) else { return NOTHING.to_owned() };
    let (time, now) = (time.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let pattern = if time.date() == now.date() { "%H:%M:%S" } else { "%F %H:%M:%S" };
    time.strftime(pattern).to_string()
}

/// Without what would move a terminal's cursor or change its colours.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect()
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn as_float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_two_digits_that_count() {
        for (value, expected) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_258_291, "1.2 MiB"),
            (85 << 20, "85 MiB"),
            ((1 << 30) - 1, "1.0 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(bytes(value), expected, "{value}");
        }
    }

    #[test]
    fn times_are_as_long_as_they_need() {
        for (value, expected) in [
            (0.0, "0.0 s"),
            (-1.0, "0.0 s"),
            (4.24, "4.2 s"),
            (9.96, "10 s"),
            (59.7, "1m 0s"),
            (192.0, "3m 12s"),
            (18_180.0, "5h 3m"),
            (223_200.0, "2d 14h"),
        ] {
            assert_eq!(seconds(value), expected, "{value}");
        }
        for (value, expected) in [
            (0.0, "0.00 ms"),
            (0.041, "0.04 ms"),
            (4.14, "4.1 ms"),
            (41.0, "41 ms"),
            (1_234.0, "1.2 s"),
        ] {
            assert_eq!(millis(value), expected, "{value}");
        }
    }

    #[test]
    fn rates_and_shares_are_short() {
        for (value, expected) in [(0.0, "0%"), (0.31, "0.3%"), (9.96, "10%"), (100.0, "100%")] {
            assert_eq!(percent(value), expected, "{value}");
        }
        assert_eq!(maybe(None, rate), "-");
        assert_eq!((counted(1, "slot"), counted(0, "slot")), ("1 slot".into(), "0 slots".into()));
    }

    #[test]
    fn yesterday_has_a_date() {
        let (now, zone) = (Timestamp::from_second(1_795_341_600).unwrap(), TimeZone::UTC);
        assert_eq!(clock(1_795_341_600_000, now, &zone), "10:00:00");
        assert_eq!(clock(1_795_341_600_000 - 86_400_000, now, &zone), "2026-11-21 10:00:00");
        assert_eq!(clock(i64::MAX, now, &zone), "-");
    }

    #[test]
    fn nothing_that_is_shown_steers_a_terminal() {
        assert_eq!(clean("a\x1b[31m\n\u{9b}b"), "a [31m  b");
    }
}
