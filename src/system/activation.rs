//! Descriptors that this process was started with (`LISTEN_FDS`): the listening socket that a service
//! manager has opened, so that a restart refuses no client; and what a primary before this one has
//! left in the descriptor store of the keeper or of systemd.
//!
//! Only finds and checks them. Never accepts.

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use crate::handover::descriptors::{Descriptors, LISTENER, MORE_NAMES};
use crate::kernel::{adopt, adopt_if};
use crate::system::{keeper, store};

/// The first of the passed descriptors, as the protocol fixes it.
pub const FIRST: RawFd = 3;

/// Names in an error: more tell nothing more.
const MAX_NAMES: usize = 8;

/// Bytes of a wrong number in an error.
const MAX_NUMBER: usize = 32;

/// Bytes of names in one variable.
const NAMES_LENGTH: usize = 100_000;

/// The descriptors that this process was started with.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The listener: it listens on TCP, doesn't block, and isn't inherited by workers.
    pub listener: Option<OwnedFd>,
    /// It comes from the descriptor store, which still has it.
    pub listener_is_kept: bool,
    /// The other stored descriptors, by name.
    pub kept: Descriptors,
}

/// Why what was passed cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationError {
    /// More than one.
    #[error(
        "{count} sockets are passed (LISTEN_FDS, LISTEN_FDNAMES={names:?}), expected one: \
         name one ListenStream= in the socket unit"
    )]
    Many {
        /// How many.
        count: usize,
        /// Their names.
        names: String,
    },
    /// No number.
    #[error("LISTEN_FDS={0:?} is no number of descriptors")]
    Number(String),
    /// It is not a TCP socket that listens.
    #[error("cannot use descriptor {0}, the socket that is passed (LISTEN_FDS)")]
    Socket(RawFd, #[source] io::Error),
    /// It is missing, or not what its name says.
    #[error("cannot use {0:?}, which the primary before has stored")]
    Kept(String, #[source] io::Error),
}

/// The descriptors that were passed to this process: by a service manager, which names it in `LISTEN_PID`, or by its
/// keeper, which cannot know its number before it starts it. It can be taken once.
///
/// # Errors
///
/// If something else was passed.
pub fn inherited() -> Result<Inherited, ActivationError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let is_ours = match variable("LISTEN_PID") {
        Some(pid) => pid.parse() == Ok(std::process::id()),
        None => keeper::is_kept(),
    };
    let count = count(is_ours, variable("LISTEN_FDS"))?;
    if count == 0 || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Inherited::default());
    }
    let mut kept = Descriptors::default();
    let mut passed = Vec::new();
    let names = joined_names(variable);
    // A manager may give none.
    let names = names.split(':').chain(std::iter::repeat(""));
    for (number, name) in (FIRST..).zip(names).take(count) {
        match name.strip_prefix(store::PREFIX) {
            Some(name) => kept.insert(name, adopt(number).map_err(|error| not_kept(name, error))?),
            None => passed.push((number, name)),
        }
    }
    let passed = passed_listener(&passed)?;
    // Where both are there, both are the same socket.
    let own = kept.take(LISTENER).map(usable).transpose();
    let own = own.map_err(|error| not_kept(LISTENER, error))?;
    Ok(Inherited { listener_is_kept: own.is_some(), listener: own.or(passed), kept })
}

/// Whether that is the number of a descriptor that a service manager has passed to this process.
#[must_use]
pub fn is_passed_socket(number: RawFd) -> bool {
    let is_ours = variable("LISTEN_PID").is_some_and(|pid| pid.parse() == Ok(std::process::id()));
    let count = count(is_ours, variable("LISTEN_FDS")).unwrap_or(0);
    (FIRST..).take(count).any(|passed| passed == number)
}

/// The variables by which descriptors of these names are passed on, from number [`FIRST`].
#[must_use]
pub fn variables(names: &[&str]) -> Vec<(String, String)> {
    let mut parts = vec![String::new()];
    for name in names {
        match parts.last_mut() {
            Some(part) if part.is_empty() => part.push_str(name),
            Some(part) if part.len() + name.len() < NAMES_LENGTH => {
                part.push(':');
                part.push_str(name);
            }
            _ => parts.push((*name).to_owned()),
        }
    }
    let variable = |(index, part): (usize, String)| match index {
        0 => ("LISTEN_FDNAMES".to_owned(), part),
        index => (format!("{MORE_NAMES}{index}"), part),
    };
    let count = ("LISTEN_FDS".to_owned(), names.len().to_string());
    std::iter::once(count).chain(parts.into_iter().enumerate().map(variable)).collect()
}

/// The names of what is passed, separated by colons.
fn joined_names(variable: impl Fn(&str) -> Option<String>) -> String {
    let first = variable("LISTEN_FDNAMES");
    let more = (1..).map_while(|index| variable(&format!("{MORE_NAMES}{index}")));
    first.into_iter().chain(more).collect::<Vec<_>>().join(":")
}

/// The one socket of a service manager.
fn passed_listener(passed: &[(RawFd, &str)]) -> Result<Option<OwnedFd>, ActivationError> {
    match passed {
        [] => Ok(None),
        [(number, _)] => {
            let socket = adopt_if(*number, check).and_then(usable);
            socket.map(Some).map_err(|error| ActivationError::Socket(*number, error))
        }
        several => {
            let names = several.iter().map(|(_, name)| *name).filter(|name| !name.is_empty());
            let names = names.take(MAX_NAMES).collect::<Vec<_>>().join(":");
            Err(ActivationError::Many { count: several.len(), names })
        }
    }
}

fn not_kept(name: &str, error: io::Error) -> ActivationError {
    ActivationError::Kept(name.to_owned(), error)
}

fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|text| text.to_string_lossy().into_owned())
}

/// How many are passed; none to another process, whose variables this one has inherited.
fn count(is_ours: bool, fds: Option<String>) -> Result<usize, ActivationError> {
    match fds {
        Some(fds) if is_ours => {
            fds.parse().map_err(|_| ActivationError::Number(fds.chars().take(MAX_NUMBER).collect()))
        }
        _ => Ok(0),
    }
}

fn usable(listener: OwnedFd) -> io::Result<OwnedFd> {
    check(listener.as_fd())?;
    let flags = fcntl_getfl(&listener)?;
    fcntl_setfl(&listener, flags | OFlags::NONBLOCK)?;
    Ok(listener)
}

fn check(socket: BorrowedFd<'_>) -> io::Result<()> {
    if sockopt::socket_protocol(socket)? == Some(ipproto::MPTCP) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is an MPTCP socket, whose clients can't migrate: remove SocketProtocol=mptcp",
        ));
    }
    let family = sockopt::socket_domain(socket)?;
    let is_internet = matches!(family, AddressFamily::INET | AddressFamily::INET6);
    let is_stream = sockopt::socket_type(socket)? == SocketType::STREAM;
    if is_internet && is_stream && sockopt::socket_acceptconn(socket)? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a TCP socket that listens"))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_what_is_passed_to_this_process_counts() {
        let counted =
            |is_ours: bool, fds: Option<&str>| count(is_ours, fds.map(str::to_owned)).ok();
        for (is_ours, fds, expected) in [
            (true, Some("1"), Some(1)),
            (true, Some("3"), Some(3)),
            (true, Some("0"), Some(0)),
            (true, None, Some(0)),
            (false, Some("1"), Some(0)),
            (false, Some("some"), Some(0)),
            (true, Some("some"), None),
            (true, Some("-1"), None),
        ] {
            assert_eq!(counted(is_ours, fds), expected, "{is_ours} {fds:?}");
        }
    }

    #[test]
    fn however_many_names_there_are_they_come_back_as_they_were() {
        let many: Vec<_> = (0..20_000).map(|n| format!("kept-process.{n}.7")).collect();
        for names in [&many[..], &many[..2], &many[..1], &[]] {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let variables = variables(&names);
            assert!(variables.iter().all(|(_, value)| value.len() < 128 << 10));
            assert_eq!(variables[0], ("LISTEN_FDS".to_owned(), names.len().to_string()));
            let value = |name: &str| {
                let found = variables.iter().find(|(variable, _)| variable == name);
                found.map(|(_, value)| value.clone())
            };
            assert_eq!(joined_names(value), names.join(":"));
        }
        assert_eq!(joined_names(|_| None), "");
    }

    #[test]
    fn only_a_tcp_socket_that_listens_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(check(listener.as_fd()).is_ok());
        assert!(check(TcpListener::bind("[::1]:0").unwrap().as_fd()).is_ok());
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(check(stream.as_fd()).is_err());
        assert!(check(UdpSocket::bind("127.0.0.1:0").unwrap().as_fd()).is_err());
        assert!(check(std::fs::File::open("/dev/null").unwrap().as_fd()).is_err());
        let path = env::temp_dir().join(format!("sticky-lb-{}", std::process::id()));
        let unix = UnixListener::bind(&path).unwrap();
        assert!(check(unix.as_fd()).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
