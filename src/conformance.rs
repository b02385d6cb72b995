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
//! | [`listen`] | those of servers that accept their clients themselves |
//! | [`descriptors`], [`leftovers`], [`stopped`], [`output`] | limits of processes, processes that are left or stand still, output |
//!
//! An interface of another kind is one more file beside those two.

use std::io;
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::link::interface::{Interface, InterfaceChoice};
use crate::supervisor::command::WorkerCommand;

pub mod check;
pub mod client;
pub mod descriptors;
pub mod hand_off;
pub mod judge;
pub mod leftovers;
pub mod listen;
pub mod output;
pub mod service;
pub mod stopped;
pub mod subject;

use check::{Check, Counts, Finding, Stop, Verdict};
use hand_off::{HandOff, Introduction};
use listen::{Habits, Servers};
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
    /// Facts about a server that accepts its clients itself.
    pub habits: Habits,
    /// The checks, in the order in which they are made.
    pub checks: Vec<Check>,
    /// They were named: one that has no meaning for the interface is in the findings, too.
    pub is_chosen: bool,
}

/// The workers of a run.
#[derive(Debug)]
enum Workers {
    /// They get their connections.
    HandOff(HandOff),
    /// They accept them.
    Listen(Servers),
}

impl Workers {
    fn make(&mut self, check: Check) -> Verdict {
        match self {
            Self::HandOff(workers) => workers.make(check),
            Self::Listen(servers) => servers.make(check),
        }
    }
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
    let Plan { interrupts, command, interface, habits, checks, is_chosen } = plan;
    let setup = Setup { command, interface, interrupts };
    let (interface, verdicts, mut next) = match interface {
        InterfaceChoice::Only(Interface::Listen) => {
            begin(Check::Ready);
            let listen::Introduction { verdicts, next } = listen::Introduction::new(setup, habits)?;
            (Some(Interface::Listen), verdicts, next.map(Workers::Listen))
        }
        _ => {
            begin(Check::Attaches);
            let Introduction { interface, verdicts, next } = Introduction::new(setup)?;
            (interface, verdicts, next.map(Workers::HandOff))
        }
    };
    for (check, verdict) in verdicts {
        // A failure is the reason for what isn't checked.
        if verdict.is_err() || checks.contains(&check) {
            found(Finding::new(check, interface, verdict)?)?;
        }
    }
    // One that says nothing is taken for a worker that gets its connections.
    let is_for = |check: &Check| check.is_for(interface.unwrap_or(Interface::Native));
    let others = checks.into_iter().filter(|check| {
        let is_first = FIRST.contains(check) && is_for(check);
        !is_first && (is_chosen || is_for(check))
    });
    for check in others {
        let verdict = match &mut next {
            _ if !is_for(&check) => {
                Err(Stop::NotApplicable("for workers of another interface".to_owned()))
            }
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
