//! The checks of servers that accept their clients themselves, on a listening socket that they were started with.
//!
//! Each has a worker of its own, and that one a socket of its own, as those of a primary's group are. The kernel says
//! what has become of the clients in its queue.

use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fstat};
use rustix::net::sockopt;
use rustix::process::Signal;

use crate::conformance::check::{Check, Stop, Verdict, fail};
use crate::conformance::client::{Client, End};
use crate::conformance::judge::{self, Crowd, Ended, Left};
use crate::conformance::service::{CLOSE_FRAME, FIRST_HALF, SECOND_HALF, Service, is_switched};
use crate::conformance::stopped::Stopped;
use crate::conformance::subject::{Setup, Subject, group_socket};
use crate::protocol::ids::Timestamp;
use crate::supervisor::procfs;
use crate::supervisor::sockets::{ClientSockets, has_open};

/// From the start until it accepts.
const READY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an answer, an end, or a server that accepts already may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long something may take where nothing is to happen, or reading is all that can be seen.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(1);
/// From the order to end until the end.
const DRAIN_WINDOW: Duration = Duration::from_secs(5);
/// From when a client has connected until it waits in the queue for sure.
const SETTLE_TIME: Duration = Duration::from_millis(10);
/// How long clients that are being served go on before, and after, the order to end.
const FINISHING: Duration = Duration::from_millis(300);
/// How long a process that is alone may take to accept.
const ALONE_TIMEOUT: Duration = Duration::from_millis(500);

/// Clients that say nothing, one after the other: with a socket of its own on the port, a server accepts some of them there.
const PROBES: usize = 24;
/// Clients beside others.
const SEVERAL: usize = 8;
/// Requests while nobody reads the output.
const UNREAD_REQUESTS: usize = 40;
/// Free descriptors, and clients that come while there are no more.
const FREE_DESCRIPTORS: usize = 8;
const CROWD: usize = 24;
/// Processes that are looked at, at most, for whether they accept.
const MAX_PROCESSES: usize = 16;
/// The address of a client that no other has.
const ODD_CLIENT: Ipv4Addr = Ipv4Addr::new(127, 83, 0, 7);

/// Facts about a server that it doesn't show by itself.
#[derive(Clone, Debug)]
pub struct Habits {
    /// The signal by which it ends.
    pub stop_signal: Signal,
    /// A path whose answer takes a while.
    pub slow_path: Option<String>,
}

/// The servers of a run, of which it is known what they do.
#[derive(Debug)]
pub struct Servers {
    setup: Setup,
    habits: Habits,
    service: Service,
    started: u32,
}

/// The first server, as it has shown itself.
#[derive(Debug)]
pub struct Introduction {
    /// The first checks, as far as they came.
    pub verdicts: Vec<(Check, Verdict)>,
    /// For the others, if all of these were passed.
    pub next: Option<Servers>,
}

impl Introduction {
    /// Starts the first server, and makes the checks that all others need.
    ///
    /// # Errors
    ///
    /// If its program can't be run, or the kernel refuses something.
    pub fn new(setup: Setup, habits: Habits) -> std::io::Result<Self> {
        let subject = &mut Subject::start(&setup, 0)?;
        let ready = ready(subject);
        let is_ready = ready.is_ok();
        let mut introduction = Self { verdicts: vec![(Check::Ready, ready)], next: None };
        if is_ready {
            let verdict = serves(subject).map(|(service, seen)| {
                introduction.next = Some(Servers { setup, habits, service, started: 0 });
                seen
            });
            introduction.verdicts.push((Check::Serves, verdict));
        }
        Ok(introduction)
    }
}

fn millis(since: Timestamp) -> u128 {
    Timestamp::now().since(since).as_millis()
}

/// A new client of the server.
fn dial(subject: &Subject) -> Result<Client, Stop> {
    let address = subject.address()?;
    Client::dial(address).or_else(|error| match subject.waiting() {
        Some(waiting) => fail(format!("no client can connect, {waiting} wait: {error}")),
        None => fail("no client can connect: the listening socket is shut down"),
    })
}

/// A new client that has sent this.
fn client(subject: &Subject, bytes: &[u8]) -> Result<Client, Stop> {
    let mut client = dial(subject)?;
    client.send(bytes);
    Ok(client)
}

/// Whether a client that says nothing is accepted in time. It goes without a word, as a primary's own does.
fn accepts(subject: &mut Subject, limit: Duration) -> Result<bool, Stop> {
    let _client = dial(subject)?;
    subject.pass(SETTLE_TIME)?;
    subject.wait(limit, |it| it.waiting() == Some(0))
}

fn ready(subject: &mut Subject) -> Verdict {
    let start = Timestamp::now();
    let mut limit = READY_TIMEOUT;
    let mut after = 0;
    for number in 1..=PROBES {
        if !accepts(subject, limit)? {
            let why = match (subject.waiting(), listens_elsewhere(subject)) {
                (None, _) => ": it has shut the socket down",
                (_, Ok(Some(true))) => ": it listens on the port by a socket of its own",
                _ => "",
            };
            let limit = limit.as_secs();
            return fail(format!("client {number} is not accepted after {limit} s{why}"));
        }
        if number == 1 {
            (limit, after) = (ANSWER_TIMEOUT, millis(start));
        }
    }
    Ok(format!("accepts {after} ms after its start"))
}

fn serves(subject: &mut Subject) -> Result<(Service, String), Stop> {
    let mut client = client(subject, &Service::Http.request())?;
    let is_read = |client: &mut Client| client.has_anything() || client.unread() == Some(0);
    subject.wait(ANSWER_TIMEOUT, |_| client.has_anything())?;
    let service = match (Service::of_answer(client.received()), client.end()) {
        (Some(service), _) => service,
        (None, Some(End::Reset)) => {
            return fail("a client that sends a request is reset, without an answer");
        }
        (None, Some(End::Closed)) => closes_or_switches(subject)?,
        (None, None) if is_read(&mut client) => Service::Reads,
        (None, None) => return fail("accepts a client, and never reads from it"),
    };
    Ok((service, service.describe(client.received())))
}

/// A server of WebSockets alone closes what is none; one that closes what has not asked serves nobody.
fn closes_or_switches(subject: &mut Subject) -> Result<Service, Stop> {
    let mut silent = dial(subject)?;
    if subject.wait(FINISHING, |_| silent.has_anything())? && silent.end().is_some() {
        return fail("closes a client at once, without an answer");
    }
    let mut client = client(subject, &Service::WebSocket.request())?;
    subject.wait(ANSWER_TIMEOUT, |_| client.has_anything())?;
    let is_switched = is_switched(client.received());
    Ok(if is_switched { Service::WebSocket } else { Service::Closes })
}

/// Whether the server listens on the port by another socket than the given one. None if the kernel doesn't tell.
fn listens_elsewhere(subject: &Subject) -> Result<Option<bool>, Stop> {
    let port = subject.address()?.port();
    let own = fstat(subject.socket()).map_err(std::io::Error::from)?.st_ino;
    let sockets = ClientSockets::of_port(port);
    let open = sockets.and_then(|sockets| sockets.of_process(subject.pid(), Some(own)));
    Ok(open.map(|open| open.listens_elsewhere))
}

impl Servers {
    /// Makes a check on a new server.
    ///
    /// # Errors
    ///
    /// If the server breaks the rule, or the check has no meaning.
    pub fn make(&mut self, check: Check) -> Verdict {
        match check {
            // They were made when it was introduced.
            Check::Ready | Check::Serves => Ok(String::new()),
            Check::ClientAddress => self.client_address(),
            Check::TakesQueue => self.takes_queue(),
            Check::SilentClients => self.silent_clients(),
            Check::GoneClients => self.gone_clients(),
            Check::Descriptors => self.descriptors(),
            Check::OneAcceptor => self.one_acceptor(),
            Check::OwnPort => self.own_port(),
            Check::Notifies => self.notifies(),
            Check::Closes => self.closes(),
            Check::Output => self.output(),
            Check::Drains => self.drains(),
            Check::Finishes => self.finishes(),
            Check::KeepsListening => self.keeps_listening(),
            Check::LeavesNothing => self.leaves_nothing(),
            _ => Err(Stop::NotApplicable("it accepts its clients itself".to_owned())),
        }
    }

    fn next_number(&mut self) -> u32 {
        self.started += 1;
        self.started
    }

    /// A server that accepts.
    fn start(&mut self) -> Result<Subject, Stop> {
        let number = self.next_number();
        let mut subject = Subject::start(&self.setup, number)?;
        match accepts(&mut subject, READY_TIMEOUT)? {
            true => Ok(subject),
            false => fail("the server accepts no client this time"),
        }
    }

    /// Whether a client has got what the server gives.
    fn has_all(&self, client: &mut Client) -> bool {
        client.look();
        match self.service {
            Service::Reads => client.unread() == Some(0),
            service => service.is_served(client.received(), client.end()),
        }
    }

    /// Whether it has, or has seen its end: then no more comes.
    fn is_over(&self, client: &mut Client) -> bool {
        self.has_all(client) || client.end().is_some()
    }

    /// Waits until all of them have, or the time is over, and returns how many have been served.
    fn wait_for(
        &self,
        subject: &mut Subject,
        clients: &mut [Client],
        limit: Duration,
    ) -> Result<usize, Stop> {
        subject.wait(limit, |_| clients.iter_mut().all(|client| self.is_over(client)))?;
        Ok(clients.iter_mut().map(|client| usize::from(self.has_all(client))).sum())
    }

    /// How many of them have seen an end, and got nothing before it.
    fn refused(&self, clients: &mut [Client]) -> usize {
        let is_refused = |client: &mut Client| !self.has_all(client) && client.end().is_some();
        clients.iter_mut().map(|client| usize::from(is_refused(client))).sum()
    }

    /// Whether one client is served in time.
    fn is_served(&self, subject: &mut Subject) -> Result<bool, Stop> {
        let mut client = client(subject, &self.service.last_request())?;
        subject.wait(ANSWER_TIMEOUT, |_| self.is_over(&mut client))?;
        Ok(self.has_all(&mut client))
    }

    fn client_address(&mut self) -> Verdict {
        if self.service != Service::Http {
            let what = format!("no address can be in its answer: it {}", self.service.name());
            return Err(Stop::NotApplicable(what));
        }
        let subject = &mut self.start()?;
        let mut client = Client::dial_from(ODD_CLIENT, subject.address()?)?;
        client.send(&self.service.last_request());
        subject.wait(ANSWER_TIMEOUT, |_| self.is_over(&mut client))?;
        // The rest of the answer.
        subject.wait(SILENCE_TIMEOUT, |_| {
            client.look();
            client.end().is_some()
        })?;
        judge::client_address(client.received(), ODD_CLIENT)
    }

    fn takes_queue(&mut self) -> Verdict {
        let listener = group_socket()?;
        let address = listener.local_addr()?;
        let mut clients = Vec::new();
        for _ in 0..SEVERAL {
            let mut client = Client::dial(address)?;
            client.send(&self.service.last_request());
            clients.push(client);
        }
        let number = self.next_number();
        let subject = &mut Subject::start_on(&self.setup, number, listener)?;
        match self.wait_for(subject, &mut clients, READY_TIMEOUT)? {
            SEVERAL => Ok(format!("{SEVERAL} clients that waited at its start are served")),
            served => {
                let lost = SEVERAL - served;
                fail(format!("{lost} of {SEVERAL} clients that waited at its start are not served"))
            }
        }
    }

    fn silent_clients(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        let silent = (0..2 * SEVERAL).map(|_| dial(subject)).collect::<Result<Vec<_>, _>>()?;
        subject.pass(FINISHING)?;
        for number in 1..=SEVERAL {
            if !self.is_served(subject)? {
                let silent = silent.len();
                return fail(format!(
                    "client {number} is not served while {silent} others send nothing"
                ));
            }
        }
        Ok(format!("{SEVERAL} clients are served beside {} silent ones", silent.len()))
    }

    fn gone_clients(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        let stopped = Stopped::all_but(subject.pid(), None);
        for number in 0..2 * SEVERAL {
            let mut client = dial(subject)?;
            if number % 2 == 0 {
                client.send(FIRST_HALF);
            }
            if number < SEVERAL {
                client.reset();
            }
        }
        drop(stopped);
        if !subject.wait(ANSWER_TIMEOUT, |it| it.waiting() == Some(0))? {
            return fail("clients that have gone are not accepted");
        }
        match self.is_served(subject)? {
            true => Ok(format!("serves after {} that had gone", 2 * SEVERAL)),
            false => fail("serves no client any more after some that had gone"),
        }
    }

    fn descriptors(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        // A server may open something for its first client.
        self.is_served(subject)?;
        let before = match subject.limit_descriptors(FREE_DESCRIPTORS) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(Stop::NotApplicable(format!("its limits can't be set: {error}")));
            }
            limited => limited?,
        };
        let request = self.service.request();
        let mut clients =
            (0..CROWD).map(|_| client(subject, &request)).collect::<Result<Vec<_>, _>>()?;
        let served = self.wait_for(subject, &mut clients, SILENCE_TIMEOUT)?;
        let waiting = CROWD - served - self.refused(&mut clients);
        before.restore();
        let served = self.wait_for(subject, &mut clients, 2 * ANSWER_TIMEOUT)?;
        let refused = self.refused(&mut clients);
        let stuck = CROWD - served - refused;
        drop(clients);
        // It may have to start a process first.
        let recovers = stuck == 0 && (self.is_served(subject)? || self.is_served(subject)?);
        judge::crowd_at_socket(Crowd { clients: CROWD, lost: 0, refused, waiting, stuck, recovers })
    }

    fn one_acceptor(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        self.is_served(subject)?;
        let own = fstat(subject.socket()).map_err(std::io::Error::from)?.st_ino;
        let all = procfs::tree(subject.pid());
        // One that can't be looked at may have it.
        let holding: Vec<_> =
            all.into_iter().filter(|pid| has_open(*pid, own) != Some(false)).collect();
        if holding.len() == 1 {
            return Ok("one process has the socket".to_owned());
        }
        let mut accepting = Vec::new();
        for pid in holding.iter().copied().take(MAX_PROCESSES) {
            if !subject.wait(ANSWER_TIMEOUT, |it| it.waiting() == Some(0))? {
                return fail("a client is not accepted");
            }
            let _stopped = Stopped::all_but(subject.pid(), Some(pid));
            accepting.extend(accepts(subject, ALONE_TIMEOUT)?.then_some(pid));
        }
        judge::acceptors(&accepting, holding.len())
    }

    fn own_port(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        self.is_served(subject)?;
        match listens_elsewhere(subject)? {
            Some(false) => Ok("no other socket of it listens on the port".to_owned()),
            Some(true) => fail("listens on the port by a socket of its own, too"),
            None => Err(Stop::NotApplicable("its processes can't be looked at".to_owned())),
        }
    }

    fn notifies(&mut self) -> Verdict {
        let number = self.next_number();
        let subject = &mut Subject::start(&self.setup, number)?;
        let start = Timestamp::now();
        let _client = dial(subject)?;
        let is_accepted = |subject: &mut Subject| subject.waiting() == Some(0);
        subject.pass(SETTLE_TIME)?;
        subject.wait(READY_TIMEOUT, |it| it.said().ready || is_accepted(it))?;
        if !subject.said().ready {
            return match subject.wait(SILENCE_TIMEOUT, |it| it.said().ready)? {
                true => {
                    Ok(format!("says READY=1 {} ms after its start, and accepts", millis(start)))
                }
                false => Err(Stop::NotApplicable(
                    "says no READY=1: it is ready when it accepts".to_owned(),
                )),
            };
        }
        let said = Timestamp::now();
        match subject.wait(ANSWER_TIMEOUT, is_accepted)? {
            true => Ok(format!("says READY=1, and accepts {} ms after that", millis(said))),
            false => {
                let limit = ANSWER_TIMEOUT.as_secs();
                fail(format!("says READY=1, and accepts no client for {limit} s after that"))
            }
        }
    }

    fn closes(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        let mut client = client(subject, &self.service.last_request())?;
        subject.wait(ANSWER_TIMEOUT, |_| self.is_over(&mut client))?;
        if !self.has_all(&mut client) {
            return fail("a client is not served");
        }
        let has_ended = |client: &mut Client| {
            client.look();
            client.end().is_some()
        };
        if self.service == Service::WebSocket {
            client.send(CLOSE_FRAME);
        }
        let waits = matches!(self.service, Service::Http | Service::WebSocket);
        let by_itself = waits && subject.wait(ANSWER_TIMEOUT, |_| has_ended(&mut client))?;
        if !by_itself {
            client.finish();
            subject.wait(ANSWER_TIMEOUT, |_| has_ended(&mut client))?;
        }
        judge::closed(client.end(), by_itself)
    }

    fn output(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        subject.read_output(false);
        for number in 0..UNREAD_REQUESTS {
            if !self.is_served(subject)? {
                return fail(format!(
                    "stands still after {number} requests with its output unread"
                ));
            }
        }
        Ok(format!("serves {UNREAD_REQUESTS} clients while its output is unread"))
    }

    /// Sends the signal that ends it.
    fn stop(&self, subject: &mut Subject) -> Timestamp {
        subject.stop(self.habits.stop_signal, DRAIN_WINDOW);
        Timestamp::now()
    }

    fn wait_until_end(&self, subject: &mut Subject, start: Timestamp) -> Result<bool, Stop> {
        let left = DRAIN_WINDOW.saturating_sub(Timestamp::now().since(start));
        subject.wait(left, |it| it.has_ended())
    }

    fn drains(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        self.is_served(subject)?;
        let start = self.stop(subject);
        self.wait_until_end(subject, start)?;
        let signal = Some(self.habits.stop_signal);
        let (exit, description) = (subject.exit(), subject.describe_exit());
        judge::ended(&Ended { exit, description, signal, millis: millis(start) })
    }

    fn finishes(&mut self) -> Verdict {
        if self.service != Service::Http {
            let what = format!("no end can be told: it {}", self.service.name());
            return Err(Stop::NotApplicable(what));
        }
        let subject = &mut self.start()?;
        let (first, second) = match &self.habits.slow_path {
            Some(path) => {
                let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                (head.into_bytes(), &b""[..])
            }
            None => (FIRST_HALF.to_vec(), SECOND_HALF),
        };
        let mut client = client(subject, &first)?;
        subject.pass(FINISHING)?;
        if client.has_anything() {
            let why = match self.habits.slow_path {
                Some(_) => "the answer to --slow-path has come before the signal",
                None => "it answers half a request; name a --slow-path",
            };
            return Err(Stop::NotApplicable(why.to_owned()));
        }
        let start = self.stop(subject);
        subject.pass(FINISHING)?;
        client.send(second);
        subject.wait(DRAIN_WINDOW, |_| self.is_over(&mut client))?;
        let is_finished = self.has_all(&mut client);
        drop(client);
        self.wait_until_end(subject, start)?;
        if !is_finished && self.habits.slow_path.is_none() {
            // Servers that finish answers may close a client that hasn't asked yet.
            let why = "closes a client that was about to ask; for answers, name a --slow-path";
            return Err(Stop::NotApplicable(why.to_owned()));
        }
        judge::finished(self.service, is_finished, false)
    }

    fn keeps_listening(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        self.is_served(subject)?;
        let start = self.stop(subject);
        if !self.wait_until_end(subject, start)? {
            return Err(Stop::NotApplicable("it does not end: see drains".to_owned()));
        }
        let flags = fcntl_getfl(subject.socket()).map_err(std::io::Error::from)?;
        let is_nodelay = sockopt::tcp_nodelay(subject.socket()).map_err(std::io::Error::from)?;
        let is_nonblocking = flags.contains(OFlags::NONBLOCK);
        let listens = subject.waiting().is_some();
        judge::left_socket(Left { listens, is_nonblocking, is_nodelay })
    }

    fn leaves_nothing(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        self.is_served(subject)?;
        let start = self.stop(subject);
        if !self.wait_until_end(subject, start)? {
            return Err(Stop::NotApplicable("it does not end: see drains".to_owned()));
        }
        // Before its status is taken, which kills the rest of its group.
        judge::left(&subject.find_left())
    }
}
