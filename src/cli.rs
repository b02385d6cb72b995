//! The command line: runs a command and prints its result.
//!
//! The one place that prints, and that knows exit codes: 0 done, 1 failed, 2 usage, 130 waiting ended by
//! Ctrl-C.

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::demo::server;
use crate::error::chain;
use crate::handover::StateFile;
use crate::settings::before::Before;
use crate::settings::reader::{Reader, Reading};
use crate::supervisor::pool::snapshot::After;
use crate::upgrade::check::UNDERSTOOD;
use clap::{ArgMatches, FromArgMatches};

mod client;
mod commands;
mod configuration;
mod documents;
mod events;
mod failure;
mod flags;
mod greeting;
mod role;
mod run;
mod screen;
mod suggest;
mod table;
mod top;
mod units;
mod waiting;

use failure::{DONE, Logged};
use flags::{Check, Cli, Init, SubCommand};
use screen::complain;

/// Runs the program and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let words = flags::command_first(std::env::args_os().collect());
    let matches = match flags::command().try_get_matches_from(&words) {
        Ok(matches) => matches,
        Err(error) => return usage(&error, &words),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &words),
    };
    let matches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
    let result = match cli.command {
        None => Reader::new(matches)
            .map_err(Into::into)
            .and_then(|reader| run::run(&reader, cli.run.events_fd)),
        Some(command) => run_command(command, matches).map(|()| DONE),
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

fn run_command(command: SubCommand, matches: &ArgMatches) -> Result<(), Box<dyn Error>> {
    match command {
        SubCommand::DemoWorker { listen } => server::run(listen),
        SubCommand::Check(check) => match check.state {
            Some(number) => check_state(matches, number),
            None => print_check(&Reader::new(matches)?.read()?, &check),
        },
        SubCommand::Init(arguments) => init(&arguments),
        SubCommand::Operate(command) => commands::run(command, matches).map_err(Into::into),
        SubCommand::Completions { shell } => documents::completions(shell).map_err(Into::into),
        SubCommand::Man => documents::man().map_err(Into::into),
        SubCommand::Top(arguments) => top::run(&arguments),
    }
}

/// `--help` and `--version` come here too, as errors of code 0.
fn usage(error: &clap::Error, words: &[OsString]) -> ExitCode {
    if let Some(suggestion) = suggest::suggest(error, words) {
        complain(&suggestion);
        return ExitCode::from(failure::USAGE);
    }
    // A closed pipe is no error.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE))
}

/// Complains about parts of the source that have no equivalent.
fn init(init: &Init) -> Result<(), Box<dyn Error>> {
    for note in configuration::init(init)? {
        complain(&note);
    }
    Ok(())
}

/// A running primary asks whether this program would go on with its state.
fn check_state(matches: &ArgMatches, number: i32) -> Result<(), Box<dyn Error>> {
    let state = StateFile::from_number(number)?;
    let before = Before::new(&state.primary, &state.pool, After::Upgrade);
    Reader::new(matches)?.read_after(&before)?;
    let _ = writeln!(std::io::stdout(), "{UNDERSTOOD}");
    Ok(())
}

/// Prints the resulting settings.
fn print_check(reading: &Reading, check: &Check) -> Result<(), Box<dyn Error>> {
    if check.json {
        print_json(&configuration::json(&reading.values));
    } else {
        let _ = write!(std::io::stdout(), "{}", configuration::text(&reading.values));
    }
    Ok(())
}

/// A reader that has gone is no error.
fn print_json(line: &serde_json::Value) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
