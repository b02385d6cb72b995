//! Promise 2: no accepted connection is lost in the hand-off, whatever dies.

mod common;

use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use common::client::{ask, connect_from, ends_within, nth, read_answer, read_kept_alive, send_get};
use common::process::{Signal, descriptors, signal};
use common::{Primary, eventually};

/// Opens a connection that stays, and says which slot holds it.
fn hold(from: std::net::IpAddr, primary: &Primary) -> (u16, std::net::TcpStream) {
    let mut stream = connect_from(from, primary.address()).expect("the primary listens");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("it can be written to");
    let answer = read_kept_alive(&mut stream).expect("it is answered");
    (answer.slot(), stream)
}

#[test]
fn who_comes_before_the_workers_waits_unread_in_the_kernel() {
    let gate = common::own_directory().join("gate");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &gate, fifo, 0o600.into(), 0).unwrap();
    let demo = env!("CARGO_BIN_EXE_sticky-lb");
    let wait = format!("cat {} > /dev/null; exec {demo} demo-worker", gate.display());
    let primary = Primary::with_workers(1).worker(&["sh", "-c", &wait]).start_listening();
    let mut early = connect_from(nth(1), primary.address()).unwrap();
    send_get(&mut early, "/").unwrap();
    std::fs::write(&gate, "go").unwrap();
    assert_eq!(read_answer(early).unwrap().slot(), 0);
    assert_eq!(primary.stop()["accepted"], 1);
}

#[test]
fn an_established_connection_costs_the_primary_no_descriptor() {
    let primary = Primary::with_workers(2).start();
    let before = descriptors(primary.primary_pid());
    let held: Vec<_> = (0..300).map(|n| hold(nth(n), &primary)).collect();
    eventually("the primary has closed its copies", || {
        descriptors(primary.primary_pid()).len() == before.len()
    });
    assert!(held.iter().any(|(slot, _)| *slot == 0) && held.iter().any(|(slot, _)| *slot == 1));
    for (_, mut stream) in held {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("it is still established");
        read_kept_alive(&mut stream).expect("it is still served");
    }
}

#[test]
fn the_client_sees_the_end_as_soon_as_the_worker_closes() {
    let primary = Primary::with_workers(2).start();
    let mut stream = connect_from(nth(0), primary.address()).unwrap();
    send_get(&mut stream, "/").unwrap();
    assert!(ends_within(&mut stream, Duration::from_secs(10)), "some copy withholds the FIN");
}

/// Standard streams, channel and scoreboard: those of the link lie above all that a program may be
/// given by number.
const INHERITED: [i32; 5] = [0, 1, 2, 10, 11];

#[test]
fn workers_inherit_channel_and_scoreboard_and_nothing_else() {
    let primary = Primary::with_workers(4)
        .test_worker(&["never-attaches"])
        .arguments(&["--listen-timeout", "1h", "--interface", "native"])
        .start_listening();
    eventually("four workers run", || {
        let programs = primary.workers().into_iter();
        programs.filter(|(pid, ..)| descriptors(*pid).len() == 5).count() == 4
    });
    let mut seen = HashSet::new();
    for (pid, ..) in primary.workers() {
        let mut inherited = Vec::new();
        // The C library opens one of its own for a moment as it starts.
        eventually("five descriptors", || {
            inherited = descriptors(pid);
            inherited.iter().map(|(number, _)| *number).eq(INHERITED)
        });
        assert!(seen.insert(inherited[3].1.clone()), "two workers share a channel");
        assert!(inherited[4].1.contains("scoreboard"), "{inherited:?}");
    }
}

#[test]
fn a_worker_of_which_nothing_is_known_inherits_a_channel_for_node_too() {
    let primary = Primary::with_workers(1)
        .test_worker(&["never-attaches"])
        .arguments(&["--listen-timeout", "1h"])
        .start_listening();
    let worker = primary.worker(0);
    let own = || descriptors(worker).into_iter().map(|(number, _)| number);
    eventually("its descriptors", || own().eq(INHERITED.into_iter().chain([12])));
}

#[test]
fn a_successor_started_under_load_inherits_nothing_else_either() {
    let primary = Primary::with_workers(2)
        .slot_zero_plays("never-attaches")
        .arguments(&["--listen-timeout", "1h", "--interface", "native"])
        .start_listening();
    let first = primary.worker(0);
    eventually("slot 0 runs the test worker", || descriptors(first).len() == 5);
    signal(first, Signal::KILL);
    let served = primary.client_of(1);
    for _ in 0..200 {
        ask(served, primary.address());
    }
    eventually("a successor runs, with what is its own", || {
        let successor = primary.worker(0);
        let numbers: Vec<_> =
            descriptors(successor).into_iter().map(|(number, _)| number).collect();
        successor != first && numbers == INHERITED
    });
}

/// How often to kill a worker: `scripts/prove-handoff` asks for more.
fn kills() -> u32 {
    std::env::var("STICKY_LB_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(200)
}

#[test]
fn workers_killed_at_random_lose_no_connection() {
    const CLIENTS: u16 = 6;
    // Killed so often, they would be taken for a crash loop.
    let primary = Primary::with_workers(4)
        .arguments(&["--min-uptime", "0", "--max-restarts", "1000000"])
        .start();
    let before = descriptors(primary.primary_pid()).len();
    let (done, answered, cut) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let address = primary.address();
    std::thread::scope(|scope| {
        for thread in 0..CLIENTS {
            let (done, answered, cut) = (&done, &answered, &cut);
            scope.spawn(move || {
                for n in (thread..u16::MAX).step_by(usize::from(CLIENTS)).cycle() {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut stream =
                        connect_from(nth(n), address).expect("the backlog takes every connection");
                    let answer = send_get(&mut stream, "/").and_then(|()| read_answer(stream));
                    match answer {
                        Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            panic!("client {n} hangs")
                        }
                        // Its worker died with it. That it had been acknowledged is shown below.
                        Err(_) => cut.fetch_add(1, Ordering::Relaxed),
                    };
                    // A few hundred a second.
                    std::thread::park_timeout(Duration::from_millis(5));
                }
            });
        }
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..kills() {
            let answered_before = answered.load(Ordering::Relaxed);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let workers = primary.workers();
            if let Some((pid, ..)) = workers.get((random >> 33) as usize % workers.len().max(1)) {
                signal(*pid, Signal::KILL);
            }
            let more = answered_before + 10;
            eventually("answers go on", || answered.load(Ordering::Relaxed) >= more);
        }
        done.store(true, Ordering::Relaxed);
    });
    eventually("descriptors return to their base", || {
        primary.workers().len() == 4 && descriptors(primary.primary_pid()).len() == before
    });
    let (answered, cut) = (answered.into_inner(), cut.into_inner());
    let stopped = primary.stop();
    println!("{answered} answered, {cut} cut with their worker, {stopped}");
    // Every accepted connection was acknowledged by some worker, so that those that were cut had
    // been acknowledged by the one that died.
    assert_eq!(stopped["lost"], 0);
    assert_eq!(stopped["accepted"], stopped["acknowledged"]);
    assert_eq!(stopped["accepted"], u64::from(answered + cut));
    assert!(cut <= kills(), "{cut} connections cut by {} kills", kills());
}

#[test]
fn a_connection_that_kills_its_workers_goes_to_another_slot_at_last() {
    let primary = Primary::with_workers(3).test_worker(&["dies-before-acknowledging"]).start();
    let client = primary.client_of(0);
    // It is given to the successor once, so that the client stays; then to another slot.
    assert_ne!(ask(client, primary.address()).slot(), 0);
    let stopped = primary.stop();
    assert_eq!((&stopped["lost"], &stopped["redispatched"]), (&0.into(), &2.into()));
}

#[test]
fn what_a_dead_worker_has_read_from_goes_to_nobody_else() {
    let primary = Primary::with_workers(3).test_worker(&["reads-and-dies"]).start();
    let client = primary.client_of(0);
    let mut stream = connect_from(client, primary.address()).unwrap();
    send_get(&mut stream, "/").unwrap();
    assert!(read_answer(stream).is_err(), "somebody answered a request that was read before");
    assert_eq!(primary.stop()["lost"], 1);
}

#[test]
fn refused_connections_go_to_the_next_slot() {
    let primary = Primary::with_workers(4).test_worker(&["refuses-odd-slots"]).start();
    for n in 0..100 {
        let slot = ask(nth(n), primary.address()).slot();
        assert_eq!(slot % 2, 0, "client {n}");
    }
    let stopped = primary.stop();
    assert_eq!((&stopped["lost"], stopped["acknowledged"].as_u64()), (&0.into(), Some(100)));
    assert!(stopped["refused"].as_u64() > Some(0), "{stopped}");
}

#[test]
fn a_worker_without_descriptors_refuses_and_others_serve() {
    let primary = Primary::with_workers(3).slot_zero("ulimit -n 24").start();
    let clients = primary.clients_of(0, 60);
    let held: Vec<_> = clients.iter().map(|client| hold(*client, &primary)).collect();
    let at_home = held.iter().filter(|(slot, _)| *slot == 0).count();
    assert!((1..24).contains(&at_home), "{at_home} of 60 in a worker of 24 descriptors");
    let stopped_line = "worker refuses connections";
    primary.wait_for_log(stopped_line);
    assert_eq!(primary.log().matches(stopped_line).count(), 1, "it is said once");
    drop(held);
    // Who comes too early is remembered elsewhere, so that each try is another client's.
    let clients = primary.clients_of(0, 600);
    let mut fresh = clients[60..].iter();
    eventually("the slot takes its clients again", || {
        ask(*fresh.next().expect("enough clients"), primary.address()).slot() == 0
    });
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn a_stopped_worker_holds_up_nobody_and_comes_back_by_itself() {
    let primary = Primary::with_workers(3).start();
    let [one, two, three] = primary.clients_of(1, 3)[..] else { unreachable!("three were asked") };
    let others = [primary.client_of(0), primary.client_of(2)];
    assert_eq!(ask(one, primary.address()).slot(), 1);
    signal(primary.worker(1), Signal::STOP);
    // Taken back from its channel when it has stalled, and given to another.
    assert_ne!(ask(one, primary.address()).slot(), 1);
    primary.wait_for_log("worker does not acknowledge");
    let start = SystemTime::now();
    for _ in 0..50 {
        assert_eq!(ask(others[0], primary.address()).slot(), 0);
        assert_eq!(ask(others[1], primary.address()).slot(), 2);
        assert_ne!(ask(two, primary.address()).slot(), 1);
    }
    // 150 answers, of which not one had to wait for a stall.
    assert!(start.elapsed().unwrap() < Duration::from_millis(250 * 50), "others were held up");
    signal(primary.worker(1), Signal::CONT);
    let clients = primary.clients_of(1, 400);
    let mut fresh = clients[3..].iter();
    eventually("it takes new clients again", || {
        ask(*fresh.next().expect("enough clients"), primary.address()).slot() == 1
    });
    assert_eq!(ask(three, primary.address()).slot(), 1);
    assert_ne!(ask(one, primary.address()).slot(), 1, "it stays where it went for a while");
    let stopped = primary.stop();
    assert_eq!((&stopped["lost"], &stopped["stalls"]), (&0.into(), &1.into()));
    assert!(stopped["redispatched"].as_u64() > Some(0), "{stopped}");
}

/// Clients whose requests are sent, and that wait for their answers.
fn waiting_clients(primary: &Primary, count: u16) -> Vec<std::net::TcpStream> {
    let connect = |n| {
        let mut stream = connect_from(nth(n), primary.address()).expect("the backlog has room");
        send_get(&mut stream, "/").expect("it can be written to");
        stream
    };
    (0..count).map(connect).collect()
}

#[test]
fn with_all_workers_stopped_clients_wait_and_are_all_served_in_the_end() {
    let primary = Primary::with_workers(2).descriptor_limit(100).start();
    let base = descriptors(primary.primary_pid()).len();
    let workers: Vec<_> = primary.workers().into_iter().map(|(pid, ..)| pid).collect();
    workers.iter().for_each(|pid| signal(*pid, Signal::STOP));
    let waiting = waiting_clients(&primary, 150);
    primary.wait_for_log("descriptors are short for what waits for workers");
    workers.iter().for_each(|pid| signal(*pid, Signal::CONT));
    for stream in waiting {
        read_answer(stream).expect("an answer in the end");
    }
    eventually("descriptors return to their base", || {
        descriptors(primary.primary_pid()).len() == base
    });
    let stopped = primary.stop();
    assert_eq!((&stopped["lost"], &stopped["accepted"]), (&0.into(), &150.into()));
    assert_eq!(stopped["accept_errors"], 0);
}

/// Held by the clients that wait for them, the last descriptors would keep workers from starting.
#[test]
fn dead_workers_are_followed_however_many_clients_wait_for_them() {
    let primary = Primary::with_workers(2).descriptor_limit(100).start();
    let workers: Vec<_> = primary.workers().into_iter().map(|(pid, ..)| pid).collect();
    workers.iter().for_each(|pid| signal(*pid, Signal::STOP));
    let waiting = waiting_clients(&primary, 150);
    primary.wait_for_log("descriptors are short for what waits for workers");
    workers.iter().for_each(|pid| signal(*pid, Signal::KILL));
    for stream in waiting {
        read_answer(stream).expect("an answer of the successors");
    }
    assert_eq!(primary.stop()["lost"], 0);
}

#[test]
fn out_of_descriptors_the_primary_waits_says_so_once_and_recovers() {
    let primary = Primary::with_workers(2).start();
    let limit = |soft| {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = i32::try_from(primary.primary_pid()).ok().and_then(Pid::from_raw);
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(soft), maximum: Some(20_000) })
            .unwrap();
    };
    let taken = u64::try_from(descriptors(primary.primary_pid()).len()).unwrap();
    limit(taken);
    let waiting = waiting_clients(&primary, 50);
    primary.wait_for_log("out of descriptors or memory");
    limit(20_000);
    for stream in waiting {
        read_answer(stream).expect("an answer in the end");
    }
    primary.wait_for_log("accepting again");
    assert_eq!(primary.log().matches("out of descriptors or memory").count(), 1);
    let stopped = primary.stop();
    assert_eq!((&stopped["lost"], &stopped["acknowledged"]), (&0.into(), &50.into()));
    let errors = stopped["accept_errors"].as_u64().unwrap();
    assert!((1..30).contains(&errors), "{errors} errors of accept: it spins");
}
