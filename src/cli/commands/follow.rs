//! `events` and `logs`.

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cli::client::ControlClient;
use crate::cli::failure::Failure;
use crate::cli::screen::{Look, Tone};
use crate::cli::units::{NOTHING, clean, clock, counted};
use crate::control::protocol::Request;
use crate::control::report::{Event, LogLine};

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Events {
    /// Go on with new events.
    #[arg(short, long)]
    follow: bool,
    /// Begin with so many past events.
    #[arg(short = 'n', long, value_name = "N", default_value = "50")]
    last: usize,
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Logs {
    /// Go on with new lines.
    #[arg(short, long)]
    follow: bool,
    /// Show this slot only.
    #[arg(long, value_name = "N")]
    slot: Option<u16>,
    /// Show standard error only.
    #[arg(long)]
    err: bool,
    /// Begin with so many past lines.
    #[arg(short = 'n', long, value_name = "N", default_value = "15")]
    lines: usize,
}

/// All that a successor has, as far as it is in memory.
const ALL: usize = 100_000;

pub(super) fn events(client: &mut ControlClient, wanted: &Events) -> Result<(), Failure> {
    let request = Request::Events { follow: wanted.follow, last: wanted.last };
    let next = Request::Events { follow: true, last: ALL };
    let mut before = None;
    client.stream(&request, wanted.follow.then_some(&next), |event: &Event, look| {
        let before = before.replace(event.number).filter(|before| *before < event.number);
        let gap = gap(before, event.number);
        missed(gap, "event") + &event_line(event, look)
    })
}

pub(super) fn logs(client: &mut ControlClient, wanted: &Logs) -> Result<(), Failure> {
    let Logs { follow, slot, err, lines } = *wanted;
    let request = |lines| Request::Logs { follow, slot, err, lines };
    let next = request(ALL);
    client.stream(&request(lines), follow.then_some(&next), log_line)
}

/// Events between two that came one after the other.
fn gap(before: Option<u64>, number: u64) -> u64 {
    before.map_or(0, |before| number.saturating_sub(before.saturating_add(1)))
}

/// A slow reader misses some.
fn missed(count: u64, what: &str) -> String {
    if count == 0 { String::new() } else { format!("({} missed)\n", counted(count, what)) }
}

/// Time, slot and generation, words.
pub(super) fn event_line(event: &Event, look: Look) -> String {
    let time = clock(event.time_ms, Timestamp::now(), &TimeZone::system());
    let whose = match (event.slot, event.generation) {
        (Some(slot), Some(generation)) => format!("{slot}/{generation}"),
        (Some(slot), None) => slot.to_string(),
        _ => NOTHING.to_owned(),
    };
    format!("{time}  {whose:<6}  {}\n", look.paint(clean(&event.text), tone(&event.kind)))
}

fn tone(kind: &str) -> Tone {
    match kind {
        "worker-crashed" | "slot-errored" | "replacement-failed" | "rollout-aborted" => Tone::Bad,
        "worker-killed" | "worker-replacing" | "slot-back-off" | "slot-stopped" | "stopping" => {
            Tone::Warn
        }
        "worker-ready" | "rollout-done" => Tone::Good,
        _ => Tone::Plain,
    }
}

/// A worker's line is printed with its colours; on a pipe unchanged.
fn log_line(line: &LogLine, look: Look) -> String {
    missed(line.missed, "line") + &look.prefix(line.slot, line.err) + &line.text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_whose_it_is() {
        let event = Event {
            slot: Some(3),
            generation: Some(7),
            text: "worker crashed\nafter 3 s".into(),
            ..Event::default()
        };
        let line = event_line(&event, Look::default());
        assert!(line.ends_with("  3/7     worker crashed after 3 s\n"), "{line:?}");
        let event = Event { slot: None, ..event };
        assert!(event_line(&event, Look::default()).contains("  -       worker"));
    }

    #[test]
    fn gaps_are_told() {
        assert_eq!([gap(None, 17), gap(Some(17), 18), gap(Some(17), 1)], [0; 3]);
        assert_eq!(missed(gap(Some(17), 20), "event"), "(2 events missed)\n");
        let line = LogLine { missed: 1, ..LogLine::default() };
        assert_eq!(log_line(&line, Look::default()), "(1 line missed)\n0 | \n");
    }

    #[test]
    fn lines_of_workers_are_left_as_they_are() {
        let line =
            LogLine { slot: 12, text: "\x1b[1mbold\x1b[0m \u{fffd}".into(), ..LogLine::default() };
        assert_eq!(log_line(&line, Look::default()), "12 | \x1b[1mbold\x1b[0m \u{fffd}\n");
    }
}
