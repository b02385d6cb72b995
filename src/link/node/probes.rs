//! Connections of the primary's own to a program that takes its connections by a message and may say nothing: one that
//! is answered, or closed by the program, shows that it takes them.
//!
//! A message that comes before the program listens for messages is lost in the worker, with its connection: so it is
//! tried again, after 50 ms, 100 ms, 200 ms and so on, at most [`MAX_PROBES`] times. The primary's ends are closed
//! afterwards, when the program has closed its own or has had its time.
//!
//! # Traces of a probe in the worker
//!
//! * One that is taken is a connection from 127.0.0.1 with one request, `GET /`, that the program answers and closes
//!   as any other. It is in the program's log, if that has one, and in its counters.
//! * One that comes before the program listens for messages stays open in the worker for as long as that lives: one
//!   descriptor each, of a socket that is closed on this side and that the program never sees. A program that is up
//!   within 50 ms has none, one that takes a second has four (measured
//!   with Node 20).
//! * A program that has TLS, or another protocol than HTTP, gets a line that it can't read, and may report that.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, connect,
    getpeername, getsockname, listen, recv, send, socket_with,
};

use crate::closing::Deferred;
use crate::protocol::ids::Timestamp;

/// Probes of one worker, at most.
const MAX_PROBES: u32 = 12;

/// The first one comes so long after the start of the program, and each next one after twice the time.
const FIRST: Duration = Duration::from_millis(50);

/// How often answers are looked for.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// How long a program may take to close its ends, once it has answered one.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a program is asked.
const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: sticky-lb-probe\r\nConnection: close\r\n\r\n";

/// So much of an answer is read in one look.
const MAX_READS: usize = 16;

/// The probes of one worker.
#[derive(Debug, Default)]
pub(super) struct Probes {
    sent: u32,
    /// When the next one is due; none before the program runs, and when no further one is needed.
    next: Option<Timestamp>,
    /// When the ends that are left are closed.
    closes: Option<Timestamp>,
    /// The primary's ends.
    open: Vec<Deferred>,
}

/// A connection of the primary's own.
#[derive(Debug)]
pub(super) struct Probe {
    /// The end for the worker.
    pub(super) server: Deferred,
    client: Deferred,
}

impl Probes {
    /// The program is about to run.
    pub(super) fn begin(&mut self, now: Timestamp) {
        if self.sent == 0 && self.closes.is_none() {
            self.next = Some(now + FIRST);
        }
    }

    /// No further one is needed.
    pub(super) fn end(&mut self, now: Timestamp) {
        self.next = None;
        self.closes.get_or_insert(now + CLOSE_TIMEOUT);
    }

    /// Whether ends are left that are to be looked at.
    pub(super) fn are_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The next one, if it is due and can be made now.
    pub(super) fn take_due(&self, now: Timestamp) -> Option<Probe> {
        self.next.filter(|next| now >= *next)?;
        Probe::make().ok()
    }

    /// It was sent.
    pub(super) fn sent(&mut self, probe: Probe, now: Timestamp) {
        self.open.push(probe.client);
        self.sent += 1;
        let pause = FIRST.saturating_mul(1 << self.sent.min(MAX_PROBES));
        self.next = (self.sent < MAX_PROBES).then(|| now + pause);
    }

    /// Looks whether one was answered, or closed by the program.
    pub(super) fn look(&mut self, now: Timestamp) -> bool {
        let mut answered = false;
        self.open.retain(|client| {
            let (heard, is_open) = read(client);
            answered |= heard || !is_open;
            is_open
        });
        if self.closes.is_some_and(|closes| now >= closes) {
            self.open.clear();
        }
        answered
    }
}

/// Reads what has come, which is of no interest, and says whether something has and whether the other end is open.
/// What were left unread would reset the connection.
fn read(client: &OwnedFd) -> (bool, bool) {
    let (mut heard, mut bytes) = (false, [0; 4096]);
    for _ in 0..MAX_READS {
        match recv(client, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return (heard, false),
            Ok(_) => heard = true,
            Err(Errno::AGAIN | Errno::INTR) => return (heard, true),
            Err(_) => return (heard, false),
        }
    }
    (heard, true)
}

impl Probe {
    /// Over the loopback interface, where a connection is there at once. If not, the next look tries again.
    fn make() -> Result<Self, Errno> {
        let new = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        };
        let (listener, client) = (new()?, new()?);
        bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        listen(&listener, 1)?;
        match connect(&client, &getsockname(&listener)?) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let server = accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        // Another program could have been faster.
        if getpeername(&server)? != Some(getsockname(&client)?) {
            return Err(Errno::CONNREFUSED);
        }
        send(&client, REQUEST, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(Self { server: server.into(), client: client.into() })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp(1) + Duration::from_millis(milliseconds)
    }

    /// The times of all probes, and the ends for the worker, which keeps them open.
    fn send_all(probes: &mut Probes) -> Vec<(u64, OwnedFd)> {
        let mut sent = Vec::new();
        for millisecond in 0..400_000 {
            if let Some(probe) = probes.take_due(at(millisecond)) {
                sent.push((millisecond, probe.server.as_fd().try_clone_to_owned().unwrap()));
                probes.sent(probe, at(millisecond));
            }
        }
        sent
    }

    #[test]
    fn the_pauses_double_and_there_is_an_end() {
        let mut probes = Probes::default();
        assert!(probes.take_due(at(1000)).is_none());
        probes.begin(at(0));
        let sent = send_all(&mut probes);
        let times: Vec<_> = sent.iter().map(|(time, _)| *time).collect();
        assert_eq!(times[..4], [50, 150, 350, 750]);
        assert_eq!(times.len(), MAX_PROBES as usize);
        assert!(!probes.look(at(500_000)) && probes.are_open());
        probes.end(at(500_000));
        probes.look(at(502_000));
        assert!(!probes.are_open());
    }

    #[test]
    fn an_answer_or_a_close_shows_that_the_program_takes_connections() {
        for is_answered in [true, false] {
            let mut probes = Probes::default();
            probes.begin(at(0));
            let probe = probes.take_due(at(60)).unwrap();
            let worker = probe.server.as_fd().try_clone_to_owned().unwrap();
            probes.sent(probe, at(60));
            assert!(!probes.look(at(70)));
            let mut request = [0; 256];
            let (_, length) = recv(&worker, &mut request, RecvFlags::empty()).unwrap();
            assert_eq!(&request[..length], REQUEST);
            if is_answered {
                send(&worker, b"HTTP/1.1 204 No Content\r\n\r\n", SendFlags::empty()).unwrap();
                assert!(probes.look(at(80)));
                probes.end(at(80));
                assert!(probes.are_open());
            }
            drop(worker);
            // The copy that was handed over is closed on a thread of its own.
            let closed = (0..200).any(|_| {
                std::thread::sleep(Duration::from_millis(5));
                probes.look(at(90))
            });
            assert!(closed && !probes.are_open());
        }
    }
}
