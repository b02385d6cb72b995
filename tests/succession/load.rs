//! Successions under connections of real clients, served by threads and by real workers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, poll};
use sticky_lb::internals::link::Link;
use sticky_lb::internals::link::inherit::{Inherit, Numbered};
use sticky_lb::protocol::message::{HELLO, MAX_TO_WORKER, READY};
use sticky_lb::protocol::scm_rights::{Received, receive, send};
use sticky_lb::protocol::scoreboard::{Counter, Scoreboard};

use super::common::client::{ask, connect_from, nth};
use super::common::{eventually, example};
use super::{CREDITS, Harness, PATIENT, worker};

/// Acknowledges what comes, answers and closes it.
fn serve(mut inherit: Inherit) {
    let scoreboard = Scoreboard::open(inherit.descriptor("scoreboard").unwrap()).unwrap();
    let channel = inherit.take("channel").unwrap();
    let (mut bytes, mut sockets) = ([0; MAX_TO_WORKER], Vec::new());
    loop {
        match receive(&channel, &mut bytes, &mut sockets).unwrap() {
            Received::Message { .. } => {
                scoreboard.add(Counter::Completed, sockets.len() as u64);
                for socket in sockets.drain(..) {
                    let mut client = TcpStream::from(socket);
                    client.set_nonblocking(false).unwrap();
                    client.write_all(b"ok").unwrap();
                }
            }
            Received::Empty => {
                poll(&mut [PollFd::new(&channel, PollFlags::IN)], None).unwrap();
            }
            Received::Closed => return,
        }
    }
}

struct Load {
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(to: std::net::SocketAddr) -> Self {
        let [done, failed] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let ended = Arc::new(AtomicBool::new(false));
        let client = |number: u16| {
            let (done, failed, ended) =
                (Arc::clone(&done), Arc::clone(&failed), Arc::clone(&ended));
            thread::spawn(move || {
                for n in (0..).step_by(4) {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut said = String::new();
                    let came = connect_from(nth((n + number) % 4_000), to)
                        .and_then(|mut stream| stream.read_to_string(&mut said));
                    let count = if came.is_ok() && said == "ok" { &done } else { &failed };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..4).map(client).collect();
        Self { done, failed, ended, threads }
    }

    /// Waits for so many more.
    fn go_on_for(&self, more: u64) {
        let before = self.done.load(Ordering::Relaxed);
        eventually("clients are served", || self.done.load(Ordering::Relaxed) >= before + more);
    }

    fn end(self) -> (u64, u64) {
        self.ended.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        (self.done.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

async fn staffed(slots: u16) -> (Harness, Vec<JoinHandle<()>>) {
    let mut stage = Harness::new(slots, PATIENT).await;
    let mut threads = Vec::new();
    for slot in 0..slots {
        let (channel, end) = Link::native(CREDITS).unwrap();
        let worker_end = end.descriptor("channel").unwrap();
        send(worker_end, &HELLO, &[]).unwrap();
        send(worker_end, &READY, &[]).unwrap();
        threads.push(thread::spawn(move || serve(end)));
        stage.take_in(worker(slot, 0), channel).await;
        stage.is_ready(worker(slot, 0)).await;
        stage.serve(worker(slot, 0)).await;
    }
    (stage, threads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_upgrades_fail_nobody() {
    let (mut stage, _workers) = staffed(3).await;
    let load = Load::start(stage.frontend.address);
    for _ in 0..50 {
        load.go_on_for(20);
        stage.hand_over().await;
    }
    load.go_on_for(20);
    let (done, failed) = load.end();
    assert_eq!(failed, 0, "of {done}");
    stage.counts("all are accounted for", |it| it.acknowledged == it.accepted).await;
    let counters = stage.count().await;
    assert_eq!((counters.accepted, counters.lost, counters.fallbacks), (done, 0, 0));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_fails_in_fifty_crashes_is_counted() {
    let (mut stage, _workers) = staffed(3).await;
    let load = Load::start(stage.frontend.address);
    let all: Vec<_> = (0..3).map(|slot| worker(slot, 0)).collect();
    for _ in 0..50 {
        load.go_on_for(20);
        stage.crash(&all).await;
    }
    load.go_on_for(20);
    let (done, failed) = load.end();
    stage.counts("all are accounted for", |it| it.acknowledged + it.lost == it.accepted).await;
    let counters = stage.count().await;
    assert_eq!((counters.accepted, counters.lost), (done + failed, failed));
    stage.end().await;
}

/// A real worker, on a channel of its own.
fn start(command: &[&str]) -> (Child, Link) {
    let (channel, end) = Link::native(CREDITS).unwrap();
    let Numbered { descriptors, variables, .. } = end.number();
    let mappings = descriptors.into_iter();
    let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    let process = Command::new(command[0])
        .args(&command[1..])
        .fd_mappings(mappings.collect())
        .unwrap()
        .envs(variables)
        .envs([("STICKY_LB_SLOT", "0"), ("STICKY_LB_GENERATION", "0")])
        .envs([("STICKY_LB_ORPHAN_TIMEOUT", "0"), ("STICKY_LB_KILL_TIMEOUT", "0")])
        .spawn()
        .unwrap();
    (process, channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_workers_go_on_under_the_next_primary() {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py");
    let library = example("axum_app");
    for command in [vec!["python3", python], vec![&library[..]]] {
        let mut stage = Harness::new(1, PATIENT).await;
        let (mut process, channel) = start(&command);
        stage.take_in(worker(0, 0), channel).await;
        stage.is_ready(worker(0, 0)).await;
        stage.serve(worker(0, 0)).await;
        for n in 0..6 {
            assert_eq!(ask(nth(n), stage.frontend.address).pid(), process.id());
            if n % 2 == 0 { stage.crash(&[worker(0, 0)]).await } else { stage.hand_over().await }
        }
        assert_eq!(ask(nth(7), stage.frontend.address).pid(), process.id());
        stage.counts("all are accounted for", |it| (it.acknowledged, it.lost) == (7, 0)).await;
        process.kill().unwrap();
        process.wait().unwrap();
        stage.end().await;
    }
}
