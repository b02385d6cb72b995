//! The memory that idle WebSockets take, in all processes: when they are new, after each has had an echo,
//! after all have migrated, and after all have gone.
//!
//! `scripts/prove-memory` does the same with more of them, and prints the figures.

#![expect(clippy::print_stdout, reason = "figures for people")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use common::client::{connect_from, nth};
use common::process::{Signal, exists};
use common::{Primary, TIMEOUT, eventually, example};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

/// Bytes that an idle WebSocket may take in all processes together.
const MAX_EACH: i64 = 6_500;

/// Bytes that each may seem to take in primary and keeper, which grow a little by themselves.
const MAX_FRONT: i64 = 200;

/// Bytes that a protected one may take beyond that in its worker.
const MAX_PROTECTED: i64 = 1_024;

/// Bytes that one that has migrated may take beyond one that hasn't, as memory has holes.
const MAX_MIGRATED: i64 = 300;

/// Bytes of a room's last lines for each of its members, who say three in this test.
const MAX_LINES: i64 = 400;

/// Bytes of a worker that no first connection needs, and that stay: tables, and what is between them.
const TABLES: i64 = 250 * 1_024;

/// The time until what a migration needs for a while is gone.
const SETTLED: Duration = Duration::from_secs(15);

/// For all of a room's members to hear each other, and few enough not to hear much.
const ROOM: u16 = 20;

/// How many WebSockets: `scripts/prove-memory` asks for more.
fn connections() -> u16 {
    number("STICKY_LB_WEBSOCKETS").unwrap_or(2_000)
}

fn workers() -> u16 {
    number("STICKY_LB_WORKERS").unwrap_or(4)
}

fn number(variable: &str) -> Option<u16> {
    std::env::var(variable).ok()?.parse().ok()
}

/// A server of WebSockets under test.
struct App<'a> {
    name: &'a str,
    /// Without one, the demo.
    program: Option<&'a str>,
    path: fn(u16) -> String,
    flags: &'a [&'a str],
    /// Bytes of its own that it keeps for each.
    own: i64,
}

/// Bytes of memory, where processes share pages by their parts.
#[derive(Clone, Copy, Debug)]
struct Memory {
    workers: i64,
    /// Primary and keeper.
    front: i64,
}

impl Memory {
    fn of(primary: &Primary) -> Self {
        let workers = primary.workers().into_iter().map(|(pid, _, _)| proportional(pid)).sum();
        let mut front = vec![primary.pid(), primary.primary_pid()];
        front.dedup();
        Self { workers, front: front.into_iter().map(proportional).sum() }
    }

    /// Bytes a connection, in workers and in the rest.
    fn each_since(self, before: Self) -> (i64, i64) {
        let each = |now: i64, before: i64| (now - before) / i64::from(connections());
        (each(self.workers, before.workers), each(self.front, before.front))
    }
}

/// Its share of pages that are no file's: those of the program are shared with whatever else runs it meanwhile.
fn proportional(pid: u32) -> i64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let kibibytes = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
        line.trim().trim_end_matches("kB").trim().parse::<i64>().expect("a number")
    };
    (kibibytes("Pss_Anon:") + kibibytes("Pss_Shmem:")) * 1_024
}

fn open(primary: &Primary, app: &App<'_>, client: u16) -> TcpStream {
    let mut stream = connect_from(nth(client), primary.address()).expect("a connection");
    let path = (app.path)(client);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it is read");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// Says something that nobody else says, and waits until it comes back.
fn echo(stream: &mut TcpStream, client: u16) {
    let text = format!("it is {client:05}");
    // Masked with zeros.
    let length = 0x80 | u8::try_from(text.len()).expect("a short text");
    let frame = [&[0x81, length, 0, 0, 0, 0], text.as_bytes()].concat();
    stream.write_all(&frame).expect("it is read");
    let mut seen = Vec::new();
    while !seen.windows(text.len()).any(|window| window == text.as_bytes()) {
        let mut bytes = [0; 1_024];
        let read = stream.read(&mut bytes).expect("an echo");
        assert!(read > 0, "client {client} was disconnected");
        seen.extend_from_slice(&bytes[..read]);
    }
}

/// Whether it comes true in time.
fn within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = SystemTime::now();
    while !condition() {
        if start.elapsed().unwrap_or_default() > time {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    true
}

fn established(primary: &Primary) -> u64 {
    primary.ask("status", json!({}))["connections"].as_u64().expect("a number")
}

/// Bytes an idle WebSocket, and one that has migrated, at the most.
fn measure(app: &App<'_>) -> i64 {
    // Here and, inherited, in all other processes.
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let mut builder =
        Primary::with_workers(workers()).arguments(&["--min-uptime", "0"]).arguments(app.flags);
    let program = app.program.map(example);
    if let Some(program) = &program {
        builder = builder.worker(&[program]);
    }
    let primary = builder.start();
    // What any first connection brings into memory is no connection's.
    for client in 0..8 * workers() {
        echo(&mut open(&primary, app, client), client);
    }
    eventually("the first have gone", || established(&primary) == 0);
    let start = Memory::of(&primary);
    let say = |stage: &str| {
        let (worker, front) = Memory::of(&primary).each_since(start);
        println!("{:12} {stage:28} {worker:>7} + {front}", app.name);
        (worker, front)
    };

    let mut streams: Vec<_> =
        (0..connections()).map(|client| open(&primary, app, client)).collect();
    eventually("all are counted", || established(&primary) == u64::from(connections()));
    let mut figures = vec![say("idle")];
    let mut echo_all =
        || streams.iter_mut().zip(0..).for_each(|(stream, client)| echo(stream, client));
    echo_all();
    figures.push(say("idle after an echo"));
    let before: Vec<_> = primary.workers().into_iter().map(|(pid, _, _)| pid).collect();
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    eventually("all have migrated", || before.iter().all(|pid| !exists(*pid)));
    // For a few seconds each is watched for its new handler's closing it at once.
    let limit =
        figures.iter().map(|(worker, _)| *worker).max().unwrap_or(0) + MAX_MIGRATED + app.own;
    let fits = || Memory::of(&primary).each_since(start).0 <= limit;
    let settled = within(SETTLED, fits);
    figures.push(say("migrated"));
    assert!(settled, "one that has migrated takes more than {limit} bytes: {figures:?}");
    echo_all();
    figures.push(say("migrated, after an echo"));

    drop(streams);
    eventually("all have gone", || established(&primary) == 0);
    // Within a fifth, or a little where that is less.
    let most = (start.workers / 5).max(i64::from(workers()) * TABLES) + start.workers;
    let returns = within(TIMEOUT, || Memory::of(&primary).workers <= most);
    let end = Memory::of(&primary);
    println!(
        "{:12} {:28} {:>7} KiB, {} KiB before",
        app.name,
        "all workers, all gone",
        end.workers / 1_024,
        start.workers / 1_024
    );
    assert!(returns, "memory does not return: {start:?}, {end:?}");
    let stopped = primary.stop();
    assert_eq!(stopped["cut_connections"], 0, "{stopped}");
    // A rolling restart costs it something, and protected sessions do.
    let is_free = figures[0].1 < MAX_FRONT;
    assert!(is_free || app.flags.contains(&"--protect"), "{figures:?}");
    figures.iter().map(|(worker, _)| *worker).max().unwrap_or(0)
}

/// Bytes an idle WebSocket of the demo.
fn measure_demo(name: &str, flags: &[&str]) -> i64 {
    measure(&App { name, program: None, path: |_| "/echo".to_owned(), flags, own: 0 })
}

#[test]
fn an_idle_websocket_of_the_demo_takes_little_memory_and_a_protected_one_little_more() {
    let each = measure_demo("demo", &[]);
    assert!(each <= MAX_EACH, "{each} bytes a WebSocket");
    let protected = measure_demo("protected", &["--protect"]);
    assert!(protected <= each + MAX_PROTECTED, "{protected} bytes a protected one, {each} another");
}

#[test]
fn an_idle_websocket_of_the_examples_takes_little_memory() {
    let room = |client| format!("/ws?room={}&name={client}", client / ROOM);
    for (name, path, own) in
        [("echo_worker", (|_| "/".to_owned()) as fn(u16) -> String, 0), ("chat", room, MAX_LINES)]
    {
        let each = measure(&App { name, program: Some(name), path, flags: &[], own });
        assert!(each <= MAX_EACH + own, "{each} bytes a WebSocket of {name}");
    }
}
