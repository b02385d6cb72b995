//! `sticky-lb conformance`: shows what the checks of a worker program find.

use std::error::Error;
use std::ffi::OsString;
use std::io;

use clap::Args;
use clap::builder::PossibleValuesParser;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cli::failure::{DONE, FAILED, Failure};
use crate::cli::screen::{Look, Screen, Tone};
use crate::cli::waiting::spinner;
use crate::conformance::check::{Check, Counts, Finding, Outcome};
use crate::conformance::listen::Habits;
use crate::conformance::{Plan, interrupts, run as make_checks};
use crate::kernel;
use crate::link::interface::{Interface, InterfaceChoice};
use crate::settings::units::signal;
use crate::supervisor::command::{WorkerCommand, names_listener};

/// Columns of the text.
const WIDTH: usize = 80;
/// Columns before what was seen.
const INDENT: usize = 26;

#[derive(Debug, Args)]
pub(super) struct Conformance {
    /// Interface that the worker speaks; auto finds out, and takes {fd} or fd:// in the command for listen.
    #[arg(long, default_value = "auto", value_parser = ["auto", "native", "node", "listen"])]
    interface: String,
    /// Print JSON: a line for each check, then the counts.
    #[arg(long)]
    json: bool,
    /// Make these checks only.
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = names())]
    only: Vec<String>,
    /// End servers on a listening socket by this signal [default: TERM, for nginx QUIT].
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    stop_signal: Option<i32>,
    /// Ask servers on a listening socket for this path, whose answer takes a second or so, while they end.
    #[arg(long, value_name = "PATH", value_parser = path)]
    slow_path: Option<String>,
    /// List the checks.
    #[arg(long, exclusive = true)]
    list: bool,
    /// Command of the worker, and its arguments.
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "list")]
    command: Vec<OsString>,
}

/// A path that can stand in a request.
fn path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_path
        .then(|| text.to_owned())
        .ok_or_else(|| "expected a path such as /slow?ms=500".to_owned())
}

fn names() -> PossibleValuesParser {
    Check::ALL.map(Check::name).into()
}

/// Makes the checks, and returns the exit code.
///
/// # Errors
///
/// If the program can't be run, or its findings can't be printed.
pub(super) fn run(arguments: Conformance) -> Result<u8, Box<dyn Error>> {
    let mut screen = Screen::new();
    let Conformance { interface, json, only, stop_signal, slow_path, list, command } = arguments;
    if list {
        let line = |check: Check| format!("{:<18}  {}\n", check.name(), check.rule());
        screen.print(&Check::ALL.map(line).concat()).map_err(Failure::Print)?;
        return Ok(DONE);
    }
    let interface = choice(&interface, &command);
    let mut words = command.into_iter();
    let program = words.next().unwrap_or_default();
    let name = program.to_string_lossy().into_owned();
    let command = WorkerCommand { program, arguments: words.collect(), ..WorkerCommand::default() };
    let checks = Check::ALL
        .into_iter()
        .filter(|check| only.is_empty() || only.iter().any(|name| *name == check.name()));
    // Nothing but what a primary's worker gets.
    kernel::keep_inherited_descriptors()?;
    kernel::hear_of_children();
    let interrupts = interrupts()?;
    let checks = checks.collect();
    let stop_signal = stop_signal
        .and_then(Signal::from_named_raw)
        .unwrap_or_else(|| command.stop_signal(interface));
    let habits = Habits { stop_signal, slow_path };
    let is_chosen = !only.is_empty();
    let plan = Plan { interrupts, command, interface, habits, checks, is_chosen };
    let progress = spinner(String::new());
    let show = |finding: &Finding| {
        let printed = progress.suspend(|| match json {
            true => screen.json(&as_json(finding)),
            false => screen.print(&text(finding, screen.look)),
        });
        printed.map_err(|error| io::Error::new(error.kind(), Failure::Print(error)))
    };
    let begin = |check: Check| {
        progress.set_message(format!("{}: {}", check.name(), check.rule()));
    };
    let made = make_checks(plan, begin, show);
    progress.finish_and_clear();
    let counts = made.map_err(|error| explain(error, &name))?;
    let printed = match json {
        true => screen.json(&counts_as_json(counts)),
        false => screen.print(&summary(counts, screen.look)),
    };
    printed.map_err(Failure::Print)?;
    Ok(if counts.failed > 0 { FAILED } else { DONE })
}

/// An error of the output is one; any other is that of the program, or of the kernel.
fn explain(error: io::Error, program: &str) -> Failure {
    match error.downcast::<Failure>() {
        Ok(failure) => failure,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            Failure::Interrupted("interrupted; the worker was killed".to_owned())
        }
        Err(error) => Failure::Failed(format!("cannot check {program}: {error}")),
    }
}

/// The interface by its name, or by what the command has in it.
fn choice(name: &str, command: &[OsString]) -> InterfaceChoice {
    let named = [Interface::Native, Interface::Node, Interface::Listen]
        .into_iter()
        .find(|interface| interface.name() == name);
    let is_given = || command.iter().any(|word| names_listener(word));
    let found = named.or_else(|| is_given().then_some(Interface::Listen));
    found.map_or(InterfaceChoice::Auto, InterfaceChoice::Only)
}

fn as_json(finding: &Finding) -> Value {
    let hint = match &finding.outcome {
        Outcome::Fail(hint) => Some(hint),
        _ => None,
    };
    json!({
        "interface": finding.interface.map(Interface::name),
        "check": finding.check.name(),
        "result": finding.outcome.name(),
        "seen": finding.seen,
        "hint": hint,
    })
}

fn counts_as_json(counts: Counts) -> Value {
    let Counts { passed, failed, not_applicable } = counts;
    json!({"passed": passed, "failed": failed, "not_applicable": not_applicable})
}

/// A finding, with what to change below it.
fn text(finding: &Finding, look: Look) -> String {
    let (mark, tone) = match finding.outcome {
        Outcome::Pass => ("pass", Tone::Good),
        Outcome::Fail(_) => ("FAIL", Tone::Bad),
        Outcome::NotApplicable => ("n/a ", Tone::Plain),
    };
    let head = format!("{}  {:<18}  ", look.paint(mark, tone), finding.check.name());
    let mut text = head + &wrapped(&finding.seen);
    if let Outcome::Fail(hint) = &finding.outcome {
        text += &format!("{:>INDENT$}{}", "-> ", wrapped(hint));
    }
    text
}

/// In lines of the terminal, each but the first one indented.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && INDENT + last + 1 + word.chars().count() > WIDTH {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.join(&format!("\n{:INDENT$}", "")) + "\n"
}

fn summary(counts: Counts, look: Look) -> String {
    let Counts { passed, failed, not_applicable } = counts;
    let tone = if failed > 0 { Tone::Bad } else { Tone::Plain };
    let failed = look.paint(format!("{failed} failed"), tone);
    format!("\n{passed} passed, {failed}, {not_applicable} not applicable\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(outcome: Outcome, seen: &str) -> Finding {
        Finding {
            interface: Some(Interface::Native),
            check: Check::AcknowledgesFirst,
            outcome,
            seen: seen.to_owned(),
        }
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let long = "word ".repeat(60);
        for check in Check::ALL {
            for interface in
                [None, Some(Interface::Native), Some(Interface::Node), Some(Interface::Listen)]
            {
                let hint = check.hint(interface).to_owned();
                let finding = Finding { check, ..finding(Outcome::Fail(hint), &long) };
                let text = text(&finding, Look::default());
                assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            }
            assert!(20 + check.rule().chars().count() <= WIDTH, "{check:?}");
        }
    }

    #[test]
    fn a_failure_says_what_was_seen_and_below_it_what_to_change() {
        let failed = finding(Outcome::Fail("count before".to_owned()), "was read");
        assert_eq!(
            text(&failed, Look::default()),
            "FAIL  acknowledges-first  was read\n                       -> count before\n"
        );
        let passed = finding(Outcome::Pass, "500 of them");
        assert_eq!(text(&passed, Look::default()), "pass  acknowledges-first  500 of them\n");
    }

    #[test]
    fn a_number_in_the_command_is_a_listening_socket() {
        let choose = |name, words: &[&str]| {
            choice(name, &words.iter().map(OsString::from).collect::<Vec<_>>())
        };
        let listen = InterfaceChoice::Only(Interface::Listen);
        assert_eq!(choose("auto", &["uvicorn", "--fd", "{fd}"]), listen);
        assert_eq!(choose("auto", &["gunicorn", "-b", "fd://3"]), listen);
        assert_eq!(choose("auto", &["node", "server.js"]), InterfaceChoice::Auto);
        assert_eq!(choose("listen", &["./server"]), listen);
        assert_eq!(choose("node", &["{fd}"]), InterfaceChoice::Only(Interface::Node));
    }

    #[test]
    fn scripts_get_all_of_it() {
        let failed = as_json(&finding(Outcome::Fail("count".to_owned()), "was read"));
        let expected = json!({
            "interface": "native", "check": "acknowledges-first", "result": "fail",
            "seen": "was read", "hint": "count",
        });
        assert_eq!(failed, expected);
        assert_eq!(as_json(&finding(Outcome::Pass, ""))["hint"], Value::Null);
    }
}
