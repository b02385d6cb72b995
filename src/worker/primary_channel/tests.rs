//! What a worker refuses.

use std::future::poll_fn;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::protocol::ids::{AffinityKey, ConnectionId, Timestamp};
use crate::protocol::message::{
    ConnectionRecord, MAX_TO_WORKER, ToPrimary, decode_to_primary, encode_session,
};
use crate::protocol::scm_rights::{self, Received};
use crate::worker::connection::Connection;
use crate::worker::primary_channel::{ChannelEvent, PrimaryChannel};
use crate::worker::session::image::{ConnectionState, Kind, SessionImage};
use crate::worker::session::registry::Sessions;
use crate::worker::shared::{Own, Shared};

const ID: ConnectionId = ConnectionId(7);

/// A session with a socket and a client of its own, all of them with one id.
fn send_session(primary: &OwnedFd) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = listener.local_addr().unwrap();
    let client = TcpStream::connect(local).unwrap();
    let (stream, address) = listener.accept().unwrap();
    let (accepted_at, key) = (Timestamp::now(), AffinityKey(1));
    let record = ConnectionRecord { id: ID, accepted_at, key, client: address, local, tag: 7 };
    let kind = Kind::WebSocket;
    let connection =
        ConnectionState { kind, head: Vec::new(), negotiated: None, unread: Vec::new() };
    let state = Some(Vec::new());
    let image = SessionImage { connection, state, left_at: Timestamp::now(), protect: false };
    let mut buffer = [0; MAX_TO_WORKER];
    let bytes = encode_session(&mut buffer, &record, &image.encode());
    scm_rights::send(primary, bytes, &[stream.as_fd()]).unwrap();
    client
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
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (primary, worker) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let (sessions, _returned) = Sessions::new(Shared::new(Own::standalone().unwrap()));
    let mut channel = PrimaryChannel::new(worker, &sessions).unwrap();
    assert!(sessions.sender.set(channel.sender().unwrap()).is_ok());

    let _first = send_session(&primary);
    let (_stream, open) = next(&mut channel).await.expect("the first").into_session();
    let _second = send_session(&primary);
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
