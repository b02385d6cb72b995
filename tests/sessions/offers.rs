//! What a worker may offer, and what not: the channel by itself.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::fs::SealFlags;
use sticky_lb::internals::link::Link;
use sticky_lb::internals::link::error::ChannelError;
use sticky_lb::internals::link::event::{LinkEvent, SessionEvent};
use sticky_lb::protocol::ids::{AffinityKey, ConnectionId, Timestamp};
use sticky_lb::protocol::message::{
    ConnectionRecord, HELLO, MAX_SESSIONS, MAX_TO_PRIMARY, READY, SESSIONS, encode_close_request,
    encode_offer, encode_session_list,
};

use super::common::fake_worker::{FakeWorker, FromPrimary, parcel_file, sealed};
use super::{ORDER, worker};

/// A connection that its client keeps open, and its record.
fn session(id: u64) -> (TcpStream, OwnedFd, ConnectionRecord) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = listener.local_addr().unwrap();
    let client = TcpStream::connect(local).unwrap();
    let (socket, address) = listener.accept().unwrap();
    let (accepted_at, key) = (Timestamp(0), AffinityKey(0));
    let id = ConnectionId(id);
    (
        client,
        socket.into(),
        ConnectionRecord { id, accepted_at, key, client: address, local, tag: 0 },
    )
}

/// A worker that moves sessions, and the primary's end of its channel.
fn able() -> (FakeWorker, Link) {
    let (mover, mut channel) = FakeWorker::alone(worker(0, 0));
    for message in [HELLO, SESSIONS, READY] {
        mover.say(&message);
        channel.receive().unwrap();
    }
    assert!(channel.takes_sessions());
    (mover, channel)
}

/// Offers with these descriptors, and says what the primary makes of it.
fn offer(image: &[u8], descriptors: &[&OwnedFd]) -> Result<LinkEvent, ChannelError> {
    let (mover, mut channel) = able();
    let (_client, socket, record) = session(1);
    let mut buffer = [0; MAX_TO_PRIMARY];
    let message = encode_offer(&mut buffer, &record, image);
    let all = [&socket].into_iter().chain(descriptors.iter().copied());
    mover.say_with(message, &all.map(AsFd::as_fd).collect::<Vec<_>>());
    channel.receive()
}

fn fault(result: Result<LinkEvent, ChannelError>) -> &'static str {
    match result {
        Err(ChannelError::Session(ConnectionId(1), fault)) => fault,
        other => panic!("no fault of a session: {other:?}"),
    }
}

#[test]
fn a_socket_alone_or_with_a_sealed_parcel_is_a_session() {
    assert!(matches!(offer(b"", &[]), Ok(LinkEvent::Session(SessionEvent::Offered(_)))));
    assert!(matches!(offer(&[1; 16_384], &[]), Ok(LinkEvent::Session(SessionEvent::Offered(_)))));
    let sealed = parcel_file(b"state", sealed());
    assert!(matches!(offer(b"", &[&sealed]), Ok(LinkEvent::Session(SessionEvent::Offered(_)))));
}

#[test]
fn what_is_no_session_is_a_breach() {
    let full = sealed();
    for seals in [full - SealFlags::SHRINK, full - SealFlags::GROW, full - SealFlags::WRITE] {
        let open = parcel_file(b"state", seals);
        assert_eq!(fault(offer(b"", &[&open])), "an image that is not sealed");
    }
    let no_file: OwnedFd = UnixStream::pair().unwrap().0.into();
    assert_eq!(fault(offer(b"", &[&no_file])), "an image that is not sealed");
    let image = parcel_file(b"state", full);
    assert_eq!(fault(offer(b"more", &[&image])), "two images");
    let more = [&image; 2];
    assert_eq!(fault(offer(b"", &more)), "more than a socket and an image");
    assert_eq!(fault(offer(b"", &[&image; 63])), "more than a socket and an image");
}

#[test]
fn a_socket_that_is_not_a_clients_is_a_breach() {
    let (mover, mut channel) = able();
    let (_client, _socket, record) = session(1);
    let mut buffer = [0; MAX_TO_PRIMARY];
    mover.say(encode_offer(&mut buffer, &record, b""));
    assert_eq!(fault(channel.receive()), "no socket");
    let others: [OwnedFd; 3] = [
        UnixStream::pair().unwrap().0.into(),
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        parcel_file(b"", sealed()),
    ];
    for other in others {
        mover.offer(&record, &other, b"");
        assert_eq!(fault(channel.receive()), "a socket that is not TCP");
    }
    let listener: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
    mover.offer(&record, &listener, b"");
    assert!(matches!(
        channel.receive(),
        Ok(LinkEvent::Session(SessionEvent::NotMigratable(ConnectionId(1))))
    ));
}

#[test]
fn what_cannot_move_now_returns() {
    let (mut mover, mut channel) = able();
    let (_client, socket, record) = session(1);
    let long = parcel_file(&vec![0; (17 << 20) + 1], sealed());
    mover.offer_file(&record, &socket, &long);
    assert!(matches!(
        channel.receive(),
        Ok(LinkEvent::Session(SessionEvent::NotMigratable(ConnectionId(1))))
    ));
    let (client, gone, record) = session(2);
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    super::common::eventually("the reset has come", || {
        sticky_lb::protocol::tcp_progress::TcpProgress::of(&gone).unwrap().is_none()
    });
    mover.offer(&record, &gone, b"");
    assert!(matches!(
        channel.receive(),
        Ok(LinkEvent::Session(SessionEvent::NotMigratable(ConnectionId(2))))
    ));
    channel.send_outgoing().unwrap();
    assert!(matches!(mover.receive(), FromPrimary::Returned(ids) if ids == [1, 2]));
}

#[test]
fn so_many_may_be_under_way_and_no_more() {
    let (mut mover, mut channel) = able();
    let (_client, socket, mut record) = session(1);
    let mut offer = |channel: &mut Link, id: usize| {
        record.id = ConnectionId(id as u64);
        mover.offer(&record, &socket, b"");
        channel.receive()
    };
    for id in 0..MAX_SESSIONS {
        assert!(matches!(
            offer(&mut channel, id),
            Ok(LinkEvent::Session(SessionEvent::Offered(_)))
        ));
    }
    assert!(matches!(offer(&mut channel, MAX_SESSIONS), Err(ChannelError::TooManySessions)));
    // To be answered is not enough: the answer has to be sent.
    channel.send_moved(ConnectionId(7));
    assert!(matches!(offer(&mut channel, 1_000), Err(ChannelError::TooManySessions)));
    assert!(matches!(offer(&mut channel, 8), Err(ChannelError::Session(ConnectionId(8), _))));
    channel.send_outgoing().unwrap();
    assert!(matches!(offer(&mut channel, 1_000), Ok(LinkEvent::Session(SessionEvent::Offered(_)))));
    assert!(matches!(mover.receive(), FromPrimary::Moved(ids) if ids == [7]));
}

#[test]
fn only_those_speak_of_sessions_who_have_said_that_they_move_them() {
    let (_client, socket, record) = session(1);
    let mut buffer = [0; MAX_TO_PRIMARY];
    let offer = encode_offer(&mut buffer, &record, b"");
    let (counted, ask) = (encode_session_list(&[]), encode_close_request(1, Duration::ZERO));
    for message in [offer, &counted, &ask] {
        let (mover, mut channel) = FakeWorker::alone(worker(0, 0));
        mover.say(&HELLO);
        let sockets = [socket.as_fd()];
        mover.say_with(message, if message == offer { &sockets } else { &[] });
        channel.receive().unwrap();
        assert!(matches!(channel.receive(), Err(ChannelError::NoSessions)));
    }
    let (mover, mut channel) = FakeWorker::alone(worker(0, 0));
    for message in [HELLO, READY, SESSIONS] {
        mover.say(&message);
    }
    channel.receive().unwrap();
    channel.receive().unwrap();
    assert!(matches!(channel.receive(), Err(ChannelError::NoSessions)), "too late");
    let (mover, mut channel) = able();
    mover.say(&counted);
    assert!(matches!(channel.receive(), Err(ChannelError::NoListRequest)));
}

#[test]
fn what_a_stalled_worker_has_not_heard_it_hears_later() {
    let (mut mover, mut channel) = able();
    let (_client, socket, record) = session(1);
    mover.offer(&record, &socket, b"");
    assert!(matches!(channel.receive(), Ok(LinkEvent::Session(SessionEvent::Offered(_)))));
    for _ in 0..2 {
        channel.send_returned(ConnectionId(3));
        channel.send_moved(record.id);
        channel.request_offer(ConnectionId(4));
        channel.grant_closes(5);
        channel.drain(ORDER);
        channel.request_session_list();
        channel.send_outgoing().unwrap();
        assert!(!channel.has_outgoing());
        assert!(channel.take_back().is_empty());
        assert!(channel.has_outgoing());
    }
    channel.send_outgoing().unwrap();
    assert!(matches!(mover.receive(), FromPrimary::Moved(ids) if ids == [1, 1]));
    assert!(matches!(mover.receive(), FromPrimary::Returned(ids) if ids == [3, 3]));
    assert!(matches!(mover.receive(), FromPrimary::Drain(ORDER)));
    assert!(matches!(mover.receive(), FromPrimary::ListSessions));
    assert!(matches!(mover.receive(), FromPrimary::ListSessions));
    assert!(matches!(mover.receive(), FromPrimary::Move(ids) if ids == [4, 4]));
    assert!(matches!(mover.receive(), FromPrimary::CloseGrant(10)));
    assert!(mover.receive_within(Duration::ZERO).is_none());
}

#[test]
fn what_a_full_channel_has_no_room_for_waits() {
    let (mut mover, mut channel) = able();
    let (mut said, mut rounds) = (0, 0);
    // Other words until there is no room.
    while !channel.has_outgoing() {
        assert!(rounds < 10_000, "the channel is never full");
        rounds += 1;
        channel.grant_closes(1);
        said += 1;
        channel.send_outgoing().unwrap();
    }
    (0..300).for_each(|id| channel.send_moved(ConnectionId(id)));
    let (mut closes, mut moved) = (0, Vec::new());
    while channel.has_outgoing() || moved.len() < 300 {
        match mover.receive_within(Duration::ZERO) {
            Some(FromPrimary::CloseGrant(count)) => closes += count,
            Some(FromPrimary::Moved(ids)) => moved.extend(ids),
            Some(other) => panic!("{other:?}"),
            None => assert!(channel.has_outgoing(), "something is missing"),
        }
        channel.send_outgoing().unwrap();
    }
    while let Some(FromPrimary::CloseGrant(count)) = mover.receive_within(Duration::ZERO) {
        closes += count;
    }
    assert_eq!(closes, said);
    assert_eq!(moved, (0..300).collect::<Vec<_>>());
}
