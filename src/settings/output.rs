//! Workers' output: files, formats, rotation.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::settings::problems::Problems;
use crate::settings::units::{file_mode, interval, size, within};
use crate::supervisor::output::{LogFormat, OutputSettings, Prefix, check_date_format};

/// PM2's word for no file.
pub(super) const NO_FILE: &str = "NULL";

/// Files, formats and rotation of workers' output.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Workers' output")]
pub struct Output {
    /// Choose when lines on standard output start with their slot, `3 | `.
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub log_prefix: PrefixArg,
    /// Write workers' standard output to this file; NULL and /dev/null are none [default: none].
    #[arg(long, value_name = "FILE")]
    pub out_file: Option<PathBuf>,
    /// Write workers' standard error to this file; NULL and /dev/null are none [default: none].
    #[arg(long, value_name = "FILE")]
    pub error_file: Option<PathBuf>,
    /// Write both to this file; NULL and /dev/null are none [default: none].
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Write all workers' lines to one file; if false, each slot has its own, with the slot in its name.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
    pub merge_logs: bool,
    /// Write lines in files in this format.
    #[arg(long, alias = "log-type", value_enum, default_value = "text")]
    pub log_format: FormatArg,
    /// Put the time before each line in a file, in this format: strftime, or day.js tokens as in PM2
    /// [default: none].
    #[arg(long, value_name = "FORMAT")]
    pub log_date_format: Option<String>,
    /// Rotate a file at this size [default: never].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub log_rotate_size: Option<u64>,
    /// Rotate a file at this age [default: never].
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub log_rotate_interval: Option<Duration>,
    /// Keep this many rotated files.
    #[arg(long, value_name = "N", default_value = "10", value_parser = within(0..=u32::MAX))]
    pub log_rotate_keep: u32,
    /// Create log files with this mode, in octal, less the primary's umask.
    #[arg(long, value_name = "MODE", default_value = "640", value_parser = file_mode)]
    pub log_file_mode: u32,
}

/// When lines on standard output start with their slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrefixArg {
    /// If standard output is a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Format of lines in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// As the worker wrote them.
    Text,
    /// One JSON object per line, with the keys of PM2.
    Json,
}

impl Output {
    /// `guarded` if workers run as another user than the primary.
    pub(super) fn output(
        &self,
        name: &str,
        guarded: bool,
        problems: &mut Problems,
    ) -> OutputSettings {
        if let Some(Err(error)) = self.log_date_format.as_deref().map(check_date_format) {
            problems.note("log_date_format", error.to_string());
        }
        OutputSettings {
            name: name.to_owned(),
            prefix: match self.log_prefix {
                PrefixArg::Auto => Prefix::Auto,
                PrefixArg::Always => Prefix::Always,
                PrefixArg::Never => Prefix::Never,
            },
            out_file: file(self.out_file.as_ref()),
            error_file: file(self.error_file.as_ref()),
            log_file: file(self.log_file.as_ref()),
            merge_logs: self.merge_logs,
            format: match self.log_format {
                FormatArg::Text => LogFormat::Text,
                FormatArg::Json => LogFormat::Json,
            },
            date_format: self.log_date_format.clone(),
            rotate_size: self.log_rotate_size,
            rotate_interval: self.log_rotate_interval,
            rotate_keep: self.log_rotate_keep,
            file_mode: self.log_file_mode,
            guarded,
        }
    }
}

/// The file, unless it stands for none.
fn file(named: Option<&PathBuf>) -> Option<PathBuf> {
    named.filter(|path| **path != Path::new(NO_FILE) && **path != Path::new("/dev/null")).cloned()
}
