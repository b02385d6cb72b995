//! What dead workers leave, while the kernel is asked what they have done with it.
//!
//! The kernel answers under a socket's lock, and a process that has a copy of the socket can hold that for as long
//! as it likes. So a thread asks, and the accept loop never waits: what has no answer in time is not proven. A
//! thread that waits for long is joined by another, so that one socket keeps no others from being proven; so many
//! at most.
//!
//! The protected sessions of a worker are proven in parts, so that the first ones go on while the others are asked
//! about.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::closing::{ClientSocket, Deferred};
use crate::link::connection::PendingConnection;
use crate::link::evidence::Evidence;
use crate::link::seam::WorkerId;
use crate::protocol::checkpoint::Checkpoint;
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::sessions::protected::ProtectedCopy;

/// How often to look whether the threads get answers, and whether there have been enough looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Looks until what has no answer is not proven: two seconds, where usually it takes some milliseconds. A machine
/// that stands still meanwhile has looked once.
const MAX_LOOKS: u32 = 20;

/// Threads, at most.
const MAX_THREADS: usize = 8;

/// Protected sessions that are proven together.
const PART: usize = 64;

/// What a dead worker leaves and about which the kernel is asked: everything, or a part of it.
#[derive(Debug)]
pub(super) struct Remains {
    /// The worker.
    pub worker: WorkerId,
    /// Whether it had stalled.
    pub has_stalled: bool,
    /// Connections on their way to it, neither acknowledged nor taken back.
    pub in_flight: Vec<PendingConnection>,
    /// Its checkpoint, and copies of its protected sessions.
    pub(super) protected: Option<(Arc<Deferred<Checkpoint>>, Vec<ProtectedCopy>)>,
}

impl Remains {
    fn copies(&self) -> &[ProtectedCopy] {
        self.protected.as_ref().map_or(&[], |(_, copies)| copies)
    }

    /// How many protected sessions there are.
    pub(super) fn protected_count(&self) -> u64 {
        self.copies().len() as u64
    }

    /// What was on its way comes with the first part. None if there is nothing.
    pub(super) fn into_parts(self) -> Vec<Self> {
        let Self { worker, has_stalled, mut in_flight, protected } = self;
        let (checkpoint, mut copies) = match protected {
            Some((checkpoint, copies)) => (Some(checkpoint), copies),
            None => (None, Vec::new()),
        };
        let mut parts = Vec::new();
        while !(in_flight.is_empty() && copies.is_empty()) {
            let some = copies.split_off(copies.len().saturating_sub(PART));
            let protected = checkpoint.clone().map(|checkpoint| (checkpoint, some));
            let in_flight = std::mem::take(&mut in_flight);
            parts.push(Self { worker, has_stalled, in_flight, protected });
        }
        parts
    }

    fn len(&self) -> usize {
        self.in_flight.len() + self.copies().len()
    }

    /// The socket of this number, in the order in which the kernel is asked: clients that wait for a worker
    /// before sessions.
    fn question(&self, number: usize) -> Option<Question<&ClientSocket>> {
        let on_its_way = self.in_flight.get(number).map(|one| Question {
            socket: &one.socket,
            client: one.record.client,
            is_session: one.transfer.is_some(),
        });
        on_its_way.or_else(|| {
            let copy = self.copies().get(number - self.in_flight.len())?;
            Some(Question { socket: &copy.socket, client: copy.record.client, is_session: true })
        })
    }

    /// Whether a connection was on its way. That a session is protected, only its worker has said: another one may
    /// have it since.
    fn had_in_flight(&self, id: ConnectionId) -> bool {
        self.in_flight.iter().any(|one| one.record.id == id)
    }
}

/// A socket that is asked about.
#[derive(Debug)]
struct Question<S> {
    socket: S,
    client: SocketAddr,
    is_session: bool,
}

/// The answers, in the order of [`Remains::question`]; where there is none, nothing is proven.
pub(super) type Answers = Vec<Option<Evidence>>;

/// The remains of dead workers about which the kernel is asked.
pub(super) struct Proofs {
    shared: Arc<Shared>,
    /// How many there are: only the accept loop brings and takes them, and usually there is none.
    count: usize,
    /// The number of those that come next.
    next: u64,
    /// When to look whether the threads get answers.
    look_at: Timestamp,
    /// Answers that had come when that was looked at.
    seen: u64,
}

/// What the threads and the accept loop share.
#[derive(Debug)]
struct Shared {
    work: Mutex<Work>,
    /// Readable when some remains have all their answers.
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Work {
    remains: Vec<OpenRemains>,
    threads: usize,
    /// Of all workers since the start.
    answered: u64,
}

#[derive(Debug)]
struct OpenRemains {
    number: u64,
    remains: Remains,
    looks: u32,
    /// The number of the next question.
    next: usize,
    answers: Answers,
    /// How many answers have come.
    answered: usize,
}

/// A question on its way to the kernel.
#[derive(Debug)]
struct Asked {
    remains: u64,
    number: usize,
    /// The socket is a copy of its own, as the accept loop may close the other one meanwhile; none of a socket of
    /// which there can't be a copy.
    question: Question<Option<ClientSocket>>,
}

impl Proofs {
    /// # Errors
    ///
    /// If the kernel has no descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { work: Mutex::default(), wake });
        Ok(Self { shared, count: 0, next: 0, look_at: Timestamp(0), seen: 0 })
    }

    /// Readable when there is something to take.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }

    /// Hears what has woken it.
    pub(super) fn clear_wake(&self) {
        // It is empty only if nothing has woken it.
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
    }

    /// Has the kernel asked about all of these.
    pub(super) fn ask(&mut self, remains: Remains, now: Timestamp) {
        let mut work = self.shared.lock();
        self.count += 1;
        if work.remains.is_empty() {
            self.look_at = now + LOOK_INTERVAL;
        }
        let answers = std::iter::repeat_with(|| None).take(remains.len()).collect();
        let number = self.next;
        self.next += 1;
        work.remains.push(OpenRemains { number, remains, looks: 0, next: 0, answers, answered: 0 });
        if work.threads == 0 {
            self.start_thread(&mut work);
        }
    }

    /// Remains with all answers, or that were looked at often enough.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<(Remains, Answers)> {
        if self.count == 0 {
            return None;
        }
        let mut work = self.shared.lock();
        if now >= self.look_at {
            if work.answered == self.seen {
                self.start_thread(&mut work);
            }
            (self.seen, self.look_at) = (work.answered, now + LOOK_INTERVAL);
            work.remains.iter_mut().for_each(|open| open.looks += 1);
        }
        let is_over = |open: &OpenRemains| open.is_answered() || open.looks >= MAX_LOOKS;
        let position = work.remains.iter().position(is_over)?;
        drop(work);
        Some(self.take_out(position))
    }

    /// The same for any that is left, with the answers that it has.
    pub(super) fn take_any(&mut self) -> Option<(Remains, Answers)> {
        (self.count > 0).then(|| self.take_out(0))
    }

    fn take_out(&mut self, position: usize) -> (Remains, Answers) {
        let mut work = self.shared.lock();
        let OpenRemains { remains, answers, answered, .. } = work.remains.remove(position);
        self.count -= 1;
        if answered < answers.len() {
            tracing::warn!(
                slot = remains.worker.slot.0,
                sockets = answers.len() - answered,
                "kernel does not tell what a dead worker has done with its sockets, another process \
                 uses them: they are closed",
            );
        }
        (remains, answers)
    }

    /// When [`Self::take`] has something to do, unless it is woken before.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        (self.count > 0).then_some(self.look_at)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a connection is among them that was on its way.
    pub(super) fn hold(&self, id: ConnectionId) -> bool {
        self.count > 0
            && self.shared.lock().remains.iter().any(|open| open.remains.had_in_flight(id))
    }

    /// Without one more, those that are there go on, or what they ask is given up.
    fn start_thread(&self, work: &mut Work) {
        if work.threads == MAX_THREADS {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("proofs".to_owned());
        work.threads += usize::from(thread.spawn(move || shared.answer_all()).is_ok());
    }
}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proofs").field("look_at", &self.look_at).finish_non_exhaustive()
    }
}

impl OpenRemains {
    fn next(&mut self) -> Option<Asked> {
        let (remains, number) = (self.number, self.next);
        let Question { socket, client, is_session } = self.remains.question(number)?;
        let copy = socket.as_fd().try_clone_to_owned().ok().map(ClientSocket::from);
        self.next += 1;
        Some(Asked { remains, number, question: Question { socket: copy, client, is_session } })
    }

    fn is_answered(&self) -> bool {
        self.answered == self.answers.len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        // A thread that panics has left everything whole.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until no question is left.
    fn answer_all(&self) {
        while let Some(Asked { remains, number, question }) = self.next() {
            let Question { socket, client, is_session } = question;
            let evidence = match &socket {
                Some(socket) => Evidence::of(socket, client, is_session),
                None => Evidence::none(),
            };
            self.answer(remains, number, evidence);
        }
    }

    /// The next question; without one the thread ends.
    fn next(&self) -> Option<Asked> {
        let mut work = self.lock();
        let asked = work.remains.iter_mut().find_map(OpenRemains::next);
        work.threads -= usize::from(asked.is_none());
        asked
    }

    fn answer(&self, remains: u64, number: usize, evidence: Evidence) {
        let mut work = self.lock();
        let open = work.remains.iter_mut().find(|open| open.number == remains);
        // It may be given up.
        let Some(open) = open else { return };
        open.answers[number] = Some(evidence);
        open.answered += 1;
        if open.is_answered() {
            // It is full only if it wakes already.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
        work.answered += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::protocol::checkpoint;
    use crate::protocol::ids::{AffinityKey, Generation, SlotId};
    use crate::protocol::message::ConnectionRecord;

    /// A connection that nobody has used, and its client.
    fn connection(listener: &TcpListener, id: u64) -> (PendingConnection, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        let record = ConnectionRecord {
            id: ConnectionId(id),
            accepted_at: Timestamp(1),
            key: AffinityKey(1),
            client: address,
            local: listener.local_addr().unwrap(),
            tag: 0,
        };
        let socket = OwnedFd::from(socket).into();
        (PendingConnection { record, socket, crashes: 0, transfer: None }, client)
    }

    fn wait(proofs: &Proofs) {
        let mut look = [PollFd::new(proofs, PollFlags::IN)];
        let time = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(poll(&mut look, Some(&time)), Ok(1), "nothing is proven");
    }

    impl AsFd for Proofs {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.as_fd()
        }
    }

    /// Three times as many workers at once as there may be threads.
    #[test]
    fn all_that_many_workers_leave_is_proven() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut proofs, mut clients) = (Proofs::new().unwrap(), Vec::new());
        let now = Timestamp::now();
        assert!(proofs.take(now).is_none() && proofs.next_due().is_none());
        for generation in 0..24 {
            let worker = WorkerId { slot: SlotId(1), generation: Generation(generation) };
            let connection = |number| connection(&listener, u64::from(generation) * 10 + number);
            let (in_flight, some): (Vec<_>, Vec<_>) = (0..3).map(connection).unzip();
            clients.extend(some);
            proofs.ask(Remains { worker, has_stalled: false, in_flight, protected: None }, now);
        }
        assert!(proofs.hold(ConnectionId(12)) && !proofs.hold(ConnectionId(13)));
        let mut workers = 0;
        while !proofs.is_empty() {
            wait(&proofs);
            proofs.clear_wake();
            while let Some((remains, answers)) = proofs.take(now) {
                workers += 1;
                assert_eq!(answers.len(), 3);
                for (connection, evidence) in remains.in_flight.iter().zip(answers) {
                    assert!(connection.is_untouched(&evidence.unwrap()));
                }
            }
        }
        assert_eq!(workers, 24);
        assert!(!proofs.hold(ConnectionId(12)));
    }

    /// It may have given it away since, and who has it now may offer it.
    #[test]
    fn a_session_that_a_dead_worker_has_had_protected_is_not_held() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (PendingConnection { record, socket, .. }, _client) = connection(&listener, 1);
        let checkpoint = Checkpoint::open(checkpoint::create().unwrap()).unwrap();
        let copy = ProtectedCopy { record, socket, place: 1, crashes: 0 };
        let protected = Some((Arc::new(Deferred::from(checkpoint)), vec![copy]));
        let worker = WorkerId { slot: SlotId(1), generation: Generation(1) };
        let mut proofs = Proofs::new().unwrap();
        let now = Timestamp::now();
        proofs.ask(Remains { worker, has_stalled: false, in_flight: Vec::new(), protected }, now);
        assert!(!proofs.is_empty() && !proofs.hold(record.id));
    }

    #[test]
    fn what_has_no_answer_in_time_is_given_back_without() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, _client) = connection(&listener, 1);
        let mut proofs = Proofs::new().unwrap();
        // As if all were waiting.
        proofs.shared.lock().threads = MAX_THREADS;
        let worker = WorkerId { slot: SlotId(1), generation: Generation(1) };
        let (now, in_flight) = (Timestamp::now(), vec![one]);
        proofs.ask(Remains { worker, has_stalled: false, in_flight, protected: None }, now);
        assert_eq!(proofs.next_due(), Some(now + LOOK_INTERVAL));
        // The machine has stood still.
        let mut late = now + Duration::from_secs(3_600);
        for _ in 1..MAX_LOOKS {
            assert!(proofs.take(late).is_none());
            assert_eq!(proofs.next_due(), Some(late + LOOK_INTERVAL));
            late = late + LOOK_INTERVAL;
        }
        let (remains, answers) = proofs.take(late).unwrap();
        assert_eq!((remains.in_flight.len(), answers.len()), (1, 1));
        assert!(answers[0].is_none() && proofs.is_empty());
    }

    #[test]
    fn the_first_part_has_what_was_on_its_way_and_each_some_sessions() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let worker = WorkerId { slot: SlotId(1), generation: Generation(1) };
        let parts = |clients: u64, sessions: u64| {
            let connection = |id| connection(&listener, id).0;
            let copy = |id| {
                let PendingConnection { record, socket, .. } = connection(id);
                ProtectedCopy { record, socket, place: 1, crashes: 0 }
            };
            let checkpoint = Checkpoint::open(checkpoint::create().unwrap()).unwrap();
            let copies: Vec<_> = (0..sessions).map(copy).collect();
            let protected = (sessions > 0).then(|| (Arc::new(Deferred::from(checkpoint)), copies));
            let in_flight = (0..clients).map(connection).collect();
            let parts = Remains { worker, has_stalled: false, in_flight, protected }.into_parts();
            let lengths = parts.iter().map(|part| (part.in_flight.len(), part.copies().len()));
            lengths.collect::<Vec<_>>()
        };
        assert_eq!(parts(0, 0), []);
        assert_eq!(parts(2, 0), [(2, 0)]);
        assert_eq!(parts(2, 64), [(2, 64)]);
        assert_eq!(parts(2, 130), [(2, 64), (0, 64), (0, 2)]);
        assert_eq!(parts(0, 3), [(0, 3)]);
    }
}
