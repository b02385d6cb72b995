//! Compares sticky-lb with other ways to give each client its own worker:
//! workers that listen themselves, the barest hand-off there could be,
//! HAProxy, nginx and Node. Every front runs on this machine's loopback in the
//! same run, turn by turn, so that the ratios between them mean something.
//!
//! `scripts/bench` runs it. The same program is also run again by itself as
//! the bare front and as its workers.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table is the output, progress goes to stderr"
)]

mod app;
mod bare;
mod client;
mod connection_load;
mod echo_load;
mod fronts;
mod interrupt;
mod machine;
mod options;
mod processes;
mod procfs;
mod proxies;
mod report;
mod rounds;
mod statistics;
mod targets;
mod watchers;

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use clap::Parser;

use options::{Mode, Options};

/// What a run or a part of it comes to; errors are made to be printed.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything that could be started could also be measured.
fn run(options: &Options) -> Result<bool> {
    match options.mode {
        Some(Mode::BareFront { port, workers }) => bare::front(port, workers).map(|()| true),
        Some(Mode::BareWorker) => bare::worker().map(|()| true),
        None if options.bench => compare(options),
        None => {
            println!("nothing measured: run scripts/bench");
            Ok(true)
        }
    }
}

fn compare(options: &Options) -> Result<bool> {
    interrupt::watch()?;
    let findings = rounds::measure(options)?;
    let targets = targets::check(&findings.rows);
    print!("{}", report::text(options, &findings, &targets));
    if let Some(path) = &options.json {
        let json = report::json(options, &findings, &targets);
        fs::write(path, format!("{json:#}\n"))
            .map_err(|error| format!("failed to write {}: {error}", path.display()))?;
    }
    Ok(findings.rows.iter().all(|row| !row.failed()))
}
