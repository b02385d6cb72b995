//! The proof that nobody has used a client's socket yet, from the kernel's own counters.
//!
//! Needed where a worker had a connection's descriptor, never acknowledged it, and died. By the
//! protocol it cannot have read; this shows that it hasn't, so that the client can be given to
//! another worker without a byte lost or sent twice.

use std::io;
use std::os::fd::AsFd;

use crate::handoff::kernel::{TcpState, tcp_counters};

/// Whether nothing was read from `socket` and nothing written to it, and its client still there.
///
/// # Errors
///
/// If the kernel cannot tell; then nothing is proven.
pub fn is_untouched(socket: impl AsFd) -> io::Result<bool> {
    // Bytes may arrive between the two questions. Asked in this order they make `unread` too
    // large and never too small, so that a byte that was read is never overlooked.
    let counters = tcp_counters(&socket)?;
    let unread = rustix::io::ioctl_fionread(&socket)?;
    // The kernel counts the peer's FIN as a byte received, but not as one to be read.
    let received = match counters.state {
        TcpState::Established => counters.received,
        TcpState::CloseWait => counters.received.saturating_sub(1),
        TcpState::Ended => return Ok(false),
    };
    Ok(counters.written == 0 && received <= unread)
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
}
