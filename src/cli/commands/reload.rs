//! `reload`: follows a rolling restart to its end.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::client::ControlClient;
use crate::cli::failure::Failure;
use crate::cli::screen::{Look, complain};
use crate::cli::units::{clean, counted};
use crate::control::client::ClientError;
use crate::control::protocol::{Line, Request};
use crate::control::report::{NotApplied, Rollout, Status};

const GOES_ON: &str =
    "not followed any more: the rolling restart goes on, `sticky-lb status` says how far it is";

/// Looks for more about a failure, and the pause between two.
const LOOKS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn reload(client: &mut ControlClient) -> Result<(), Failure> {
    let mut waiting = client.begin(&Request::Reload {}, GOES_ON)?;
    let progress = Progress::new(client.json);
    let mut number = None;
    let done = loop {
        let line = match waiting.next_line() {
            Err(Failure::Client(ClientError::Ended | ClientError::Lost(_))) if number.is_some() => {
                // The primary was replaced meanwhile, and the rolling restart goes on in the next one.
                let number = number.unwrap_or_default();
                waiting = client.begin_again(&Request::Rollout { number }, GOES_ON)?;
                continue;
            }
            line => line?,
        };
        match line {
            Line::Item(item) => {
                let rollout: Rollout =
                    serde_json::from_value(item.clone()).map_err(ClientError::Answer)?;
                number = Some(rollout.number);
                if client.json {
                    client.say(item, |_: &Rollout, _| String::new())?;
                } else {
                    progress.show(&rollout);
                }
            }
            Line::Done(done) => break done,
            Line::Error(problem) => {
                let more = number.filter(|_| !client.json).and_then(|it| more(client, it));
                return Err(match more {
                    Some(more) => Failure::Failed(clean(&problem.message) + &more),
                    None => ClientError::Problem(problem).into(),
                });
            }
        }
    };
    drop(progress);
    let rollout: Rollout = serde_json::from_value(done.clone()).map_err(ClientError::Answer)?;
    client.say(done, summary)?;
    if !client.json {
        complain_of(&rollout.not_applied);
    }
    failure_reason(&rollout).map_or(Ok(()), |reason| Err(Failure::Failed(reason)))
}

/// The status knows more of one that was aborted, a moment later: it is made a few times a second, and the
/// worker's last words may still be on their way.
fn more(client: &mut ControlClient, number: u64) -> Option<String> {
    let mut found = None;
    for _ in 0..LOOKS {
        let status: Status = client.ask_later(&Request::Status {}).ok()?;
        let last = status.last_rollout.filter(|it| it.number == number && it.is_aborted());
        if let Some(failed) = last {
            found = Some(more_of_failure(&status.name, &failed));
            if failed.last_line.is_some() {
                break;
            }
        }
        std::thread::sleep(PAUSE);
    }
    found
}

/// The last words of the worker for which a rolling restart was aborted, and what to do.
pub(super) fn more_of_failure(name: &str, failed: &Rollout) -> String {
    let last_line = failed.last_line.as_deref().map(clean);
    let words = last_line.map(|line| format!(", its last line: {line}")).unwrap_or_default();
    let command = format!("sticky-lb --name {}", clean(name));
    let logs = match failed.failed_slot.filter(|_| failed.last_line.is_some()) {
        Some(slot) => format!(" (`{command} logs --slot {slot}` has more)"),
        None => String::new(),
    };
    format!("{words}{logs}; the workers of before go on: mend it, then `{command} reload`")
}

/// Says which changed settings were not applied, and what applies them.
pub(super) fn complain_of(not_applied: &[NotApplied]) {
    for by in ["reload", "upgrade", "restart"] {
        let settings = not_applied.iter().filter(|it| it.applied_by == by);
        let settings: Vec<_> = settings.map(|it| clean(&it.setting)).collect();
        let how = match by {
            "restart" => "a restart of sticky-lb applies".to_owned(),
            command => format!("`sticky-lb {command}` applies"),
        };
        let them = if settings.len() == 1 { "it" } else { "them" };
        if !settings.is_empty() {
            complain(&format!("not applied: {}: {how} {them}", settings.join(", ")));
        }
    }
}

/// How far it is: a bar on a terminal, and lines elsewhere, one for each change.
#[derive(Debug)]
struct Progress {
    bar: ProgressBar,
    said: std::cell::RefCell<String>,
    quiet: bool,
}

impl Progress {
    fn new(quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let style = ProgressStyle::with_template("{bar:16} {pos}/{len} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("##-"));
        Self { bar, said: std::cell::RefCell::default(), quiet }
    }

    fn show(&self, rollout: &Rollout) {
        self.bar.set_length(rollout.of.into());
        self.bar.set_position(rollout.replaced.into());
        self.bar.set_message(under_way(rollout));
        let line = progress(rollout);
        if self.bar.is_hidden() && !self.quiet && *self.said.borrow() != line {
            complain(&line);
            *self.said.borrow_mut() = line;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// `rolling restart 3 by a command: 1 of 4 slots replaced, slot 1 waits for its new worker`.
pub(super) fn progress(rollout: &Rollout) -> String {
    let Rollout { number, trigger, replaced, of, .. } = rollout;
    let by = if trigger.is_empty() { String::new() } else { format!(" by {}", clean(trigger)) };
    let waits = under_way(rollout);
    let waits = if waits.is_empty() { waits } else { format!(", {waits}") };
    let of = counted((*of).into(), "slot");
    format!("rolling restart {number}{by}: {replaced} of {of} replaced{waits}")
}

fn under_way(rollout: &Rollout) -> String {
    let waits = |(slot, what): &(u16, String)| format!("slot {slot} waits for {}", clean(what));
    rollout.under_way.iter().map(waits).collect::<Vec<_>>().join(", ")
}

fn summary(rollout: &Rollout, _: Look) -> String {
    if failure_reason(rollout).is_some() {
        return String::new();
    }
    let Rollout { number, replaced, of, .. } = rollout;
    let (of, have) = (
        counted((*of).into(), "slot"),
        if *of == 1 { "has a new worker" } else { "have new workers" },
    );
    format!("rolling restart {number} is done: {replaced} of {of} {have}\n")
}

/// Why it came to nothing, if it did.
fn failure_reason(rollout: &Rollout) -> Option<String> {
    let Rollout { number, replaced, of, .. } = rollout;
    let of = counted((*of).into(), "slot");
    let begin = format!("rolling restart {number}, {replaced} of {of} replaced,");
    let reason = rollout.reason.as_deref().map(|reason| format!(": {}", clean(reason)));
    let reason = reason.unwrap_or_default();
    match rollout.result.as_deref() {
        Some("done") => None,
        Some("superseded") => Some(format!("{begin} gave way to a newer one{reason}")),
        Some("stopped") => Some(format!("{begin} was cut short: everything ends{reason}")),
        Some(result) => Some(format!("{begin} was {}{reason}", clean(result))),
        None => Some(format!("{begin} ended without a result{reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(result: Option<&str>) -> Rollout {
        Rollout {
            number: 3,
            trigger: "command".into(),
            replaced: 1,
            of: 4,
            under_way: vec![(1, "its new worker to be ready".into())],
            result: result.map(str::to_owned),
            ..Rollout::default()
        }
    }

    #[test]
    fn it_is_said_what_is_waited_for() {
        let expected = "rolling restart 3 by command: 1 of 4 slots replaced, \
                        slot 1 waits for its new worker to be ready";
        assert_eq!(progress(&rollout(None)), expected);
    }

    #[test]
    fn only_what_is_done_is_done() {
        assert_eq!(failure_reason(&rollout(Some("done"))), None);
        for (result, expected) in [
            (Some("aborted"), "was aborted"),
            (Some("superseded"), "gave way"),
            (Some("stopped"), "was cut short"),
            (Some("moonstruck"), "was moonstruck"),
            (None, "without a result"),
        ] {
            let reason = failure_reason(&rollout(result)).unwrap();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
