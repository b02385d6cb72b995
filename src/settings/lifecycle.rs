//! Timeouts of a worker's start and end, and restarts after a crash.

use std::time::Duration;

use clap::Args;

use crate::link::interface::{Interface, InterfaceChoice};
use crate::settings::drain::Drain;
use crate::settings::problems::Problems;
use crate::settings::units::{Memory, duration, interval, memory, within};
use crate::supervisor::lifecycle::LifecycleSettings;
use crate::supervisor::restart::RestartPolicy;
use crate::supervisor::rollout::RolloutSettings;

/// How long the start of a native worker may take.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(3);
/// And one of a program for Node, which may have to compile much first.
const NODE_LISTEN_TIMEOUT: Duration = Duration::from_secs(15);

/// Start and end of workers.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Start and stop of workers")]
pub struct Lifecycle {
    /// Wait until a worker says that it is ready; if false, it serves as soon as it has attached, a Node worker as soon
    /// as it listens, and a listen worker as soon as it takes a connection of the primary's own [default: true, for
    /// Node and listen workers false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set)]
    pub wait_ready: Option<bool>,
    /// Treat a start as failed if the worker is not ready by then [default: 3s, 15s for workers that may
    /// be Node workers, and for listen workers].
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub listen_timeout: Option<Duration>,
    /// Let at most this many replaced workers of a slot drain at the same time.
    #[arg(long, value_name = "N", default_value = "2", value_parser = within(1..=1024_u16))]
    pub max_draining: u16,
    /// Keep this many spare workers ready per slot; with 1, the spare takes over at once when the
    /// serving worker crashes. A spare uses as much memory as any idle worker.
    #[arg(long, value_name = "N", default_value = "0", value_parser = within(0..=1_u16))]
    pub spares: u16,
    /// Let draining workers use at most this much memory together, `1G` or `20%` [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub max_draining_memory: Option<Memory>,
    /// Replace this many slots at a time in a rolling restart.
    #[arg(long, value_name = "N", default_value = "1", value_parser = within(1..=1024_u16))]
    pub parallel: u16,
    /// Accept connections for this long after the order to stop (lame duck) [default: 0, under
    /// Kubernetes 5s].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub lameduck: Option<Duration>,
    /// Let workers serve for this long without a primary.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub orphan_timeout: Duration,
}

/// Restarts after a crash.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Restarts after a crash")]
pub struct Restarts {
    /// Restart a worker that has exited by itself.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    pub autorestart: bool,
    /// Do not restart a worker that exits with one of these codes [default: none].
    #[arg(long, value_name = "CODE,...", value_delimiter = ',', value_parser = within(0..=255_i32))]
    pub stop_exit_codes: Vec<i32>,
    /// Count a crash as early if the worker served for less than this; the back-off then applies.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub min_uptime: Duration,
    /// Wait at least this long before any restart.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration)]
    pub restart_delay: Duration,
    /// Wait this long after the first early crash, and twice as long after each further one.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = interval)]
    pub exp_backoff_restart_delay: Duration,
    /// Wait at most this long after an early crash.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = interval)]
    pub exp_backoff_max_delay: Duration,
    /// Give a slot up after this many crashes within `restart_window`.
    #[arg(long, value_name = "N", default_value = "16", value_parser = within(1..=u32::MAX))]
    pub max_restarts: u32,
    /// Count crashes over this time for `max_restarts`.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = interval)]
    pub restart_window: Duration,
}

impl Lifecycle {
    pub(super) fn lifecycle(
        &self,
        drain: &Drain,
        restart: RestartPolicy,
        interface: InterfaceChoice,
    ) -> LifecycleSettings {
        let is_native = interface == InterfaceChoice::Only(Interface::Native);
        let usual = if is_native { LISTEN_TIMEOUT } else { NODE_LISTEN_TIMEOUT };
        LifecycleSettings {
            listen_timeout: self.listen_timeout.unwrap_or(usual),
            kill_timeout: drain.kill_timeout,
            drain_timeout: drain.drain_timeout(),
            signal_drain_timeout: drain.signal_drain_timeout(),
            signal_at_once: interface == InterfaceChoice::Only(Interface::Listen),
            drain: drain.mode(),
            max_draining: self.max_draining,
            spare: self.spares > 0,
            restart,
        }
    }

    /// Whether a worker that has attached, or a listen worker that takes connections, serves only when it says that it
    /// is ready. Node's link has its own rule.
    pub(super) fn waits_for_ready(&self, interface: InterfaceChoice) -> bool {
        let listens = interface == InterfaceChoice::Only(Interface::Listen);
        self.wait_ready.unwrap_or(!listens)
    }

    pub(super) fn rollout(&self, total_memory: u64) -> RolloutSettings {
        let max_draining_memory = self.max_draining_memory.map(|memory| memory.of(total_memory));
        RolloutSettings { parallel: self.parallel, max_draining_memory }
    }

    /// Kubernetes still sends connections for a while after it has ordered the stop.
    pub(super) fn lameduck(&self) -> Duration {
        let kubernetes = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let usual = if kubernetes { Duration::from_secs(5) } else { Duration::ZERO };
        self.lameduck.unwrap_or(usual)
    }
}

impl Restarts {
    pub(super) fn policy(&self, problems: &mut Problems) -> RestartPolicy {
        if self.exp_backoff_max_delay < self.exp_backoff_restart_delay {
            let text = "is shorter than exp_backoff_restart_delay, the first back-off".to_owned();
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
