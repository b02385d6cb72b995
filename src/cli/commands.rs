//! The commands for a running primary: the request of each, and how the answer is shown.

use clap::{ArgMatches, FromArgMatches, Subcommand};

use crate::cli::client::{ClientArgs, ControlClient};
use crate::cli::failure::Failure;
use crate::control::client::ClientError;
use crate::control::protocol::{Code, Problem};

mod clients;
mod follow;
mod reload;
mod show;
mod steer;
mod upgrade;

/// Commands for a running primary. Each has the flags of [`ClientArgs`] too.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Show the primary and its workers at a glance, problems first.
    Status,
    /// List all workers, a line each.
    ///
    /// On a narrow terminal some columns are left out; on a pipe none.
    #[command(visible_aliases = ["ls", "list"])]
    Workers,
    /// Show everything about a slot, with its latest events.
    Describe {
        /// Number of the slot.
        slot: u16,
    },
    /// Explain which slot a client goes to.
    Where(clients::Where),
    /// List the connections that workers hold, from the kernel's tables.
    Conns(clients::Conns),
    /// Read the configuration again and replace all workers.
    ///
    /// One slot after the other. Waits for the end of the rolling restart and fails with the reason if it is aborted. Ctrl-C ends
    /// the waiting alone, with exit code 130.
    Reload,
    /// Replace the running sticky-lb with the binary on disk.
    ///
    /// The process, its workers and all connections stay. Reads the configuration again for settings that only a new primary can change; `reload` applies
    /// the others. Nothing changes if the new binary refuses the configuration or the running primary's
    /// state.
    Upgrade,
    /// Change the number of workers.
    Scale(steer::Scale),
    /// Take a slot out of service; its worker finishes and exits.
    Drain {
        /// Number of the slot.
        slot: u16,
        /// Wait until the worker has exited.
        #[arg(long)]
        wait: bool,
    },
    /// Put a slot back into service and wait until its worker is ready.
    Undrain {
        /// Number of the slot.
        slot: u16,
    },
    /// Replace a slot's worker and wait until the new one is stable.
    Restart {
        /// Number of the slot.
        slot: u16,
    },
    /// Stop the primary and its workers and wait until they have exited.
    Stop {
        /// Stop at once: connections are cut.
        #[arg(long)]
        now: bool,
    },
    /// Kill a slot's worker, to see what a crash does.
    Kill {
        /// Number of the slot.
        slot: u16,
    },
    /// Send a signal to a slot's worker.
    Signal {
        /// Number of the slot.
        slot: u16,
        /// Name or number of the signal: USR2, SIGUSR2, 12.
        signal: String,
    },
    /// List what has happened.
    Events(follow::Events),
    /// Show or change the levels of the primary's log.
    LogLevel {
        /// A level for all parts, and levels of single ones: debug; info,frontend=debug. `configured`
        /// resets them.
        levels: Option<String>,
    },
    /// Bring clients back that went to other slots meanwhile.
    ///
    /// WebSockets that can migrate do so now, other clients go back with their next connection.
    Rebalance,
    /// Show what workers print, each line with its slot.
    Logs(follow::Logs),
}

/// All commands with all of their flags.
pub(super) fn augment(command: clap::Command) -> clap::Command {
    let names = definitions();
    let names: Vec<_> = names.get_subcommands().map(clap::Command::get_name).collect();
    names
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, ClientArgs::augment))
}

/// Whether it is the name of a command.
pub(super) fn is_command(word: &str) -> bool {
    // `top` sends more than one request.
    matches!(word, "top" | "monit") || definitions().find_subcommand(word).is_some()
}

fn definitions() -> clap::Command {
    Command::augment_subcommands(clap::Command::default())
}

impl ClientArgs {
    fn augment(command: clap::Command) -> clap::Command {
        <Self as clap::Args>::augment_args(command)
    }
}

/// Carries out a command.
///
/// # Errors
///
/// If there is no primary, it refuses, or its answer cannot be printed.
pub(super) fn run(command: Command, matches: &ArgMatches) -> Result<(), Failure> {
    // Each command has these, too.
    let arguments = ClientArgs::from_arg_matches(matches).map_err(|error| misunderstood(&error))?;
    let client = &mut ControlClient::find(&arguments)?;
    match command {
        Command::Status => show::status(client),
        Command::Workers => show::workers(client),
        Command::Describe { slot } => show::describe(client, slot),
        Command::Where(wanted) => clients::route(client, wanted),
        Command::Conns(wanted) => clients::connections(client, &wanted),
        Command::Reload => reload::reload(client),
        Command::Upgrade => upgrade::upgrade(client),
        Command::Scale(scale) => steer::scale(client, scale),
        Command::Drain { slot, wait } => steer::drain(client, slot, wait),
        Command::Undrain { slot } => steer::undrain(client, slot),
        Command::Restart { slot } => steer::restart(client, slot),
        Command::Stop { now } => steer::stop(client, now),
        Command::Kill { slot } => steer::kill(client, slot),
        Command::Signal { slot, signal } => steer::signal(client, slot, signal),
        Command::Events(wanted) => follow::events(client, &wanted),
        Command::LogLevel { levels } => steer::log_level(client, levels),
        Command::Rebalance => steer::rebalance(client),
        Command::Logs(wanted) => follow::logs(client, &wanted),
    }
}

fn misunderstood(error: &clap::Error) -> Failure {
    ClientError::Problem(Problem::new(Code::BadRequest, error.to_string())).into()
}
