//! The settings that a pool runs on, as plain data.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::handover::{carry, text};
use crate::protocol::drain::DrainMode;

/// The settings of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolSettingsSnapshot {
    pub workers: u16,
    #[serde(default)]
    pub configured_workers: u16,
    pub weights: Vec<f64>,
    pub command: WorkerCommandSnapshot,
    pub port: u16,
    pub interface: InterfaceChoiceSnapshot,
    #[serde(default)]
    pub dispatch: DispatchSnapshot,
    pub node: NodeSettingsSnapshot,
    pub credits: usize,
    pub slot_wait: Duration,
    pub wait_ready: bool,
    pub lifecycle: LifecycleSettingsSnapshot,
    pub stop_signal: i32,
    pub rollout: RolloutSettingsSnapshot,
    pub autoscale: Option<AutoscaleSettingsSnapshot>,
    pub contiguous: bool,
    pub limits: LimitSettingsSnapshot,
    pub watchdog_timeout: Option<Duration>,
    pub orphan_timeout: Duration,
    pub heartbeat: Option<Duration>,
    pub migrate_timeout: Duration,
    pub protect: bool,
    pub lameduck: Duration,
}

/// What a worker speaks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum InterfaceSnapshot {
    Native,
    Node,
    Listen,
}

/// Who picks the worker of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum DispatchSnapshot {
    #[default]
    Primary,
    Kernel,
    Os,
}

/// What workers may speak.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum InterfaceChoiceSnapshot {
    Auto,
    Only(InterfaceSnapshot),
}

/// How Node workers are spoken to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeSettingsSnapshot {
    pub wait_ready: bool,
    pub hand_over_by: HandOverBySnapshot,
    pub shutdown_message: Option<String>,
    pub ticket_keys: String,
}

/// How a Node worker gets a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HandOverBySnapshot {
    Listening,
    Message(String),
}

/// The command of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerCommandSnapshot {
    #[serde(with = "text")]
    pub program: OsString,
    #[serde(with = "text::list")]
    pub arguments: Vec<OsString>,
    #[serde(with = "text::maybe")]
    pub directory: Option<PathBuf>,
    #[serde(with = "text::pairs")]
    pub environment: Vec<(OsString, OsString)>,
    pub inherited: InheritedVariablesSnapshot,
    pub user: Option<UserSnapshot>,
    pub umask: Option<u32>,
    pub nice: Option<i32>,
    pub no_new_privs: bool,
    pub drop_capabilities: bool,
}

/// The variables of the primary that a worker inherits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum InheritedVariablesSnapshot {
    All,
    Few,
    Without(Vec<String>),
}

/// The user that a worker runs as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserSnapshot {
    pub name: Option<String>,
    #[serde(with = "text::maybe")]
    pub home: Option<PathBuf>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// How long each phase of a worker's life may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LifecycleSettingsSnapshot {
    pub listen_timeout: Duration,
    pub kill_timeout: Duration,
    pub drain_timeout: Duration,
    pub signal_drain_timeout: Duration,
    #[serde(default)]
    pub signal_at_once: bool,
    pub drain: DrainModeSnapshot,
    pub max_draining: u16,
    pub spare: bool,
    pub restart: RestartPolicySnapshot,
}

/// The fate of the WebSockets of a worker that drains.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DrainModeSnapshot {
    Migrate,
    Close,
    Wait,
}

/// When to start a worker again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestartPolicySnapshot {
    pub autorestart: bool,
    pub stop_exit_codes: Vec<i32>,
    pub restart_delay: Duration,
    pub first_delay: Duration,
    pub longest_delay: Duration,
    pub min_uptime: Duration,
    pub max_restarts: u32,
    pub restart_window: Duration,
    pub start_attempts: u32,
}

/// How workers are replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutSettingsSnapshot {
    pub parallel: u16,
    pub max_draining_memory: Option<u64>,
}

/// When to have more workers and when fewer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AutoscaleSettingsSnapshot {
    pub min_workers: u16,
    pub max_workers: u16,
    pub measure: LoadMeasureSnapshot,
    pub scale_up_load: f64,
    pub scale_down_load: f64,
    pub interval: Duration,
    pub scale_down_after: Duration,
}

/// The load that is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LoadMeasureSnapshot {
    Connections,
    Requests,
    Cpu,
    Lag,
}

/// How much a worker may use before it is replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitSettingsSnapshot {
    pub max_memory_restart: Option<u64>,
    pub max_memory_kill: Option<u64>,
    pub max_age: Option<Duration>,
    pub max_connections_served: Option<u64>,
}

carry!(enum DrainMode => DrainModeSnapshot { Migrate, Close, Wait });
