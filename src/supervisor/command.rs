//! What a worker runs, and in which surroundings.
//!
//! Data only: `process` starts it.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::supervisor::text;

/// What a worker runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCommand {
    /// Looked for in `PATH` unless it has a slash; a relative path starts at `directory`.
    #[serde(with = "text")]
    pub program: OsString,
    /// Its arguments.
    #[serde(with = "text::list")]
    pub arguments: Vec<OsString>,
    /// Where it runs; where the primary runs if `None`.
    #[serde(with = "text::maybe")]
    pub directory: Option<PathBuf>,
    /// The variables that are set for it, beside those that every worker gets.
    #[serde(with = "text::pairs")]
    pub environment: Vec<(OsString, OsString)>,
    /// Which of the primary's own variables it inherits.
    pub inherited: InheritedVariables,
    /// Whom it runs as; as the primary if `None`.
    pub user: Option<User>,
    /// Its file mode creation mask; the primary's if `None`.
    pub umask: Option<u32>,
    /// Its niceness, from -20 to 19; the primary's if `None`.
    pub nice: Option<i32>,
}

/// Which of the primary's own variables a worker inherits. What concerns the primary alone
/// (`STICKY_LB_*` but `STICKY_LB_LOG`, systemd's, a Node parent's) it never does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InheritedVariables {
    /// All.
    #[default]
    All,
    /// None but `PATH`, `HOME`, `USER`, `LANG`, `TZ` and their like.
    Few,
    /// All but those whose names begin so.
    Without(Vec<String>),
}

/// Whom a worker runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its name, for `USER` and `LOGNAME`, if it has one.
    pub name: Option<String>,
    /// Its home, for `HOME`, if it has one.
    #[serde(with = "text::maybe")]
    pub home: Option<PathBuf>,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
}
