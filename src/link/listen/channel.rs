//! The primary's end to one worker that accepts its clients itself.
//!
//! Never waits and never decides where a connection goes; it reports what happened.
//!
//! # Promises
//!
//! * A message counts only if a process of the worker has sent it: the worker's process id is in the scoreboard before
//!   its program runs. The worker itself doesn't get the scoreboard.
//! * Readiness is noted before it is reported, for a successor after a crash.
//! * One message is read at a time, and its sender is looked up only if it could change something.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::closing::Deferred;
use crate::handover::descriptors::{Descriptors, RestoreError, WorkerPart};
use crate::kernel::{Datagram, receive_datagram};
use crate::link::connection::PendingConnection;
use crate::link::dialect::{Capabilities, Dialect, LoadSource};
use crate::link::error::ChannelError;
use crate::link::event::{LinkEvent, SessionEvent};
use crate::link::in_flight::InFlight;
use crate::link::inherit::{Inherit, WorkerFacts};
use crate::link::listen::message::{MAX_MESSAGE, says_ready};
use crate::link::listen::notify::{NOTIFY, NotifySocket};
use crate::link::listen::sender::belongs_to;
use crate::link::native::PAGE;
use crate::link::recovered::Recovered;
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::WorkerId;
use crate::protocol::scoreboard::{Counter, Scoreboard, SharedFlag};

/// The primary's side of one worker's notifications.
#[derive(Debug)]
pub struct Channel {
    notify: NotifySocket,
    /// What is known of the worker, for the supervisor and a successor, too.
    board: Scoreboard,
    /// The memory of the scoreboard.
    page: OwnedFd,
    /// It is ready only when it says so.
    waits_for_word: bool,
    nothing: InFlight,
}

/// Makes the channel to a new worker, and what the worker inherits of it.
///
/// # Errors
///
/// If the kernel has no memory or no descriptor left.
pub(in crate::link) fn start(facts: &WorkerFacts) -> io::Result<(Channel, Inherit)> {
    let (notify, name) = NotifySocket::create()?;
    let (board, page) = Scoreboard::create()?;
    let mut inherit = Inherit::default();
    inherit.set("NOTIFY_SOCKET", name);
    if let Some(cell) = Scoreboard::open(page.as_fd())?.into_cell(Counter::Process) {
        inherit.note_pid_in(cell);
    }
    let waits_for_word = facts.node.wait_ready;
    Ok((Channel { notify, board, page, waits_for_word, nothing: InFlight::new(0) }, inherit))
}

/// The channel of a worker whose primary was another one, from the descriptors that it has left.
///
/// # Errors
///
/// If one of them is missing or is not what it should be.
pub(in crate::link) fn adopt(
    worker: WorkerId,
    descriptors: &mut Descriptors,
    waits_for_word: bool,
) -> Result<Channel, RestoreError> {
    let notify = NotifySocket::adopt(descriptors.require(&NOTIFY.name(worker))?);
    let page = descriptors.require(&PAGE.name(worker))?;
    let unusable = |source| RestoreError::Unusable { name: PAGE.name(worker), source };
    let board = Scoreboard::adopt(&page).map_err(unusable)?;
    Ok(Channel { notify, board, page, waits_for_word, nothing: InFlight::new(0) })
}

impl Channel {
    /// Leaves everything to the successor that this program becomes.
    pub(in crate::link) fn into_descriptors(self, worker: WorkerId, to: &mut Descriptors) {
        to.insert(NOTIFY.name(worker), self.notify.into_descriptor());
        to.insert(PAGE.name(worker), self.page);
    }

    /// Its scoreboard.
    pub(in crate::link) fn page(&self) -> BorrowedFd<'_> {
        self.page.as_fd()
    }

    /// Whether it is ready only when it says so.
    pub(in crate::link) fn waits_for_word(&self) -> bool {
        self.waits_for_word
    }

    /// Whether it has to show that it takes connections: it may be ready, and hasn't yet.
    pub(in crate::link) fn awaits_probe(&self) -> bool {
        !self.is_attached() && (self.has_said_ready() || !self.waits_for_word)
    }

    /// Notes that the worker takes connections; whether that is news.
    pub(in crate::link) fn note_attached(&self) -> bool {
        let is_news = !self.is_attached();
        self.board.set_flag(SharedFlag::Hello);
        is_news
    }

    fn has_said_ready(&self) -> bool {
        self.board.has_flag(SharedFlag::Ready)
    }

    /// Whether a process is the worker's or belongs to it.
    fn is_workers(&self, sender: Option<i32>) -> bool {
        let root = i32::try_from(self.board.get(Counter::Process)).ok().filter(|root| *root > 0);
        sender.zip(root).is_some_and(|(sender, root)| belongs_to(sender, root))
    }

    fn handle(&self, message: &[u8], Datagram { cut, sender, .. }: Datagram) -> LinkEvent {
        let is_first = !self.has_said_ready() && !cut && says_ready(message);
        if is_first && self.is_workers(sender) {
            self.board.set_flag(SharedFlag::Ready);
            return LinkEvent::Ready;
        }
        SessionEvent::Ignored.into()
    }
}

impl Dialect for Channel {
    fn capabilities(&self) -> Capabilities {
        Capabilities { acknowledges: false, load: LoadSource::Kernel, ..Capabilities::HAND_OFF }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notify.as_fd()
    }

    fn descriptors(&self) -> Vec<(WorkerPart, BorrowedFd<'_>)> {
        vec![(NOTIFY, self.as_fd()), (PAGE, self.page.as_fd())]
    }

    fn in_flight(&self) -> &InFlight {
        &self.nothing
    }

    fn in_flight_mut(&mut self) -> &mut InFlight {
        &mut self.nothing
    }

    /// It has taken a connection of the primary's own.
    fn is_attached(&self) -> bool {
        self.board.has_flag(SharedFlag::Hello)
    }

    fn is_ready(&self) -> bool {
        self.is_attached() && (self.has_said_ready() || !self.waits_for_word)
    }

    fn established(&self) -> u64 {
        self.board.get(Counter::Connections)
    }

    fn send(&mut self, _: &VecDeque<PendingConnection>, _: usize) -> Result<bool, ChannelError> {
        Ok(false)
    }

    fn receive(&mut self) -> Result<LinkEvent, ChannelError> {
        let mut bytes = [0; MAX_MESSAGE];
        // A descriptor of a worker may be one whose end has to be waited for.
        let close = |descriptor: OwnedFd| drop(Deferred::from(descriptor));
        let received = receive_datagram(self.as_fd(), &mut bytes, close);
        Ok(match received.map_err(ChannelError::Io)? {
            Some(datagram) => self.handle(&bytes[..datagram.length], datagram),
            None => LinkEvent::Nothing,
        })
    }

    fn complete(
        &mut self,
        _: impl FnMut(PendingConnection),
    ) -> Result<Option<usize>, ChannelError> {
        Ok(Some(0))
    }

    fn take_back(&mut self) -> Vec<PendingConnection> {
        Vec::new()
    }

    /// Its clients are its own. What others send to its socket isn't read any more.
    fn recover(self) -> Recovered {
        Recovered::default()
    }

    /// The worker ends by a signal, which the supervisor sends; the order is for a successor and the counts.
    fn drain(&mut self, order: DrainOrder) {
        self.board.set_drain_order(order);
    }
}
