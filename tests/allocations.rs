//! The way of a connection through the primary allocates nothing: not when it is accepted, counted
//! and placed, not when it is handed over, not when it is acknowledged and measured.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use sticky_lb::frontend::affinity::{Affinity, DigestKind, Prefixes};
use sticky_lb::frontend::dispatcher::Dispatcher;
use sticky_lb::frontend::inquiry::inquiries;
use sticky_lb::frontend::listener::{Listener, ListenerSettings};
use sticky_lb::frontend::placement::Placement;
use sticky_lb::frontend::router::{Router, RouterSettings};
use sticky_lb::frontend::slot_table::{SlotSettings, SlotTable};
use sticky_lb::handoff::channel::{Channel, WorkerEnd};
use sticky_lb::handoff::ids::{Generation, SlotId};
use sticky_lb::handoff::message::MAX_TO_WORKER;
use sticky_lb::handoff::scm_rights::{Received, receive};
use sticky_lb::handoff::scoreboard::{Counter, Scoreboard};
use sticky_lb::handoff::slots::{SlotCommand, SlotCommander, WorkerId, seam};

const SLOTS: u16 = 2;

/// Clients that connect before they are looked at.
const AT_ONCE: usize = 50;

fn slots() -> impl Iterator<Item = SlotId> {
    (0..SLOTS).map(SlotId)
}

/// Closes what it is sent, and acknowledges it.
fn serve(worker: &WorkerEnd) {
    let scoreboard = Scoreboard::open(worker.scoreboard.as_fd()).unwrap();
    let (mut bytes, mut sockets) = ([0; MAX_TO_WORKER], Vec::new());
    loop {
        match receive(&worker.channel, &mut bytes, &mut sockets).unwrap() {
            Received::Message { .. } => {
                scoreboard.add(Counter::Settled, sockets.len() as u64);
                sockets.clear();
            }
            Received::Empty => {
                let mut polled = [PollFd::new(&worker.channel, PollFlags::IN)];
                poll(&mut polled, None).unwrap();
            }
            Received::Closed => return,
        }
    }
}

async fn begin(commander: &SlotCommander, channels: Vec<Channel>) {
    let ranked = slots().map(|slot| (slot, 1.0)).collect();
    commander.send(SlotCommand::Rank(ranked)).await.unwrap();
    for (slot, channel) in slots().zip(channels) {
        let worker = WorkerId { slot, generation: Generation(0) };
        commander.send(SlotCommand::Attach(worker, Box::new(channel))).await.unwrap();
        commander.send(SlotCommand::Serve(worker)).await.unwrap();
    }
    commander.send(SlotCommand::Accept).await.unwrap();
}

/// Has so many clients connect, and waits until all are acknowledged.
async fn connect(address: SocketAddr, clients: usize, commander: &SlotCommander) {
    for first in (0..clients).step_by(AT_ONCE) {
        let count = AT_ONCE.min(clients - first);
        let held: Vec<_> = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
        while commander.count().await.unwrap().acknowledged < (first + count) as u64 {
            tokio::task::yield_now().await;
        }
        drop(held);
    }
}

/// Runs a frontend for so many clients, and returns how often its thread has allocated.
fn allocations_for(clients: usize) -> u64 {
    let host = Some("127.0.0.1".to_owned());
    let listener = Listener::bind(&ListenerSettings { host, port: 0, backlog: 1024 }).unwrap();
    let address = listener.local();
    let (commander, _events, orders) = seam().unwrap();
    let (_handle, inquiries) = inquiries().unwrap();
    let (channels, workers): (Vec<_>, Vec<_>) =
        slots().map(|_| Channel::create(256).unwrap()).unzip();
    let frontend = thread::spawn(move || {
        let prefixes = Prefixes { v4: 32, v6: 64 };
        let affinity = Affinity::new(DigestKind::Md5, b"", prefixes);
        let router = Router::new(&RouterSettings {
            placement: Placement::Rendezvous,
            weights: vec![1.0; usize::from(SLOTS)],
            load_bound: None,
            memory_capacity: NonZeroUsize::MIN,
            memory_lifetime: Duration::from_secs(1),
        });
        let patience = Duration::from_secs(60);
        let slots =
            SlotTable::new(SlotSettings { stall_after: patience, slot_wait: patience, queue: 256 });
        let dispatcher =
            Dispatcher::new(listener, affinity, router, slots, 10_000, orders, inquiries).unwrap();
        allocation_counter::measure(|| dispatcher.run().unwrap()).count_total
    });
    let workers = workers.into_iter().map(|worker| thread::spawn(move || serve(&worker)));
    let workers: Vec<_> = workers.collect();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        begin(&commander, channels).await;
        connect(address, clients, &commander).await;
        commander.send(SlotCommand::End).await.unwrap();
    });
    let allocations = frontend.join().unwrap();
    // The primary's ends are gone with it.
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    allocations
}

#[test]
fn a_thousand_connections_allocate_no_more_than_one() {
    let (one, thousand) = (allocations_for(1), allocations_for(1_000));
    assert!(one > 0, "nothing was counted");
    assert_eq!(thousand, one);
}
