//! What may be typed: commands, and flags that are no settings.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::settings::table::Arguments;

/// One port, many worker processes, every client stays with its own.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, args_override_self = true)]
#[command(after_help = "\
Each flag is a key of sticky-lb.toml too: --max-restarts is max_restarts. Flags win over the
environment (PORT for --port, WEB_CONCURRENCY for --workers), that over the file. Times: 250ms,
10s, 5m, a bare number is milliseconds; sizes: 512K, 300M, 1G, a bare number is bytes.")]
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
    /// Watch everything live in a terminal, and steer it by keys.
    #[command(visible_alias = "monit")]
    Top(Top),
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

#[derive(Debug, Args)]
pub(super) struct Top {
    /// The primary of this name, where several run.
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// The primary with this control socket.
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_flags_is_sound() {
        Cli::command().debug_assert();
    }
}
