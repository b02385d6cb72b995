//! A listening socket that the service manager has opened and passed on (`LISTEN_FDS`): it listens
//! while nobody is there to accept, so that a restart refuses no client.
//!
//! Only finds and checks it. Never accepts.

use std::env;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::handoff::kernel::adopt_if;

/// The first of the passed descriptors, as the protocol fixes it.
const FIRST: RawFd = 3;

/// Why a passed socket cannot be used.
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
        count: u32,
        /// Their names.
        names: String,
    },
    /// No number.
    #[error("LISTEN_FDS={0:?} is no number of descriptors")]
    Number(String),
    /// It is not a TCP socket that listens.
    #[error("cannot use descriptor 3, the socket that is passed (LISTEN_FDS)")]
    Socket(#[source] io::Error),
}

/// The socket that was passed to this process, if one was: it listens on TCP, doesn't block, and
/// isn't inherited by workers. It can be taken once.
///
/// # Errors
///
/// If something else was passed.
pub fn inherited_listener() -> Result<Option<OwnedFd>, ActivationError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| env::var_os(name).map(|text| text.to_string_lossy().into_owned());
    let count = count(variable("LISTEN_PID"), variable("LISTEN_FDS"), std::process::id())?;
    if count > 1 {
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        return Err(ActivationError::Many { count, names });
    }
    if count == 0 || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(None);
    }
    let listener = adopt_if(FIRST, check).map_err(ActivationError::Socket)?;
    let flags = fcntl_getfl(&listener).map_err(|errno| ActivationError::Socket(errno.into()))?;
    fcntl_setfl(&listener, flags | OFlags::NONBLOCK)
        .map_err(|errno| ActivationError::Socket(errno.into()))?;
    Ok(Some(listener))
}

/// How many are passed to the process `own`; none to another one, whose variables it has inherited.
fn count(pid: Option<String>, fds: Option<String>, own: u32) -> Result<u32, ActivationError> {
    let is_ours = pid.is_some_and(|pid| pid.parse() == Ok(own));
    match fds {
        Some(fds) if is_ours => fds.parse().map_err(|_| ActivationError::Number(fds)),
        _ => Ok(0),
    }
}

fn check(socket: BorrowedFd<'_>) -> io::Result<()> {
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
        let counted = |pid: Option<&str>, fds: Option<&str>| {
            count(pid.map(str::to_owned), fds.map(str::to_owned), 42).ok()
        };
        for (pid, fds, expected) in [
            (Some("42"), Some("1"), Some(1)),
            (Some("42"), Some("3"), Some(3)),
            (Some("42"), Some("0"), Some(0)),
            (Some("43"), Some("1"), Some(0)),
            (Some("me"), Some("1"), Some(0)),
            (None, Some("1"), Some(0)),
            (Some("42"), None, Some(0)),
            (None, None, Some(0)),
            (Some("42"), Some("some"), None),
            (Some("42"), Some("-1"), None),
        ] {
            assert_eq!(counted(pid, fds), expected, "{pid:?} {fds:?}");
        }
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
