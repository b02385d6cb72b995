//! The hand-off, as a table that every dialect passes: with real sockets, and workers that are processes.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::link::event::SessionEvent;
use crate::link::evidence::Evidence;
use crate::link::node::ports::Rights;
use crate::link::node::settings::{HandOverBy, NodeSettings};
use crate::protocol::ids::{AffinityKey, Generation, SlotId};
use crate::protocol::message::ConnectionRecord;

mod worker;

use worker::Behaviour;

/// How long anything may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A dialect of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Native,
    /// To the server that its program has open.
    Node,
    /// By messages of its program.
    NodeByMessage,
}

/// Makes each test one of each dialect.
macro_rules! table {
    ($($test:ident),* $(,)?) => {
        mod native {
            $(#[test] fn $test() { super::$test(super::Kind::Native); })*
        }
        mod node {
            $(#[test] fn $test() { super::$test(super::Kind::Node); })*
        }
        mod node_by_message {
            $(#[test] fn $test() { super::$test(super::Kind::NodeByMessage); })*
        }
    };
}

table!(
    no_more_than_the_credits_are_on_their_way,
    connections_are_completed_in_order,
    refused_connections_come_back_and_others_are_acknowledged,
    a_worker_that_dies_costs_no_connection_that_it_has_not_used,
    connections_that_were_acknowledged_before_a_death_are_seen,
    a_connection_that_was_read_before_a_death_is_lost,
    a_stalled_worker_gives_back_what_it_has_not_received,
    a_worker_that_comes_back_gets_no_connection_twice_and_loses_none,
    a_worker_that_drains_completes_what_is_on_its_way,
);

/// A worker's process, which ends with its test.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A link, its worker's process, and the clients.
struct Harness {
    link: Link,
    worker: Worker,
    output: BufReader<std::process::ChildStdout>,
    listener: TcpListener,
    clients: Vec<TcpStream>,
    queue: VecDeque<PendingConnection>,
    acknowledged: Vec<u64>,
    refused: Vec<PendingConnection>,
}

impl Harness {
    /// A worker that is ready.
    fn start(kind: Kind, behaviour: Behaviour, credits: usize) -> Self {
        let (link, end, board) = match kind {
            Kind::Native => {
                let (link, mut inherit) = Link::native(credits).unwrap();
                let mut take = |name| inherit.take(name).unwrap();
                (link, take("channel"), take("scoreboard"))
            }
            Kind::Node | Kind::NodeByMessage => {
                let (link, mut inherit) = Link::start(&facts(kind, credits)).unwrap();
                let none = std::fs::File::open("/dev/null").unwrap();
                (link, inherit.take("node-channel").unwrap(), none.into())
            }
        };
        let mut worker = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "link::tests::worker::process", "--nocapture"])
            .env(worker::ROLE, format!("{kind:?} {behaviour:?}"))
            .stdin(end)
            .stdout(Stdio::piped())
            .stderr(board)
            .spawn()
            .unwrap();
        let output = BufReader::new(worker.stdout.take().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (clients, queue, acknowledged) = (Vec::new(), VecDeque::new(), Vec::new());
        let refused = Vec::new();
        let mut harness = Self {
            link,
            worker: Worker(worker),
            output,
            listener,
            clients,
            queue,
            acknowledged,
            refused,
        };
        loop {
            match harness.next_event() {
                LinkEvent::Attached
                | LinkEvent::Pong
                | LinkEvent::Session(SessionEvent::Ignored) => {}
                LinkEvent::Ready => return harness,
                other => panic!("{other:?}"),
            }
        }
    }

    fn next_event(&mut self) -> LinkEvent {
        loop {
            self.link.send_outgoing().unwrap();
            match self.link.receive().unwrap() {
                LinkEvent::Nothing => {
                    let mut polled = [PollFd::from_borrowed_fd(self.link.as_fd(), PollFlags::IN)];
                    let timeout = Timespec::try_from(TIMEOUT).unwrap();
                    assert_eq!(poll(&mut polled, Some(&timeout)), Ok(1), "the worker is silent");
                }
                event => return event,
            }
        }
    }

    /// So many clients wait for the worker.
    fn connect(&mut self, count: usize) {
        for _ in 0..count {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let (socket, address) = self.listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            self.clients.push(client);
            let record = ConnectionRecord {
                id: ConnectionId(self.clients.len() as u64),
                accepted_at: Timestamp::now(),
                key: AffinityKey(7),
                client: address,
                local: address,
                tag: 7,
            };
            let (socket, crashes, transfer) = (OwnedFd::from(socket).into(), 0, None);
            self.queue.push_back(PendingConnection { record, socket, crashes, transfer });
        }
    }

    fn send(&mut self) {
        self.link.send_from(&mut self.queue, Timestamp::now()).unwrap();
        self.link.send_outgoing().unwrap();
    }

    /// Sends, receives and completes until `done`.
    fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let start = SystemTime::now();
        while !done(self) {
            assert!(start.elapsed().unwrap() < TIMEOUT, "{:?}", self.link);
            self.send();
            self.receive();
            assert!(self.link.in_flight().len() <= self.link.in_flight().credits());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn receive(&mut self) {
        loop {
            match self.link.receive().unwrap() {
                LinkEvent::Refused(connections) => self.refused.extend(connections),
                LinkEvent::Acknowledged(_)
                | LinkEvent::Pong
                | LinkEvent::Session(SessionEvent::Ignored) => {}
                LinkEvent::Nothing => break,
                other => panic!("{other:?}"),
            }
        }
        let acknowledged = &mut self.acknowledged;
        // With a refusal that is still to be read, there is a next time.
        self.link.complete(|one| acknowledged.push(one.record.id.0)).unwrap();
    }

    /// Waits until the worker has printed this.
    fn wait_for_output(&mut self, expected: &str) {
        let mut line = String::new();
        while !line.contains(expected) {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the worker has ended");
        }
    }

    /// The worker ends; returns what it leaves.
    fn wait_for_death(mut self) -> (Recovered, Vec<TcpStream>) {
        self.worker.0.wait().unwrap();
        (self.link.recover(), self.clients)
    }

    fn kill(mut self) -> (Recovered, Vec<TcpStream>) {
        self.worker.0.kill().unwrap();
        self.wait_for_death()
    }
}

/// A Node worker that ends when it gets a message.
fn facts(kind: Kind, credits: usize) -> WorkerFacts {
    let hand_over_by = match kind {
        Kind::NodeByMessage => HandOverBy::Message("\"take\"".to_owned()),
        _ => HandOverBy::Listening,
    };
    let shutdown_message = Some("\"shutdown\"".to_owned());
    let node = NodeSettings { hand_over_by, shutdown_message, ..NodeSettings::default() };
    WorkerFacts {
        worker: WorkerId { slot: SlotId(0), generation: Generation(0) },
        credits,
        orphan_timeout: TIMEOUT,
        kill_timeout: TIMEOUT,
        migrate_timeout: TIMEOUT,
        protect: false,
        interface: InterfaceChoice::Only(Interface::Node),
        rights: Rights::default(),
        port: worker::PORT,
        node: Arc::new(node),
    }
}

fn ids<'a>(connections: impl IntoIterator<Item = &'a PendingConnection>) -> Vec<u64> {
    connections.into_iter().map(|one| one.record.id.0).collect()
}

fn is_untouched(connection: &PendingConnection) -> bool {
    let PendingConnection { record, socket, transfer, .. } = connection;
    connection.is_untouched(&Evidence::of(socket, record.client, transfer.is_some()))
}

/// What the worker has not used, and what it has.
fn sorted(recovered: Recovered) -> (Vec<u64>, Vec<u64>) {
    let (untouched, used): (Vec<_>, Vec<_>) =
        recovered.in_flight.into_iter().partition(is_untouched);
    (ids(recovered.untouched.iter().chain(&untouched)), ids(&used))
}

fn no_more_than_the_credits_are_on_their_way(kind: Kind) {
    let mut harness = Harness::start(kind, Behaviour::NeverReceives, 4);
    harness.connect(10);
    harness.send();
    harness.send();
    assert_eq!((harness.link.in_flight().len(), harness.queue.len()), (4, 6));
    assert_eq!(harness.link.load(), 4);
    assert_eq!(ids(&harness.kill().0.untouched), [1, 2, 3, 4]);
}

fn connections_are_completed_in_order(kind: Kind) {
    let mut harness = Harness::start(kind, Behaviour::Acknowledges, 16);
    harness.connect(100);
    harness.run_until(|it| it.acknowledged.len() == 100);
    assert!(harness.acknowledged.iter().copied().eq(1..=100));
    assert!(harness.link.in_flight().is_empty());
    assert_eq!(harness.link.in_flight().counts().acknowledged, 100);
}

fn refused_connections_come_back_and_others_are_acknowledged(kind: Kind) {
    let mut harness = Harness::start(kind, Behaviour::RefusesOdd, 8);
    harness.connect(20);
    harness.run_until(|it| it.acknowledged.len() + it.refused.len() == 20);
    assert!(harness.acknowledged.iter().copied().eq((2..=20).step_by(2)));
    assert_eq!(ids(&harness.refused), (1..=20).step_by(2).collect::<Vec<_>>());
    assert!(harness.refused.iter().all(is_untouched));
    harness.run_until(|it| it.link.in_flight().is_empty());
    assert_eq!(harness.link.in_flight().counts().refused, 10);
}

fn a_worker_that_dies_costs_no_connection_that_it_has_not_used(kind: Kind) {
    let mut harness = Harness::start(kind, Behaviour::ReceivesAndDies, 10);
    harness.connect(10);
    harness.clients.iter_mut().for_each(|client| client.write_all(b"unread").unwrap());
    harness.send();
    let (recovered, _clients) = harness.wait_for_death();
    assert!(recovered.acknowledged.is_empty());
    let (mut untouched, used) = sorted(recovered);
    untouched.sort_unstable();
    assert!(untouched.into_iter().eq(1..=10));
    assert!(used.is_empty(), "{used:?}");
}

fn connections_that_were_acknowledged_before_a_death_are_seen(kind: Kind) {
    let mut harness = Harness::start(kind, Behaviour::AcknowledgesThreeAndDies, 10);
    harness.connect(10);
    harness.send();
    let (recovered, _clients) = harness.wait_for_death();
    assert_eq!(ids(&recovered.acknowledged), [1, 2, 3]);
    let (untouched, used) = sorted(recovered);
    assert_eq!((untouched.len(), used.len()), (7, 0));
}

fn a_connection_that_was_read_before_a_death_is_lost(kind: Kind) {
    let mut harness = Harness::start(kind, Behaviour::ReadsAndDies, 10);
    harness.connect(3);
    harness.clients[0].write_all(b"read").unwrap();
    harness.send();
    let (recovered, _clients) = harness.wait_for_death();
    let (untouched, used) = sorted(recovered);
    assert_eq!((untouched.len(), used), (2, vec![1]));
}

fn a_stalled_worker_gives_back_what_it_has_not_received(kind: Kind) {
    let mut harness = Harness::start(kind, Behaviour::NeverReceives, 10);
    assert_eq!(harness.link.waiting(Timestamp::now()), None);
    harness.connect(5);
    harness.send();
    let later = Timestamp::now() + Duration::from_secs(1);
    assert!(harness.link.waiting(later) >= Some(Duration::from_secs(1)));
    assert_eq!(ids(&harness.link.take_back()), [1, 2, 3, 4, 5]);
    assert!(harness.link.in_flight().is_empty() && !harness.link.has_outgoing());
    let (recovered, _clients) = harness.kill();
    assert_eq!((recovered.untouched.len(), recovered.in_flight.len()), (0, 0));
}

fn a_worker_that_comes_back_gets_no_connection_twice_and_loses_none(kind: Kind) {
    let mut harness = Harness::start(kind, Behaviour::StopsAfterOne, 10);
    harness.connect(1);
    harness.send();
    harness.connect(9);
    harness.send();
    harness.wait_for_output("stops");
    let taken = harness.link.take_back();
    assert!(harness.link.in_flight().contains(ConnectionId(1)), "the worker has received it");
    assert!(taken.len() >= 8, "only {:?} came back", ids(&taken));
    assert_eq!(taken.len() + harness.link.in_flight().len(), 10);
    harness.queue.extend(taken);
    harness.clients[0].write_all(b"g").unwrap();
    harness.run_until(|it| it.acknowledged.len() == 10);
    assert!(harness.acknowledged.iter().copied().eq(1..=10), "{:?}", harness.acknowledged);
}

fn a_worker_that_drains_completes_what_is_on_its_way(kind: Kind) {
    use crate::protocol::drain::{DrainMode, DrainReason};
    let mut harness = Harness::start(kind, Behaviour::Acknowledges, 10);
    harness.connect(10);
    harness.send();
    let (mode, reason, window) = (DrainMode::Wait, DrainReason::Restart, TIMEOUT);
    harness.link.drain(DrainOrder { mode, reason, window });
    harness.link.send_outgoing().unwrap();
    harness.run_until(|it| it.acknowledged.len() == 10);
    let (recovered, _clients) = harness.wait_for_death();
    assert_eq!((recovered.untouched.len(), recovered.in_flight.len()), (0, 0));
}
