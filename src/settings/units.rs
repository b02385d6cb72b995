//! Numbers, times and sizes in the notation of settings.
//!
//! Pure: from text to a value, or to a message of the form `expected …`.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::control::settings::ReadyThreshold;

/// The longest time, ten years: no sum of times overflows.
const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// Less memory than any process uses: a unit is missing.
const MIN_MEMORY: u64 = 1 << 20;

/// An amount of memory, or a share of the total.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Memory {
    /// A number of bytes.
    Bytes(u64),
    /// Percent of the memory of the container or machine.
    Percent(f64),
}

impl Memory {
    /// In bytes, of `total`.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100 %")]
    #[expect(clippy::cast_precision_loss, reason = "a share of memory is no exact number")]
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (total as f64 * percent / 100.0) as u64,
        }
    }
}

/// A number within a range.
pub fn within<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: Clone + Display + FromStr + PartialOrd,
{
    move |text| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("expected a number from {} to {}", range.start(), range.end())),
    }
}

/// The number of a signal, by its number, or by its name with or without `SIG`.
///
/// # Errors
///
/// If there is no such signal.
pub fn signal(text: &str) -> Result<i32, String> {
    let named = || {
        let name = text.to_uppercase();
        let name = format!("SIG{}", name.strip_prefix("SIG").unwrap_or(&name));
        name.parse::<nix::sys::signal::Signal>().ok()
    };
    let number = |number: i32| nix::sys::signal::Signal::try_from(number).ok();
    let signal = text.parse().ok().and_then(number).or_else(named);
    signal
        .map(|signal| signal as i32)
        .ok_or_else(|| "expected a signal such as INT, SIGTERM or 12".to_owned())
}

/// A number above 0.
///
/// # Errors
///
/// If the text is no such number.
pub fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}

/// A number of 0 or above.
///
/// # Errors
///
/// If the text is no such number.
pub fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number >= 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("expected a number, 0 or above".to_owned()),
    }
}

/// `250ms`, `10s`, `5m`; a bare number is milliseconds, as in PM2.
///
/// # Errors
///
/// If the text is no time, or longer than ten years.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse() {
        Ok(millis) => Some(Duration::from_millis(millis)),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    match parsed {
        Some(duration) if duration <= MAX_DURATION => Ok(duration),
        Some(_) => Err("expected a time of ten years at most".to_owned()),
        None => Err("expected a time such as 250ms, 10s or 5m".to_owned()),
    }
}

/// A time above 0.
///
/// # Errors
///
/// As [`duration`].
pub fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("expected a time above 0".to_owned()),
        interval => Ok(interval),
    }
}

/// `1G`, `300M`, `512K`, in powers of 1024 as in PM2; a bare number is bytes.
///
/// # Errors
///
/// If the text is no size, or 0.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => Some(0),
        "K" | "KB" | "KIB" => Some(10),
        "M" | "MB" | "MIB" => Some(20),
        "G" | "GB" | "GIB" => Some(30),
        "T" | "TB" | "TIB" => Some(40),
        _ => None,
    };
    let number = digits.trim_end().parse::<u64>().ok();
    let bytes = number.zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "expected a size such as 300M or 1G".to_owned())
}

/// A [`size`] of a megabyte or more, or `80%`.
///
/// # Errors
///
/// If the text is neither.
pub fn memory(text: &str) -> Result<Memory, String> {
    match text.strip_suffix('%').map(|number| number.trim_end().parse()) {
        Some(Ok(percent)) if percent > 0.0 && percent <= 100.0 => Ok(Memory::Percent(percent)),
        Some(_) => Err("expected a share such as 80%".to_owned()),
        None => match size(text) {
            Ok(bytes) if bytes < MIN_MEMORY => Err(format!(
                "expected a size such as 300M or 1G: no worker can do with {bytes} bytes"
            )),
            Ok(bytes) => Ok(Memory::Bytes(bytes)),
            Err(_) => Err("expected a size such as 300M or 1G, or a share such as 80%".to_owned()),
        },
    }
}

/// A number of slots, `3`, or a share of them, `80%`.
///
/// # Errors
///
/// If the text is neither, or 0.
pub fn slots(text: &str) -> Result<ReadyThreshold, String> {
    let threshold = match text.strip_suffix('%') {
        Some(number) => number.trim_end().parse().ok().map(ReadyThreshold::Percent),
        None => text.parse().ok().map(ReadyThreshold::Slots),
    };
    threshold
        .filter(|threshold| match threshold {
            ReadyThreshold::Slots(slots) => *slots > 0,
            ReadyThreshold::Percent(percent) => *percent > 0.0 && *percent <= 100.0,
        })
        .ok_or_else(|| "expected a number such as 3, or a share such as 80%".to_owned())
}

/// A file mode creation mask, in octal: `022`, `0o22`.
///
/// # Errors
///
/// If the text is no mask.
pub fn mask(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mask) if mask <= 0o777 => Ok(mask),
        _ => Err("expected a mask in octal, such as 022".to_owned()),
    }
}

/// The mode of a file that its owner can write, in octal: `640`, `0o600`.
///
/// # Errors
///
/// If the text is no such mode.
pub fn file_mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode & !0o666 == 0 && mode & 0o600 == 0o600 => Ok(mode),
        _ => Err("expected a mode in octal from 600 to 666, such as 640".to_owned()),
    }
}

/// Words, split as a shell does.
///
/// # Errors
///
/// If a quote is not closed.
pub fn words(text: &str) -> Result<Vec<String>, String> {
    shlex::split(text).ok_or_else(|| "expected words as in a shell, with quotes closed".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_have_units() {
        for (text, millis) in
            [("250ms", 250), ("10s", 10_000), ("1600", 1_600), ("2m", 120_000), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["soon", "", "-1", "1.5x", "18446744073709551615", "99999 years"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(interval("0s").is_err());
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        let sizes = [
            ("1", 1),
            ("512K", 512 << 10),
            ("300M", 300 << 20),
            ("300MB", 300 << 20),
            ("1G", 1 << 30),
            ("1g", 1 << 30),
            ("2 GiB", 2 << 30),
        ];
        for (text, bytes) in sizes {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "0", "G", "-1G", "1.5G", "1X", "99999999999999999999", "99999999T", "80%"]
        {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_may_be_a_share() {
        assert_eq!(memory("1M").map(|memory| memory.of(5)), Ok(1 << 20));
        let error = memory("300").unwrap_err();
        assert!(error.ends_with("no worker can do with 300 bytes"), "{error}");
        assert_eq!(memory("80%").map(|memory| memory.of(1000)), Ok(800));
        assert_eq!(memory("12.5 %").map(|memory| memory.of(1000)), Ok(125));
        for wrong in ["0%", "101%", "%", "nan%", "many"] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn masks_are_octal() {
        for (text, expected) in [("022", 0o22), ("22", 0o22), ("0o27", 0o27), ("0", 0)] {
            assert_eq!(mask(text), Ok(expected), "{text}");
        }
        for wrong in ["9", "1000", "rw", ""] {
            assert!(mask(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn modes_of_files_let_their_owner_write() {
        for (text, expected) in [("640", 0o640), ("0644", 0o644), ("0o600", 0o600)] {
            assert_eq!(file_mode(text), Ok(expected), "{text}");
        }
        for wrong in ["", "rw", "440", "755", "1640", "888", "-640"] {
            assert!(file_mode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_stay_in_their_range() {
        assert_eq!(within(1..=9_u16)("9"), Ok(9));
        let error = within(1..=9_u16)("10").unwrap_err();
        assert_eq!(error, "expected a number from 1 to 9");
    }

    #[test]
    fn slots_are_a_number_or_a_share() {
        assert_eq!(slots("3"), Ok(ReadyThreshold::Slots(3)));
        assert_eq!(slots("80 %"), Ok(ReadyThreshold::Percent(80.0)));
        for wrong in ["", "0", "-1", "0%", "101%", "nan%", "%", "70000", "many"] {
            assert!(slots(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_them_panic(text: String, number: u64, unit in "[a-zA-Z% ]{0,5}") {
            for text in [text, format!("{number}{unit}")] {
                let _ = (duration(&text), interval(&text), size(&text), mask(&text));
                let _ = (above_zero(&text), not_negative(&text), within(1..=9_u16)(&text));
                let _ = memory(&text).map(|memory| memory.of(number));
                let _ = slots(&text).map(|threshold| threshold.of(9));
            }
        }
    }
}
