//! The checks by name, and what one has found.
//!
//! Pure.

use std::io;

use crate::link::interface::Interface;

/// A rule that a worker has to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It says what it speaks.
    Attaches,
    /// It says that clients may come.
    Ready,
    /// It serves clients.
    Serves,
    /// It sees the addresses of its clients.
    ClientAddress,
    /// It serves clients that have come before it.
    TakesQueue,
    /// It acknowledges a connection before it reads a byte of it.
    AcknowledgesFirst,
    /// It acknowledges all of them, and none twice.
    AcknowledgesAll,
    /// Clients that send nothing stop no others.
    SilentClients,
    /// Clients that have gone before the hand-off do no harm.
    GoneClients,
    /// It refuses what it has no descriptor for.
    Descriptors,
    /// One of its processes accepts clients.
    OneAcceptor,
    /// It listens on no other socket of the port.
    OwnPort,
    /// It accepts clients when it says that it is ready.
    Notifies,
    /// It answers pings.
    Pings,
    /// Its clients see the end of a connection.
    Closes,
    /// It goes on while nobody reads its output.
    Output,
    /// It ends in time when it is ordered to drain.
    Drains,
    /// It finishes its clients before that.
    Finishes,
    /// Its socket listens when it has ended.
    KeepsListening,
    /// It serves on for a while when the primary has died.
    Orphan,
    /// It leaves no process behind.
    LeavesNothing,
}

impl Check {
    /// All, in the order in which they are made.
    pub const ALL: [Self; 21] = [
        Self::Attaches,
        Self::Ready,
        Self::Serves,
        Self::ClientAddress,
        Self::TakesQueue,
        Self::AcknowledgesFirst,
        Self::AcknowledgesAll,
        Self::SilentClients,
        Self::GoneClients,
        Self::Descriptors,
        Self::OneAcceptor,
        Self::OwnPort,
        Self::Notifies,
        Self::Pings,
        Self::Closes,
        Self::Output,
        Self::Drains,
        Self::Finishes,
        Self::KeepsListening,
        Self::Orphan,
        Self::LeavesNothing,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Attaches => "attaches",
            Self::Ready => "ready",
            Self::Serves => "serves",
            Self::ClientAddress => "client-address",
            Self::TakesQueue => "takes-queue",
            Self::AcknowledgesFirst => "acknowledges-first",
            Self::AcknowledgesAll => "acknowledges-all",
            Self::SilentClients => "silent-clients",
            Self::GoneClients => "gone-clients",
            Self::Descriptors => "descriptors",
            Self::OneAcceptor => "one-acceptor",
            Self::OwnPort => "own-port",
            Self::Notifies => "notifies",
            Self::Pings => "pings",
            Self::Closes => "closes",
            Self::Output => "output",
            Self::Drains => "drains",
            Self::Finishes => "finishes",
            Self::KeepsListening => "keeps-listening",
            Self::Orphan => "orphan",
            Self::LeavesNothing => "leaves-nothing",
        }
    }

    /// The check of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|check| check.name() == name)
    }

    /// Whether the rule is one for workers of this interface.
    #[must_use]
    pub fn is_for(self, interface: Interface) -> bool {
        match self {
            Self::Attaches
            | Self::AcknowledgesFirst
            | Self::AcknowledgesAll
            | Self::Pings
            | Self::Orphan => interface != Interface::Listen,
            Self::ClientAddress
            | Self::TakesQueue
            | Self::OneAcceptor
            | Self::OwnPort
            | Self::Notifies
            | Self::KeepsListening => interface == Interface::Listen,
            _ => true,
        }
    }

    /// The rule, in a line.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::Attaches => "says what it speaks, soon after its start",
            Self::Ready => "says that clients may come, or accepts one",
            Self::Serves => "answers, or at least reads, the clients that it has taken",
            Self::ClientAddress => "sees the address of its client",
            Self::TakesQueue => "serves clients that wait when it is started",
            Self::AcknowledgesFirst => "acknowledges each connection before it reads a byte of it",
            Self::AcknowledgesAll => "acknowledges every connection, and none twice",
            Self::SilentClients => "serves others while some clients send nothing",
            Self::GoneClients => "goes on after clients that went before it took them",
            Self::Descriptors => "refuses or leaves what it has no descriptor for; recovers",
            Self::OneAcceptor => "accepts clients in one process",
            Self::OwnPort => "listens on the port by the socket that it was given alone",
            Self::Notifies => "accepts clients if it says READY=1",
            Self::Pings => "answers pings",
            Self::Closes => "ends a connection so that its client sees the end",
            Self::Output => "goes on while nobody reads what it prints",
            Self::Drains => "ends when it is ordered to, in time and without an error",
            Self::Finishes => "finishes open clients before it ends",
            Self::KeepsListening => "leaves its socket listening when it has ended",
            Self::Orphan => "serves on when the primary dies, and ends after its time",
            Self::LeavesNothing => "leaves no process behind",
        }
    }

    /// The change that usually helps a worker of this interface that fails it.
    #[must_use]
    pub fn hint(self, interface: Option<Interface>) -> &'static str {
        if interface == Some(Interface::Listen)
            && let Some(hint) = self.listen_hint()
        {
            return hint;
        }
        let is_node = interface == Some(Interface::Node);
        match self {
            Self::ClientAddress
            | Self::TakesQueue
            | Self::OneAcceptor
            | Self::OwnPort
            | Self::Notifies
            | Self::KeepsListening => "leave the listening socket as it was given",
            Self::Attaches => {
                "native: send hello (0x81) on STICKY_LB_CHANNEL first of all; node: start Node itself, without a wrapper; a server that takes a socket: --interface listen, or {fd} in its command"
            }
            Self::Ready if is_node => {
                "listen on the port of the variable PORT, and not later than that"
            }
            Self::Ready => "send ready (0x82) after hello, as soon as clients may come",
            Self::Serves => {
                "serve each connection that comes from the descriptor: read it, answer it"
            }
            Self::AcknowledgesFirst if is_node => {
                "leave the hand-off to Node: read from a socket only in the server's handlers"
            }
            Self::AcknowledgesFirst => {
                "add 1 to the scoreboard at offset 256 when a connection arrives, before its first read"
            }
            Self::AcknowledgesAll if is_node => {
                "don't block the event loop, and don't answer for Node"
            }
            Self::AcknowledgesAll => {
                "add the number of connections in each message to offset 256, once and as one atomic step"
            }
            Self::SilentClients => {
                "read from clients in threads or an event loop, never where connections are taken"
            }
            Self::GoneClients => {
                "take errors of a single connection (ENOTCONN, ECONNRESET) as its end alone"
            }
            Self::Descriptors if is_node => "don't end the program by an error that is EMFILE",
            Self::Descriptors => {
                "on MSG_CTRUNC refuse (0x83) the ids without descriptors, add their number to offset 320, then to 256"
            }
            Self::Pings if is_node => "don't block the event loop",
            Self::Pings => {
                "answer each ping (0x02) with a pong (0x84), from the loop that takes connections"
            }
            Self::Closes => {
                "close every copy of the descriptor; mark it close-on-exec, so that no child has one"
            }
            Self::Output => "print less, or without waiting: a pipe holds 64 KiB until it is read",
            Self::Drains if is_node => {
                "close what keeps the event loop alive on 'disconnect' or SIGINT, then exit with code 0"
            }
            Self::Drains => {
                "at the end of file of the channel finish and exit with code 0; wait for no connection"
            }
            Self::Finishes => "answer requests that have begun before the process exits",
            Self::Orphan => {
                "at the end of file with 0 at offset 384 serve for STICKY_LB_ORPHAN_TIMEOUT, then drain; print only if somebody reads"
            }
            Self::LeavesNothing => "end what the worker has started before it exits",
        }
    }
}

impl Check {
    /// The change for a worker that accepts its clients itself, if it is another one.
    fn listen_hint(self) -> Option<&'static str> {
        Some(match self {
            Self::Ready => {
                "accept on the descriptor: {fd} in the command is its number, or read LISTEN_FDS; no npm, npx or subprocess"
            }
            Self::Serves => "serve each connection that is accepted: read it, answer it",
            Self::ClientAddress => {
                "take the address that accept returns, for the family that the socket has"
            }
            Self::TakesQueue => {
                "leave the queue alone: no shutdown of the socket, and serve who waits there"
            }
            Self::SilentClients => {
                "read from clients in threads or an event loop, never where they are accepted"
            }
            Self::GoneClients => {
                "take errors of accept and of a single connection (ECONNABORTED, ENOTCONN, ECONNRESET) as its end alone"
            }
            Self::Descriptors => "at EMFILE wait for a moment, and accept again",
            Self::OneAcceptor => {
                "run one process (no --workers), as WEB_CONCURRENCY=1 says: a slot's clients stick to a process"
            }
            Self::OwnPort => {
                "open no socket of its own on PORT: with SO_REUSEPORT it takes other slots' clients"
            }
            Self::Notifies => "say READY=1 once the server accepts",
            Self::Drains => {
                "on the signal (--stop-signal names another) finish, and exit with code 0"
            }
            Self::KeepsListening => {
                "close the socket, never shutdown(2): that works through all copies, and resets clients that wait"
            }
            _ => return None,
        })
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The worker keeps the rule.
    Pass,
    /// It doesn't; the change that helps.
    Fail(String),
    /// The rule has no meaning for this worker.
    NotApplicable,
}

impl Outcome {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "fail",
            Self::NotApplicable => "not-applicable",
        }
    }
}

/// The finding of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The interface of the worker, if it is known.
    pub interface: Option<Interface>,
    /// The check.
    pub check: Check,
    /// Its result.
    pub outcome: Outcome,
    /// The observation, in a line.
    pub seen: String,
}

/// Numbers of findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kept rules.
    pub passed: usize,
    /// Broken rules.
    pub failed: usize,
    /// Rules without a meaning for the worker.
    pub not_applicable: usize,
}

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Pass => self.passed += 1,
            Outcome::Fail(_) => self.failed += 1,
            Outcome::NotApplicable => self.not_applicable += 1,
        }
    }
}

/// Why a check ends before its end.
#[derive(Debug)]
pub enum Stop {
    /// The worker breaks the rule: what was seen, and the change that helps if it isn't the usual one.
    Fail(String, Option<&'static str>),
    /// The rule has no meaning here, and why.
    NotApplicable(String),
    /// The check itself failed.
    Broken(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// The observation where the rule is kept, or the reason why it isn't known to be.
pub type Verdict = Result<String, Stop>;

/// The worker breaks the rule.
pub fn fail<T>(seen: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Fail(seen.into(), None))
}

impl Finding {
    /// From what a check has come to.
    ///
    /// # Errors
    ///
    /// If the check itself failed.
    pub fn new(check: Check, interface: Option<Interface>, verdict: Verdict) -> io::Result<Self> {
        let (outcome, seen) = match verdict {
            Ok(seen) => (Outcome::Pass, seen),
            Err(Stop::Fail(seen, hint)) => {
                let hint = hint.unwrap_or_else(|| check.hint(interface));
                (Outcome::Fail(hint.to_owned()), seen)
            }
            Err(Stop::NotApplicable(why)) => (Outcome::NotApplicable, why),
            Err(Stop::Broken(error)) => return Err(error),
        };
        Ok(Self { interface, check, outcome, seen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_has_a_short_name_of_its_own_and_is_found_by_it() {
        for (number, check) in Check::ALL.into_iter().enumerate() {
            assert_eq!(Check::from_name(check.name()), Some(check));
            assert_eq!(Check::ALL.iter().position(|other| *other == check), Some(number));
            let is_kebab = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(check.name().len() <= 18 && check.name().chars().all(is_kebab), "{check:?}");
        }
        assert_eq!(Check::from_name("flies"), None);
    }

    #[test]
    fn a_failure_says_what_to_change() {
        let finding = |verdict| Finding::new(Check::Pings, None, verdict).unwrap();
        let failed = finding(fail("no pong within 2 s"));
        assert!(matches!(failed.outcome, Outcome::Fail(hint) if hint.contains("0x84")));
        let other = finding(Err(Stop::Fail(String::new(), Some("sleep less"))));
        assert_eq!(other.outcome, Outcome::Fail("sleep less".to_owned()));
        assert_eq!(finding(Ok("3 pongs".to_owned())).outcome, Outcome::Pass);
        let broken = Stop::Broken(io::ErrorKind::OutOfMemory.into());
        assert!(Finding::new(Check::Pings, None, Err(broken)).is_err());
    }
}
