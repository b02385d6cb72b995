//! What a reload can change, and what takes a new primary.
//!
//! Pure: two configurations in, names of settings out.

use crate::config::Config;

/// Settings that differ and that a running primary cannot change: those of its listener and of its
/// frontend, by their keys.
#[must_use]
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let (was, is) = (&old.listener, &new.listener);
    let listener = [
        ("port", was.port != is.port),
        ("host", was.host != is.host),
        ("backlog", was.backlog != is.backlog),
    ];
    let (was, is) = (&old.affinity, &new.affinity);
    let affinity = [
        ("digest", was.digest != is.digest),
        ("secret_file", was.secret != is.secret),
        ("ipv4_prefix", was.prefixes.v4 != is.prefixes.v4),
        ("ipv6_prefix", was.prefixes.v6 != is.prefixes.v6),
    ];
    let (was, is) = (&old.router, &new.router);
    let router = [
        ("placement", was.placement != is.placement),
        ("load_bound", was.load_bound != is.load_bound),
        ("spill_memory", was.memory_lifetime != is.memory_lifetime),
        ("spill_table", was.memory_capacity != is.memory_capacity),
    ];
    let (was, is) = (&old.slots, &new.slots);
    let slots = [
        ("slot_wait", was.slot_wait != is.slot_wait),
        ("stall_after", was.stall_after != is.stall_after),
        ("slot_queue", was.queue != is.queue),
    ];
    let all = listener.into_iter().chain(affinity).chain(router).chain(slots);
    all.filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
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
        };
        let mut problems = Problems::default();
        let config =
            resolve(&Table::from_arg_matches(&matches).unwrap(), surroundings, &mut problems);
        problems.into_error(str::to_owned).unwrap();
        config
    }

    #[test]
    fn what_the_listener_and_the_frontend_were_made_with_takes_a_new_primary() {
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
            ("--spill-memory=1s", &["spill_memory"]),
            ("--spill-table=9", &["spill_table"]),
            ("--load-bound=2", &["load_bound"]),
            ("--slot-wait=9s", &["slot_wait"]),
            ("--stall-after=9s", &["stall_after"]),
            ("--slot-queue=9", &["slot_queue"]),
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
}
