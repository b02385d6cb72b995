//! What a worker refuses, and what it does first.

use std::future::poll_fn;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::AsyncReadExt;

use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::protocol::ids::{AffinityKey, ConnectionId, Timestamp};
use crate::protocol::message::{
    ConnectionRecord, MAX_IDS, MAX_TO_WORKER, ToPrimary, decode_to_primary, encode_connections,
    encode_drain, encode_moved, encode_resync, encode_session,
};
use crate::protocol::scm_rights::{self, Received};
use crate::worker::connection::Connection;
use crate::worker::primary_channel::{ChannelEvent, PrimaryChannel};
use crate::worker::session::image::{ConnectionState, Kind, SessionImage};
use crate::worker::session::migration::migrate_all;
use crate::worker::session::registry::Sessions;
use crate::worker::session::stream::SessionStream;
use crate::worker::shared::{Allowed, Own, Shared};

const ID: ConnectionId = ConnectionId(7);

/// A client, its connection, and the record of that.
fn connection(id: ConnectionId) -> (TcpStream, TcpStream, ConnectionRecord) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = listener.local_addr().unwrap();
    let client = TcpStream::connect(local).unwrap();
    let (stream, address) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let (accepted_at, key) = (Timestamp::now(), AffinityKey(1));
    let record = ConnectionRecord { id, accepted_at, key, client: address, local, tag: 7 };
    (client, stream, record)
}

fn send_connection(primary: &OwnedFd, id: ConnectionId) -> TcpStream {
    let (client, stream, record) = connection(id);
    let mut buffer = [0; MAX_TO_WORKER];
    let bytes = encode_connections(&mut buffer, [&record].into_iter());
    scm_rights::send(primary, bytes, &[stream.as_fd()]).unwrap();
    client
}

/// A session with a socket and a client of its own.
fn send_session(primary: &OwnedFd, id: ConnectionId, protect: bool) -> TcpStream {
    let (client, stream, record) = connection(id);
    let kind = Kind::WebSocket;
    let connection =
        ConnectionState { kind, head: Vec::new(), negotiated: None, unread: Vec::new() };
    let state = Some(Vec::new());
    let image = SessionImage { connection, state, left_at: Timestamp::now(), protect };
    let mut buffer = [0; MAX_TO_WORKER];
    let bytes = encode_session(&mut buffer, &record, &image.encode());
    scm_rights::send(primary, bytes, &[stream.as_fd()]).unwrap();
    client
}

/// The primary's end of a channel, and all of the worker's.
fn attached(allowed: Allowed) -> (OwnedFd, Arc<Sessions>, PrimaryChannel) {
    attached_with(Own { allowed, ..Own::standalone().unwrap() })
}

fn attached_with(own: Own) -> (OwnedFd, Arc<Sessions>, PrimaryChannel) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (primary, worker) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let (sessions, _returned) = Sessions::new(Shared::new(own));
    let channel = PrimaryChannel::new(worker, &sessions).unwrap();
    assert!(sessions.sender.set(channel.sender().unwrap()).is_ok());
    (primary, sessions, channel)
}

/// How many sessions the worker has had protected since the last time, in how many messages.
fn protected(primary: &OwnedFd) -> (usize, usize) {
    let (mut bytes, mut fds) = (vec![0; MAX_TO_WORKER], Vec::new());
    let (mut sessions, mut messages) = (0, 0);
    while let Ok(Received::Message { length, .. }) =
        scm_rights::receive(primary, &mut bytes, &mut fds)
    {
        if let Ok(ToPrimary::Protect(placed)) = decode_to_primary(&bytes[..length]) {
            assert_eq!(placed.len(), fds.len());
            (sessions, messages) = (sessions + placed.len(), messages + 1);
        }
        fds.clear();
    }
    (sessions, messages)
}

async fn next(channel: &mut PrimaryChannel) -> Option<Connection> {
    let event = poll_fn(|cx| channel.poll_next(cx));
    match tokio::time::timeout(Duration::from_millis(200), event).await.ok()?.unwrap() {
        ChannelEvent::Connection(connection) => Some(*connection),
        ChannelEvent::Drain(_) | ChannelEvent::Closed => panic!("nobody sent that"),
    }
}

#[tokio::test]
async fn a_session_under_the_id_of_an_open_one_is_refused_and_the_open_one_stays() {
    let (primary, sessions, mut channel) = attached(Allowed::default());

    let _first = send_session(&primary, ID, false);
    let (_stream, open) = next(&mut channel).await.expect("the first").into_session();
    let _second = send_session(&primary, ID, false);
    assert!(next(&mut channel).await.is_none(), "the second is not taken");

    let (mut bytes, mut fds) = (vec![0; MAX_TO_WORKER], Vec::new());
    let Ok(Received::Message { length, .. }) = scm_rights::receive(&primary, &mut bytes, &mut fds)
    else {
        panic!("no answer")
    };
    let Ok(ToPrimary::Refuse(ids)) = decode_to_primary(&bytes[..length]) else {
        panic!("another answer: {:?}", &bytes[..length])
    };
    assert_eq!(ids.iter().collect::<Vec<_>>(), [ID]);
    assert_eq!(sessions.find(ID).map(|found| found.info.client), Some(open.info().client));
}

const PROTECT: Allowed = Allowed { offer_progress: true, protect: true, protect_several: true };

/// Protected sessions of a worker, and their clients.
async fn sessions(
    primary: &OwnedFd,
    channel: &mut PrimaryChannel,
    count: u64,
) -> Vec<(SessionStream, TcpStream)> {
    let mut all = Vec::new();
    for id in 1..=count {
        let client = send_session(primary, ConnectionId(id), true);
        let (stream, _) = next(channel).await.expect("a session").into_session();
        all.push((stream, client));
    }
    all
}

fn resync(primary: &OwnedFd) {
    scm_rights::send(primary, &encode_resync(1), &[]).unwrap();
}

#[tokio::test]
async fn another_primary_hears_of_protected_sessions_after_its_new_clients_are_served() {
    let (primary, _sessions, mut channel) = attached(PROTECT);
    let _open = sessions(&primary, &mut channel, 150).await;
    assert_eq!(protected(&primary).0, 150);
    resync(&primary);
    let _client = send_connection(&primary, ConnectionId(1_000));
    assert!(next(&mut channel).await.is_some(), "the client is served");
    assert_eq!(protected(&primary), (0, 0), "before any session is protected");
    assert!(next(&mut channel).await.is_none());
    assert_eq!(protected(&primary), (64, 1), "no more than a message before that is read");
    assert!(next(&mut channel).await.is_none());
    assert_eq!(protected(&primary), (64, 1));
    assert!(next(&mut channel).await.is_none());
    assert_eq!(protected(&primary), (22, 1));
}

#[tokio::test]
async fn a_session_does_not_leave_before_another_primary_protects_it_and_one_that_ends_is_not_protected()
 {
    let (primary, registry, mut channel) = attached(PROTECT);
    let _open = sessions(&primary, &mut channel, 3).await;
    let is_known = || registry.find(ConnectionId(1)).unwrap().handle.is_known();
    assert!(is_known());
    assert_eq!(protected(&primary).0, 3);
    resync(&primary);
    let _client = send_connection(&primary, ConnectionId(1_000));
    assert!(next(&mut channel).await.is_some());
    assert!(!is_known());
    // The last one ends meanwhile.
    drop(registry.find(ConnectionId(3)).unwrap().handle.force_detach());
    assert!(next(&mut channel).await.is_none());
    assert!(is_known());
    assert_eq!(protected(&primary).0, 2);
}

#[tokio::test]
async fn one_message_protects_one_session_where_the_primary_understands_no_more() {
    let (primary, _sessions, mut channel) = attached(Allowed { protect_several: false, ..PROTECT });
    let _open = sessions(&primary, &mut channel, 3).await;
    assert_eq!(protected(&primary), (3, 3));
    resync(&primary);
    assert!(next(&mut channel).await.is_none());
    assert_eq!(protected(&primary), (3, 3));
}

#[tokio::test]
async fn who_came_before_an_order_to_drain_is_yielded_before_it() {
    let (primary, _sessions, mut channel) = attached(Allowed::default());
    let clients = [1, 2, 3].map(|id| send_connection(&primary, ConnectionId(id)));
    let order = DrainOrder {
        mode: DrainMode::Wait,
        reason: DrainReason::Restart,
        window: Duration::from_secs(1),
    };
    scm_rights::send(&primary, &encode_drain(order), &[]).unwrap();
    for _ in clients {
        assert!(next(&mut channel).await.is_some());
    }
    let event = poll_fn(|cx| channel.poll_next(cx)).await.unwrap();
    assert!(matches!(event, ChannelEvent::Drain(_)), "{event:?}");
}

/// Has all offers of a worker migrated, one after the other, each after this time.
fn take_all(primary: &OwnedFd, count: usize, each: Duration) {
    let (mut bytes, mut fds) = (vec![0; MAX_TO_WORKER], Vec::new());
    let mut left = count;
    while left > 0 {
        thread::sleep(each);
        let received = scm_rights::receive(primary, &mut bytes, &mut fds);
        fds.clear();
        let Ok(Received::Message { length, .. }) = received else { return };
        if let Ok(ToPrimary::Session(record, ..)) = decode_to_primary(&bytes[..length]) {
            let mut buffer = [0; MAX_IDS];
            let moved = encode_moved(&mut buffer, [record.id].into_iter());
            scm_rights::send(primary, moved, &[]).unwrap();
            left -= 1;
        }
    }
}

#[tokio::test]
async fn a_session_has_its_time_to_migrate_from_its_turn_on_however_many_are_before_it() {
    const COUNT: usize = 60;
    let own = Own { migrate_timeout: Duration::from_millis(200), ..Own::standalone().unwrap() };
    let (primary, sessions, mut channel) = attached_with(own);
    let mut clients = Vec::new();
    for id in 1..=COUNT as u64 {
        clients.push(send_connection(&primary, ConnectionId(id)));
        let (mut stream, _) = next(&mut channel).await.expect("a client").into_session();
        tokio::spawn(async move { stream.read(&mut [0; 16]).await });
    }
    tokio::spawn(channel.wait_for_exit());
    // All of them take three times as long.
    let each = Duration::from_millis(10);
    let taking = thread::spawn(move || {
        take_all(&primary, COUNT, each);
        primary
    });
    migrate_all(&sessions).await;
    let left = sessions.migratable().len();
    drop(sessions);
    assert_eq!(left, 0, "sessions whose turn has not come");
    drop(taking.join());
}
