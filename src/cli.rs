//! The program as a person meets it: runs what was typed, prints what came of it.
//!
//! The one place that prints, and that knows exit codes: 0 done, 1 failed, 2 usage, 130 not waited
//! for.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, FromArgMatches};
use serde_json::json;

use crate::config::Config;
use crate::demo::server;
use crate::log::{LogFormat, LogHandle};
use crate::primary::{Milestone, Primary};
use crate::settings::change::{needs_restart, renames_control};
use crate::settings::reader::{Reader, Reading};
use crate::supervisor::output::Output;
use crate::supervisor::pool::{Summary, chain};
use crate::supervisor::rollout::{Outcome, Report};

mod commands;
mod configuration;
mod documents;
mod failure;
mod flags;
mod operator;
mod screen;
mod table;
mod top;
mod units;
mod waiting;

use flags::{Cli, Init, SubCommand};

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
        Some(SubCommand::DemoWorker { listen }) => server::run(listen),
        Some(SubCommand::Check(check)) => {
            read(matches).map(|reading| say_check(&reading, check.json))
        }
        Some(SubCommand::Init(arguments)) => init(&arguments),
        Some(SubCommand::Operate(command)) => commands::run(command, matches).map_err(Into::into),
        Some(SubCommand::Completions { shell }) => {
            documents::completions(shell).map_err(Into::into)
        }
        Some(SubCommand::Man) => documents::man().map_err(Into::into),
        Some(SubCommand::Top(arguments)) => top::run(&arguments),
        None => Reader::new(matches).map_err(Into::into).and_then(|reader| run(&reader)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if failure::is_closed_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<Logged>() {
                complain(&chain(&*error));
            }
            ExitCode::from(failure::code(&*error))
        }
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

fn run(reader: &Reader) -> Result<(), Box<dyn Error>> {
    let Reading { config, .. } = reader.read()?;
    let log = crate::log::start(&config.log);
    let format = config.log.format;
    run_with(reader, config, &log).map_err(|error| match format {
        LogFormat::Text => error,
        // Whoever reads the log as JSON reads nothing else.
        LogFormat::Json => {
            tracing::error!(error = chain(&*error), "primary failed");
            Logged.into()
        }
    })
}

fn run_with(reader: &Reader, config: Config, log: &LogHandle) -> Result<(), Box<dyn Error>> {
    let output = Output::start(config.output.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begun_with = config.clone();
    let reread = || reread(reader, &begun_with);
    runtime.block_on(async {
        let report = |milestone| say(&output, milestone);
        let result = match Primary::bind(config) {
            Ok(primary) => primary.run(output.clone(), log.clone(), reread, report).await,
            Err(error) => Err(error),
        };
        if let Ok(summary) = &result {
            say_stopped(&output, summary);
        }
        // Also where it has failed: workers may have said why.
        output.finish().await;
        result?;
        Ok(())
    })
}

/// What a running primary cannot change is said, and stays as it is.
fn reread(reader: &Reader, begun_with: &Config) -> Result<Config, String> {
    let Reading { config, .. } = reader.read().map_err(|error| error.to_string())?;
    let settings = needs_restart(begun_with, &config);
    if !settings.is_empty() {
        let settings = settings.join(", ");
        tracing::warn!(settings, "only a new primary can change these, they stay as they are");
    }
    if renames_control(begun_with, &config) {
        let name = &begun_with.name;
        tracing::warn!(name, "control socket keeps the old name, workers' lines have the new one");
    }
    Ok(config)
}

fn say_check(reading: &Reading, as_json: bool) {
    if as_json {
        return say_line(&configuration::json(&reading.values));
    }
    let _ = write!(std::io::stdout(), "{}", configuration::text(&reading.values));
}

/// One line of JSON on standard output for whoever waits for it.
fn say(output: &Output, milestone: Milestone) {
    let pid = std::process::id();
    let line = match milestone {
        Milestone::Listening(address) => json!({
            "event": "listening", "address": address.to_string(), "port": address.port(), "pid": pid,
        }),
        Milestone::Ready(workers) => json!({"event": "ready", "workers": workers, "pid": pid}),
        Milestone::RolledOut(report) => rolled_out(&report),
        Milestone::ReloadRefused(error) => {
            json!({"event": "reloaded", "result": "refused", "reason": error})
        }
        Milestone::Scaled(workers) => json!({"event": "scaled", "workers": workers}),
    };
    output.say(line.to_string());
}

fn rolled_out(report: &Report) -> serde_json::Value {
    let (result, reason) = match &report.outcome {
        Outcome::Done => ("done", String::new()),
        Outcome::Aborted(slot, reason) => ("aborted", format!("worker in slot {slot} {reason}")),
        Outcome::Superseded => ("superseded", "a newer one was ordered".to_owned()),
        Outcome::Stopped => ("stopped", "everything is to end".to_owned()),
    };
    json!({
        "event": "reloaded", "result": result, "reason": reason, "rollout": report.number,
        "trigger": report.trigger.to_string(), "replaced": report.replaced, "of": report.of,
    })
}

fn say_stopped(output: &Output, summary: &Summary) {
    let counters = &summary.counters;
    let not_survived: BTreeMap<_, _> = counters.survival.not_survived().into();
    let line = json!({
        "event": "stopped", "how": if summary.at_once { "at once" } else { "graceful" },
        "killed_workers": summary.killed, "cut_connections": summary.cut,
        "accepted": counters.accepted, "acknowledged": counters.acknowledged,
        "redelivered": counters.redelivered, "spilled": counters.spilled,
        "refused": counters.refused, "stalls": counters.stalls, "lost": counters.lost,
        "accept_errors": counters.accept_errors, "sessions_moved": counters.moved,
        "sessions_returned": counters.returned, "sessions_lost": counters.sessions_lost,
        "clients_shed": counters.shed, "sessions_survived": counters.survival.survived,
        "sessions_not_survived": not_survived,
    });
    output.say(line.to_string());
}

/// That nobody reads any more is no reason to end.
fn say_line(line: &serde_json::Value) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
