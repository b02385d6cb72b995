//! Apps that set SO_LINGER, and clients that read slowly: whoever closes the last copy of such a socket waits,
//! and that is nobody who serves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread::scope;
use std::time::{Duration, SystemTime};

use common::client::{ask, connect_from};
use common::{Primary, eventually};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use serde_json::json;

/// Clients that don't read.
const CLIENTS: usize = 100;

/// What 99 of 100 clients of another slot wait for, at most.
const P99: Duration = Duration::from_millis(5);

/// Other programs may have the processors for a while: one time of these shows it.
const ROUNDS: usize = 20;

/// The time that one client takes to connect and be answered.
fn time_of(primary: &Primary, client: IpAddr) -> Duration {
    let start = SystemTime::now();
    ask(client, primary.address());
    start.elapsed().unwrap_or_default()
}

/// Clients that don't read.
fn slow_clients(clients: Vec<IpAddr>, to: SocketAddr) -> Vec<TcpStream> {
    let connect = |client| {
        let client = connect_from(client, to).unwrap();
        set_socket_recv_buffer_size(&client, 4_096).unwrap();
        client
    };
    clients.into_iter().map(connect).collect()
}

/// How long clients of slot 1 wait while a hundred of slot 0 end.
fn p99_beside_slow_clients(primary: &Primary) -> Duration {
    let (client, slow_ones) = (primary.client_of(1), primary.clients_of(0, CLIENTS));
    let address = primary.address();
    let before = primary.status()["acknowledged"].as_u64().unwrap();
    scope(|scope| {
        let slow = scope.spawn(move || slow_clients(slow_ones, address));
        let mut times: Vec<_> = (0..500).map(|_| time_of(primary, client)).collect();
        let slow = slow.join().unwrap();
        let expected = before + (times.len() + slow.len()) as u64;
        eventually("all are acknowledged", || primary.status()["acknowledged"] == expected);
        times.sort();
        times[times.len() * 99 / 100]
    })
}

#[test]
fn other_slots_wait_for_no_slow_reader() {
    let primary = Primary::with_workers(2).slot_zero_plays("lingers").start();
    let mut times = (0..ROUNDS).map(|_| p99_beside_slow_clients(&primary));
    assert!(times.any(|time| time < P99), "99 of 100 never within {P99:?}");
    drop(times);
    primary.stop();
}

#[test]
fn a_socket_that_lingers_within_another_keeps_nobody() {
    let primary = Primary::with_workers(2).slot_zero_plays("sends-lingering").start();
    let _slow = slow_clients(primary.clients_of(0, 1), primary.address());
    primary.wait_for_log("worker killed: it breaks the protocol");
    assert!(time_of(&primary, primary.client_of(1)) < Duration::from_secs(10));
    primary.stop();
}

/// A worker of slot 0 holds the lock of its client's socket for seconds, in which the kernel tells nobody about
/// the socket. Those of the other slots play another role.
fn locked(role: &str, others: &str) -> (Primary, TcpStream) {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/workers/lock_holder.py");
    let script = format!(
        "if [ $STICKY_LB_SLOT = 0 ]; then exec python3 {program} {role}; fi; exec python3 {program} {others}"
    );
    let primary = Primary::with_workers(3).arguments(&["--protect"]).worker(&["sh", "-c", &script]);
    let primary = primary.start();
    let client = connect_from(primary.client_of(0), primary.address()).unwrap();
    primary.wait_for_log("holds");
    (primary, client)
}

/// Others are served, if their worker had to be started meanwhile.
fn serves_on(primary: &Primary) {
    for slot in [1, 2] {
        let time = time_of(primary, primary.client_of(slot));
        assert!(time < Duration::from_secs(4), "a client of slot {slot} has waited for {time:?}");
    }
}

#[test]
fn an_offer_is_taken_while_its_socket_is_in_use() {
    let (primary, _client) = locked("offers", "dies");
    serves_on(&primary);
    primary.stop();
}

/// The session of such a client was given to a worker that has died on it, and the primary has given up asking what
/// that has done with it.
fn given_up(others: &str) -> (Primary, TcpStream) {
    let (primary, client) = locked("leaves", others);
    primary.begin("drain", json!({"slot": 0}));
    primary.wait_for_log("kernel does not tell what a dead worker has done with its sockets");
    serves_on(&primary);
    (primary, client)
}

#[test]
fn a_session_in_use_whose_taker_has_died_is_not_waited_for() {
    given_up("dies").0.stop();
}

#[test]
fn a_protected_session_in_use_is_not_waited_for() {
    given_up("protects").0.stop();
}

/// A thread of the primary waits for that socket then, and a process doesn't end, nor become its successor, before
/// its last thread does.
#[test]
fn a_crash_of_the_primary_waits_for_no_socket_in_use() {
    let (primary, _client) = given_up("dies");
    let start = SystemTime::now();
    primary.crash();
    serves_on(&primary);
    let took = start.elapsed().unwrap();
    assert!(took < Duration::from_secs(6), "served again after {took:?}");
    primary.stop();
}

#[test]
fn an_upgrade_waits_for_no_socket_in_use() {
    let (primary, _client) = given_up("dies");
    let (_, said) = primary.ask_in_vain("upgrade", json!({}));
    assert!(said.contains("restart that worker, then upgrade again"), "{said}");
    serves_on(&primary);
    primary.stop();
}
