//! Numbers, times and sizes in few characters. Pure.

/// A count, of 6 characters at the most.
pub(super) fn count(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..10_000_000 => format!("{}k", number / 1_000),
        10_000_000..10_000_000_000 => format!("{}M", number / 1_000_000),
        10_000_000_000..100_000_000_000_000 => format!("{}G", number / 1_000_000_000),
        _ => "many".to_owned(),
    }
}

/// How many a second, of 6 characters at the most.
pub(super) fn rate(number: f64) -> String {
    if number > 0.0 && number < 9.95 { format!("{number:.1}") } else { count(whole(number)) }
}

/// Milliseconds, of 5 characters at the most.
pub(super) fn millis(number: Option<f64>) -> String {
    match number {
        None => "-".to_owned(),
        Some(number) if number < 9.995 => format!("{number:.2}"),
        Some(number) if number < 99.95 => format!("{number:.1}"),
        Some(number) if number < 99_999.5 => format!("{number:.0}"),
        Some(number) => format!("{}s", count(whole(number / 1_000.0)).trim_end_matches("000")),
    }
}

/// Seconds, of 6 characters at the most.
pub(super) fn duration(seconds: f64) -> String {
    let seconds = whole(seconds.floor());
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ if days < 100 => format!("{days}d{:02}h", hours % 24),
        _ => format!("{}d", days.min(99_999)),
    }
}

/// Bytes, of 5 characters at the most.
pub(super) fn memory(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let (mut number, mut unit) = (bytes, 0);
    let mut tenths = 0;
    while number >= 1_024 && unit + 1 < UNITS.len() {
        tenths = number % 1_024 * 10 / 1_024;
        (number, unit) = (number / 1_024, unit + 1);
    }
    if number < 10 && unit > 0 {
        return format!("{number}.{tenths}{}", UNITS[unit]);
    }
    format!("{}{}", number.min(9_999), UNITS[unit])
}

/// Percent of something, of 5 characters at the most.
pub(super) fn percent(number: f64) -> String {
    if number < 99.95 { format!("{:.1}", number.max(0.0)) } else { count(whole(number)) }
}

/// To the nearest number that is no fraction.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both saturate")]
pub(super) fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        for (written, expected) in [
            (count(0), "0"),
            (count(99_999), "99999"),
            (count(123_456), "123k"),
            (count(12_345_678), "12M"),
            (count(u64::MAX), "many"),
            (rate(0.0), "0"),
            (rate(3.21), "3.2"),
            (rate(9.96), "10"),
            (rate(1234.5), "1235"),
            (millis(None), "-"),
            (millis(Some(0.084)), "0.08"),
            (millis(Some(12.34)), "12.3"),
            (millis(Some(1234.0)), "1234"),
            (millis(Some(250_000.0)), "250s"),
            (duration(0.9), "0s"),
            (duration(61.0), "1m01s"),
            (duration(3_600.0 * 3.0 + 60.0 * 7.0), "3h07m"),
            (duration(86_400.0 * 12.0), "12d00h"),
            (duration(86_400.0 * 400.0), "400d"),
            (memory(0), "0B"),
            (memory(1_536), "1.5K"),
            (memory(123 << 20), "123M"),
            (memory(5 << 40), "5.0T"),
            (percent(0.0), "0.0"),
            (percent(12.34), "12.3"),
            (percent(1600.0), "1600"),
        ] {
            assert_eq!(written, expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_told_fits(number: u64, fraction in prop::num::f64::ANY) {
            prop_assert!(count(number).len() <= 6);
            prop_assert!(rate(fraction).len() <= 6, "{}", rate(fraction));
            prop_assert!(duration(fraction).len() <= 6, "{}", duration(fraction));
            prop_assert!(memory(number).len() <= 5, "{}", memory(number));
            let sane = fraction.clamp(0.0, 1e7);
            prop_assert!(millis(Some(sane)).len() <= 6, "{}", millis(Some(sane)));
            prop_assert!(percent(sane).len() <= 6, "{}", percent(sane));
        }
    }
}
