//! The admin listener: answers, access, hostile clients.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::admin::{Viewer, connect, post, request, say};
use common::client::{Answer, ask, connect_from, ends_within, nth, read_answer};
use common::process::{Signal, descriptors, exists};
use common::{Builder, Primary, TIMEOUT, eventually, own_directory};
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/json";
const TOKEN: &str = "a-token-of-many-characters";

/// Without a token: tests that are not about it.
fn with_admin(workers: u16) -> Builder {
    with_own_token(workers).arguments(&["--admin-token-file", "none"])
}

/// With the token that the primary makes.
fn with_own_token(workers: u16) -> Builder {
    Primary::with_workers(workers).arguments(&["--admin", "127.0.0.1:0"])
}

fn with_token(workers: u16) -> Builder {
    let file = own_directory().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    with_own_token(workers).arguments(&["--admin-token-file", file.to_str().unwrap()])
}

fn get(to: SocketAddr, path: &str, headers: &[&str]) -> Answer {
    request(to, "GET", path, headers)
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

/// Slot and process of each serving worker.
fn serving(workers: &Value) -> Vec<(u64, u64)> {
    let all = workers.as_array().unwrap().iter().filter(|it| it["state"] == "serving");
    all.map(|it| (it["slot"].as_u64().unwrap(), it["pid"].as_u64().unwrap())).collect()
}

fn ready(primary: &Primary) -> (u16, String) {
    let answer = get(primary.admin(), "/readyz", &[]);
    (answer.status(), answer.body.trim_end().to_owned())
}

#[test]
fn http_answers_are_those_of_the_control_socket() {
    let primary = with_admin(3).start();
    for n in 0..6 {
        ask(nth(n), primary.address());
    }
    let status = primary.get("/api/status").json();
    assert_eq!(status["serving"], 3, "{status}");
    assert_eq!(status["accepted"], 6, "{status}");
    assert_eq!(status["admin"], primary.admin().to_string());
    let workers = primary.get("/api/workers").json();
    assert_eq!(serving(&workers), serving(&primary.ask("workers", json!({}))));
    let slot = primary.get("/api/slots/2").json();
    assert_eq!((&slot["slot"], &slot["state"]), (&json!(2), &json!("serving")), "{slot}");
    let client = nth(4);
    let found = primary.get(&format!("/api/where?address={client}")).json();
    assert_eq!(found["target"], ask(client, primary.address()).slot(), "{found}");
    let key = found["key"].as_str().unwrap();
    assert_eq!(primary.get(&format!("/api/where?key={key}")).json()["target"], found["target"]);
    let zone = primary.get("/api/where?address=fe80::1%25eth0").json();
    assert_eq!(zone["address"], "fe80::1");
    let events = primary.get("/api/events?last=2").json();
    assert_eq!(events.as_array().map(Vec::len), Some(2), "{events}");
    let conns = primary.get("/api/conns?slot=1&address=127.0.0.0/8&limit=5").json();
    assert!(conns["connections"].is_array(), "{conns}");
    primary.stop();
}

#[test]
fn wrong_requests_are_answered_with_the_reason() {
    let primary = with_admin(1).start();
    let admin = primary.admin();
    for (path, status, said) in [
        ("/api/slots/9", 404, "no slot 9"),
        ("/api/slots/one", 400, "not a slot"),
        ("/api/slots/70000", 400, "not a slot"),
        ("/api/where?address=nowhere", 400, "address"),
        ("/api/where?adress=1.2.3.4", 400, "adress"),
        ("/api/conns?limit=-1", 400, "limit"),
        ("/api/conns?slot=9", 404, "no slot 9"),
        ("/api/logs?slot=9", 404, "no slot 9"),
        ("/api/events?last=many", 400, "last"),
        ("/api/events?follow=perhaps", 400, "follow"),
        ("/api/logs?lines=x", 400, "lines"),
        ("/api/nothing", 404, "/api/nothing"),
        ("/nothing", 404, "/nothing"),
        ("/api", 404, "/api"),
        ("/metrics/", 404, "/metrics/"),
        ("/%00", 404, "%00"),
        ("/../../etc/passwd", 404, "passwd"),
        ("/api/slots/%ff%fe", 400, ""),
    ] {
        let answer = get(admin, path, &[]);
        assert_eq!(answer.status(), status, "{path}: {answer:?}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(said), "{path}: {message}");
    }
    primary.stop();
}

#[test]
fn only_post_changes_anything() {
    let primary = with_admin(2).start();
    let admin = primary.admin();
    let before = serving(&primary.get("/api/workers").json());
    let orders = [
        "reload",
        "scale",
        "drain",
        "undrain",
        "restart",
        "kill",
        "signal",
        "stop",
        "log-level",
        "rebalance",
    ];
    for order in orders {
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let path = format!("/api/{order}?slot=0&to=1&wait=false");
            let answer = request(admin, method, &path, &[JSON]);
            assert_eq!(answer.status(), 405, "{method} {path}: {answer:?}");
        }
    }
    for path in ["/", "/metrics", "/livez", "/readyz", "/api/status", "/api/live"] {
        let answer = post(admin, path, &[JSON], "{}");
        assert_eq!(answer.status(), 405, "{path}: {answer:?}");
        assert_eq!(code(&answer), "bad-request");
    }
    assert_eq!(serving(&primary.get("/api/workers").json()), before);
    assert_eq!(primary.get("/api/status").json()["workers"], 2);
    primary.stop();
}

#[test]
fn orders_over_http_are_executed() {
    let primary = with_admin(2).start();
    let done = |name: &str, keys: Value| {
        let answer = primary.order(name, &keys);
        assert_eq!(answer.status(), 200, "{name}: {answer:?}");
        answer.json()["done"].clone()
    };
    assert_eq!(done("scale", json!({"to": "+1"})), json!({"from": 2, "to": 3, "deferred": false}));
    eventually("three workers", || primary.get("/api/status").json()["serving"] == 3);
    done("drain", json!({"slot": 1, "wait": true}));
    let state = |slot: u16| primary.get(&format!("/api/slots/{slot}")).json()["state"].clone();
    assert_eq!(state(1), "drained");
    done("undrain", json!({"slot": 1}));
    assert_eq!(state(1), "serving");
    let first = primary.worker(0);
    done("restart", json!({"slot": 0}));
    assert_ne!(primary.worker(0), first);
    let second = primary.worker(2);
    done("kill", json!({"slot": 2}));
    eventually("its end", || !exists(second));
    done("signal", json!({"slot": 0, "signal": "WINCH"}));
    assert_eq!(done("log-level", json!({"levels": "debug"})), json!({"levels": "debug"}));
    assert!(done("rebalance", json!({}))["clients"].is_number());
    let before = primary.worker(1);
    assert_eq!(done("reload", json!({}))["result"], "done");
    assert_ne!(primary.worker(1), before);
    let begun = done("reload", json!({"wait": false}));
    assert_eq!(begun["result"], Value::Null, "{begun}");
    done("stop", json!({}));
    primary.stop_finished();
}

#[test]
fn refused_orders_give_the_reason() {
    let primary = with_admin(1).start();
    for (name, keys, status, code_expected) in [
        ("scale", json!({"to": "many"}), 400, "bad-request"),
        ("scale", json!({}), 400, "bad-request"),
        ("scale", json!({"to": "2", "more": 1}), 400, "bad-request"),
        ("scale", json!({"to": "2", "request": "stop"}), 400, "bad-request"),
        ("scale", json!(["2"]), 400, "bad-request"),
        ("scale", json!({"to": "2000"}), 409, "refused"),
        ("drain", json!({"slot": 9}), 404, "not-found"),
        ("drain", json!({"slot": 0}), 409, "refused"),
        ("signal", json!({"slot": 0, "signal": "NO"}), 400, "bad-request"),
        ("log-level", json!({"levels": "loud"}), 400, "bad-request"),
    ] {
        let answer = primary.order(name, &keys);
        assert_eq!(
            (answer.status(), code(&answer).as_str()),
            (status, code_expected),
            "{answer:?}"
        );
    }
    let broken = post(primary.admin(), "/api/scale", &[JSON], "{\"to\":");
    assert_eq!(broken.status(), 400, "{broken:?}");
    assert_eq!(primary.get("/api/status").json()["workers"], 1);
    primary.stop();
}

#[test]
fn a_page_of_another_origin_cannot_send_orders() {
    let primary = with_admin(1).start();
    let admin = primary.admin();
    let scale = |headers: &[&str]| post(admin, "/api/scale", headers, "{\"to\":\"2\"}").status();
    // Types that a form or a simple request can send.
    for simple in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    {
        assert_eq!(scale(&[&format!("Content-Type: {simple}")]), 415, "{simple}");
    }
    assert_eq!(scale(&[]), 415);
    let port = admin.port();
    for origin in [
        "http://evil.example".to_owned(),
        "null".to_owned(),
        "http://127.0.0.1".to_owned(),
        format!("http://127.0.0.1:{}", port.wrapping_add(1)),
        format!("http://127.0.0.1:{port}.evil.example"),
        format!("127.0.0.1:{port}"),
    ] {
        assert_eq!(scale(&[JSON, &format!("Origin: {origin}")]), 403, "{origin}");
    }
    let preflight = request(admin, "OPTIONS", "/api/scale", &["Origin: http://evil.example"]);
    assert!(preflight.header("access-control-allow-origin").is_none(), "{preflight:?}");
    assert_eq!(primary.get("/api/status").json()["workers"], 1, "nothing was done");
    assert_eq!(scale(&[JSON, &format!("Origin: http://127.0.0.1:{port}")]), 200);
    assert_eq!(scale(&["Content-Type: APPLICATION/json; charset=utf-8"]), 200);
    primary.stop();
}

#[test]
fn a_rebound_host_name_gets_nothing() {
    let primary = with_admin(1).arguments(&["--admin-host", "Admin.Example"]).start();
    let admin = primary.admin();
    let port = admin.port();
    for path in ["/", "/metrics", "/api/status"] {
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "1.2.3"] {
            let answer = get(admin, path, &[&format!("Host: {host}:{port}")]);
            assert_eq!(answer.status(), 421, "{path} of {host}: {answer:?}");
            assert!(answer.body.contains(host) && !answer.body.contains("<html"), "{answer:?}");
        }
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:9", "admin.example:80"] {
            let answer = get(admin, path, &[&format!("Host: {host}")]);
            assert_eq!(answer.status(), 200, "{path} of {host}: {answer:?}");
        }
    }
    for lines in ["", "Host: localhost\r\nHost: evil.example\r\n", "Host: a b\r\n", "Host:\r\n"] {
        let text = format!("GET /api/status HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
        assert_eq!(say(admin, text.as_bytes()).unwrap().status(), 400, "{lines:?}");
    }
    let absolute = "GET http://evil.example/api/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(say(admin, absolute.as_bytes()).unwrap().status(), 400);
    // Health checks accept any host name.
    assert_eq!(get(admin, "/livez", &["Host: pod.example"]).status(), 200);
    assert_eq!(get(admin, "/readyz", &["Host: pod.example"]).status(), 200);
    primary.stop();
}

#[test]
fn without_the_token_only_page_and_health_checks_are_answered() {
    let primary = with_token(1).start();
    let admin = primary.admin();
    for path in ["/", "/livez", "/readyz"] {
        assert_eq!(get(admin, path, &[]).status(), 200, "{path}");
    }
    let own = ["/metrics", "/api/status", "/api/workers", "/api/slots/0", "/api/where?key=0"];
    let streams =
        ["/api/conns", "/api/events", "/api/logs", "/api/live", "/api/events?follow=true"];
    let shorter = &TOKEN[..TOKEN.len() - 1];
    for path in own.into_iter().chain(streams) {
        for wrong in [
            String::new(),
            "Authorization: Bearer".to_owned(),
            format!("Authorization: Bearer {shorter}"),
            format!("Authorization: Bearer {TOKEN}x"),
            format!("Authorization: Basic {TOKEN}"),
            format!("Authorization: {TOKEN}"),
        ] {
            let lines: &[&str] = if wrong.is_empty() { &[] } else { &[&wrong] };
            let answer = get(admin, path, lines);
            assert_eq!(answer.status(), 401, "{path} with {wrong:?}: {answer:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    assert_eq!(post(admin, "/api/stop", &[JSON], "{}").status(), 401);
    for right in
        [format!("Authorization: Bearer {TOKEN}"), format!("authorization: bearer {TOKEN}")]
    {
        assert_eq!(get(admin, "/api/status", &[&right]).status(), 200);
        assert_eq!(get(admin, "/metrics", &[&right]).status(), 200);
        let scaled = post(admin, "/api/scale", &[&right, JSON], "{\"to\":\"1\"}");
        assert_eq!(scaled.status(), 200, "{scaled:?}");
    }
    primary.stop();
}

#[test]
fn wrong_tokens_do_not_fill_the_log() {
    let primary = with_token(1).start();
    let admin = primary.admin();
    let begin = SystemTime::now();
    for guess in 0..300 {
        let line = format!("Authorization: Bearer guess-number-{guess}");
        assert_eq!(get(admin, "/api/status", &[&line]).status(), 401);
    }
    let seconds = usize::try_from(begin.elapsed().unwrap().as_secs()).unwrap();
    let log = primary.log();
    let lines =
        log.lines().filter(|line| line.contains("admin request rejected: wrong token")).count();
    assert!((1..=seconds + 2).contains(&lines), "{lines} lines in {seconds} seconds");
    assert!(!log.contains("guess-number"), "{log}");
    primary.stop();
}

#[test]
fn the_page_reaches_no_other_host_and_is_not_stored() {
    let primary = with_token(1).start();
    let page = get(primary.admin(), "/", &[]);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    let directives: Vec<_> = policy.split("; ").collect();
    for directive in [
        "default-src 'none'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(directives.contains(&directive), "{directive} in {policy}");
    }
    let scripts = directives.iter().find(|it| it.starts_with("script-src ")).unwrap();
    assert!(!scripts.contains("unsafe"), "{scripts}");
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    for answer in [page, get(primary.admin(), "/livez", &[]), get(primary.admin(), "/x", &[])] {
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
    }
    primary.stop();
}

/// The next snapshot; its events continue those of the one before.
fn next_live(viewer: &mut Viewer, last: &mut Option<u64>) -> Value {
    let live = viewer.expect("live");
    for event in live["events"].as_array().unwrap() {
        let number = event["number"].as_u64().unwrap();
        assert!(last.is_none_or(|last| number == last + 1), "{number} after {last:?}: {live}");
        *last = Some(number);
    }
    live
}

#[test]
fn viewers_see_a_crash_and_each_event_once() {
    let primary = with_admin(2).start();
    let (mut viewer, mut last) = (Viewer::of(primary.admin(), "/api/live"), None);
    let first = next_live(&mut viewer, &mut last);
    assert_eq!(serving(&first["workers"]).len(), 2, "{first}");
    assert!(last.is_some(), "what has happened comes first: {first}");
    let old = primary.worker(1);
    common::process::signal(old, Signal::KILL);
    let mut crashed = false;
    eventually("its successor", || {
        let live = next_live(&mut viewer, &mut last);
        let mut events = live["events"].as_array().unwrap().iter();
        crashed |= events.any(|event| event["kind"] == "worker-crashed" && event["pid"] == old);
        let now = serving(&live["workers"]);
        crashed && now.len() == 2 && now.iter().all(|(_, pid)| *pid != u64::from(old))
    });
    // A viewer that joins meanwhile gets the same events.
    primary.order("restart", &json!({"slot": 0}));
    let (mut other, mut others_last) = (Viewer::of(primary.admin(), "/api/live"), None);
    primary.order("restart", &json!({"slot": 1}));
    for _ in 0..3 {
        next_live(&mut viewer, &mut last);
        next_live(&mut other, &mut others_last);
    }
    let newest = primary.get("/api/events?last=1").json()[0]["number"].as_u64();
    eventually("all events", || {
        next_live(&mut viewer, &mut last);
        next_live(&mut other, &mut others_last);
        last >= newest && others_last == last
    });
    primary.stop();
}

#[test]
fn events_are_followed_as_they_come() {
    let primary = with_admin(1).start();
    let mut viewer = Viewer::of(primary.admin(), "/api/events?follow=true&last=1");
    assert_eq!(viewer.expect("item")["kind"], "worker-ready");
    primary.order("scale", &json!({"to": "2"}));
    assert_eq!(viewer.expect("item")["kind"], "scaled");
    primary.stop();
}

#[test]
fn streams_end_with_the_primary() {
    let primary = with_admin(1).start();
    let mut viewer = Viewer::of(primary.admin(), "/api/live");
    viewer.expect("live");
    primary.stop();
    while viewer.next().is_some() {}
}

#[test]
fn viewers_are_bounded_and_disconnected_ones_free_their_place() {
    let primary = with_admin(1).start();
    let admin = primary.admin();
    let mut viewers: Vec<_> = (0..70).map(|_| Viewer::of(admin, "/api/live")).collect();
    let busy = viewers.iter().filter(|viewer| viewer.status.contains(" 503 ")).count();
    assert_eq!(busy, 6);
    let mut looking = viewers.drain(..).filter(|viewer| viewer.status.contains(" 200 "));
    assert_eq!(looking.by_ref().take(3).map(|mut it| it.expect("live")).count(), 3);
    // Other requests are still answered.
    assert_eq!(get(admin, "/livez", &[]).status(), 200);
    assert_eq!(get(admin, "/api/status", &[]).status(), 200);
    drop(looking);
    drop(viewers);
    eventually("room again", || Viewer::of(admin, "/api/live").status.contains(" 200 "));
    primary.stop();
}

#[test]
fn readiness_follows_accepting_serving_and_stopping() {
    let primary = with_admin(2)
        .slot_zero("while [ ! -e go ]; do sleep 0.02; done")
        .arguments(&["--listen-timeout", "60s", "--lameduck", "60s", "--ready-workers", "100%"])
        .start_listening();
    eventually("one worker", || primary.get("/api/status").json()["serving"] == 1);
    assert_eq!(ready(&primary), (503, "connections are not accepted yet".to_owned()));
    assert_eq!(get(primary.admin(), "/livez", &[]).status(), 200, "it lives all the same");
    fs::write(primary.directory().join("go"), "").unwrap();
    eventually("ready", || ready(&primary) == (200, "ok".to_owned()));
    primary.order("drain", &json!({"slot": 1}));
    eventually("not ready", || ready(&primary).0 == 503);
    assert_eq!(ready(&primary).1, "1 of 2 slots serve, fewer than 2");
    primary.order("undrain", &json!({"slot": 1}));
    eventually("ready again", || ready(&primary).0 == 200);
    primary.signal(Signal::TERM);
    eventually("not ready", || ready(&primary).0 == 503);
    assert_eq!(ready(&primary).1, "the primary is stopping");
    assert_eq!(get(primary.admin(), "/livez", &[]).status(), 200);
    ask(nth(1), primary.address());
    primary.signal_again(Signal::TERM);
    primary.stop_finished();
}

#[test]
fn malformed_requests_do_no_harm() {
    let primary = with_admin(1).start();
    let admin = primary.admin();
    let long = "x".repeat(1 << 20);
    let many: String = (0..300).map(|n| format!("X-{n}: 1\r\n")).collect();
    let large = "{\"to\":\"2\"}".to_owned() + &" ".repeat(64 * 1024);
    let chunk = format!(
        "POST /api/scale HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{large}",
        large.len()
    );
    for bytes in [
        "\0\u{1}\u{2}\r\n\r\n",
        "GET",
        "GET / HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        &format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
        &format!(
            "POST /api/scale HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nContent-Length: x\r\n\r\n"
        ),
        &chunk,
    ] {
        let mut stream = connect(admin);
        // It may be rejected before all of it has arrived.
        let _ = stream.write_all(bytes.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = read_answer(stream);
        assert!(
            answer.as_ref().is_ok_and(|it| it.status() >= 400) || answer.is_err(),
            "{answer:?}"
        );
    }
    let announced = format!(
        "POST /api/scale HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nContent-Length: 65537\r\n\
         Connection: close\r\n\r\n"
    );
    assert_eq!(say(admin, announced.as_bytes()).unwrap().status(), 413);
    let deep = format!("{{\"to\":{}1{}}}", "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(post(admin, "/api/scale", &[JSON], &deep).status(), 400);
    assert_eq!(primary.get("/api/status").json()["workers"], 1);
    assert!(!primary.log().contains("panicked"), "{}", primary.log());
    primary.stop();
}

#[test]
fn slow_idle_and_deaf_clients_are_disconnected() {
    let primary = with_admin(1).start();
    let admin = primary.admin();
    let before = descriptors(primary.primary_pid()).len();
    let mut slow: Vec<_> = (0..3).map(|_| connect(admin)).collect();
    slow[1].write_all(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nX-").unwrap();
    let begun = format!(
        "POST /api/scale HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nContent-Length: 9\r\n\r\n{{"
    );
    slow[2].write_all(begun.as_bytes()).unwrap();
    // More answers than socket buffers hold, and it reads none.
    let mut deaf = connect(admin);
    let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(5_000);
    deaf.set_nonblocking(true).unwrap();
    let _ = deaf.write(ask.as_bytes());
    assert!(descriptors(primary.primary_pid()).len() >= before, "they are connected");
    assert_eq!(get(admin, "/livez", &[]).status(), 200);
    for client in &mut slow {
        assert!(ends_within(client, TIMEOUT), "{client:?}");
    }
    eventually("all are gone", || descriptors(primary.primary_pid()).len() <= before);
    primary.stop();
}

#[test]
fn an_admin_address_in_use_is_an_error_at_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, log) = Primary::with_workers(1).arguments(&["--admin", &address]).run();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&format!("admin address {address} is in use")), "{log}");
}

#[test]
fn an_address_beyond_loopback_needs_a_token() {
    for more in [&[][..], &["--admin-token-file", "none"]] {
        let beyond = Primary::with_workers(1).arguments(&["--admin", "0.0.0.0:0"]);
        let (code, log) = beyond.arguments(more).run();
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains("set admin_token_file"), "{log}");
    }
}

/// The token in a file, as what a request bears.
fn bearer(file: &Path) -> String {
    format!("Authorization: Bearer {}", fs::read_to_string(file).unwrap().trim_end())
}

#[test]
fn without_a_setting_the_primary_makes_a_token() {
    let primary = with_own_token(1).start();
    let admin = primary.admin();
    let file = primary.control().with_extension("token");
    let status = primary.ask("status", json!({}));
    assert_eq!(status["admin_token_file"], file.to_str().unwrap());
    assert!(primary.log().contains(&format!("token_file={}", file.display())), "{}", primary.log());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(get(admin, "/livez", &[]).status(), 200);
    for path in ["/metrics", "/api/status"] {
        assert_eq!(get(admin, path, &[]).status(), 401, "{path}");
    }
    assert_eq!(post(admin, "/api/stop", &[JSON], "{}").status(), 401);
    let token = bearer(&file);
    assert_eq!(get(admin, "/api/status", &[&token]).status(), 200);
    // Who has the token has it after a crash and after an upgrade, too.
    primary.crash();
    eventually("the next primary", || primary.try_ask("status").is_some());
    assert_eq!(bearer(&file), token);
    assert_eq!(get(admin, "/api/status", &[&token]).status(), 200);
    primary.signal(Signal::USR2);
    eventually("an upgrade", || {
        primary.try_ask("status").is_some_and(|status| status["upgrades"] == 1)
    });
    assert_eq!(bearer(&file), token);
    assert_eq!(get(admin, "/api/status", &[&token]).status(), 200);
    primary.signal(Signal::TERM);
    eventually("the file is gone", || !file.exists());
    primary.stop_finished();
}

#[test]
fn idle_connections_keep_no_health_check_out() {
    let primary = with_own_token(1).start();
    let admin = primary.admin();
    let token = bearer(&primary.control().with_extension("token"));
    let local = |n: u8| {
        let socket = connect_from([127, 0, 0, n].into(), admin).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket
    };
    // One who has the token stays.
    let mut known = connect(admin);
    let ask = format!("GET /api/status HTTP/1.1\r\nHost: localhost\r\n{token}\r\n\r\n");
    let mut idle = Vec::new();
    for n in 0..600_u16 {
        let mut stream = local(u8::try_from(n % 200 + 1).unwrap());
        if n % 2 == 0 {
            stream.write_all(b"GET /livez HTTP/1.1\r\nX-").unwrap();
        }
        idle.push(stream);
        if n % 50 == 0 {
            let begun = SystemTime::now();
            assert_eq!(get(admin, "/livez", &[]).status(), 200, "{n}");
            assert!(begun.elapsed().unwrap() < Duration::from_secs(5), "{n}");
            assert!(exchange(&mut known, &ask).unwrap().starts_with("HTTP/1.1 200 "), "{n}");
        }
    }
    assert_eq!(get(admin, "/readyz", &[]).status(), 200);
    primary.stop();
}

/// A request and its answer on a connection that stays: the answer's head.
fn exchange(stream: &mut TcpStream, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    stream.read_exact(&mut vec![0; length.parse().unwrap()])?;
    Ok(head)
}

#[test]
fn requests_that_last_keep_no_health_check_out() {
    let primary = with_admin(1).start();
    let admin = primary.admin();
    let begun = format!(
        "POST /api/scale HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    );
    // Each waits for its body: one that was told to go on has its place, which an idle one hasn't.
    let mut slow = Vec::new();
    loop {
        let mut stream = connect(admin);
        stream.write_all(begun.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        match &answer {
            b"HTTP/1.1 100" => slow.push(stream),
            b"HTTP/1.1 503" => break,
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
        assert!(slow.len() < 300, "there is always another place");
    }
    assert_eq!(get(admin, "/api/status", &[]).status(), 503);
    assert_eq!(get(admin, "/livez", &[]).status(), 200);
    assert_eq!(get(admin, "/readyz", &[]).status(), 200);
    drop(slow);
    eventually("room again", || get(admin, "/api/status", &[]).status() == 200);
    primary.stop();
}

#[test]
fn it_listens_on_ipv6_too() {
    let arguments = ["--admin", "[::1]:0", "--admin-token-file", "none"];
    let primary = Primary::with_workers(1).arguments(&arguments).start();
    assert!(primary.admin().is_ipv6() && primary.admin().port() > 0);
    assert_eq!(primary.get("/api/status").json()["serving"], 1);
    primary.stop();
}
