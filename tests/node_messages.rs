//! Messages of Node workers' programs, on the real binary: what they send is handled as the settings say, and the
//! libraries that count on Node's primary get what they ask for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use common::client::{connect_from, get_from, read_answer};
use common::process::{self, Signal};
use common::tools::tool;
use common::{Builder, Primary, eventually};
use serde_json::{Value, json};
use sticky_lb::protocol::ids::Timestamp;

/// Workers that run a program of `tests/node/own`.
fn node(workers: u16, program: &str, flags: &[&str]) -> Builder {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/own").join(program);
    Primary::with_workers(workers).arguments(flags).worker(&["node", program.to_str().unwrap()])
}

/// The same, with packages that `scripts/test` has installed.
fn with_packages(workers: u16, program: &str, flags: &[&str]) -> Builder {
    let packages = tool("node-apps/node_modules");
    node(workers, program, flags).environment("NODE_PATH", packages.to_str().unwrap())
}

/// A program that is asked by a client of its own.
struct Program<'a> {
    primary: &'a Primary,
    client: IpAddr,
}

fn programs<const N: usize>(primary: &Primary) -> [Program<'_>; N] {
    std::array::from_fn(|slot| Program {
        primary,
        client: primary.client_of(u16::try_from(slot).unwrap()),
    })
}

/// Asks a slot's program until it is so. Each time a new client asks: one that was sent elsewhere, while the worker
/// had stalled, would be sent there again.
fn eventually_in(primary: &Primary, slot: u16, what: &str, is: impl Fn(&Program<'_>) -> bool) {
    let mut clients = primary.clients_of(slot, 500).into_iter();
    eventually(what, || {
        std::thread::sleep(Duration::from_millis(50));
        clients.next().is_some_and(|client| is(&Program { primary, client }))
    });
}

impl Program<'_> {
    fn get(&self, path: &str) -> Value {
        let answer = get_from(self.client, self.primary.address(), path).unwrap();
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    fn post(&self, path: &str, body: &str) {
        let mut stream = connect_from(self.client, self.primary.address()).unwrap();
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        assert!(read_answer(stream).unwrap().head.starts_with("HTTP/1.1 200"));
    }

    fn send(&self, message: &Value) {
        self.post("/send", &message.to_string());
    }

    /// The messages that have come.
    fn seen(&self) -> Vec<Value> {
        self.get("/seen").as_array().unwrap().clone()
    }

    fn wait_for(&self, message: &Value) {
        eventually(&format!("message {message}"), || self.seen().contains(message));
    }
}

#[test]
fn programs_count_together_and_tell_each_other() {
    let primary = node(3, "messages.js", &["--node-messages", "guide"]).start();
    let all: [Program<'_>; 3] = programs(&primary);
    all[0].send(&json!({"type": "increment"}));
    for program in &all {
        program.wait_for(&json!({"type": "counter-update", "payload": 1}));
    }
    all[1].send(&json!({"type": "get-counter"}));
    all[1].wait_for(&json!({"type": "counter-value", "payload": 1}));
    let from = all[2].get("/")["id"].clone();
    all[2].send(&json!({"type": "broadcast", "payload": {"text": "hi", "n": [1, 2]}}));
    let told =
        json!({"type": "broadcast-message", "payload": {"text": "hi", "n": [1, 2]}, "from": from});
    all[0].wait_for(&told);
    all[1].wait_for(&told);
    let kinds = |program: &Program<'_>| {
        program.seen().into_iter().map(|it| it["type"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&all[0]), ["counter-update", "broadcast-message"]);
    assert_eq!(kinds(&all[1]), ["counter-update", "counter-value", "broadcast-message"]);
    assert_eq!(kinds(&all[2]), ["counter-update"], "a broadcast goes to the others");
    primary.stop();
}

#[test]
fn messages_have_other_names_where_the_file_says_so() {
    let directory = common::own_directory();
    let file = directory.join("x.toml");
    let text = "[node_messages]\nhit = \"increment:hits\"\nsay = \"broadcast:said\"\n";
    std::fs::write(&file, text).unwrap();
    let primary = node(2, "messages.js", &["--config", file.to_str().unwrap()]).start();
    let all: [Program<'_>; 2] = programs(&primary);
    // Without the preset this one does nothing.
    all[0].send(&json!({"type": "increment"}));
    all[0].send(&json!({"type": "hit"}));
    all[1].wait_for(&json!({"type": "hits", "payload": 1}));
    all[0].send(&json!("say"));
    all[1].wait_for(&json!({"type": "said", "from": all[0].get("/")["id"]}));
    primary.wait_for_log("does nothing");
    assert!(primary.log().contains("kind=\"increment\""), "it is said by name");
    primary.stop();
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_counter_outlives_an_upgrade_and_a_crash() {
    let primary = node(2, "messages.js", &["--node-messages", "guide"]).start();
    let all: [Program<'_>; 2] = programs(&primary);
    let mut expected = 0;
    let mut count = |program: &Program<'_>| {
        expected += 1;
        program.send(&json!({"type": "increment"}));
        all.iter().for_each(|program| {
            program.wait_for(&json!({"type": "counter-update", "payload": expected}));
        });
    };
    count(&all[0]);
    primary.upgrade();
    count(&all[1]);
    primary.crash();
    count(&all[0]);
    primary.upgrade();
    count(&all[1]);
    drop(primary);
}

#[test]
fn a_program_tells_its_load_and_asks_to_be_replaced() {
    let primary = node(2, "messages.js", &["--node-messages", "guide"]).start();
    let all: [Program<'_>; 2] = programs(&primary);
    all[0].send(&json!({"type": "request-complete", "count": 37}));
    all[0].send(&json!({"type": "request"}));
    let of_slot = |key: &str| {
        let workers = primary.ask("workers", json!({}));
        let worker = workers.as_array().unwrap().iter().find(|it| it["slot"] == 0).cloned();
        worker.unwrap()[key].clone()
    };
    eventually("the load", || of_slot("requests") == 37);
    let before = primary.worker(1);
    all[1].send(&json!({"type": "memory-exceeded"}));
    eventually("another worker", || primary.worker(1) != before);
    eventually("it serves", || all[1].get("/")["pid"] != before);
    assert_eq!(primary.status()["crashes"], 0);
    primary.stop();
}

#[test]
fn load_by_messages_scales() {
    let flags = [
        "--node-messages",
        "guide",
        "--max-workers",
        "2",
        "--scale-load",
        "requests",
        "--scale-up-load",
        "20",
        "--scale-down-load",
        "5",
        "--scale-interval",
        "100ms",
    ];
    let primary = node(1, "messages.js", &flags).start();
    let [program]: [Program<'_>; 1] = programs(&primary);
    assert_eq!(primary.workers().len(), 1);
    program.send(&json!({"type": "request-complete", "count": 100}));
    eventually("a second worker", || primary.workers().len() == 2);
    primary.stop();
}

#[test]
fn a_large_broadcast_holds_up_no_connection() {
    // It keeps the workers that read it busy.
    let flags = ["--node-messages", "guide", "--ack-timeout", "20s"];
    let primary = node(3, "messages.js", &flags).start();
    let all: [Program<'_>; 3] = programs(&primary);
    all[0].get("/large?bytes=20000000");
    let mut worst = Duration::ZERO;
    let has_come =
        |program: &Program<'_>| program.seen().iter().any(|it| it["payload"] == 20_000_000);
    // Each asks by a new connection.
    let mut asked = 0;
    eventually("the message", || {
        let start = Timestamp::now();
        all[0].get("/");
        worst = worst.max(Timestamp::now().since(start));
        asked += 1;
        asked % 10 == 0 && has_come(&all[1]) && has_come(&all[2])
    });
    assert!(worst < Duration::from_secs(3), "a client of another worker has waited {worst:?}");
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn no_connection_is_lost_among_messages() {
    let flags = ["--node-messages", "guide", "--ack-timeout", "20s"];
    let primary = node(2, "messages.js", &flags).start();
    let all: [Program<'_>; 2] = programs(&primary);
    for _ in 0..100 {
        for _ in 0..4 {
            all[0].get("/large?bytes=150000");
        }
        for _ in 0..4 {
            assert_eq!(all[1].get("/")["slot"], "1");
        }
    }
    let status = primary.status();
    assert_eq!((&status["refused"], &status["fallbacks"]), (&0.into(), &0.into()));
    primary.stop();
}

#[test]
fn a_program_that_does_not_read_misses_messages_and_others_do_not() {
    let flags = ["--node-messages", "guide", "--watchdog-timeout", "0", "--ack-timeout", "20s"];
    let primary = node(2, "messages.js", &flags).start();
    let all: [Program<'_>; 2] = programs(&primary);
    let stopped = primary.worker(1);
    process::signal(stopped, Signal::STOP);
    for _ in 0..6 {
        all[0].get("/large?bytes=10000000");
    }
    primary.wait_for_log("doesn't read what is sent to it");
    all[0].send(&json!({"type": "get-counter"}));
    all[0].wait_for(&json!({"type": "counter-value", "payload": 0}));
    // It reads on, and what comes then is whole.
    process::signal(stopped, Signal::CONT);
    let large = |program: &Program<'_>| {
        program.seen().iter().filter(|it| it["payload"] == 10_000_000).count()
    };
    eventually_in(&primary, 1, "it reads", |program| large(program) >= 3);
    all[0].send(&json!({"type": "increment"}));
    let update = json!({"type": "counter-update", "payload": 1});
    eventually_in(&primary, 1, "the next message", |program| {
        program.seen().contains(&update) && large(program) < 6
    });
    primary.stop();
}

#[test]
fn libraries_that_ask_in_vain_are_named_once() {
    let primary = node(2, "messages.js", &[]).start();
    let all: [Program<'_>; 2] = programs(&primary);
    for program in &all {
        program.send(&json!({"channel": "rate_limiter_flexible", "type": "init"}));
        program.send(&json!({"type": "axm:monitor", "data": {}}));
    }
    primary.wait_for_log("rate-limiter-flexible");
    all[0].send(&json!({"type": "last"}));
    primary.wait_for_log("kind=\"last\"");
    let log = primary.log();
    assert_eq!(log.matches("library=\"rate-limiter-flexible\"").count(), 1, "{log}");
    assert!(!log.contains("axm:"), "{log}");
    assert_eq!(all.iter().map(|it| it.seen().len()).sum::<usize>(), 0);
    primary.stop();
}

#[test]
fn workers_of_the_cluster_adapter_know_each_other() {
    let primary = with_packages(3, "rooms.js", &[]).start();
    let all: [Program<'_>; 3] = programs(&primary);
    let mut pids: Vec<_> = all.iter().map(|it| it.get("/")["pid"].as_u64().unwrap()).collect();
    let check = |program: &Program<'_>, pids: &[u64]| {
        eventually("all workers", || program.get("/count") == pids.len());
        let own = program.get("/")["pid"].as_u64().unwrap();
        let answer = program.get("/ask");
        let mut found: Vec<_> =
            answer["pids"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
        found.push(own.into());
        found.sort_by_key(Value::as_u64);
        assert_eq!(found, pids, "{answer}");
    };
    pids.sort_unstable();
    all.iter().for_each(|program| check(program, &pids));
    primary.upgrade();
    all.iter().for_each(|program| check(program, &pids));
    primary.crash();
    eventually("it serves again", || primary.serving().len() == 3);
    all.iter().for_each(|program| check(program, &pids));
    drop(primary);
}

#[test]
fn metrics_of_prom_client_are_served_with_the_primarys() {
    let flags =
        ["--node-messages", "prom-client", "--admin", "127.0.0.1:0", "--admin-token-file", "none"];
    let primary = with_packages(2, "metrics.js", &flags).start();
    let all: [Program<'_>; 2] = programs(&primary);
    for (program, count) in all.iter().zip([2, 3]) {
        (0..count).for_each(|_| drop(program.get("/x")));
    }
    for _ in 0..3 {
        let text = primary.get("/metrics").body;
        for line in [
            "# TYPE own_requests_total counter",
            "own_requests_total{path=\"/x\"} 5",
            "own_slot 1",
            "sticky_lb_serving_slots 2",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
    }
    primary.stop();
}

#[test]
fn lines_of_log4js_reach_the_output() {
    let primary = with_packages(2, "log.js", &[]).start();
    let all: [Program<'_>; 2] = programs(&primary);
    all[1].get("/thing");
    let printed = || String::from_utf8(primary.printed().join(&b'\n')).unwrap();
    eventually("the line", || printed().contains("no such thing"));
    let text = printed();
    let line = text.lines().find(|line| line.contains("asked for")).unwrap();
    assert!(line.ends_with("[INFO] own - asked for /thing by { slot: \"1\" }"), "{text}");
    assert!(text.contains("[ERROR] own - Error: no such thing\n"), "{text}");
    assert!(text.contains("    at "), "with its stack: {text}");
    primary.stop();
}

#[test]
fn a_worker_that_is_left_with_half_a_line_is_replaced() {
    let flags = ["--node-messages", "guide", "--watchdog-timeout", "0"];
    let primary = node(2, "messages.js", &flags).start();
    let all: [Program<'_>; 2] = programs(&primary);
    let stopped = primary.worker(1);
    process::signal(stopped, Signal::STOP);
    all[0].get("/large?bytes=2000000");
    // It is sent as soon as it is handled, as far as there is room.
    all[0].send(&json!({"type": "get-counter"}));
    all[0].wait_for(&json!({"type": "counter-value", "payload": 0}));
    primary.crash();
    process::signal(stopped, Signal::CONT);
    eventually_in(&primary, 1, "another worker", |program| {
        let pid = program.get("/")["pid"].clone();
        pid != stopped && pid == primary.worker(1)
    });
    let log = primary.log();
    assert!(!log.contains("SyntaxError"), "{log}");
    all[0].send(&json!({"type": "increment"}));
    let update = json!({"type": "counter-update", "payload": 1});
    eventually_in(&primary, 1, "a message", |program| program.seen().contains(&update));
    drop(primary);
}

#[test]
fn half_a_line_goes_on_after_an_upgrade() {
    let flags = ["--node-messages", "guide", "--watchdog-timeout", "0"];
    let primary = node(2, "messages.js", &flags).start();
    let all: [Program<'_>; 2] = programs(&primary);
    let stopped = primary.worker(1);
    process::signal(stopped, Signal::STOP);
    all[0].get("/large?bytes=2000000");
    all[0].send(&json!({"type": "get-counter"}));
    all[0].wait_for(&json!({"type": "counter-value", "payload": 0}));
    primary.upgrade();
    process::signal(stopped, Signal::CONT);
    eventually_in(&primary, 1, "the message", |program| {
        program.seen().iter().any(|it| it["payload"] == 2_000_000)
    });
    assert_eq!(primary.worker(1), stopped);
    primary.stop();
}
