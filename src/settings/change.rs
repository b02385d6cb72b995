//! What applies a changed setting: a reload, an upgrade or a restart. The name is a special case: output has
//! the new name after a reload, the control socket keeps its path until an upgrade.
//!
//! Pure: from two configurations to names of settings.

use clap::Arg;

use crate::config::Config;
use crate::control::report::NotApplied;
use crate::control::settings::AdminSettings;
use crate::link::interface::Dispatch;
use crate::settings::reader::Reading;
use crate::settings::table;

const RELOAD: &str = "reload";
const UPGRADE: &str = "upgrade";
const RESTART: &str = "restart";

/// Headings of settings that a reload applies, and an upgrade too: they are the primary's own, not those of
/// workers.
const OF_BOTH: [&str; 3] = ["Workers' output", "Automatic rolling restarts", "Control"];

/// Settings without a heading of which the same is true.
const ALSO_OF_BOTH: [&str; 2] = ["name", "log_level"];

/// Changed settings that a reload leaves as they are.
#[must_use]
pub fn left_by_reload(begun_with: &Config, new: &Config) -> Vec<NotApplied> {
    let by = |key| by(key, begun_with.frontend.dispatch);
    let fixed = needs_restart(begun_with, new).into_iter().map(|key| not_applied(key, by(key)));
    let name = renames_control(begun_with, new).then(|| not_applied("name", UPGRADE));
    fixed.chain(name).collect()
}

/// Changed settings that an upgrade leaves as they are: those of the keeper, and those of workers, which
/// run with the settings that were `applied` by the last reload.
#[must_use]
pub fn left_by_upgrade(begun_with: &Config, applied: &Reading, new: &Reading) -> Vec<NotApplied> {
    let (key, is_changed) = keeper(begun_with, &new.config);
    let keeper = is_changed.then(|| not_applied(key, RESTART));
    let fixed: Vec<_> = fixed(&new.config).collect();
    let settings = table::settings();
    let is_workers = |setting: &&Arg| {
        let (key, heading) = (setting.get_id().as_str(), setting.get_help_heading());
        !fixed.contains(&key)
            && !ALSO_OF_BOTH.contains(&key)
            && heading.is_none_or(|heading| !OF_BOTH.contains(&heading))
    };
    let workers = settings.get_arguments().filter(is_workers).filter_map(|setting| {
        let key = setting.get_id().as_str();
        let text = |reading: &Reading| {
            let found = reading.values.iter().find(|value| value.key == key);
            found.map(|value| value.text.clone())
        };
        (text(applied) != text(new)).then(|| not_applied(key, RELOAD))
    });
    let environment = |reading: &Reading| reading.config.workers.command.environment.clone();
    let env = environment(applied) != environment(new);
    let env = env.then(|| not_applied("env", RELOAD));
    let is_keepers = |key: &str| key.starts_with("keeper");
    let stays = |key: &&str| !is_keepers(key) && by(key, begun_with.frontend.dispatch) == RESTART;
    let stays = needs_restart(begun_with, &new.config).into_iter().filter(stays);
    let stays = stays.map(|key| not_applied(key, RESTART));
    keeper.into_iter().chain(stays).chain(workers).chain(env).collect()
}

fn not_applied(setting: &str, applied_by: &str) -> NotApplied {
    NotApplied { setting: setting.to_owned(), applied_by: applied_by.to_owned() }
}

/// What applies a setting that a reload doesn't.
fn by(key: &str, dispatch: Dispatch) -> &'static str {
    let stays = match key {
        "dispatch" => true,
        "port" | "host" => dispatch.is_by_listeners(),
        _ => key.starts_with("keeper"),
    };
    if stays { RESTART } else { UPGRADE }
}

/// The keys of changed settings that need a restart: those of listener, frontend, control and log
/// format.
#[must_use]
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    compare(old, new).filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}

/// What applies a change of this setting.
#[cfg(test)]
pub(super) fn applied_by(key: &str, config: &Config) -> &'static str {
    if fixed(config).any(|fixed| fixed == key) { by(key, config.frontend.dispatch) } else { RELOAD }
}

/// All settings that a running primary cannot change.
fn fixed(config: &Config) -> impl Iterator<Item = &'static str> {
    compare(config, config).map(|(name, _)| name).chain(["keeper", "keeper_min_uptime"])
}

fn compare(old: &Config, new: &Config) -> impl Iterator<Item = (&'static str, bool)> {
    let (was, is) = (&old.listener, &new.listener);
    let listener = [
        ("port", was.port != is.port),
        ("host", was.host != is.host),
        ("backlog", was.backlog != is.backlog),
        ("dispatch", old.frontend.dispatch != new.frontend.dispatch),
    ];
    let (was, is) = (&old.frontend.affinity, &new.frontend.affinity);
    let affinity = [
        ("digest", was.digest != is.digest),
        ("secret_file", was.secret != is.secret),
        ("ipv4_prefix", was.prefixes.v4 != is.prefixes.v4),
        ("ipv6_prefix", was.prefixes.v6 != is.prefixes.v6),
    ];
    let (was, is) = (&old.frontend.router, &new.frontend.router);
    let router = [
        ("placement", was.placement != is.placement),
        ("load_bound", was.load_bound != is.load_bound),
        ("fallback_ttl", was.memory_lifetime != is.memory_lifetime),
        ("fallback_entries", was.memory_capacity != is.memory_capacity),
    ];
    let (was, is) = (&old.frontend.slots, &new.frontend.slots);
    let slots = [
        ("slot_wait", was.slot_wait != is.slot_wait),
        ("ack_timeout", was.ack_timeout != is.ack_timeout),
        ("slot_queue", was.queue != is.queue),
    ];
    let (was, is) = (old.frontend.pace, new.frontend.pace);
    let pace = [
        ("close_rate", was.close_rate != is.close_rate),
        ("rebalance_rate", was.rebalance_rate != is.rebalance_rate),
        ("protect", old.protect != new.protect),
    ];
    let all = listener.into_iter().chain(affinity).chain(router).chain(slots).chain(pace);
    all.chain(operators(old, new)).chain([keeper(old, new)])
}

fn operators(old: &Config, new: &Config) -> [(&'static str, bool); 6] {
    let (was, is) = (old.admin.as_ref(), new.admin.as_ref());
    // Without an admin listener, "admin" alone is listed.
    let both = was.zip(is);
    let differ = |differ: fn(&AdminSettings, &AdminSettings) -> bool| {
        both.is_some_and(|(was, is)| differ(was, is))
    };
    let address = |admin: Option<&AdminSettings>| admin.map(|admin| admin.address);
    [
        ("control", old.control.path != new.control.path),
        ("admin", address(was) != address(is)),
        ("admin_token_file", differ(|was, is| was.token != is.token)),
        ("admin_host", differ(|was, is| was.hosts != is.hosts)),
        ("ready_workers", differ(|was, is| was.ready != is.ready)),
        ("primary_log_format", old.log.format != new.log.format),
    ]
}

fn keeper(old: &Config, new: &Config) -> (&'static str, bool) {
    let name = if old.keeper.zip(new.keeper).is_some() { "keeper_min_uptime" } else { "keeper" };
    (name, old.keeper != new.keeper)
}

/// Whether the control socket keeps the app's previous name.
#[must_use]
pub fn renames_control(old: &Config, new: &Config) -> bool {
    old.name != new.name && old.control.path.is_none() && new.control.path.is_none()
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::settings::problems::Problems;
    use crate::settings::resolve::{Surroundings, resolve};
    use crate::settings::table::{Table, settings};

    fn config(arguments: &[&str]) -> Config {
        let matches = settings().try_get_matches_from(arguments).unwrap();
        let surroundings = Surroundings {
            here: ".".as_ref(),
            workers_given: true,
            memory: 1 << 30,
            environment: Vec::new(),
            before: None,
        };
        let mut problems = Problems::default();
        let config =
            resolve(&Table::from_arg_matches(&matches).unwrap(), surroundings, &mut problems);
        problems.into_error(str::to_owned).unwrap();
        config
    }

    #[test]
    fn settings_of_listener_and_frontend_need_a_restart() {
        let old = config(&["--workers=2"]);
        for (argument, expected) in [
            ("--port=1", &["port"][..]),
            ("--host=::1", &["host"]),
            ("--backlog=7", &["backlog"]),
            ("--placement=random", &["placement"]),
            ("--placement=modulo", &["ipv6_prefix", "placement"]),
            ("--weights=1,2", &[]),
            ("--digest=sha256", &["digest"]),
            ("--secret-file=/proc/self/cmdline", &["secret_file"]),
            ("--ipv4-prefix=24", &["ipv4_prefix"]),
            ("--fallback-ttl=1s", &["fallback_ttl"]),
            ("--fallback-entries=9", &["fallback_entries"]),
            ("--load-bound=2", &["load_bound"]),
            ("--slot-wait=9s", &["slot_wait"]),
            ("--ack-timeout=9s", &["ack_timeout"]),
            ("--slot-queue=9", &["slot_queue"]),
            ("--close-rate=9", &["close_rate"]),
            ("--rebalance-rate=0.5", &["rebalance_rate"]),
            ("--drain=close", &[]),
            ("--migrate-timeout=9s", &[]),
            ("--protect", &["protect"]),
            ("--control=/run/x.sock", &["control"]),
            ("--admin=127.0.0.1:9900", &["admin"]),
            ("--primary-log-format=json", &["primary_log_format"]),
            ("--keeper=false", &["keeper"]),
            ("--keeper-min-uptime=1s", &["keeper_min_uptime"]),
            ("--log-level=debug", &[]),
            ("--name=other", &[]),
            ("--credits=9", &[]),
            ("--kill-timeout=9s", &[]),
            ("--max-restarts=9", &[]),
            ("--out-file=out.log", &[]),
        ] {
            let new = config(&["--workers=2", argument]);
            assert_eq!(needs_restart(&old, &new), expected, "{argument}");
        }
        assert!(needs_restart(&old, &config(&["--workers=8"])).is_empty());
    }

    #[test]
    fn settings_of_the_admin_listener_need_a_restart() {
        let admin = "--admin=127.0.0.1:9900";
        let old = config(&[admin]);
        for (argument, expected) in [
            ("--admin-host=lb.internal", "admin_host"),
            ("--admin-token-file=/proc/sys/kernel/random/boot_id", "admin_token_file"),
        ] {
            assert_eq!(needs_restart(&old, &config(&[admin, argument])), [expected]);
        }
    }

    #[test]
    fn a_new_name_keeps_the_control_socket_unless_its_path_is_set() {
        for (others, expected) in [(&[][..], true), (&["--control=x"], false)] {
            let with = |name| config(&[&[name], others].concat());
            assert_eq!(renames_control(&with("--name=a"), &with("--name=b")), expected);
            assert!(!renames_control(&with("--name=a"), &with("--name=a")));
        }
    }
}
