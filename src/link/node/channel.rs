//! The primary's end of the channel to one Node worker.
//!
//! Never waits and never decides where a connection goes; it reports what happened.
//!
//! # Promises
//!
//! * A connection that is sent stays in the sender's queue or is kept here until the worker has answered it.
//! * The primary's copy is closed as soon as the answer is seen: a copy kept longer would withhold the FIN
//!   from the client.
//! * A program that wants to listen is answered, at once and always: Node waits for the answer for ever. A query for
//!   a shared socket is consumed when its answer is sent, so that a successor after a crash answers it again.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde_json::Value;

use crate::handover::descriptors::WorkerPart;
use crate::link::connection::PendingConnection;
use crate::link::dialect::{Capabilities, Dialect, LoadSource};
use crate::link::error::ChannelError;
use crate::link::event::{LinkEvent, SessionEvent, WorkerNote};
use crate::link::in_flight::InFlight;
use crate::link::native::PAGE;
use crate::link::node::handed::{Answered, Handed};
use crate::link::node::memo::{Beginning, Known, Memo};
use crate::link::node::message::{self, Line};
use crate::link::node::openings::Openings;
use crate::link::node::ports::{PortRequest, SharedSocket};
use crate::link::node::probes::{LOOK_INTERVAL, Probes};
use crate::link::node::query::{self, Query};
use crate::link::node::settings::{HandOverBy, NodeSettings};
use crate::link::node::transport::{MEMO, SOCKET, Transport, WORKER_END};
use crate::link::programs::RequestCounts;
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::scoreboard::{Counter, Scoreboard, SharedFlag};

/// The primary's side of one worker's channel.
#[derive(Debug)]
pub struct Channel {
    pub(super) transport: Transport,
    pub(super) in_flight: InFlight,
    pub(super) handed: Handed,
    pub(super) known: Known,
    pub(super) memo: Memo,
    /// What the supervisor reads of the worker; the primary writes it, since the worker doesn't.
    pub(super) board: Scoreboard,
    /// The memory of the scoreboard.
    pub(super) page: OwnedFd,
    pub(super) settings: Arc<NodeSettings>,
    /// The front's port.
    pub(super) port: u16,
    /// The number of the next message. No primary before has used it.
    pub(super) seq: u64,
    /// The line that hands a connection over: what comes before its number, and after; none if no server is open.
    handover: Option<(Vec<u8>, &'static [u8])>,
    /// The query for a shared socket that was read and neither answered nor consumed, and the socket's name.
    asked: Option<(Box<Query>, String)>,
    openings: Openings,
    probes: Probes,
    /// Connections that a primary before had on their way as it died, until they are counted.
    pub(super) handed_before: Option<u64>,
}

/// The name of a worker's own listening socket on the front's port, in that worker.
const FRONT: &str = "front";

/// What a link of this dialect begins with, beside its descriptors.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) settings: Arc<NodeSettings>,
    pub(super) port: u16,
    pub(super) credits: usize,
}

impl Channel {
    pub(super) fn new(
        transport: Transport,
        memo: Memo,
        (board, page): (Scoreboard, OwnedFd),
        facts: Facts,
    ) -> Self {
        let Facts { settings, port, credits } = facts;
        let known = memo.read();
        let mut channel = Self {
            transport,
            in_flight: InFlight::new(credits),
            handed: Handed::default(),
            known,
            memo,
            board,
            page,
            settings,
            port,
            // Microseconds since the machine's start: numbers of a primary before are smaller, and all of
            // them are exact in JavaScript.
            seq: Timestamp::now().0 / 1_000,
            handover: None,
            asked: None,
            openings: Openings::default(),
            probes: Probes::default(),
            handed_before: None,
        };
        if channel.known.is_online {
            channel.probes.begin(Timestamp::now());
        }
        channel.prepare_handover();
        channel
    }

    /// Sends nothing any more: half a line has gone, whose rest is lost.
    pub(super) fn mute(&mut self) {
        self.transport.mute();
        self.handover = None;
    }

    /// Whether the worker has said that it is one of this dialect.
    pub(in crate::link) fn is_online(&self) -> bool {
        self.known.is_online
    }

    /// Whether the worker has written something.
    pub(in crate::link) fn has_input(&self) -> bool {
        rustix::io::ioctl_fionread(self.transport.socket()).is_ok_and(|unread| unread > 0)
    }

    /// Its scoreboard.
    pub(in crate::link) fn page(&self) -> BorrowedFd<'_> {
        self.page.as_fd()
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn prepare_handover(&mut self) {
        self.handover = match &self.settings.hand_over_by {
            HandOverBy::Listening => {
                self.known.servers.serving().map(|key| message::new_connection(&key))
            }
            HandOverBy::Message(message) => Some((message::socket(message), b"")),
        };
        if self.transport.is_mute() {
            self.handover = None;
        }
    }

    /// Sends a line of Node's own kind. There is always room: these are answers, and few.
    fn answer(&mut self, line: &[u8]) {
        let marked = self.marked(line);
        self.transport.push(&marked);
    }

    /// A line of Node's own kind, as the worker wants it.
    fn marked<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        match self.known.is_bun {
            true => [&[message::BUN_MARK], line].concat().into(),
            false => line.into(),
        }
    }

    /// Asks whether the event loop is alive, if there is room: by a connection that is none, to a server that there
    /// is not, which the worker refuses and closes. Without a descriptor, such a line would be given that of the
    /// next line, where the worker reads both at once.
    fn send_ping(&mut self) -> Result<(), ChannelError> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        let seq = self.next_seq();
        if self.transport.send_with(&message::ping(seq), socket.as_fd())? {
            self.handed.ping_sent();
        }
        Ok(())
    }

    /// Says that a server is not opened.
    fn refuse(&mut self, query: u64, reason: Errno) {
        let seq = self.next_seq();
        self.answer(&message::refused(query, reason.raw_os_error(), seq));
    }

    /// Changes what is known of the worker, for a successor, too.
    fn learn(&mut self, change: impl FnOnce(&mut Known)) {
        let before = self.known.clone();
        change(&mut self.known);
        if self.known != before {
            self.memo.write(&self.known);
        }
    }

    /// Answers are taken together; anything else comes alone.
    fn receive_lines(&mut self) -> Result<LinkEvent, ChannelError> {
        if self.asked.take().is_some() {
            // Nobody answers it: its worker is dead.
            self.consume()?;
        }
        let completed = self.handed.completed();
        let mut event = None;
        while event.is_none()
            && let Some(line) = self.transport.next_line()?
        {
            event = self.take(line);
        }
        if event.is_none() && self.transport.has_beginning() {
            self.transport.keep_beginning()?;
        }
        let has_read = self.transport.has_read();
        if self.asked.is_none() {
            self.consume()?;
        }
        if let Some(event) = event {
            return Ok(event);
        }
        let more = self.handed.completed() - completed;
        Ok(match (more, has_read) {
            (0, false) => LinkEvent::Nothing,
            (0, true) => SessionEvent::Ignored.into(),
            (more, _) => LinkEvent::Acknowledged(more),
        })
    }

    fn take(&mut self, line: Line) -> Option<LinkEvent> {
        match line {
            Line::HandleAck => {
                let answered = self.handed.ack();
                self.answered(answered)
            }
            Line::HandleNack => {
                let answered = self.handed.nack();
                self.answered(answered)
            }
            Line::Accepted { ack, accepted } => {
                // No connection has this number: it answers pings.
                if !accepted && !self.known.answers_pings && self.handed.connection(ack).is_none() {
                    self.learn(|known| known.answers_pings = true);
                }
                let answered = self.handed.answer(ack, accepted);
                self.answered(answered)
            }
            Line::Online { is_bun } => {
                self.learn(|known| (known.is_online, known.is_bun) = (true, is_bun));
                self.board.set_flag(SharedFlag::Hello);
                self.prepare_handover();
                if !is_bun {
                    // To see whether it answers. If the channel has ended, its reader says so.
                    let _ = self.send_ping();
                }
                self.probes.begin(Timestamp::now());
                None
            }
            Line::Query(query) => self.query(query),
            Line::Listening { port, is_tcp } => self.listening(port, is_tcp),
            Line::Close(key) => self.closed(key),
            Line::Leaving { seq } => {
                let number = self.next_seq();
                self.answer(&message::acknowledged(seq, number));
                Some(LinkEvent::ReplaceMe)
            }
            Line::Handle => {
                self.answer(message::ACK_OF_HANDLE);
                None
            }
            Line::App(bytes) => self.app(bytes),
            Line::Other => None,
            Line::Malformed => Some(LinkEvent::Note(WorkerNote::Malformed)),
        }
    }

    /// Counts an answer to a line with a descriptor.
    fn answered(&mut self, answered: Answered) -> Option<LinkEvent> {
        match answered {
            Answered::Nothing => None,
            Answered::Taken => {
                self.board.increment(Counter::ConnectionsTotal);
                None
            }
            Answered::Refused(id) => {
                Some(LinkEvent::Refused(self.in_flight.refuse(id).into_iter().collect()))
            }
            Answered::Pong => Some(LinkEvent::Pong),
            Answered::Shares(query) => {
                self.openings.remove(query);
                None
            }
            // The worker has no descriptor left.
            Answered::SharesNot(query) => self.not_shared(query),
        }
    }

    /// Writes down the beginning of a line, before it is consumed.
    fn note_beginning(&mut self) {
        let begun = self.transport.begun();
        if begun.is_empty() && self.known.beginning == Beginning::None {
            return;
        }
        let beginning = Beginning::new(begun);
        self.learn(|known| known.beginning = beginning);
    }

    /// The answer to a query has not come, and can't be sent again.
    fn not_shared(&mut self, query: u64) -> Option<LinkEvent> {
        self.openings.remove(query);
        self.refuse(query, Errno::MFILE);
        let mut name = None;
        self.learn(|known| name = known.servers.unshare_query(query));
        name.map(LinkEvent::StoppedListening)
    }

    fn query(&mut self, query: Box<Query>) -> Option<LinkEvent> {
        if self.known.is_bun && self.settings.hand_over_by == HandOverBy::Listening {
            // It would end with the first connection (1.4).
            self.refuse(query.seq, Errno::OPNOTSUPP);
            return Some(LinkEvent::Note(WorkerNote::Bun));
        }
        match query::answer(&query, self.port, self.settings.ticket_keys.as_str()) {
            query::Answer::Front { data } if self.openings.has_front() => {
                self.share_front(&query, data)
            }
            query::Answer::Front { data } => {
                let seq = self.next_seq();
                let mut key = String::new();
                self.learn(|known| key = known.servers.open());
                self.prepare_handover();
                self.answer(&message::opened(&query, &key, data, seq));
                None
            }
            query::Answer::Shared(key) => {
                let name = key.name();
                if let Err(reason) = self.known.servers.can_share(&name, query.seq) {
                    self.refuse(query.seq, reason);
                    return None;
                }
                let request = PortRequest { key, flags: query.flags, rights: self.known.rights };
                self.asked = Some((query, name));
                Some(LinkEvent::Listen(Box::new(request)))
            }
            query::Answer::Refused(reason) => {
                self.refuse(query.seq, reason);
                Some(LinkEvent::Note(WorkerNote::OtherServer))
            }
        }
    }

    /// From now on a server on the front's port gets this socket, and accepts its clients itself.
    pub(in crate::link) fn listen_itself(&mut self, socket: SharedSocket) {
        self.openings.set_front(socket);
    }

    /// The program gets its listening socket: one server, of several on the same port.
    fn share_front(&mut self, query: &Query, data: Value) -> Option<LinkEvent> {
        if let Err(reason) = self.known.servers.can_share(FRONT, query.seq) {
            self.refuse(query.seq, reason);
            return None;
        }
        let socket = self.openings.front()?;
        let seq = self.next_seq();
        let line = message::shared(query, FRONT, data, seq);
        self.learn(|known| known.servers.share(FRONT, query.seq));
        let line = self.marked(&line).into_owned();
        self.openings.add(query.seq, line, socket);
        None
    }

    /// Whether the program has a server that gets clients, by hand-over or by its own socket.
    fn has_front(&self) -> bool {
        self.known.servers.serving().is_some()
            || self.known.servers.shared_names().any(|name| name == FRONT)
    }

    /// Answers the query that was read last, and consumes it.
    pub(in crate::link) fn opened(
        &mut self,
        socket: Result<SharedSocket, Errno>,
    ) -> Result<(), ChannelError> {
        let Some((query, name)) = self.asked.take() else { return Ok(()) };
        match socket {
            Ok(socket) => {
                let seq = self.next_seq();
                let data = query::shared_data(&query.data, self.settings.ticket_keys.as_str());
                let line = message::shared(&query, &name, data, seq);
                self.learn(|known| known.servers.share(&name, query.seq));
                let line = self.marked(&line).into_owned();
                self.openings.add(query.seq, line, socket);
            }
            Err(reason) => self.refuse(query.seq, reason),
        }
        self.send_outgoing()?;
        self.consume()
    }

    /// The names of the shared sockets that the program has open.
    pub(in crate::link) fn shared_ports(&self) -> Vec<String> {
        self.known.servers.shared_names().map(str::to_owned).collect()
    }

    /// A socket that was not sent before an upgrade isn't any more: the program is told that there was no descriptor.
    pub(super) fn refuse_unsent(&mut self) {
        for query in self.openings.unsent() {
            self.not_shared(query);
        }
    }

    fn closed(&mut self, key: String) -> Option<LinkEvent> {
        if self.known.servers.shared_names().any(|name| name == key) {
            self.learn(|known| {
                known.servers.unshare(&key);
            });
            // Nobody accepts its clients any more, and the kernel goes on to send them: another one follows it.
            let is_front = key == FRONT;
            return Some(match is_front {
                true => LinkEvent::ReplaceMe,
                false => LinkEvent::StoppedListening(key),
            });
        }
        self.learn(|known| {
            known.servers.close(&key);
        });
        self.prepare_handover();
        None
    }

    /// The program has a server open. The front's port counts; where connections come as messages, any TCP port.
    fn listening(&mut self, port: Option<i64>, is_tcp: bool) -> Option<LinkEvent> {
        if !is_tcp {
            return None;
        }
        let by_listening = self.settings.hand_over_by == HandOverBy::Listening;
        // One that was opened through the primary: else no connection would reach it.
        let is_front = port == Some(i64::from(self.port)) && self.has_front();
        if is_front || !by_listening {
            let is_first = !self.known.listens;
            self.learn(|known| known.listens = true);
            let note = (is_first && by_listening).then_some(LinkEvent::Note(WorkerNote::FrontPort));
            return self.become_ready().or(note);
        }
        let other = port.and_then(|port| u16::try_from(port).ok());
        let other =
            other.filter(|port| !self.known.listens && self.known.servers.shares_tcp(*port));
        other.map(|port| LinkEvent::Note(WorkerNote::OtherPort(port)))
    }

    /// Whether a connection of the primary's own may be what shows that the program takes some.
    fn may_probe(&self) -> bool {
        let by_message = self.settings.hand_over_by != HandOverBy::Listening;
        by_message && !self.settings.wait_ready && !self.known.is_ready
    }

    /// When [`Self::probe`] is to be called.
    pub(in crate::link) fn next_probe(&self, now: Timestamp) -> Option<Timestamp> {
        (self.may_probe() || self.probes.are_open()).then(|| now + LOOK_INTERVAL)
    }

    /// Looks whether the program has taken a probe, and sends the next one if it is due.
    pub(in crate::link) fn probe(
        &mut self,
        now: Timestamp,
    ) -> Result<Option<LinkEvent>, ChannelError> {
        let has_answered = self.probes.look(now);
        if !self.may_probe() {
            self.probes.end(now);
            return Ok(None);
        }
        if has_answered {
            self.probes.end(now);
            self.learn(|known| known.listens = true);
            return Ok(self.become_ready());
        }
        let Some((line, _)) = &self.handover else { return Ok(None) };
        let Some(probe) = self.probes.take_due(now) else { return Ok(None) };
        let line = [line.as_slice(), b"\n"].concat();
        if self.transport.send_with(&line, probe.server.as_fd())? {
            self.handed.probe_sent();
            self.probes.sent(probe, now);
        }
        Ok(None)
    }

    /// Consumes what was read.
    fn consume(&mut self) -> Result<(), ChannelError> {
        if self.transport.has_read() {
            // Answers first: if the primary dies now, its successor reads the questions again.
            self.transport.send_outgoing()?;
            self.note_beginning();
            self.transport.consume()?;
        }
        Ok(())
    }

    fn app(&mut self, bytes: Vec<u8>) -> Option<LinkEvent> {
        if is_ready_message(&bytes) && !self.known.said_ready {
            self.learn(|known| known.said_ready = true);
            if let Some(ready) = self.become_ready() {
                return Some(ready);
            }
        }
        Some(LinkEvent::App(bytes))
    }

    /// Says once that the worker takes connections. `ready` in the callback of `listen` comes before
    /// `listening`: both are waited for.
    fn become_ready(&mut self) -> Option<LinkEvent> {
        let Known { listens, said_ready, is_ready, .. } = self.known;
        let takes = match self.settings.hand_over_by {
            HandOverBy::Listening => listens,
            HandOverBy::Message(_) => listens || said_ready,
        };
        if is_ready || !takes || self.settings.wait_ready && !said_ready {
            return None;
        }
        self.learn(|known| known.is_ready = true);
        self.board.set_flag(SharedFlag::Ready);
        Some(LinkEvent::Ready)
    }

    /// A line that the worker has not received; its connection, if it has one.
    fn take_back_line(&mut self, line: &[u8]) -> Option<PendingConnection> {
        let id = self.connection_of(line)?;
        self.handed.withdraw(id);
        self.in_flight.withdraw(id)
    }

    /// Whether this line, which the worker has not received, had a descriptor of the primary's own. A shared socket is
    /// sent again.
    fn take_back_own(&mut self, line: &[u8]) -> bool {
        if let Some(query) = message::answered_by(line) {
            self.handed.withdraw_shared(query);
            if !self.openings.send_again(query) {
                self.refuse(query, Errno::MFILE);
            }
            return true;
        }
        if message::is_ping(line) {
            self.handed.withdraw_ping();
            return true;
        }
        let by_message = self.settings.hand_over_by != HandOverBy::Listening;
        let is_probe = by_message && self.handover.as_ref().is_some_and(|(begin, _)| begin == line);
        if is_probe {
            self.handed.withdraw_probe();
        }
        is_probe
    }

    /// The connection that was sent with this line. In cluster lines the number says it; lines with a message of the
    /// program's own are all alike, and those that come last were sent last.
    fn connection_of(&self, line: &[u8]) -> Option<ConnectionId> {
        let (begin, end) = self.handover.as_ref()?;
        let number = line.strip_prefix(begin.as_slice())?.strip_suffix(*end)?;
        match self.settings.hand_over_by {
            HandOverBy::Listening => {
                let number = std::str::from_utf8(number).ok()?.parse().ok()?;
                self.handed.connection(number)
            }
            HandOverBy::Message(_) => self.handed.last_connection().filter(|_| number.is_empty()),
        }
    }
}

/// Whether the program says that it is ready, as PM2 and others have it.
fn is_ready_message(bytes: &[u8]) -> bool {
    bytes == b"\"ready\""
}

impl Dialect for Channel {
    fn capabilities(&self) -> Capabilities {
        let ping = self.known.answers_pings;
        Capabilities { ping, load: LoadSource::Kernel, ..Capabilities::HAND_OFF }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.socket()
    }

    fn descriptors(&self) -> Vec<(WorkerPart, BorrowedFd<'_>)> {
        vec![
            (SOCKET, self.transport.socket()),
            (WORKER_END, self.transport.worker_end()),
            (MEMO, self.memo.as_fd()),
            (PAGE, self.page.as_fd()),
        ]
    }

    fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    fn in_flight_mut(&mut self) -> &mut InFlight {
        &mut self.in_flight
    }

    fn is_attached(&self) -> bool {
        self.known.is_ready
    }

    fn is_ready(&self) -> bool {
        self.known.is_ready
    }

    fn waits_since(&self) -> Option<Timestamp> {
        self.transport.waits_since(self.in_flight.oldest())
    }

    fn established(&self) -> u64 {
        self.board.get(Counter::Connections)
    }

    fn send(
        &mut self,
        queue: &VecDeque<PendingConnection>,
        _: usize,
    ) -> Result<bool, ChannelError> {
        let Some(first) = queue.front() else { return Ok(false) };
        let seq = self.next_seq();
        let Some((line, end)) = &mut self.handover else { return Ok(false) };
        let begin = line.len();
        let number = match self.settings.hand_over_by {
            HandOverBy::Listening => {
                // Memory can always be written.
                let _ = write!(line, "{seq}");
                Some(seq)
            }
            HandOverBy::Message(_) => None,
        };
        line.extend_from_slice(end);
        line.push(b'\n');
        // Before: a successor after a crash must not believe that it was lost.
        self.board.set(Counter::SessionsSent, self.in_flight.len() as u64 + 1);
        let sent = self.transport.send_with(line, first.socket.as_fd());
        line.truncate(begin);
        let sent = sent?;
        if sent {
            self.handed.sent(first.record.id, number);
        }
        Ok(sent)
    }

    fn receive(&mut self) -> Result<LinkEvent, ChannelError> {
        match self.receive_lines() {
            // A program may leave its primary, and a runtime does so when it ends.
            Err(ChannelError::Closed) => Ok(LinkEvent::Left),
            received => received,
        }
    }

    fn complete(
        &mut self,
        acknowledged: impl FnMut(PendingConnection),
    ) -> Result<Option<usize>, ChannelError> {
        let refused = self.in_flight.counts().refused;
        self.in_flight.complete(self.handed.completed(), refused, acknowledged)
    }

    /// The rest of a line that the worker has begun to read is sent again, as is every line that hands over no
    /// connection.
    fn take_back(&mut self) -> Vec<PendingConnection> {
        let unread = self.transport.take_back();
        let (mut taken, mut again) = (Vec::new(), Vec::new());
        // From the last to the first: of lines that are all alike, the last ones are in the channel.
        for line in unread.split_inclusive(|byte| *byte == b'\n').rev() {
            let whole = line.strip_suffix(b"\n").unwrap_or(line);
            match self.take_back_line(whole) {
                Some(connection) => taken.push(connection),
                None if self.take_back_own(whole) => {}
                None => again.push(line),
            }
        }
        taken.reverse();
        again.reverse();
        self.transport.push_front(again.concat());
        taken
    }

    /// How a program ends is a matter of signals: the supervisor sends them.
    fn drain(&mut self, order: DrainOrder) {
        let is_first = self.board.get(Counter::Drain) == 0;
        self.board.set_drain_order(order);
        if let Some(message) = self.settings.shutdown_message.as_ref().filter(|_| is_first) {
            self.transport.push(message.as_bytes());
        }
    }

    /// What is idle is closed; what is busy is answered first.
    fn disconnect(&mut self) {
        let seq = self.next_seq();
        self.answer(&message::disconnect(seq));
    }

    fn is_resyncing(&self) -> bool {
        self.handed_before.is_some()
    }

    /// The worker has, or finds in its channel, what the primary before has sent: that is not waited for.
    fn complete_resync(&mut self) -> Option<u64> {
        self.handed_before.take()
    }

    fn publish_counts(&mut self) {
        if !self.is_resyncing() {
            self.board.set(Counter::SessionsSent, self.in_flight.len() as u64);
        }
    }

    fn ping(&mut self) -> Result<(), ChannelError> {
        if self.known.answers_pings && !self.handed.has_ping() {
            self.send_ping()?;
        }
        self.send_outgoing()
    }

    fn has_outgoing(&self) -> bool {
        self.transport.has_outgoing() || self.openings.has_unsent()
    }

    fn send_outgoing(&mut self) -> Result<(), ChannelError> {
        let sent = self.transport.send_outgoing();
        let has_begun = self.transport.has_begun();
        if self.known.is_told_half != has_begun && !self.transport.is_mute() {
            self.learn(|known| known.is_told_half = has_begun);
        }
        sent?;
        self.openings.send(&mut self.transport, &mut self.handed)
    }

    /// Half a line has gone, and the rest has died with the primary before: whatever follows would break the
    /// program.
    fn asked_for_replacement(&self) -> bool {
        self.transport.is_mute()
    }

    fn tell(&mut self, line: &Arc<[u8]>) -> bool {
        !self.known.is_online || self.transport.tell(line)
    }

    fn note_requests(&self, noted: &RequestCounts) {
        if let Some(open) = noted.open {
            self.board.set(Counter::Requests, open);
        }
        self.board.add(Counter::RequestsTotal, noted.finished);
    }
}
