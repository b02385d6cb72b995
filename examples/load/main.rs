//! A load of WebSockets from many local addresses, as many clients would make it: for the demo's echo,
//! its chat, and apps that echo what they are sent.
//!
//! ```text
//! cargo build --release --examples
//! cargo run --release -- --workers 4 --port 3000
//! ./target/release/examples/load --address 127.0.0.1:3000
//! ./target/release/examples/load --address 127.0.0.1:3000 --app chat --connections 2000 --rate 4000
//! ```
//!
//! Messages are due at fixed times, spread evenly over all clients, whether or not earlier ones are
//! answered; a latency counts from when its message was due. So an app that stands still for a second
//! shows a second (there is no coordinated omission), and `sent late` says how much of it is this
//! program's own.

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program for people: it shows what happens"
)]

use std::process::ExitCode;
use std::rc::Rc;

use clap::Parser;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::client::{Shared, live};
use crate::options::Options;
use crate::view::View;

mod client;
mod figures;
mod latencies;
mod options;
mod view;

/// How long clients may take to open their connections at first.
const OPENING_TIMEOUT: Duration = Duration::from_secs(30);
/// Between the last connection and the first message.
const BREATH: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(problem) = options.check() {
        eprintln!("load: {problem}");
        return ExitCode::from(2);
    }
    // Clients are tasks of this thread.
    LocalSet::new().run_until(run(options)).await
}

async fn run(options: Options) -> ExitCode {
    let shared = Rc::new(Shared::new(options));
    let view = View::follow(&shared);
    let mut clients = JoinSet::new();
    for number in 0..shared.options.connections {
        clients.spawn_local(live(number, Rc::clone(&shared)));
    }
    let opened = open(&shared).await;
    if opened {
        let start = Instant::now() + BREATH;
        shared.start.send_replace(Some(start));
        tokio::select! {
            () = sleep_until(start + shared.options.duration()) => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    shared.finishing.cancel();
    while clients.join_next().await.is_some() {}
    view.end();
    let figures = shared.figures.borrow();
    if shared.options.json {
        println!("{}", figures.report(&shared.options));
    } else {
        print!("{}", figures.summary(&shared.options));
    }
    let problems = figures.problems(&shared.options);
    problems.iter().for_each(|problem| eprintln!("load: {problem}"));
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Waits until all connections are open; says whether at least one is.
async fn open(shared: &Shared) -> bool {
    let all = u64::from(shared.options.connections);
    let deadline = Instant::now() + shared.options.opening() + OPENING_TIMEOUT;
    while shared.figures.borrow().open < all && Instant::now() < deadline {
        tokio::select! {
            () = sleep(Duration::from_millis(20)) => {}
            _ = tokio::signal::ctrl_c() => return false,
        }
    }
    shared.figures.borrow().open > 0
}
