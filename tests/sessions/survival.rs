//! Crash-safe sessions between workers that are played by hand: who goes on when they die, and what
//! comes of lies.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use sticky_lb::internals::link::error::ChannelError;
use sticky_lb::internals::link::event::{LinkEvent, SessionEvent};
use sticky_lb::internals::link::protection::ProtectionEvent;
use sticky_lb::internals::link::seam::{SlotCommand, SlotEvent, SlotEventKind, Survival, WorkerId};
use sticky_lb::internals::sessions::close_requests::PaceSettings;
use sticky_lb::protocol::checkpoint::{self, Extent};
use sticky_lb::protocol::ids::ConnectionId;
use sticky_lb::protocol::message::{
    BATCH, CHECKPOINT, ConnectionRecord, HELLO, MAX_PROTECT, READY, SESSIONS, encode_protect,
    encode_protect_several,
};
use sticky_lb::protocol::tcp_progress::TcpProgress;

use super::common::TIMEOUT;
use super::common::client::ends_within;
use super::common::fake_worker::{FakeWorker, FromPrimary, parcel_file, sealed};
use super::common::keeper::Keeper;
use super::{ORDER, PATIENT, Running, are_connected, client, facts, frontend, order, worker};

async fn survival(frontend: &Running) -> Survival {
    frontend.commander.count().await.unwrap().survival
}

async fn wait_for(frontend: &Running, expected: Survival) {
    let start = SystemTime::now();
    while survival(frontend).await != expected {
        let found = survival(frontend).await;
        assert!(start.elapsed().unwrap() < TIMEOUT, "{found:?} and not {expected:?}");
        tokio::task::yield_now().await;
    }
}

async fn wait_for_retained(frontend: &Running, count: u64) {
    let start = SystemTime::now();
    while facts(frontend).await.sessions_protected != count {
        assert!(start.elapsed().unwrap() < TIMEOUT, "never were {count} protected");
        tokio::task::yield_now().await;
    }
}

async fn die(frontend: &Running, mover: FakeWorker, sockets: Vec<OwnedFd>) {
    let id = mover.id;
    drop((mover, sockets));
    order(frontend, SlotCommand::Gone(id)).await;
}

/// A worker in slot 0 and a session of its own that is kept.
async fn kept(
    frontend: &mut Running,
) -> (FakeWorker, Keeper, (TcpStream, ConnectionRecord, OwnedFd)) {
    let mut mover = FakeWorker::serve(frontend, worker(0, 0), true).await;
    let (stream, record, socket) = client(frontend, &mut mover, 0).await;
    let mut keeper = Keeper::introduce(&mover);
    keeper.keep(&mover, &record, &socket);
    wait_for_retained(frontend, 1).await;
    (mover, keeper, (stream, record, socket))
}

async fn successor(frontend: &mut Running, generation: u32) -> FakeWorker {
    FakeWorker::serve(frontend, worker(0, generation), true).await
}

#[tokio::test]
async fn what_was_at_rest_waits_for_the_successor_though_others_serve() {
    let mut frontend = frontend(2, PATIENT, PaceSettings::default()).await;
    let mut other = FakeWorker::serve(&mut frontend, worker(1, 0), true).await;
    let (mover, _, (mut stream, record, socket)) = kept(&mut frontend).await;
    stream.write_all(b"unread").unwrap();
    die(&frontend, mover, vec![socket]).await;
    assert_eq!(facts(&frontend).await.sessions_waiting, 1);
    let mut new = successor(&mut frontend, 1).await;
    let (moved, arrived, image) = new.receive_session();
    assert_eq!((moved, &image[..]), (record, &record.id.0.to_le_bytes()[..]));
    new.settle(1);
    wait_for(&frontend, Survival { recovered: 1, ..Survival::default() }).await;
    assert_eq!(facts(&frontend).await.sessions_protected, 0);
    let mut bytes = [0; 6];
    rustix::io::read(&arrived, &mut bytes).unwrap();
    are_connected(&mut stream, arrived);
    assert!(other.receive_within(Duration::ZERO).is_none());
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn one_that_kills_who_takes_it_is_closed_after_three() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let (mover, _, (mut stream, record, socket)) = kept(&mut frontend).await;
    die(&frontend, mover, vec![socket]).await;
    for generation in 1..3 {
        let mut next = successor(&mut frontend, generation).await;
        let (_, socket, _) = next.receive_session();
        let mut keeper = Keeper::introduce(&next);
        keeper.keep(&next, &record, &socket);
        next.settle(1);
        wait_for_retained(&frontend, 1).await;
        let recovered = u64::from(generation);
        wait_for(&frontend, Survival { recovered, ..Survival::default() }).await;
        die(&frontend, next, vec![socket]).await;
    }
    wait_for(&frontend, Survival { recovered: 2, no_target: 1, ..Survival::default() }).await;
    assert!(ends_within(&mut stream, TIMEOUT));
    assert_eq!(facts(&frontend).await.sessions_waiting, 0);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn one_that_was_busy_or_whose_client_has_gone_is_closed() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let mut mover = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let mut keeper = Keeper::introduce(&mover);
    let mut sessions = Vec::new();
    for number in 0..3 {
        let (stream, record, socket) = client(&frontend, &mut mover, number).await;
        keeper.keep(&mover, &record, &socket);
        sessions.push((stream, socket));
    }
    wait_for_retained(&frontend, 3).await;
    let (mut written, socket) = sessions.remove(0);
    rustix::io::write(&socket, b"half an ans").unwrap();
    let (mut read, other) = sessions.remove(0);
    read.write_all(b"?").unwrap();
    super::common::eventually("it has come", || rustix::io::read(&other, &mut [0]) == Ok(1));
    let (gone, last) = sessions.remove(0);
    rustix::net::sockopt::set_socket_linger(&gone, Some(Duration::ZERO)).unwrap();
    drop(gone);
    super::common::eventually("it has gone", || TcpProgress::of(&last).unwrap().is_none());
    die(&frontend, mover, vec![socket, other, last]).await;
    let expected = Survival { busy: 2, client_gone: 1, ..Survival::default() };
    wait_for(&frontend, expected).await;
    let mut bytes = [0; 11];
    written.read_exact(&mut bytes).unwrap();
    assert!(ends_within(&mut written, TIMEOUT) && ends_within(&mut read, TIMEOUT));
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn one_that_was_written_down_and_refused_is_whose_it_is_then() {
    let mut frontend = frontend(2, PATIENT, PaceSettings::default()).await;
    let mut other = FakeWorker::serve(&mut frontend, worker(1, 0), true).await;
    let (mover, _, (mut stream, record, socket)) = kept(&mut frontend).await;
    die(&frontend, mover, vec![socket]).await;
    let mut refuses = successor(&mut frontend, 1).await;
    let (_, socket, _) = refuses.receive_session();
    let mut keeper = Keeper::introduce(&refuses);
    keeper.keep(&refuses, &record, &socket);
    refuses.refuse(record.id);
    let (_, arrived, _) = other.receive_session();
    other.settle(1);
    wait_for(&frontend, Survival { recovered: 1, ..Survival::default() }).await;
    die(&frontend, refuses, vec![socket]).await;
    wait_for(&frontend, Survival { recovered: 1, ..Survival::default() }).await;
    assert_eq!(facts(&frontend).await.sessions_waiting, 0, "it has two owners");
    are_connected(&mut stream, arrived);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn one_that_was_on_its_way_when_its_worker_died_is_no_survivor_beside() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let (mover, _, (mut stream, record, socket)) = kept(&mut frontend).await;
    let mut new = successor(&mut frontend, 1).await;
    order(&frontend, SlotCommand::Drain(worker(0, 0), ORDER)).await;
    // The order may well be carried out before the offer is read.
    mover.offer(&record, &socket, b"state");
    die(&frontend, mover, vec![socket]).await;
    let (_, arrived, image) = new.receive_session();
    assert_eq!(image, b"state");
    new.settle(1);
    super::ends_as(&frontend, (1, 0, 0)).await;
    wait_for(&frontend, Survival::default()).await;
    are_connected(&mut stream, arrived);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn a_ledger_full_of_lies_costs_its_own_sessions_alone() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let mut mover = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let mut keeper = Keeper::introduce(&mover);
    let mut clients = Vec::new();
    let mut lie = async |frontend: &Running, number, place: Option<u64>, says: Option<u64>| {
        let (stream, record, socket) = client(frontend, &mut mover, number).await;
        let own = keeper.place();
        if let Some(id) = says {
            let usage = TcpProgress::of(&socket).unwrap().unwrap();
            keeper.write(own, &ConnectionRecord { id: ConnectionId(id), ..record }, usage, b"x");
        }
        mover.say_with(&encode_protect(&record, place.unwrap_or(own)), &[socket.as_fd()]);
        clients.push((stream, socket));
    };
    // Nothing written; behind the end; far behind it; somebody else's.
    lie(&frontend, 0, None, None).await;
    lie(&frontend, 1, Some(64 * 16), None).await;
    lie(&frontend, 2, Some(u64::MAX), None).await;
    lie(&frontend, 3, None, Some(9_999)).await;
    wait_for_retained(&frontend, 4).await;
    let (mut streams, sockets): (Vec<_>, Vec<_>) = clients.into_iter().unzip();
    die(&frontend, mover, sockets).await;
    wait_for(&frontend, Survival { unverified: 4, ..Survival::default() }).await;
    assert!(streams.iter_mut().all(|stream| ends_within(stream, TIMEOUT)));
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn a_hundred_that_two_messages_protect_go_on_as_if_each_had_its_own() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let mut mover = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let mut keeper = Keeper::introduce(&mover);
    let (mut streams, mut placed, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..100 {
        let (stream, record, socket) = client(&frontend, &mut mover, number).await;
        let (place, usage) = (keeper.place(), TcpProgress::of(&socket).unwrap().unwrap());
        keeper.write(place, &record, usage, &record.id.0.to_le_bytes());
        placed.push((record, place));
        streams.push(stream);
        sockets.push(socket);
    }
    for (placed, sockets) in placed.chunks(BATCH).zip(sockets.chunks(BATCH)) {
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        let placed = placed.iter().map(|(record, place)| (record, *place));
        mover.say_with(encode_protect_several(&mut [0; MAX_PROTECT], placed), &sockets);
    }
    wait_for_retained(&frontend, 100).await;
    die(&frontend, mover, sockets).await;
    let mut new = successor(&mut frontend, 1).await;
    let mut left: HashSet<_> = placed.iter().map(|(record, _)| record.id).collect();
    while !left.is_empty() {
        let (record, _, image) = new.receive_session();
        assert!(left.remove(&record.id), "twice, or another's");
        assert_eq!(image, record.id.0.to_le_bytes());
        new.settle(1);
    }
    wait_for(&frontend, Survival { recovered: 100, ..Survival::default() }).await;
    drop(streams);
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn more_than_there_is_room_for_and_those_without_a_ledger_are_as_others() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let mut mover = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let (_stream, record, socket) = client(&frontend, &mut mover, 0).await;
    mover.say_with(&encode_protect(&record, 1), &[socket.as_fd()]);
    wait_for(&frontend, Survival { not_protected: 1, ..Survival::default() }).await;
    let mut keeper = Keeper::introduce(&mover);
    // Again and again the same one takes one place.
    for _ in 0..5 {
        keeper.keep(&mover, &record, &socket);
    }
    wait_for_retained(&frontend, 1).await;
    let (_other, another, second) = client(&frontend, &mut mover, 1).await;
    keeper.keep(&mover, &another, &second);
    wait_for_retained(&frontend, 2).await;
    keeper.forget(&mover, &record);
    keeper.forget(&mover, &record);
    wait_for_retained(&frontend, 1).await;
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn one_of_a_connection_that_never_was_is_a_breach() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let (mover, mut keeper, (_stream, record, socket)) = kept(&mut frontend).await;
    keeper.keep(&mover, &ConnectionRecord { id: ConnectionId(77), ..record }, &socket);
    let SlotEvent { worker, kind } = frontend.event().await;
    assert_eq!(worker, mover.id);
    let SlotEventKind::Violation(error) = kind else { panic!("{kind:?}") };
    assert!(matches!(error, ChannelError::UnknownSession(ConnectionId(77))));
    // Until it is dead nothing changes, and then who was at rest goes on.
    die(&frontend, mover, vec![socket]).await;
    let mut new = successor(&mut frontend, 1).await;
    assert!(matches!(new.receive(), FromPrimary::Session(moved, ..) if moved == record));
    frontend.end().await.unwrap();
}

/// What the primary makes of a message with descriptors, of a worker that may have said that it
/// moves sessions.
fn said(moves: bool, message: &[u8], descriptors: &[&OwnedFd]) -> Result<LinkEvent, ChannelError> {
    let id: WorkerId = worker(0, 0);
    let (mover, mut channel) = FakeWorker::alone(id);
    let before = if moves { vec![HELLO, SESSIONS, READY] } else { vec![HELLO, READY] };
    for message in before {
        mover.say(&message);
        channel.receive().unwrap();
    }
    let descriptors: Vec<_> = descriptors.iter().map(|it| it.as_fd()).collect();
    mover.say_with(message, &descriptors);
    channel.receive()
}

#[test]
fn what_is_no_ledger_or_no_session_is_a_breach() {
    let local = "127.0.0.1:1".parse().unwrap();
    let record = ConnectionRecord {
        id: ConnectionId(1),
        accepted_at: sticky_lb::protocol::ids::Timestamp(0),
        key: sticky_lb::protocol::ids::AffinityKey(0),
        client: local,
        local,
        tag: 0,
    };
    let keep = encode_protect(&record, 1);
    let memory = checkpoint::create().unwrap();
    let unix: OwnedFd = UnixStream::pair().unwrap().0.into();
    let listener: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
    let unsealed = parcel_file(b"", sealed() - rustix::fs::SealFlags::SHRINK);
    let good = |result| {
        matches!(
            result,
            Ok(LinkEvent::Session(SessionEvent::Protection(ProtectionEvent::Checkpoint(Some(_)))))
        )
    };
    assert!(good(said(true, &CHECKPOINT, &[&memory])));
    for (message, descriptors) in [
        (&CHECKPOINT[..], &[][..]),
        (&CHECKPOINT, &[&unix]),
        (&CHECKPOINT, &[&unsealed]),
        (&CHECKPOINT, &[&memory, &memory]),
        (&keep, &[]),
        (&keep, &[&unix]),
        (&keep, &[&memory]),
        (&keep, &[&listener, &listener]),
        (b"SL\x01\x8f\x01\0\0\0\x01\0\0\0\0\0\0\0", &[&memory]),
    ] {
        let result = said(true, message, descriptors);
        assert!(result.is_err(), "{message:?} with {}: {result:?}", descriptors.len());
    }
    let early = said(false, &CHECKPOINT, &[&memory]);
    assert!(matches!(early, Err(ChannelError::NoSessions)), "{early:?}");
}

/// A worker that has one region stand for the images of many sessions would have more bytes made of it than
/// it ever had.
#[tokio::test]
async fn images_are_no_more_than_their_checkpoint() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let mut mover = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let mut keeper = Keeper::introduce(&mover);
    let (mut streams, mut sockets) = (Vec::new(), Vec::new());
    // The pages of the entries have memory, the region has none.
    let region = Extent { offset: 0, length: 60 * 4_096 };
    for number in 0..20 {
        let (stream, record, socket) = client(&frontend, &mut mover, number).await;
        keeper.keep_with(&mover, &record, &socket, region);
        streams.push(stream);
        sockets.push(socket);
    }
    wait_for_retained(&frontend, 20).await;
    die(&frontend, mover, sockets).await;
    wait_for(&frontend, Survival { unverified: 20, ..Survival::default() }).await;
    frontend.end().await.unwrap();
}

#[tokio::test]
async fn one_that_its_successor_always_refuses_is_closed_after_a_while() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let (mover, _, (mut stream, record, socket)) = kept(&mut frontend).await;
    die(&frontend, mover, vec![socket]).await;
    let mut refuses = successor(&mut frontend, 1).await;
    let mut asked = 0;
    loop {
        match refuses.receive_within(Duration::from_millis(300)) {
            Some(FromPrimary::Session(..)) => refuses.refuse(record.id),
            Some(other) => panic!("{other:?}"),
            None => break,
        }
        asked += 1;
        assert!(asked < 1_000, "it is asked for ever");
    }
    assert!(asked > 3, "{asked} times, which is too few where it may have been busy");
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "its client is not left waiting");
    let told = facts(&frontend).await;
    assert_eq!((told.sessions_waiting, told.counters.survival.no_target), (0, 1));
    frontend.end().await.unwrap();
}

/// A worker that has a socket protected before it has a peer could have any other passed on as its client's.
#[tokio::test]
async fn a_socket_that_was_connected_since_is_nobodys_client() {
    let mut frontend = frontend(1, PATIENT, PaceSettings::default()).await;
    let mut mover = FakeWorker::serve(&mut frontend, worker(0, 0), true).await;
    let (_stream, record, socket) = client(&frontend, &mut mover, 0).await;
    let mut keeper = Keeper::introduce(&mover);
    let forged = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let forged = forged.unwrap();
    let place = keeper.place();
    mover.say_with(&encode_protect(&record, place), &[forged.as_fd()]);
    wait_for_retained(&frontend, 1).await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    connect(&forged, &elsewhere.local_addr().unwrap()).unwrap();
    let usage = TcpProgress::of(&forged).unwrap().expect("it is connected");
    keeper.write(place, &record, usage, b"image");
    die(&frontend, mover, vec![socket, forged]).await;
    wait_for(&frontend, Survival { unverified: 1, ..Survival::default() }).await;
    frontend.end().await.unwrap();
}
