//! One connection can be followed through primary and worker: their lines carry the same id.

mod common;

use common::client::{ask, get_from, nth};
use common::process::Signal;
use common::{Primary, eventually, example};

/// The lines with all of these.
fn lines_with(text: &str, all: &[&str]) -> Vec<String> {
    let has_all = |line: &&str| all.iter().all(|part| line.contains(part));
    text.lines().filter(has_all).map(str::to_owned).collect()
}

/// The text behind `name=` in a line.
fn field(line: &str, name: &str) -> String {
    let name = format!("{name}=");
    let start = line.find(&name).unwrap_or_else(|| panic!("no {name} in {line}")) + name.len();
    line[start..].chars().take_while(|c| !" }".contains(*c)).collect()
}

/// Everything that workers have printed: standard error is among the lines of the log.
fn printed(primary: &Primary) -> String {
    let printed = primary.printed();
    let lines = printed.iter().map(|line| String::from_utf8_lossy(line) + "\n");
    primary.log() + &lines.collect::<String>()
}

#[test]
fn a_connection_has_the_same_id_in_the_primarys_lines_and_in_its_workers() {
    let primary = Primary::with_workers(2)
        .arguments(&["--log-level", "debug"])
        .environment("STICKY_LB_LOG", "debug")
        .start();
    ask(nth(0), primary.address());
    let client = nth(7);
    let answer = ask(client, primary.address());
    let client = format!("client={client}:");
    let mut steps = Vec::new();
    for step in ["connection handed over", "connection acknowledged"] {
        primary.wait_for_log(step);
        eventually(step, || {
            steps = lines_with(&primary.log(), &[step, &client]);
            !steps.is_empty()
        });
        assert_eq!(steps.len(), 1, "{steps:?}");
        assert_eq!(field(&steps[0], "connection"), "2");
        assert_eq!(field(&steps[0], "slot"), answer.slot().to_string());
        assert_eq!(field(&steps[0], "generation"), "0");
    }
    for step in ["connection accepted", "connection ended"] {
        eventually(step, || {
            steps = lines_with(&printed(&primary), &[step, &client]);
            !steps.is_empty()
        });
        assert_eq!(steps.len(), 1, "{steps:?}");
        assert_eq!(field(&steps[0], "connection"), "2");
        assert_eq!(field(&steps[0], "slot"), answer.slot().to_string());
        assert_eq!(field(&steps[0], "generation"), "0");
        assert_eq!(field(&steps[0], "pid"), answer.pid().to_string());
    }
    primary.stop();
}

#[test]
fn what_an_app_logs_while_it_handles_a_request_names_the_connection() {
    for role in ["logs-hyper", "logs-axum"] {
        let primary = Primary::with_workers(1).worker(&[&example("library_worker"), role]).start();
        ask(nth(0), primary.address());
        get_from(nth(1), primary.address(), "/second").unwrap();
        let mut lines = Vec::new();
        eventually("the app's line", || {
            lines = lines_with(&printed(&primary), &["request path=\"/second\""]);
            !lines.is_empty()
        });
        assert_eq!(field(&lines[0], "connection"), "2", "{role}");
        assert_eq!(field(&lines[0], "slot"), "0", "{role}");
        assert_eq!(lines[0].matches("connection=").count(), 1, "{}", lines[0]);
        primary.stop();
    }
}

#[test]
fn without_being_asked_neither_says_anything_of_a_connection() {
    let primary = Primary::with_workers(1).start();
    ask(nth(0), primary.address());
    primary.signal(Signal::TERM);
    primary.wait_for_event("stopped");
    let said = primary.log() + &printed(&primary);
    assert_eq!(lines_with(&said, &["connection="]), [""; 0]);
}
