//! The settings of all parts of the program, checked by `settings`.

use std::path::PathBuf;
use std::time::Duration;

use crate::bus::rules::Rules;
use crate::control::settings::{AdminSettings, ControlSettings};
use crate::frontend::affinity::{DigestKind, Prefixes};
use crate::frontend::listener::ListenerSettings;
use crate::frontend::placement::Placement;
use crate::frontend::router::RouterSettings;
use crate::frontend::slot_table::SlotSettings;
use crate::frontend::steering::program::Family;
use crate::link::interface::{Dispatch, InterfaceChoice};
use crate::link::node::settings::NodeSettings;
use crate::log::LogSettings;
use crate::sessions::close_requests::PaceSettings;
use crate::supervisor::autoscale::AutoscaleSettings;
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::lifecycle::LifecycleSettings;
use crate::supervisor::limits::LimitSettings;
use crate::supervisor::output::OutputSettings;
use crate::supervisor::rollout::RolloutSettings;
use crate::triggers::cron::Schedule;
use crate::triggers::watch::WatchSettings;

/// All settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The text of the configuration file, if there is one.
    pub source: Option<String>,
    /// Its path.
    pub file: Option<PathBuf>,
    /// What could not be read again by a successor, and is as its predecessor had it: a sentence each.
    pub not_renewed: Vec<String>,
    /// The app's name.
    pub name: String,
    /// Whether a keeper restarts the primary after a crash, and the uptime below which a crash counts
    /// as early.
    pub keeper: Option<Duration>,
    /// The listener.
    pub listener: ListenerSettings,
    /// The way from the listener to the workers.
    pub frontend: FrontendConfig,
    /// The workers.
    pub workers: WorkersConfig,
    /// What messages of Node workers' programs do.
    pub messages: Rules,
    /// Whether sessions can be protected from a crash of their worker.
    pub protect: bool,
    /// Automatic rolling restarts.
    pub triggers: TriggersConfig,
    /// Workers' output.
    pub output: OutputSettings,
    /// The control socket.
    pub control: ControlSettings,
    /// The admin listener, if there is one.
    pub admin: Option<AdminSettings>,
    /// The primary's own log.
    pub log: LogSettings,
}

/// The frontend's settings.
#[derive(Clone, Debug)]
pub struct FrontendConfig {
    /// Who picks the worker of a client.
    pub dispatch: Dispatch,
    /// The packets that workers' listening sockets get, where no host is given.
    pub family: Family,
    /// Affinity keys.
    pub affinity: AffinitySettings,
    /// Placement of connections on slots.
    pub router: RouterSettings,
    /// Queues and timeouts of slots.
    pub slots: SlotSettings,
    /// Rates of closed and rebalanced clients.
    pub pace: PaceSettings,
}

impl FrontendConfig {
    /// How slots are chosen, by whom they are.
    #[must_use]
    pub fn placement(&self) -> Placement {
        match self.dispatch {
            Dispatch::Primary => self.router.placement,
            Dispatch::Kernel => Placement::Kernel,
            Dispatch::Os => Placement::Random,
        }
    }
}

/// The workers' settings.
#[derive(Clone, Debug)]
pub struct WorkersConfig {
    /// The number of slots, at least 1.
    pub count: u16,
    /// When workers are added and removed by load, if they are.
    pub autoscale: Option<AutoscaleSettings>,
    /// The worker's process.
    pub command: WorkerCommand,
    /// Unacknowledged connections per worker.
    pub credits: usize,
    /// Timeouts of each phase of a worker, and restarts.
    pub lifecycle: LifecycleSettings,
    /// The number of the signal by which workers end that get no order.
    pub stop_signal: i32,
    /// Whether a native worker serves only when it says that it is ready.
    pub wait_ready: bool,
    /// What workers may speak.
    pub interface: InterfaceChoice,
    /// How Node workers are spoken to.
    pub node: NodeSettings,
    /// Rolling restarts.
    pub rollout: RolloutSettings,
    /// Limits at which a worker is replaced.
    pub limits: LimitSettings,
    /// How long an event loop may be blocked before its worker is aborted.
    pub watchdog_timeout: Option<Duration>,
    /// How long a migration may take before the session is closed instead.
    pub migrate_timeout: Duration,
    /// How long connections are accepted after the order to stop.
    pub lameduck: Duration,
    /// How long workers serve without a primary.
    pub orphan_timeout: Duration,
}

/// Automatic rolling restarts.
#[derive(Clone, Debug)]
pub struct TriggersConfig {
    /// Watched files.
    pub watch: Option<WatchSettings>,
    /// Times of day.
    pub cron_restart: Option<Schedule>,
}

/// Settings of affinity keys.
#[derive(Clone)]
pub struct AffinitySettings {
    /// The digest.
    pub digest: DigestKind,
    /// The secret in the digest; may be empty.
    pub secret: Vec<u8>,
    /// The part of an address in the key.
    pub prefixes: Prefixes,
}

impl std::fmt::Debug for AffinitySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the secret.
        f.debug_struct("AffinitySettings")
            .field("digest", &self.digest)
            .field("prefixes", &self.prefixes)
            .finish_non_exhaustive()
    }
}
