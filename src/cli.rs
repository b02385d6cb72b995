//! The program as a person meets it: runs what was typed, prints what came of it.
//!
//! The one place that prints, and that knows exit codes: 0 done, 1 failed, 2 usage, 130 not waited
//! for.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use crate::demo::server;
use crate::error::chain;
use crate::handover::StateFile;
use crate::settings::reader::{Reader, Reading};
use crate::upgrade::check::UNDERSTOOD;
use clap::{ArgMatches, FromArgMatches};

mod commands;
mod configuration;
mod documents;
mod events;
mod failure;
mod flags;
mod greeting;
mod operator;
mod role;
mod run;
mod screen;
mod table;
mod top;
mod units;
mod waiting;

use flags::{Check, Cli, Init, SubCommand};

/// The exit code of what is done.
const DONE: u8 = 0;

/// Runs the program and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let words = flags::command_first(std::env::args_os().collect());
    let matches = match flags::command().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let matches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
    let result = match cli.command {
        None => Reader::new(matches)
            .map_err(Into::into)
            .and_then(|reader| run::run(&reader, cli.run.events_fd)),
        Some(command) => order(command, matches).map(|()| DONE),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if failure::is_closed_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<Logged>() {
                complain(&chain(&*error));
            }
            ExitCode::from(failure::code(&*error))
        }
    }
}

fn order(command: SubCommand, matches: &ArgMatches) -> Result<(), Box<dyn Error>> {
    match command {
        SubCommand::DemoWorker { listen } => server::run(listen),
        SubCommand::Check(check) => say_check(&read(matches)?, &check),
        SubCommand::Init(arguments) => init(&arguments),
        SubCommand::Operate(command) => commands::run(command, matches).map_err(Into::into),
        SubCommand::Completions { shell } => documents::completions(shell).map_err(Into::into),
        SubCommand::Man => documents::man().map_err(Into::into),
        SubCommand::Top(arguments) => top::run(&arguments),
    }
}

/// Says something on standard error.
fn complain(text: &str) {
    for line in text.lines() {
        let _ = writeln!(std::io::stderr(), "sticky-lb: {line}");
    }
}

/// What failed is a line of the log already.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
struct Logged;

/// `--help` and `--version` come here too, as errors of code 0.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is nobody's concern.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE))
}

fn read(matches: &ArgMatches) -> Result<Reading, Box<dyn Error>> {
    Ok(Reader::new(matches)?.read()?)
}

/// Says what couldn't be carried over.
fn init(init: &Init) -> Result<(), Box<dyn Error>> {
    for note in configuration::init(init)? {
        complain(&note);
    }
    Ok(())
}

/// Settings as they result; with a state, whether that is understood, too, in words for the primary that
/// asks.
fn say_check(reading: &Reading, check: &Check) -> Result<(), Box<dyn Error>> {
    if let Some(number) = check.state {
        StateFile::from_number(number)?;
        let _ = writeln!(std::io::stdout(), "{UNDERSTOOD}");
        return Ok(());
    }
    if check.json {
        say_line(&configuration::json(&reading.values));
    } else {
        let _ = write!(std::io::stdout(), "{}", configuration::text(&reading.values));
    }
    Ok(())
}

/// That nobody reads any more is no reason to end.
fn say_line(line: &serde_json::Value) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
