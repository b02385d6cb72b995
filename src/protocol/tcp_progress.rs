//! The proof that no process has used a client's socket since the primary got it, from the kernel's own
//! counters.
//!
//! Needed where a worker had a connection's descriptor, never acknowledged it, and died. By the
//! protocol it cannot have read; this shows that it hasn't, so that the client can be given to
//! another worker without a byte lost or sent twice. A session was used before: the proof is
//! that nothing was added.
//!
//! # Pitfalls
//!
//! The counters and the unread bytes are asked one after the other, while the client goes on sending
//! and acknowledging. They count together only if nothing has changed meanwhile: else bytes that
//! arrive would hide as many that were read.

use std::io;
use std::os::fd::AsFd;

use crate::kernel::{TcpState, tcp_counters, unacknowledged};

/// How often to ask until nothing changes meanwhile. Twice is rare.
const ATTEMPTS: usize = 1_000;

/// How far a socket has been used by this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpProgress {
    /// Bytes read.
    consumed: u64,
    /// Bytes written, plus what the handshake counts.
    written: u64,
}

impl TcpProgress {
    /// Of counted bytes.
    #[must_use]
    pub const fn new(consumed: u64, written: u64) -> Self {
        Self { consumed, written }
    }

    /// Bytes read, and bytes written with what the handshake counts.
    #[must_use]
    pub const fn counts(self) -> (u64, u64) {
        (self.consumed, self.written)
    }

    /// After so many more bytes read and written. Numbers of a worker that lies may overflow.
    #[must_use]
    pub const fn and(self, read: u64, written: u64) -> Self {
        Self {
            consumed: self.consumed.wrapping_add(read),
            written: self.written.wrapping_add(written),
        }
    }

    /// How far `socket` has been used; nothing if its client is gone, or this side has shut it.
    ///
    /// # Errors
    ///
    /// If the kernel cannot tell; then nothing is proven.
    pub fn of(socket: impl AsFd) -> io::Result<Option<Self>> {
        for _ in 0..ATTEMPTS {
            let counters = tcp_counters(&socket)?;
            let unread = rustix::io::ioctl_fionread(&socket)?;
            let unacknowledged = unacknowledged(&socket)?;
            if tcp_counters(&socket)? != counters {
                continue;
            }
            // The kernel counts the peer's FIN as a byte received, but not as one to be read.
            let received = match counters.state {
                TcpState::Established => counters.received,
                TcpState::CloseWait => counters.received.saturating_sub(1),
                TcpState::Ended => return Ok(None),
            };
            let consumed = received.saturating_sub(unread);
            let written = counters.acknowledged + unacknowledged;
            return Ok(Some(Self { consumed, written }));
        }
        Err(io::Error::other("socket doesn't come to rest"))
    }
}

/// Whether nothing was ever read from `socket` and nothing written to it, and its client still
/// there.
///
/// # Errors
///
/// If the kernel cannot tell; then nothing is proven.
pub fn is_untouched(socket: impl AsFd) -> io::Result<bool> {
    let unread = TcpProgress::of(&socket)?.is_some_and(|usage| usage.consumed == 0);
    Ok(unread && tcp_counters(&socket)?.written == 0)
}

/// Whether nothing was read from `socket` and nothing written to it since that `usage`, and its
/// client still there. Earlier bytes may be sent again meanwhile.
///
/// # Errors
///
/// If the kernel cannot tell; then nothing is proven.
pub fn is_untouched_since(socket: impl AsFd, usage: TcpProgress) -> io::Result<bool> {
    Ok(TcpProgress::of(socket)? == Some(usage))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    fn connect() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Loopback delivers before `write` returns, but a FIN or a reset is only seen to have come
    /// when the receiver says so.
    fn wait_until(mut condition: impl FnMut() -> bool) {
        let start = std::time::SystemTime::now();
        while !condition() {
            assert!(start.elapsed().unwrap().as_secs() < 5, "never came");
            std::thread::yield_now();
        }
    }

    fn state_of(server: &TcpStream) -> TcpState {
        tcp_counters(server).unwrap().state
    }

    #[test]
    fn a_fresh_connection_is_untouched() {
        let (_client, server) = connect();
        assert!(is_untouched(&server).unwrap());
    }

    #[test]
    fn unread_bytes_leave_it_untouched_and_read_ones_do_not() {
        let (mut client, mut server) = connect();
        client.write_all(b"hello, server").unwrap();
        assert!(is_untouched(&server).unwrap());
        server.read_exact(&mut [0; 1]).unwrap();
        assert!(!is_untouched(&server).unwrap());
        server.read_exact(&mut [0; 12]).unwrap();
        assert!(!is_untouched(&server).unwrap());
    }

    #[test]
    fn a_client_that_has_finished_sending_is_still_waiting_for_an_answer() {
        let (mut client, mut server) = connect();
        client.write_all(b"x").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        wait_until(|| state_of(&server) == TcpState::CloseWait);
        assert!(is_untouched(&server).unwrap());
        server.read_exact(&mut [0; 1]).unwrap();
        assert!(!is_untouched(&server).unwrap());
    }

    #[test]
    fn a_socket_written_to_or_shut_is_not_untouched() {
        let (_client, mut server) = connect();
        server.write_all(b"x").unwrap();
        assert!(!is_untouched(&server).unwrap());
        let (_client, server) = connect();
        server.shutdown(Shutdown::Write).unwrap();
        assert!(!is_untouched(&server).unwrap());
    }

    #[test]
    fn nothing_is_left_to_save_when_the_client_has_reset() {
        let (client, server) = connect();
        rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        wait_until(|| state_of(&server) == TcpState::Ended);
        assert!(!is_untouched(&server).unwrap());
    }

    /// A session at rest: something was read, something written, something is unread.
    fn session() -> (TcpStream, TcpStream, TcpProgress) {
        let (mut client, mut server) = connect();
        client.write_all(b"read, and unread").unwrap();
        server.read_exact(&mut [0; 4]).unwrap();
        server.write_all(b"an answer").unwrap();
        let usage = TcpProgress::of(&server).unwrap().unwrap();
        (client, server, usage)
    }

    #[test]
    fn a_session_stays_untouched_whatever_its_client_does() {
        let (mut client, server, usage) = session();
        assert!(is_untouched_since(&server, usage).unwrap());
        assert!(!is_untouched(&server).unwrap());
        client.write_all(b"more").unwrap();
        client.read_exact(&mut [0; 9]).unwrap();
        assert!(is_untouched_since(&server, usage).unwrap());
        client.shutdown(Shutdown::Write).unwrap();
        wait_until(|| state_of(&server) == TcpState::CloseWait);
        assert!(is_untouched_since(&server, usage).unwrap());
    }

    #[test]
    fn a_session_that_was_read_written_or_shut_is_not_untouched() {
        let (mut client, mut server, usage) = session();
        server.read_exact(&mut [0; 1]).unwrap();
        assert!(!is_untouched_since(&server, usage).unwrap());
        client.write_all(b"x").unwrap();
        assert!(!is_untouched_since(&server, usage).unwrap(), "what came hides what was read");
        let (_client, mut server, usage) = session();
        server.write_all(b"x").unwrap();
        assert!(!is_untouched_since(&server, usage).unwrap());
        let (_client, server, usage) = session();
        server.shutdown(Shutdown::Write).unwrap();
        assert!(!is_untouched_since(&server, usage).unwrap());
    }

    #[test]
    fn what_is_on_its_way_to_the_client_counts_as_written_all_the_time() {
        let (mut client, mut server) = connect();
        server.set_nonblocking(true).unwrap();
        while server.write(&[7; 65_536]).is_ok() {}
        let usage = TcpProgress::of(&server).unwrap().unwrap();
        let mut read = vec![0; 65_536];
        for _ in 0..50 {
            client.read_exact(&mut read).unwrap();
            assert!(is_untouched_since(&server, usage).unwrap());
        }
    }

    #[test]
    fn nothing_is_proven_wrongly_while_the_client_sends() {
        let (mut client, mut server) = connect();
        let sends = std::thread::spawn(move || while client.write_all(&[1; 100]).is_ok() {});
        server.read_exact(&mut [0; 100]).unwrap();
        let usage = TcpProgress::of(&server).unwrap().unwrap();
        for _ in 0..2_000 {
            assert!(!is_untouched(&server).unwrap());
            assert!(is_untouched_since(&server, usage).unwrap());
        }
        drop(server);
        sends.join().unwrap();
    }
}
