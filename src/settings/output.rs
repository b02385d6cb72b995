//! What becomes of what workers print.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::settings::units::{interval, size, within};
use crate::supervisor::output::{LogFormat, OutputSettings, Prefix};

/// Where workers' lines go, and how they look there.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Workers' output")]
pub struct Output {
    /// When lines on standard output are preceded by their slot, `3 | `.
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub log_prefix: PrefixArg,
    /// File for workers' standard output [default: none].
    #[arg(long, value_name = "FILE")]
    pub out_file: Option<PathBuf>,
    /// File for workers' standard error [default: none].
    #[arg(long, value_name = "FILE")]
    pub error_file: Option<PathBuf>,
    /// File for both [default: none].
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// All workers share a file; else each has its own, with its slot in the name.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
    pub merge_logs: bool,
    /// What lines in files look like.
    #[arg(long, alias = "log-type", value_enum, default_value = "text")]
    pub log_format: FormatArg,
    /// Time before each line in a file: strftime, or day.js tokens as PM2 takes them [default:
    /// none].
    #[arg(long, value_name = "FORMAT")]
    pub log_date_format: Option<String>,
    /// Size at which a file is rotated [default: never].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub log_rotate_size: Option<u64>,
    /// Age at which a file is rotated [default: never].
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub log_rotate_interval: Option<Duration>,
    /// Rotated files that are kept.
    #[arg(long, value_name = "N", default_value = "10", value_parser = within(0..=u32::MAX))]
    pub log_rotate_keep: u32,
}

/// When lines on standard output are preceded by their slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrefixArg {
    /// Where it is a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What lines in files look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// As the worker wrote them.
    Text,
    /// JSON objects with PM2's keys.
    Json,
}

impl Output {
    pub(super) fn output(&self, name: &str) -> OutputSettings {
        OutputSettings {
            name: name.to_owned(),
            prefix: match self.log_prefix {
                PrefixArg::Auto => Prefix::Auto,
                PrefixArg::Always => Prefix::Always,
                PrefixArg::Never => Prefix::Never,
            },
            out_file: self.out_file.clone(),
            error_file: self.error_file.clone(),
            log_file: self.log_file.clone(),
            merge_logs: self.merge_logs,
            format: match self.log_format {
                FormatArg::Text => LogFormat::Text,
                FormatArg::Json => LogFormat::Json,
            },
            date_format: self.log_date_format.clone(),
            rotate_size: self.log_rotate_size,
            rotate_interval: self.log_rotate_interval,
            rotate_keep: self.log_rotate_keep,
        }
    }
}
