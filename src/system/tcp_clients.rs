//! The TCP sockets of a port, as the kernel lists them.
//!
//! Asks over netlink, as `ss` does (sock_diag(7)). The kernel looks through its table and names the
//! sockets of one port, in the order of a hash of their addresses and ports: who stops reading early has a
//! fair sample.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// Bytes of a message's header, `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Bytes of a request: the header and `struct inet_diag_req_v2`.
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
/// Bytes of the largest answer at a time: the kernel fills no more.
const ANSWER_BYTES: usize = 32 * 1_024;

/// `SOCK_DIAG_BY_FAMILY`: a question, or a socket.
const SOCKET: u16 = 20;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const REQUEST_ALL: u16 = 0x301;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// A bit for the state `TCP_ESTABLISHED`.
const ESTABLISHED: u32 = 1 << 1;
/// Bits for the states of connections that a process may have open: all but handshakes (3 and 12), `TCP_TIME_WAIT` (6),
/// and listening (10). The kernel passes over the many that have been closed.
const OPEN: u32 = ((1 << 12) - 1) & !(1 | 1 << 3 | 1 << 6 | 1 << 10);
/// A bit for the state `TCP_SYN_RECV`.
const HANDSHAKE: u32 = 1 << 3;
/// A bit for the state `TCP_LISTEN`.
const LISTENING: u32 = 1 << 10;
/// Where a socket has its inode, in `struct inet_diag_msg`.
const INODE: usize = 68;

/// The client of each connection that is established to `local`, up to about `limit` of them.
///
/// # Errors
///
/// If the kernel offers no netlink, or a sandbox forbids it.
pub fn clients(local: SocketAddr, limit: usize) -> io::Result<Vec<IpAddr>> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut clients = Vec::new();
    each_socket(family, local.port(), ESTABLISHED, |socket| {
        clients.extend(client(socket, local.ip()));
        clients.len() < limit
    })?;
    Ok(clients)
}

/// The sockets of one port, of both families.
#[derive(Clone, Debug, Default)]
pub struct PortSockets {
    /// The inodes of connections that processes have open.
    pub open: HashSet<u64>,
    /// The inodes of sockets that listen.
    pub listening: HashSet<u64>,
    /// Handshakes that are under way: the client's last step is missing.
    pub handshakes: HashSet<Handshake>,
}

/// Ports and addresses of `struct inet_diag_sockid`.
pub type Handshake = [u8; 36];

/// All sockets of a port. The kernel looks through all connections of the machine, once for each family in which the
/// port is listened on; those that listen have a table of their own.
///
/// # Errors
///
/// As [`clients`].
pub fn port_sockets(port: u16) -> io::Result<PortSockets> {
    let mut sockets = PortSockets::default();
    let mut families = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let before = sockets.listening.len();
        each_socket(family, port, LISTENING, |socket| {
            sockets.listening.extend(inode(socket));
            true
        })?;
        families.extend((sockets.listening.len() > before).then_some(family));
    }
    if families.is_empty() {
        families.extend([AddressFamily::INET, AddressFamily::INET6]);
    }
    for family in families {
        each_socket(family, port, OPEN | HANDSHAKE, |socket| {
            let is_handshake = socket.get(1).is_some_and(|state| 1 << state == HANDSHAKE);
            match is_handshake {
                true => sockets.handshakes.extend(socket.get(4..).and_then(|id| id.first_chunk())),
                false => sockets.open.extend(inode(socket)),
            }
            true
        })?;
    }
    Ok(sockets)
}

/// Gives each socket of this port that is in one of `states` to `take`, until that says that it has enough; some more
/// may follow.
fn each_socket(
    family: AddressFamily,
    port: u16,
    states: u32,
    mut take: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let protocol = Some(netlink::SOCK_DIAG);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    send(&socket, &request(family, port, states), SendFlags::empty())?;
    let (mut wants_more, mut answer) = (true, vec![0; ANSWER_BYTES]);
    while wants_more {
        // The kernel has put the next part there already, so nothing waits.
        let (length, _) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
        if !take_part(&answer[..length], |socket| wants_more = take(socket))? {
            break;
        }
    }
    Ok(())
}

/// A question for sockets of this port. The clients of IPv4 of a listener of IPv6 have sockets of IPv6.
fn request(family: AddressFamily, port: u16, states: u32) -> [u8; REQUEST_BYTES] {
    let [family, _] = family.as_raw().to_le_bytes();
    let port = port.to_be_bytes();
    let parts: [&[u8]; 9] = [
        // The header: length, kind, flags, number, sender.
        &72_u32.to_ne_bytes(),
        &SOCKET.to_ne_bytes(),
        &REQUEST_ALL.to_ne_bytes(),
        &[0; 8],
        // No extensions.
        &[family, TCP, 0, 0],
        &states.to_ne_bytes(),
        &port,
        // Any other port and addresses.
        &[0; 38],
        // Any socket, as the cookie says.
        &[0xff; 8],
    ];
    let mut request = [0; REQUEST_BYTES];
    let bytes = parts.into_iter().flatten();
    request.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    request
}

/// Takes the sockets out of a part of the answer. Says whether there is more to come.
fn take_part(part: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<bool> {
    for (kind, body) in messages(part) {
        match kind {
            SOCKET => take(body),
            DONE => return Ok(false),
            ERROR => {
                let errno = body.first_chunk().map_or(0, |it| i32::from_ne_bytes(*it));
                return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
            }
            _ => {}
        }
    }
    Ok(true)
}

/// The messages of a part, as kind and body.
fn messages(mut part: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*part.first_chunk()?);
        let length = usize::try_from(length).ok()?;
        let kind = u16::from_ne_bytes(*part.get(4..)?.first_chunk()?);
        let body = part.get(HEADER_BYTES..length)?;
        part = part.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The inode of a socket, `struct inet_diag_msg`; none if no process has it.
fn inode(socket: &[u8]) -> Option<u64> {
    let inode = u32::from_ne_bytes(*socket.get(INODE..)?.first_chunk()?);
    (inode != 0).then_some(inode.into())
}

/// The other end of a socket, `struct inet_diag_msg`, that is at this address of ours.
fn client(socket: &[u8], local: IpAddr) -> Option<IpAddr> {
    let is_v6 = i32::from(*socket.first()?) == i32::from(AddressFamily::INET6.as_raw());
    let address = |place: usize| {
        let bytes: [u8; 16] = *socket.get(place..)?.first_chunk()?;
        let [a, b, c, d, ..] = bytes;
        let v4 = IpAddr::from([a, b, c, d]);
        Some(if is_v6 { Ipv6Addr::from(bytes).to_canonical() } else { v4 })
    };
    let (own, other) = (address(8)?, address(24)?);
    (local.is_unspecified() || local.to_canonical() == own).then_some(other)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    /// Connections to a listener at this address, with both of their ends.
    fn connections(address: &str, count: usize) -> (SocketAddr, Vec<(TcpStream, TcpStream)>) {
        let listener = TcpListener::bind(address).unwrap();
        let local = listener.local_addr().unwrap();
        let target = SocketAddr::from(([127, 0, 0, 1], local.port()));
        let pair = |_| (TcpStream::connect(target).unwrap(), listener.accept().unwrap().0);
        (local, (0..count).map(pair).collect())
    }

    #[test]
    fn established_connections_of_the_port_are_listed_by_their_client() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let (local, mut open) = connections(address, 20);
            let expected: IpAddr = [127, 0, 0, 1].into();
            assert_eq!(clients(local, 1_000).unwrap(), vec![expected; 20], "{address}");
            open.truncate(3);
            assert_eq!(clients(local, 1_000).unwrap().len(), 3, "{address}");
            // Another listener of the port has its own.
            let other = SocketAddr::from(([127, 0, 0, 2], local.port()));
            if local.is_ipv4() {
                assert_eq!(clients(other, 1_000).unwrap(), [] as [IpAddr; 0], "{address}");
            }
        }
    }

    #[test]
    fn no_more_are_read_than_are_wanted() {
        let (local, _open) = connections("127.0.0.1:0", 600);
        assert_eq!(clients(local, 10_000).unwrap().len(), 600);
        let few = clients(local, 10).unwrap().len();
        assert!((10..600).contains(&few), "{few}");
    }

    #[test]
    fn an_error_is_that_of_the_kernel() {
        let mut message = [0; 36];
        message[..4].copy_from_slice(&36_u32.to_ne_bytes());
        message[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        message[16..20].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        let error = take_part(&message, |_| {}).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    proptest! {
        #[test]
        fn whatever_is_answered_ends(part in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut clients = Vec::new();
            let local = Ipv4Addr::UNSPECIFIED.into();
            let _ = take_part(&part, |socket| clients.extend(client(socket, local).filter(|_| inode(socket).is_some())));
            prop_assert!(clients.len() <= part.len());
        }
    }
}
