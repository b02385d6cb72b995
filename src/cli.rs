//! The program as a person meets it: runs what was typed, prints what came of it.
//!
//! The one place that prints, and that knows exit codes: 0 done, 1 failed, 2 usage.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use crate::config::Config;
use crate::demo::server;
use crate::primary::{Milestone, Primary};
use crate::supervisor::pool::Summary;
use crate::supervisor::rollout::{Outcome, Report};

mod flags;

use flags::{Cli, SubCommand};

/// Runs the program and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Some(SubCommand::DemoWorker { listen }) => server::run(listen),
        None => match flags::config(cli.run) {
            Ok((config, level)) => run(config, level),
            Err(error) => return usage(&error),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "sticky-lb: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// `--help` and `--version` come here too, as errors of code 0.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is nobody's concern.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn run(config: Config, level: tracing::Level) -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let summary = runtime
        .block_on(async { Primary::bind(config.clone())?.run(|| Ok(config.clone()), say).await })?;
    say_stopped(&summary);
    Ok(())
}

/// One line of JSON on standard output for whoever waits for it.
fn say(milestone: Milestone) {
    let pid = std::process::id();
    say_line(&match milestone {
        Milestone::Listening(address) => json!({
            "event": "listening", "address": address.to_string(), "port": address.port(), "pid": pid,
        }),
        Milestone::Ready(workers) => json!({"event": "ready", "workers": workers, "pid": pid}),
        Milestone::RolledOut(report) => rolled_out(&report),
        Milestone::ReloadRefused(error) => {
            json!({"event": "reloaded", "result": "refused", "reason": error})
        }
        Milestone::Scaled(workers) => json!({"event": "scaled", "workers": workers}),
    });
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

fn say_stopped(summary: &Summary) {
    let counters = &summary.counters;
    say_line(&json!({
        "event": "stopped", "how": if summary.at_once { "at once" } else { "graceful" },
        "killed_workers": summary.killed, "cut_connections": summary.cut,
        "accepted": counters.accepted, "acknowledged": counters.acknowledged,
        "redelivered": counters.redelivered, "spilled": counters.spilled,
        "refused": counters.refused, "stalls": counters.stalls, "lost": counters.lost,
        "accept_errors": counters.accept_errors,
    }));
}

/// That nobody reads any more is no reason to end.
fn say_line(line: &serde_json::Value) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
