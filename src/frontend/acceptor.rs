//! The accept side of the dispatcher: looks into the backlog and tells the result.
//!
//! Never decides where a connection goes. Out of descriptors, it leaves the backlog alone for a
//! while, logs that once, and comes back by itself.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::frontend::listener::{AcceptError, Accepted, Listener};
use crate::frontend::poller::{Poller, Source};
use crate::handover::carry;
use crate::handover::frontend::AcceptErrorsSnapshot;
use crate::protocol::ids::Timestamp;
use rustix::io::Errno;

/// Takes connections from a listener's backlog.
#[derive(Debug)]
pub struct Acceptor {
    listener: Option<Listener>,
    /// The poller reports the listener.
    is_watched: bool,
    backoff: AcceptBackoff,
    paused_until: Option<Timestamp>,
    errors: AcceptErrors,
}

/// A connection fresh from the backlog.
#[derive(Debug)]
pub struct Arrival {
    /// The client's socket.
    pub socket: OwnedFd,
    /// The client's address.
    pub client: SocketAddr,
    /// Where the listener listens. Who wants to know what the client connected to, asks its socket: that is a
    /// system call, which waits for the lock of the socket, too.
    pub local: SocketAddr,
}

/// The result of a look into the backlog.
#[derive(Debug)]
pub enum Look {
    /// A connection.
    Arrival(Arrival),
    /// Nothing; it is empty.
    Empty,
    /// Nothing, and no more looks for now.
    Paused,
}

impl Acceptor {
    /// Adds the listener, if it isn't closed, to what `poller` waits for; it is not reported
    /// yet. `errors` were counted before.
    ///
    /// # Errors
    ///
    /// If the kernel won't watch it.
    pub fn new(
        listener: Option<Listener>,
        errors: AcceptErrors,
        poller: &Poller,
    ) -> io::Result<Self> {
        if let Some(listener) = &listener {
            poller.add(Source::Listener, listener.as_fd())?;
            poller.set_interest(Source::Listener, listener.as_fd(), false)?;
        }
        let (backoff, paused_until) = (AcceptBackoff::default(), None);
        Ok(Self { listener, is_watched: false, backoff, paused_until, errors })
    }

    /// The listener and the errors, for a successor.
    #[must_use]
    pub fn into_parts(self) -> (Option<Listener>, AcceptErrors) {
        (self.listener, self.errors)
    }

    /// Takes one connection, without waiting.
    ///
    /// # Errors
    ///
    /// If the listener has failed.
    pub fn look(&mut self, now: Timestamp) -> io::Result<Look> {
        loop {
            let Some(listener) = &self.listener else { return Ok(Look::Empty) };
            match listener.accept() {
                Ok(Accepted { socket, client }) => {
                    let local = listener.local();
                    return Ok(Look::Arrival(Arrival { socket, client, local }));
                }
                Err(AcceptError::Empty) => {
                    if self.backoff.end() {
                        tracing::info!("accepting again");
                    }
                    return Ok(Look::Empty);
                }
                Err(AcceptError::Skip(errno)) => {
                    self.errors.count(errno);
                    tracing::debug!(error = %errno, "connection failed before it was accepted");
                }
                Err(AcceptError::Exhausted(errno)) => {
                    self.pause(errno, now);
                    return Ok(Look::Paused);
                }
                Err(AcceptError::Broken(errno)) => return Err(errno.into()),
            }
        }
    }

    /// Has the poller report the listener from now on, or not: while connections wait that cannot be
    /// taken, it would report it all the time.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_interest(
        &mut self,
        poller: &Poller,
        wanted: bool,
        now: Timestamp,
    ) -> io::Result<()> {
        if self.paused_until.is_some_and(|until| now >= until) {
            self.paused_until = None;
        }
        let interest = wanted && self.paused_until.is_none();
        if let Some(listener) = &self.listener
            && interest != self.is_watched
        {
            poller.set_interest(Source::Listener, listener.as_fd(), interest)?;
            self.is_watched = interest;
        }
        Ok(())
    }

    /// Closes the listener: clients that come now are turned away by the kernel.
    pub fn close(&mut self) {
        self.listener = None;
    }

    /// Whether the listener is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.listener.is_none()
    }

    /// When it looks again, if it is paused.
    #[must_use]
    pub fn paused_until(&self) -> Option<Timestamp> {
        self.paused_until
    }

    /// Errors of accept so far.
    #[must_use]
    pub fn errors(&self) -> &AcceptErrors {
        &self.errors
    }

    fn pause(&mut self, errno: Errno, now: Timestamp) {
        self.errors.count(errno);
        let (pause, first) = self.backoff.pause();
        self.paused_until = Some(now + pause);
        if first {
            tracing::warn!(
                error = %errno,
                "out of descriptors or memory, clients wait in the backlog",
            );
        }
    }
}

/// Errors of accept that are counted by name.
const NAMES: [(Errno, &str); 16] = [
    (Errno::CONNABORTED, "ECONNABORTED"),
    (Errno::HOSTDOWN, "EHOSTDOWN"),
    (Errno::HOSTUNREACH, "EHOSTUNREACH"),
    (Errno::INTR, "EINTR"),
    (Errno::MFILE, "EMFILE"),
    (Errno::NETDOWN, "ENETDOWN"),
    (Errno::NETUNREACH, "ENETUNREACH"),
    (Errno::NFILE, "ENFILE"),
    (Errno::NOBUFS, "ENOBUFS"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::NONET, "ENONET"),
    (Errno::NOPROTOOPT, "ENOPROTOOPT"),
    (Errno::NOTCONN, "ENOTCONN"),
    (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    (Errno::PERM, "EPERM"),
    (Errno::PROTO, "EPROTO"),
];

/// Errors of accept since the start, by name; all others together.
#[derive(Clone, Debug, Default)]
pub struct AcceptErrors {
    named: [u64; NAMES.len()],
    other: u64,
}

carry!(struct AcceptErrors => AcceptErrorsSnapshot { named, other });

impl AcceptErrors {
    fn count(&mut self, errno: Errno) {
        let named = NAMES.iter().position(|(named, _)| *named == errno);
        *named.map_or(&mut self.other, |index| &mut self.named[index]) += 1;
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.other + self.named.iter().sum::<u64>()
    }

    /// Those that have come, with their counts.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = NAMES.iter().zip(self.named).map(|((_, name), count)| (*name, count));
        named.chain([("other", self.other)]).filter(|(_, count)| *count > 0)
    }
}

/// How long to leave the backlog alone while descriptors are short: twice as long each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct AcceptBackoff {
    last: Option<Duration>,
}

impl AcceptBackoff {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);

    /// The next pause, and whether it is the first of a row.
    fn pause(&mut self) -> (Duration, bool) {
        let pause = self.last.map_or(Self::FIRST, |last| (last * 2).min(Self::LONGEST));
        let first = self.last.replace(pause).is_none();
        (pause, first)
    }

    /// Ends a row of pauses, and says whether there was one.
    fn end(&mut self) -> bool {
        self.last.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_name() {
        let mut errors = AcceptErrors::default();
        for errno in [Errno::MFILE, Errno::IO, Errno::MFILE, Errno::CONNABORTED, Errno::XDEV] {
            errors.count(errno);
        }
        let expected = [("ECONNABORTED", 1), ("EMFILE", 2), ("other", 2)];
        assert_eq!(errors.by_name().collect::<Vec<_>>(), expected);
        assert_eq!(errors.total(), 5);
    }

    #[test]
    fn pauses_double_up_to_a_second_and_start_again() {
        let mut backoff = AcceptBackoff::default();
        assert!(!backoff.end());
        assert_eq!(backoff.pause(), (Duration::from_millis(5), true));
        assert_eq!(backoff.pause(), (Duration::from_millis(10), false));
        let last = (0..10).map(|_| backoff.pause().0).last();
        assert_eq!(last, Some(Duration::from_secs(1)));
        assert!(backoff.end());
        assert_eq!(backoff.pause(), (Duration::from_millis(5), true));
    }
}
