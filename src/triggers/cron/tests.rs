//! Expressions, times and clocks that are set, all from given times.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::*;

/// In central Europe: an hour forward on 2025-03-30 at 2:00, back on 2025-10-26 at 3:00.
fn at(text: &str) -> Zoned {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    text.parse::<DateTime>().unwrap().to_zoned(zone).unwrap()
}

fn say(time: &Zoned) -> String {
    time.strftime("%a %F %T %Z").to_string()
}

fn parse(expression: &str) -> Schedule {
    Schedule::parse(expression).unwrap_or_else(|error| panic!("{expression:?}: {error}"))
}

#[test]
fn the_next_time() {
    let table = [
        ("0 3 * * *", "2025-06-01T12:00:00", "Mon 2025-06-02 03:00:00 CEST"),
        ("0 3 * * *", "2025-06-02T03:00:00", "Tue 2025-06-03 03:00:00 CEST"),
        ("  30 * * * *  ", "2025-06-01T12:30:01", "Sun 2025-06-01 13:30:00 CEST"),
        ("*/10 * * * * *", "2025-06-01T12:00:05.5", "Sun 2025-06-01 12:00:10 CEST"),
        ("0 0 * * 7", "2025-06-02T12:00:00", "Sun 2025-06-08 00:00:00 CEST"),
        ("0 9 * * mon-fri", "2025-06-06T10:00:00", "Mon 2025-06-09 09:00:00 CEST"),
        ("0 0 1 jan *", "2025-06-01T12:00:00", "Thu 2026-01-01 00:00:00 CET"),
        ("0 0 L * *", "2025-02-10T00:00:00", "Fri 2025-02-28 00:00:00 CET"),
        // Day of month or day of week, as cron has always had it.
        ("0 0 13 * 5", "2025-06-01T00:00:00", "Fri 2025-06-06 00:00:00 CEST"),
        ("0 0 29 2 *", "2025-01-01T00:00:00", "Tue 2028-02-29 00:00:00 CET"),
        ("@daily", "2025-06-01T12:00:00", "Mon 2025-06-02 00:00:00 CEST"),
        ("@hourly", "2025-06-01T12:10:00", "Sun 2025-06-01 13:00:00 CEST"),
        ("@weekly", "2025-06-02T12:00:00", "Sun 2025-06-08 00:00:00 CEST"),
        // 2:30 is not on the clock: right after the hour that is missing.
        ("30 2 * * *", "2025-03-30T00:00:00", "Sun 2025-03-30 03:00:00 CEST"),
        ("30 2 * * *", "2025-03-30T03:00:00", "Mon 2025-03-31 02:30:00 CEST"),
        ("0 * * * *", "2025-03-30T01:30:00", "Sun 2025-03-30 03:00:00 CEST"),
        // 2:30 comes twice: the first one counts.
        ("30 2 * * *", "2025-10-26T00:00:00", "Sun 2025-10-26 02:30:00 CEST"),
        ("30 2 * * *", "2025-10-26T02:30:00", "Mon 2025-10-27 02:30:00 CET"),
        // Every hour is every hour.
        ("0 * * * *", "2025-10-26T02:00:00", "Sun 2025-10-26 02:00:00 CET"),
    ];
    for (expression, after, expected) in table {
        let next = parse(expression).next(&at(after)).unwrap();
        assert_eq!(say(&next), expected, "{expression} after {after}");
    }
}

#[test]
fn an_error_names_the_field() {
    let table = [
        ("", "0 fields, expected 5 (minute"),
        ("* * * *", "4 fields, expected 5"),
        ("* * * * * * 2030", "7 fields, expected 5"),
        ("0 25 * * *", "hour \"25\": number out of bounds; it takes 0-23"),
        ("60 * * * *", "minute \"60\": number out of bounds; it takes 0-59"),
        ("60 * * * * *", "second \"60\": number out of bounds; it takes 0-59"),
        ("0 0 0 * *", "day of month \"0\": number out of bounds; it takes 1-31"),
        ("0 0 * 13 *", "month \"13\": number out of bounds; it takes 1-12 or JAN-DEC"),
        ("0 0 * * 8", "day of week \"8\": number out of bounds; it takes 0-7 or SUN-SAT"),
        ("0 5-1 * * *", "hour \"5-1\": range out of bounds"),
        ("*/0 * * * *", "minute \"*/0\": step cannot be zero"),
        ("5/10 * * * *", "minute \"5/10\": invalid step syntax: single number steps"),
        ("0 3h * * *", "hour \"3h\": contains what doesn't belong there"),
        ("0 , * * *", "no such time ever comes"),
        ("every day at three o", "minute \"every\": contains what doesn't belong there"),
        ("@noon", "\"@noon\" is none of @yearly"),
        ("@reboot", "\"@reboot\" is none of @yearly"),
        ("0 0 30 2 *", "no such time ever comes"),
    ];
    for (expression, expected) in table {
        let error = Schedule::parse(expression).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{expression:?}: {error}");
    }
}

/// The looks at the clock that fire.
fn fires(expression: &str, set: &str, looks: &[&str]) -> Vec<usize> {
    let mut alarm = Alarm::set(parse(expression), at(set));
    let fires = looks.iter().enumerate().filter(|(_, now)| alarm.look(&at(now)));
    fires.map(|(look, _)| look).collect()
}

#[test]
fn a_clock_that_is_set_neither_loses_a_time_nor_repeats_it() {
    const NIGHTLY: &str = "0 3 * * *";
    const EVERY_MINUTE: &str = "* * * * *";
    let day = |time: &str| format!("2025-06-02T{time}");
    type Case<'a> = (&'a str, &'a str, &'a str, &'a [&'a str], &'a [usize]);
    let table: [Case<'_>; 10] = [
        ("just runs", NIGHTLY, "02:59:00", &["02:59:59", "03:00:00", "03:00:01", "03:01"], &[1]),
        ("was set on the dot", NIGHTLY, "03:00:00", &["03:00:01"], &[]),
        ("jumps over", NIGHTLY, "02:00:00", &["02:01:00", "07:00:00", "07:01:00"], &[1]),
        ("jumps over many", EVERY_MINUTE, "02:00:30", &["07:00:00", "07:00:30", "07:01"], &[0, 2]),
        (
            "goes back a little after it fired",
            NIGHTLY,
            "02:59:59",
            &["03:00:00", "02:59:58", "02:59:59", "03:00:00", "03:00:01"],
            &[0],
        ),
        (
            "goes back across it again and again",
            NIGHTLY,
            "02:59:59",
            &["03:00:00", "02:59:58", "03:00:00", "02:59:58", "03:00:00"],
            &[0],
        ),
        (
            "goes back an hour",
            NIGHTLY,
            "02:59",
            &["03:00", "02:05", "02:59", "03:00", "03:01"],
            &[0],
        ),
        (
            "goes back within a minute",
            EVERY_MINUTE,
            "10:00:30",
            &["10:01:00", "10:00:58", "10:01:00", "10:01:59", "10:02:00"],
            &[0, 4],
        ),
        (
            "goes back for long, and minutes go on",
            EVERY_MINUTE,
            "10:00:30",
            &["10:01:00", "09:00:30", "09:01:00", "09:02:00"],
            &[0, 2, 3],
        ),
        (
            "jumps and comes back",
            "0 * * * *",
            "10:30:00",
            &["13:00:05", "12:59:55", "13:00:00", "14:00:00"],
            &[0, 3],
        ),
    ];
    for (clock, expression, set, looks, expected) in table {
        let looks: Vec<String> = looks.iter().map(|look| day(look)).collect();
        let looks: Vec<&str> = looks.iter().map(String::as_str).collect();
        assert_eq!(fires(expression, &day(set), &looks), expected, "a clock that {clock}");
    }
}

#[test]
fn an_hour_that_is_missing_or_comes_twice_fires_once() {
    let minutes = |from: &str, count: i64| {
        let from = at(from);
        (0..count).map(move |minute| from.saturating_add(jiff::SignedDuration::from_mins(minute)))
    };
    let count = |expression: &str, from: &str| {
        let mut alarm = Alarm::set(parse(expression), at(from));
        minutes(from, 5 * 60).filter(|now| alarm.look(now)).map(|now| say(&now)).collect::<Vec<_>>()
    };
    assert_eq!(count("30 2 * * *", "2025-03-30T00:10:00"), ["Sun 2025-03-30 03:00:00 CEST"]);
    assert_eq!(count("30 2 * * *", "2025-10-26T00:10:00"), ["Sun 2025-10-26 02:30:00 CEST"]);
    assert_eq!(count("0 * * * *", "2025-10-26T00:10:00").len(), 5);
    assert_eq!(count("0 * * * *", "2025-03-30T00:10:00").len(), 5);
}

#[test]
fn no_sleep_is_longer_than_a_minute_or_beyond_the_time() {
    let alarm = Alarm::set(parse("0 3 * * *"), at("2025-06-02T00:00:00"));
    let sleep = |now: &str| alarm.sleep(&at(now)).as_millis();
    assert_eq!(sleep("2025-06-02T00:00:00"), 60_000);
    assert_eq!(sleep("2025-06-02T02:59:59.75"), 250);
    assert_eq!(sleep("2025-06-02T03:00:00"), 60_000);
}

#[tokio::test]
async fn an_alarm_of_every_second_rings() {
    let mut alarm = Alarm::new(parse("* * * * * *"));
    let start = Zoned::now();
    alarm.due().await;
    alarm.due().await;
    assert!(start.duration_until(&Zoned::now()) >= jiff::SignedDuration::from_secs(1));
}
