//! One frontend follows another, with workers that are played by hand: after an upgrade, which leaves
//! everything, and after a crash, which leaves what somebody has kept. Nobody is lost but who must be,
//! and each session has one owner.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod crashed;
mod handed_over;
mod load;
mod open_offers;
mod walk;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use common::client::{connect_from, nth};
use common::fake_worker::FakeWorker;
use common::frontend::{Ended, Frontend, listener};
use sticky_lb::internals::frontend::dispatcher::Dispatcher;
use sticky_lb::internals::frontend::listener::Listener;
use sticky_lb::internals::frontend::query::{Client, FrontendFacts};
use sticky_lb::internals::frontend::shared_counters::SharedCounters;
use sticky_lb::internals::frontend::snapshot::FrontendHandover;
use sticky_lb::internals::handover::descriptors::{Descriptors, WorkerPart};
use sticky_lb::internals::handover::{decode, encode};
use sticky_lb::internals::link::inherit::AdoptedFacts;
use sticky_lb::internals::link::seam::{Counters, SlotCommand, SlotEvent, SlotEventKind, WorkerId};
use sticky_lb::internals::link::snapshot::workers;
use sticky_lb::internals::link::{Attached, Link};
use sticky_lb::internals::sessions::close_requests::PaceSettings;
use sticky_lb::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use sticky_lb::protocol::ids::{Generation, SlotId};
use sticky_lb::protocol::message::{ConnectionRecord, HELLO, READY, SESSIONS};

pub(crate) type Running = Frontend<Ended>;

pub(crate) const ORDER: DrainOrder = DrainOrder {
    mode: DrainMode::Migrate,
    reason: DrainReason::Restart,
    window: Duration::from_secs(10),
};

/// Patient enough for a busy machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(10);

/// So many connections may be on their way to a worker.
pub(crate) const CREDITS: usize = 256;

pub(crate) fn worker(slot: u16, generation: u32) -> WorkerId {
    WorkerId { slot: SlotId(slot), generation: Generation(generation) }
}

/// One frontend after the other, whoever keeps copies for them, and the supervisor's knowledge.
pub(crate) struct Harness {
    pub(crate) frontend: Running,
    listener: OwnedFd,
    counters: OwnedFd,
    /// Of each worker: its channel, its own end, its scoreboard.
    kept: BTreeMap<WorkerId, Vec<(String, OwnedFd)>>,
    serving: BTreeMap<SlotId, WorkerId>,
    slots: u16,
    patience: Duration,
}

impl Harness {
    /// The first frontend, with so many slots and nobody in them.
    pub(crate) async fn new(slots: u16, patience: Duration) -> Self {
        let listener = listener();
        let (page, counters) = SharedCounters::create().unwrap();
        let copy = listener.as_fd().try_clone_to_owned().unwrap();
        let before = FrontendHandover::from(listener).with_page(page);
        let stage = Self {
            frontend: run(before, slots, patience),
            listener: copy,
            counters,
            kept: BTreeMap::new(),
            serving: BTreeMap::new(),
            slots,
            patience,
        };
        stage.rank().await;
        stage.order(SlotCommand::Accept).await;
        stage
    }

    async fn rank(&self) {
        let ranked = (0..self.slots).map(|slot| (SlotId(slot), 1.0)).collect();
        self.order(SlotCommand::Rank(ranked)).await;
    }

    /// Gives an order, and waits until it is carried out.
    pub(crate) async fn order(&self, command: SlotCommand) {
        self.frontend.commander.send(command).await.unwrap();
        self.count().await;
    }

    pub(crate) async fn count(&self) -> Counters {
        self.frontend.commander.count().await.unwrap()
    }

    pub(crate) async fn facts(&self) -> FrontendFacts {
        self.frontend.handle.facts().await.unwrap()
    }

    /// A worker that has said nothing yet.
    pub(crate) async fn attach(&mut self, id: WorkerId) -> FakeWorker {
        let (mover, channel) = FakeWorker::alone(id);
        self.take_in(id, channel).await;
        mover
    }

    pub(crate) async fn take_in(&mut self, id: WorkerId, channel: Link) {
        let copies = channel.descriptors();
        let copy = |(part, fd): (WorkerPart, BorrowedFd<'_>)| {
            (part.name(id), fd.try_clone_to_owned().unwrap())
        };
        self.kept.insert(id, copies.into_iter().map(copy).collect());
        self.order(SlotCommand::Attach(id, Box::new(channel.into()))).await;
    }

    /// A worker that serves its slot from now on.
    pub(crate) async fn start_worker(&mut self, id: WorkerId, takes_sessions: bool) -> FakeWorker {
        let mover = self.attach(id).await;
        mover.say(&HELLO);
        if takes_sessions {
            mover.say(&SESSIONS);
        }
        mover.say(&READY);
        self.is_ready(id).await;
        self.serve(id).await;
        mover
    }

    pub(crate) async fn is_ready(&mut self, id: WorkerId) {
        while !matches!(
            self.frontend.event().await,
            SlotEvent { worker, kind: SlotEventKind::Ready } if worker == id
        ) {}
    }

    pub(crate) async fn serve(&mut self, id: WorkerId) {
        self.serving.insert(id.slot, id);
        self.order(SlotCommand::Serve(id)).await;
    }

    pub(crate) async fn drain(&mut self, id: WorkerId) {
        self.serving.retain(|_, serving| *serving != id);
        self.order(SlotCommand::Drain(id, ORDER)).await;
    }

    /// A worker has died.
    pub(crate) async fn gone(&mut self, id: WorkerId) {
        self.bury(id);
        self.order(SlotCommand::Gone(id)).await;
    }

    /// The same, of which the frontend hears later.
    pub(crate) fn bury(&mut self, id: WorkerId) {
        self.serving.retain(|_, serving| *serving != id);
    }

    /// An upgrade: everything is written down, read and taken up.
    pub(crate) async fn hand_over(&mut self) {
        let mut before = self.let_go().await;
        let channels = before.take_channels();
        self.succeed(before, channels).await;
    }

    /// The first half of that.
    pub(crate) async fn let_go(&mut self) -> FrontendHandover {
        let nobody = run(listener().into(), 0, self.patience);
        let frontend = std::mem::replace(&mut self.frontend, nobody);
        let ended = frontend.end_by(SlotCommand::HandOver).await;
        let mut descriptors = Descriptors::default();
        let snapshot = ended.unwrap().unwrap().into_snapshot(&mut descriptors);
        let snapshot = decode(&encode(&snapshot).unwrap()).unwrap();
        let handover = FrontendHandover::restore(snapshot, &mut descriptors).unwrap();
        assert!(descriptors.is_empty(), "{descriptors:?} belong to nothing");
        handover
    }

    /// A crash, and another primary that has nothing but copies of descriptors. Of the workers that it
    /// is to find, some may be dead.
    pub(crate) async fn crash(&mut self, found: &[WorkerId]) {
        let nobody = run(listener().into(), 0, self.patience);
        let frontend = std::mem::replace(&mut self.frontend, nobody);
        assert!(frontend.end_by(SlotCommand::End).await.unwrap().is_none());
        let copy = |fd: &OwnedFd| fd.try_clone().unwrap();
        let listener = Listener::inherited(copy(&self.listener), 1024).unwrap();
        let page = SharedCounters::open(copy(&self.counters)).unwrap();
        let mut descriptors = Descriptors::default();
        for (name, fd) in found.iter().flat_map(|worker| &self.kept[worker]) {
            descriptors.insert(name.clone(), copy(fd));
        }
        assert_eq!(workers(&descriptors).len(), found.len());
        let facts = AdoptedFacts { credits: CREDITS, ..AdoptedFacts::default() };
        let adopt = |worker: &WorkerId| {
            (*worker, Link::adopt(&facts, *worker, &mut descriptors).unwrap().into())
        };
        let channels = found.iter().map(adopt).collect();
        self.succeed(FrontendHandover::after_crash(listener, page), channels).await;
    }

    /// As the supervisor does it.
    pub(crate) async fn succeed(
        &mut self,
        before: FrontendHandover,
        channels: Vec<(WorkerId, Attached)>,
    ) {
        let nobody = std::mem::replace(&mut self.frontend, run(before, self.slots, self.patience));
        nobody.end().await.unwrap();
        self.rank().await;
        for (worker, channel) in channels {
            self.order(SlotCommand::Attach(worker, Box::new(channel))).await;
        }
        for worker in self.serving.values() {
            self.order(SlotCommand::Serve(*worker)).await;
        }
        self.order(SlotCommand::Accept).await;
    }

    /// The nth client that belongs to a slot.
    pub(crate) async fn nth_of(&self, slot: u16, nth_of_all: u16) -> std::net::IpAddr {
        let mut left = nth_of_all;
        for address in (0..).map(nth) {
            let told = self.frontend.handle.explain(Client::Address(address)).await.unwrap();
            if told.ranking[0].slot == SlotId(slot) {
                if left == 0 {
                    return address;
                }
                left -= 1;
            }
        }
        unreachable!("every slot has clients")
    }

    /// A client of a slot has connected.
    pub(crate) async fn connect(&self, slot: u16, nth_of_all: u16) -> TcpStream {
        let address = self.nth_of(slot, nth_of_all).await;
        connect_from(address, self.frontend.address).unwrap()
    }

    /// The same, and its worker has acknowledged it.
    pub(crate) async fn client(
        &self,
        mover: &mut FakeWorker,
        nth_of_all: u16,
    ) -> (TcpStream, ConnectionRecord, OwnedFd) {
        let client = self.connect(mover.id.slot.0, nth_of_all).await;
        let (record, socket) = mover.take_client();
        (client, record, socket)
    }

    /// Waits until what is counted is so.
    pub(crate) async fn counts(&self, what: &str, is_so: impl Fn(&Counters) -> bool) {
        let start = SystemTime::now();
        loop {
            let counters = self.count().await;
            if is_so(&counters) {
                return;
            }
            assert!(start.elapsed().unwrap() < common::TIMEOUT, "{what}: {counters:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) async fn end(self) {
        assert!(self.frontend.end().await.unwrap().is_none());
    }
}

fn run(before: FrontendHandover, slots: u16, patience: Duration) -> Running {
    Frontend::start_from(before, slots, patience, PaceSettings::default(), Dispatcher::run)
}

/// Both ends of one and the same connection.
pub(crate) fn are_connected(client: &mut TcpStream, socket: OwnedFd) {
    let mut server = TcpStream::from(socket);
    server.set_nonblocking(false).unwrap();
    client.write_all(b"ping").unwrap();
    let mut bytes = [0; 4];
    server.read_exact(&mut bytes).unwrap();
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"pong");
}
