//! The operator's commands: they find the primary, say what it says, and fail as scripts expect.
//!
//! What a primary answers is told by a real one, or by a play of one that says what it is given:
//! so that ends which are hard to come by are seen too.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

use common::process::{Signal, signal};
use common::{Primary, TIMEOUT, eventually, own_directory, process};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sticky_lb::internals::control::report::{
    Connections, Event, LogLine, Rollout, RouteExplanation, Scaled, Slot, Status, Worker,
};

/// A command line that looks for primaries in this folder only.
fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
    command.args(words).env("STICKY_LB_RUNTIME_DIR", folder).stdin(Stdio::null());
    command
}

fn run(folder: &Path, words: &[&str]) -> Output {
    command(folder, words).output().unwrap()
}

/// What it prints, where it works.
fn said(folder: &Path, words: &[&str]) -> String {
    let output = run(folder, words);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {}", errors(&output));
    assert_eq!(errors(&output), "", "{words:?}");
    text(&output)
}

/// What it complains about, where it ends with this code. Nothing is printed beside it.
fn complaint(folder: &Path, words: &[&str], code: i32) -> String {
    let output = run(folder, words);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {}", errors(&output));
    assert_eq!(text(&output), "", "{words:?}");
    errors(&output)
}

fn report<T: DeserializeOwned>(folder: &Path, words: &[&str]) -> T {
    let text = said(folder, words);
    assert_eq!(text.lines().count(), 1, "{words:?}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}: {text}"))
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// One that says what it is given: a line for each of the connections that ask something.
struct FakePrimary {
    folder: PathBuf,
    asked: mpsc::Receiver<Value>,
}

/// What comes of a connection.
#[derive(Clone)]
enum Then {
    /// It ends.
    End,
    /// Nothing: it stays open for as long as whoever asks stays.
    Stay,
}

impl FakePrimary {
    /// Answers each request of its kind by these lines.
    fn new(answers: &[(&str, &[Value])]) -> Self {
        let lines = |lines: &[Value]| lines.iter().map(|line| format!("{line}\n")).collect();
        let answers = answers.iter().map(|(kind, it)| ((*kind).to_owned(), lines(it))).collect();
        Self::raw(answers, Then::End)
    }

    fn raw(answers: Vec<(String, String)>, then: Then) -> Self {
        let folder = own_directory();
        let listener = UnixListener::bind(folder.join("play-1.sock")).unwrap();
        let (told, asked) = mpsc::channel();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (answers, told, then) = (answers.clone(), told.clone(), then.clone());
                std::thread::spawn(move || attend(client, &answers, &told, &then));
            }
        });
        Self { folder, asked }
    }

    /// The next request of this kind.
    fn asked(&self, kind: &str) -> Value {
        loop {
            let request = self.asked.recv_timeout(TIMEOUT).expect("it is asked");
            if request["request"] == kind {
                return request;
            }
        }
    }
}

impl Drop for FakePrimary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn attend(
    mut client: UnixStream,
    answers: &[(String, String)],
    told: &mpsc::Sender<Value>,
    then: &Then,
) {
    let mut line = String::new();
    BufReader::new(&client).read_line(&mut line).unwrap();
    let request: Value = serde_json::from_str(&line).unwrap();
    let found = answers.iter().find(|(kind, _)| *kind == request["request"]);
    let probe = format!("{}\n", json!({"done": status("play")}));
    // Whoever looks for primaries asks how they are.
    let known = request["request"] == "status";
    let answer = found.map_or(if known { probe.as_str() } else { "" }, |(_, answer)| answer);
    let _ = client.write_all(answer.as_bytes());
    let _ = told.send(request);
    if matches!(then, Then::Stay) && !known {
        let _ = client.read(&mut [0]);
    }
}

fn status(name: &str) -> Value {
    let status = Status { name: name.to_owned(), accepting: true, ..Status::default() };
    serde_json::to_value(status).unwrap()
}

fn rollout(replaced: u16, result: Option<&str>) -> Value {
    let rollout = Rollout {
        number: 7,
        trigger: "command".to_owned(),
        replaced,
        of: 2,
        under_way: match result {
            None => vec![(replaced, "its new worker to be ready".to_owned())],
            Some(_) => Vec::new(),
        },
        result: result.map(str::to_owned),
        reason: None,
        ..Rollout::default()
    };
    serde_json::to_value(rollout).unwrap()
}

fn problem(code: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}

/// A command that goes on, and the lines that it prints.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let (output, errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let forward = |stream: Box<dyn Read + Send>, sender: mpsc::Sender<String>| {
            std::thread::spawn(move || {
                let lines = BufReader::new(stream).lines().map_while(Result::ok);
                lines.for_each(|line| drop(sender.send(line)));
            })
        };
        forward(Box::new(output), sender.clone());
        forward(Box::new(errors), sender);
        Self { child, lines }
    }

    fn wait_for(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(TIMEOUT);
            let line = line.unwrap_or_else(|error| panic!("no line with {text:?}: {error}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the end of the command", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_only_primary_is_found_without_flags() {
    let primary = Primary::with_workers(2).start();
    let folder = primary.directory();
    let status: Status = report(folder, &["status", "--json"]);
    assert_eq!((status.pid, status.serving, status.workers), (primary.pid(), 2, 2));

    let text = said(folder, &["status"]);
    assert!(text.lines().count() <= 20, "{text}");
    assert!(!text.contains(['!', '\x1b']), "nothing is wrong, and this is a pipe: {text}");
    for expected in [
        "name:        app\n".to_owned(),
        format!("pid {} (primary {}), up ", primary.pid(), primary.primary_pid()),
        format!(":{}\n", primary.port()),
        "2 of 2 serve\n".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected:?}: {text}");
    }
}

#[test]
fn workers_are_listed_line_by_line() {
    let primary = Primary::with_workers(2).start();
    let folder = primary.directory();
    let workers = said(folder, &["workers", "--json"]);
    let workers: Vec<Worker> =
        workers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(workers.len(), 2);
    let table = said(folder, &["workers"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|it| it.split_whitespace().collect()).collect();
    let heads = "slot gen pid state uptime crashes conns total ws req hand/s p99 stalls mem mem/conn cpu share";
    assert_eq!(lines[0].join(" "), heads);
    assert_eq!(lines.len(), 3, "{table}");
    for slot in 0..2_u16 {
        let expected = [slot.to_string(), "0".into(), primary.worker(slot).to_string()];
        assert_eq!(lines[usize::from(slot) + 1][..3], expected, "{table}");
        assert_eq!(lines[usize::from(slot) + 1][3], "serving", "{table}");
    }
    for alias in ["ls", "list"] {
        let again = said(folder, &[alias]);
        assert_eq!(again.lines().count(), 3, "{again}");
    }

    let slot: Slot = report(folder, &["describe", "1", "--json"]);
    assert_eq!((slot.slot, slot.state.as_str()), (1, "serving"));
    let text = said(folder, &["describe", "1"]);
    assert!(text.starts_with("slot:          1\nstate:         serving, "), "{text}");
    assert!(text.contains("worker started"), "{text}");
}

#[test]
fn of_several_primaries_one_is_chosen_by_name_or_socket() {
    let first = Primary::with_workers(1).arguments(&["--name", "shop"]).start();
    let folder = first.directory().to_str().unwrap();
    let second = Primary::with_workers(1)
        .arguments(&["--name", "blog"])
        .environment("STICKY_LB_RUNTIME_DIR", folder)
        .start();
    let folder = first.directory();
    let both = complaint(folder, &["status"], 2);
    let lines: Vec<_> = both.lines().collect();
    assert_eq!(lines[0], "sticky-lb: several primaries run: choose one by --name or --control");
    assert_eq!(lines.len(), 3, "{both}");
    for (name, primary) in [("blog", &second), ("shop", &first)] {
        let socket = folder.join(format!("{name}-{}.sock", primary.port()));
        let line = format!("--control {}  ({name}, pid {}", socket.display(), primary.pid());
        assert!(both.contains(&line), "{line}: {both}");
        let socket = socket.to_str().unwrap();
        for words in [
            ["status", "--json", "--name", name],
            ["--name", name, "status", "--json"],
            ["status", "--json", "--control", socket],
            ["--control", socket, "status", "--json"],
        ] {
            assert_eq!(report::<Status>(folder, &words).pid, primary.pid(), "{words:?}");
        }
    }
    // A name that two have doesn't tell them apart.
    let _third = Primary::with_workers(1)
        .arguments(&["--name", "shop"])
        .environment("STICKY_LB_RUNTIME_DIR", folder.to_str().unwrap())
        .start();
    for words in [&["status"][..], &["status", "--name", "shop"]] {
        let said = complaint(folder, words, 2);
        assert_eq!(
            said.lines().next().unwrap(),
            "sticky-lb: several primaries run: choose one by --control"
        );
    }
}

#[test]
fn where_no_primary_runs_it_is_said_where_one_was_looked_for() {
    let folder = own_directory();
    let nobody = complaint(&folder, &["status"], 1);
    assert!(nobody.contains("no running primary found: looked in"), "{nobody}");
    assert!(nobody.contains(folder.to_str().unwrap()), "{nobody}");
    let named = complaint(&folder, &["reload", "--name", "shop"], 1);
    assert!(named.contains("of name \"shop\""), "{named}");
    let elsewhere = complaint(&folder, &["status", "--control", "/nonexistent/x.sock"], 1);
    assert!(
        elsewhere.contains("cannot reach the primary at \"/nonexistent/x.sock\""),
        "{elsewhere}"
    );
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_a_killed_primary_has_left_is_not_found() {
    let mut primary = Primary::with_workers(1).start();
    primary.kill_all();
    primary.wait();
    let folder = primary.directory();
    let left = fs::read_dir(folder).unwrap().flatten();
    let sockets = left.filter(|entry| entry.path().extension().is_some_and(|it| it == "sock"));
    assert_eq!(sockets.count(), 1, "there is something to be taken for a primary");
    assert!(complaint(folder, &["status"], 1).contains("no running primary found"));
    // Nor does it hide one that runs.
    let text = primary.directory().to_str().unwrap();
    let next = Primary::with_workers(1).environment("STICKY_LB_RUNTIME_DIR", text).start();
    assert_eq!(report::<Status>(folder, &["status", "--json"]).pid, next.pid());
}

#[test]
fn workers_are_added_and_taken_away() {
    let primary = Primary::with_workers(2).start();
    let folder = primary.directory();
    assert_eq!(said(folder, &["scale", "+1"]), "from 2 to 3 workers\n");
    eventually("three workers", || primary.workers().len() == 3);
    assert_eq!(said(folder, &["scale", "-1"]), "from 3 to 2 workers\n");
    let scaled: Scaled = report(folder, &["scale", "1", "--json"]);
    assert_eq!((scaled.from, scaled.to), (2, 1));
    let refused = complaint(folder, &["scale", "2000"], 1);
    let expected = "sticky-lb: the number of workers has to be from 1 to 1024, not 2000";
    assert!(refused.starts_with(expected), "{refused}");
}

#[test]
fn a_real_primary_is_steered_by_what_is_typed() {
    let primary = Primary::with_workers(2).arguments(&["--min-uptime", "50ms"]).start();
    let folder = primary.directory();
    let before = primary.workers();
    let output = run(folder, &["reload"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(text(&output), "rolling restart 1 is done: 2 of 2 slots have new workers\n");
    assert!(errors(&output).contains("0 of 2 slots replaced, slot 0 waits for"), "{output:?}");
    assert!(!before.contains(&(primary.worker(1), 1, 0)), "{before:?}");

    assert_eq!(
        said(folder, &["drain", "1", "--wait"]),
        "slot 1 is drained: its worker has ended\n"
    );
    let status = said(folder, &["status"]);
    assert!(status.starts_with("! only 1 of 2 workers serve\n! slot 1 is drained: "), "{status}");
    let client = primary.client_of(1).to_string();
    let found: RouteExplanation = report(folder, &["where", &client, "--json"]);
    assert_eq!((found.ranking[0].slot, found.target), (1, Some(0)));
    assert!(said(folder, &["where", &client]).contains("slot 0, not to slot 1: "));
    assert_eq!(said(folder, &["drain", "1"]), "slot 1 is drained already\n");
    let refused = complaint(folder, &["restart", "1"], 1);
    assert_eq!(refused, "sticky-lb: slot 1 is drained: undrain it first\n");
    assert_eq!(said(folder, &["undrain", "1"]), "slot 1 serves\n");
    assert_eq!(said(folder, &["undrain", "1"]), "slot 1 serves already\n");
    assert!(said(folder, &["where", "fe80::1%eth0"]).starts_with("address:     fe80::1"));
    for words in [&["logs", "--slot", "7"][..], &["logs", "-f", "--slot", "7"], &["describe", "7"]]
    {
        let refused = complaint(folder, words, 1);
        assert_eq!(refused, "sticky-lb: there is no slot 7: slots are 0 to 1\n", "{words:?}");
    }
    let refused = complaint(folder, &["drain", "7"], 1);
    assert_eq!(refused, "sticky-lb: there is no slot 7: slots are 0 to 1\n");
    complaint(folder, &["signal", "1", "USR9"], 2);
}

#[test]
fn errors_are_lines_of_json_too() {
    let primary = Primary::with_workers(1).start();
    let folder = primary.directory();
    for (words, code, expected) in [
        (&["describe", "7", "--json"][..], 1, "not-found"),
        (&["signal", "0", "USR9", "--json"], 2, "bad-request"),
        (&["status", "--json", "--control", "/nonexistent"], 1, "failed"),
        (&["check", "--json", "--cwd", "/nonexistent"], 2, "bad-request"),
    ] {
        let output = run(folder, words);
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        let line: Value = serde_json::from_str(&text(&output)).unwrap();
        assert_eq!(line["error"]["code"], expected, "{words:?}");
        let message = line["error"]["message"].as_str().unwrap();
        assert!(errors(&output).contains(message), "{words:?}: {}", errors(&output));
    }
}

#[test]
fn stopping_waits_for_the_end() {
    let mut primary = Primary::with_workers(2).start();
    let workers = primary.workers();
    assert_eq!(said(primary.directory(), &["stop"]), "primary has ended\n");
    // Its parent has yet to be told.
    assert_eq!(process::state(primary.pid()), Some('Z'), "the primary had not ended");
    assert!(workers.iter().all(|(pid, ..)| !process::exists(*pid)));
    assert_eq!(primary.wait().code(), Some(0));
}

#[test]
fn events_are_listed_and_followed() {
    let primary = Primary::with_workers(1).start();
    let folder = primary.directory();
    let text = said(folder, &["events"]);
    assert!(text.lines().any(|it| it.ends_with("0/0     worker started")), "{text}");
    assert_eq!(said(folder, &["events", "--last", "1"]).lines().count(), 1);
    let events = said(folder, &["events", "--json"]);
    let events: Vec<Event> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0].kind, "worker-started");

    let running = Running::start(command(folder, &["events", "-f", "--last", "0"]));
    // Until it listens, there is nothing to be heard.
    eventually("a follower", || {
        said(folder, &["scale", "+1"]);
        let heard = running.lines.try_recv().is_ok_and(|line| line.contains("from"));
        said(folder, &["scale", "1"]);
        heard
    });
    // Those until then may have come and gone unread.
    said(folder, &["scale", "2"]);
    running.wait_for("worker ready");
    said(folder, &["scale", "1"]);
    running.wait_for("worker exited");
}

#[test]
fn whoever_reads_a_part_only_sees_no_complaint() {
    let primary = Primary::with_workers(4).start();
    for words in [&["events"][..], &["workers"], &["man"], &["completions", "bash"]] {
        let mut child = command(primary.directory(), words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert_eq!(errors(&output), "", "{words:?}");
    }
    // And where nothing is printed any more, it is noticed all the same.
    let mut child = command(primary.directory(), &["events", "-f", "--last", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    drop(output);
    eventually("the end of the follower", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_typed_wrongly_is_usage() {
    let folder = own_directory();
    for words in [
        &["describe", "first"][..],
        &["describe"],
        &["drain", "-1"],
        &["drain", "70000"],
        &["scale", "many"],
        &["scale", "-x"],
        &["where", "localhost"],
        &["where", "0011"],
        &["conns", "--addr", "10.0.0.0/33"],
        &["events", "--last", "some"],
        &["status", "--name", "x", "--control", "y"],
        &["status", "--port", "1"],
        &["completions", "cmd"],
        &["dance"],
    ] {
        let complaint = complaint(&folder, words, 2);
        // Said by whoever has read the command line, before anybody is looked for.
        let begin = if words == ["dance"] { "sticky-lb: no command " } else { "error: " };
        assert!(complaint.starts_with(begin), "{words:?}: {complaint}");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_a_primary_refuses_has_its_exit_code() {
    let answers = [
        ("drain", [problem("refused", "slot 1 is drained already")]),
        ("kill", [problem("of-the-future", "not today")]),
        ("log-level", [problem("bad-request", "log level: expected error, warn")]),
        ("workers", [problem("version", "sticky-lb 9.9.9 speaks version 7")]),
    ];
    let answers: Vec<(&str, &[Value])> =
        answers.iter().map(|(it, lines)| (*it, &lines[..])).collect();
    let play = FakePrimary::new(&answers);
    let refused = complaint(&play.folder, &["drain", "1"], 1);
    assert_eq!(refused, "sticky-lb: slot 1 is drained already\n");
    assert_eq!(complaint(&play.folder, &["kill", "1"], 1), "sticky-lb: not today\n");
    complaint(&play.folder, &["log-level", "loud"], 2);
    let version = complaint(&play.folder, &["workers"], 1);
    assert!(version.contains("9.9.9 speaks version 7"), "{version}");
    assert!(version.contains(concat!("of sticky-lb ", env!("CARGO_PKG_VERSION"))), "{version}");
}

#[test]
fn whoever_answers_nonsense_is_not_believed() {
    for (answer, expected) in [
        ("", "the primary ended before it had answered"),
        ("nonsense\n", "may be another release"),
        ("{\"done\":{\"slot\":\"three\"}}\n", "may be another release"),
        ("{\"item\":{}}\n", "the primary ended before it had answered"),
        ("\u{0}\u{0}\n\n\n", "may be another release"),
    ] {
        let play = FakePrimary::raw(vec![("describe".into(), answer.into())], Then::End);
        let complaint = complaint(&play.folder, &["describe", "0"], 1);
        assert!(complaint.contains(expected), "{answer:?}: {complaint}");
    }
}

#[test]
fn what_a_newer_primary_says_beyond_is_left_to_programs() {
    let mut slot = serde_json::to_value(Slot { slot: 3, ..Slot::default() }).unwrap();
    slot["phase_of_the_moon"] = json!("full");
    let play = FakePrimary::new(&[("describe", &[json!({"done": slot})])]);
    assert!(said(&play.folder, &["describe", "3"]).starts_with("slot:          3\n"));
    assert_eq!(report::<Value>(&play.folder, &["describe", "3", "--json"]), slot);
}

#[test]
fn a_reload_is_followed_to_its_end() {
    let lines = [
        json!({"item": rollout(0, None)}),
        // Nothing has changed.
        json!({"item": rollout(0, None)}),
        json!({"item": rollout(1, None)}),
        json!({"done": rollout(2, Some("done"))}),
    ];
    let play = FakePrimary::new(&[("reload", &lines)]);
    let output = run(&play.folder, &["reload"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output), "rolling restart 7 is done: 2 of 2 slots have new workers\n");
    let waits = "waits for its new worker to be ready";
    let expected = [0, 1].map(|slot| {
        format!("sticky-lb: rolling restart 7 by command: {slot} of 2 slots replaced, slot {slot} {waits}\n")
    });
    assert_eq!(errors(&output), expected.concat());

    let lines = said(&play.folder, &["reload", "--json"]);
    let lines: Vec<Rollout> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3].result.as_deref(), Some("done"));
}

#[test]
fn a_reload_that_comes_to_nothing_fails_with_the_reason() {
    let reason = "rolling restart 7 aborted: new worker in slot 0 exited: exit code 3";
    let lines = [json!({"item": rollout(0, None)}), problem("failed", reason)];
    let play = FakePrimary::new(&[("reload", &lines)]);
    let output = run(&play.folder, &["reload"]);
    assert_eq!((output.status.code(), text(&output)), (Some(1), String::new()));
    assert!(errors(&output).ends_with(&format!("sticky-lb: {reason}\n")), "{}", errors(&output));

    let play = FakePrimary::new(&[("reload", &[json!({"done": rollout(1, Some("superseded"))})])]);
    let superseded = complaint(&play.folder, &["reload"], 1);
    assert!(superseded.contains("1 of 2 slots replaced, gave way to a newer one"), "{superseded}");
}

#[test]
fn a_reload_goes_on_when_nobody_follows_it_any_more() {
    let first = format!("{}\n", json!({"item": rollout(0, None)}));
    let play = FakePrimary::raw(vec![("reload".into(), first)], Then::Stay);
    let mut running = Running::start(command(&play.folder, &["reload"]));
    running.wait_for("0 of 2 slots replaced");
    signal(running.child.id(), Signal::INT);
    running.wait_for("the rolling restart goes on, `sticky-lb status` says how far it is");
    assert_eq!(running.code(), Some(130));
}

#[test]
fn some_orders_are_waited_for() {
    let done = [json!({"done": {}})];
    let play = FakePrimary::new(&[("drain", &done), ("undrain", &done), ("restart", &done)]);
    let folder = &play.folder;
    for (words, asked, expected) in [
        (
            &["drain", "1"][..],
            json!({"version": 1, "request": "drain", "slot": 1, "wait": false}),
            "slot 1 drains: its worker finishes what it has\n",
        ),
        (
            &["drain", "1", "--wait"],
            json!({"version": 1, "request": "drain", "slot": 1, "wait": true}),
            "slot 1 is drained: its worker has ended\n",
        ),
        (
            &["undrain", "2"],
            json!({"version": 1, "request": "undrain", "slot": 2}),
            "slot 2 serves\n",
        ),
        (
            &["restart", "3"],
            json!({"version": 1, "request": "restart", "slot": 3}),
            "slot 3 has a new worker\n",
        ),
    ] {
        assert_eq!(said(folder, words), expected);
        assert_eq!(play.asked(words[0]), asked);
    }
    // One that takes longer than any question may.
    let play = FakePrimary::raw(Vec::new(), Then::Stay);
    let mut running = Running::start(command(&play.folder, &["restart", "3"]));
    play.asked("restart");
    signal(running.child.id(), Signal::INT);
    running.wait_for("replaced all the same");
    assert_eq!(running.code(), Some(130));
}

#[test]
fn orders_reach_the_primary_as_they_were_typed() {
    let done = [json!({"done": {}})];
    let levels = [json!({"done": {"levels": "info,frontend=debug"}})];
    let clients = [json!({"done": {"clients": 12}})];
    let play = FakePrimary::new(&[
        ("kill", &done),
        ("signal", &done),
        ("log-level", &levels),
        ("rebalance", &clients),
    ]);
    for (words, request, expected) in [
        (&["kill", "0"][..], json!({"slot": 0}), "worker of slot 0 is killed"),
        (
            &["signal", "0", "USR2"],
            json!({"slot": 0, "signal": "USR2"}),
            "worker of slot 0 got USR2",
        ),
        (&["log-level"], json!({}), "log levels: info,frontend=debug"),
        (&["log-level", "debug"], json!({"levels": "debug"}), "log levels: info,frontend=debug"),
        (&["rebalance"], json!({}), "12 clients forgotten"),
    ] {
        let text = said(&play.folder, words);
        assert!(text.starts_with(expected), "{text}");
        let mut asked = play.asked(words[0]);
        let asked = asked.as_object_mut().unwrap();
        asked.remove("version");
        asked.remove("request");
        assert_eq!(Value::from(asked.clone()), request, "{words:?}");
    }
}

#[test]
fn clients_are_looked_up_by_address_and_by_key() {
    let found = RouteExplanation { key: "00112233aabbccdd".into(), ..RouteExplanation::default() };
    let none = Connections { total: 3, ..Connections::default() };
    let play = FakePrimary::new(&[
        ("where", &[json!({"done": found})]),
        ("conns", &[json!({"done": none})]),
    ]);
    let folder = &play.folder;
    assert!(said(folder, &["where", "10.0.0.1"]).contains("key:         00112233aabbccdd\n"));
    assert_eq!(play.asked("where")["address"], "10.0.0.1");
    assert_eq!(report::<RouteExplanation>(folder, &["where", "00112233AABBCCDD", "--json"]), found);
    assert_eq!(play.asked("where")["key"], "00112233aabbccdd");
    let text = said(folder, &["conns", "--slot", "1", "--addr", "10.0.0.1", "--limit", "9"]);
    assert!(text.starts_with("client  local  slot  gen  pid  state"), "{text}");
    assert!(text.contains("3 more: "), "{text}");
    let asked = play.asked("conns");
    assert_eq!([&asked["slot"], &asked["limit"]], [&json!(1), &json!(9)]);
    assert_eq!(asked["address"], "10.0.0.1/32");
}

#[test]
fn lines_of_workers_have_their_slot_before_them() {
    let line =
        |slot, err, text: &str| LogLine { slot, err, text: text.into(), ..LogLine::default() };
    let lines = [line(0, false, "hello"), line(12, true, "\x1b[31moh\x1b[0m")];
    let mut items: Vec<_> = lines.iter().map(|line| json!({"item": line})).collect();
    items.push(json!({"done": {}}));
    let play = FakePrimary::new(&[("logs", &items)]);
    assert_eq!(said(&play.folder, &["logs"]), "0 | hello\n12 | \x1b[31moh\x1b[0m\n");
    assert_eq!(play.asked("logs")["lines"], 15);
    let text = said(&play.folder, &["logs", "--json", "--err", "--slot", "3", "-n", "2"]);
    let found: Vec<LogLine> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(found, lines);
    let asked = play.asked("logs");
    assert_eq!(
        [&asked["err"], &asked["slot"], &asked["lines"], &asked["follow"]],
        [&json!(true), &json!(3), &json!(2), &json!(false)]
    );
}

#[test]
fn stopping_fails_where_the_primary_says_no() {
    let play = FakePrimary::new(&[("stop", &[problem("refused", "everything is being stopped")])]);
    assert!(complaint(&play.folder, &["stop"], 1).contains("everything is being stopped"));
}

#[test]
fn shells_can_complete_every_command() {
    let folder = own_directory();
    for shell in ["bash", "zsh", "fish"] {
        let script = said(&folder, &["completions", shell]);
        for word in ["reload", "log-level", "control"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    let script = folder.join("script");
    fs::write(&script, said(&folder, &["completions", "bash"])).unwrap();
    let checked = Command::new("bash").arg("-n").arg(&script).output().unwrap();
    assert!(checked.status.success(), "{}", errors(&checked));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_manual_page_has_every_command() {
    let folder = own_directory();
    let page = said(&folder, &["man"]);
    assert!(page.contains("\n.TH sticky-lb 1"), "{}", &page[..200]);
    let help = said(&folder, &["--help"]);
    let mut commands = Vec::new();
    for group in ["Look:", "Steer:", "Set up:"] {
        let lines = help.lines().skip_while(|line| *line != group).skip(1);
        let lines = lines.take_while(|line| !line.is_empty());
        commands.extend(lines.filter_map(|line| line.split_whitespace().next()));
    }
    assert!(commands.contains(&"reload") && commands.contains(&"check"), "{commands:?}");
    assert!(help.contains("\nExamples:\n  sticky-lb "), "{help}");
    for title in ["SIGNALS", "FILES", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES"] {
        assert!(page.contains(&format!(".SH \"{title}\"\n")), "{title}");
    }
    for command in &commands {
        let title = format!(".SH \"COMMAND {}\"", command.to_uppercase());
        assert!(page.contains(&title), "{title}");
    }
    // Each says what it does itself.
    for (command, does) in
        [("events", "List what has happened"), ("drain", "Take a slot out of service")]
    {
        let help = said(&folder, &[command, "--help"]);
        assert!(help.starts_with(does), "{help}");
        assert!(help.contains("--control"), "{help}");
        assert!(page.contains(does), "{does}");
    }
    let file = folder.join("sticky-lb.1");
    fs::write(&file, &page).unwrap();
    // Where there is a program that reads such pages, it finds nothing wrong.
    let reader = Command::new("man").args(["--warnings", "-l"]).arg(&file).output();
    if let Ok(output) = reader {
        assert!(output.status.success() && errors(&output).is_empty(), "{}", errors(&output));
    }
    fs::remove_dir_all(folder).unwrap();
}
