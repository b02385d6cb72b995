//! Times as people ask for them: strftime where there is a `%`, else the tokens of day.js, which
//! PM2 takes.
//!
//! Pure: a pattern and a time in, text out.

use jiff::Zoned;
use jiff::civil::Weekday;
use jiff::fmt::strtime;

use crate::supervisor::output::settings::OutputError;

/// The replacement of a token: a pattern of strftime, or a function where there is none.
enum Meaning {
    As(&'static str),
    By(fn(&Zoned) -> String),
}

use Meaning::{As, By};

/// The tokens of day.js and its plugin `advancedFormat`, but for the long names of time zones. Of
/// two that begin alike, the longer comes first.
const TOKENS: [(&str, Meaning); 43] = [
    ("YYYY", As("%Y")),
    ("YY", As("%y")),
    ("Y", As("%-Y")),
    ("Q", By(|time| ((time.month() + 2) / 3).to_string())),
    ("MMMM", As("%B")),
    ("MMM", As("%b")),
    ("MM", As("%m")),
    ("M", As("%-m")),
    ("Do", By(|time| ordinal(time.day()))),
    ("DD", As("%d")),
    ("D", As("%-d")),
    ("dddd", As("%A")),
    ("ddd", As("%a")),
    ("dd", By(|time| time.strftime("%a").to_string()[..2].to_owned())),
    ("d", As("%w")),
    ("HH", As("%H")),
    ("H", As("%-H")),
    ("hh", As("%I")),
    ("h", As("%-I")),
    ("kk", By(|time| format!("{:02}", hour_from_one(time)))),
    ("k", By(|time| hour_from_one(time).to_string())),
    ("mm", As("%M")),
    ("m", As("%-M")),
    ("ss", As("%S")),
    ("s", As("%-S")),
    ("SSS", By(|time| format!("{:03}", time.millisecond()))),
    ("SS", By(|time| format!("{:02}", time.millisecond() / 10))),
    ("S", By(|time| (time.millisecond() / 100).to_string())),
    ("A", As("%p")),
    ("a", As("%P")),
    ("ZZ", As("%z")),
    ("Z", As("%:z")),
    ("zzz", As("%Z")),
    ("z", As("%Z")),
    ("X", By(|time| time.timestamp().as_second().to_string())),
    ("x", By(|time| time.timestamp().as_millisecond().to_string())),
    ("GGGG", As("%G")),
    ("WW", As("%V")),
    ("W", As("%-V")),
    ("gggg", By(|time| week(time).0.to_string())),
    ("ww", By(|time| format!("{:02}", week(time).1))),
    ("wo", By(|time| ordinal(week(time).1))),
    ("w", By(|time| week(time).1.to_string())),
];

/// Refuses a pattern that lines could not be written with.
///
/// # Errors
///
/// If it is wrong.
pub fn check(pattern: &str) -> Result<(), OutputError> {
    if !pattern.contains('%') {
        return Ok(());
    }
    let result = strtime::format(pattern, &Zoned::now());
    result.map(drop).map_err(|error| OutputError::DateFormat {
        format: pattern.to_owned(),
        reason: error.to_string(),
    })
}

/// The time as `pattern` has it.
pub(super) fn format(pattern: &str, time: &Zoned) -> String {
    if pattern.contains('%') {
        // It was checked; what is wrong nevertheless is seen in the file.
        return strtime::format(pattern, time).unwrap_or_else(|_| pattern.to_owned());
    }
    let (mut text, mut rest) = (String::new(), pattern);
    while let Some(first) = rest.chars().next() {
        if let Some((escaped, behind)) = escaped(rest) {
            text.push_str(escaped);
            rest = behind;
        } else if let Some((token, meaning)) =
            TOKENS.iter().find(|(token, _)| rest.starts_with(token))
        {
            match meaning {
                As(pattern) => text.push_str(&time.strftime(pattern).to_string()),
                By(function) => text.push_str(&function(time)),
            }
            rest = &rest[token.len()..];
        } else {
            text.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    text
}

/// `[at] HH` is `at`, and what follows.
fn escaped(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('[')?.split_once(']')
}

fn ordinal(number: i8) -> String {
    let ending = match (number / 10, number % 10) {
        (1, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

fn hour_from_one(time: &Zoned) -> i8 {
    if time.hour() == 0 { 24 } else { time.hour() }
}

/// Year and week as in English calendars: weeks begin on Sunday, and the first has the 1st of
/// January.
fn week(time: &Zoned) -> (i16, i8) {
    // So the week's Saturday says which it is.
    let to_saturday = time.weekday().until(Weekday::Saturday);
    let saturday = time.date().saturating_add(jiff::Span::new().days(to_saturday));
    let week = (saturday.day_of_year() + 6) / 7;
    (saturday.year(), i8::try_from(week).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pattern: &str, time: &str) -> String {
        format(pattern, &time.parse().unwrap())
    }

    #[test]
    fn tokens_of_day_js() {
        let time = "2026-03-01T00:05:09.047+05:30[Asia/Kolkata]";
        for (pattern, expected) in [
            ("YYYY-MM-DD HH:mm:ss Z", "2026-03-01 00:05:09 +05:30"),
            ("YYYY-MM-DD HH:mm:ss.SSS Z", "2026-03-01 00:05:09.047 +05:30"),
            ("YYYY-MM-DDTHH:mm:ssZZ", "2026-03-01T00:05:09+0530"),
            ("YY M D H h m s", "26 3 1 0 12 5 9"),
            ("MMM MMMM", "Mar March"),
            ("d dd ddd dddd", "0 Su Sun Sunday"),
            ("hh:mm A, h a", "12:05 AM, 12 am"),
            ("Q Do k kk", "1 1st 24 24"),
            ("SSS SS S", "047 04 0"),
            ("X x", "1772303709 1772303709047"),
            ("GGGG-[W]WW W", "2026-W09 9"),
            ("gggg ww w wo", "2026 10 10 10th"),
            ("z zzz", "IST IST"),
            ("[YYYY] YYYY [at]", "YYYY 2026 at"),
            ("[ YYYY", "[ 2026"),
            ("DD/MM/YYYY – €", "01/03/2026 – €"),
            ("", ""),
        ] {
            assert_eq!(at(pattern, time), expected, "{pattern}");
        }
    }

    #[test]
    fn the_afternoon() {
        let time = "2026-11-22T15:04:05Z[UTC]";
        assert_eq!(at("h:mm a hh A k kk", time), "3:04 pm 03 PM 15 15");
        assert_eq!(at("Q MMM Do", time), "4 Nov 22nd");
    }

    #[test]
    fn ordinals_and_weeks() {
        for (number, expected) in [
            (1, "1st"),
            (2, "2nd"),
            (3, "3rd"),
            (4, "4th"),
            (11, "11th"),
            (12, "12th"),
            (23, "23rd"),
        ] {
            assert_eq!(ordinal(number), expected);
        }
        for (date, expected) in [
            ("2026-01-01", "2026 1"),
            ("2026-01-03", "2026 1"),
            ("2026-01-04", "2026 2"),
            ("2025-12-27", "2025 52"),
            ("2025-12-28", "2026 1"),
        ] {
            assert_eq!(at("gggg w", &format!("{date}T12:00:00Z[UTC]")), expected, "{date}");
        }
    }

    #[test]
    fn strftime_where_there_is_a_percent_sign() {
        let time = "2026-11-22T10:00:00.5+01:00[Europe/Berlin]";
        assert_eq!(at("%Y-%m-%d %H:%M:%S %z", time), "2026-11-22 10:00:00 +0100");
        assert_eq!(at("YYYY %%", time), "YYYY %");
        assert!(check("%Y YYYY").is_ok() && check("YYYY [").is_ok());
        assert!(check("%Y %!").is_err() && check("100%").is_err());
    }
}
