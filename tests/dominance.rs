//! One address that has nearly all connections, as in a load test from one machine: `status` and the live
//! view say so.

mod common;

use std::net::TcpStream;
use std::process::Command;

use common::client::{connect_from, nth};
use common::{Builder, Primary, eventually};
use serde_json::{Value, json};

/// Connections from one address, as `wrk -c64` has them.
fn from_one_address(primary: &Primary, count: usize) -> Vec<TcpStream> {
    let address = primary.address();
    (0..count).map(|_| connect_from([127, 0, 0, 1].into(), address).expect("room")).collect()
}

/// The status, once it counts so many connections and has looked at them.
fn status(primary: &Primary, connections: usize) -> Value {
    let mut status = Value::Null;
    eventually("all connections in workers", || {
        status = primary.ask("status", json!({}));
        status["connections"] == connections
    });
    status
}

fn text(primary: &Primary) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
    let output = command.arg("status").arg("--control").arg(primary.control()).output();
    String::from_utf8(output.expect("it starts").stdout).expect("UTF-8")
}

#[test]
fn the_address_of_a_load_test_is_named_with_its_slot() {
    for host in ["127.0.0.1", "0.0.0.0", "::"] {
        let primary = Primary::with_workers(4).arguments(&["--host", host]).start();
        let connections = from_one_address(&primary, 64);
        let slot = primary.ask("where", json!({"address": "127.0.0.1"}))["target"].clone();
        let found = status(&primary, 64)["dominant_client"].clone();
        assert_eq!((&found["address"], &found["slot"]), (&"127.0.0.1".into(), &slot), "{host}");
        assert_eq!(found["share"], 1.0, "{host}");
        let said = text(&primary);
        let expected = format!("! 127.0.0.1 has 100% of connections and sticks to slot {slot}");
        let mut lines = said.lines().skip_while(|line| *line != expected);
        assert!(lines.next().is_some(), "{expected} is not in {said}");
        let chapter = lines.next().unwrap_or_default();
        assert_eq!(chapter, "  see the guide's chapter \"Load tests\"", "{said}");
        // It is over when they have gone.
        drop(connections);
        eventually("no connections", || !text(&primary).contains("sticks to slot"));
        primary.stop();
    }
}

#[test]
fn nothing_is_said_where_nothing_is_odd() {
    let none = |builder: Builder, held: &dyn Fn(&Primary) -> Vec<TcpStream>| {
        let primary = builder.start();
        let held = held(&primary);
        let status = status(&primary, held.len());
        assert_eq!(status["dominant_client"], Value::Null, "{status}");
        primary.stop();
    };
    let one = |count| move |primary: &Primary| from_one_address(primary, count);
    none(Primary::with_workers(2), &one(15));
    none(Primary::with_workers(1), &one(40));
    none(Primary::with_workers(2).arguments(&["--placement", "random"]), &one(40));
    none(Primary::with_workers(2), &|primary| {
        let clients = (0..40).map(nth);
        clients.map(|it| connect_from(it, primary.address()).expect("room")).collect()
    });
}
