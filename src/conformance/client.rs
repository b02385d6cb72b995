//! A client's end of a connection, which never waits.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// So much of an answer is looked at.
const MAX_RECEIVED: usize = 64 * 1024;

/// Connections of others that are turned away before the own one must have come.
const MAX_STRANGERS: usize = 100;

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
                stream.set_nonblocking(true)?;
                let client = Self { stream, received: Vec::new(), end: None };
                return Ok((client, server, (own, address)));
            }
        }
        Err(io::Error::other("others connect to the port of the checks"))
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
                Ok(0) => self.end = Some(End::Closed),
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
