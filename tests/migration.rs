//! WebSockets on the real binary: whatever the operator does, their clients don't notice; and where
//! they can't move, they are told.

mod common;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use common::counting::Client;
use common::process::Signal;
use common::{Builder, Primary, eventually, example};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

fn sessions(workers: u16) -> Builder {
    Primary::with_workers(workers).worker(&[&example("library_worker"), "sessions"])
}

fn clients(primary: &Primary, count: u16, path: &str) -> Vec<Client> {
    (0..count).map(|client| Client::open(client, primary, path)).collect()
}

fn all_served_by(clients: &mut [Client], workers: u64) -> bool {
    // Each one asks, so that each one's numbers are looked at.
    clients.iter_mut().map(Client::ask).filter(|had| *had >= workers).count() == clients.len()
}

fn moved(primary: &Primary) -> u64 {
    primary.ask("status", json!({}))["sessions_migrated"].as_u64().unwrap_or_default()
}

#[test]
fn rolling_restarts_move_every_session_with_its_state() {
    let primary = sessions(2).arguments(&["--min-uptime", "0"]).start();
    let mut clients = clients(&primary, 20, "/count");
    for restart in 1..=3 {
        primary.ask("reload", json!({}));
        eventually("all have migrated", || all_served_by(&mut clients, restart + 1));
    }
    assert_eq!(primary.stop()["killed_workers"], 0);
}

#[test]
fn a_worker_that_drains_while_its_sessions_are_restored_passes_them_on() {
    let primary = sessions(1).arguments(&["--min-uptime", "0"]).start();
    let mut clients = clients(&primary, 10, "/count?restore=300");
    primary.ask("reload", json!({}));
    primary.ask("reload", json!({}));
    eventually("all have migrated", || {
        all_served_by(&mut clients, 2)
            && primary.log().contains("worker exited slot=0 generation=1")
    });
}

#[test]
fn a_session_that_has_just_opened_may_declare_how_it_migrates_while_its_worker_drains() {
    let primary = sessions(1).arguments(&["--min-uptime", "0"]).start();
    let mut clients = clients(&primary, 10, "/late");
    for restart in 1..=2 {
        primary.ask("reload", json!({}));
        eventually("all have migrated", || all_served_by(&mut clients, restart + 1));
    }
}

#[test]
fn a_session_that_comes_back_to_a_draining_worker_goes_on_to_the_next() {
    let (plays, serves) = (example("test_worker"), example("library_worker"));
    let shell = format!(
        "if [ $STICKY_LB_SLOT$STICKY_LB_GENERATION = 11 ]; then exec {plays} refuses-sessions-late; fi; \
         exec {serves} sessions"
    );
    let primary = Primary::with_workers(2)
        .worker(&["sh", "-c", &shell])
        .arguments(&["--min-uptime", "0", "--rebalance-rate", "10000"])
        .start();
    let mut clients = clients(&primary, 20, "/count");
    primary.ask("drain", json!({"slot": 1, "wait": true}));
    primary.ask("undrain", json!({"slot": 1}));
    // Those that belong to slot 1.
    clients.retain_mut(|client| client.ask() == 2);
    assert!(!clients.is_empty());
    eventually("slot 1 serves", || primary.log().contains("worker ready slot=1 generation=1"));
    let failed = || primary.ask("status", json!({}))["migrations_failed"].as_u64();
    assert_eq!(failed(), Some(0));
    // All are offered, and not refused yet.
    primary.ask("rebalance", json!({}));
    primary.ask("drain", json!({"slot": 0}));
    eventually("sessions have come back", || failed() > Some(0));
    primary.ask("signal", json!({"slot": 1, "signal": "KILL"}));
    eventually("all have migrated", || all_served_by(&mut clients, 3));
}

/// Sees to it that the client is closed with 1012, and that the log says once what its handler does.
fn is_closed_with_a_hint(path: &str, hint: &str) {
    let primary = sessions(1)
        .arguments(&["--min-uptime", "0", "--drain-timeout", "5s", "--close-rate", "10000"])
        .start();
    let mut clients: Vec<_> = (0..2).map(|it| Client::open(it, &primary, path)).collect();
    for client in &mut clients {
        for _ in 0..40 {
            client.socket.send(Message::text("next")).expect("the session goes on");
        }
        client.socket.read().expect("the session goes on");
    }
    // A handler may declare or receive for the first time until then.
    std::thread::sleep(Duration::from_secs(2));
    primary.ask("reload", json!({}));
    for client in clients {
        assert_eq!(client.close_code(), CloseCode::Restart);
    }
    assert_eq!(moved(&primary), 0, "counted as migrated");
    let text = format!("WebSocket handler of {path} {hint}");
    eventually("the log says so", || primary.log().contains(&text));
    assert_eq!(primary.log().matches(&text).count(), 1);
}

#[test]
fn a_session_that_its_new_handler_closes_at_once_counts_as_failed() {
    let primary = sessions(1).arguments(&["--min-uptime", "0"]).start();
    let mut client = Client::open(1, &primary, "/forgets");
    client.socket.send(Message::text("one")).expect("the session goes on");
    assert_eq!(client.socket.read().expect("an echo"), Message::text("one"));
    primary.ask("reload", json!({}));
    assert!(client.socket.read().is_err(), "the handler goes on");
    eventually("it counts as failed", || {
        primary.ask("status", json!({}))["migrations_failed"].as_u64() == Some(1)
    });
    eventually("it is said why", || primary.log().contains("its handler closes it at once"));
}

#[test]
fn a_handler_that_never_receives_has_its_clients_closed_and_is_named() {
    is_closed_with_a_hint("/only-sends", "never receives");
}

#[test]
fn a_handler_whose_answers_are_between_two_tasks_has_its_clients_closed_and_is_named() {
    is_closed_with_a_hint("/queues", "sends in one task while another receives");
}

#[test]
fn a_handler_that_never_receives_and_decides_when_it_leaves_migrates() {
    let primary = sessions(1).arguments(&["--min-uptime", "0"]).start();
    let mut client = Client::open(1, &primary, "/only-sends-and-decides");
    let mut number = 0;
    for restart in 1..=3 {
        primary.ask("reload", json!({}));
        eventually("it has migrated", || {
            let said = client.socket.read().expect("the session goes on");
            assert_eq!(said, Message::text(number.to_string()));
            number += 1;
            moved(&primary) == restart
        });
    }
}

/// Serves a client of one of the example's shapes, and says how many messages came back.
fn converse(mut client: Client, path: &str, is_over: &AtomicBool) -> u64 {
    let mut came = 0;
    while !is_over.load(Ordering::Relaxed) {
        if path == "/push" {
            came += 1;
            let said = client.socket.read().expect("the session goes on");
            assert_eq!(said, Message::text(came.to_string()));
            continue;
        }
        let said: Vec<_> = (came + 1..came + 5).map(|number| format!("message {number}")).collect();
        for text in &said {
            client.socket.send(Message::text(text)).expect("the session goes on");
        }
        let mut expected: Vec<_> = said
            .iter()
            .zip(came + 1..)
            .map(|(text, number)| match path {
                "/echo" | "/tasks" => format!("{number} {text}"),
                "/requests" => format!("done {text}"),
                _ => text.clone(),
            })
            .collect();
        let in_order = path != "/requests";
        while !expected.is_empty() {
            let text =
                client.socket.read().expect("the session goes on").into_text().expect("text");
            let place = expected.iter().position(|it| *it == text.as_str());
            let place = place.unwrap_or_else(|| panic!("{path}: {text}, not one of {expected:?}"));
            assert!(!in_order || place == 0, "{path}: {text} before {expected:?}");
            expected.remove(place);
            came += 1;
        }
    }
    came
}

#[test]
fn each_shape_of_the_guides_handlers_migrates_a_hundred_times() {
    const MIGRATIONS: u64 = 100;
    let paths = ["/echo", "/push", "/tasks", "/room/one", "/requests"];
    let primary = Primary::with_workers(1)
        .worker(&[&example("shapes")])
        .arguments(&["--min-uptime", "0"])
        .start();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = paths.map(|path| {
            let client = Client::open(1, &primary, path);
            let is_over = &is_over;
            scope.spawn(move || converse(client, path, is_over))
        });
        for migration in 1..=MIGRATIONS {
            primary.ask("reload", json!({}));
            eventually("all have migrated", || {
                let is_one_over = clients.iter().any(|client| client.is_finished());
                is_one_over || moved(&primary) == migration * paths.len() as u64
            });
        }
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().expect("no message lost, doubled or out of order") > 0);
        }
    });
    assert_eq!(moved(&primary), MIGRATIONS * paths.len() as u64);
}

#[test]
fn clients_in_the_middle_of_a_frame_hold_up_nobody() {
    let primary = sessions(1)
        .arguments(&["--min-uptime", "0", "--drain-timeout", "5s", "--close-rate", "10000"])
        .start();
    let mut busy: Vec<_> = (0..1_500).map(|_| Client::open(1, &primary, "/count")).collect();
    for client in &mut busy {
        client.socket.get_mut().write_all(&[0x81]).expect("the session goes on");
    }
    let mut others = clients(&primary, 100, "/count");
    others.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
    primary.ask("reload", json!({}));
    eventually("all have migrated", || all_served_by(&mut others, 2));
}

#[test]
fn a_drained_slots_sessions_move_to_others_and_come_home_by_rebalancing() {
    let primary = sessions(3).start();
    let mut clients = clients(&primary, 30, "/count");
    let connections = |slot: usize| workers(&primary)[slot]["connections"].as_u64();
    let at_home: Vec<_> = (0..3).map(connections).collect();
    primary.ask("drain", json!({"slot": 1, "wait": true}));
    clients.iter_mut().for_each(|client| assert!(client.ask() <= 2));
    primary.ask("undrain", json!({"slot": 1}));
    primary.ask("rebalance", json!({}));
    eventually("all are at home again", || {
        all_served_by(&mut clients, 1);
        (0..3).map(connections).collect::<Vec<_>>() == at_home
    });
}

#[test]
fn scaling_moves_those_whose_worker_goes_and_by_rebalancing_those_who_belong_to_a_new_one() {
    let primary = sessions(2).start();
    let mut clients = clients(&primary, 40, "/count");
    primary.ask("scale", json!({"to": "4"}));
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
    primary.ask("rebalance", json!({}));
    eventually("new workers have their share", || {
        all_served_by(&mut clients, 1);
        workers(&primary).iter().all(|worker| worker["connections"].as_u64() > Some(0))
    });
    primary.ask("scale", json!({"to": "1"}));
    eventually("the only worker has them all", || {
        all_served_by(&mut clients, 1);
        workers(&primary)[0]["connections"].as_u64() == Some(40)
    });
}

fn workers(primary: &Primary) -> Vec<Value> {
    let found = primary.ask("workers", json!({}));
    found["workers"].as_array().or(found.as_array()).cloned().unwrap_or_else(|| panic!("{found}"))
}

#[test]
fn a_successor_that_dies_with_sessions_costs_no_client_anything() {
    successor_that("dies-with-sessions");
}

#[test]
fn a_successor_that_refuses_sessions_costs_no_client_anything() {
    successor_that("refuses-sessions");
}

#[test]
fn a_successor_that_lets_sessions_wait_costs_no_client_anything() {
    successor_that("lets-sessions-wait");
}

/// The second worker plays a role; the first and the third are as they should be.
fn successor_that(role: &str) {
    let (plays, serves) = (example("test_worker"), example("library_worker"));
    let shell = format!(
        "if [ $STICKY_LB_GENERATION = 1 ]; then exec {plays} {role}; fi; exec {serves} sessions"
    );
    let primary = Primary::with_workers(1)
        .worker(&["sh", "-c", &shell])
        .arguments(&["--min-uptime", "0", "--migrate-timeout", "10s"])
        .start();
    let mut clients = clients(&primary, 10, "/count");
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
    primary.signal(Signal::HUP);
    eventually("the second worker serves", || {
        primary.workers().iter().any(|(_, _, generation)| *generation == 1)
            || primary.log().contains("generation=2")
    });
    primary.signal(Signal::HUP);
    eventually("a good worker serves all", || all_served_by(&mut clients, 2));
}

#[test]
fn a_version_that_does_not_know_the_state_has_its_clients_come_back() {
    let (old, new) = (example("library_worker"), example("library_worker"));
    let shell = format!(
        "if [ $STICKY_LB_GENERATION = 0 ]; then exec {old} sessions; fi; exec {new} undeclared"
    );
    let primary = Primary::with_workers(1)
        .worker(&["sh", "-c", &shell])
        .arguments(&["--min-uptime", "0"])
        .start();
    let mut client = Client::open(1, &primary, "/count");
    client.ask();
    primary.ask("reload", json!({}));
    assert_eq!(u16::from(client.close_code()), 1012);
}

#[test]
fn sessions_that_have_not_opted_in_or_have_too_much_state_are_closed_with_a_close_frame() {
    let primary = sessions(1)
        .arguments(&["--min-uptime", "0", "--drain-timeout", "3s", "--close-rate", "1000"])
        .start();
    let stays = [(); 2].map(|()| Client::open(1, &primary, "/stays"));
    let mut large = Client::open(1, &primary, "/count?bytes=16777217");
    large.ask();
    primary.signal(Signal::HUP);
    for stays in stays {
        assert_eq!(u16::from(stays.close_code()), 1012);
    }
    // Once, though there were two.
    let hint = "WebSocket handler of /stays does not declare how it migrates";
    assert_eq!(primary.log().matches(hint).count(), 1);
    assert_eq!(u16::from(large.close_code()), 1012);
    assert_eq!(primary.stop()["killed_workers"], 0);
}

#[test]
fn a_handler_stuck_in_sending_has_its_time_and_holds_up_no_other() {
    let primary = sessions(1)
        .arguments(&["--min-uptime", "0", "--migrate-timeout", "500ms", "--drain-timeout", "5s"])
        .start();
    let stuck = Client::open(1, &primary, "/flood");
    let mut others = clients(&primary, 10, "/count");
    let before = primary.worker(0);
    primary.ask("reload", json!({}));
    eventually("the others have moved", || all_served_by(&mut others, 2));
    eventually("the old worker has ended", || primary.workers().iter().all(|it| it.0 != before));
    drop(stuck);
    assert_eq!(primary.stop()["killed_workers"], 0);
}

#[test]
fn migrations_in_the_middle_of_migrations_lose_no_session() {
    let primary = sessions(2).arguments(&["--min-uptime", "0", "--parallel", "2"]).start();
    let mut clients = clients(&primary, 40, "/count?bytes=50000");
    for _ in 0..3 {
        // The next one begins while sessions of the one before are on their way.
        primary.signal(Signal::HUP);
        all_served_by(&mut clients, 1);
        primary.ask("restart", json!({"slot": 1}));
    }
    primary.ask("reload", json!({}));
    eventually("no worker drains any more", || {
        all_served_by(&mut clients, 2) && primary.workers().len() == 2
    });
    assert_eq!(primary.stop()["killed_workers"], 0);
}

#[test]
fn a_worker_that_is_replaced_for_its_age_cuts_no_session() {
    let primary = sessions(1).arguments(&["--min-uptime", "0", "--max-age", "1s"]).start();
    let mut clients = clients(&primary, 10, "/count");
    eventually("all have migrated", || all_served_by(&mut clients, 2));
    assert_eq!(primary.stop()["killed_workers"], 0);
}

#[test]
fn closing_is_spread_over_the_window_and_bounded_by_the_rate() {
    let primary = sessions(2)
        .arguments(&["--min-uptime", "0", "--drain", "close", "--parallel", "2"])
        .arguments(&["--drain-timeout", "5s", "--close-rate", "20"])
        .start();
    let clients = clients(&primary, 50, "/count");
    primary.signal(Signal::HUP);
    let ends: Vec<_> = clients
        .into_iter()
        .map(|client| {
            std::thread::spawn(move || {
                assert_eq!(u16::from(client.close_code()), 1012);
                SystemTime::now()
            })
        })
        .collect();
    let mut ends: Vec<_> = ends.into_iter().map(|end| end.join().unwrap()).collect();
    ends.sort();
    let within = |ends: &[SystemTime]| ends.last().unwrap().duration_since(ends[0]).unwrap();
    // Of a window of one second no more than the rate, with some tolerance for a busy machine.
    for ends in ends.windows(31) {
        assert!(within(ends) > Duration::from_secs(1), "more than 30 within a second");
    }
    assert!(within(&ends) > Duration::from_secs(2), "all at once: {:?}", within(&ends));
    assert_eq!(primary.stop()["killed_workers"], 0);
}

#[test]
fn waiting_ends_by_a_close_frame_before_the_time_is_over() {
    let primary = sessions(1)
        .arguments(&["--min-uptime", "0", "--drain", "wait", "--drain-timeout", "4s"])
        .start();
    let mut client = Client::open(1, &primary, "/count");
    primary.ask("reload", json!({}));
    assert_eq!(client.ask(), 1);
    assert_eq!(u16::from(client.close_code()), 1012);
    assert_eq!(primary.stop()["killed_workers"], 0);
}

#[test]
fn the_end_of_everything_is_going_away() {
    let primary = sessions(2).start();
    let clients = clients(&primary, 10, "/count");
    primary.signal(Signal::TERM);
    for client in clients {
        assert_eq!(client.close_code(), CloseCode::Away);
    }
    assert_eq!(primary.stop_finished()["killed_workers"], 0);
}

#[test]
fn workers_without_a_primary_close_their_clients_one_by_one() {
    let primary =
        sessions(1).arguments(&["--orphan-timeout", "200ms", "--kill-timeout", "4s"]).start();
    let clients = clients(&primary, 4, "/count");
    primary.kill_all();
    let (start, mut last) = (SystemTime::now(), Duration::ZERO);
    for client in clients {
        assert_eq!(u16::from(client.close_code()), 1012);
        last = last.max(start.elapsed().unwrap());
    }
    assert!(last > Duration::from_secs(2), "all at once: {last:?}");
}

#[test]
fn nothing_is_left_open_after_many_moves() {
    let primary = sessions(1).arguments(&["--min-uptime", "0"]).start();
    let mut clients = clients(&primary, 20, "/count?bytes=100000");
    let descriptors = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    all_served_by(&mut clients, 1);
    let all = || (descriptors(primary.primary_pid()), descriptors(primary.worker(0)));
    let before = all();
    for restart in 1..=4 {
        primary.ask("reload", json!({}));
        eventually("all have migrated", || all_served_by(&mut clients, restart + 1));
        eventually("the old worker has ended", || primary.workers().len() == 1);
        eventually("descriptors are as many as before", || all() == before);
    }
    assert!(moved(&primary) >= 80);
}
