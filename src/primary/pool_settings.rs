//! The pool's settings: the configuration, and what only the primary knows.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::frontend::placement::Placement;
use crate::supervisor::pool::PoolSettings;

/// The pool's settings beside the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolContext {
    /// The port that the primary listens on.
    pub(super) port: u16,
    /// How often the service manager wants a sign of life.
    pub(super) heartbeat: Option<Duration>,
}

impl PoolContext {
    pub(super) fn settings(self, config: &Config) -> PoolSettings {
        let (frontend, workers) = (&config.frontend, &config.workers);
        PoolSettings {
            workers: workers.count,
            configured_workers: workers.count,
            weights: frontend.router.weights.clone(),
            command: Arc::new(workers.command.clone()),
            port: self.port,
            interface: workers.interface,
            dispatch: frontend.dispatch,
            node: Arc::new(workers.node.clone()),
            credits: workers.credits,
            slot_wait: frontend.slots.slot_wait,
            wait_ready: workers.wait_ready,
            lifecycle: workers.lifecycle.clone(),
            stop_signal: workers.stop_signal,
            rollout: workers.rollout,
            autoscale: workers.autoscale,
            contiguous: frontend.router.placement == Placement::Modulo,
            limits: workers.limits,
            watchdog_timeout: workers.watchdog_timeout,
            orphan_timeout: workers.orphan_timeout,
            migrate_timeout: workers.migrate_timeout,
            protect: config.protect,
            lameduck: workers.lameduck,
            heartbeat: self.heartbeat,
        }
    }
}
