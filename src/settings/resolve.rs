//! What was written becomes the settings of the parts, checked against each other.

use std::ffi::OsString;
use std::path::Path;

use crate::config::Config;
use crate::settings::problems::Problems;
use crate::settings::table::Table;

/// What settings depend on beside what was written.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) here: &'a Path,
    /// Whether somebody wrote how many workers there are.
    pub(super) workers_given: bool,
    /// Bytes that the container or the machine has.
    pub(super) memory: u64,
    pub(super) environment: Vec<(OsString, OsString)>,
}

/// The settings, of use only if no problem was noted.
pub(super) fn resolve(
    table: &Table,
    surroundings: Surroundings<'_>,
    problems: &mut Problems,
) -> Config {
    let Surroundings { here, workers_given, memory, environment } = surroundings;
    let given = (workers_given, table.general.workers);
    let (workers, autoscale) = table.scaling.autoscale(given, problems);
    let most = autoscale.map_or(workers, |autoscale| autoscale.max_workers);
    let command = table.worker.command(here, environment, problems);
    Config {
        name: table.general.name.clone(),
        workers,
        listener: table.general.listener(),
        affinity: table.placement.affinity(problems),
        router: table.placement.router(most, problems),
        slots: table.hand_off.slots(),
        credits: usize::from(table.hand_off.credits),
        lifecycle: table.lifecycle.lifecycle(table.restarts.policy(problems)),
        wait_ready: table.lifecycle.wait_ready,
        rollout: table.lifecycle.rollout(memory),
        autoscale,
        limits: table.limits.limits(memory, problems),
        stall_timeout: table.limits.stall_timeout(),
        lameduck: table.lifecycle.lameduck(),
        orphan_grace: table.lifecycle.orphan_grace,
        watch: table.triggers.watch(command.directory.as_deref(), problems),
        cron_restart: table.triggers.cron_restart.clone(),
        output: table.output.output(&table.general.name),
        command,
    }
}
