//! How long each phase of a worker may take, and what follows its end.

use std::time::Duration;

use clap::Args;

use crate::settings::drain::Drain;
use crate::settings::problems::Problems;
use crate::settings::units::{Memory, duration, interval, memory, within};
use crate::supervisor::lifecycle::LifecycleSettings;
use crate::supervisor::restart::RestartPolicy;
use crate::supervisor::rollout::RolloutSettings;

/// Start and end of a worker.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Start and end of a worker")]
pub struct Lifecycle {
    /// A worker serves when it says that it is ready; else as soon as it has attached.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    pub wait_ready: bool,
    /// A worker that isn't ready by then has failed.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = interval)]
    pub listen_timeout: Duration,
    /// Replaced workers of a slot that may drain at a time.
    #[arg(long, value_name = "N", default_value = "2", value_parser = within(1..=1024_u16))]
    pub max_draining: u16,
    /// Workers that each slot keeps ready beside the one that serves: with 1, one takes over in the
    /// moment in which that one dies. They take memory like the others.
    #[arg(long, value_name = "N", default_value = "0", value_parser = within(0..=1_u16))]
    pub spares: u16,
    /// Memory that draining workers may take together, `1G` or `20%` [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub max_draining_memory: Option<Memory>,
    /// Slots of a rolling restart that are replaced at the same time.
    #[arg(long, value_name = "N", default_value = "1", value_parser = within(1..=1024_u16))]
    pub parallel: u16,
    /// From the order to stop until connections are no longer accepted [default: 0, under
    /// Kubernetes 5s].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub lameduck: Option<Duration>,
    /// How long workers go on serving when the primary is gone.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub orphan_timeout: Duration,
}

/// What follows a worker that died.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "After a worker died")]
pub struct Restarts {
    /// Whether a worker that died is followed by another.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    pub autorestart: bool,
    /// Exit codes after which it is not [default: none].
    #[arg(long, value_name = "CODE,...", value_delimiter = ',', value_parser = within(0..=255_i32))]
    pub stop_exit_codes: Vec<i32>,
    /// A worker that served for less before it died came too soon: the next one starts after a
    /// pause, which doubles each time.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub min_uptime: Duration,
    /// Pause after any death, at least.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration)]
    pub restart_delay: Duration,
    /// First pause after a death that came too soon.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = interval)]
    pub exp_backoff_restart_delay: Duration,
    /// Longest such pause.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = interval)]
    pub exp_backoff_max_delay: Duration,
    /// A slot with so many crashes within the window is given up.
    #[arg(long, value_name = "N", default_value = "16", value_parser = within(1..=u32::MAX))]
    pub max_restarts: u32,
    /// How far back crashes are counted for that.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = interval)]
    pub restart_window: Duration,
}

impl Lifecycle {
    pub(super) fn lifecycle(&self, drain: &Drain, restart: RestartPolicy) -> LifecycleSettings {
        LifecycleSettings {
            listen_timeout: self.listen_timeout,
            kill_timeout: drain.kill_timeout,
            drain_timeout: drain.drain_timeout,
            drain: drain.mode(),
            max_draining: self.max_draining,
            spare: self.spares > 0,
            restart,
        }
    }

    pub(super) fn rollout(&self, total_memory: u64) -> RolloutSettings {
        let max_draining_memory = self.max_draining_memory.map(|memory| memory.of(total_memory));
        RolloutSettings { parallel: self.parallel, max_draining_memory }
    }

    /// Kubernetes goes on sending connections for a while after it has said stop.
    pub(super) fn lameduck(&self) -> Duration {
        let kubernetes = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let usual = if kubernetes { Duration::from_secs(5) } else { Duration::ZERO };
        self.lameduck.unwrap_or(usual)
    }
}

impl Restarts {
    pub(super) fn policy(&self, problems: &mut Problems) -> RestartPolicy {
        if self.exp_backoff_max_delay < self.exp_backoff_restart_delay {
            let text = "is shorter than exp_backoff_restart_delay, the first pause".to_owned();
            problems.note("exp_backoff_max_delay", text);
        }
        RestartPolicy {
            autorestart: self.autorestart,
            stop_exit_codes: self.stop_exit_codes.clone(),
            restart_delay: self.restart_delay,
            first_delay: self.exp_backoff_restart_delay,
            longest_delay: self.exp_backoff_max_delay,
            min_uptime: self.min_uptime,
            max_restarts: self.max_restarts,
            restart_window: self.restart_window,
            ..RestartPolicy::DEFAULT
        }
    }
}
