//! Protected sessions on the real binary: workers are killed by kill -9, and sessions at rest go on as
//! if nothing had happened; others are closed; no client ever gets a wrong answer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod successors;
mod talker;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::client::{connect_from, nth};
use common::process::{self, Signal};
use common::{Builder, Primary, TIMEOUT, eventually, example};
use serde_json::{Value, json};
use talker::{Stats, Talker};
use tokio_tungstenite::tungstenite::{self, Error, Message, WebSocket};

fn safe(workers: u16, worker: &[&str]) -> Builder {
    Primary::with_workers(workers).worker(worker).arguments(&[
        "--protect",
        "--min-uptime=0",
        "--max-restarts=100000",
    ])
}

fn sessions(workers: u16) -> Builder {
    safe(workers, &[&example("library_worker"), "sessions"])
}

fn status(primary: &Primary, name: &str) -> u64 {
    primary.ask("status", json!({}))[name].as_u64().unwrap_or_else(|| panic!("no {name}"))
}

/// Waits until the primary says so; what it says may be a moment old.
fn wait_for(primary: &Primary, name: &str, number: u64) {
    eventually(&format!("{name} {number}"), || status(primary, name) == number);
}

fn protected(primary: &Primary) -> u64 {
    status(primary, "sessions_protected")
}

/// A client of `/count` or `/talk`, and how many it has said.
struct Client {
    socket: WebSocket<TcpStream>,
    said: u64,
}

impl Client {
    fn open(client: u16, primary: &Primary, path: &str) -> Self {
        let stream = connect_from(nth(client), primary.address()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let url = format!("ws://test{path}");
        Self { socket: tungstenite::client(url, stream).unwrap().0, said: 0 }
    }

    fn say(&mut self) {
        self.said += 1;
        self.socket.send(Message::text(self.said.to_string())).unwrap();
    }

    /// How many workers have served it so far, by the answer to what it has said.
    fn receive(&mut self) -> u64 {
        let answer = self.socket.read().unwrap().into_text().unwrap();
        let words: Vec<_> = answer.split(' ').collect();
        assert_eq!(words[..2], ["answer", &self.said.to_string()], "lost, doubled or wrong");
        words[2].parse().unwrap()
    }

    fn ask(&mut self) -> u64 {
        self.say();
        self.receive()
    }

    /// Waits for the end, which has to come and not to be left to the client's patience.
    fn end(mut self) {
        loop {
            match self.socket.read() {
                Ok(_) => {}
                Err(Error::Io(error))
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    panic!("it is left hanging")
                }
                Err(_) => return,
            }
        }
    }
}

fn clients(primary: &Primary, count: u16, path: &str) -> Vec<Client> {
    let mut clients: Vec<_> =
        (0..count).map(|client| Client::open(client, primary, path)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 1));
    eventually("all are protected", || protected(primary) == u64::from(count));
    clients
}

/// Kills a worker that has nothing to do any more.
fn kill(primary: &Primary, slot: u16) {
    let pid = primary.worker(slot);
    eventually("it has nothing to do", || process::state(pid) == Some('S'));
    process::signal(pid, Signal::KILL);
}

/// Sessions that were closed, of the last line.
fn recovery_failures(stopped: &Value) -> u64 {
    let ends = stopped["session_recovery_failures"].as_object().unwrap();
    ends.values().map(|end| end.as_u64().unwrap()).sum()
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Kills workers in turns while all talk, and says how many sessions recovered and how many not.
fn kill_under_traffic(
    primary: &Primary,
    kills: u16,
    talkers: u16,
    pace: u64,
    query: &str,
) -> [u64; 2] {
    let stats = Arc::new(Stats::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tasks: Vec<_> = (0..talkers)
        .map(|number| Talker {
            source: nth(number),
            server: primary.address(),
            query: query.to_owned(),
            // Not all at the same time.
            pace: Duration::from_millis(pace + u64::from(number % 7)),
            stats: Arc::clone(&stats),
        })
        .map(|talker| runtime.spawn(talker.talk()))
        .collect();
    let heard = || stats.heard.load(Ordering::Relaxed);
    for number in 0..kills {
        let before = heard() + u64::from(talkers) * 3;
        eventually("all talk", || heard() >= before);
        process::signal(primary.worker(number % 2), Signal::KILL);
    }
    let before = heard() + u64::from(talkers) * 3;
    eventually("all talk", || heard() >= before);
    stats.over.store(true, Ordering::Relaxed);
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    assert_eq!(count(&stats.wrong), 0, "something was lost, doubled or wrong");
    [count(&stats.recovered), count(&stats.cut)]
}

#[test]
fn under_paced_traffic_both_ways_no_client_gets_a_wrong_answer() {
    let primary = sessions(2).start();
    // Each worker has a checkpoint file as soon as it has a protected session.
    let base = descriptors(primary.primary_pid()) + 2;
    let [recovered, cut] = kill_under_traffic(&primary, 100, 40, 50, "push=70");
    let stopped = {
        eventually("descriptors are as many as before", || {
            descriptors(primary.primary_pid()) <= base
        });
        wait_for(&primary, "sessions_protected", 0);
        primary.stop()
    };
    println!("recovered {recovered}, closed {cut}: {stopped}");
    assert_eq!(stopped["sessions_recovered"].as_u64(), Some(recovered), "{stopped}");
    let ends = &stopped["session_recovery_failures"];
    assert_eq!(ends["unverified"], 0, "{ends}");
    assert_eq!(ends["no-target"], 0, "{ends}");
    assert!(ends["busy"].as_u64() <= Some(cut), "{ends}");
    assert!(recovered > 10 * cut, "at that pace nearly all are at rest: {cut} of {recovered} cut");
}

#[test]
fn states_of_a_hundred_kilobytes_are_never_torn() {
    let primary = sessions(2).start();
    let [recovered, cut] = kill_under_traffic(&primary, 40, 20, 20, "bytes=100000");
    println!("recovered {recovered}, closed {cut}");
    assert!(recovered > cut);
}

#[test]
fn what_the_client_says_while_its_worker_is_dead_is_answered_by_the_next() {
    let primary = sessions(1).arguments(&["--restart-delay", "300ms"]).start();
    let mut clients = clients(&primary, 10, "/talk");
    let pid = primary.worker(0);
    // Unread at the time of death: it stands still.
    process::signal(pid, Signal::STOP);
    clients.iter_mut().for_each(Client::say);
    process::signal(pid, Signal::KILL);
    for client in &mut clients {
        assert_eq!(client.receive(), 2);
        assert_eq!(client.ask(), 2);
    }
    wait_for(&primary, "sessions_recovered", 10);
    assert_eq!(recovery_failures(&primary.stop()), 0);
}

#[test]
fn sessions_in_the_middle_of_a_message_are_closed_and_counted() {
    let primary = sessions(1).start();
    let mut at_rest = Client::open(1, &primary, "/talk");
    at_rest.ask();
    let mut half = Client::open(2, &primary, "/talk");
    half.ask();
    let mut flooded = Client::open(3, &primary, "/flood");
    flooded.socket.read().unwrap();
    eventually("two are protected", || protected(&primary) == 2);
    // The beginning of a frame, which is read.
    half.socket.get_mut().write_all(&[0x81, 0xfe, 0x10]).unwrap();
    eventually("it is read", || unread(&half) == 0);
    kill(&primary, 0);
    half.end();
    flooded.end();
    assert_eq!(at_rest.ask(), 2);
    let stopped = primary.stop();
    assert_eq!(stopped["session_recovery_failures"]["busy"], 1, "{stopped}");
    assert_eq!(stopped["sessions_recovered"], 1, "{stopped}");
}

/// Bytes that have not been acknowledged to the client, and then that the worker has not read: it has
/// as soon as its processor is idle again.
fn unread(client: &Client) -> u64 {
    let socket = client.socket.get_ref();
    let port = socket.local_addr().unwrap().port();
    let table = ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/net/{name}")));
    let table = table.map(Result::unwrap_or_default).concat();
    let peer = format!(":{port:04X}");
    let line = table
        .lines()
        .find(|line| line.split_whitespace().nth(2).is_some_and(|it| it.ends_with(&peer)));
    let queues = line.and_then(|line| line.split_whitespace().nth(4)).unwrap();
    u64::from_str_radix(queues.split_once(':').unwrap().1, 16).unwrap()
}

#[test]
fn a_client_that_leaves_while_its_worker_is_dead_is_forgotten() {
    let primary = sessions(1).arguments(&["--restart-delay", "300ms"]).start();
    let base = descriptors(primary.primary_pid()) + 1;
    let mut clients = clients(&primary, 3, "/talk");
    kill(&primary, 0);
    // One closes, one is gone, one stays.
    let mut polite = clients.remove(0);
    polite.socket.close(None).unwrap();
    let rude = clients.remove(0);
    rustix::net::sockopt::set_socket_linger(rude.socket.get_ref(), Some(Duration::ZERO)).unwrap();
    drop(rude);
    polite.end();
    assert_eq!(clients[0].ask(), 2);
    eventually("one is protected", || protected(&primary) == 1);
    drop(clients);
    eventually("descriptors are as many as before", || descriptors(primary.primary_pid()) <= base);
}

#[test]
fn a_worker_that_closes_a_session_ends_it_at_once_though_there_is_a_copy() {
    let primary = sessions(1).start();
    let base = descriptors(primary.primary_pid()) + 1;
    let mut client = Client::open(1, &primary, "/leave");
    eventually("it is protected", || protected(&primary) == 1);
    // The primary can't drop its copy, but the client sees the end.
    process::signal(primary.primary_pid(), Signal::STOP);
    client.say();
    let mut bytes = Vec::new();
    client.socket.get_mut().read_to_end(&mut bytes).unwrap();
    process::signal(primary.primary_pid(), Signal::CONT);
    drop(client);
    eventually("it is forgotten", || protected(&primary) == 0);
    eventually("descriptors are as many as before", || descriptors(primary.primary_pid()) <= base);
}

#[test]
fn a_successor_that_dies_too_costs_no_session_at_rest_anything() {
    let primary = sessions(1).start();
    let mut clients = clients(&primary, 20, "/talk?bytes=3000");
    for crashes in 1..=5 {
        kill(&primary, 0);
        wait_for(&primary, "sessions_recovered", 20 * crashes);
        // Again, by the workers that have taken them.
        wait_for(&primary, "sessions_protected", 20);
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(), 6));
}

#[test]
fn those_that_end_with_their_worker_and_the_primary_are_counted_as_cut() {
    let primary = sessions(1).start();
    let clients = clients(&primary, 20, "/talk");
    let worker = primary.worker(0);
    for pid in [primary.primary_pid(), worker] {
        process::signal(pid, Signal::KILL);
    }
    clients.into_iter().for_each(Client::end);
    wait_for(&primary, "connections_cut", 20);
    assert_eq!(status(&primary, "connections_protected"), 0);
    // Its app has protected them.
    let log = primary.log();
    assert!(!log.contains("none of its connections was protected"), "{log}");
}

#[test]
fn a_session_that_moves_is_kept_by_its_new_worker_and_forgotten_for_the_old() {
    let primary = sessions(2).start();
    let mut clients = clients(&primary, 20, "/talk?bytes=20000");
    let base = descriptors(primary.primary_pid());
    for round in 0..3 {
        primary.ask("reload", json!({}));
        eventually("all have moved", || {
            let least = clients.iter_mut().map(Client::ask).min().unwrap();
            least >= 2 * round + 2
        });
        kill(&primary, 0);
        kill(&primary, 1);
        eventually("all have recovered", || {
            status(&primary, "sessions_recovered") == 20 * (round + 1)
        });
        clients.iter_mut().for_each(|client| assert!(client.ask() >= 2 * round + 3));
    }
    eventually("old workers have ended", || primary.workers().len() == 2);
    eventually("descriptors are as many as before", || descriptors(primary.primary_pid()) <= base);
    wait_for(&primary, "sessions_protected", 20);
    assert_eq!(recovery_failures(&primary.stop()), 0);
}

#[test]
fn kills_in_the_middle_of_migrations_give_no_session_two_workers() {
    let primary = sessions(2).arguments(&["--parallel", "2"]).start();
    let mut clients = clients(&primary, 40, "/talk?bytes=20000");
    for round in 0..10_u16 {
        // A worker that drained in the round before may be gone at any look.
        eventually("all are at rest", || {
            primary.workers().iter().all(|(pid, ..)| process::state(*pid) == Some('S'))
        });
        primary.signal(Signal::HUP);
        // A worker that drains, or has just come.
        let workers = primary.workers();
        let (pid, ..) = workers[usize::from(round) % workers.len()];
        process::signal(pid, Signal::KILL);
        clients.iter_mut().for_each(|client| {
            let _ = client.ask();
        });
    }
    assert_eq!(recovery_failures(&primary.stop()), 0);
}

#[test]
fn all_servers_of_the_library_can_be_protect() {
    for role in ["axum-echo", "hyper-echo"] {
        let primary = safe(1, &[&example("library_worker"), role]).start();
        let mut client = Client::open(1, &primary, "/");
        for _ in 0..3 {
            for text in ["one", "two"] {
                client.socket.send(Message::text(text)).unwrap();
                assert_eq!(client.socket.read().unwrap(), Message::text(text), "{role}");
            }
            eventually("it is protected", || protected(&primary) == 1);
            kill(&primary, 0);
        }
        client.socket.send(Message::text("three")).unwrap();
        assert_eq!(client.socket.read().unwrap(), Message::text("three"), "{role}");
        assert_eq!(primary.stop()["sessions_recovered"], 3);
    }
}

#[test]
fn a_worker_that_lies_harms_only_its_own_clients() {
    let (lies, serves) = (example("test_worker"), example("library_worker"));
    let shell = format!(
        "if [ $STICKY_LB_SLOT = 0 ]; then exec {lies} lies-about-sessions; fi; exec {serves} sessions"
    );
    let primary = safe(2, &["sh", "-c", &shell]).arguments(&["--slot-wait", "100ms"]).start();
    let base = descriptors(primary.primary_pid()) + 2;
    let at = |client| {
        let stream = connect_from(client, primary.address()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    };
    let stream = at(primary.client_of(1));
    let socket = tungstenite::client("ws://test/talk", stream).unwrap().0;
    let mut honest = Client { socket, said: 0 };
    honest.ask();
    for death in 1..=5 {
        let mut victim = at(primary.client_of(0));
        victim.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // Whatever the end is.
        let _ = victim.read_to_end(&mut Vec::new());
        primary.wait_for_log(&format!("generation={death} "));
        assert_eq!(honest.ask(), 1);
    }
    let proven = primary.ask("status", json!({}));
    assert_eq!(proven["sessions_recovered"], 0, "{proven}");
    eventually("nothing is left of it", || descriptors(primary.primary_pid()) <= base);
    kill(&primary, 1);
    assert_eq!(honest.ask(), 2);
}

#[test]
fn sessions_that_are_closed_get_a_close_frame_and_lose_their_protection() {
    let primary = sessions(1)
        .arguments(&["--drain", "close", "--drain-timeout", "5s", "--close-rate", "1000"])
        .start();
    let clients = clients(&primary, 5, "/talk");
    primary.signal(Signal::HUP);
    for mut client in clients {
        let Ok(Message::Close(Some(frame))) = client.socket.read() else {
            panic!("no close frame")
        };
        assert_eq!(u16::from(frame.code), 1012);
        let end = client.socket.read();
        assert!(matches!(end, Err(Error::ConnectionClosed)), "{end:?}");
    }
    wait_for(&primary, "sessions_protected", 0);
    assert_eq!(recovery_failures(&primary.stop()), 0);
}

#[test]
fn without_the_setting_sessions_move_and_do_not_survive() {
    let primary =
        Primary::with_workers(1).worker(&[&example("library_worker"), "sessions"]).start();
    let mut client = Client::open(1, &primary, "/talk");
    client.ask();
    primary.ask("reload", json!({}));
    eventually("it has moved", || client.ask() == 2);
    assert_eq!(protected(&primary), 0);
    kill(&primary, 0);
    client.end();
    let stopped: Value = primary.stop();
    assert_eq!(stopped["sessions_recovered"], 0);
}

#[test]
fn when_there_are_no_descriptors_for_more_the_others_are_as_without() {
    let primary = sessions(1).descriptor_limit(160).start();
    let clients: Vec<_> = (0..60)
        .map(|client| {
            let mut client = Client::open(client, &primary, "/talk");
            client.ask();
            client
        })
        .collect();
    primary.wait_for_log("descriptors are short for protected sessions");
    let kept = protected(&primary);
    assert!((20..60).contains(&kept), "{kept} are protected");
    kill(&primary, 0);
    let mut gone = 0;
    for mut client in clients {
        client.say();
        if client.socket.read().is_err() {
            gone += 1;
        }
    }
    assert_eq!(gone, 60 - kept);
    wait_for(&primary, "sessions_recovered", kept);
}
