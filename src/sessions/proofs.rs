//! What dead workers leave, while the kernel is asked what they have done with it.
//!
//! Each worker's sockets are asked about on a thread of their own: the kernel answers under a socket's lock, and
//! a process that has a copy of the socket can hold that for as long as it likes. The accept loop never waits:
//! what has no answer in time is not proven. Bounded: so many threads at a time, and what comes while all of them
//! wait is not proven.

use std::collections::VecDeque;
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

/// How long the kernel may take to tell about all that a worker has left: usually some milliseconds.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Threads that wait for an answer, at most.
const MAX_THREADS: usize = 8;

/// Everything that a dead worker leaves and about which the kernel is asked.
#[derive(Debug)]
pub(super) struct Estate {
    /// The worker.
    pub worker: WorkerId,
    /// Whether it had stalled.
    pub has_stalled: bool,
    /// Connections on their way to it, neither acknowledged nor taken back.
    pub in_flight: Vec<PendingConnection>,
    /// Its checkpoint, and copies of its protected sessions.
    pub(super) protected: Option<(Arc<Deferred<Checkpoint>>, Vec<ProtectedCopy>)>,
}

impl Estate {
    fn copies(&self) -> &[ProtectedCopy] {
        self.protected.as_ref().map_or(&[], |(_, copies)| copies)
    }

    /// How many protected sessions there are.
    pub(super) fn protected_count(&self) -> u64 {
        self.copies().len() as u64
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
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

    fn has(&self, id: ConnectionId) -> bool {
        let in_flight = self.in_flight.iter().map(|one| one.record.id);
        in_flight.chain(self.copies().iter().map(|copy| copy.record.id)).any(|one| one == id)
    }
}

/// A socket that is asked about.
#[derive(Debug)]
struct Question<S> {
    socket: S,
    client: SocketAddr,
    is_session: bool,
}

/// The answers, in the order of [`Estate::question`]; where there is none, nothing is proven.
pub(super) type Answers = VecDeque<Evidence>;

/// Estates about which the kernel is asked.
pub(super) struct Proofs {
    asked: Vec<Asked>,
    /// Readable when an estate has all its answers.
    wake: Arc<OwnedFd>,
}

#[derive(Debug)]
struct Asked {
    until: Timestamp,
    shared: Arc<Shared>,
}

/// An estate that its thread and the accept loop share. The loop takes it out of there in the end, however far the
/// thread is.
#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    estate: Option<Estate>,
    answers: Answers,
    is_done: bool,
}

impl Proofs {
    /// # Errors
    ///
    /// If the kernel has no descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { asked: Vec::new(), wake: Arc::new(wake) })
    }

    /// Readable when there is something to take.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Has the kernel asked.
    pub(super) fn ask(&mut self, estate: Estate, now: Timestamp) {
        let shared =
            Arc::new(Shared(Mutex::new(State { estate: Some(estate), ..State::default() })));
        let (theirs, wake) = (Arc::clone(&shared), Arc::clone(&self.wake));
        // One that waits has a share of the wake of its own.
        let has_room = Arc::strong_count(&self.wake) <= MAX_THREADS + 1;
        let ask = move || {
            theirs.answer_all();
            // It is full only if it wakes already.
            let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
        };
        let thread = thread::Builder::new().name("proofs".to_owned());
        let is_asked = has_room && thread.spawn(ask).is_ok();
        self.asked.push(Asked { until: if is_asked { now + TIMEOUT } else { now }, shared });
    }

    /// An estate with all its answers, or whose time is over.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<(Estate, Answers)> {
        let position = self
            .asked
            .iter()
            .position(|asked| now >= asked.until || asked.shared.lock().is_done)?;
        let mut state = self.asked.swap_remove(position).shared.take();
        let estate = state.estate.take()?;
        let open = estate.len().saturating_sub(state.answers.len());
        if open > 0 {
            tracing::warn!(
                slot = estate.worker.slot.0,
                sockets = open,
                "kernel does not tell what a dead worker has done with its sockets, another process \
                 uses them: they are closed",
            );
        }
        Some((estate, state.answers))
    }

    /// Hears what has woken it.
    pub(super) fn clear_wake(&self) {
        // It is empty only if nothing has woken it.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// When [`Self::take`] has something that it has not now, unless it is woken before.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.asked.iter().map(|asked| asked.until).min()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Whether a connection is among them.
    pub(super) fn hold(&self, id: ConnectionId) -> bool {
        let has = |asked: &Asked| asked.shared.lock().estate.as_ref().is_some_and(|it| it.has(id));
        self.asked.iter().any(has)
    }
}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proofs").field("asked", &self.asked.len()).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panics has left a state that is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes everything out: the thread finds nothing more.
    fn take(&self) -> State {
        std::mem::take(&mut *self.lock())
    }

    fn answer_all(&self) {
        while let Some(Question { socket, client, is_session }) = self.next() {
            let evidence = match &socket {
                Some(socket) => Evidence::of(socket, client, is_session),
                None => Evidence::none(),
            };
            self.lock().answers.push_back(evidence);
        }
        self.lock().is_done = true;
    }

    /// The next one to ask about, by a copy of its own: the loop may close the other one meanwhile. None of a
    /// socket of which there can't be a copy.
    fn next(&self) -> Option<Question<Option<ClientSocket>>> {
        let state = self.lock();
        let next = state.estate.as_ref()?.question(state.answers.len())?;
        let copy = next.socket.as_fd().try_clone_to_owned().ok();
        let Question { client, is_session, .. } = next;
        Some(Question { socket: copy.map(ClientSocket::from), client, is_session })
    }
}
