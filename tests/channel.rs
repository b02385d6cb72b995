//! The account of a channel: in any order of a worker's answers, and at any time of its death, every connection
//! is in one place, and in one only.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeSet, VecDeque};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use proptest::prelude::*;
use sticky_lb::internals::link::Link;
use sticky_lb::internals::link::connection::PendingConnection;
use sticky_lb::internals::link::event::LinkEvent;
use sticky_lb::internals::link::evidence::Evidence;
use sticky_lb::protocol::ids::{AffinityKey, ConnectionId, Timestamp};
use sticky_lb::protocol::message::{
    ConnectionRecord, HELLO, MAX_IDS, MAX_TO_WORKER, ToWorker, decode_to_worker, encode_refuse,
};
use sticky_lb::protocol::scm_rights::{Received, receive, send};
use sticky_lb::protocol::scoreboard::{Counter, Scoreboard};

/// Both ends of a channel, and where every connection is.
struct Model {
    channel: Link,
    worker: OwnedFd,
    scoreboard: Scoreboard,
    queue: VecDeque<PendingConnection>,
    /// The worker has received these and not completed them, in order.
    received: VecDeque<u64>,
    next: u64,
    acknowledged_by_worker: u64,
    acknowledged: u64,
    returned: BTreeSet<u64>,
    listener: TcpListener,
    clients: Vec<TcpStream>,
}

#[derive(Clone, Debug)]
enum Step {
    Send(u8),
    Receive,
    Acknowledge(u8),
    Refuse,
    Complete,
    TakeBack,
}

impl Model {
    fn new(credits: usize) -> Self {
        let (mut channel, mut inherit) = Link::native(credits).unwrap();
        let scoreboard = Scoreboard::open(inherit.descriptor("scoreboard").unwrap()).unwrap();
        let worker = inherit.take("channel").unwrap();
        send(&worker, &HELLO, &[]).unwrap();
        assert!(matches!(channel.receive(), Ok(LinkEvent::Attached)));
        Self {
            channel,
            worker,
            scoreboard,
            queue: VecDeque::new(),
            received: VecDeque::new(),
            next: 0,
            acknowledged_by_worker: 0,
            acknowledged: 0,
            returned: BTreeSet::new(),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            clients: Vec::new(),
        }
    }

    fn connection(&mut self) -> PendingConnection {
        self.clients.push(TcpStream::connect(self.listener.local_addr().unwrap()).unwrap());
        let (socket, client) = self.listener.accept().unwrap();
        let local = socket.local_addr().unwrap();
        let id = ConnectionId(self.next);
        self.next += 1;
        let (accepted_at, key) = (Timestamp(0), AffinityKey(0));
        let record = ConnectionRecord { id, accepted_at, key, client, local, tag: 0 };
        PendingConnection {
            record,
            socket: OwnedFd::from(socket).into(),
            crashes: 0,
            transfer: None,
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Send(count) => {
                for _ in 0..*count {
                    let connection = self.connection();
                    self.queue.push_back(connection);
                }
                self.channel.send_from(&mut self.queue, Timestamp(0)).unwrap();
            }
            Step::Receive => self.receive(),
            Step::Acknowledge(count) => {
                for _ in self.received.drain(..usize::from(*count).min(self.received.len())) {
                    self.scoreboard.increment(Counter::Completed);
                    self.acknowledged_by_worker += 1;
                }
            }
            Step::Refuse => {
                if let Some(id) = self.received.pop_front() {
                    let mut buffer = [0; MAX_IDS];
                    let refusal = encode_refuse(&mut buffer, [ConnectionId(id)].into_iter());
                    send(&self.worker, refusal, &[]).unwrap();
                    self.scoreboard.increment(Counter::Refused);
                    self.scoreboard.increment(Counter::Completed);
                }
            }
            Step::Complete => self.complete(),
            Step::TakeBack => {
                let taken = self.channel.take_back();
                self.give_back(taken);
            }
        }
    }

    /// As a worker: one message.
    fn receive(&mut self) {
        let (mut bytes, mut sockets) = ([0; MAX_TO_WORKER], Vec::new());
        if let Received::Message { length, .. } =
            receive(&self.worker, &mut bytes, &mut sockets).unwrap()
            && let ToWorker::Connections(records) = decode_to_worker(&bytes[..length]).unwrap()
        {
            assert_eq!(records.len(), sockets.len());
            self.received.extend(records.iter().map(|record| record.id.0));
        }
    }

    /// As the dispatcher: refusals first, where there are any.
    fn complete(&mut self) {
        loop {
            let mut acknowledged = Vec::new();
            match self.channel.complete(|one| acknowledged.push(one.record.id.0)).unwrap() {
                Some(count) => {
                    assert_eq!(count, acknowledged.len());
                    self.acknowledged += count as u64;
                    return;
                }
                None => match self.channel.receive().unwrap() {
                    LinkEvent::Refused(connections) => self.give_back(connections),
                    other => panic!("expected a refusal, got {other:?}"),
                },
            }
        }
    }

    fn give_back(&mut self, connections: Vec<PendingConnection>) {
        for connection in connections {
            assert!(self.returned.insert(connection.record.id.0), "given back twice");
        }
    }

    /// The worker dies; everything has to be accounted for.
    fn end(mut self) {
        drop(self.worker);
        self.returned.extend(self.queue.iter().map(|waiting| waiting.record.id.0));
        let recovered = self.channel.recover();
        for connection in recovered.untouched {
            assert!(self.returned.insert(connection.record.id.0), "given back twice");
        }
        for connection in recovered.in_flight {
            let PendingConnection { record, socket, .. } = &connection;
            let evidence = Evidence::of(socket, record.client, false);
            assert!(connection.is_untouched(&evidence), "nobody has read anything");
            assert!(self.returned.insert(record.id.0), "given back twice");
        }
        let acknowledged = self.acknowledged + recovered.acknowledged.len() as u64;
        assert_eq!(acknowledged, self.acknowledged_by_worker);
        assert_eq!(acknowledged + self.returned.len() as u64, self.next);
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..5_u8).prop_map(Step::Send),
        3 => Just(Step::Receive),
        2 => (1..6_u8).prop_map(Step::Acknowledge),
        1 => Just(Step::Refuse),
        2 => Just(Step::Complete),
        1 => Just(Step::TakeBack),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_connection_is_in_one_place(steps in steps(), credits in 1..20_usize) {
        let mut model = Model::new(credits);
        for step in &steps {
            model.apply(step);
            assert!(model.channel.in_flight().len() <= credits, "more than the credits are on their way");
        }
        model.end();
    }
}

#[test]
fn a_message_carries_no_more_than_it_may() {
    let mut model = Model::new(256);
    model.apply(&Step::Send(150));
    let mut messages = 0;
    while model.received.len() < 150 {
        model.receive();
        messages += 1;
    }
    assert_eq!(messages, 3);
    model.end();
}
