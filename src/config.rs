//! What the program runs on: the settings of its parts, gathered.
//!
//! Nothing here can be wrong any more: what was written is checked in `settings`.

use std::time::Duration;

use crate::control::settings::{AdminSettings, ControlSettings};
use crate::frontend::affinity::{DigestKind, Prefixes};
use crate::frontend::listener::ListenerSettings;
use crate::frontend::router::RouterSettings;
use crate::frontend::slot_table::SlotSettings;
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

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// The text of the file that this was read from, if there is one.
    pub source: Option<String>,
    /// The app's name.
    pub name: String,
    /// A keeper starts the primary again after a crash, which comes too soon if the primary has lived
    /// for less than that. `None` if there is to be no keeper.
    pub keeper: Option<Duration>,
    /// How many slots, 1 at least.
    pub workers: u16,
    /// What the workers run.
    pub command: WorkerCommand,
    /// Where to listen.
    pub listener: ListenerSettings,
    /// What names a client.
    pub affinity: AffinitySettings,
    /// How clients find their slots.
    pub router: RouterSettings,
    /// How long slots are patient.
    pub slots: SlotSettings,
    /// How fast clients are made to move.
    pub pace: PaceSettings,
    /// Connections that a worker may have unacknowledged.
    pub credits: usize,
    /// How long each phase of a worker may take.
    pub lifecycle: LifecycleSettings,
    /// A worker serves when it says that it is ready; else as soon as it has attached.
    pub wait_ready: bool,
    /// How replacements are done.
    pub rollout: RolloutSettings,
    /// When to have more workers and when fewer, if that is to be decided by load.
    pub autoscale: Option<AutoscaleSettings>,
    /// When workers are replaced.
    pub limits: LimitSettings,
    /// A worker whose event loop has stood still for so long is aborted; never if `None`.
    pub watchdog_timeout: Option<Duration>,
    /// A session that hasn't moved to another worker within that is sent away.
    pub migrate_timeout: Duration,
    /// Whether sessions whose apps say so survive the death of their worker.
    pub protect: bool,
    /// From the order to stop until connections are no longer accepted.
    pub lameduck: Duration,
    /// So long workers go on serving when the primary is gone.
    pub orphan_timeout: Duration,
    /// Which changes of files are worth a rolling restart.
    pub watch: Option<WatchSettings>,
    /// When to do a rolling restart.
    pub cron_restart: Option<Schedule>,
    /// What becomes of what workers print.
    pub output: OutputSettings,
    /// Where operators come in.
    pub control: ControlSettings,
    /// Where browsers, Prometheus and health checks come in, if anywhere.
    pub admin: Option<AdminSettings>,
    /// The primary's own log.
    pub log: LogSettings,
}

/// What names a client.
#[derive(Clone)]
pub struct AffinitySettings {
    /// The digest.
    pub digest: DigestKind,
    /// What nobody outside knows; may be empty.
    pub secret: Vec<u8>,
    /// How much of an address counts.
    pub prefixes: Prefixes,
}

impl std::fmt::Debug for AffinitySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the secret.
        f.debug_struct("AffinitySettings")
            .field("digest", &self.digest)
            .field("prefixes", &self.prefixes)
            .finish_non_exhaustive()
    }
}
