//! The command line: runs a command and prints its result.
//!
//! The one place that prints, and that knows exit codes: 0 done, 1 failed, 2 usage, 130 waiting ended by
//! Ctrl-C.

use std::error::Error;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use crate::demo::server;
use crate::error::chain;
use crate::handover::StateFile;
use crate::settings::before::Before;
use crate::settings::file::USUAL_NAME;
use crate::settings::reader::Reader;
use crate::supervisor::pool::snapshot::After;
use crate::upgrade::check::UNDERSTOOD;
use clap::{ArgMatches, FromArgMatches};

mod client;
mod commands;
mod configuration;
mod conformance;
mod documents;
mod events;
mod failure;
mod flags;
mod greeting;
mod notices;
mod role;
mod run;
mod screen;
mod seen;
mod successor;
mod suggest;
mod table;
mod top;
mod units;
mod waiting;

use failure::{DONE, Failure, Logged};
use flags::{Cli, Init, SubCommand};
use screen::{Screen, complain};

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
        Some(command) => run_command(command, matches),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if failure::is_closed_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<Logged>() {
                complain(&chain(&*error));
            }
            if matches!(matches.try_get_one("json"), Ok(Some(true))) {
                // What cannot be printed is said on standard error.
                let _ = Screen::new().json(&failure::json(&*error));
            }
            ExitCode::from(failure::code(&*error))
        }
    }
}

fn run_command(command: SubCommand, matches: &ArgMatches) -> Result<u8, Box<dyn Error>> {
    let done: Result<(), Box<dyn Error>> = match command {
        SubCommand::DemoWorker { listen } => server::run(listen),
        SubCommand::Check(check) => match check.state {
            Some(number) => check_state(matches, number),
            None => configuration::check(&Reader::new(matches)?.read()?, &check),
        },
        SubCommand::Init(arguments) => init(&arguments),
        SubCommand::Conformance(arguments) => return conformance::run(arguments),
        SubCommand::Operate(command) => commands::run(command, matches).map_err(Into::into),
        SubCommand::Completions { shell } => documents::completions(shell).map_err(Into::into),
        SubCommand::Man => documents::man().map_err(Into::into),
        SubCommand::Top(arguments) => top::run(&arguments),
    };
    done.map(|()| DONE)
}

/// `--help` and `--version` come here too, as errors of code 0.
fn usage(error: &clap::Error, words: &[OsString]) -> ExitCode {
    if let Some(suggestion) = suggest::suggest(error, words) {
        complain(&suggestion);
        return ExitCode::from(failure::USAGE);
    }
    match error.print() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(&chain(&Failure::Print(error)));
            ExitCode::from(failure::FAILED)
        }
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE)),
    }
}

/// Complains about parts of the source that have no equivalent, and says what to do with the file.
fn init(init: &Init) -> Result<(), Box<dyn Error>> {
    for note in configuration::init(init)? {
        complain(&note);
    }
    let file = configuration::written(init);
    let flag = if file == Path::new(USUAL_NAME) {
        String::new()
    } else {
        format!(" --config {}", file.display())
    };
    let file = file.display();
    let said = format!("wrote {file}: sticky-lb check{flag} reads it, sticky-lb{flag} runs it\n");
    Screen::new().print(&said).map_err(Failure::Print)?;
    Ok(())
}

/// A running primary asks whether this program would go on with its state.
fn check_state(matches: &ArgMatches, number: i32) -> Result<(), Box<dyn Error>> {
    let state = StateFile::from_number(number)?;
    let before = Before::new(&state.primary, &state.pool, After::Upgrade);
    Reader::new(matches)?.read_after(&before)?;
    Screen::new().print(&format!("{UNDERSTOOD}\n")).map_err(Failure::Print)?;
    Ok(())
}
