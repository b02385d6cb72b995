//! Promise 1: a client address reaches the same worker.

mod common;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use common::client::{ask, connect_from, nth};
use common::process::Signal;
use common::{Primary, eventually, process};
use serde_json::Value;
use sticky_lb::internals::frontend::affinity::{Affinity, DigestKind, Prefixes, fold};
use sticky_lb::internals::frontend::placement::modulo;
use sticky_lb::protocol::ids::SlotId;

#[test]
fn every_client_stays_with_its_worker_and_all_workers_have_some() {
    let primary = Primary::with_workers(4).start();
    let homes: Vec<_> = (0..64).map(|n| ask(nth(n), primary.address()).slot()).collect();
    for _ in 0..3 {
        for (n, home) in (0..).zip(&homes) {
            assert_eq!(ask(nth(n), primary.address()).slot(), *home, "client {n} moved");
        }
    }
    let mut used = homes;
    used.sort_unstable();
    used.dedup();
    assert_eq!(used, [0, 1, 2, 3]);
    let stopped = primary.stop();
    assert_eq!(stopped["accepted"], 256);
    assert_eq!(stopped["acknowledged"], 256);
    assert_eq!(stopped["fallbacks"], 0);
}

#[test]
fn the_same_clients_have_the_same_slots_after_a_restart() {
    let homes = || {
        let primary = Primary::with_workers(5).start();
        (0..40).map(|n| ask(nth(n), primary.address()).slot()).collect::<Vec<_>>()
    };
    assert_eq!(homes(), homes());
}

#[test]
fn a_client_finds_the_successor_of_its_worker() {
    let primary = Primary::with_workers(4).start();
    let homes: Vec<_> = (0..32).map(|n| ask(nth(n), primary.address())).collect();
    process::signal(primary.worker(2), Signal::KILL);
    for (n, before) in (0..).zip(&homes) {
        let after = ask(nth(n), primary.address());
        assert_eq!(after.slot(), before.slot(), "client {n} moved");
        assert_eq!(after.pid() == before.pid(), before.slot() != 2, "client {n}");
    }
    assert_eq!(primary.stop()["fallbacks"], 0);
}

#[test]
fn ipv4_through_ipv6_is_the_same_client() {
    let primary = Primary::with_workers(8).start();
    let port = primary.port();
    for n in 0..16 {
        let IpAddr::V4(plain) = nth(n) else { unreachable!("clients are IPv4") };
        let to: SocketAddr = ([127, 0, 0, 1], port).into();
        let mapped = SocketAddr::new(Ipv6Addr::from(0xffff_7f00_0001_u128).into(), port);
        let through = ask(plain.to_ipv6_mapped().into(), mapped);
        assert_eq!(ask(plain.into(), to).slot(), through.slot());
    }
}

#[test]
fn modulo_maps_as_node_does() {
    let rows: Value = serde_json::from_str(include_str!("data/node-modulo.json")).unwrap();
    let affinity = Affinity::new(DigestKind::Md5, b"", Prefixes { v4: 32, v6: 128 });
    let mut checked = 0;
    for row in rows.as_array().unwrap() {
        let address: IpAddr = row["address"].as_str().unwrap().parse().unwrap();
        if fold(address) != address {
            // Node hashes the text "::ffff:10.0.0.1"; here it is the client 10.0.0.1.
            assert_eq!(affinity.key(address), affinity.key(fold(address)));
            continue;
        }
        for (slots, slot) in row["slot"].as_object().unwrap() {
            let all: Vec<_> = (0..slots.parse().unwrap()).map(SlotId).collect();
            let chosen = modulo(affinity.key(address), &all).unwrap();
            assert_eq!(u64::from(chosen.0), slot.as_u64().unwrap(), "{address} of {slots}");
            checked += 1;
        }
    }
    assert_eq!(checked, 19 * 5);
}

#[test]
fn modulo_maps_as_node_does_on_the_wire() {
    for (workers, expected) in [(3, [0, 2]), (8, [5, 3])] {
        let primary = Primary::with_workers(workers).arguments(&["--placement", "modulo"]).start();
        let slots = ["127.0.0.1", "127.0.0.2"]
            .map(|client| ask(client.parse().unwrap(), primary.address()).slot());
        assert_eq!(slots, expected);
        let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), primary.port());
        let expected = if workers == 3 { 1 } else { 3 };
        assert_eq!(ask(Ipv6Addr::LOCALHOST.into(), v6).slot(), expected);
    }
}

#[test]
fn a_prefix_makes_neighbours_one_client() {
    let primary = Primary::with_workers(8).arguments(&["--ipv4-prefix", "24"]).start();
    let mut homes = HashMap::new();
    for n in 0..512 {
        let slot = ask(nth(n), primary.address()).slot();
        assert_eq!(*homes.entry(n >> 8).or_insert(slot), slot);
    }
}

#[test]
fn a_secret_changes_the_slots_of_clients() {
    let homes = |arguments: &[&str]| {
        let primary = Primary::with_workers(8).arguments(arguments).start();
        (0..64).map(|n| ask(nth(n), primary.address()).slot()).collect::<Vec<_>>()
    };
    let file = common::own_directory().join("secret");
    std::fs::write(&file, "of this test").unwrap();
    let with_secret = ["--secret-file", file.to_str().unwrap()];
    assert_ne!(homes(&[]), homes(&with_secret));
    assert_eq!(homes(&with_secret), homes(&with_secret));
    assert_ne!(homes(&[]), homes(&["--digest", "sha256"]));
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

#[test]
fn weights_decide_who_gets_how_much() {
    let primary = Primary::with_workers(2).arguments(&["--weights", "1,9"]).start();
    let light = (0..400).filter(|n| ask(nth(*n), primary.address()).slot() == 0).count();
    assert!((15..=75).contains(&light), "{light} of 400 at weight 1 of 10");
}

#[test]
fn round_robin_takes_turns() {
    let primary = Primary::with_workers(3).arguments(&["--placement", "round-robin"]).start();
    let slots: Vec<_> = (0..6).map(|_| ask(nth(0), primary.address()).slot()).collect();
    assert_eq!(slots[..3], slots[3..]);
    let mut once = slots[..3].to_vec();
    once.sort_unstable();
    assert_eq!(once, [0, 1, 2]);
}

#[test]
fn least_connections_knows_what_workers_hold_and_when_they_let_go() {
    let primary = Primary::with_workers(3).arguments(&["--placement", "least-connections"]).start();
    // Nine that stay: three each.
    let held: Vec<_> = (0..9)
        .map(|_| {
            let mut stream = connect_from(nth(0), primary.address()).unwrap();
            use std::io::Write;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
            let answer = common::client::read_kept_alive(&mut stream).unwrap();
            (answer.slot(), stream)
        })
        .collect();
    for slot in 0..3 {
        assert_eq!(held.iter().filter(|(of, _)| *of == slot).count(), 3, "in slot {slot}");
    }
    // Those of slot 1 go: the next client is sent there.
    let kept: Vec<_> = held.into_iter().filter(|(slot, _)| *slot != 1).collect();
    eventually("slot 1 is the emptiest", || ask(nth(0), primary.address()).slot() == 1);
    assert_eq!(kept.len(), 6);
}

#[test]
fn random_uses_every_slot() {
    let primary = Primary::with_workers(3).arguments(&["--placement", "random"]).start();
    let mut slots: Vec<_> = (0..60).map(|_| ask(nth(0), primary.address()).slot()).collect();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots, [0, 1, 2]);
}

#[test]
fn a_load_bound_passes_new_clients_on_and_leaves_known_ones() {
    let primary = Primary::with_workers(4).arguments(&["--load-bound", "1.25"]).start();
    let mut held = Vec::new();
    let mut homes = HashMap::new();
    for n in 0..400 {
        let mut stream = connect_from(nth(n), primary.address()).unwrap();
        use std::io::Write;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        homes.insert(n, common::client::read_kept_alive(&mut stream).unwrap().slot());
        held.push(stream);
    }
    for slot in 0..4 {
        let share = homes.values().filter(|home| **home == slot).count();
        assert!(share <= 126, "{share} of 400 in slot {slot}, the bound is 125");
    }
    for (n, home) in &homes {
        assert_eq!(ask(nth(*n), primary.address()).slot(), *home, "client {n} moved");
    }
}
