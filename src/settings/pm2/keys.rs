//! PM2's keys: their names here, or the reason why there is none.

use serde_json::Value;

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
    "stop_exit_codes",
    "umask",
    "user",
    "wait_ready",
    "watch",
    "watch_delay",
];

/// Keys with another name here; most are PM2's second names.
const RENAMED: [(&str, &str); 13] = [
    ("combine_logs", "merge_logs"),
    ("cron", "cron_restart"),
    ("err", "error_file"),
    ("err_file", "error_file"),
    ("error", "error_file"),
    ("gid", "group"),
    ("ignoreWatch", "ignore_watch"),
    ("log", "log_file"),
    ("log_type", "log_format"),
    ("out", "out_file"),
    ("output", "out_file"),
    ("stop_exit_code", "stop_exit_codes"),
    ("uid", "user"),
];

/// Keys that are converted elsewhere: in the command, or with others.
const TAKEN: [&str; 13] = [
    "apps",
    "cmd",
    "cwd",
    "exec_interpreter",
    "exec_mode",
    "instances",
    "interpreter",
    "interpreter_args",
    "namespace",
    "node_args",
    "port",
    "script",
    "time",
];

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
        "increment_var" => "the slot is in NODE_APP_INSTANCE and STICKY_LB_SLOT",
        "instance_var" => "the slot is in NODE_APP_INSTANCE and STICKY_LB_SLOT",
        "kill_retry_time" => "the kernel says when a worker has ended",
        "pid" | "pid_file" => "the service manager knows the pid; `sticky-lb status` shows it",
        "pmx" | "trace" | "disable_trace" | "deep_monitoring" => "nothing is put into workers",
        "shutdown_with_message" => "workers get the order to stop on their channel",
        "source_map_support" => "Node does it itself: put --enable-source-maps into the command",
        "treekill" => "each worker's whole process group is killed",
        "versioning" | "vizion" | "post_update" | "repo" | "ref" => {
            "versions of the code are not tracked"
        }
        "watch_options" => "see watch, ignore_watch and watch_delay",
        "windowsHide" => "there are no windows",
        _ => "there is no such setting",
    })
}

/// A comment beside a key.
pub(super) fn about(key: &str, value: &str) -> Option<&'static str> {
    match (key, value) {
        ("command", _) => Some(
            "It has to be a worker, as the guide says in \"Workers in Rust\" and \"Workers in any\n\
             # language\": one that takes its connections from the primary.",
        ),
        ("wait_ready", "false") => Some(
            "As in PM2 without wait_ready: a worker serves as soon as it has attached. With true, it \
             serves\n# only when it says that it is ready.",
        ),
        _ => None,
    }
}
