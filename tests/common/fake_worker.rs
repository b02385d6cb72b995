//! A worker that a test plays by hand: it says what it is told to say, and tells what it hears.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sticky_lb::internals::link::Link;
use sticky_lb::internals::link::seam::{SlotCommand, SlotEvent, SlotEventKind, WorkerId};
use sticky_lb::protocol::drain::DrainOrder;
use sticky_lb::protocol::ids::{ConnectionId, Timestamp};
use sticky_lb::protocol::message::{
    BATCH, ConnectionRecord, HELLO, MAX_ACCEPTED_SESSIONS, MAX_IDS, MAX_OPEN_OFFERS,
    MAX_TO_PRIMARY, MAX_TO_WORKER, READY, SESSIONS, ToWorker, decode_to_worker, encode_offer,
    encode_offer_with_progress, encode_refuse, encode_resync_accepted, encode_resync_done,
    encode_resync_offers,
};
use sticky_lb::protocol::scm_rights::{Received, Sent, receive, send};
use sticky_lb::protocol::scoreboard::{Counter, Scoreboard};
use sticky_lb::protocol::tcp_progress::TcpProgress;

use super::TIMEOUT;
use super::frontend::Frontend;

/// What it has heard.
#[derive(Debug)]
pub enum FromPrimary {
    /// A client.
    Client(ConnectionRecord, OwnedFd),
    /// A session and its image.
    Session(ConnectionRecord, OwnedFd, Vec<u8>),
    /// An order to drain.
    Drain(DrainOrder),
    /// Sessions that are another's now.
    Moved(Vec<u64>),
    /// Sessions that nobody has taken.
    Returned(Vec<u64>),
    /// Sessions to be offered.
    Move(Vec<u64>),
    /// A question.
    ListSessions,
    /// A permission.
    CloseGrant(u32),
    /// Another primary's question, with its number.
    Resync(u64),
    /// The end of the channel.
    End,
}

/// The worker.
#[derive(Debug)]
pub struct FakeWorker {
    /// Its slot and generation.
    pub id: WorkerId,
    end: OwnedFd,
    scoreboard: Scoreboard,
    heard: VecDeque<FromPrimary>,
    /// Of the records that it has had.
    tags: HashMap<u64, u64>,
}

impl FakeWorker {
    /// A worker without a frontend, and the primary's end of its channel. It has said nothing yet.
    pub fn alone(id: WorkerId) -> (Self, Link) {
        let (channel, mut inherit) = Link::native(256).expect("a channel");
        let page = inherit.descriptor("scoreboard").expect("a scoreboard");
        let scoreboard = Scoreboard::open(page).expect("a scoreboard");
        let end = inherit.take("channel").expect("the worker's end");
        (Self { id, end, scoreboard, heard: VecDeque::new(), tags: HashMap::new() }, channel)
    }

    /// Attaches one, and puts it into service when it is ready.
    pub async fn serve<T: Send + 'static>(
        frontend: &mut Frontend<T>,
        id: WorkerId,
        takes_sessions: bool,
    ) -> Self {
        let (mover, channel) = Self::alone(id);
        mover.say(&HELLO);
        if takes_sessions {
            mover.say(&SESSIONS);
        }
        mover.say(&READY);
        let attach = SlotCommand::Attach(id, Box::new(channel.into()));
        frontend.commander.send(attach).await.expect("the frontend runs");
        while !matches!(
            frontend.event().await,
            SlotEvent { worker, kind: SlotEventKind::Ready } if worker == id
        ) {}
        frontend.commander.send(SlotCommand::Serve(id)).await.expect("the frontend runs");
        mover
    }

    /// Sends a message.
    pub fn say(&self, message: &[u8]) {
        self.say_with(message, &[]);
    }

    /// Sends a message with descriptors.
    pub fn say_with(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) {
        super::eventually("there is room", || {
            send(&self.end, message, descriptors).expect("the primary listens") != Sent::Full
        });
    }

    /// Offers a session with a short image, and says how far its socket has been used, if it has a client.
    pub fn offer(&self, record: &ConnectionRecord, socket: &OwnedFd, image: &[u8]) {
        let mut buffer = [0; MAX_TO_PRIMARY];
        let message = match TcpProgress::of(socket) {
            Ok(Some(progress)) => encode_offer_with_progress(&mut buffer, record, progress, image),
            _ => encode_offer(&mut buffer, record, image),
        };
        self.say_with(message, &[socket.as_fd()]);
    }

    /// Offers a session as workers did that couldn't say how far its socket has been used.
    pub fn offer_without_progress(&self, record: &ConnectionRecord, socket: &OwnedFd) {
        let mut buffer = [0; MAX_TO_PRIMARY];
        self.say_with(encode_offer(&mut buffer, record, b"state"), &[socket.as_fd()]);
    }

    /// Offers a session whose image is a file.
    pub fn offer_file(&self, record: &ConnectionRecord, socket: &OwnedFd, image: &OwnedFd) {
        let mut buffer = [0; MAX_TO_PRIMARY];
        let message = encode_offer(&mut buffer, record, &[]);
        self.say_with(message, &[socket.as_fd(), image.as_fd()]);
    }

    /// Acknowledges the next ones, in the order in which they came.
    pub fn settle(&self, count: u64) {
        self.scoreboard.add(Counter::Completed, count);
    }

    /// Refuses the next one.
    pub fn refuse(&self, id: ConnectionId) {
        let mut buffer = [0; MAX_IDS];
        self.say(encode_refuse(&mut buffer, [id].into_iter()));
        self.scoreboard.increment(Counter::Refused);
        self.scoreboard.increment(Counter::Completed);
    }

    /// Its scoreboard, to be written to as no worker should.
    pub fn board(&self, write: impl FnOnce(&Scoreboard)) {
        write(&self.scoreboard);
    }

    /// Answers a report: what it offers and what it has taken. Of what it never had it has to guess the tag.
    pub fn report(&self, number: u64, offers: &[u64], taken: &[u64]) {
        let now = Timestamp::now();
        for some in offers.chunks(BATCH) {
            let offers = some.iter().map(|id| (ConnectionId(*id), now, self.tag(*id)));
            self.say(encode_resync_offers(&mut [0; MAX_OPEN_OFFERS], offers));
        }
        let mut buffer = [0; MAX_ACCEPTED_SESSIONS];
        for some in taken.chunks(BATCH) {
            let taken = some.iter().map(|id| (ConnectionId(*id), self.tag(*id)));
            self.say(encode_resync_accepted(&mut buffer, taken));
        }
        self.say(&encode_resync_done(number));
    }

    fn tag(&self, id: u64) -> u64 {
        self.tags.get(&id).copied().unwrap_or_default()
    }

    /// Is asked by another primary next, and answers.
    pub fn answer(&mut self, offers: &[u64], taken: &[u64]) {
        match self.receive() {
            FromPrimary::Resync(number) => self.report(number, offers, taken),
            other => panic!("no question: {other:?}"),
        }
    }

    /// Orders to drain, by the scoreboard's count.
    pub fn drains(&self) -> u64 {
        self.scoreboard.get(Counter::Drain)
    }

    /// What it hears next, if it hears anything within that time.
    pub fn receive_within(&mut self, time: Duration) -> Option<FromPrimary> {
        let start = SystemTime::now();
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Some(heard);
            }
            let (mut bytes, mut descriptors) = ([0; MAX_TO_WORKER], Vec::new());
            match receive(&self.end, &mut bytes, &mut descriptors).expect("a channel") {
                Received::Closed => return Some(FromPrimary::End),
                Received::Message { length, .. } => self.understand(&bytes[..length], descriptors),
                Received::Empty => {
                    let left = time.saturating_sub(start.elapsed().unwrap_or_default());
                    if left.is_zero() {
                        return None;
                    }
                    let left = Timespec::try_from(left).expect("not so long");
                    let mut polled = [PollFd::new(&self.end, PollFlags::IN)];
                    poll(&mut polled, Some(&left)).expect("a channel");
                }
            }
        }
    }

    /// What it hears next.
    pub fn receive(&mut self) -> FromPrimary {
        self.receive_within(TIMEOUT).unwrap_or_else(|| panic!("{:?} hears nothing", self.id))
    }

    fn understand(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) {
        let ids = |ids: sticky_lb::protocol::message::Ids<'_>| ids.iter().map(|id| id.0).collect();
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().expect("as many descriptors as it takes");
        let heard = match decode_to_worker(bytes).expect("a message") {
            ToWorker::Connections(records) => {
                self.tags.extend(records.iter().map(|record| (record.id.0, record.tag)));
                self.heard.extend(records.iter().map(|record| FromPrimary::Client(record, next())));
                return;
            }
            ToWorker::Session(record, inline) => {
                self.tags.insert(record.id.0, record.tag);
                let (socket, file) = (next(), descriptors.next());
                FromPrimary::Session(record, socket, file.map_or_else(|| inline.to_vec(), read_all))
            }
            ToWorker::Drain(order) => FromPrimary::Drain(order),
            ToWorker::Moved(moved) => FromPrimary::Moved(ids(moved)),
            ToWorker::Returned(returned) => FromPrimary::Returned(ids(returned)),
            ToWorker::Move(moves) => FromPrimary::Move(ids(moves)),
            ToWorker::ListSessions => FromPrimary::ListSessions,
            ToWorker::CloseGrant(count) => FromPrimary::CloseGrant(count),
            ToWorker::Resync(number) => FromPrimary::Resync(number),
            _ => return,
        };
        self.heard.push_back(heard);
    }

    /// The next client, acknowledged.
    pub fn take_client(&mut self) -> (ConnectionRecord, OwnedFd) {
        let FromPrimary::Client(record, socket) = self.receive() else { panic!("no client") };
        self.settle(1);
        (record, socket)
    }

    /// The next session; it is not acknowledged.
    pub fn receive_session(&mut self) -> (ConnectionRecord, OwnedFd, Vec<u8>) {
        match self.receive() {
            FromPrimary::Session(record, socket, image) => (record, socket, image),
            other => panic!("no session: {other:?}"),
        }
    }

    /// Waits for the answers to so many offers: which sessions moved, and which returned.
    pub fn answers(&mut self, count: usize) -> (Vec<u64>, Vec<u64>) {
        let (mut moved, mut returned) = (Vec::new(), Vec::new());
        while moved.len() + returned.len() < count {
            match self.receive() {
                FromPrimary::Moved(ids) => moved.extend(ids),
                FromPrimary::Returned(ids) => returned.extend(ids),
                other => panic!("no answer: {other:?}"),
            }
        }
        (moved, returned)
    }
}

/// A image that travels as a file.
pub fn parcel_file(bytes: &[u8], seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create("image", flags).expect("memory");
    let mut file = File::from(memory);
    file.write_all(bytes).expect("memory");
    fcntl_add_seals(&file, seals).expect("it can be sealed");
    file.into()
}

/// What the primary wants to see of it.
pub fn sealed() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

fn read_all(image: OwnedFd) -> Vec<u8> {
    let file = File::from(image);
    let length = file.metadata().expect("a file").len();
    let mut bytes = vec![0; usize::try_from(length).expect("not so long")];
    file.read_exact_at(&mut bytes, 0).expect("as long as it says");
    bytes
}
