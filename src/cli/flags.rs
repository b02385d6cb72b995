//! The command line: commands, and flags that are no settings.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::cli::client::PrimaryArgs;
use crate::cli::commands;
use crate::cli::conformance::Conformance;
use crate::settings::table::Arguments;

const USAGE: &str = "\
sticky-lb [OPTIONS] [-- COMMAND [ARGS]...]   run COMMAND as workers; without it, a demo
  sticky-lb COMMAND [OPTIONS]                  look at a running primary, or steer it";

const AFTER_HELP: &str = "\
Each flag but --config, --env and --events-fd is also a key of sticky-lb.toml: --max-restarts is
max_restarts. Flags override the environment (PORT for --port, WEB_CONCURRENCY for --workers), which
overrides the file.
Times: 250ms, 10s, 5m; a bare number is milliseconds. Sizes: 512K, 300M, 1G; a bare number is bytes.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 waiting ended by Ctrl-C.

Examples:
  sticky-lb --workers 4 --port 8080 -- ./server --verbose   run four workers of ./server
  sticky-lb reload                                          replace them, one after the other";

/// The commands, as the help groups them.
const GROUPS: [(&str, &[&str]); 3] = [
    ("Look", &["status", "workers", "describe", "top", "where", "conns", "events", "logs"]),
    (
        "Steer",
        &[
            "reload",
            "upgrade",
            "scale",
            "drain",
            "undrain",
            "restart",
            "rebalance",
            "signal",
            "kill",
            "log-level",
            "stop",
        ],
    ),
    ("Set up", &["init", "check", "conformance", "completions", "man"]),
];

/// One port, many worker processes, every client stays with its own.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, args_override_self = true)]
#[command(after_help = AFTER_HELP, override_usage = "\
sticky-lb [OPTIONS] [-- COMMAND [ARGS]...]
  sticky-lb COMMAND [OPTIONS]")]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) run: Arguments,
    #[command(subcommand)]
    pub(super) command: Option<SubCommand>,
}

#[derive(Debug, Subcommand)]
pub(super) enum SubCommand {
    /// Check flags and configuration file and print all settings.
    #[command(args_override_self = true)]
    Check(Box<Check>),
    /// Check whether a program is a good worker.
    ///
    /// Plays the primary, with no primary running, and says check by check what the worker does. Exit code 1 if a check
    /// failed.
    Conformance(Conformance),
    /// Write a configuration file of all defaults, or convert PM2's.
    Init(Init),
    #[command(flatten)]
    Operate(commands::Command),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page; read it by `sticky-lb man | man -l -`.
    Man,
    /// Watch the primary live in a terminal, and steer it by keys.
    #[command(visible_alias = "monit")]
    Top(PrimaryArgs),
    /// Run the demo, which is the worker where no command is given.
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
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Check whether this program understands a running primary's state, given as the number of an
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
    /// Overwrite an existing file.
    #[arg(long)]
    pub(super) force: bool,
    /// Convert a file of PM2: ecosystem.config.js, .json or .yaml.
    #[arg(long, value_name = "FILE")]
    pub(super) from_pm2: Option<PathBuf>,
    /// App in that file, where there are several.
    #[arg(long, value_name = "NAME", requires = "from_pm2")]
    pub(super) app: Option<String>,
}

/// The command line as it is parsed. Its help lists the commands by groups.
pub(super) fn command() -> clap::Command {
    let command = plain_command();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}}\n  {{usage}}\n\n{}{{all-args}}{{after-help}}",
        groups(&command)
    );
    let hidden = |command: clap::Command| command.hide(true);
    command.override_usage(USAGE).help_template(template).mut_subcommands(hidden)
}

/// The command line with commands that documents are generated from.
pub(super) fn plain_command() -> clap::Command {
    commands::augment(Cli::command())
}

/// Whether the command is for the program's own use.
pub(super) fn is_internal(command: &clap::Command) -> bool {
    command.get_name() == "demo-worker"
}

/// The commands with a line each.
fn groups(command: &clap::Command) -> String {
    let about = |name: &str| {
        let about = command.find_subcommand(name).and_then(clap::Command::get_about);
        about.map(ToString::to_string).unwrap_or_default()
    };
    let mut text = String::new();
    for (heading, names) in GROUPS {
        text += &format!("{heading}:\n");
        text.extend(names.iter().map(|name| format!("  {name:<12} {}\n", about(name))));
        text.push('\n');
    }
    text
}

/// `--name` and `--control` may also come before the command that they select a primary for: without a
/// command they are settings.
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
    fn each_command_is_in_one_group_and_says_what_it_does() {
        let command = plain_command();
        let visible = command.get_subcommands().filter(|it| !is_internal(it));
        let mut known: Vec<_> = visible.map(clap::Command::get_name).collect();
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        known.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, known);
        let text = groups(&command);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("\n  signal       Send a signal to a slot's worker\n"), "{text}");
    }

    #[test]
    fn the_primary_may_be_selected_before_the_command() {
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
