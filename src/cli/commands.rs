//! The operator's commands: what each asks of a primary, and how what it says is shown.

use clap::{ArgMatches, FromArgMatches, Subcommand};

use crate::cli::failure::Failure;
use crate::cli::operator::{Operator, Reach};
use crate::control::client::ClientError;
use crate::control::protocol::{Code, Problem};

mod clients;
mod follow;
mod reload;
mod show;
mod steer;
mod upgrade;

/// Commands for a running primary. Each has the flags of [`Reach`] too.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// How everything is, at a glance; what needs looking at comes first.
    Status,
    /// All workers, a line each.
    ///
    /// On a terminal that is too narrow, some columns are left out; on a pipe none.
    #[command(visible_aliases = ["ls", "list"])]
    Workers,
    /// Everything about a slot, with what happened in it lately.
    Describe {
        /// Its number.
        slot: u16,
    },
    /// Where a client goes, and why.
    Where(clients::Where),
    /// Connections that workers hold, as the kernel shows them.
    Conns(clients::Conns),
    /// Replace all workers, slot by slot, by such of the configuration as it is now.
    ///
    /// Follows the rolling restart to its end and fails if it comes to nothing, with the reason. On
    /// Ctrl-C it goes on, and the exit code is 130.
    Reload,
    /// Run the program on disk in place of the one that runs: same process, same workers, no connection
    /// ends.
    ///
    /// The configuration is read again for what only a new primary can change; `reload` brings the rest
    /// to the workers. If the program doesn't understand the configuration or what the running one
    /// leaves to it, nothing happens.
    Upgrade,
    /// More workers, or fewer.
    Scale(steer::Scale),
    /// Take a slot out of service: its clients go to others, its worker finishes what it has.
    Drain {
        /// Its number.
        slot: u16,
        /// Wait until its worker has ended.
        #[arg(long)]
        wait: bool,
    },
    /// Take a slot back into service, and wait until its worker serves.
    Undrain {
        /// Its number.
        slot: u16,
    },
    /// Replace a slot's worker, and wait until the new one has proved itself.
    Restart {
        /// Its number.
        slot: u16,
    },
    /// End everything, and wait until the primary has ended.
    Stop {
        /// At once, not gracefully: connections are cut.
        #[arg(long)]
        now: bool,
    },
    /// Kill a slot's worker; what follows is what follows a crash.
    Kill {
        /// Its number.
        slot: u16,
    },
    /// Send a slot's worker a signal.
    Send {
        /// Its number.
        slot: u16,
        /// By name or number: USR2, SIGUSR2, 12.
        signal: String,
    },
    /// What has happened.
    Events(follow::Events),
    /// Show the levels of the primary's log, or change them until it ends.
    LogLevel {
        /// For all parts, and for single ones: debug; info,frontend=debug. `configured` for those
        /// of the configuration.
        levels: Option<String>,
    },
    /// Bring clients that went elsewhere while their slot was away back to it: WebSockets that can
    /// move at once, others with their next connection.
    Rebalance,
    /// What workers print, with their slot before each line.
    Logs(follow::Logs),
}

/// All commands with all of their flags.
pub(super) fn augment(command: clap::Command) -> clap::Command {
    let names = definitions();
    let names: Vec<_> = names.get_subcommands().map(clap::Command::get_name).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, Reach::augment))
}

/// Whether it is the name of a command.
pub(super) fn is_command(word: &str) -> bool {
    // `top` is one that asks more than once.
    matches!(word, "top" | "monit") || definitions().find_subcommand(word).is_some()
}

fn definitions() -> clap::Command {
    Command::augment_subcommands(clap::Command::default())
}

impl Reach {
    fn augment(command: clap::Command) -> clap::Command {
        <Self as clap::Args>::augment_args(command)
    }
}

/// Carries out a command.
///
/// # Errors
///
/// If there is no primary, it says no, or what it says cannot be shown.
pub(super) fn run(command: Command, matches: &ArgMatches) -> Result<(), Failure> {
    // What was defined for each command was parsed with it.
    let reach = Reach::from_arg_matches(matches).map_err(|error| misunderstood(&error))?;
    let operator = &mut Operator::find(&reach)?;
    match command {
        Command::Status => show::status(operator),
        Command::Workers => show::workers(operator),
        Command::Describe { slot } => show::describe(operator, slot),
        Command::Where(client) => clients::whereabouts(operator, client),
        Command::Conns(wanted) => clients::connections(operator, &wanted),
        Command::Reload => reload::reload(operator),
        Command::Upgrade => upgrade::upgrade(operator),
        Command::Scale(scale) => steer::scale(operator, scale),
        Command::Drain { slot, wait } => steer::drain(operator, slot, wait),
        Command::Undrain { slot } => steer::undrain(operator, slot),
        Command::Restart { slot } => steer::restart(operator, slot),
        Command::Stop { now } => steer::stop(operator, now),
        Command::Kill { slot } => steer::kill(operator, slot),
        Command::Send { slot, signal } => steer::send(operator, slot, signal),
        Command::Events(wanted) => follow::events(operator, &wanted),
        Command::LogLevel { levels } => steer::log_level(operator, levels),
        Command::Rebalance => steer::rebalance(operator),
        Command::Logs(wanted) => follow::logs(operator, &wanted),
    }
}

fn misunderstood(error: &clap::Error) -> Failure {
    ClientError::Problem(Problem::new(Code::BadRequest, error.to_string())).into()
}
