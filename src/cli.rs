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
use crate::supervisor::output::Output;
use crate::supervisor::pool::Summary;

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
    let output = Output::start(config.output.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let report = |milestone| say(&output, milestone);
        let result = match Primary::bind(config) {
            Ok(primary) => primary.run(output.clone(), report).await,
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

/// One line of JSON on standard output for whoever waits for it.
fn say(output: &Output, milestone: Milestone) {
    let pid = std::process::id();
    let line = match milestone {
        Milestone::Listening(address) => json!({
            "event": "listening", "address": address.to_string(), "port": address.port(), "pid": pid,
        }),
        Milestone::Ready(workers) => json!({"event": "ready", "workers": workers, "pid": pid}),
    };
    output.say(line.to_string());
}

fn say_stopped(output: &Output, summary: &Summary) {
    let counters = &summary.counters;
    let line = json!({
        "event": "stopped", "killed_workers": summary.killed,
        "accepted": counters.accepted, "acknowledged": counters.acknowledged,
        "redelivered": counters.redelivered, "spilled": counters.spilled,
        "refused": counters.refused, "stalls": counters.stalls, "lost": counters.lost,
        "accept_errors": counters.accept_errors,
    });
    output.say(line.to_string());
}
