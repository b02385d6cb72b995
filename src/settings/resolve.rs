//! Turns the table into the settings of the parts, checked against each other.

use std::ffi::OsString;
use std::path::Path;

use crate::bus::rules::Rules;
use crate::config::{Config, FrontendConfig, TriggersConfig, WorkersConfig};
use crate::settings::before::Before;
use crate::settings::problems::Problems;
use crate::settings::table::Table;
use crate::settings::user;

/// The environment that settings depend on.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) here: &'a Path,
    /// Whether the number of workers is set.
    pub(super) workers_given: bool,
    /// Memory of the container or machine in bytes.
    pub(super) memory: u64,
    pub(super) environment: Vec<(OsString, OsString)>,
    /// What the predecessor had, if this is for its successor.
    pub(super) before: Option<&'a Before>,
}

/// The settings, valid only if no problem was noted.
pub(super) fn resolve(
    table: &Table,
    surroundings: Surroundings<'_>,
    problems: &mut Problems,
) -> Config {
    let Surroundings { here, workers_given, memory, environment, before } = surroundings;
    let given = (workers_given, table.general.workers);
    let (count, autoscale) = table.scaling.autoscale(given, problems);
    let max = autoscale.map_or(count, |autoscale| autoscale.max_workers);
    let interface = table.interface.interface(&table.worker.command);
    let dispatch = table.interface.dispatch(interface, problems);
    let restart = table.restarts.policy(problems);
    let command = table.worker.command(here, environment, before, problems);
    let user = command.user.clone();
    let guarded = user::is_other(user.as_ref());
    let triggers = TriggersConfig {
        watch: table.triggers.watch(table.worker.cwd.as_deref().unwrap_or(here), before, problems),
        cron_restart: table.triggers.cron_restart.clone(),
    };
    Config {
        source: None,
        file: None,
        not_renewed: Vec::new(),
        name: table.general.name.clone(),
        keeper: table.general.keeper.then_some(table.general.keeper_min_uptime),
        listener: table.general.listener(),
        frontend: FrontendConfig {
            dispatch,
            family: table.interface.listen_family.into(),
            affinity: table.placement.affinity(user.as_ref(), before, problems),
            router: table.placement.router(dispatch, count, max, problems),
            slots: table.hand_off.slots(),
            pace: table.drain.pace(),
        },
        workers: WorkersConfig {
            count,
            autoscale,
            stop_signal: table.interface.stop_signal(interface, &command),
            command,
            credits: usize::from(table.hand_off.credits),
            lifecycle: table.lifecycle.lifecycle(&table.drain, restart, interface),
            wait_ready: table.lifecycle.waits_for_ready(interface),
            interface,
            node: table.interface.node(table.lifecycle.wait_ready, problems),
            rollout: table.lifecycle.rollout(memory),
            limits: table.limits.limits(memory, problems),
            watchdog_timeout: table.limits.watchdog_timeout(),
            migrate_timeout: table.drain.migrate_timeout,
            lameduck: table.lifecycle.lameduck(),
            orphan_timeout: table.lifecycle.orphan_timeout,
        },
        messages: Rules::new(&table.interface.node_messages),
        protect: table.drain.protect,
        triggers,
        output: table.output.output(&table.general.name, guarded, problems),
        control: table.control.control(),
        admin: table.control.admin(user.as_ref(), before, problems),
        log: table.control.log(&table.general.log_level),
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::protocol::drain::DrainMode;
    use crate::sessions::close_requests::PaceSettings;
    use crate::settings::problems::SettingsError;
    use crate::settings::table;
    use crate::supervisor::command::InheritedVariables;
    use crate::supervisor::limits::LimitSettings;
    use crate::supervisor::output::OutputSettings;
    use crate::supervisor::restart::RestartPolicy;
    use crate::supervisor::rollout::RolloutSettings;

    fn of(arguments: &[&str]) -> Result<Config, SettingsError> {
        let matches = table::settings().try_get_matches_from(arguments).unwrap();
        let surroundings = Surroundings {
            here: Path::new("."),
            workers_given: arguments.iter().any(|argument| argument.starts_with("--workers")),
            memory: 1 << 30,
            environment: Vec::new(),
            before: None,
        };
        let mut problems = Problems::default();
        let config =
            resolve(&Table::from_arg_matches(&matches).unwrap(), surroundings, &mut problems);
        problems.into_error(str::to_owned).map(|_| config)
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (arguments, expected) in [
            (&["--workers=3", "--weights=1,2"][..], "weights: 2 weights given for 3 workers"),
            (&["--min-workers=2"], "min_workers: does nothing without max_workers"),
            (&["--min-workers=5", "--max-workers=4"], "min_workers: 5 is more than max_workers, 4"),
            (&["--max-workers=4", "--workers=5"], "workers: 5 is not from min_workers, 1, to"),
            (&["--max-workers=4", "--weights=1,2"], "weights: 2 weights given for 4 workers"),
            (&["--max-workers=4", "--scale-down-load=100"], "scale_down_load: 100 is not below"),
            (&["--max-memory-restart=2G", "--max-memory-kill=1G"], "max_memory_kill: 1073741824"),
            (&["--exp-backoff-max-delay=1ms"], "exp_backoff_max_delay: is shorter than"),
            (&["--watch", "/no/such/path"], "watch: cannot watch /no/such/path: No such file"),
            (&["--cwd=/no/such/path"], "cwd: cannot open directory /no/such/path: No such file"),
            (&["--cwd=/etc/passwd"], "cwd: /etc/passwd is no directory"),
            (&["--secret-file=/no/such/file"], "secret_file: cannot read /no/such/file: No such"),
            (&["--user=no such user"], "user: there is no user \"no such user\""),
        ] {
            let error = of(arguments).unwrap_err();
            assert!(error.lines[0].starts_with(expected), "{arguments:?}: {error}");
        }
        let error = of(&["--min-workers=2", "--cwd=/no/such/path"]).unwrap_err();
        assert_eq!(error.lines.len(), 2, "{error}");
    }

    #[test]
    fn scaling_starts_with_min_workers_by_default() {
        let start = |arguments: &[&str]| of(arguments).unwrap().workers.count;
        assert_eq!(start(&["--max-workers=4"]), 1);
        assert_eq!(start(&["--max-workers=4", "--min-workers=2"]), 2);
        assert_eq!(start(&["--max-workers=4", "--workers=3"]), 3);
        let load =
            |arguments: &[&str]| of(arguments).unwrap().workers.autoscale.unwrap().scale_up_load;
        assert_eq!(load(&["--max-workers=4"]).to_string(), "100");
        assert_eq!(load(&["--max-workers=4", "--scale-load=cpu"]).to_string(), "80");
    }

    #[test]
    fn values_reach_the_parts() {
        let config = of(&[
            "--max-memory-restart=50%",
            "--watchdog-timeout=0",
            "--args=x",
            "--umask=027",
            "--nice=-5",
            "--filter-env=AWS_,SECRET_",
            "--",
            "node",
            "app.js",
            "--port",
            "9",
        ])
        .unwrap();
        assert_eq!(config.workers.limits.max_memory_restart, Some(1 << 29));
        assert_eq!(config.workers.watchdog_timeout, None);
        assert_eq!(config.workers.command.program, "node");
        assert_eq!(config.workers.command.arguments, ["app.js", "--port", "9", "x"]);
        assert_eq!(
            (config.workers.command.umask, config.workers.command.nice),
            (Some(0o27), Some(-5))
        );
        let without = ["AWS_", "SECRET_"].map(str::to_owned).to_vec();
        assert_eq!(config.workers.command.inherited, InheritedVariables::Without(without));
        assert_eq!(config.listener.port, 3000);
    }

    #[test]
    fn modulo_hashes_whole_addresses_by_default() {
        let v6 = |arguments: &[&str]| of(arguments).unwrap().frontend.affinity.prefixes.v6;
        assert_eq!(v6(&[]), 64);
        assert_eq!(v6(&["--placement=modulo"]), 128);
        assert_eq!(v6(&["--placement=modulo", "--ipv6-prefix=56"]), 56);
    }

    #[test]
    fn defaults_are_those_of_the_parts() {
        let config = of(&[]).unwrap();
        assert_eq!(config.workers.lifecycle.restart, RestartPolicy::DEFAULT);
        assert_eq!(config.workers.rollout, RolloutSettings::default());
        assert_eq!(config.workers.limits, LimitSettings::default());
        assert_eq!(config.output, OutputSettings::default());
        assert_eq!(config.frontend.pace, PaceSettings::default());
        assert_eq!(config.workers.lifecycle.drain, DrainMode::default());
        assert_eq!(config.workers.autoscale, None);
        assert_eq!(config.triggers.watch, None);
    }
}
