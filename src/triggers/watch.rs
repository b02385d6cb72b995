//! A change of a file that is worth a rolling restart.

use std::path::PathBuf;
use std::time::Duration;

/// Which changes count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSettings {
    /// Files, and folders with all that is in them.
    pub paths: Vec<PathBuf>,
    /// Names and patterns of what doesn't count.
    pub ignore: Vec<String>,
    /// So long nothing has to change any more.
    pub delay: Duration,
}
