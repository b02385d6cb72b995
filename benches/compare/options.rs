//! What may be typed after `scripts/bench`, and the modes in which the program
//! runs itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Compares sticky-lb with other sticky fronts and prints one table.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench", disable_help_subcommand = true)]
pub(crate) struct Options {
    /// Worker processes behind every front.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    /// How long each figure is measured in a round.
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "0.7",
          default_value_if("quick", "true", "0.3"))]
    pub(crate) seconds: Duration,
    /// How often each front gets its turn; many short ones are better than few
    /// long ones where something else runs, too.
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=100),
          default_value = "9", default_value_if("quick", "true", "1"))]
    pub(crate) rounds: u32,
    /// Measures these fronts only.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) only: Vec<FrontName>,
    /// Writes the figures of every round there, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A smoke run of some seconds; its figures say little.
    #[arg(long)]
    pub(crate) quick: bool,
    /// `cargo bench` adds this. Without it (`cargo test --all-targets`)
    /// nothing is measured.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
    #[command(subcommand)]
    pub(crate) mode: Option<Mode>,
}

impl Options {
    pub(crate) fn fronts(&self) -> Vec<FrontName> {
        let wanted = |name: &FrontName| self.only.is_empty() || self.only.contains(name);
        FrontName::value_variants().iter().copied().filter(wanted).collect()
    }

    /// How many idle connections are held to weigh one of them.
    pub(crate) fn idle_connections(&self) -> usize {
        if self.quick { 500 } else { 5_000 }
    }
}

/// The rows, in the order of the table: the limits first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FrontName {
    Direct,
    Bare,
    StickyLb,
    /// With the admin listener on, a scrape a second and the dashboard open.
    Watched,
    Haproxy,
    Nginx,
    Node,
}

impl FrontName {
    /// The name in the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Bare => "bare hand-off",
            Self::StickyLb => "sticky-lb",
            Self::Watched => "sticky-lb, watched",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Node => "Node",
        }
    }
}

/// What the program is when a comparison runs it again.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Mode {
    /// The least that a front which hands descriptors over can do.
    #[command(hide = true)]
    BareFront {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        workers: u16,
    },
    /// A worker of the bare front; its channel is its standard input.
    #[command(hide = true)]
    BareWorker,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if !(0.05..=600.0).contains(&seconds) {
        return Err("must be between 0.05 and 600".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}
