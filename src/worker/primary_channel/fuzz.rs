//! Random messages to a worker, whole and broken, with descriptors that belong to them or not: it never
//! panics, keeps no descriptor, and takes no connection for another.
//!
//! A failure prints its seed; `scripts/prove-fuzz` runs it at length.

use std::future::poll_fn;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::time::Instant;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::protocol::ids::{AffinityKey, ConnectionId, Timestamp};
use crate::protocol::message::{
    ConnectionRecord, LIST_SESSIONS, MAX_IDS, MAX_TO_WORKER, PING, encode_close_grant,
    encode_connections, encode_drain, encode_move, encode_moved, encode_resync, encode_returned,
    encode_session,
};
use crate::protocol::random::{self, Random};
use crate::protocol::scm_rights::{self, Received};
use crate::worker::primary_channel::{ChannelEvent, PrimaryChannel};
use crate::worker::session::image::{ConnectionState, Kind, SessionImage};
use crate::worker::session::registry::Sessions;
use crate::worker::shared::{Own, Shared};

#[test]
fn a_worker_survives_any_message_and_takes_no_connection_for_another() {
    let (time, first) = (random::time(), random::seed());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (start, mut seed, mut taken) = (Instant::now(), first, 0);
    while start.elapsed() < time {
        println!("channel: STICKY_LB_FUZZ_SEED={seed}");
        taken += runtime.block_on(converse(seed));
        seed += 1;
    }
    let count = seed - first;
    println!("{count} channels from seed {first} on, {taken} connections");
    assert!(taken > count, "hardly anything is valid: {taken} connections in {count} channels");
}

/// One channel, until it breaks or for some messages. Returns how many connections came.
async fn converse(seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (primary, worker) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let (sessions, _returned) = Sessions::new(Shared::new(Own::standalone().unwrap()));
    let mut channel = PrimaryChannel::new(worker, &sessions).unwrap();
    assert!(sessions.sender.set(channel.sender().unwrap()).is_ok());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut taken = 0;
    for _ in 0..60 {
        let (message, fds) = message(&mut random, &listener);
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        scm_rights::send(&primary, &message, &fds).unwrap();
        let Some(new) = receive(&mut channel).await else { break };
        taken += new;
        drain(&primary);
    }
    taken
}

/// All that comes of it. None if the channel is broken.
async fn receive(channel: &mut PrimaryChannel) -> Option<u64> {
    let mut taken = 0;
    loop {
        let event = poll_fn(|cx| channel.poll_next(cx));
        let Ok(event) = tokio::time::timeout(Duration::from_micros(300), event).await else {
            assert!(channel.descriptors.is_empty(), "descriptors are left over");
            return Some(taken);
        };
        match event.ok()? {
            ChannelEvent::Connection(connection) => {
                let info = connection.info();
                let (stream, _guard) = connection.split().unwrap();
                if let Ok(client) = stream.peer_addr() {
                    let is_it = info.client == client || info.id.0 == MUTATED;
                    assert!(is_it, "{client} is taken for {}", info.client);
                }
                taken += 1;
            }
            ChannelEvent::Drain(_) => {}
            ChannelEvent::Closed => return None,
        }
    }
}

/// The worker's answers are not the subject.
fn drain(primary: &OwnedFd) {
    let (mut bytes, mut fds) = (vec![0; MAX_TO_WORKER], Vec::new());
    while matches!(scm_rights::receive(primary, &mut bytes, &mut fds), Ok(Received::Message { .. }))
    {
        fds.clear();
    }
}

/// The id of all connections whose descriptors are not their own.
const MUTATED: u64 = 0xbad;

fn message(random: &mut Random, listener: &TcpListener) -> (Vec<u8>, Vec<OwnedFd>) {
    let is_mutated = random.one_in(3);
    let (mut bytes, mut fds) = valid(random, listener, is_mutated);
    if !is_mutated {
        return (bytes, fds);
    }
    match random.below(5) {
        0 => bytes.truncate(random.up_to(bytes.len()).max(1)),
        1 => bytes.extend((0..random.up_to(100)).map(|_| 0)),
        2 => drop(fds.pop()),
        3 => fds.push(any_descriptor(random)),
        // Not of the record: its id says that it may be anything.
        _ => {
            let place = random.up_to(bytes.len().min(8) - 1);
            bytes[place] = random.byte();
        }
    }
    (bytes, fds)
}

fn valid(random: &mut Random, listener: &TcpListener, is_mutated: bool) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut ids = [0; MAX_IDS];
    let some = (0..random.below(5) + 1).map(ConnectionId);
    let bytes = match random.below(12) {
        0 => PING.to_vec(),
        1 => LIST_SESSIONS.to_vec(),
        2 => encode_moved(&mut ids, some).to_vec(),
        3 => encode_returned(&mut ids, some).to_vec(),
        4 => encode_move(&mut ids, some).to_vec(),
        5 => encode_close_grant(u32::try_from(random.below(9)).unwrap()).to_vec(),
        6 => encode_resync(random.next()).to_vec(),
        7 => {
            let (mode, reason) = (DrainMode::Migrate, DrainReason::Restart);
            encode_drain(DrainOrder { mode, reason, window: Duration::from_secs(9) }).to_vec()
        }
        8 => return session(random, listener, is_mutated),
        _ => {
            let count = random.below(4) + 1;
            let clients = (0..count).map(|_| client(random, listener, is_mutated));
            let (records, fds): (Vec<_>, Vec<_>) = clients.unzip();
            let mut buffer = [0; MAX_TO_WORKER];
            return (encode_connections(&mut buffer, records.iter()).to_vec(), fds);
        }
    };
    // A message that has none may come with some all the same.
    let fds = if random.one_in(4) { vec![any_descriptor(random)] } else { Vec::new() };
    (bytes, fds)
}

fn session(
    random: &mut Random,
    listener: &TcpListener,
    is_mutated: bool,
) -> (Vec<u8>, Vec<OwnedFd>) {
    let (record, fd) = client(random, listener, is_mutated);
    let head = (0..random.length()).map(|_| random.byte()).collect();
    let (kind, negotiated) = (Kind::WebSocket, None);
    let connection = ConnectionState { kind, head, negotiated, unread: Vec::new() };
    let state = Some(vec![7; random.up_to(50)]);
    let mut image =
        SessionImage { connection, state, left_at: Timestamp::now(), protect: false }.encode();
    image.truncate(10_000);
    if random.one_in(3) {
        let place = random.up_to(image.len() - 1);
        image[place] = random.byte();
    }
    let mut buffer = [0; MAX_TO_WORKER];
    (encode_session(&mut buffer, &record, &image).to_vec(), vec![fd])
}

fn client(
    random: &mut Random,
    listener: &TcpListener,
    is_mutated: bool,
) -> (ConnectionRecord, OwnedFd) {
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, client) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let record = ConnectionRecord {
        id: ConnectionId(if is_mutated { MUTATED } else { random.below(1 << 40) + 1_000_000 }),
        accepted_at: Timestamp::now(),
        key: AffinityKey(random.next()),
        client,
        local: listener.local_addr().unwrap(),
        tag: 7,
    };
    (record, stream.into())
}

fn any_descriptor(random: &mut Random) -> OwnedFd {
    match random.below(3) {
        0 => rustix::pipe::pipe().unwrap().0,
        1 => UnixStream::pair().unwrap().0.into(),
        _ => TcpListener::bind("127.0.0.1:0").unwrap().into(),
    }
}
