//! What a reload picks up, what orders one, and that a broken configuration changes nothing.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::client::ask;
use common::load::Load;
use common::process::{Signal, variable};
use common::{Builder, Primary, eventually};

/// A primary that reads `sticky-lb.toml` in a directory of its own.
fn configured(text: &str) -> (Builder, std::path::PathBuf) {
    let file = common::own_directory().join("sticky-lb.toml");
    fs::write(&file, text).expect("a new file");
    let path = file.to_str().expect("a path of text");
    let builder = Primary::from_flags(&["--port", "0", "--config", path]);
    (builder, file)
}

fn reload(primary: &Primary) -> serde_json::Value {
    primary.signal(Signal::HUP);
    primary.wait_for_event("reloaded")
}

#[test]
fn a_reload_picks_up_environment_and_number_of_workers() {
    let (builder, file) =
        configured("workers = 2\nmin_uptime = \"100ms\"\n[env]\nCOLOUR = \"red\"\n");
    let primary = builder.start();
    let colours = || -> Vec<_> {
        let workers = primary.workers().into_iter();
        workers.map(|(pid, ..)| variable(pid, "COLOUR").unwrap_or_default()).collect()
    };
    assert_eq!(colours(), ["red"; 2]);
    let load = Load::start(primary.address());
    fs::write(&file, "workers = 3\nmin_uptime = \"100ms\"\n[env]\nCOLOUR = \"blue\"\n").unwrap();
    assert_eq!(reload(&primary)["result"], "done");
    eventually("three blue workers", || colours() == ["blue"; 3]);
    fs::write(&file, "workers = 1\n").unwrap();
    assert_eq!(reload(&primary)["result"], "done");
    eventually("one without colour", || colours() == [""]);
    load.stop();
    primary.stop();
}

#[test]
fn a_broken_configuration_is_refused_and_everything_goes_on() {
    let (builder, file) = configured("workers = 2\n");
    let primary = builder.start();
    let before = primary.workers();
    let load = Load::start(primary.address());
    for (broken, reason) in [
        ("workers = 2\nmax_memry_restart = \"1G\"\n", "did you mean"),
        ("workers = \"many\"\n", "sticky-lb.toml:1"),
        ("workers = [\n", "sticky-lb.toml"),
        ("workers = 2\nwatch = [\"/nonexistent\"]\n", "/nonexistent"),
        ("", "cannot read configuration file"),
    ] {
        fs::write(&file, broken).unwrap();
        if broken.is_empty() {
            fs::remove_file(&file).unwrap();
        }
        let reloaded = reload(&primary);
        assert_eq!(reloaded["result"], "refused", "{broken}");
        let said = reloaded["reason"].as_str().unwrap();
        assert!(said.contains(reason), "{said:?}, expected {reason:?}");
    }
    load.wait_for_more(20);
    load.stop();
    assert_eq!(primary.workers(), before);
    fs::write(&file, "workers = 2\n").unwrap();
    assert_eq!(reload(&primary)["result"], "done");
    primary.stop();
}

#[test]
fn a_command_that_is_not_there_aborts_the_reload() {
    let (builder, file) = configured("workers = 2\n");
    let primary = builder.start();
    let before = primary.workers();
    fs::write(&file, "workers = 4\ncommand = [\"./no-such-program\"]\n").unwrap();
    let reloaded = reload(&primary);
    assert_eq!(reloaded["result"], "aborted", "{reloaded}");
    assert_eq!(primary.workers(), before);
    let old = primary.worker(0);
    common::process::signal(old, Signal::KILL);
    eventually("a successor of what worked", || primary.worker(0) != old);
    primary.signal(Signal::TTIN);
    eventually("one more of what worked", || primary.workers().len() == 3);
    primary.stop();
}

#[test]
fn workers_ordered_during_a_reload_are_of_the_kind_that_works() {
    let (builder, file) = configured("workers = 2\nlisten_timeout = \"700ms\"\n");
    let primary = builder.start();
    let text = "workers = 4\nlisten_timeout = \"700ms\"\ncommand = \"sleep 100\"\n";
    fs::write(&file, text).unwrap();
    primary.signal(Signal::HUP);
    primary.wait_for_log("rolling restart started");
    primary.signal(Signal::TTIN);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "aborted");
    assert_eq!(primary.wait_for_event("scaled")["workers"], 3);
    primary.wait_for_log("serving=3 of=3");
    primary.stop();
}

#[test]
fn a_reload_keeps_the_number_that_was_ordered_unless_the_configured_one_has_changed() {
    let (builder, file) = configured("workers = 2\n");
    let primary = builder.start();
    primary.signal(Signal::TTIN);
    assert_eq!(primary.wait_for_event("scaled")["workers"], 3);
    let old = primary.worker(0);
    assert_eq!(reload(&primary)["result"], "done");
    assert_ne!(primary.worker(0), old);
    assert_eq!(primary.workers().len(), 3, "as ordered");
    fs::write(&file, "workers = 1\n").unwrap();
    assert_eq!(reload(&primary)["result"], "done");
    eventually("one worker, as configured now", || primary.workers().len() == 1);
    primary.stop();
}

#[test]
fn what_only_a_new_primary_can_change_is_said() {
    let (builder, file) = configured("workers = 1\n");
    let primary = builder.start();
    fs::write(&file, "workers = 1\nbacklog = 77\nplacement = \"modulo\"\n").unwrap();
    assert_eq!(reload(&primary)["result"], "done");
    primary.wait_for_log("only a new primary can change these");
    let log = primary.log();
    let line = log.lines().find(|line| line.contains("only a new primary")).unwrap();
    assert!(line.contains("backlog") && line.contains("placement"), "{line}");
    primary.stop();
}

#[test]
fn a_reload_that_fails_says_why_and_what_runs_on() {
    let (builder, file) = configured("workers = 1\nname = \"app\"\n");
    let primary = builder.start();
    let before = primary.status()["command"].clone();
    let failing = "command = [\"sh\", \"-c\", \"echo no database >&2; exit 3\"]\n";
    fs::write(&file, format!("workers = 1\nname = \"app\"\n{failing}")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
    let output = command.args(["reload", "--control"]).arg(primary.control()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    for expected in [
        "exited with status 3, its last line: no database",
        "`sticky-lb --name app logs --slot 0` has more",
        "the workers of before go on: mend it, then `sticky-lb --name app reload`",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert_eq!(primary.status()["command"], before, "what runs is what ran");
    primary.stop();
}

#[test]
fn the_command_says_what_was_not_applied_and_what_applies_it() {
    let (builder, file) = configured("workers = 1\n");
    let primary = builder.start();
    let text = "workers = 1\nbacklog = 77\nhost = \"127.0.0.1\"\nname = \"new\"\nkeeper = false\n";
    fs::write(&file, text).unwrap();
    let reload = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
        let output = command.args(["reload", "--control"]).arg(primary.control()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        let said = error.lines().filter(|line| line.contains("not applied"));
        said.map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = [
        "sticky-lb: not applied: host, backlog, name: `sticky-lb upgrade` applies them",
        "sticky-lb: not applied: keeper: a restart of sticky-lb applies it",
    ];
    assert_eq!(reload(), expected);
    let done = primary.ask("reload", serde_json::json!({}));
    assert_eq!(done["not_applied"][0]["setting"], "host");
    assert_eq!(done["not_applied"][0]["applied_by"], "upgrade");
    primary.upgrade();
    assert_eq!(reload().len(), 1, "the keeper is the same");
    primary.stop();
}

#[test]
fn a_reload_follows_a_symlink_to_the_new_release_and_crashes_before_it_do_not() {
    let root = common::own_directory();
    for release in ["one", "two"] {
        fs::create_dir(root.join(release)).unwrap();
    }
    let switch = |release: &str| {
        let next = root.join("next");
        symlink(release, &next).unwrap();
        fs::rename(next, root.join("current")).unwrap();
    };
    switch("one");
    let current = root.join("current");
    let primary = Primary::with_workers(1)
        .arguments(&["--min-uptime", "100ms", "--cwd", current.to_str().unwrap()])
        .start();
    let runs_in = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    let in_release = |release: &str, pid| runs_in(pid).ends_with(Path::new(release));
    let first = primary.worker(0);
    assert!(in_release("one", first));
    switch("two");
    common::process::signal(first, Signal::KILL);
    eventually("a successor", || primary.worker(0) != first);
    assert!(in_release("one", primary.worker(0)), "a crash is no deploy");
    assert_eq!(reload(&primary)["result"], "done");
    eventually("the new release", || in_release("two", primary.worker(0)));
    primary.stop();
}

#[test]
fn a_change_of_a_watched_file_is_a_rolling_restart() {
    let app = common::own_directory();
    fs::write(app.join("server.js"), "one").unwrap();
    let primary = Primary::with_workers(2)
        .arguments(&["--min-uptime", "100ms", "--watch", app.to_str().unwrap()])
        .arguments(&["--ignore-watch", "logs"])
        .start();
    let before = primary.worker(0);
    fs::create_dir(app.join("logs")).unwrap();
    fs::write(app.join("logs/out.log"), "nobody minds").unwrap();
    fs::write(app.join("server.js"), "two").unwrap();
    let reloaded = primary.wait_for_event("reloaded");
    assert_eq!(reloaded["result"], "done");
    assert!(reloaded["trigger"].as_str().unwrap().contains("server.js"), "{reloaded}");
    assert_ne!(primary.worker(0), before);
    primary.stop();
}

#[test]
fn log_files_in_a_watched_folder_are_no_changes() {
    let app = common::own_directory();
    let log = app.join("out.log");
    let primary = Primary::with_workers(1)
        .arguments(&["--min-uptime", "100ms", "--watch", app.to_str().unwrap()])
        .arguments(&["--out-file", log.to_str().unwrap()])
        .slot_zero("echo started")
        .start();
    eventually("the line is written", || {
        let files = fs::read_dir(&app).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().any(|file| fs::read_to_string(file).unwrap().contains("started"))
    });
    fs::write(app.join("server.js"), "two").unwrap();
    let trigger = primary.wait_for_event("reloaded")["trigger"].to_string();
    assert!(trigger.contains("server.js"), "{trigger}");
    primary.stop();
}

#[test]
fn what_the_primary_writes_itself_is_no_change() {
    // Standard error is a file there, too.
    let primary = Primary::with_workers(1)
        .launcher(&["sh", "-c", "exec \"$0\" \"$@\" > output"])
        .arguments(&["--min-uptime", "100ms", "--watch", "--out-file", "app.log"])
        .slot_zero("echo started")
        .start();
    let file = |name: &str| primary.directory().join(name);
    let printed = |name: &str| fs::read_to_string(file(name)).unwrap_or_default();
    eventually("both have the line", || {
        printed("output").contains("started") && printed("app-0.log").contains("started")
    });
    // A name like that of a log file, and one after a restart that was logged.
    for name in ["app.js", "other.js"] {
        fs::write(file(name), "two").unwrap();
        let reloaded = primary.wait_for_event("reloaded");
        let trigger = reloaded["trigger"].as_str().unwrap();
        assert!(trigger.ends_with(&format!("/{name}")), "{reloaded}");
        assert_eq!(reloaded["result"], "done", "{reloaded}");
    }
    primary.stop();
}

#[test]
fn workers_that_change_watched_files_do_not_restart_without_end() {
    let primary = Primary::with_workers(1)
        .arguments(&["--min-uptime", "0", "--watch", "--watch-delay", "100ms"])
        .slot_zero("date +%s%N > state")
        .start();
    primary.wait_for_log("watched files change with each rolling restart");
    let count = |text: &str| primary.log().matches(text).count();
    eventually("all have ended", || count("rolling restart started") == 5);
    let warned = "name it in ignore_watch";
    assert_eq!(count(warned), 1, "{}", primary.log());
    primary.stop();
}

#[test]
fn a_switched_symlink_to_the_directory_is_a_change() {
    let base = common::own_directory();
    let current = base.join("current");
    for release in ["one", "two"] {
        fs::create_dir(base.join(release)).unwrap();
    }
    symlink("one", &current).unwrap();
    let script = format!("cd {} && exec \"$0\" \"$@\"", current.display());
    let primary = Primary::with_workers(1)
        .launcher(&["sh", "-c", &script])
        .arguments(&["--min-uptime", "100ms", "--watch"])
        .start();
    symlink("two", base.join("next")).unwrap();
    fs::rename(base.join("next"), &current).unwrap();
    let reloaded = primary.wait_for_event("reloaded");
    assert!(reloaded["trigger"].as_str().unwrap().ends_with("/current"), "{reloaded}");
    primary.stop();
}

#[test]
fn the_time_of_day_orders_a_rolling_restart() {
    let primary = Primary::with_workers(1)
        .arguments(&["--min-uptime", "0", "--cron-restart", "* * * * * *"])
        .start();
    for _ in 0..2 {
        let reloaded = primary.wait_for_event("reloaded");
        assert_eq!(
            (&reloaded["result"], &reloaded["trigger"]),
            (&"done".into(), &"cron_restart".into())
        );
    }
    ask(common::client::nth(0), primary.address());
    primary.stop();
}

#[test]
fn a_worker_that_never_says_ready_serves_when_nobody_waits_for_it() {
    let primary = Primary::with_workers(1)
        .arguments(&["--wait-ready=false", "--kill-timeout", "300ms"])
        .test_worker(&["hello-only"])
        .start();
    assert_eq!(primary.stop()["how"], "graceful");
}
