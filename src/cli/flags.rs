//! What may be typed: commands, and flags that are no settings.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::cli::commands;
use crate::cli::operator::Which;
use crate::settings::table::Arguments;

/// One port, many worker processes, every client stays with its own.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, args_override_self = true)]
#[command(after_help = "\
Each flag is a key of sticky-lb.toml too: --max-restarts is max_restarts. Flags win over the
environment (PORT for --port, WEB_CONCURRENCY for --workers), that over the file. Times: 250ms,
10s, 5m, a bare number is milliseconds; sizes: 512K, 300M, 1G, a bare number is bytes.

Exit codes: 0 done; 1 failed; 2 wrong usage; 130 when Ctrl-C ends the waiting for what goes on.")]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) run: Arguments,
    #[command(subcommand)]
    pub(super) command: Option<SubCommand>,
}

#[derive(Debug, Subcommand)]
pub(super) enum SubCommand {
    /// Check flags and configuration file, and say what results.
    #[command(args_override_self = true)]
    Check(Box<Check>),
    /// Write a configuration file: with every key and its default, or from one of PM2.
    Init(Init),
    #[command(flatten)]
    Operate(commands::Command),
    /// Print what a shell reads to complete the command line.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page: `sticky-lb man | man -l -`.
    Man,
    /// Watch everything live in a terminal, and steer it by keys.
    #[command(visible_alias = "monit")]
    Top(Which),
    /// What is run as a worker where no command is given.
    #[command(hide = true)]
    DemoWorker {
        /// Serve this address itself, without a primary, sharing it with others that do (for
        /// benchmarks).
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// As JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Say whether what a running primary leaves to its successor is understood: the number of an
    /// inherited descriptor.
    #[arg(long, value_name = "DESCRIPTOR", hide = true)]
    pub(super) state: Option<i32>,
    #[command(flatten)]
    pub(super) run: Arguments,
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// File to write [default: sticky-lb.toml].
    pub(super) file: Option<PathBuf>,
    /// Write it even if there is one already.
    #[arg(long)]
    pub(super) force: bool,
    /// Write what a file of PM2 says: ecosystem.config.js, .json or .yaml.
    #[arg(long, value_name = "FILE")]
    pub(super) from_pm2: Option<PathBuf>,
    /// The app in that file, where there are several.
    #[arg(long, value_name = "NAME", requires = "from_pm2")]
    pub(super) app: Option<String>,
}

/// All that may be typed.
pub(super) fn command() -> clap::Command {
    commands::augment(Cli::command())
}

/// Which primary is meant may be said before the command too: `--name` and `--control` are settings
/// only where none follows.
pub(super) fn command_first(mut words: Vec<OsString>) -> Vec<OsString> {
    let mut at = 1;
    while let Some(word) = words.get(at).and_then(|word| word.to_str()) {
        match word.split('=').next() {
            Some("--name" | "--control") => at += if word.contains('=') { 1 } else { 2 },
            _ => break,
        }
    }
    let is_command = words.get(at).and_then(|word| word.to_str()).is_some_and(commands::is_command);
    if is_command {
        words[1..=at].rotate_right(1);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_flags_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn which_primary_is_meant_may_come_first() {
        let ordered = |line: &str| {
            let words = command_first(line.split(' ').map(OsString::from).collect());
            words.join(OsString::from(" ").as_os_str()).into_string().unwrap()
        };
        for (line, expected) in [
            ("it --name x status --json", "it status --name x --json"),
            ("it --name=x --control y ls", "it ls --name=x --control y"),
            ("it status --name x", "it status --name x"),
            // A run.
            ("it --name status", "it --name status"),
            ("it --name x --port 1", "it --name x --port 1"),
            ("it --name x check", "it --name x check"),
            ("it", "it"),
        ] {
            assert_eq!(ordered(line), expected);
        }
    }
}
