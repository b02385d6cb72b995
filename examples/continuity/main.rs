//! Shows, and proves, what a deploy does to open WebSockets: thousands of them count with their
//! workers, both ways, while workers are replaced, added and taken away, the primary is upgraded and killed, and workers are killed.
//!
//! ```text
//! scripts/demo-continuity                  everything at once, with live counters
//! scripts/prove-scale                      100,000 WebSockets, what each takes, and that none is cut
//! ```
//!
//! Or by hand:
//!
//! ```text
//! cargo build --release --examples
//! cargo run --release -- --workers 4 --port 3000 -- ./target/release/examples/continuity worker
//! ./target/release/examples/continuity client --address 127.0.0.1:3000 --seconds 60
//! cargo run --release -- reload
//! ```

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program for people: it shows what happens"
)]

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod arrivals;
mod chart;
mod client;
mod demo;
mod faults;
mod growth;
mod ledger;
mod load;
mod load_processes;
mod memory;
mod newer_state;
mod primary;
mod resource_usage;
mod scale;
mod scenario;
mod stats;
mod times;
mod verdict;
mod view;
mod wire;
mod worker;

/// Counts over WebSockets, to see whether anything is lost while workers come and go.
#[derive(Debug, Parser)]
#[command(name = "continuity", disable_help_subcommand = true)]
struct Options {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// A worker that counts with its clients; run by sticky-lb.
    Worker(worker::Options),
    /// Many clients, and a line of JSON about them at the end. Exit code 1 if what was expected did
    /// not hold.
    Client(load::ClientOptions),
    /// A primary with workers, many clients, and a row of acts that would cut them.
    Demo(demo::Options),
    /// Many idle WebSockets, what each takes, and a row of acts that would cut them.
    Scale(scale::Options),
    /// The same at several numbers of sessions and of slots, as pictures.
    Growth(growth::Options),
    /// A successor's view of a state of another version.
    #[command(hide = true)]
    NewerState(newer_state::Options),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Connections of clients are tasks of this thread.
    let done = tokio::task::LocalSet::new().run_until(run(Options::parse().role)).await;
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("continuity: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was as expected.
async fn run(role: Role) -> Result<bool, Box<dyn Error>> {
    match role {
        Role::Worker(options) => worker::run(options).await.map(|()| true),
        Role::Client(options) => load::run(options).await,
        Role::Demo(options) => demo::run(options).await,
        Role::Scale(options) => scale::run(options).await,
        Role::Growth(options) => growth::run(options).await,
        Role::NewerState(options) => newer_state::run(&options),
    }
}
