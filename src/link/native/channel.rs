//! The primary's end of the channel to one worker that speaks the native protocol.
//!
//! Never waits and never decides where a connection goes; it reports what happened.
//!
//! # Promises
//!
//! * A connection that is sent stays in the sender's queue or is kept here until the worker has
//!   acknowledged it. There is no third place.
//! * A session that the worker has offered is its own again when it receives `returned`, and another's when
//!   it receives `moved`; it receives one of the two.
//! * The primary's copy is closed as soon as the acknowledgement is seen: a copy kept longer would
//!   withhold the FIN from the client.
//! * A connection that another primary has sent before it died is the worker's, or is found in the channel
//!   unread, or was lost with both. Until it is known which, nothing is sent.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use crate::closing::Deferred;
use crate::handover::descriptors::{Descriptors, RestoreError, WorkerPart};
use crate::link::connection::PendingConnection;
use crate::link::dialect::{Capabilities, Dialect, LoadSource};
use crate::link::error::ChannelError;
use crate::link::event::{LinkEvent, SessionEvent};
use crate::link::in_flight::InFlight;
use crate::link::inherit::Inherit;
use crate::link::native::handshake::HandshakeFlags;
use crate::link::native::outbox::{Outgoing, Question};
use crate::link::native::protect;
use crate::link::native::resync::Resync;
use crate::link::native::sessions::Sessions;
use crate::link::native::transfer;
use crate::link::native::transport::{ReceivedFds, Transport};
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::{ConnectionId, Timestamp, WorkerId};
use crate::protocol::message::{
    BATCH, Ids, MAX_IDS, MAX_TO_PRIMARY, MAX_TO_WORKER, PING, Records, ToPrimary, ToWorker,
    decode_to_primary, decode_to_worker,
};
use crate::protocol::scm_rights::Sent;
use crate::protocol::scoreboard::{Counter, Scoreboard, SharedFlag};

/// The primary's side of one worker's channel.
#[derive(Debug)]
pub struct Channel {
    pub(super) transport: Transport,
    pub(super) in_flight: InFlight,
    pub(super) handshake: HandshakeFlags,
    /// Pings without a pong.
    pub(super) pings: u64,
    pub(super) sessions: Sessions,
    pub(super) resync: Resync,
}

impl Channel {
    /// Makes a channel and the descriptors that the worker inherits of it. At most `credits` connections will
    /// be unacknowledged at a time.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory or no descriptor left.
    pub fn create(credits: usize) -> io::Result<(Self, Inherit)> {
        let (transport, inherit) = Transport::create()?;
        Ok((Self::new(transport, InFlight::new(credits)), inherit))
    }

    /// Its scoreboard.
    pub(in crate::link) fn page(&self) -> BorrowedFd<'_> {
        self.transport.page()
    }

    /// Whether the worker has sent something that was not received.
    pub(in crate::link) fn has_input(&self) -> bool {
        rustix::io::ioctl_fionread(self.transport.socket()).is_ok_and(|unread| unread > 0)
    }

    /// The channel of a worker whose primary has died, from the descriptors that were kept. Messages that the
    /// worker had sent are noted on the scoreboard. At most `credits` connections will be unacknowledged at a
    /// time.
    ///
    /// # Errors
    ///
    /// If one of them is missing or is not what it should be.
    pub fn adopt(
        worker: WorkerId,
        descriptors: &mut Descriptors,
        credits: usize,
    ) -> Result<Self, RestoreError> {
        let transport = Transport::take_over(worker, descriptors)?;
        let mut channel = Self::new(transport, InFlight::new(credits));
        channel.handshake = HandshakeFlags::noted(channel.board());
        channel.resync = Resync::after_crash(worker.slot, channel.board());
        channel.note_no_copies();
        channel.ask();
        Ok(channel)
    }

    /// Copies of protected sessions have gone with the primary that had them, until the worker sends others: who
    /// ends before is not protected.
    pub(super) fn note_no_copies(&self) {
        self.board().set(Counter::Protected, 0);
    }

    pub(super) fn new(transport: Transport, in_flight: InFlight) -> Self {
        Self {
            transport,
            in_flight,
            handshake: HandshakeFlags::default(),
            pings: 0,
            sessions: Sessions::default(),
            resync: Resync::default(),
        }
    }

    /// Asks the worker what another primary has to know.
    pub(super) fn ask(&mut self) {
        let question = self.resync.question(self.handshake.takes_sessions);
        self.sessions.outbox.question = Some(question);
    }

    /// The worker hasn't received the question, or it was the wrong one.
    fn ask_again(&mut self) {
        self.resync.restart();
        self.ask();
    }

    fn board(&self) -> &Scoreboard {
        self.transport.scoreboard()
    }

    fn receive_message(
        &mut self,
        message: &ToPrimary<'_>,
        fds: ReceivedFds,
    ) -> Result<LinkEvent, ChannelError> {
        Ok(match message {
            ToPrimary::Hello => {
                HandshakeFlags::hello(self.board());
                LinkEvent::Attached
            }
            // The supervisor has heard it.
            ToPrimary::Ready if self.handshake.ready => SessionEvent::Ignored.into(),
            ToPrimary::Ready => {
                self.handshake.receive_ready(self.transport.scoreboard());
                LinkEvent::Ready
            }
            ToPrimary::Refuse(ids) => LinkEvent::Refused(self.receive_refusal(*ids)?),
            ToPrimary::Pong => self.receive_pong()?,
            ToPrimary::ReplaceMe => {
                self.board().set_flag(SharedFlag::ReplaceMe);
                LinkEvent::ReplaceMe
            }
            ToPrimary::Checkpoint | ToPrimary::Protect(..) | ToPrimary::Unprotect(_) => {
                if !self.handshake.takes_sessions {
                    return Err(ChannelError::NoSessions);
                }
                SessionEvent::Protection(protect::open(message, fds)?).into()
            }
            _ => self.receive_of_session(message, fds)?.into(),
        })
    }

    fn receive_pong(&mut self) -> Result<LinkEvent, ChannelError> {
        let pings = self.pings.checked_sub(1);
        // It may answer a ping of the primary before.
        let pings = pings.or_else(|| self.resync.is_lost.then_some(0));
        self.pings = pings.ok_or(ChannelError::NoPing)?;
        Ok(LinkEvent::Pong)
    }

    /// The places of refused connections stay until the worker has counted them as completed. Refusals of
    /// connections that a dead primary has sent leave nothing to give to another worker.
    fn receive_refusal(&mut self, ids: Ids<'_>) -> Result<Vec<PendingConnection>, ChannelError> {
        if let Some(unknown) = ids.iter().find(|id| !self.in_flight.contains(*id))
            && !self.resync.is_lost
        {
            return Err(ChannelError::UnknownConnection(unknown));
        }
        // An id that stands there twice is released once.
        Ok(ids.iter().filter_map(|id| self.in_flight.refuse(id)).collect())
    }

    /// Messages that only a worker may send that migrates sessions.
    fn receive_of_session(
        &mut self,
        message: &ToPrimary<'_>,
        fds: ReceivedFds,
    ) -> Result<SessionEvent, ChannelError> {
        if let ToPrimary::Sessions = message {
            let is_lenient = self.resync.is_lost;
            self.handshake.receive_sessions(is_lenient, self.transport.scoreboard())?;
            return Ok(SessionEvent::Enabled);
        }
        if !self.handshake.takes_sessions {
            if !self.resync.is_lost {
                return Err(ChannelError::NoSessions);
            }
            // It has said so to a primary that died before it could outgoing it.
            self.handshake.enable_sessions(self.transport.scoreboard());
            self.ask_again();
        }
        match message {
            ToPrimary::Session(record, usage, inline) => {
                self.sessions.receive_offer(*record, *usage, inline, fds)
            }
            ToPrimary::CloseRequest(count, within) => {
                Ok(SessionEvent::CloseRequest(*count, *within))
            }
            ToPrimary::MigrationFailed(ids) => Ok(SessionEvent::Failed(ids.iter().collect())),
            // It may answer the primary before.
            ToPrimary::SessionList(_) if self.resync.is_pending() => Ok(SessionEvent::Ignored),
            ToPrimary::SessionList(keys) => self.sessions.receive_list(*keys),
            ToPrimary::ResyncOffers(offers) => self.resync.receive_offers(*offers),
            ToPrimary::ResyncAccepted(sessions) => self.resync.receive_taken(*sessions),
            ToPrimary::ResyncDone(number) => {
                self.resync.receive_end(*number, &self.sessions.offered)
            }
            _ => Err(ChannelError::NoSessions),
        }
    }

    /// The next message that may be sent. A worker that is resynchronised gets the question alone.
    fn next_outgoing(&self) -> Option<Outgoing> {
        let may_go =
            |outgoing: &Outgoing| matches!(outgoing, Outgoing::Question(_)) || !self.is_resyncing();
        self.sessions.outbox.next().filter(may_go)
    }

    fn outgoing_sent(&mut self, outgoing: Outgoing) {
        if let Outgoing::Question(question) = outgoing {
            self.pings += u64::from(question == Question::Ping);
            if self.resync.finishes {
                self.transport.end_sending();
            }
        }
        self.sessions.sent(outgoing);
    }

    /// Whether the primary before has ended the channel: that was its order to drain.
    fn is_finished(&self, outgoing: Outgoing) -> bool {
        outgoing == Outgoing::Question(Question::Ping) && self.board().get(Counter::Drain) > 0
    }

    /// The worker has not received this message and never will.
    fn requeue(&mut self, message: &ToWorker<'_>) {
        match message {
            ToWorker::Ping => {
                self.pings = self.pings.saturating_sub(1);
                if self.is_resyncing() && !self.handshake.takes_sessions {
                    self.ask_again();
                }
            }
            ToWorker::Resync(number) if self.resync.is_asked_for(*number) => self.ask_again(),
            _ => self.sessions.requeue(message),
        }
    }

    /// Ends what goes to a worker that takes no sessions: it receives the rest, then end of file, and begins to
    /// drain. Its answers still come.
    fn finish(&mut self, order: DrainOrder) {
        self.board().set_drain_order(order);
        if self.sessions.outbox.question.is_some() {
            // That comes before.
            self.resync.finishes = true;
            return;
        }
        self.transport.end_sending();
    }

    /// Notes how many sessions are on their way, for a primary that has to go on from here.
    fn note_sessions(&self, count: usize) {
        self.board().set(Counter::SessionsSent, count as u64);
    }

    /// A message with a session that was taken back.
    fn take_back_session(
        &mut self,
        message: &ToWorker<'_>,
        fds: ReceivedFds,
    ) -> Option<PendingConnection> {
        let ToWorker::Session(record, inline) = message else { return None };
        let Some(slot) = self.resync.pending_slot() else {
            return self.in_flight.withdraw(record.id);
        };
        // How far its socket had been used, its sender has told the primary that died.
        let offer = transfer::open(*record, None, inline, fds).ok().flatten();
        self.resync.found.extend(offer.map(|offer| offer.found(slot)));
        None
    }
}

impl Dialect for Channel {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            batch: BATCH,
            ping: true,
            sessions: self.handshake.takes_sessions,
            acknowledges: true,
            close_frames: true,
            load: LoadSource::Worker,
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.socket()
    }

    fn descriptors(&self) -> Vec<(WorkerPart, BorrowedFd<'_>)> {
        self.transport.descriptors().into()
    }

    fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    fn in_flight_mut(&mut self) -> &mut InFlight {
        &mut self.in_flight
    }

    fn is_attached(&self) -> bool {
        self.handshake.hello_received
    }

    fn is_ready(&self) -> bool {
        self.handshake.ready
    }

    fn established(&self) -> u64 {
        self.board().get(Counter::Connections)
    }

    fn waits_since(&self) -> Option<Timestamp> {
        self.in_flight.oldest().or_else(|| self.resync.pending_since())
    }

    fn send(
        &mut self,
        queue: &VecDeque<PendingConnection>,
        count: usize,
    ) -> Result<bool, ChannelError> {
        if self.in_flight.counts().completed == 0 && self.in_flight.is_empty() {
            self.board().set_flag(SharedFlag::Served);
        }
        let Some(session) = queue.front().filter(|one| one.transfer.is_some()) else {
            return self.transport.send_connections(queue, count);
        };
        let Some(transfer) = &session.transfer else { return Ok(false) };
        // Before: a primary that follows a crash must not believe that it was not sent.
        self.board().set(Counter::LastSession, Timestamp::now().0);
        let is_sent = self.transport.send_session(session, &transfer.content)?;
        if is_sent {
            self.note_sessions(self.in_flight.sessions() + 1);
        }
        Ok(is_sent)
    }

    fn receive(&mut self) -> Result<LinkEvent, ChannelError> {
        let mut bytes = [0; MAX_TO_PRIMARY];
        let Some((bytes, fds)) = self.transport.receive(&mut bytes)? else {
            return Ok(LinkEvent::Nothing);
        };
        let message = decode_to_primary(bytes)?;
        if !fds.is_none() && !protect::may_carry_descriptors(&message) {
            return Err(ChannelError::Descriptors);
        }
        let is_hello = matches!(message, ToPrimary::Hello);
        self.handshake.receive(is_hello, self.resync.is_lost)?;
        self.receive_message(&message, fds)
    }

    fn complete(
        &mut self,
        acknowledged: impl FnMut(PendingConnection),
    ) -> Result<Option<usize>, ChannelError> {
        if self.is_resyncing() {
            return Ok(Some(0));
        }
        // In this order: a refusal is counted before it is completed.
        let completed = self.board().get(Counter::Completed);
        let refused = self.board().get(Counter::Refused);
        self.in_flight.complete(completed, refused, acknowledged)
    }

    fn missing_refusal(&self) -> ChannelError {
        ChannelError::Scoreboard {
            completed: self.board().get(Counter::Completed),
            refused: self.board().get(Counter::Refused),
        }
    }

    fn take_back(&mut self) -> Vec<PendingConnection> {
        let mut taken = Vec::new();
        let mut bytes = [0; MAX_TO_WORKER];
        // Connections that another primary has sent are nowhere else: their descriptors are taken, too.
        while let Some((bytes, fds)) = self.transport.take_back(&mut bytes, self.is_resyncing()) {
            match decode_to_worker(bytes) {
                Ok(ToWorker::Connections(records)) if self.is_resyncing() => {
                    taken.extend(found(records, fds));
                }
                Ok(ToWorker::Connections(records)) => {
                    let ids = records.iter().map(|record| record.id);
                    taken.extend(ids.filter_map(|id| self.in_flight.withdraw(id)));
                }
                Ok(session @ ToWorker::Session(..)) => {
                    taken.extend(self.take_back_session(&session, fds));
                }
                Ok(message) => self.requeue(&message),
                Err(_) => {}
            }
        }
        taken
    }

    fn drain(&mut self, order: DrainOrder) {
        if !self.handshake.takes_sessions {
            return self.finish(order);
        }
        self.board().set_drain_order(order);
        self.sessions.outbox.drain = Some(order);
    }

    fn ping(&mut self) -> Result<(), ChannelError> {
        match self.transport.send(&PING)? {
            Sent::Queued => {
                self.pings += 1;
                Ok(())
            }
            Sent::Full => Ok(()),
            Sent::Closed => Err(ChannelError::Closed),
        }
    }

    fn has_outgoing(&self) -> bool {
        self.next_outgoing().is_some()
    }

    fn send_outgoing(&mut self) -> Result<(), ChannelError> {
        let mut buffer = [0; MAX_IDS];
        while let Some(outgoing) = self.next_outgoing() {
            let message = self.sessions.outbox.encode(outgoing, &mut buffer);
            match self.transport.send(message)? {
                Sent::Queued => self.outgoing_sent(outgoing),
                Sent::Full => return Ok(()),
                Sent::Closed if self.is_finished(outgoing) => self.sessions.outbox.question = None,
                Sent::Closed => return Err(ChannelError::Closed),
            }
        }
        Ok(())
    }

    fn send_moved(&mut self, id: ConnectionId) {
        self.sessions.outbox.moved.push(id);
    }

    fn send_returned(&mut self, id: ConnectionId) {
        self.sessions.outbox.returned.push(id);
    }

    fn request_offer(&mut self, id: ConnectionId) {
        self.sessions.outbox.moves.push(id);
    }

    fn request_session_list(&mut self) {
        self.sessions.request_list();
    }

    fn grant_closes(&mut self, count: u32) {
        let close_grants = &mut self.sessions.outbox.close_grants;
        *close_grants = close_grants.saturating_add(count);
    }

    fn is_resyncing(&self) -> bool {
        self.resync.is_pending()
    }

    fn last_session(&self) -> Timestamp {
        Timestamp(self.board().get(Counter::LastSession))
    }

    fn asked_for_replacement(&self) -> bool {
        self.resync.is_lost && self.board().has_flag(SharedFlag::ReplaceMe)
    }

    fn complete_resync(&mut self) -> Option<u64> {
        let pending = self.resync.pending?;
        let is_answered = if self.handshake.takes_sessions {
            pending.has_reported
        } else {
            self.sessions.outbox.question.is_none()
                && self.transport.is_all_received()
                && self.resync.is_all_completed(self.transport.scoreboard())
        };
        if !is_answered {
            return None;
        }
        let uncounted = self.resync.uncounted(self.board());
        let completed = self.board().get(Counter::Completed);
        self.in_flight.count_from(completed, self.transport.scoreboard().get(Counter::Refused));
        self.resync.pending = None;
        Some(uncounted)
    }

    fn uncounted(&self) -> u64 {
        self.resync.uncounted(self.board())
    }

    fn take_found(&mut self) -> Vec<PendingConnection> {
        std::mem::take(&mut self.resync.found)
    }

    fn note_protected(&self, count: u64) {
        self.board().set(Counter::Protected, count);
    }

    fn publish_counts(&mut self) {
        if self.is_resyncing() {
            return;
        }
        self.board().set(Counter::Acknowledged, self.in_flight.counts().acknowledged);
        if self.in_flight.take_sessions_changed() {
            self.note_sessions(self.in_flight.sessions());
        }
    }
}

/// Connections that were on their way when the primary that had sent them died. One whose descriptor
/// doesn't arrive, as this process has too many, is lost.
fn found(records: Records<'_>, fds: ReceivedFds) -> Vec<PendingConnection> {
    let connections = records.iter().zip(fds.descriptors);
    let pending = |(record, socket): (_, Deferred)| PendingConnection {
        record,
        socket: socket.into(),
        crashes: 0,
        transfer: None,
    };
    connections.map(pending).collect()
}
