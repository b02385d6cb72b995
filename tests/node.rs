//! Unmodified programs for Node as workers: they start, their clients stick, and neither restarts nor deaths of
//! workers and of the primary cost one.
//!
//! Programs and clients are under `tests/node`; the runtimes are packages, pinned there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use common::process::{self, Signal};
use common::tools::{Clients, tool};
use common::{Builder, Primary, eventually};
use serde_json::{Value, json};

/// The runtime that most tests run: an active LTS.
const NODE: &str = "node24";

fn runtime(name: &str) -> String {
    let path = match name {
        "bun" => "bun/bin/bun".to_owned(),
        "deno" => "deno/deno".to_owned(),
        node => format!("{node}/bin/node"),
    };
    tool(&format!("node-apps/node_modules/{path}")).to_str().unwrap().to_owned()
}

fn program(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/node")
        .join(name)
        .to_str()
        .unwrap()
        .to_owned()
}

fn with(runtime_name: &str, workers: u16, arguments: &[&str]) -> Builder {
    let program = program(arguments[0]);
    let runtime = runtime(runtime_name);
    let words = [&[runtime.as_str(), program.as_str()], &arguments[1..]].concat();
    Primary::with_workers(workers)
        .environment("TLS_KEY", tool("node-apps/tls/key.pem").to_str().unwrap())
        .environment("TLS_CERT", tool("node-apps/tls/cert.pem").to_str().unwrap())
        .arguments(&["--min-uptime", "0", "--slot-wait", "15s"])
        .worker(&words)
}

fn client(script: &str, address: SocketAddr, arguments: &[&str]) -> Clients {
    let mut command = Command::new(runtime(NODE));
    command.arg(program(&format!("clients/{script}"))).arg(address.to_string());
    Clients::start(command.args(["--attended", "--seconds", "100"]).args(arguments))
}

fn address_of(n: u8) -> IpAddr {
    [127, 0, 9, n].into()
}

/// Who serves an address: slot and process.
fn served(primary: &Primary, n: u8) -> (String, u64) {
    let answer = common::client::get_from(address_of(n), primary.address(), "/").unwrap();
    // Some frameworks send it in chunks.
    let begin = answer.body.find('{').unwrap();
    let end = answer.body.rfind('}').unwrap();
    let said: Value = serde_json::from_str(&answer.body[begin..=end]).unwrap();
    let remote = said["remote"].as_str().unwrap().replace("::ffff:", "");
    assert_eq!(remote, address_of(n).to_string(), "the worker sees its client's address");
    (said["slot"].as_str().unwrap().to_owned(), said["pid"].as_u64().unwrap())
}

fn slots(primary: &Primary) -> Vec<String> {
    (1..=8).map(|n| served(primary, n).0).collect()
}

/// Starts, sticks, restarts, and loses a worker.
fn lives(primary: &Primary) {
    let before = slots(primary);
    assert!(before.iter().any(|slot| *slot != before[0]), "all of them in one slot");
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    assert_eq!(slots(primary), before);
    let (_, pid) = served(primary, 1);
    process::signal(u32::try_from(pid).unwrap(), Signal::KILL);
    eventually("another worker in its slot", || {
        primary.ask("status", json!({}))["serving"] == 2 && served(primary, 1).1 != pid
    });
    assert_eq!(slots(primary), before);
}

/// Each a program as its users write it, on the runtime that has most tests.
macro_rules! programs {
    ($($test:ident: $arguments:expr),* $(,)?) => {
        $(#[test] fn $test() {
            let primary = with(NODE, 2, &$arguments).start();
            lives(&primary);
            primary.stop();
        })*
    };
}

programs! {
    plain_http_on_24: ["apps/http.js"],
    express_on_24: ["apps/express.js"],
    express_with_a_host_on_24: ["apps/express-host.js"],
    fastify_on_24: ["apps/fastify.js"],
    koa_on_24: ["apps/koa.js"],
    hono_on_24: ["apps/hono.mjs"],
    hapi_on_24: ["apps/hapi.js"],
    ws_on_24: ["apps/ws.js"],
    typescript_on_24: ["apps/typescript.ts"],
    modules_on_24: ["apps/esm.mjs"],
}

#[test]
fn other_versions_of_node_are_workers_too() {
    for version in ["node20", "node22", "node26"] {
        let primary = with(version, 2, &["apps/http.js"]).start();
        lives(&primary);
        primary.stop();
    }
}

#[test]
fn every_form_of_listen_is_answered() {
    for form in [
        "number",
        "text",
        "callback",
        "backlog",
        "host",
        "host-callback",
        "host-backlog",
        "any",
        "any6",
        "name",
        "options",
        "options-host",
        "abort",
        "again",
        "twice",
    ] {
        let primary = with(NODE, 1, &["apps/forms.js", form]).start();
        assert_eq!(served(&primary, 1).0, "0", "{form}");
        primary.stop();
    }
}

#[test]
fn restarts_cost_no_client_a_request() {
    let primary = with(NODE, 2, &["apps/http.js"]).start();
    let mut fresh = client("fresh.js", primary.address(), &["--rate", "60"]);
    let mut kept = client("keepalive.js", primary.address(), &["--clients", "6"]);
    fresh.wait_until_ready();
    kept.wait_until_ready();
    for _ in 0..3 {
        primary.signal(Signal::HUP);
        assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    }
    for seen in [fresh.finish(), kept.finish()] {
        assert_eq!((&seen["failed"], &seen["moved"]), (&json!({}), &json!(0)), "{seen}");
        assert!(seen["ok"].as_u64().unwrap() > 50, "{seen}");
    }
    primary.stop();
}

#[test]
fn the_primary_may_crash_and_be_replaced() {
    let primary = with(NODE, 2, &["apps/http.js"]).start();
    let workers = primary.workers();
    let before = slots(&primary);
    let mut kept = client("keepalive.js", primary.address(), &["--clients", "4"]);
    let mut fresh = client("fresh.js", primary.address(), &["--rate", "40"]);
    kept.wait_until_ready();
    fresh.wait_until_ready();
    primary.crash();
    eventually("the next primary", || primary.try_ask("status").is_some());
    assert_eq!(slots(&primary), before);
    primary.signal(Signal::USR2);
    eventually("an upgrade", || {
        primary.try_ask("status").is_some_and(|status| status["upgrades"] == 1)
    });
    assert_eq!(slots(&primary), before);
    assert_eq!(primary.workers(), workers, "workers have not noticed");
    for seen in [fresh.finish(), kept.finish()] {
        assert_eq!((&seen["failed"], &seen["moved"]), (&json!({}), &json!(0)), "{seen}");
    }
    // The next workers get their clients as well.
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    assert_eq!(slots(&primary), before);
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn clients_of_a_blocked_event_loop_go_elsewhere_and_their_connections_are_not_lost() {
    let primary = with(NODE, 2, &["apps/http.js"]).start();
    let (slot, pid) = served(&primary, 1);
    let pid = u32::try_from(pid).unwrap();
    process::signal(pid, Signal::STOP);
    let (other, _) = served(&primary, 1);
    assert_ne!(other, slot);
    primary.wait_for_log("worker does not acknowledge");
    process::signal(pid, Signal::CONT);
    let stopped = primary.stop();
    assert_eq!((&stopped["lost"], &stopped["stalls"]), (&json!(0), &json!(1)), "{stopped}");
}

#[test]
fn cleanup_on_sigint_runs_when_the_last_client_has_gone() {
    let primary = with(NODE, 1, &["guide/pm2-ready.js"]).arguments(&["--wait-ready"]).start();
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    eventually("the old worker's cleanup", || primary.log().contains("closed"));
    assert!(!primary.log().contains("was killed by signal"), "{}", primary.log());
    primary.stop();
}

#[test]
fn tls_sessions_resume_across_workers_and_restarts() {
    let primary = with(NODE, 1, &["apps/https.js"]).start();
    let session = primary.directory().join("session");
    let connect = |flag: &str| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &primary.address().to_string(), "-tls1_2"]);
        command.args([flag, session.to_str().unwrap()]).stdin(std::process::Stdio::null());
        String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
    };
    let first = connect("-sess_out");
    assert!(first.contains("New, TLSv1.2"), "{first}");
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    let second = connect("-sess_in");
    assert!(second.contains("Reused, TLSv1.2"), "{second}");
    primary.stop();
}

#[test]
fn wrappers_are_refused_with_what_to_write_instead() {
    let tsx = tool("node-apps/node_modules/.bin/tsx");
    let server = program("apps/typescript.ts");
    let (code, said) = Primary::with_workers(1)
        .arguments(&["--listen-timeout", "3s", "--max-restarts", "1"])
        .worker(&[tsx.to_str().unwrap(), &server])
        .run();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("write -- node --import tsx"), "{said}");
}

#[test]
fn pings_take_no_connection_its_descriptor() {
    // A ping each quarter of a second.
    let primary = with(NODE, 2, &["apps/http.js"]).arguments(&["--watchdog-timeout", "1s"]).start();
    let mut fresh = client("fresh.js", primary.address(), &["--rate", "300"]);
    fresh.wait_until_ready();
    std::thread::sleep(std::time::Duration::from_secs(3));
    let seen = fresh.finish();
    assert_eq!((&seen["failed"], &seen["moved"]), (&json!({}), &json!(0)), "{seen}");
    let stopped = primary.stop();
    assert_eq!(
        (&stopped["refused"], &stopped["redispatched"]),
        (&json!(0), &json!(0)),
        "{stopped}"
    );
}

#[test]
fn programs_that_take_connections_as_messages_get_them() {
    for (runtime, program, message) in [
        (NODE, "guide/sticky.js", "sticky-session"),
        ("bun", "guide/sticky.js", "sticky-session"),
        (NODE, "sticky/balance.js", "sticky-balance"),
        (NODE, "sticky/setup-worker.js", "socket.io"),
    ] {
        let primary = with(runtime, 2, &[program]).arguments(&["--node-message", message]).start();
        let before: Vec<_> = (1..=6).map(|n| answered(&primary, n)).collect();
        assert!(before.iter().any(|pid| *pid != before[0]), "{runtime} {program}: all in one");
        assert_eq!((1..=6).map(|n| answered(&primary, n)).collect::<Vec<_>>(), before);
        primary.stop();
    }
}

/// The process that serves an address, as its program says it in a text or in JSON.
fn answered(primary: &Primary, n: u8) -> u32 {
    let answer = common::client::get_from(address_of(n), primary.address(), "/").unwrap();
    let said = ["Worker ", "\"pid\":"].iter().find_map(|before| answer.body.split_once(before));
    let (_, after) = said.unwrap_or_else(|| panic!("{answer:?}"));
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// As it is, and the kernel picks the worker.
#[test]
fn the_kernel_sends_clients_to_unmodified_servers() {
    let primary = with(NODE, 2, &["apps/http.js"])
        .arguments(&["--interface", "node", "--dispatch", "kernel"])
        .start();
    let before = slots(&primary);
    assert!(before.iter().any(|slot| *slot != before[0]), "all of them in one slot");
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    assert_eq!(slots(&primary), before);
    let (_, pid) = served(&primary, 1);
    primary.crash();
    assert_eq!(slots(&primary), before);
    assert_eq!(served(&primary, 1).1, pid, "workers go on");
    let status = primary.ask("status", json!({}));
    assert_eq!(status["accepted"], 0, "the primary has no part in it: {status}");
    primary.stop();
}
