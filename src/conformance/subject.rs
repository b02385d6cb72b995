//! A worker under test: its process, the primary's end of its link, and its output, on one thread that never waits
//! for the worker without a limit.
//!
//! Plays the primary, and judges nothing but that the worker lives and keeps its protocol.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::closing::ClientSocket;
use crate::conformance::check::{Stop, fail};
use crate::conformance::client::Client;
use crate::conformance::descriptors::Limits;
use crate::conformance::leftovers;
use crate::conformance::output::Output;
use crate::frontend::listener::{Listener, ListenerSettings};
use crate::frontend::steering::program::Family;
use crate::kernel::{accept_queue, tcp_counters};
use crate::link::Link;
use crate::link::connection::PendingConnection;
use crate::link::dialect::Dialect;
use crate::link::error::ChannelError;
use crate::link::event::{LinkEvent, SessionEvent, WorkerNote};
use crate::link::inherit::{LISTENER_NAME, WorkerFacts};
use crate::link::interface::{Interface, InterfaceChoice};
use crate::link::node::ports::Ports;
use crate::link::node::settings::{NodeSettings, TicketKeys};
use crate::protocol::drain::{DrainMode, DrainOrder, DrainReason};
use crate::protocol::ids::{AffinityKey, ConnectionId, Generation, SlotId, Timestamp, WorkerId};
use crate::protocol::message::ConnectionRecord;
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::process::{Exit, Process};

/// How long the worker serves on when its primary has died.
pub const ORPHAN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may drain then.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections on their way at a time, as many as a primary has by default.
pub const CREDITS: usize = 16;
/// Clients that wait at a listening socket, at most.
const BACKLOG: i32 = 511;
/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(2);
/// How long the end of a process may come after that of its channel.
const EXIT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long bytes may take over the loopback interface.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a killed process may take to end.
const KILLED_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that are received in one look.
const MAX_MESSAGES: usize = 1_000;

/// Looks at a socket between two at everything else.
const LOOKS_AT_A_TIME: usize = 16;

/// How each worker under test is started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Signals that end the checks.
    pub interrupts: Arc<SignalFd>,
    /// Its command.
    pub command: WorkerCommand,
    /// Its interface, as far as it is known.
    pub interface: InterfaceChoice,
}

/// A worker under test. Dropping it kills it, and what it has started.
#[derive(Debug)]
pub struct Subject {
    process: Process,
    interrupts: Arc<SignalFd>,
    /// None once the primary has died.
    link: Option<Link>,
    output: Output,
    listener: TcpListener,
    ports: Ports,
    queue: VecDeque<PendingConnection>,
    said: Said,
    acknowledged: Vec<ConnectionId>,
    refused: Vec<ConnectionId>,
    next_id: u64,
    exit: Option<Exit>,
    mark: String,
    /// From its order to drain on, or its primary's death.
    may_end: bool,
}

/// The worker's messages so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    /// It has attached.
    pub attached: bool,
    /// It is ready.
    pub ready: bool,
    /// Its answers to pings.
    pub pongs: u64,
    /// It has ended its channel.
    pub left: bool,
    /// Something about its program.
    pub note: Option<WorkerNote>,
}

/// The result of [`Subject::watch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Nothing is on its way any more, and nothing was used too early.
    Done,
    /// This one was used before it was acknowledged.
    Used(ConnectionId),
    /// Some are still on their way.
    Late,
}

impl Subject {
    /// Starts a worker. `number` is not that of another one of this process.
    ///
    /// # Errors
    ///
    /// If its program can't be run, or the kernel refuses something.
    pub fn start(setup: &Setup, number: u32) -> io::Result<Self> {
        let listener = match setup.interface {
            InterfaceChoice::Only(Interface::Listen) => group_socket()?,
            _ => TcpListener::bind("127.0.0.1:0")?,
        };
        Self::start_on(setup, number, listener)
    }

    /// The same, with the socket that its clients connect to. One that accepts them itself gets a copy.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_on(setup: &Setup, number: u32, listener: TcpListener) -> io::Result<Self> {
        let port = listener.local_addr()?.port();
        let worker = WorkerId { slot: SlotId(0), generation: Generation(0) };
        let node = NodeSettings { ticket_keys: TicketKeys::random()?, ..NodeSettings::default() };
        let facts = WorkerFacts {
            worker,
            credits: CREDITS,
            orphan_timeout: ORPHAN_TIMEOUT,
            kill_timeout: KILL_TIMEOUT,
            migrate_timeout: KILL_TIMEOUT,
            protect: false,
            interface: setup.interface,
            port,
            node: Arc::new(node),
            rights: setup.command.rights(),
        };
        let (link, mut inherit) = Link::start(&facts)?;
        if setup.interface == InterfaceChoice::Only(Interface::Listen) {
            inherit.listen_on(LISTENER_NAME, listener.try_clone()?.into());
        }
        let mark = format!("{}-{number}", std::process::id());
        let mut command = setup.command.clone();
        command.environment.push((leftovers::VARIABLE.into(), mark.clone().into()));
        let (process, printed) = Process::start(&command, port, worker, inherit)?;
        Ok(Self {
            process,
            interrupts: Arc::clone(&setup.interrupts),
            link: Some(link),
            output: Output::new(printed)?,
            listener,
            ports: Ports::default(),
            queue: VecDeque::new(),
            said: Said::default(),
            acknowledged: Vec::new(),
            refused: Vec::new(),
            next_id: 1,
            exit: None,
            mark,
            may_end: false,
        })
    }

    /// Its interface, if it is known.
    #[must_use]
    pub fn interface(&self) -> Option<Interface> {
        self.link.as_ref().and_then(Link::interface)
    }

    /// Its messages so far.
    #[must_use]
    pub fn said(&self) -> Said {
        self.said
    }

    /// Whether its dialect has pings that it answers.
    #[must_use]
    pub fn has_pings(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.capabilities().ping)
    }

    /// Whether it has acknowledged this one.
    #[must_use]
    pub fn has_acknowledged(&self, id: ConnectionId) -> bool {
        self.acknowledged.contains(&id)
    }

    /// Connections that it has refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Connections that it has neither acknowledged nor refused, with those that are not sent yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.on_their_way() + self.queue.len()
    }

    /// The same without those that are not sent yet.
    #[must_use]
    pub fn on_their_way(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.in_flight().len())
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The address that clients connect to.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The socket that clients connect to.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Clients that wait there until they are accepted; none if it doesn't listen.
    #[must_use]
    pub fn waiting(&self) -> Option<u32> {
        accept_queue(&self.listener).ok().flatten()
    }

    /// A new client, whose connection is not handed over yet.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn connect(&mut self) -> io::Result<(Client, PendingConnection)> {
        let (client, server, (address, local)) = Client::connect(&self.listener)?;
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let record = ConnectionRecord {
            id,
            accepted_at: Timestamp::now(),
            key: AffinityKey(id.0),
            client: address,
            local,
            tag: 0,
        };
        let socket: ClientSocket = OwnedFd::from(server).into();
        Ok((client, PendingConnection { record, socket, crashes: 0, transfer: None }))
    }

    /// Hands a connection over, as soon as there is room, and returns its id.
    pub fn hand_over(&mut self, connection: PendingConnection) -> ConnectionId {
        let id = connection.record.id;
        self.queue.push_back(connection);
        id
    }

    /// A new client whose connection is handed over with these bytes unread.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn client(&mut self, bytes: &[u8]) -> io::Result<(Client, ConnectionId)> {
        let (mut client, connection) = self.connect()?;
        client.send(bytes);
        // Loopback delivers before that returns, but on a busy machine.
        let start = Timestamp::now();
        while rustix::io::ioctl_fionread(&connection.socket)? < bytes.len() as u64 {
            if Timestamp::now().since(start) > DELIVERY_TIMEOUT {
                return Err(io::Error::other("bytes don't arrive over the loopback interface"));
            }
            std::thread::yield_now();
        }
        Ok((client, self.hand_over(connection)))
    }

    /// Sends and receives what can be, without waiting.
    ///
    /// # Errors
    ///
    /// If the worker has ended, or breaks its protocol; and by a signal to this process.
    pub fn look(&mut self) -> Result<(), Stop> {
        if let Ok(Some(_)) = self.interrupts.read_signal() {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
        self.output.look();
        if let Err(error) = self.exchange() {
            return self.broken(&error);
        }
        match self.has_ended() && !self.may_end {
            true => fail(format!("the worker {}", self.describe_exit())),
            false => Ok(()),
        }
    }

    /// Looks until something holds or the time is over, and says whether it holds.
    ///
    /// # Errors
    ///
    /// As [`Self::look`].
    pub fn wait(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool, Stop> {
        let start = Timestamp::now();
        loop {
            self.look()?;
            if condition(self) {
                return Ok(true);
            }
            if Timestamp::now().since(start) >= limit {
                return Ok(false);
            }
            self.pause();
        }
    }

    /// Looks for so long.
    ///
    /// # Errors
    ///
    /// As [`Self::look`].
    pub fn pass(&mut self, time: Duration) -> Result<(), Stop> {
        self.wait(time, |_| false).map(|_| ())
    }

    /// Looks closely until nothing is on its way, and returns the connection that was used before its
    /// acknowledgement, if one was, or what is still on its way when the time is over. All of them have so many bytes
    /// unread when they are handed over.
    ///
    /// The oldest socket is looked at first and the acknowledgement at once afterwards: one that was used, and is not
    /// acknowledged after that, is proof. With a `pause` between looks, a worker that runs on the same processor is
    /// interrupted by each of them, wherever it is; without one, a worker on another processor is watched closely.
    ///
    /// # Errors
    ///
    /// As [`Self::look`].
    pub fn watch(
        &mut self,
        unread: u64,
        pause: Option<Duration>,
        limit: Duration,
    ) -> Result<Watched, Stop> {
        let start = Timestamp::now();
        self.look()?;
        loop {
            for _ in 0..LOOKS_AT_A_TIME {
                if let Some(id) = self.oldest_if_used(unread) {
                    self.complete_at_once()?;
                    if self.is_on_its_way(id) {
                        return Ok(Watched::Used(id));
                    }
                }
                pause.into_iter().for_each(std::thread::sleep);
            }
            self.look()?;
            if self.open() == 0 {
                return Ok(Watched::Done);
            }
            if Timestamp::now().since(start) >= limit {
                return Ok(Watched::Late);
            }
        }
    }

    /// The oldest connection on its way, if bytes of it were read, or written to it.
    fn oldest_if_used(&self, unread: u64) -> Option<ConnectionId> {
        let oldest = self.link.as_ref()?.in_flight().last(CREDITS).next()?;
        let was_read = rustix::io::ioctl_fionread(&oldest.socket).is_ok_and(|left| left < unread);
        let was_used =
            was_read || tcp_counters(&oldest.socket).is_ok_and(|counters| counters.written > 0);
        was_used.then_some(oldest.record.id)
    }

    fn is_on_its_way(&self, id: ConnectionId) -> bool {
        self.link.as_ref().is_some_and(|link| link.in_flight().contains(id))
    }

    /// Looks for acknowledgements before anything else: native ones take no message.
    fn complete_at_once(&mut self) -> Result<(), Stop> {
        let acknowledged = &mut self.acknowledged;
        if let Some(Link::Native(native)) = &mut self.link {
            let completed = native.complete(|one| acknowledged.push(one.record.id));
            return completed.map(|_| ()).or_else(|error| self.broken(&error));
        }
        self.look()
    }

    /// Asks whether its loop is alive.
    ///
    /// # Errors
    ///
    /// If its channel has ended.
    pub fn ping(&mut self) -> Result<(), Stop> {
        let pinged = self.link.as_mut().map_or(Ok(()), Link::ping);
        pinged.or_else(|error| self.broken(&error))
    }

    /// Takes back what it hasn't received.
    pub fn take_back(&mut self) -> usize {
        self.link.as_mut().map_or(0, |link| link.take_back().len())
    }

    /// Orders it to drain.
    pub fn drain(&mut self, window: Duration) {
        self.may_end = true;
        if let Some(link) = &mut self.link {
            let (mode, reason) = (DrainMode::Close, DrainReason::GoingAway);
            link.drain(DrainOrder { mode, reason, window });
        }
    }

    /// Tells a worker of Node to close its servers.
    pub fn disconnect(&mut self) {
        self.link.iter_mut().for_each(Link::disconnect);
    }

    /// Ends all that a primary's death ends: the channel, and the reader of its output.
    pub fn primary_dies(&mut self) {
        self.may_end = true;
        self.link = None;
        self.output.close();
    }

    /// Whether its output is read.
    pub fn read_output(&mut self, is_read: bool) {
        self.output.is_read = is_read;
    }

    /// Orders it, and what it has started, to end by a signal, as a primary does where it gets no message.
    pub fn stop(&mut self, signal: Signal, window: Duration) {
        self.drain(window);
        self.process.signal(signal);
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) {
        self.process.signal_alone(signal);
    }

    /// Whether its process has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut polled = [PollFd::new(&self.process, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.exit.is_some() || poll(&mut polled, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// How it has ended, if it has. The rest of its group is killed.
    pub fn exit(&mut self) -> Option<Exit> {
        if self.exit.is_none() && self.has_ended() {
            self.exit = self.process.reap().ok();
        }
        self.exit
    }

    /// How it has ended, with what it says of that on standard error.
    pub fn describe_exit(&mut self) -> String {
        self.output.look();
        let exit = self.exit().map_or_else(|| "runs".to_owned(), |exit| exit.to_string());
        match self.output.reason() {
            line if line.is_empty() => exit,
            line => format!("{exit}: {line}"),
        }
    }

    /// The processes that it has started and that don't end by themselves.
    #[must_use]
    pub fn find_left(&self) -> Vec<(i32, String)> {
        leftovers::find_lasting(&self.mark, self.process.pid())
    }

    /// Leaves it, and what it has started, so many free descriptors.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn limit_descriptors(&self, free: usize) -> io::Result<Limits> {
        Limits::lower(self.process.pid(), free)
    }

    fn exchange(&mut self) -> Result<(), ChannelError> {
        let Some(mut link) = self.link.take() else { return Ok(()) };
        let exchanged = self.exchange_by(&mut link);
        self.link = Some(link);
        exchanged
    }

    fn exchange_by(&mut self, link: &mut Link) -> Result<(), ChannelError> {
        if self.said.left {
            return Ok(());
        }
        if !self.may_end {
            link.send_from(&mut self.queue, Timestamp::now())?;
        }
        link.send_outgoing()?;
        // A refusal that was counted has been sent before: the second time it is there.
        for _ in 0..2 {
            self.receive(link)?;
            let acknowledged = &mut self.acknowledged;
            if link.complete(|connection| acknowledged.push(connection.record.id))?.is_some() {
                return Ok(());
            }
        }
        Err(link.missing_refusal())
    }

    fn receive(&mut self, link: &mut Link) -> Result<(), ChannelError> {
        for _ in 0..MAX_MESSAGES {
            let event = link.receive()?;
            // A worker of Node attaches without a word of its own.
            let is_message = !matches!(event, LinkEvent::Nothing | LinkEvent::Left);
            self.said.attached |= is_message && link.interface() == Some(Interface::Node);
            match event {
                LinkEvent::Nothing => return Ok(()),
                LinkEvent::Left => {
                    self.said.left = true;
                    return if self.may_end { Ok(()) } else { Err(ChannelError::Closed) };
                }
                LinkEvent::Attached => self.said.attached = true,
                LinkEvent::Ready => self.said.ready = true,
                LinkEvent::Pong => self.said.pongs += 1,
                LinkEvent::Note(note) => self.said.note = Some(note),
                LinkEvent::Refused(connections) => {
                    self.refused.extend(connections.iter().map(|one| one.record.id));
                }
                LinkEvent::Listen(request) => {
                    let worker = WorkerId { slot: SlotId(0), generation: Generation(0) };
                    link.opened(self.ports.open(worker, &request))?;
                }
                LinkEvent::Session(SessionEvent::CloseRequest(count, _)) => {
                    link.grant_closes(count);
                }
                LinkEvent::Session(SessionEvent::Offered(offer)) => {
                    link.send_returned(offer.record().id);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An end of the channel is that of the process, where it ends.
    fn broken(&mut self, error: &ChannelError) -> Result<(), Stop> {
        let is_end = matches!(error, ChannelError::Closed | ChannelError::Io(_));
        if is_end && self.may_end {
            self.said.left = true;
            return Ok(());
        }
        let start = Timestamp::now();
        while is_end && !self.has_ended() && Timestamp::now().since(start) < EXIT_TIMEOUT {
            self.output.look();
            self.pause();
        }
        if self.has_ended() {
            return fail(format!("the worker {}", self.describe_exit()));
        }
        let what = if is_end { "ends its channel" } else { "breaks the protocol" };
        fail(format!("the worker {what}: {error}"))
    }

    /// Waits until something happens, or for a moment.
    fn pause(&self) {
        let mut polled = vec![PollFd::new(&self.process, PollFlags::IN)];
        if let Some(link) = self.link.as_ref().filter(|_| !self.said.left) {
            polled.push(PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN));
        }
        if self.has_ended() {
            polled.remove(0);
        }
        let pause = Timespec::try_from(PAUSE).ok();
        // The next look finds out.
        let _ = poll(&mut polled, pause.as_ref());
    }
}

/// A listening socket as those of a primary's group are, on the loopback interface.
///
/// # Errors
///
/// The kernel's.
pub fn group_socket() -> io::Result<TcpListener> {
    let settings =
        ListenerSettings { host: Some("127.0.0.1".to_owned()), port: 0, backlog: BACKLOG };
    let listener = Listener::bind_shared(&settings, Family::V4).map_err(io::Error::other)?;
    Ok(listener.into_socket().into())
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Once its status is taken, its number may be another's.
        if self.exit.is_none() {
            self.process.signal(Signal::KILL);
            let mut polled = [PollFd::new(&self.process, PollFlags::IN)];
            let limit = Timespec::try_from(KILLED_TIMEOUT).ok();
            let _ = poll(&mut polled, limit.as_ref());
            self.exit();
        }
        leftovers::kill(&self.mark);
    }
}
