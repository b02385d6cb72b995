//! The primary itself as plain data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::handover::settings::DispatchSnapshot;
use crate::protocol::ids::Timestamp;

/// A primary without its parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrimarySnapshot {
    /// When the first of all was started.
    pub started: Timestamp,
    pub replacements: ReplacementsSnapshot,
    /// The text of the configuration file that it runs on.
    pub source: Option<String>,
    /// The secret of its affinity keys.
    pub secret: Vec<u8>,
    /// The token of its admin listener, if that comes from a file.
    pub token: Option<String>,
    pub control: Option<ControlSocketSnapshot>,
    /// The address that the configuration gives to the admin listener.
    pub admin: Option<String>,
    /// All workers were ready once, and the event was sent.
    pub all_ready: bool,
    /// Who picks the worker of a client.
    #[serde(default)]
    pub dispatch: DispatchSnapshot,
    /// The settings that the listener was opened by; none if a service manager has opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerSnapshot>,
}

/// The settings that a listener was opened by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerSnapshot {
    pub host: Option<String>,
    pub port: u16,
    pub backlog: i32,
}

/// How often primaries were replaced.
#[derive(Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplacementsSnapshot {
    pub upgrades: u64,
    pub recoveries: u64,
    pub failed_upgrades: u64,
    pub upgrade_failed: Option<String>,
}

/// Where the control socket is, and the settings that it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlSocketSnapshot {
    pub path: PathBuf,
    pub wanted: Option<PathBuf>,
    pub name: String,
}
