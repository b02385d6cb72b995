//! Sessions on their way through the primary, between workers that are played by hand: each has one
//! end, and its sender is told which.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checkpoint;
#[path = "../common/mod.rs"]
mod common;
mod offers;
mod paced;
mod survival;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use common::client::{connect_from, ends_within, nth};
use common::fake_worker::{FakeWorker, FromPrimary, parcel_file, sealed};
use common::frontend::{Ended, Frontend};
use sticky_lb::internals::frontend::dispatcher::Dispatcher;
use sticky_lb::internals::frontend::query::{Client, FrontendFacts};
use sticky_lb::internals::link::seam::{SlotCommand, WorkerId};
use sticky_lb::internals::sessions::close_requests::PaceSettings;
use sticky_lb::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use sticky_lb::protocol::ids::{Generation, SlotId};
use sticky_lb::protocol::message::ConnectionRecord;

pub(crate) type Running = Frontend<Ended>;

pub(crate) const ORDER: DrainOrder = DrainOrder {
    mode: DrainMode::Migrate,
    reason: DrainReason::Restart,
    window: Duration::from_secs(10),
};

/// Patient enough for a busy machine.
const PATIENT: Duration = Duration::from_secs(10);

pub(crate) fn worker(slot: u16, generation: u32) -> WorkerId {
    WorkerId { slot: SlotId(slot), generation: Generation(generation) }
}

/// A frontend with so many slots and nobody in them.
pub(crate) async fn frontend(slots: u16, patience: Duration, pace: PaceSettings) -> Running {
    let frontend = Frontend::start_with(slots, patience, pace, Dispatcher::run);
    let ranked = (0..slots).map(|slot| (SlotId(slot), 1.0)).collect();
    order(&frontend, SlotCommand::Rank(ranked)).await;
    order(&frontend, SlotCommand::Accept).await;
    frontend
}

/// Gives an order, and waits until it is carried out.
pub(crate) async fn order(frontend: &Running, command: SlotCommand) {
    frontend.commander.send(command).await.unwrap();
    frontend.commander.count().await.unwrap();
}

/// A client of a slot that its worker, who serves, has taken.
pub(crate) async fn client(
    frontend: &Running,
    mover: &mut FakeWorker,
    nth_of_all: u16,
) -> (TcpStream, ConnectionRecord, OwnedFd) {
    let slot = mover.id.slot;
    for address in (256 * nth_of_all..).map(nth) {
        let whereabouts = frontend.handle.explain(Client::Address(address)).await.unwrap();
        if whereabouts.ranking[0].slot == slot {
            let client = connect_from(address, frontend.address).unwrap();
            let (record, socket) = mover.take_client();
            return (client, record, socket);
        }
    }
    unreachable!("every slot has clients")
}

pub(crate) async fn facts(frontend: &Running) -> FrontendFacts {
    frontend.handle.facts().await.unwrap()
}

/// What became of sessions: moved, returned, lost.
pub(crate) async fn ends(frontend: &Running) -> (u64, u64, u64) {
    let counters = frontend.commander.count().await.unwrap();
    (counters.moved, counters.returned, counters.sessions_lost)
}

/// Waits until that became of sessions.
pub(crate) async fn ends_as(frontend: &Running, expected: (u64, u64, u64)) {
    let start = SystemTime::now();
    while ends(frontend).await != expected {
        let ends = ends(frontend).await;
        assert!(start.elapsed().unwrap() < common::TIMEOUT, "{ends:?} and not {expected:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
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

/// Slot 0 has changed hands: an old worker that drains, its client, and its successor.
async fn deploy(
    frontend: &mut Running,
) -> (FakeWorker, (TcpStream, ConnectionRecord, OwnedFd), FakeWorker) {
    let mut old = FakeWorker::serve(frontend, worker(0, 0), true).await;
    let session = client(frontend, &mut old, 0).await;
    let new = FakeWorker::serve(frontend, worker(0, 1), true).await;
    order(frontend, SlotCommand::Drain(worker(0, 0), ORDER)).await;
    assert!(matches!(old.receive(), FromPrimary::Drain(order) if order == ORDER));
    (old, session, new)
}

#[tokio::test]
async fn a_session_moves_to_the_successor_and_disturbs_no_account() {
    let mut frontend = frontend(2, PATIENT, PaceSettings::default()).await;
    let _other = FakeWorker::serve(&mut frontend, worker(1, 0), true).await;
    let (mut old, (mut client, record, socket), mut new) = deploy(&mut frontend).await;
    let before = facts(&frontend).await;
    client.write_all(b"unread").unwrap();
    old.offer(&record, &socket, b"state");
    let (moved, arrived, image) = new.receive_session();
    assert_eq!((moved, &image[..]), (record, &b"state"[..]));
    assert_eq!(facts(&frontend).await.sessions_waiting, 1);
    new.settle(1);
    assert_eq!(old.answers(1), (vec![record.id.0], vec![]));
    drop(socket);
    let mut server = TcpStream::from(arrived.try_clone().unwrap());
    server.set_nonblocking(false).unwrap();
    let mut unread = [0; 6];
    server.read_exact(&mut unread).unwrap();
    assert_eq!(&unread, b"unread");
    are_connected(&mut client, arrived);

    let after = facts(&frontend).await;
    assert_eq!((after.counters.moved, after.sessions_waiting, after.waiting), (1, 0, 0));
    assert_eq!(after.counters.acknowledged, before.counters.acknowledged);
    assert_eq!(after.counters.redispatched, 0);
    let slots =
        |facts: &FrontendFacts| facts.slots.iter().map(|s| s.handed_off).collect::<Vec<_>>();
    assert_eq!(slots(&after), slots(&before));
    let taken: Vec<_> = after.slots.iter().map(|slot| slot.sessions_taken).collect();
    assert_eq!((taken, after.handoff_times), (vec![1, 0], before.handoff_times));
    drop(server);
    assert!(ends_within(&mut client, PATIENT), "somebody keeps a copy");
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_has_just_got_a_session_may_offer_it_at_once() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let (mut old, (mut client, record, mut socket), mut new) = deploy(&mut frontend).await;
    for generation in 2..40 {
        old.offer(&record, &socket, b"state");
        socket = new.receive_session().1;
        let last = std::mem::replace(
            &mut new,
            FakeWorker::serve(&mut frontend, worker(0, generation), true).await,
        );
        // It is its own from here on, whether or not the primary has seen that yet.
        last.settle(1);
        last.offer(&record, &socket, b"state");
        assert_eq!(old.answers(1), (vec![record.id.0], vec![]));
        old = last;
        socket = new.receive_session().1;
        new.settle(1);
        assert_eq!(old.answers(1), (vec![record.id.0], vec![]));
        old = std::mem::replace(
            &mut new,
            FakeWorker::serve(&mut frontend, worker(0, generation + 100), true).await,
        );
    }
    are_connected(&mut client, socket);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn a_long_parcel_arrives_as_it_is() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let (mut old, (_client, record, socket), mut new) = deploy(&mut frontend).await;
    let bytes: Vec<u8> = (0..=250).cycle().take(16 << 20).collect();
    old.offer_file(&record, &socket, &parcel_file(&bytes, sealed()));
    let (_, _, image) = new.receive_session();
    assert!(image == bytes, "another image");
    new.settle(1);
    assert_eq!(old.answers(1).0, [record.id.0]);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn clients_and_sessions_stand_in_one_queue() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let mut old = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let mut sessions = Vec::new();
    for n in 0..20 {
        sessions.push(client(&frontend, &mut old, n).await);
    }
    let mut new = FakeWorker::serve(&mut frontend, worker(0, 1), true).await;
    let mut newcomers = Vec::new();
    for (_, record, socket) in &sessions {
        old.offer(record, socket, &[7; 16_384]);
        newcomers.push(connect_from(nth(9), frontend.address).unwrap());
    }
    let (mut moved, mut came) = (Vec::new(), 0);
    for _ in 0..40 {
        match new.receive() {
            FromPrimary::Session(record, ..) => moved.push(record.id.0),
            FromPrimary::Client(..) => came += 1,
            other => panic!("{other:?}"),
        }
        new.settle(1);
    }
    assert_eq!((moved.len(), came), (20, 20));
    assert_eq!(old.answers(20), (moved, vec![]));
    assert_eq!(facts(&frontend).await.counters.acknowledged, 40);
    frontend.end().await.unwrap();
}

/// Waits until a session waits for slot 0, which may have to be proven first.
async fn is_queued(frontend: &Running) {
    let start = SystemTime::now();
    while facts(frontend).await.slots[0].queued != 1 {
        assert!(start.elapsed().unwrap() < PATIENT, "nothing is queued");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_refused_session_goes_on_and_after_three_refusals_back() {
    let mut frontend = frontend(4, PATIENT, PaceSettings::default()).await;
    let mut others = Vec::new();
    for slot in 1..4 {
        others.push(FakeWorker::serve(&mut frontend, worker(slot, 0), true).await);
    }
    let (mut old, (mut client, record, socket), mut new) = deploy(&mut frontend).await;
    old.offer(&record, &socket, b"");
    new.receive_session();
    new.refuse(record.id);
    let mut asked = 0;
    while asked < 2 {
        for other in &mut others {
            if let Some(heard) = other.receive_within(Duration::from_millis(10)) {
                assert!(matches!(heard, FromPrimary::Session(..)));
                other.refuse(record.id);
                asked += 1;
            }
        }
    }
    assert_eq!(old.answers(1), (vec![], vec![record.id.0]));
    are_connected(&mut client, socket);
    let counters = frontend.commander.count().await.unwrap();
    assert_eq!((counters.refused, counters.redispatched, counters.returned), (0, 0, 1));
    assert_eq!(facts(&frontend).await.sessions_waiting, 0);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn a_taker_that_dies_is_followed_by_the_next() {
    let mut frontend = frontend(2, PATIENT, PaceSettings::default()).await;
    let mut other = FakeWorker::serve(&mut frontend, worker(1, 0), true).await;
    let (mut old, (mut client, record, socket), mut new) = deploy(&mut frontend).await;
    old.offer(&record, &socket, b"state");
    new.receive_session();
    drop(new);
    order(&frontend, SlotCommand::Gone(worker(0, 1))).await;
    let (_, arrived, image) = other.receive_session();
    assert_eq!(image, b"state");
    other.settle(1);
    assert_eq!(old.answers(1).0, [record.id.0]);
    are_connected(&mut client, arrived);
    // It is not at home, and its client's next connection goes there, too.
    let told = frontend.handle.explain(Client::Address(record.client.ip())).await.unwrap();
    assert_eq!(told.target, Some(SlotId(1)));
    frontend.end().await.unwrap();
}

/// What it was told by an older worker proves nothing: its client comes again.
#[tokio::test]
async fn one_whose_use_is_not_known_ends_with_its_taker() {
    let mut frontend = frontend(2, PATIENT, PaceSettings::default()).await;
    let _other = FakeWorker::serve(&mut frontend, worker(1, 0), true).await;
    let (mut old, (mut client, record, socket), mut new) = deploy(&mut frontend).await;
    old.offer_without_progress(&record, &socket);
    new.receive_session();
    drop((socket, new));
    order(&frontend, SlotCommand::Gone(worker(0, 1))).await;
    assert_eq!(old.answers(1).0, [record.id.0]);
    assert_eq!(ends(&frontend).await, (0, 0, 1));
    assert!(ends_within(&mut client, PATIENT));
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn a_session_whose_sender_is_dead_waits_for_the_successor() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let mut old = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let (mut client, record, socket) = client(&frontend, &mut old, 0).await;
    let mut new = FakeWorker::serve(&mut frontend, worker(0, 1), true).await;
    old.offer(&record, &socket, b"state");
    new.receive_session();
    drop((old, socket, new));
    order(&frontend, SlotCommand::Gone(worker(0, 0))).await;
    order(&frontend, SlotCommand::Gone(worker(0, 1))).await;
    is_queued(&frontend).await;
    let mut last = FakeWorker::serve(&mut frontend, worker(0, 2), true).await;
    let (_, arrived, image) = last.receive_session();
    assert_eq!(image, b"state");
    last.settle(1);
    ends_as(&frontend, (1, 0, 0)).await;
    are_connected(&mut client, arrived);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn what_a_worker_offered_before_it_died_is_not_lost() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let mut old = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let (mut client, record, socket) = client(&frontend, &mut old, 0).await;
    let mut new = FakeWorker::serve(&mut frontend, worker(0, 1), true).await;
    // The order may well be carried out before the offer is read.
    frontend.commander.send(SlotCommand::Ping(worker(0, 1))).await.unwrap();
    old.offer(&record, &socket, b"state");
    frontend.commander.send(SlotCommand::Gone(worker(0, 0))).await.unwrap();
    drop((old, socket));
    let (_, arrived, _) = new.receive_session();
    new.settle(1);
    ends_as(&frontend, (1, 0, 0)).await;
    are_connected(&mut client, arrived);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn with_no_worker_left_a_session_is_closed_and_counted() {
    let mut frontend = frontend(1, Duration::from_millis(100), PaceSettings::default()).await;
    let (old, (mut client, record, socket), mut new) = deploy(&mut frontend).await;
    old.offer(&record, &socket, b"");
    new.receive_session();
    drop((old, socket, new));
    order(&frontend, SlotCommand::Gone(worker(0, 0))).await;
    order(&frontend, SlotCommand::Gone(worker(0, 1))).await;
    ends_as(&frontend, (0, 0, 1)).await;
    assert!(ends_within(&mut client, PATIENT));
    assert_eq!(facts(&frontend).await.sessions_waiting, 0);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn a_session_that_a_dead_taker_has_read_from_goes_nowhere() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let (mut old, (mut client, record, socket), mut new) = deploy(&mut frontend).await;
    client.write_all(b"for one only").unwrap();
    old.offer(&record, &socket, b"");
    let (_, arrived, _) = new.receive_session();
    let mut server = TcpStream::from(arrived);
    server.set_nonblocking(false).unwrap();
    server.read_exact(&mut [0; 3]).unwrap();
    drop((server, new));
    order(&frontend, SlotCommand::Gone(worker(0, 1))).await;
    assert_eq!(old.answers(1), (vec![record.id.0], vec![]), "it cannot go on with it either");
    assert_eq!(ends(&frontend).await, (0, 0, 1));
    drop(socket);
    assert!(ends_within(&mut client, PATIENT));
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn a_taker_that_stalls_loses_what_it_has_not_received() {
    let mut frontend = frontend(2, Duration::from_millis(200), PaceSettings::default()).await;
    let mut other = FakeWorker::serve(&mut frontend, worker(1, 0), true).await;
    let (mut old, (_client, record, socket), _stopped) = deploy(&mut frontend).await;
    old.offer(&record, &socket, b"state");
    assert_eq!(other.receive_session().2, b"state");
    other.settle(1);
    assert_eq!(old.answers(1).0, [record.id.0]);
    assert_eq!(ends(&frontend).await, (1, 0, 0));
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn with_no_taker_it_goes_back_at_once() {
    let mut frontend = frontend(2, PATIENT, PaceSettings::default()).await;
    let mut old = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let _plain = FakeWorker::serve(&mut frontend, worker(1, 0), false).await;
    let (mut client, record, socket) = client(&frontend, &mut old, 0).await;
    // At home, and nobody drains.
    old.offer(&record, &socket, b"");
    assert_eq!(old.answers(1), (vec![], vec![record.id.0]));
    order(&frontend, SlotCommand::Drain(worker(0, 0), ORDER)).await;
    assert!(matches!(old.receive(), FromPrimary::Drain(_)));
    old.offer(&record, &socket, b"");
    assert_eq!(old.answers(1), (vec![], vec![record.id.0]));
    let _successor = FakeWorker::serve(&mut frontend, worker(0, 1), false).await;
    old.offer(&record, &socket, b"");
    assert_eq!(old.answers(1), (vec![], vec![record.id.0]), "its successor takes none");
    are_connected(&mut client, socket);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn a_successor_that_takes_none_leaves_them_to_others() {
    let mut frontend = frontend(2, PATIENT, PaceSettings::default()).await;
    let (old, (_client, record, socket), mut new) = deploy(&mut frontend).await;
    let mut other = FakeWorker::serve(&mut frontend, worker(1, 0), true).await;
    old.offer(&record, &socket, b"state");
    new.receive_session();
    drop((old, socket, new));
    order(&frontend, SlotCommand::Gone(worker(0, 0))).await;
    // Nobody is there for it, so that it waits for its slot's next worker.
    order(&frontend, SlotCommand::Drain(worker(1, 0), ORDER)).await;
    assert!(matches!(other.receive(), FromPrimary::Drain(_)));
    order(&frontend, SlotCommand::Gone(worker(0, 1))).await;
    is_queued(&frontend).await;
    let mut plain = FakeWorker::serve(&mut frontend, worker(0, 2), false).await;
    assert!(plain.receive_within(Duration::from_millis(50)).is_none());
    let mut able = FakeWorker::serve(&mut frontend, worker(1, 1), true).await;
    assert_eq!(able.receive_session().2, b"state");
    able.settle(1);
    ends_as(&frontend, (1, 0, 0)).await;
    assert!(plain.receive_within(Duration::from_millis(20)).is_none());
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn the_order_to_drain_is_a_message_for_those_who_move_sessions_and_the_end_for_others() {
    let mut frontend = frontend(2, PATIENT, PaceSettings::default()).await;
    let mut able = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let mut plain = FakeWorker::serve(&mut frontend, worker(1, 0), false).await;
    let shorter = DrainOrder { window: Duration::from_secs(1), ..ORDER };
    for (order_, count) in [(ORDER, 1), (shorter, 2)] {
        order(&frontend, SlotCommand::Drain(worker(0, 0), order_)).await;
        assert!(matches!(able.receive(), FromPrimary::Drain(heard) if heard == order_));
        assert_eq!(able.drains(), count);
    }
    order(&frontend, SlotCommand::Drain(worker(1, 0), ORDER)).await;
    assert!(matches!(plain.receive(), FromPrimary::End));
    assert_eq!(plain.drains(), 1);
    assert!(able.receive_within(Duration::from_millis(20)).is_none(), "it is served still");
    frontend.end().await.unwrap();
}

/// What a worker has set would make the next one wait for its client.
#[tokio::test]
async fn a_socket_that_waits_does_so_no_more_where_it_arrives() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let (old, (_client, record, socket), mut new) = deploy(&mut frontend).await;
    rustix::io::ioctl_fionbio(&socket, false).unwrap();
    old.offer(&record, &socket, b"image");
    let (_, arrived, _) = new.receive_session();
    let flags = rustix::fs::fcntl_getfl(&arrived).unwrap();
    assert!(flags.contains(rustix::fs::OFlags::NONBLOCK), "{flags:?}");
    drop((old, new));
    frontend.end().await.unwrap();
}
