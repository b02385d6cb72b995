//! A client's end of a connection, which never waits.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

/// So much of an answer is looked at.
const MAX_RECEIVED: usize = 64 * 1024;

/// Connections of others that are turned away before the own one must have come.
const MAX_STRANGERS: usize = 100;

/// How long a listening socket may take to have room for one more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The end that a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The worker has closed the connection (FIN).
    Closed,
    /// The connection was reset (RST).
    Reset,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    end: Option<End>,
}

impl Client {
    /// Connects to `listener`, and returns the client, the server's end and both addresses: the client's, then
    /// the server's.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn connect(
        listener: &TcpListener,
    ) -> io::Result<(Self, TcpStream, (SocketAddr, SocketAddr))> {
        let address = listener.local_addr()?;
        let stream = TcpStream::connect(address)?;
        let own = stream.local_addr()?;
        for _ in 0..MAX_STRANGERS {
            // Another program may come by this port, too.
            let (server, peer) = listener.accept()?;
            if peer == own {
                server.set_nonblocking(true)?;
                return Ok((Self::of(stream)?, server, (own, address)));
            }
        }
        Err(io::Error::other("others connect to the port of the checks"))
    }

    /// Connects to a server that accepts by itself.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn dial(address: SocketAddr) -> io::Result<Self> {
        Self::of(TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?)
    }

    /// The same, from this address of the loopback network.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn dial_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddr::from((source, 0)))?;
        connect(&socket, &address)?;
        Self::of(socket.into())
    }

    fn of(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, received: Vec::new(), end: None })
    }

    /// Bytes that the server has not read, of a client of IPv4. None if the kernel doesn't tell.
    #[must_use]
    pub fn unread(&self) -> Option<u64> {
        let (own, server) = (self.stream.local_addr().ok()?, self.stream.peer_addr().ok()?);
        unread_in(&fs::read_to_string("/proc/net/tcp").ok()?, server, own)
    }

    /// Sends; that the connection has ended is seen when it is read.
    pub fn send(&mut self, bytes: &[u8]) {
        // There is room for what is sent here.
        let _ = self.stream.write_all(bytes);
    }

    /// Sends no more.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Goes away by a reset.
    pub fn reset(self) {
        let _ = set_socket_linger(&self.stream, Some(Duration::ZERO));
    }

    /// Reads what has come.
    pub fn look(&mut self) {
        let mut bytes = [0; 4096];
        while self.end.is_none() {
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    self.end = Some(End::Closed);
                    // Some servers wait for a client's end after theirs.
                    self.finish();
                }
                Ok(length) if self.received.len() < MAX_RECEIVED => {
                    self.received.extend_from_slice(&bytes[..length]);
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.end = Some(End::Reset),
            }
        }
    }

    /// Reads what has come, and says whether anything has: bytes, or the end.
    pub fn has_anything(&mut self) -> bool {
        self.look();
        !self.received.is_empty() || self.end.is_some()
    }

    /// The bytes that have come.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// The end that it has seen.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Forgets what has come, for the next answer.
    pub fn forget(&mut self) {
        self.received.clear();
    }
}

/// The bytes that wait in the socket with these addresses, in the kernel's table (`/proc/net/tcp`).
fn unread_in(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let name = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => {
            format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.octets()), address.port())
        }
        IpAddr::V6(_) => String::new(),
    };
    let wanted = [name(local), name(remote)];
    table.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let addresses = [words.next()?, words.next()?];
        let (_, unread) = words.nth(1)?.split_once(':')?;
        (addresses == wanted).then(|| u64::from_str_radix(unread, 16).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_seen_whether_the_server_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let source = Ipv4Addr::new(127, 83, 0, 7);
        let mut client = Client::dial_from(source, listener.local_addr().unwrap()).unwrap();
        let (mut server, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), source);
        assert_eq!(client.unread(), Some(0));
        client.send(b"twelve bytes");
        assert_eq!(client.unread(), Some(12));
        server.read_exact(&mut [0; 12]).unwrap();
        assert_eq!(client.unread(), Some(0));
    }
}
