//! The checks of workers that get their connections through a link, native ones and those of Node.
//!
//! Each has a worker of its own, so that one that has broken a rule says nothing about the next. Those of another
//! interface are another file.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::process::Signal;

use crate::conformance::check::{Check, Stop, Verdict, fail};
use crate::conformance::client::{Client, End};
use crate::conformance::judge::{self, Counted, Crowd, Ended};
use crate::conformance::service::{CLOSE_FRAME, FIRST_HALF, SECOND_HALF, Service, is_switched};
use crate::conformance::subject::{CREDITS, KILL_TIMEOUT, ORPHAN_TIMEOUT, Setup, Subject, Watched};
use crate::link::event::WorkerNote;
use crate::link::interface::{Interface, InterfaceChoice};
use crate::protocol::ids::{ConnectionId, Timestamp};
use crate::protocol::tcp_progress::is_untouched;

/// From the start to ready, as a primary has it for workers of Node.
const READY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an acknowledgement, an answer or an end may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a program may take to read, where reading is all that can be seen.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(1);
/// The time that an order to drain gives.
const DRAIN_WINDOW: Duration = Duration::from_secs(5);
/// The time that a program of Node has between its steps, as its primary takes them.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long clients that are being served go on after the order to drain.
const FINISHING: Duration = Duration::from_millis(300);
/// How long something may take that should not happen: a second acknowledgement, a wait for a silent client.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// Connections that send nothing until they are acknowledged, and how many come at a time.
const SILENT: usize = 500;
const AT_A_TIME: usize = 25;
/// Rounds of connections whose bytes are there already: whole requests, and halves.
const ROUNDS_WITH_BYTES: usize = 80;
/// The pause between two looks at a socket, in every other pair of rounds.
const BETWEEN_LOOKS: Duration = Duration::from_micros(10);
/// Connections of which each is acknowledged once.
const COUNTED: usize = 200;
/// Clients beside others.
const SEVERAL: usize = 8;
/// Requests while nobody reads the output.
const UNREAD_REQUESTS: usize = 40;
/// Free descriptors, and clients that come while there are no more.
const FREE_DESCRIPTORS: usize = 8;
const CROWD: usize = 24;

/// The workers of a run, of which it is known what they speak and do.
#[derive(Debug)]
pub struct HandOff {
    setup: Setup,
    service: Service,
    started: u32,
}

/// The first worker, as it has shown itself.
#[derive(Debug)]
pub struct Introduction {
    /// Its interface, if it is known.
    pub interface: Option<Interface>,
    /// The first checks, as far as they came.
    pub verdicts: Vec<(Check, Verdict)>,
    /// For the others, if all of these were passed.
    pub next: Option<HandOff>,
}

impl Introduction {
    /// Starts the first worker, and makes the checks that all others need.
    ///
    /// # Errors
    ///
    /// If its program can't be run, or the kernel refuses something.
    pub fn new(setup: Setup) -> std::io::Result<Self> {
        let mut subject = Subject::start(&setup, 0)?;
        let mut introduction = Self { interface: None, verdicts: Vec::new(), next: None };
        let attached = attaches(&mut subject);
        introduction.interface = subject.interface();
        if introduction.add(Check::Attaches, attached) {
            let is_ready = ready(&mut subject);
            if introduction.add(Check::Ready, is_ready) {
                let (service, verdict) = match serves(&mut subject) {
                    Ok((service, seen)) => (Some(service), Ok(seen)),
                    Err(stop) => (None, Err(stop)),
                };
                introduction.add(Check::Serves, verdict);
                introduction.next = service.zip(subject.interface()).map(|(service, interface)| {
                    let interface = InterfaceChoice::Only(interface);
                    HandOff { setup: Setup { interface, ..setup }, service, started: 0 }
                });
            }
        }
        Ok(introduction)
    }

    fn add(&mut self, check: Check, verdict: Verdict) -> bool {
        let passed = verdict.is_ok();
        self.verdicts.push((check, verdict));
        passed
    }
}

fn millis(since: Timestamp) -> u128 {
    Timestamp::now().since(since).as_millis()
}

fn attaches(subject: &mut Subject) -> Verdict {
    let start = Timestamp::now();
    match subject.wait(READY_TIMEOUT, |it| it.said().attached)? {
        true => {
            let name = subject.interface().map_or("something", Interface::name);
            Ok(format!("speaks {name} after {} ms", millis(start)))
        }
        false => fail(format!("has said nothing after {} s", READY_TIMEOUT.as_secs())),
    }
}

fn ready(subject: &mut Subject) -> Verdict {
    let start = Timestamp::now();
    if subject.wait(READY_TIMEOUT, |it| it.said().ready)? {
        return Ok(format!("ready {} ms after that", millis(start)));
    }
    let late = format!("not ready after {} s", READY_TIMEOUT.as_secs());
    match subject.said().note {
        Some(WorkerNote::OtherPort(port)) => fail(format!("{late}: it listens on port {port}")),
        _ => fail(late),
    }
}

fn serves(subject: &mut Subject) -> Result<(Service, String), Stop> {
    let (mut client, id) = subject.client(&Service::Http.request())?;
    if !subject.wait(ANSWER_TIMEOUT, |it| it.has_acknowledged(id))? {
        return match subject.refused() {
            0 => fail("a connection is not acknowledged"),
            _ => fail("refuses a connection, though it has descriptors"),
        };
    }
    subject.wait(ANSWER_TIMEOUT, |_| client.has_anything())?;
    let mut service = Service::of_answer(client.received());
    // Whole answers are looked for from now on.
    if let (None, Some(End::Closed)) = (service, client.end()) {
        service = Some(closes_or_switches(subject)?);
    }
    if let (None, Some(End::Reset)) = (service, client.end()) {
        return fail("a client that sends a request is reset, without an answer");
    }
    match service {
        Some(service) => Ok((service, service.describe(client.received()))),
        None => reads(subject),
    }
}

/// A server of WebSockets alone closes what is none.
fn closes_or_switches(subject: &mut Subject) -> Result<Service, Stop> {
    let (mut client, _) = subject.client(&Service::WebSocket.request())?;
    subject.wait(ANSWER_TIMEOUT, |_| client.has_anything())?;
    let is_switched = is_switched(client.received());
    Ok(if is_switched { Service::WebSocket } else { Service::Closes })
}

/// A copy of the socket shows whether it is read from.
fn reads(subject: &mut Subject) -> Result<(Service, String), Stop> {
    let (mut client, connection) = subject.connect()?;
    let copy = connection.socket.as_fd().try_clone_to_owned()?;
    client.send(&Service::Http.request());
    subject.hand_over(connection);
    match subject.wait(SILENCE_TIMEOUT, |_| matches!(is_untouched(&copy), Ok(false)))? {
        true => Ok((Service::Reads, Service::Reads.name().to_owned())),
        false => fail("acknowledges a connection, and never reads from it"),
    }
}

impl HandOff {
    /// Makes a check on a new worker.
    ///
    /// # Errors
    ///
    /// If the worker breaks the rule, or the check has no meaning.
    pub fn make(&mut self, check: Check) -> Verdict {
        let is_native = self.setup.interface == InterfaceChoice::Only(Interface::Native);
        match check {
            // They were made when it was introduced.
            Check::Attaches | Check::Ready | Check::Serves => Ok(String::new()),
            Check::AcknowledgesFirst => self.acknowledges_first(),
            Check::AcknowledgesAll => self.acknowledges_all(),
            Check::SilentClients => self.silent_clients(),
            Check::GoneClients => self.gone_clients(),
            Check::Descriptors => self.descriptors(),
            Check::Pings => self.pings(),
            Check::Closes => self.closes(),
            Check::Output => self.output(),
            Check::Drains => self.drains(),
            Check::Finishes => self.finishes(),
            Check::Orphan if is_native => self.orphan(),
            Check::Orphan => Err(Stop::NotApplicable(
                "the channel of a worker of Node outlives its primary".to_owned(),
            )),
            Check::LeavesNothing => self.leaves_nothing(),
            _ => Err(Stop::NotApplicable("its connections are handed over".to_owned())),
        }
    }

    /// A worker that is ready.
    fn start(&mut self) -> Result<Subject, Stop> {
        self.started += 1;
        let mut subject = Subject::start(&self.setup, self.started)?;
        match subject.wait(READY_TIMEOUT, |it| it.said().ready)? {
            true => Ok(subject),
            false => fail("the worker does not become ready this time"),
        }
    }

    /// Whether one client is served in time.
    fn is_served(&self, subject: &mut Subject) -> Result<bool, Stop> {
        let (mut client, id) = subject.client(&self.service.request())?;
        self.wait_until_served(subject, &mut client, id)
    }

    fn wait_until_served(
        &self,
        subject: &mut Subject,
        client: &mut Client,
        id: ConnectionId,
    ) -> Result<bool, Stop> {
        subject.wait(ANSWER_TIMEOUT, |it| {
            client.look();
            it.has_acknowledged(id) && self.service.is_served(client.received(), client.end())
        })
    }

    fn acknowledges_first(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        for round in 0..SILENT / AT_A_TIME {
            let clients: Result<Vec<_>, _> = (0..AT_A_TIME).map(|_| subject.client(b"")).collect();
            let clients = clients?;
            subject.wait(ANSWER_TIMEOUT, |it| it.open() == 0)?;
            let waiting = clients.iter().filter(|(_, id)| !subject.has_acknowledged(*id)).count();
            if waiting > 0 {
                let before = round * AT_A_TIME;
                return fail(format!(
                    "{waiting} of {AT_A_TIME} connections that send nothing are not acknowledged (after {before} that were)"
                ));
            }
        }
        let whole = self.service.request();
        for round in 0..ROUNDS_WITH_BYTES {
            let (what, bytes) = match round % 2 {
                0 => ("a request", whole.as_slice()),
                _ => ("half a request", FIRST_HALF),
            };
            let clients: Result<Vec<_>, _> = (0..CREDITS).map(|_| subject.client(bytes)).collect();
            let clients = clients?;
            let pause = (round / 2 % 2 == 1).then_some(BETWEEN_LOOKS);
            match subject.watch(bytes.len() as u64, pause, ANSWER_TIMEOUT)? {
                Watched::Done => {}
                Watched::Used(id) => {
                    let within = clients.iter().position(|(_, own)| *own == id).unwrap_or_default();
                    let number = round * CREDITS + within + 1;
                    return fail(format!(
                        "connection {number} of {} was used before it was acknowledged",
                        ROUNDS_WITH_BYTES * CREDITS
                    ));
                }
                Watched::Late => {
                    let open = subject.open();
                    return fail(format!("{open} connections with {what} are not acknowledged"));
                }
            }
        }
        let with_bytes = ROUNDS_WITH_BYTES * CREDITS;
        Ok(format!("{SILENT} silent, {with_bytes} with bytes: none was used before"))
    }

    fn acknowledges_all(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        let request = self.service.request();
        let clients: Result<Vec<_>, _> = (0..COUNTED).map(|_| subject.client(&request)).collect();
        let clients = clients?;
        subject.wait(2 * ANSWER_TIMEOUT, |it| it.open() == 0)?;
        // One too many comes late, too.
        subject.pass(AFTERWARDS)?;
        let missing = clients.iter().filter(|(_, id)| !subject.has_acknowledged(*id)).count();
        judge::counted(Counted { sent: COUNTED, missing, refused: subject.refused() })
    }

    fn silent_clients(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        let silent: Result<Vec<_>, _> = (0..2 * SEVERAL).map(|_| subject.client(b"")).collect();
        let silent = silent?;
        subject.wait(ANSWER_TIMEOUT, |it| it.open() == 0)?;
        subject.pass(AFTERWARDS)?;
        for number in 0..SEVERAL {
            if !self.is_served(subject)? {
                let silent = silent.len();
                return fail(format!(
                    "client {} is not served while {silent} others send nothing",
                    number + 1
                ));
            }
        }
        Ok(format!("{SEVERAL} clients are served beside {} silent ones", silent.len()))
    }

    fn gone_clients(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        for number in 0..2 * SEVERAL {
            let (mut client, connection) = subject.connect()?;
            if number % 2 == 0 {
                client.send(FIRST_HALF);
            }
            if number < SEVERAL {
                client.reset();
            } else {
                drop(client);
            }
            subject.hand_over(connection);
        }
        if !subject.wait(ANSWER_TIMEOUT, |it| it.open() == 0)? {
            let open = subject.open();
            return fail(format!(
                "{open} connections whose clients have gone are not acknowledged"
            ));
        }
        match self.is_served(subject)? {
            true => Ok(format!("serves after {} that had gone", 2 * SEVERAL)),
            false => fail("serves no client any more after some that had gone"),
        }
    }

    fn descriptors(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        // A worker may open something for its first client.
        self.is_served(subject)?;
        let before = subject.limit_descriptors(FREE_DESCRIPTORS)?;
        let request = self.service.request();
        let mut clients = Vec::new();
        for _ in 0..CROWD {
            clients.push(subject.client(&request)?);
        }
        subject.wait(ANSWER_TIMEOUT, |it| it.open() == 0)?;
        let is_lost = |it: &Subject, client: &Client, id: ConnectionId| {
            let served = self.service.is_served(client.received(), client.end());
            it.has_acknowledged(id) && (!served || client.end() == Some(End::Reset))
        };
        subject.wait(ANSWER_TIMEOUT, |it| {
            clients.iter_mut().for_each(|(client, _)| client.look());
            !clients.iter().any(|(client, id)| is_lost(it, client, *id))
        })?;
        let lost = clients.iter().filter(|(client, id)| is_lost(subject, client, *id)).count();
        let (refused, waiting) = (subject.refused(), subject.open());
        drop(clients);
        before.restore();
        if lost == 0 && !subject.wait(ANSWER_TIMEOUT, |it| it.open() == 0)? {
            // They may be in the channel still.
            subject.take_back();
        }
        let stuck = subject.on_their_way();
        let recovers = lost == 0 && stuck == 0 && self.is_served(subject)?;
        judge::crowd(Crowd { clients: CROWD, lost, refused, waiting, stuck, recovers })
    }

    fn pings(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        if !subject.wait(SILENCE_TIMEOUT, |it| it.has_pings())? {
            return Err(Stop::NotApplicable("its runtime answers no pings".to_owned()));
        }
        let mut longest = 0;
        let mut silent = Vec::new();
        for number in 1..=3 {
            let (before, start) = (subject.said().pongs, Timestamp::now());
            subject.ping()?;
            if !subject.wait(ANSWER_TIMEOUT, |it| it.said().pongs > before)? {
                let limit = ANSWER_TIMEOUT.as_secs();
                return fail(format!("ping {number} has no pong after {limit} s"));
            }
            longest = longest.max(millis(start));
            // The next ones come beside clients.
            silent.push(subject.client(b"")?);
            subject.pass(AFTERWARDS)?;
        }
        Ok(format!("3 pongs, the slowest after {longest} ms"))
    }

    fn closes(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        let (mut client, id) = subject.client(&self.service.last_request())?;
        if !self.wait_until_served(subject, &mut client, id)? {
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

    fn drains(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        self.is_served(subject)?;
        let start = Timestamp::now();
        subject.drain(DRAIN_WINDOW);
        self.wait_until_end(subject, start)?;
        let is_node = self.setup.interface == InterfaceChoice::Only(Interface::Node);
        let signal = is_node.then_some(Signal::INT);
        let (exit, description) = (subject.exit(), subject.describe_exit());
        judge::ended(&Ended { exit, description, signal, millis: millis(start) })
    }

    /// Waits for its end, by the steps that a primary takes.
    fn wait_until_end(&self, subject: &mut Subject, start: Timestamp) -> Result<(), Stop> {
        if self.setup.interface == InterfaceChoice::Only(Interface::Node) {
            subject.disconnect();
            if !subject.wait(STEP_TIMEOUT, |it| it.has_ended())? {
                subject.signal(Signal::INT);
            }
        }
        let left = DRAIN_WINDOW.saturating_sub(Timestamp::now().since(start));
        subject.wait(left, |it| it.has_ended()).map(|_| ())
    }

    fn finishes(&mut self) -> Verdict {
        if !matches!(self.service, Service::Http | Service::WebSocket | Service::Echo) {
            let what = format!("no end can be told: it {}", self.service.name());
            return Err(Stop::NotApplicable(what));
        }
        let subject = &mut self.start()?;
        let (mut client, id) = self.busy(subject)?;
        if !subject.wait(ANSWER_TIMEOUT, |it| it.has_acknowledged(id))? {
            return fail("a connection is not acknowledged");
        }
        let start = Timestamp::now();
        subject.drain(DRAIN_WINDOW);
        subject.pass(FINISHING)?;
        let finished = match self.service {
            Service::WebSocket => {
                subject.wait(DRAIN_WINDOW, |_| {
                    client.look();
                    client.end().is_some() || client.received().first() == Some(&0x88)
                })?;
                client.send(CLOSE_FRAME);
                client.finish();
                client.end() != Some(End::Reset)
            }
            _ => {
                if self.setup.interface == InterfaceChoice::Only(Interface::Node) {
                    subject.disconnect();
                    subject.pass(FINISHING)?;
                }
                client.send(SECOND_HALF);
                subject.wait(ANSWER_TIMEOUT, |_| {
                    client.look();
                    self.service.is_served(client.received(), client.end())
                        || client.end().is_some()
                })?;
                self.service.is_served(client.received(), client.end())
            }
        };
        let has_close_frame = client.received().first() == Some(&0x88);
        drop(client);
        self.wait_until_end(subject, start)?;
        judge::finished(self.service, finished, has_close_frame)
    }

    /// A client in the middle of something.
    fn busy(&self, subject: &mut Subject) -> Result<(Client, ConnectionId), Stop> {
        match self.service {
            Service::WebSocket => {
                let (mut client, id) = subject.client(&self.service.request())?;
                self.wait_until_served(subject, &mut client, id)?;
                client.forget();
                Ok((client, id))
            }
            Service::Echo => {
                let (mut client, id) = subject.client(FIRST_HALF)?;
                self.wait_until_served(subject, &mut client, id)?;
                client.forget();
                Ok((client, id))
            }
            _ => Ok(subject.client(FIRST_HALF)?),
        }
    }

    /// A client that was answered, if the worker keeps its connection open.
    fn idle(&self, subject: &mut Subject) -> Result<Option<Client>, Stop> {
        if !matches!(self.service, Service::Http | Service::Echo) {
            return Ok(None);
        }
        let (mut client, id) = subject.client(&self.service.request())?;
        self.wait_until_served(subject, &mut client, id)?;
        subject.pass(AFTERWARDS)?;
        client.look();
        client.forget();
        Ok(Some(client).filter(|client| client.end().is_none()))
    }

    fn orphan(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        let (mut client, id) = self.busy(subject)?;
        if !subject.wait(ANSWER_TIMEOUT, |it| it.has_acknowledged(id))? {
            return fail("a connection is not acknowledged");
        }
        let mut idle = self.idle(subject)?;
        let start = Timestamp::now();
        subject.primary_dies();
        // In the middle of the time that it has.
        subject.wait(ORPHAN_TIMEOUT / 2, |it| it.has_ended())?;
        client.look();
        if subject.has_ended() || client.end().is_some() {
            let after = millis(start);
            let exit = subject.exit().map_or_else(String::new, |exit| format!(": {exit}"));
            return fail(format!("a client is cut {after} ms after the primary has died{exit}"));
        }
        if matches!(self.service, Service::Http | Service::Echo) {
            client.send(SECOND_HALF);
            let served = subject.wait(ORPHAN_TIMEOUT / 2, |_| {
                client.look();
                self.service.is_served(client.received(), client.end())
            })?;
            if !served {
                return fail("a request that had begun is not answered once the primary has died");
            }
        }
        if let Some(idle) = &mut idle {
            idle.send(&self.service.request());
            let served = subject.wait(ORPHAN_TIMEOUT / 2, |_| {
                idle.look();
                self.service.is_served(idle.received(), idle.end())
            })?;
            if !served {
                return fail(
                    "a client that was idle is not served any more once the primary has died",
                );
            }
        }
        let limit = ORPHAN_TIMEOUT + KILL_TIMEOUT + Duration::from_secs(1);
        let left = limit.saturating_sub(Timestamp::now().since(start));
        match subject.wait(left, |it| it.has_ended())? {
            true => Ok(format!("serves on, and ends after {} ms", millis(start))),
            false => fail(format!(
                "has not ended {} ms after the death of its primary, with {} and {} as its times",
                limit.as_millis(),
                ORPHAN_TIMEOUT.as_millis(),
                KILL_TIMEOUT.as_millis(),
            )),
        }
    }

    fn leaves_nothing(&mut self) -> Verdict {
        let subject = &mut self.start()?;
        self.is_served(subject)?;
        let start = Timestamp::now();
        subject.drain(DRAIN_WINDOW);
        self.wait_until_end(subject, start)?;
        if !subject.has_ended() {
            return Err(Stop::NotApplicable("it does not end: see drains".to_owned()));
        }
        // Before its status is taken, which kills the rest of its group.
        judge::left(&subject.find_left())
    }
}
