//! What goes wrong at the start is said in one clear line, with the right exit code.

mod common;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::process::Signal;
use common::{Builder, Primary};

fn fails(builder: Builder, code: i32, expected: &str) {
    let (exit, log) = builder.run();
    let last = log.lines().last().unwrap_or_default();
    assert_eq!(exit, Some(code), "{log}");
    assert!(last.starts_with("sticky-lb: ") && last.contains(expected), "{last:?} in {log}");
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let builder = Primary::with_workers(1).arguments(&["--host", "127.0.0.1", "--port", &port]);
    fails(builder, 1, &format!("port {port} is in use at 127.0.0.1"));
    let taken = TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let builder = Primary::with_workers(1).arguments(&["--port", &port]);
    fails(builder, 1, &format!("port {port} is in use at [::]:{port}: stop what listens there"));
}

#[test]
fn a_port_for_privileged_processes() {
    const UNPRIVILEGED: &[&str] = &[
        "setpriv",
        "--reuid",
        "nobody",
        "--regid",
        "nogroup",
        "--clear-groups",
        "--inh-caps=-all",
    ];
    let limit = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if limit.trim() == "0" {
        return println!("no port is privileged here");
    }
    for arguments in [
        &["--host", "127.0.0.1", "--port", "1"][..],
        &["--admin", "127.0.0.1:1", "--admin-token-file", "none"],
    ] {
        let builder = Primary::with_workers(1)
            .arguments(arguments)
            .launcher(UNPRIVILEGED)
            .environment("STICKY_LB_RUNTIME_DIR", "")
            .environment("XDG_RUNTIME_DIR", "");
        fails(builder, 1, "is privileged: run as root or with CAP_NET_BIND_SERVICE");
    }
}

#[test]
fn a_control_socket_in_a_folder_that_is_not_there() {
    let builder = Primary::with_workers(1).arguments(&["--control", "/nonexistent/x.sock"]);
    let expected =
        "directory \"/nonexistent\" does not exist: create it, or give another --control";
    fails(builder, 1, expected);
}

#[test]
fn a_host_that_does_not_resolve() {
    fails(
        Primary::with_workers(1).arguments(&["--host", "no-such-host.invalid"]),
        1,
        "cannot resolve host",
    );
}

#[test]
fn an_address_of_somebody_else() {
    let token = common::own_directory().join("token");
    std::fs::write(&token, "a-token-of-many-characters").unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    let token = token.to_str().unwrap();
    let expected = "no network interface of this machine has this address";
    for arguments in [
        &["--host", "203.0.113.9"][..],
        &["--admin", "203.0.113.9:9900", "--admin-token-file", token],
    ] {
        fails(Primary::with_workers(1).arguments(arguments), 1, "cannot listen on");
        fails(Primary::with_workers(1).arguments(arguments), 1, expected);
    }
}

#[test]
fn a_command_that_does_not_exist() {
    let builder = Primary::with_workers(2).worker(&["./no-such-program"]);
    fails(builder, 1, "cannot run worker command \"./no-such-program\": No such file");
}

#[test]
fn a_command_that_cannot_be_executed() {
    fails(Primary::with_workers(2).worker(&["/etc/passwd"]), 1, "Permission denied");
}

#[test]
fn a_worker_that_exits_at_once() {
    let builder = Primary::with_workers(2).test_worker(&["exits"]);
    fails(builder, 1, "no worker became ready: the last one, in slot");
    let builder = Primary::with_workers(2).test_worker(&["exits"]);
    fails(builder, 1, "exited with status 3");
}

#[test]
fn a_worker_that_never_attaches_or_never_gets_ready() {
    for role in ["never-attaches", "hello-only"] {
        let builder = Primary::with_workers(2).test_worker(&[role]);
        fails(
            builder.arguments(&["--listen-timeout", "150ms"]),
            1,
            "was not ready within 150ms (listen_timeout) and was killed",
        );
    }
}

#[test]
fn a_killed_worker_is_logged_once_and_the_last_event_says_whose_it_is() {
    let primary = Primary::with_workers(1)
        .arguments(&["--listen-timeout", "500ms"])
        .slot_zero("if [ -e hang ]; then exec sleep 60; fi")
        .start();
    std::fs::write(primary.directory().join("hang"), "").unwrap();
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "aborted");
    let log = primary.log();
    let lines = log.lines().filter(|line| line.contains("was not ready within"));
    let of_worker: Vec<_> = lines.filter(|line| !line.contains("rolling restart")).collect();
    assert_eq!(of_worker.len(), 1, "{of_worker:?}");
    let pid = primary.pid();
    assert_eq!(primary.stop()["pid"], pid);
}

#[test]
fn a_program_that_is_no_worker() {
    let hint = "no worker ever attached: COMMAND has to be a worker";
    let ends = || Primary::with_workers(1).worker(&["true"]);
    fails(ends(), 1, "exited with status 0");
    fails(ends(), 1, hint);
    let waits = Primary::with_workers(2).worker(&["sleep", "60"]);
    fails(waits.arguments(&["--listen-timeout", "150ms"]), 1, hint);
    // One that has attached is a worker.
    let attaches = Primary::with_workers(1).test_worker(&["hello-only"]);
    let (_, log) = attaches.arguments(&["--wait-ready", "--listen-timeout", "1s"]).run();
    assert!(log.contains("no worker became ready") && !log.contains(hint), "{log}");
}

#[test]
fn flags_that_make_no_sense() {
    for (arguments, expected) in [
        (&["--workers", "0"][..], "at least one worker is needed"),
        (&["--placement", "best"], "invalid value 'best'"),
        (&["--weights", "1,2"], "2 weights given for 3 workers"),
        (&["--load-bound", "0.9"], "at least 1"),
        (&["--no-such-flag"], "unexpected argument"),
    ] {
        let base = Primary::with_workers(3);
        let (exit, log) = if arguments[0] == "--workers" {
            let output =
                Command::new(env!("CARGO_BIN_EXE_sticky-lb")).args(arguments).output().unwrap();
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        } else {
            base.arguments(arguments).run()
        };
        assert_eq!(exit, Some(2), "{log}");
        assert!(log.contains(expected), "{log}");
    }
}

#[test]
fn a_word_that_is_no_command_is_explained() {
    for (arguments, expected) in [
        (&["statsu"][..], "did you mean `sticky-lb status`?"),
        (&["node", "server.js"], "put the command after --: sticky-lb -- node server.js"),
        (&["-p", "80", "node"], "put the command after --: sticky-lb -p 80 -- node"),
    ] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_sticky-lb")).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.starts_with("sticky-lb: ") && error.contains(expected), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_descriptor_for_events_must_be_open_for_writing() {
    for (number, redirection, expected) in [
        ("7", "", "--events-fd 7: the descriptor is not open"),
        ("7", "7</dev/null", "--events-fd 7: it is open for reading only"),
        ("0", "", "--events-fd 0: standard input"),
        ("x", "", "invalid value 'x'"),
    ] {
        let script = format!("exec \"$0\" --port 0 --events-fd {number} {redirection}");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_sticky-lb")]);
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_worker_without_a_primary_says_how_to_start_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_sticky-lb")).arg("demo-worker").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("not started by sticky-lb (STICKY_LB_CHANNEL is not set)"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn an_environment_that_is_not_the_primarys_is_said_so() {
    for (channel, expected) in
        [("x", "expected a number"), ("77", "descriptor 77"), ("2", "descriptor 2")]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_sticky-lb"))
            .arg("demo-worker")
            .env("STICKY_LB_CHANNEL", channel)
            .env("STICKY_LB_SLOT", "0")
            .env("STICKY_LB_GENERATION", "0")
            .env("STICKY_LB_ORPHAN_TIMEOUT", "0")
            .env("STICKY_LB_KILL_TIMEOUT", "0")
            .env("STICKY_LB_SCOREBOARD", "78")
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for flag in ["--help", "-h", "--version"] {
        let output = Command::new(env!("CARGO_BIN_EXE_sticky-lb")).arg(flag).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{flag}");
    }
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let primary = Primary::with_workers(1).soft_descriptor_limit(200).start();
    for pid in [primary.pid(), primary.primary_pid(), primary.worker(0)] {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let [.., soft, hard, _] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert_eq!(soft, hard, "{line}");
    }
}

#[test]
fn a_backlog_that_the_kernel_will_not_keep_is_said_so() {
    let primary = Primary::with_workers(1).arguments(&["--backlog", "2000000000"]).start();
    primary.wait_for_log("raise net.core.somaxconn");
    assert!(
        !Primary::with_workers(1)
            .arguments(&["--backlog", "16"])
            .start()
            .log()
            .contains("somaxconn")
    );
}

#[test]
fn a_slot_that_fails_does_not_keep_the_others_from_serving() {
    let primary = Primary::with_workers(2).slot_zero("exit 7").start_listening();
    assert_eq!(common::client::ask(primary.client_of(1), primary.address()).slot(), 1);
    assert_eq!(common::client::ask(primary.client_of(0), primary.address()).slot(), 1);
    primary.wait_for_log("exited with status 7");
    primary.stop();
}
