//! The guide's chapter on configuration, made of the table, so that it misses no setting and tells no
//! other default.
//!
//! The chapter's text is written by hand up to the line [`BEGIN`]; what follows is made here. After a
//! change of a setting:
//!
//! ```text
//! STICKY_LB_WRITE_GUIDE=1 cargo test --lib settings::guide
//! ```

use std::fmt::Write;
use std::path::Path;

use clap::Arg;

use crate::config::Config;
use crate::settings::file::File;
use crate::settings::problems::Problems;
use crate::settings::resolve::{Surroundings, resolve};
use crate::settings::{change, table, template};

const CHAPTER: &str = "src/guide/configuration.md";

/// The line from which on the chapter is made.
const BEGIN: &str = "<!-- From here on made by src/settings/guide.rs. -->\n";

/// A value for each setting, as a file writes it.
const EXAMPLES: [(&str, &str); 84] = [
    ("name", "\"chat\""),
    ("workers", "-1"),
    ("port", "8080"),
    ("host", "\"127.0.0.1\""),
    ("backlog", "16384"),
    ("log_level", "\"info,frontend=debug\""),
    ("keeper", "false"),
    ("keeper_min_uptime", "\"1m\""),
    ("command", "[\"./server\", \"--verbose\"]"),
    ("args", "\"--verbose\""),
    ("cwd", "\"/srv/chat/current\""),
    ("filter_env", "[\"AWS_\", \"SECRET_\"]"),
    ("user", "\"www-data\""),
    ("group", "\"www-data\""),
    ("umask", "\"027\""),
    ("nice", "5"),
    ("wait_ready", "false"),
    ("listen_timeout", "\"30s\""),
    ("max_draining", "4"),
    ("spares", "1"),
    ("max_draining_memory", "\"20%\""),
    ("parallel", "2"),
    ("lameduck", "\"5s\""),
    ("orphan_timeout", "\"2m\""),
    ("drain", "\"close\""),
    ("drain_timeout", "\"1h\""),
    ("kill_timeout", "\"30s\""),
    ("close_rate", "50"),
    ("migrate_timeout", "\"30s\""),
    ("protect", "true"),
    ("rebalance_rate", "500"),
    ("autorestart", "false"),
    ("stop_exit_codes", "[0, 3]"),
    ("min_uptime", "\"5s\""),
    ("restart_delay", "\"1s\""),
    ("exp_backoff_restart_delay", "\"500ms\""),
    ("exp_backoff_max_delay", "\"1m\""),
    ("max_restarts", "5"),
    ("restart_window", "\"1m\""),
    ("min_workers", "2"),
    ("max_workers", "16"),
    ("scale_load", "\"cpu\""),
    ("scale_up_load", "70"),
    ("scale_down_load", "10"),
    ("scale_interval", "\"10s\""),
    ("scale_down_after", "\"5m\""),
    ("max_memory_restart", "\"300M\""),
    ("max_memory_kill", "\"1G\""),
    ("max_age", "\"1d\""),
    ("max_connections_served", "1000000"),
    ("watchdog_timeout", "\"10s\""),
    ("watch", "[\"src\", \"views\"]"),
    ("ignore_watch", "[\"node_modules\", \"*.log\"]"),
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
    ("slot_wait", "\"5s\""),
    ("ack_timeout", "\"500ms\""),
    ("credits", "128"),
    ("slot_queue", "4096"),
    ("log_prefix", "\"always\""),
    ("out_file", "\"logs/out.log\""),
    ("error_file", "\"logs/error.log\""),
    ("log_file", "\"logs/all.log\""),
    ("merge_logs", "true"),
    ("log_format", "\"json\""),
    ("log_date_format", "\"YYYY-MM-DD HH:mm:ss Z\""),
    ("log_rotate_size", "\"50M\""),
    ("log_rotate_interval", "\"1d\""),
    ("log_rotate_keep", "30"),
    ("control", "\"/run/chat/control.sock\""),
    ("admin", "\"127.0.0.1:9900\""),
    ("admin_token_file", "\"/etc/sticky-lb/token\""),
    ("admin_host", "[\"lb.internal\"]"),
    ("ready_workers", "\"80%\""),
    ("primary_log_format", "\"json\""),
];

/// The chapter's tables, one for each heading of `--help`.
fn tables() -> String {
    let mut text = String::new();
    let mut heading = None;
    let fixed = change::fixed(&defaults());
    for setting in table::settings().get_arguments() {
        let name = setting.get_help_heading().unwrap_or("General").to_owned();
        if heading.as_ref() != Some(&name) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n### {name}\n\n{HEAD}");
            heading = Some(name);
        }
        text += &row(setting, &fixed);
    }
    text
}

fn defaults() -> Config {
    let (table, _) = table::parse(table::settings(), Vec::new()).unwrap();
    let surroundings = Surroundings {
        here: Path::new("."),
        workers_given: false,
        memory: 1 << 30,
        environment: Vec::new(),
    };
    resolve(&table, surroundings, &mut Problems::default())
}

const HEAD: &str = "| key | default | meaning | example | changed by |\n|---|---|---|---|---|\n";

fn row(setting: &Arg, fixed: &[&str]) -> String {
    let key = setting.get_id().as_str();
    let (meaning, default) = described(setting);
    let changed = if fixed.contains(&key) { "upgrade" } else { "reload" };
    let example = example(key);
    format!("| `{key}` | {default} | {meaning} | `{key} = {example}` | {changed} |\n")
}

fn example(key: &str) -> &'static str {
    EXAMPLES.iter().find(|(name, _)| *name == key).map_or("", |(_, example)| example)
}

/// What it means, and its default: the one that the table has, or the words of its help.
fn described(setting: &Arg) -> (String, String) {
    let help = setting.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let (text, words) = match help.rsplit_once(" [default: ") {
        Some((text, words)) => {
            (text.to_owned(), words.trim_end_matches("].").trim_end_matches(']'))
        }
        None => (help.clone(), ""),
    };
    let defaults: Vec<_> =
        setting.get_default_values().iter().map(|it| it.to_string_lossy().into()).collect();
    let default = match &defaults[..] {
        [] => words.to_owned(),
        defaults => format!("`{}`", template::written(setting, defaults)),
    };
    let dot = if text.ends_with('.') { "" } else { "." };
    (cell(&format!("{text}{dot}{}", values(setting))), cell(&default))
}

/// The words that it may be, each with its meaning.
fn values(setting: &Arg) -> String {
    let values = setting.get_possible_values();
    let values = values.iter().filter_map(|value| {
        let help = value.get_help()?.to_string();
        Some(format!("`{}`: {}", value.get_name(), help.trim_end_matches('.')))
    });
    let values: Vec<_> = values.collect();
    if values.is_empty() || setting.is_hide_possible_values_set() {
        String::new()
    } else {
        format!(" {}.", values.join("; "))
    }
}

/// Text that ends no cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}

#[test]
fn every_setting_has_an_example_that_is_right() {
    let settings = table::settings();
    for setting in settings.get_arguments() {
        let key = setting.get_id().as_str();
        let line = format!("{key} = {}", example(key));
        let file = File::of(&line, Path::new("x.toml"), "x.toml");
        assert!(!example(key).is_empty(), "{key} has no example in EXAMPLES");
        assert!(file.is_ok(), "{line}: {file:?}");
        let default = template::written(setting, &[]);
        assert_ne!(example(key), default, "{key}");
    }
    for (key, _) in EXAMPLES {
        assert!(table::find(&settings, key).is_some(), "{key} is no setting");
    }
}

#[test]
fn the_chapter_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHAPTER);
    let text = std::fs::read_to_string(&path).unwrap();
    let (by_hand, made) = text.split_once(BEGIN).expect("the line that begins the tables");
    if std::env::var_os("STICKY_LB_WRITE_GUIDE").is_some() {
        std::fs::write(path, format!("{by_hand}{BEGIN}{}", tables())).unwrap();
        return;
    }
    assert!(
        made == tables(),
        "{CHAPTER} is out of date: STICKY_LB_WRITE_GUIDE=1 cargo test --lib settings::guide writes it"
    );
}
