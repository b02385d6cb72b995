//! The listening socket: bind it, take connections from its backlog, and know which errors of
//! `accept` mean skip, wait or stop.
//!
//! Never reads from a client and never registers a client's socket with epoll, as a runtime's own
//! `accept` would at two system calls a connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, acceptfrom_with, bind, getsockname, listen,
    socket_with, sockopt,
};

use crate::frontend::affinity::fold;
use crate::frontend::steering::program::Family;
use crate::handover::carry;
use crate::handover::primary::ListenerSnapshot;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// An address or a name; without one, every address of IPv6 and IPv4.
    pub host: Option<String>,
    /// 0 for a free one.
    pub port: u16,
    /// Connections that the kernel keeps until they are accepted.
    pub backlog: i32,
}

carry!(struct ListenerSettings => ListenerSnapshot { host, port, backlog });

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The host is neither an address nor a name that resolves.
    #[error("cannot resolve host {host:?}")]
    Host {
        /// The name that was asked for.
        host: String,
        /// The resolver's error.
        #[source]
        source: io::Error,
    },
    /// The address is in use.
    #[error(
        "port {port} is in use at {address}: stop what listens there, or choose another --port",
        port = .0.port(), address = .0
    )]
    InUse(SocketAddr),
    /// The port is for privileged processes.
    #[error(
        "cannot listen on {address}: port {port} is privileged: run as root or with CAP_NET_BIND_SERVICE \
         (AmbientCapabilities= in a unit of systemd, or setcap), or choose another --port",
        port = .0.port(), address = .0
    )]
    Privileged(SocketAddr),
    /// The address is another machine's.
    #[error(
        "cannot listen on {0}: no network interface of this machine has this address: choose another \
         --host, or leave it out to listen on all of them"
    )]
    NotOwn(SocketAddr),
    /// The socket that was passed on cannot be used.
    #[error("cannot listen on the inherited socket")]
    Inherited(#[source] io::Error),
    /// Any other refusal.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    local: SocketAddr,
}

/// Whether others may listen at the same address.
#[derive(Clone, Copy, Debug)]
enum Sharing {
    /// Nobody else may.
    Alone,
    /// Others of the same user may, for packets of that family.
    Shared(Family),
}

/// One accepted connection.
#[derive(Debug)]
pub struct Accepted {
    /// The client's socket, non-blocking, close-on-exec.
    pub socket: OwnedFd,
    /// The client's address, IPv4 as IPv4.
    pub client: SocketAddr,
}

/// Results of `accept` other than a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The backlog is empty.
    Empty,
    /// That one connection failed; the next may not.
    Skip(Errno),
    /// Descriptors or memory have run out; try again later.
    Exhausted(Errno),
    /// The listener has failed.
    Broken(Errno),
}

impl Listener {
    /// Binds and listens. Without a host: on every address of both families, or of IPv4 where
    /// there is no IPv6.
    ///
    /// # Errors
    ///
    /// If the host doesn't resolve or the address cannot be had.
    pub fn bind(settings: &ListenerSettings) -> Result<Self, ListenError> {
        let Some(host) = &settings.host else {
            let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, settings.port));
            return match Self::listen_on(everywhere, settings.backlog) {
                Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, settings.port));
                    Self::listen_on(everywhere, settings.backlog)
                        .map_err(|errno| ListenError::new(everywhere, errno))
                }
                other => other.map_err(|errno| ListenError::new(everywhere, errno)),
            };
        };
        let address = resolve(host, settings.port)?;
        Self::listen_on(address, settings.backlog).map_err(|errno| ListenError::new(address, errno))
    }

    /// As [`Self::bind`], but others of this process's user may listen at the same address, so that it can be the
    /// first of a group. Without a host: on every address of `family`.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub fn bind_shared(settings: &ListenerSettings, family: Family) -> Result<Self, ListenError> {
        let address = match &settings.host {
            Some(host) => resolve(host, settings.port)?,
            None if family == Family::V4 => (Ipv4Addr::UNSPECIFIED, settings.port).into(),
            None => (Ipv6Addr::UNSPECIFIED, settings.port).into(),
        };
        let sharing = Sharing::Shared(family);
        // Another primary of the same user could share the port, and neither would know.
        if address.port() != 0 {
            Self::bound(address, Sharing::Alone)
                .map_err(|errno| ListenError::new(address, errno))?;
        }
        Self::bound(address, sharing)
            .and_then(|socket| Self::listening(socket, settings.backlog))
            .map_err(|errno| ListenError::new(address, errno))
    }

    /// Another socket that listens at the same address, with the same options. Both must be shared.
    ///
    /// # Errors
    ///
    /// If this one isn't shared, or the kernel refuses.
    pub fn beside(&self, backlog: i32) -> io::Result<Self> {
        if !self.is_shared()? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "listener has no SO_REUSEPORT",
            ));
        }
        let socket = Self::bound(self.local, Sharing::Shared(self.family()?))?;
        Ok(Self::listening(socket, backlog)?)
    }

    /// Whether others may listen at the same address.
    ///
    /// # Errors
    ///
    /// If it is no socket.
    pub fn is_shared(&self) -> io::Result<bool> {
        Ok(sockopt::socket_reuseport(&self.socket)?)
    }

    /// The packets that it gets.
    ///
    /// # Errors
    ///
    /// If it is no such socket.
    pub fn family(&self) -> io::Result<Family> {
        Ok(match self.local {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) if sockopt::ipv6_v6only(&self.socket)? => Family::V6,
            SocketAddr::V6(_) => Family::Dual,
        })
    }

    /// Sets its options and listens again, whatever another program has done to it by a copy. Its place in a group
    /// stays if it still listens.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn renew(&self, backlog: i32) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&self.socket, true)?;
        sockopt::set_tcp_nodelay(&self.socket, true)?;
        Ok(listen(&self.socket, backlog)?)
    }

    /// The same socket once more.
    ///
    /// # Errors
    ///
    /// If no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, local: self.local })
    }

    /// Fails if [`Self::bind`] would, whatever listens there now: that may be the primary itself. Accepts
    /// nobody.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub fn check(settings: &ListenerSettings) -> Result<(), ListenError> {
        let Some(host) = &settings.host else {
            let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, settings.port));
            return check_address(everywhere);
        };
        check_address(resolve(host, settings.port)?)
    }

    fn listen_on(address: SocketAddr, backlog: i32) -> Result<Self, Errno> {
        Self::listening(Self::bound(address, Sharing::Alone)?, backlog)
    }

    fn bound(address: SocketAddr, sharing: Sharing) -> Result<OwnedFd, Errno> {
        let (family, dual) = match (address, sharing) {
            (SocketAddr::V4(_), _) => (AddressFamily::INET, false),
            (SocketAddr::V6(v6), Sharing::Alone) => {
                (AddressFamily::INET6, v6.ip().is_unspecified())
            }
            (SocketAddr::V6(v6), Sharing::Shared(family)) => {
                (AddressFamily::INET6, v6.ip().is_unspecified() && family == Family::Dual)
            }
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        // Otherwise a restart fails as long as connections of the last run linger in TIME_WAIT.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if let Sharing::Shared(_) = sharing {
            sockopt::set_socket_reuseport(&socket, true)?;
        }
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, !dual)?;
        }
        bind(&socket, &address)?;
        Ok(socket)
    }

    /// On a socket that another program has bound and that listens already: the same as on one of
    /// its own, the backlog included. What cannot be set any more is `TCP_NODELAY` for clients that
    /// have come before: the program that made the socket can (`NoDelay=` of systemd).
    ///
    /// # Errors
    ///
    /// If it is not such a socket.
    pub fn inherited(socket: OwnedFd, backlog: i32) -> Result<Self, ListenError> {
        Self::listening(socket, backlog).map_err(|errno| ListenError::Inherited(errno.into()))
    }

    /// The socket of the primary before this one, which listens already and goes on as it is.
    ///
    /// # Errors
    ///
    /// If it is no socket.
    pub fn handed_over(socket: OwnedFd) -> io::Result<Self> {
        let local = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok(Self { socket, local })
    }

    /// Has the kernel queue so many connections until they are accepted.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_backlog(&self, backlog: i32) -> io::Result<()> {
        Ok(listen(&self.socket, backlog)?)
    }

    /// Its socket.
    #[must_use]
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    fn listening(socket: OwnedFd, backlog: i32) -> Result<Self, Errno> {
        // Accepted sockets inherit it, at no system call a connection.
        sockopt::set_tcp_nodelay(&socket, true)?;
        listen(&socket, backlog)?;
        let local = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok(Self { socket, local })
    }

    /// Where it listens; the port is the real one.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Takes one connection from the backlog, without waiting.
    ///
    /// # Errors
    ///
    /// See [`AcceptError`].
    pub fn accept(&self) -> Result<Accepted, AcceptError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, client) = acceptfrom_with(&self.socket, flags)?;
        // A client that has reset already may have no address left.
        let client = client.ok_or(Errno::NOTCONN)?;
        let client = SocketAddr::try_from(client)?;
        Ok(Accepted { socket, client: plain(client) })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// IPv4 that came through an IPv6 listener, as IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            SocketAddr::new(fold(address.ip()), address.port())
        }
        _ => address,
    }
}

fn check_address(address: SocketAddr) -> Result<(), ListenError> {
    match Listener::bound(address, Sharing::Alone) {
        Ok(_) | Err(Errno::ADDRINUSE) => Ok(()),
        Err(errno) => Err(ListenError::new(address, errno)),
    }
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, ListenError> {
    let failed = |source| ListenError::Host { host: host.to_owned(), source };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let mut addresses = (bare, port).to_socket_addrs().map_err(failed)?;
    addresses.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

impl ListenError {
    fn new(address: SocketAddr, errno: Errno) -> Self {
        match errno {
            Errno::ADDRINUSE => Self::InUse(address),
            Errno::ACCESS => Self::Privileged(address),
            Errno::ADDRNOTAVAIL => Self::NotOwn(address),
            _ => Self::Listen { address, source: errno.into() },
        }
    }
}

impl From<Errno> for AcceptError {
    /// accept(2): errors that are pending on the new connection are reported by accept itself, and
    /// are to be treated like an empty backlog. What isn't known waits: it could come for ever.
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN => Self::Empty,
            Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::FAULT => Self::Broken(errno),
            Errno::CONNABORTED
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::NONET
            | Errno::NOPROTOOPT
            | Errno::NOTCONN
            | Errno::OPNOTSUPP
            | Errno::PERM
            | Errno::PROTO => Self::Skip(errno),
            _ => Self::Exhausted(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(host: Option<&str>) -> ListenerSettings {
        ListenerSettings { host: host.map(str::to_owned), port: 0, backlog: 16 }
    }

    #[test]
    fn clients_of_both_families_reach_a_listener_without_a_host() {
        let listener = Listener::bind(&settings(None)).unwrap();
        for host in ["127.0.0.1", "::1"] {
            let client = std::net::TcpStream::connect((host, listener.local().port())).unwrap();
            let mut polled = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut polled, None).unwrap();
            let accepted = listener.accept().unwrap();
            assert_eq!(accepted.client, client.local_addr().unwrap());
        }
        assert_eq!(listener.accept().unwrap_err(), AcceptError::Empty);
    }

    #[test]
    fn a_socket_of_another_program_listens_like_its_own() {
        let theirs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        theirs.set_nonblocking(true).unwrap();
        let local = theirs.local_addr().unwrap();
        let before = std::net::TcpStream::connect(local).unwrap();
        let listener = Listener::inherited(theirs.into(), 16).unwrap();
        assert_eq!(listener.local(), local);
        let after = std::net::TcpStream::connect(local).unwrap();
        for (client, nodelay) in [(before, false), (after, true)] {
            let accepted = listener.accept().unwrap();
            assert_eq!(accepted.client, client.local_addr().unwrap());
            assert_eq!(sockopt::tcp_nodelay(&accepted.socket).unwrap(), nodelay);
        }
    }

    #[test]
    fn others_listen_beside_a_shared_one_alone() {
        for (family, host) in [(Family::V4, "0.0.0.0"), (Family::V6, "::"), (Family::Dual, "::")] {
            let first = Listener::bind_shared(&settings(None), family).unwrap();
            assert_eq!(first.local().ip(), host.parse::<IpAddr>().unwrap());
            assert_eq!(first.family().unwrap(), family);
            let second = first.beside(16).unwrap();
            assert_eq!((second.local(), second.family().unwrap()), (first.local(), family));
            assert!(sockopt::tcp_nodelay(&second).unwrap());
        }
        let alone = Listener::bind(&settings(Some("127.0.0.1"))).unwrap();
        assert!(!alone.is_shared().unwrap() && alone.beside(16).is_err());
    }

    #[test]
    fn a_port_in_use_is_said_so() {
        let first = Listener::bind(&settings(Some("127.0.0.1"))).unwrap();
        let again = ListenerSettings { port: first.local().port(), ..settings(Some("127.0.0.1")) };
        let error = Listener::bind(&again).unwrap_err();
        assert!(matches!(error, ListenError::InUse(_)), "{error}");
    }

    #[test]
    fn hosts_that_cannot_be_are_said_so() {
        assert!(matches!(
            Listener::bind(&settings(Some("no such host"))).unwrap_err(),
            ListenError::Host { .. }
        ));
        // 203.0.113.0/24 is for documentation (RFC 5737), so unused.
        assert!(matches!(
            Listener::bind(&settings(Some("203.0.113.9"))).unwrap_err(),
            ListenError::NotOwn(_)
        ));
        assert!(Listener::bind(&settings(Some("[::1]"))).is_ok());
    }
}
