//! A primary reduced to what moves sessions: two worker processes, and every connection handed from
//! one to the other, again and again.
//!
//! Speaks the wire itself, so that a worker is tested against the words of the protocol and not
//! against the primary's own code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sticky_lb::protocol::ids::{AffinityKey, ConnectionId, Timestamp};
use sticky_lb::protocol::message::{
    ConnectionRecord, MAX_IDS, MAX_TO_PRIMARY, MAX_TO_WORKER, ToPrimary, decode_to_primary,
    encode_connections, encode_move, encode_moved, encode_session,
};
use sticky_lb::protocol::scm_rights::{Received, Sent, receive, send};
use sticky_lb::protocol::scoreboard::{Counter, Scoreboard};

use super::eventually;

/// How often sessions are told to move that haven't.
const PACE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Two workers and what goes between them. Dropping it kills them.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    always: AtomicBool,
    ended: AtomicBool,
    /// How often somebody wanted everybody to move.
    wanted: AtomicU64,
    moves: AtomicU64,
    /// How many have not moved since it was wanted last.
    behind: AtomicU64,
    failure: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Side {
    process: Child,
    channel: OwnedFd,
    scoreboard: Scoreboard,
    settled: u64,
    refused: u64,
    /// What it has to settle, and whether that is a session of the other's.
    sent: VecDeque<(ConnectionId, bool)>,
    ready: bool,
}

#[derive(Debug, Default)]
struct Place {
    side: usize,
    on_its_way: bool,
    moved_for: u64,
}

impl Relay {
    /// With two workers of this command, which have to be ready soon.
    pub fn start(command: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let mut sides = [0, 1].map(|generation| Side::start(command, generation));
        eventually("both workers are ready", || {
            sides.iter_mut().for_each(Side::greet);
            sides.iter().all(|side| side.ready)
        });
        let shared = Arc::new(Shared::default());
        let within = Arc::clone(&shared);
        let thread = std::thread::spawn(move || run(&listener, &mut sides, &within));
        Self { address, shared, thread: Some(thread) }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on every session moves as soon as it can, over and over.
    pub fn move_always(&self) {
        self.shared.always.store(true, Ordering::SeqCst);
    }

    /// Moves all connections there are once, and waits for it.
    pub fn move_all(&self) {
        let before = self.moves();
        self.shared.wanted.fetch_add(1, Ordering::SeqCst);
        eventually("all sessions have moved", || {
            assert_eq!(*self.shared.failure.lock().unwrap(), None);
            self.moves() > before && self.shared.behind.load(Ordering::SeqCst) == 0
        });
    }

    /// How many sessions have moved so far.
    pub fn moves(&self) -> u64 {
        self.shared.moves.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        let failure = self.shared.failure.lock().unwrap().take();
        if !std::thread::panicking() {
            assert_eq!(failure, None);
            assert!(ended.is_none_or(|ended| ended.is_ok()), "the relay panicked");
        }
    }
}

impl Side {
    fn start(command: &[&str], generation: u32) -> Self {
        let flags = SocketFlags::CLOEXEC;
        let (channel, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let (scoreboard, page) = Scoreboard::create().unwrap();
        let mappings = vec![
            FdMapping { parent_fd: far, child_fd: 3 },
            FdMapping { parent_fd: page, child_fd: 4 },
        ];
        let process = Command::new(command[0])
            .args(&command[1..])
            .fd_mappings(mappings)
            .unwrap()
            .envs([("STICKY_LB_CHANNEL", "3"), ("STICKY_LB_SCOREBOARD", "4")])
            .envs([("STICKY_LB_SLOT", "0"), ("STICKY_LB_GENERATION", &generation.to_string())])
            .envs([("STICKY_LB_ORPHAN_TIMEOUT", "0"), ("STICKY_LB_KILL_TIMEOUT", "0")])
            .spawn()
            .unwrap();
        let (settled, refused, sent) = (0, 0, VecDeque::new());
        Self { process, channel, scoreboard, settled, refused, sent, ready: false }
    }

    fn greet(&mut self) {
        while let Some((message, _)) = self.receive() {
            self.ready |= matches!(decode_to_primary(&message), Ok(ToPrimary::Ready));
        }
    }

    fn receive(&self) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        let (mut bytes, mut descriptors) = (vec![0; MAX_TO_PRIMARY], Vec::new());
        match receive(&self.channel, &mut bytes, &mut descriptors).unwrap() {
            Received::Message { length, .. } => {
                bytes.truncate(length);
                Some((bytes, descriptors))
            }
            Received::Empty => None,
            Received::Closed => panic!("a worker has died"),
        }
    }

    fn say(&self, bytes: &[u8], descriptors: &[OwnedFd]) {
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        while send(&self.channel, bytes, &borrowed).unwrap() == Sent::Full {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

fn run(listener: &TcpListener, sides: &mut [Side; 2], shared: &Shared) {
    let mut places = HashMap::new();
    let mut next_id = 0;
    while !shared.ended.load(Ordering::SeqCst) && shared.failure.lock().unwrap().is_none() {
        let watched = [listener.as_fd(), sides[0].channel.as_fd(), sides[1].channel.as_fd()];
        let mut polled = watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let _ = poll(&mut polled, Some(&PACE));
        while let Some(id) = admit(listener, sides, next_id) {
            places.insert(id, Place { side: first_side(id), ..Place::default() });
            next_id += 1;
        }
        for side in [0, 1] {
            settle(sides, side, &mut places, shared);
            while let Some((message, descriptors)) = sides[side].receive() {
                take(sides, side, &message, &descriptors, &mut places, shared);
            }
        }
        push_on(sides, &mut places, shared);
    }
    sides.iter_mut().for_each(|side| {
        let _ = side.process.kill();
        let _ = side.process.wait();
    });
}

fn admit(listener: &TcpListener, sides: &mut [Side; 2], id: u64) -> Option<ConnectionId> {
    let (socket, client) = match listener.accept() {
        Ok(accepted) => accepted,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
        Err(error) => panic!("cannot accept: {error}"),
    };
    socket.set_nonblocking(true).unwrap();
    socket.set_nodelay(true).unwrap();
    let id = ConnectionId(id);
    let (key, accepted_at) = (AffinityKey(id.0), Timestamp::now());
    let local = socket.local_addr().unwrap();
    let record = ConnectionRecord { id, accepted_at, key, client, local, tag: 0 };
    let side = &mut sides[first_side(id)];
    let mut buffer = [0; MAX_TO_WORKER];
    side.say(encode_connections(&mut buffer, [&record].into_iter()), &[socket.into()]);
    side.sent.push_back((id, false));
    Some(id)
}

/// Every other one to the other.
fn first_side(id: ConnectionId) -> usize {
    usize::from(id.0 % 2 == 1)
}

fn settle(
    sides: &mut [Side; 2],
    side: usize,
    places: &mut HashMap<ConnectionId, Place>,
    shared: &Shared,
) {
    let here = &mut sides[side];
    let settled = here.scoreboard.get(Counter::Completed);
    if here.scoreboard.get(Counter::Refused) > here.refused {
        *shared.failure.lock().unwrap() = Some("a worker has refused a session".to_owned());
    }
    let count = usize::try_from(settled - here.settled).unwrap();
    here.settled = settled;
    let taken: Vec<_> = here.sent.drain(..count).filter(|(_, moved)| *moved).collect();
    for (id, _) in taken {
        let mut buffer = [0; MAX_IDS];
        sides[1 - side].say(encode_moved(&mut buffer, [id].into_iter()), &[]);
        let place = places.get_mut(&id).unwrap();
        *place = Place { side, on_its_way: false, moved_for: shared.wanted.load(Ordering::SeqCst) };
        shared.moves.fetch_add(1, Ordering::SeqCst);
    }
}

fn take(
    sides: &mut [Side; 2],
    side: usize,
    message: &[u8],
    descriptors: &[OwnedFd],
    places: &mut HashMap<ConnectionId, Place>,
    shared: &Shared,
) {
    match decode_to_primary(message) {
        Ok(ToPrimary::Session(record, _, image)) => {
            let mut buffer = [0; MAX_TO_WORKER];
            let message = encode_session(&mut buffer, &record, image);
            sides[1 - side].say(message, descriptors);
            sides[1 - side].sent.push_back((record.id, true));
            places.entry(record.id).or_default().on_its_way = true;
        }
        Ok(ToPrimary::Pong) => {}
        other => *shared.failure.lock().unwrap() = Some(format!("a worker said {other:?}")),
    }
}

/// Says again what was said before its time: the handler may not be there yet.
fn push_on(sides: &[Side; 2], places: &mut HashMap<ConnectionId, Place>, shared: &Shared) {
    let wanted = shared.wanted.load(Ordering::SeqCst);
    let always = shared.always.load(Ordering::SeqCst);
    let mut behind = 0;
    for (id, place) in places {
        let is_behind = place.moved_for < wanted;
        behind += u64::from(is_behind);
        if (always || is_behind) && !place.on_its_way {
            let mut buffer = [0; MAX_IDS];
            sides[place.side].say(encode_move(&mut buffer, [*id].into_iter()), &[]);
        }
    }
    shared.behind.store(behind, Ordering::SeqCst);
}
