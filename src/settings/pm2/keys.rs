//! PM2's keys: what they are called here, or why they are not there.

use serde_json::Value;

/// Keys of PM2's that mean the same here.
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

/// Keys that are called otherwise here, most of them second names.
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

/// Keys that are taken care of elsewhere: in the command, or with others.
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

/// The key here that means the same.
pub(super) fn same(key: &str) -> Option<&'static str> {
    let renamed = RENAMED.iter().find(|(theirs, _)| *theirs == key).map(|(_, here)| *here);
    renamed.or_else(|| SAME.into_iter().find(|same| *same == key))
}

/// Why a key is not there; nothing if nothing is lost.
pub(super) fn left_out(key: &str, value: &Value) -> Option<&'static str> {
    let off = matches!(value, Value::Null | Value::Bool(false));
    Some(match key {
        _ if TAKEN.contains(&key) || off => return None,
        "append_env_to_name" => "write the name that the app is to have",
        "autostart" => {
            "the primary starts its workers; whoever shall not have them doesn't start it"
        }
        "disable_logs" => "no files are written unless they are named",
        "force" => "one primary runs one app, so that nothing is there twice",
        "increment_var" => "workers know their slot: NODE_APP_INSTANCE, STICKY_LB_SLOT",
        "instance_var" => "the slot is in NODE_APP_INSTANCE and STICKY_LB_SLOT",
        "kill_retry_time" => "the kernel says when a worker has ended",
        "pid" | "pid_file" => {
            "service managers know pids; a line on standard output says the primary's"
        }
        "pmx" | "trace" | "disable_trace" | "deep_monitoring" => "nothing is put into workers",
        "shutdown_with_message" => "workers are told on their channel that they are to end",
        "source_map_support" => "Node does it itself: put --enable-source-maps into the command",
        "treekill" => "each worker's whole process group is ended",
        "versioning" | "vizion" | "post_update" | "repo" | "ref" => {
            "versions of the code are not looked at"
        }
        "watch_options" => "see watch, ignore_watch and watch_delay",
        "windowsHide" => "there are no windows",
        _ => "there is nothing like it",
    })
}

/// What has to be said beside a key.
pub(super) fn about(key: &str, value: &str) -> Option<&'static str> {
    match (key, value) {
        ("command", _) => Some(
            "It has to be a worker, as the guide says in \"Workers in Rust\" and \"Workers in any\n\
             # language\": one that takes its connections from the primary.",
        ),
        ("wait_ready", "false") => Some(
            "As PM2 without wait_ready. A worker serves as soon as it has attached; with true, when \
             it\n# says that it is ready, so that no client comes before that.",
        ),
        _ => None,
    }
}
