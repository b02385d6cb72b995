//! Spares on the real binary: ready beside the workers that serve, they take over when those die.

mod common;

use common::client::ask;
use common::counting::Client;
use common::process::{self, Signal};
use common::{Builder, Primary, eventually, example};
use serde_json::json;

/// Each start of a worker takes longer than any of these tests waits for a spare to serve.
const SLOW: &str = "test -e started.$STICKY_LB_SLOT.1 && sleep 3600; \
     test -e started.$STICKY_LB_SLOT.0 && touch started.$STICKY_LB_SLOT.1; \
     touch started.$STICKY_LB_SLOT.0";

fn spared(workers: u16) -> Builder {
    Primary::with_workers(workers).arguments(&["--spares=1", "--min-uptime=0"])
}

/// The spare of a slot: its generation and pid.
fn spare(primary: &Primary, slot: u16) -> Option<(u64, u32)> {
    let workers = primary.ask("workers", json!({}));
    let is_it = |worker: &&serde_json::Value| worker["slot"] == slot && worker["state"] == "spare";
    let found = workers.as_array()?.iter().find(is_it)?;
    Some((found["generation"].as_u64()?, u32::try_from(found["pid"].as_u64()?).ok()?))
}

fn wait_for_spare(primary: &Primary, slot: u16) -> (u64, u32) {
    eventually("a spare is ready", || spare(primary, slot).is_some());
    spare(primary, slot).expect("a spare")
}

/// The worker that serves in a slot.
fn serves(primary: &Primary, slot: u64) -> u32 {
    let serving = primary.serving();
    let pid = serving.iter().find(|(of, ..)| *of == slot).map(|(.., pid)| *pid);
    pid.and_then(|pid| u32::try_from(pid).ok()).expect("somebody serves")
}

/// Kills a process, and waits until it can serve nobody any more.
fn kill(pid: u32) {
    process::signal(pid, Signal::KILL);
    eventually("it is dead", || matches!(process::state(pid), None | Some('Z')));
}

#[test]
fn it_takes_over_where_no_other_could_be_ready_yet() {
    let primary = spared(1).slot_zero(SLOW).start();
    let (generation, next) = wait_for_spare(&primary, 0);
    let client = primary.client_of(0);
    let first = ask(client, primary.address()).pid();
    assert_ne!(first, next);
    kill(first);
    // Whoever comes in between waits in the slot's queue.
    assert_eq!(ask(client, primary.address()).pid(), next);
    eventually("it is said so", || primary.serving() == [(0, generation, next.into())]);
    eventually("another one is started", || {
        let workers = primary.ask("workers", json!({}));
        workers.as_array().is_some_and(|it| it.iter().any(|it| it["state"] == "spawning"))
    });
}

#[test]
fn sessions_at_rest_go_on_in_it() {
    let primary =
        spared(1).worker(&[&example("library_worker"), "sessions"]).arguments(&["--protect"]);
    let primary = primary.start();
    let mut clients: Vec<_> = (0..10).map(|n| Client::open(n, &primary, "/count")).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
    eventually("all are protected", || primary.status()["sessions_protected"] == 10);
    let (generation, next) = wait_for_spare(&primary, 0);
    kill(serves(&primary, 0));
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 2));
    eventually("it is said so", || primary.serving() == [(0, generation, next.into())]);
    assert_eq!(primary.stop()["sessions_recovered"], 10);
}

#[test]
fn it_is_replaced_with_the_others_and_ends_with_them() {
    let primary = spared(2).start();
    let before = [0, 1].map(|slot| wait_for_spare(&primary, slot));
    primary.ask("reload", json!({}));
    let serving = primary.serving();
    for (slot, (generation, pid)) in (0..).zip(before) {
        assert!(serving.iter().all(|(_, _, serves)| *serves != u64::from(pid)), "outdated");
        eventually("there is another", || {
            spare(&primary, slot).is_some_and(|(another, _)| another > generation + 1)
        });
        eventually("the old one has ended", || !process::exists(pid));
    }
    let now = [0, 1].map(|slot| wait_for_spare(&primary, slot).1);
    assert_eq!(primary.stop()["killed_workers"], 0);
    assert!(now.iter().all(|spare| !process::exists(*spare)));
}

#[test]
fn one_that_dies_is_followed_by_another_and_is_no_death_of_the_slot() {
    let primary = spared(1).arguments(&["--exp-backoff-max-delay=100ms"]).start();
    let (generation, pid) = wait_for_spare(&primary, 0);
    kill(pid);
    eventually("another one follows", || {
        spare(&primary, 0).is_some_and(|(another, _)| another > generation)
    });
    let worker = serves(&primary, 0);
    assert_eq!(ask(primary.client_of(0), primary.address()).pid(), worker);
}

#[test]
fn a_successor_of_the_primary_has_the_same_spares() {
    let primary = spared(2).arguments(&["--keeper-min-uptime", "0"]).start();
    let spares = [0, 1].map(|slot| wait_for_spare(&primary, slot));
    primary.upgrade();
    assert_eq!([0, 1].map(|slot| wait_for_spare(&primary, slot)), spares);
    primary.crash_and_recover();
    assert_eq!([0, 1].map(|slot| wait_for_spare(&primary, slot)), spares);
    let old = serves(&primary, 1);
    kill(old);
    assert_eq!(ask(primary.client_of(1), primary.address()).pid(), spares[1].1);
    eventually("the dead one is buried", || !process::exists(old));
}
