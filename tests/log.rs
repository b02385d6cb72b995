//! The primary's own log: what its lines look like, and which of them there are.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use common::process::{Signal, signal};
use common::{Primary, eventually, own_directory};
use serde_json::Value;
use sticky_lb::internals::log::{self, LogFormat, LogSettings, PARTS};

/// All lines, each of which has to be an object with what every line has.
fn objects(log: &str) -> Vec<Value> {
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    for line in &lines {
        let text = |key: &str| line[key].as_str().unwrap_or_else(|| panic!("no {key}: {line}"));
        let time: jiff::Timestamp = text("timestamp").parse().unwrap();
        let age = jiff::Timestamp::now().duration_since(time);
        assert!((0..60).contains(&age.as_secs()), "{line}");
        assert!(["error", "warn", "info"].contains(&text("level")), "{line}");
        assert!([&PARTS[..], &["log"]].concat().contains(&text("part")), "{line}");
        assert!(!text("message").contains(|c: char| c.is_ascii_digit()), "not constant: {line}");
    }
    lines
}

fn message<'a>(lines: &'a [Value], message: &str) -> &'a Value {
    let found = lines.iter().find(|line| line["message"] == message);
    found.unwrap_or_else(|| panic!("no {message:?} in {lines:?}"))
}

#[test]
fn every_line_of_a_life_is_json_where_that_is_wanted() {
    let mut primary = Primary::with_workers(2)
        .arguments(&["--primary-log-format", "json", "--min-uptime", "0"])
        .start();
    let (slot_0, slot_1) = (primary.worker(0), primary.worker(1));
    signal(slot_1, Signal::KILL);
    eventually("a successor", || primary.worker(1) != slot_1);
    primary.wait_for_log("\"serving\":2,\"of\":2");
    primary.signal(Signal::HUP);
    primary.wait_for_event("reloaded");
    primary.signal(Signal::TERM);
    primary.wait_for_event("stopped");
    primary.wait();
    let lines = objects(&primary.log());
    let died = message(&lines, "worker crashed");
    assert_eq!((&died["level"], &died["part"]), (&"warn".into(), &"supervisor".into()));
    assert_eq!((&died["slot"], &died["generation"]), (&1.into(), &0.into()), "{died}");
    assert_eq!(died["pid"], slot_1);
    assert_eq!(message(&lines, "worker ready")["generation"], 0);
    assert!(lines.iter().any(|line| line["pid"] == slot_0));
    assert_eq!(message(&lines, "signal received")["signal"], "HUP");
    assert_eq!(message(&lines, "signal received")["part"], "primary");
}

#[test]
fn a_failed_start_is_json_too() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let flags = ["--host", "127.0.0.1", "--port", &port, "--primary-log-format", "json"];
    let (code, log) = Primary::from_flags(&flags).run();
    assert_eq!(code, Some(1));
    let lines = objects(&log);
    let failed = message(&lines, "primary failed");
    assert_eq!(failed["level"], "error");
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains(&port) && error.contains("in use"), "{error}");
    let (code, log) = Primary::from_flags(&flags[..4]).run();
    assert_eq!(code, Some(1));
    assert!(log.lines().last().unwrap().starts_with("sticky-lb: port "), "{log}");
}

/// Replaces all workers, and returns the log.
fn log_of_a_reload(levels: &str) -> String {
    let flags = ["--log-level", levels, "--min-uptime", "0"];
    let mut primary = Primary::with_workers(1).arguments(&flags).start();
    primary.signal(Signal::HUP);
    primary.wait_for_event("reloaded");
    primary.signal(Signal::TERM);
    primary.wait();
    primary.log()
}

#[test]
fn a_part_has_a_level_of_its_own() {
    const SUPERVISOR_DEBUG: &str = "worker replaced";
    const SUPERVISOR_INFO: &str = "worker ready";
    const PRIMARY_INFO: &str = "signal received";
    for (levels, expected) in [
        ("info", [false, true, true]),
        ("supervisor=debug", [true, true, true]),
        ("info,frontend=debug", [false, true, true]),
        ("warn,supervisor=debug", [true, true, false]),
        ("info,supervisor=off", [false, false, true]),
    ] {
        let log = log_of_a_reload(levels);
        let found =
            [SUPERVISOR_DEBUG, SUPERVISOR_INFO, PRIMARY_INFO].map(|text| log.contains(text));
        assert_eq!(found, expected, "{levels}:\n{log}");
        assert!(!log.contains('\x1b'), "no colours in a file");
    }
}

#[test]
fn a_reload_finds_other_levels() {
    let file = own_directory().join("sticky-lb.toml");
    let configure = |levels: &str| {
        let text = format!("workers = 1\nmin_uptime = 0\nlog_level = \"{levels}\"\n");
        fs::write(&file, text).unwrap();
    };
    configure("info");
    let path = file.to_str().unwrap();
    let primary = Primary::from_flags(&["--port", "0", "--config", path]).start();
    let reload = || {
        primary.signal(Signal::HUP);
        primary.wait_for_event("reloaded")["result"].clone()
    };
    let count = |text: &str| primary.log().matches(text).count();
    assert_eq!(reload(), "done");
    assert_eq!((count("worker replaced"), count("signal received")), (0, 1));
    configure("warn,supervisor=debug");
    assert_eq!(reload(), "done");
    assert_eq!((count("worker replaced"), count("signal received")), (1, 2));
    configure("loud");
    assert_eq!(reload(), "refused");
    assert!(
        primary.log().contains("no level \\\"loud\\\", expected one of error"),
        "what is known"
    );
    assert_eq!(count("signal received"), 2, "still from warn on");
    configure("info");
    assert_eq!(reload(), "done");
    assert_eq!((count("worker replaced"), count("signal received")), (1, 2));
    primary.stop();
}

#[test]
fn wrong_levels_are_refused_with_what_is_known() {
    for (levels, expected) in [
        ("loud", "no level \"loud\", expected one of error, warn, info, debug, trace, or off"),
        ("info,backend=debug", "no part \"backend\", expected one of bus, cli, control, frontend,"),
        ("frontend=loud", "no level \"loud\", expected one of"),
    ] {
        let (code, log) = Primary::from_flags(&["--port", "0", "--log-level", levels]).run();
        assert_eq!(code, Some(2), "{levels}");
        assert!(log.contains(expected), "{levels}: {log}");
    }
}

/// What a start that fails shows on a terminal.
fn on_a_terminal(no_color: Option<&str>) -> String {
    let pair = nix::pty::openpty(None, None).expect("the kernel has a terminal left");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
    // Of a network for documentation: nobody has this address.
    command.args(["--port", "0", "--workers", "1", "--host", "203.0.113.1"]);
    command.env_remove("NO_COLOR").envs(no_color.map(|value| ("NO_COLOR", value)));
    command.current_dir(own_directory()).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.stderr(pair.slave).status().unwrap();
    assert_eq!(status.code(), Some(1));
    // Holds the other end.
    drop(command);
    let mut shown = Vec::new();
    // It ends with an error when nobody has the other end any more.
    let _ = File::from(pair.master).read_to_end(&mut shown);
    String::from_utf8(shown).unwrap()
}

#[test]
fn there_is_colour_on_a_terminal_only_where_it_is_wanted() {
    for (no_color, expected) in [(None, true), (Some(""), true), (Some("1"), false)] {
        let shown = on_a_terminal(no_color);
        assert!(shown.contains("descriptor limit raised"), "{shown}");
        assert_eq!(shown.contains('\x1b'), expected, "{no_color:?}: {shown:?}");
    }
}

/// What a thread of another process says that panics.
fn panicking(format: &str) -> String {
    let (status, said) = program_that_panics(format, "");
    assert!(status.success(), "a thread's panic is not the end");
    said
}

fn program_that_panics(format: &str, aborts: &str) -> (ExitStatus, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "a_program_of_which_a_thread_panics", "--nocapture"]);
    command.env("LOG_FORMAT", format).env("ABORTS", aborts).env_remove("RUST_BACKTRACE");
    let output = command.output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

#[test]
#[ignore = "a program for the test below"]
fn a_program_of_which_a_thread_panics() {
    let json = std::env::var("LOG_FORMAT").is_ok_and(|format| format == "json");
    let format = if json { LogFormat::Json } else { LogFormat::Text };
    let _log = log::start(&LogSettings { levels: "error".parse().unwrap(), format });
    if std::env::var("ABORTS").is_ok_and(|aborts| !aborts.is_empty()) {
        log::abort_on_panic();
    }
    let thread = std::thread::Builder::new().name("unlucky".to_owned());
    let thread = thread.spawn(|| panic!("out of {}", "luck")).unwrap();
    assert!(thread.join().is_err());
}

#[test]
fn a_panic_is_a_line_of_the_log() {
    let lines = objects(&panicking("json"));
    let panicked = message(&lines, "thread panicked");
    assert_eq!(
        (&panicked["thread"], &panicked["reason"]),
        (&"unlucky".into(), &"out of luck".into())
    );
    assert!(panicked["location"].as_str().unwrap().starts_with("tests/log.rs:"), "{panicked}");
    let text = panicking("text");
    assert!(text.contains("thread panicked thread=\"unlucky\""), "{text}");
    assert!(text.contains("out of luck\nnote: run with"), "what Rust says stands before: {text}");
}

#[test]
fn where_a_panic_is_the_end_it_is_said_before() {
    let (status, said) = program_that_panics("json", "yes");
    assert_eq!(status.signal(), Some(6), "{said}");
    assert_eq!(message(&objects(&said), "thread panicked")["reason"], "out of luck");
}
