//! Checks whether a program is a good worker: plays the primary against it, check by check.
//!
//! Starts workers through the same link and the same process as a primary, and its clients are its own, over the
//! loopback interface. Never serves.
//!
//! | file | what it is |
//! |---|---|
//! | [`check`] | the checks by name, and what one has found; pure |
//! | [`subject`] | a worker under test, and the primary's part |
//! | [`judge`] | observations in, verdict out; pure |
//! | [`client`], [`service`] | a client, and what a worker does with its bytes |
//! | [`hand_off`] | the checks of workers that get their connections through a link |
//! | [`descriptors`], [`leftovers`], [`output`] | limits of processes, processes that are left, output |
//!
//! An interface of another kind is one more file beside [`hand_off`].

use std::io;
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::link::interface::InterfaceChoice;
use crate::supervisor::command::WorkerCommand;

pub mod check;
pub mod client;
pub mod descriptors;
pub mod hand_off;
pub mod judge;
pub mod leftovers;
pub mod output;
pub mod service;
pub mod subject;

use check::{Check, Counts, Finding, Stop};
use hand_off::Introduction;
use subject::Setup;

/// The worker, and the checks that it gets.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Signals that end the checks.
    pub interrupts: Arc<SignalFd>,
    /// The worker's command.
    pub command: WorkerCommand,
    /// Its interface, as far as it is known.
    pub interface: InterfaceChoice,
    /// The checks, in the order in which they are made.
    pub checks: Vec<Check>,
}

/// The first checks, which all others need.
const FIRST: [Check; 3] = [Check::Attaches, Check::Ready, Check::Serves];

/// Makes the checks, and gives what each begins with and what it has found to those who show it.
///
/// # Errors
///
/// If the program can't be run, the kernel refuses something, or a finding can't be shown; and by a signal.
pub fn run(
    plan: Plan,
    mut begin: impl FnMut(Check),
    mut show: impl FnMut(&Finding) -> io::Result<()>,
) -> io::Result<Counts> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Processes are watched through it.
    let _within = runtime.enter();
    let mut counts = Counts::default();
    let mut found = |finding: Finding| {
        counts.add(&finding.outcome);
        show(&finding)
    };
    begin(Check::Attaches);
    let Plan { interrupts, command, interface, checks } = plan;
    let Introduction { interface, verdicts, mut next } =
        Introduction::new(Setup { command, interface, interrupts })?;
    for (check, verdict) in verdicts {
        // A failure is the reason for what isn't checked.
        if verdict.is_err() || checks.contains(&check) {
            found(Finding::new(check, interface, verdict)?)?;
        }
    }
    for check in checks.into_iter().filter(|check| !FIRST.contains(check)) {
        let verdict = match &mut next {
            Some(workers) => {
                begin(check);
                workers.make(check)
            }
            None => Err(Stop::NotApplicable("not made: the first checks failed".to_owned())),
        };
        found(Finding::new(check, interface, verdict)?)?;
    }
    Ok(counts)
}

/// Ctrl-C and its like as something to read, so that they end workers, too, which lead process groups of their own.
/// To be called before any other thread is started: one that doesn't block them would be ended by them, with all others.
///
/// # Errors
///
/// If the kernel refuses.
pub fn interrupts() -> io::Result<Arc<SignalFd>> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?.into())
}
