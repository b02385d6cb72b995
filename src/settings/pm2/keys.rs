//! PM2's keys: their names here, or the reason why there is none.

use serde_json::Value;

use crate::settings::pm2::ecosystem::App;

/// Keys with the same name and meaning.
const SAME: [&str; 25] = [
    "args",
    "autorestart",
    "cron_restart",
    "error_file",
    "exp_backoff_restart_delay",
    "filter_env",
    "ignore_watch",
    "kill_timeout",
    "listen_timeout",
    "log_date_format",
    "log_file",
    "max_memory_restart",
    "max_restarts",
    "merge_logs",
    "min_uptime",
    "name",
    "nice",
    "out_file",
    "restart_delay",
    "shutdown_with_message",
    "stop_exit_codes",
    "umask",
    "wait_ready",
    "watch",
    "watch_delay",
];

/// Keys with another name here.
const RENAMED: [(&str, &str); 3] = [("gid", "group"), ("log_type", "log_format"), ("uid", "user")];

/// PM2's second names, beside those in camel case.
const ALIASES: [(&str, &str); 21] = [
    ("cmd", "script"),
    ("combine_logs", "merge_logs"),
    ("command", "script"),
    ("cron", "cron_restart"),
    ("err", "error_file"),
    ("err_file", "error_file"),
    ("err_log", "error_file"),
    ("error", "error_file"),
    ("exec", "script"),
    ("exec_interpreter", "interpreter"),
    ("interpreter_args", "node_args"),
    ("log", "log_file"),
    ("out", "out_file"),
    ("out_log", "out_file"),
    ("output", "out_file"),
    ("pid", "pid_file"),
    ("stop_exit_code", "stop_exit_codes"),
    ("user", "uid"),
    ("versioning", "vizion"),
    ("disable_trace", "trace"),
    ("automation", "pmx"),
];

/// Keys that are converted elsewhere, in the command or with others, or that mean nothing to a worker.
const TAKEN: [&str; 15] = [
    "apps",
    "cwd",
    "exec_mode",
    "increment_var",
    "instance_var",
    "instances",
    "interpreter",
    "name_prefix",
    "namespace",
    "node_args",
    "port",
    "script",
    "source_map_support",
    "time",
    "username",
];

/// An app's values under PM2's first names. Where there are several, the first name's counts, unless it is
/// as good as none.
pub(super) fn canonical(app: &App) -> App {
    let is_none = |value: &Value| {
        value.is_null() || *value == Value::Bool(false) || *value == "" || *value == 0
    };
    let (first, others): (Vec<_>, Vec<_>) =
        app.iter().partition(|(key, _)| first_name(key) == **key);
    let mut canonical: App =
        first.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    for (key, value) in others {
        let first = first_name(key);
        if canonical.get(&first).is_none_or(is_none) {
            canonical.insert(first, value.clone());
        }
    }
    canonical
}

/// The first name of a key: `maxMemoryRestart` is `max_memory_restart`, `exec` is `script`.
fn first_name(key: &str) -> String {
    // The names of variables and of profiles are as they are.
    if key.starts_with("env") || key == "windowsHide" {
        return key.to_owned();
    }
    let mut snake = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    let alias = ALIASES.iter().find(|(alias, _)| *alias == snake);
    alias.map_or(snake, |(_, first)| (*first).to_owned())
}

/// The key with the same meaning here.
pub(super) fn same(key: &str) -> Option<&'static str> {
    let renamed = RENAMED.iter().find(|(theirs, _)| *theirs == key).map(|(_, here)| *here);
    renamed.or_else(|| SAME.into_iter().find(|same| *same == key))
}

/// The reason why a key is lost; `None` if nothing is lost.
pub(super) fn left_out(key: &str, value: &Value) -> Option<&'static str> {
    let off = matches!(value, Value::Null | Value::Bool(false));
    Some(match key {
        _ if TAKEN.contains(&key) || off => return None,
        "append_env_to_name" => "set the full name with name",
        "autostart" => "the primary always starts its workers",
        "disable_logs" => "log files are written only if they are set",
        "force" => "one primary runs one app once",
        "kill_retry_time" => "the kernel says when a worker has ended",
        "pid_file" => "the service manager knows the pid; `sticky-lb status` shows it",
        "pmx" | "trace" | "deep_monitoring" | "v8" | "event_loop_inspector" | "io" => {
            "nothing is put into workers"
        }
        "disable_source_map_support" => return None,
        "execute_command" => "a command is run as it is",
        "install_url" => "nothing is installed",
        "write" => "there is nothing to write it to",
        "treekill" => "each worker's whole process group is killed",
        "vizion" | "post_update" | "repo" | "ref" => "versions of the code are not tracked",
        "watch_options" => "see watch, ignore_watch and watch_delay",
        "windowsHide" => "there are no windows",
        _ => "there is no such setting",
    })
}

/// A comment beside a key.
pub(super) fn about(key: &str, value: &str) -> Option<&'static str> {
    match (key, value) {
        ("command", _) => Some(
            "A server for Node that listens on the port runs as it is. Any other program has to be a worker, as\n\
             # the guide says in \"Workers in Rust\" and \"Workers in any language\": one that takes its\n\
             # connections from the primary.",
        ),
        ("wait_ready", "false") => Some(
            "As in PM2 without wait_ready: a worker serves as soon as it listens or has attached. With true, it\n\
             # serves only when it says that it is ready.",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn second_names_and_camel_case_are_the_first_names() {
        let app = json!({
            "exec": "a.js", "maxMemoryRestart": "1G", "err_log": "e", "interpreterArgs": "-x",
            "instances": 2, "user": "www", "env": {"aB": 1}, "env_liveA": {}, "windowsHide": true,
        });
        let expected = json!({
            "script": "a.js", "max_memory_restart": "1G", "error_file": "e", "node_args": "-x",
            "instances": 2, "uid": "www", "env": {"aB": 1}, "env_liveA": {}, "windowsHide": true,
        });
        assert_eq!(Value::Object(canonical(app.as_object().unwrap())), expected);
        let both = json!({"out": "b", "out_file": "a", "watch": false, "merge_logs": false, "combine_logs": true});
        let expected = json!({"out_file": "a", "watch": false, "merge_logs": true});
        assert_eq!(Value::Object(canonical(both.as_object().unwrap())), expected);
    }
}
