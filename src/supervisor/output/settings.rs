//! How the output of workers is written.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Where workers' lines go, and how they look there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSettings {
    /// The app's name, in file names and JSON.
    pub name: String,
    /// When lines on standard output and standard error are preceded by their slot: `3 | `.
    pub prefix: Prefix,
    /// A file for standard output, one for all workers or one for each.
    pub out_file: Option<PathBuf>,
    /// A file for standard error.
    pub error_file: Option<PathBuf>,
    /// A file for both.
    pub log_file: Option<PathBuf>,
    /// Workers share a file; else each has its own, with its slot in the name.
    pub merge_logs: bool,
    /// How lines in files look.
    pub format: LogFormat,
    /// How times are written before lines in files: strftime, or day.js tokens as PM2 takes them.
    pub date_format: Option<String>,
    /// A file of so many bytes is rotated.
    pub rotate_size: Option<u64>,
    /// A file of that age is rotated.
    pub rotate_interval: Option<Duration>,
    /// Rotated files that are kept.
    pub rotate_keep: u32,
    /// The mode of new files, less this process's mask.
    pub file_mode: u32,
    /// Files are opened only where nobody but root and this process's user could lead their paths
    /// elsewhere: workers run as another user, who gains this one's rights otherwise.
    pub guarded: bool,
}

impl OutputSettings {
    /// Whether lines in files are as workers have written them.
    pub(super) fn is_plain(&self) -> bool {
        self.format == LogFormat::Text && self.date_format.is_none()
    }
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self {
            name: "app".to_owned(),
            prefix: Prefix::Auto,
            out_file: None,
            error_file: None,
            log_file: None,
            merge_logs: false,
            format: LogFormat::Text,
            date_format: None,
            rotate_size: None,
            rotate_interval: None,
            rotate_keep: 10,
            file_mode: 0o640,
            guarded: false,
        }
    }
}

/// When lines on standard output and standard error are preceded by their slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// Where it is a terminal.
    Auto,
    /// Always; in colour where it is a terminal.
    Always,
    /// Never.
    Never,
}

/// How lines in files look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// As the worker wrote them.
    Text,
    /// JSON objects with PM2's keys.
    Json,
}

/// Why output cannot go where it is wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// There is no such format.
    #[error("date format {format:?} is wrong: {reason}")]
    DateFormat {
        /// The text.
        format: String,
        /// The reason.
        reason: String,
    },
    /// A file cannot be opened.
    #[error("cannot open log file {path:?}")]
    File {
        /// The path.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses a thread or a descriptor.
    #[error("cannot take what workers print")]
    Start(#[from] io::Error),
}
