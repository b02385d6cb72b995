//! The table as documentation: each setting with name, default, meaning and example.

use clap::Arg;

use crate::settings::{layers, syntax, table};

/// The group of the settings without a heading.
pub(super) const FIRST_GROUP: &str = "General";

/// Marks a default that depends on something else, at the end of a help text.
const DEFAULT: &str = "[default: ";

/// A value for each setting, in the syntax of a file, that differs from the default.
const EXAMPLES: [(&str, &str); 94] = [
    ("name", "\"shop\""),
    ("workers", "8"),
    ("port", "8080"),
    ("host", "\"127.0.0.1\""),
    ("backlog", "16384"),
    ("log_level", "\"info,frontend=debug\""),
    ("keeper", "false"),
    ("keeper_min_uptime", "\"30s\""),
    ("command", "[\"node\", \"server.js\"]"),
    ("args", "\"--verbose\""),
    ("cwd", "\"/srv/shop/current\""),
    ("filter_env", "[\"AWS_\", \"SECRET_\"]"),
    ("user", "\"www-data\""),
    ("group", "\"www-data\""),
    ("umask", "\"027\""),
    ("no_new_privs", "true"),
    ("drop_capabilities", "true"),
    ("nice", "5"),
    ("node_messages", "\"guide\""),
    ("wait_ready", "false"),
    ("listen_timeout", "\"30s\""),
    ("max_draining", "1"),
    ("spares", "1"),
    ("max_draining_memory", "\"20%\""),
    ("parallel", "2"),
    ("lameduck", "\"5s\""),
    ("orphan_timeout", "\"2m\""),
    ("interface", "\"node\""),
    ("node_message", "\"socket.io\""),
    ("stop_signal", "\"TERM\""),
    ("dispatch", "\"kernel\""),
    ("listen_family", "\"dual\""),
    ("shutdown_with_message", "true"),
    ("drain", "\"close\""),
    ("drain_timeout", "\"1h\""),
    ("kill_timeout", "\"30s\""),
    ("close_rate", "20"),
    ("migrate_timeout", "\"5s\""),
    ("protect", "true"),
    ("rebalance_rate", "10"),
    ("autorestart", "false"),
    ("stop_exit_codes", "[0, 3]"),
    ("min_uptime", "\"10s\""),
    ("restart_delay", "\"250ms\""),
    ("exp_backoff_restart_delay", "\"1s\""),
    ("exp_backoff_max_delay", "\"1m\""),
    ("max_restarts", "5"),
    ("restart_window", "\"1m\""),
    ("min_workers", "2"),
    ("max_workers", "16"),
    ("scale_load", "\"cpu\""),
    ("scale_up_load", "500"),
    ("scale_down_load", "50"),
    ("scale_interval", "\"10s\""),
    ("scale_down_after", "\"5m\""),
    ("max_memory_restart", "\"500M\""),
    ("max_memory_kill", "\"1G\""),
    ("max_age", "\"1d\""),
    ("max_connections_served", "100000"),
    ("watchdog_timeout", "\"10s\""),
    ("watch", "[\"src\", \"views\"]"),
    ("ignore_watch", "[\"node_modules\", \".*\", \"*.log\"]"),
    ("watch_delay", "\"1s\""),
    ("cron_restart", "\"0 3 * * *\""),
    ("placement", "\"modulo\""),
    ("weights", "[1, 1, 2]"),
    ("load_bound", "1.25"),
    ("digest", "\"sha256\""),
    ("secret_file", "\"/etc/sticky-lb/secret\""),
    ("ipv4_prefix", "24"),
    ("ipv6_prefix", "56"),
    ("fallback_ttl", "\"1h\""),
    ("fallback_entries", "1000000"),
    ("slot_wait", "\"3s\""),
    ("ack_timeout", "\"1s\""),
    ("credits", "16"),
    ("slot_queue", "4096"),
    ("log_prefix", "\"always\""),
    ("out_file", "\"/var/log/sticky-lb/out.log\""),
    ("error_file", "\"/var/log/sticky-lb/error.log\""),
    ("log_file", "\"/var/log/sticky-lb/all.log\""),
    ("merge_logs", "true"),
    ("log_format", "\"json\""),
    ("log_date_format", "\"%Y-%m-%d %H:%M:%S\""),
    ("log_rotate_size", "\"100M\""),
    ("log_rotate_interval", "\"1d\""),
    ("log_rotate_keep", "30"),
    ("log_file_mode", "\"600\""),
    ("control", "\"/run/shop.sock\""),
    ("admin", "\"127.0.0.1:9900\""),
    ("admin_token_file", "\"/etc/sticky-lb/token\""),
    ("admin_host", "[\"admin.internal\"]"),
    ("ready_workers", "\"80%\""),
    ("primary_log_format", "\"json\""),
];

/// Everything that a manual says about one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The group, a heading.
    pub group: String,
    /// The key in a file.
    pub key: String,
    /// Second names of the key, for the names of other programs.
    pub aliases: Vec<String>,
    /// The flag on the command line, with its dashes; `-- COMMAND` for the command.
    pub flag: String,
    /// The environment variable that sets it too.
    pub variable: Option<&'static str>,
    /// The default, in the syntax of a file, or in words if it depends on something else.
    pub default: String,
    /// The meaning: one paragraph, a sentence without its full stop.
    pub meaning: String,
    /// The possible values and their meanings, if there is a list of them.
    pub values: Vec<(String, String)>,
    /// An example in the syntax of a file: `key = value`.
    pub example: String,
}

/// All settings in the order of the table, group after group.
pub fn settings() -> impl Iterator<Item = Setting> {
    let settings: Vec<_> = table::settings().get_arguments().map(setting).collect();
    settings.into_iter()
}

fn setting(setting: &Arg) -> Setting {
    let key = setting.get_id().to_string();
    let (meaning, default) = meaning_and_default(setting);
    Setting {
        group: setting.get_help_heading().unwrap_or(FIRST_GROUP).to_owned(),
        aliases: table::names(setting).skip(1).collect(),
        flag: setting
            .get_long()
            .map_or_else(|| "-- COMMAND".to_owned(), |flag| format!("--{flag}")),
        variable: layers::variable(&key),
        default,
        meaning,
        values: values(setting),
        example: format!("{key} = {}", example(&key)),
        key,
    }
}

/// The help text, and the default that stands in it or in the table.
fn meaning_and_default(setting: &Arg) -> (String, String) {
    let help = setting.get_help().map(ToString::to_string).unwrap_or_default();
    match help.split_once(DEFAULT) {
        Some((meaning, default)) => {
            (meaning.trim_end().to_owned(), default.trim_end_matches(']').to_owned())
        }
        None => (help, syntax::default_value(setting)),
    }
}

/// Values with a meaning of their own, which `true` and `false` have not.
fn values(setting: &Arg) -> Vec<(String, String)> {
    let values = setting.get_possible_values().into_iter();
    let value = |value: clap::builder::PossibleValue| {
        Some((value.get_name().to_owned(), value.get_help()?.to_string()))
    };
    values.filter_map(value).collect()
}

fn example(key: &str) -> &'static str {
    EXAMPLES.iter().find(|(name, _)| *name == key).map_or("\"\"", |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::file::File;

    #[test]
    fn every_setting_has_a_meaning_a_default_and_an_example_that_a_file_may_contain() {
        let all: Vec<_> = settings().collect();
        for setting in &all {
            let Setting { key, meaning, default, example, .. } = setting;
            assert!(!meaning.is_empty() && !meaning.contains("default:"), "{key}: {meaning}");
            assert!(!default.is_empty(), "{key}");
            let file = File::parse(example, Path::new("x.toml"), "x.toml").unwrap();
            assert_eq!(file.entries.len(), 1, "{example}");
            assert_ne!(*example, format!("{key} = {default}"), "an example shows a change");
        }
        assert_eq!(all.len(), EXAMPLES.len());
    }

    #[test]
    fn a_setting_is_described_as_a_manual_needs_it() {
        let find = |key: &str| settings().find(|setting| setting.key == key).unwrap();
        let workers = find("workers");
        assert_eq!((workers.group.as_str(), workers.flag.as_str()), ("General", "--workers"));
        assert_eq!(
            (workers.aliases, workers.variable),
            (vec!["instances".to_owned()], Some("WEB_CONCURRENCY"))
        );
        assert_eq!(
            (workers.default.as_str(), workers.example.as_str()),
            ("\"max\"", "workers = 8")
        );
        assert_eq!(find("ipv6_prefix").default, "64; with modulo, 128");
        let modes: Vec<_> = find("drain").values.into_iter().map(|(name, _)| name).collect();
        assert_eq!(modes, ["wait", "close", "migrate"]);
        assert_eq!(find("command").flag, "-- COMMAND");
    }
}
