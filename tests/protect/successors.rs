//! Crash-safe sessions whose primary was followed by another: that one has to have its own copies.

use serde_json::json;

use super::common::process::{self, Signal};
use super::common::{Primary, eventually};
use super::{Client, clients, kill, recovery_failures, sessions, wait_for};

fn crashing(workers: u16) -> Primary {
    sessions(workers).arguments(&["--keeper-min-uptime=0"]).start()
}

#[test]
fn sessions_at_rest_survive_under_each_successor() {
    let primary = crashing(1);
    let mut clients = clients(&primary, 20, "/talk");
    for round in 0..3_u64 {
        primary.upgrade();
        wait_for(&primary, "sessions_protected", 20);
        kill(&primary, 0);
        clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 2 * round + 2));
        wait_for(&primary, "sessions_protected", 20);
        primary.crash_and_recover();
        wait_for(&primary, "sessions_protected", 20);
        kill(&primary, 0);
        clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 2 * round + 3));
    }
    wait_for(&primary, "sessions_recovered", 120);
    assert_eq!(recovery_failures(&primary.stop()), 0);
}

#[test]
fn a_copy_that_a_dead_primary_had_keeps_no_session_from_its_end() {
    let primary = crashing(1);
    let mut clients = clients(&primary, 3, "/talk");
    let mut closed = Client::open(9, &primary, "/leave");
    wait_for(&primary, "sessions_protected", 4);
    primary.crash_and_recover();
    wait_for(&primary, "sessions_protected", 4);
    // One leaves, one is closed by its worker, and the others go on.
    drop(clients.pop());
    closed.say();
    closed.end();
    wait_for(&primary, "sessions_protected", 2);
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
    primary.ask("reload", json!({}));
    eventually("they have moved", || clients.iter_mut().all(|client| client.ask() == 2));
    wait_for(&primary, "sessions_protected", 2);
}

/// A session without a checkpoint is closed, and no client gets a wrong answer.
#[test]
fn a_worker_that_dies_with_the_primary_takes_its_sessions_along() {
    let primary = crashing(2);
    let mut clients = clients(&primary, 20, "/talk");
    let before = primary.status();
    let dead = primary.worker(0);
    process::signal(primary.primary_pid(), Signal::KILL);
    process::signal(dead, Signal::KILL);
    primary.wait_for_recovery(&before);
    let (mut lived, mut ended) = (0, 0);
    for client in &mut clients {
        client.say();
        match client.socket.read() {
            Ok(_) => lived += 1,
            Err(_) => ended += 1,
        }
    }
    assert!(lived > 0 && ended > 0, "{lived} lived, {ended} ended");
    wait_for(&primary, "sessions_protected", lived);
}
