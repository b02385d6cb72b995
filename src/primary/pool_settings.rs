//! The pool's settings: the configuration, and what only the primary knows.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::frontend::placement::Placement;
use crate::supervisor::pool::PoolSettings;

/// What the pool runs on beside the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolContext {
    /// The port that the primary listens on.
    pub(super) port: u16,
    /// How often the service manager wants a sign of life.
    pub(super) heartbeat: Option<Duration>,
}

impl PoolContext {
    pub(super) fn settings(self, config: &Config) -> PoolSettings {
        PoolSettings {
            workers: config.workers,
            weights: config.router.weights.clone(),
            command: Arc::new(config.command.clone()),
            port: self.port,
            credits: config.credits,
            slot_wait: config.slots.slot_wait,
            wait_ready: config.wait_ready,
            lifecycle: config.lifecycle.clone(),
            rollout: config.rollout,
            autoscale: config.autoscale,
            contiguous: config.router.placement == Placement::Modulo,
            limits: config.limits,
            watchdog_timeout: config.watchdog_timeout,
            orphan_timeout: config.orphan_timeout,
            migrate_timeout: config.migrate_timeout,
            protect: config.protect,
            lameduck: config.lameduck,
            heartbeat: self.heartbeat,
        }
    }
}
