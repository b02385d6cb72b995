//! One client connection: from its own loopback address, with plain blocking
//! system calls, as the load must cost less than what it measures.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send,
    socket_with,
};

use crate::Result;

/// How many client addresses take turns.
const ADDRESSES: u32 = 4_000;
/// No answer at all within this time is a failure.
const TIMEOUT: Duration = Duration::from_secs(5);

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const UPGRADE: &[u8] = b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: c3RpY2t5LWxiIGJlbmNoIQ==\r\n\r\n";

/// The next client's address, 127.1.0.1 and up.
fn next_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number)
}

/// Connects to the port from the next client address.
///
/// The socket is closed by RST (linger 0): after the server closed first, as
/// with `Connection: close`, that takes its TIME_WAIT entry away. Otherwise a
/// run would pile up some hundred thousand of them, and who is measured last
/// would pay for those before.
fn connect_as_next(port: u16) -> Result<OwnedFd> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The port is picked at connect, where it may be shared between servers.
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    set_socket_linger(&socket, Some(Duration::ZERO))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(TIMEOUT))?;
    set_socket_timeout(&socket, Timeout::Send, Some(TIMEOUT))?;
    let address = next_address();
    bind(&socket, &SocketAddrV4::new(address, 0))?;
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
        .map_err(|error| format!("failed to connect from {address}: {error}"))?;
    Ok(socket)
}

/// One connection from its start to its end, with one request.
pub(crate) fn get(port: u16) -> Result<()> {
    let socket = connect_as_next(port)?;
    send_all(&socket, GET)?;
    let mut answer = [0; 1024];
    let mut length = 0;
    loop {
        // WAITALL: woken once, at the end, and not for each segment.
        let (read, _) = recv(&socket, &mut answer[length..], RecvFlags::WAITALL)
            .map_err(|error| format!("failed to read the answer: {error}"))?;
        if read == 0 {
            break;
        }
        length += read;
    }
    if !answer[..length].starts_with(b"HTTP/1.1 200 ") || length == answer.len() {
        return Err(unexpected("GET /", &answer[..length]).into());
    }
    Ok(())
}

/// An established WebSocket.
pub(crate) fn open_websocket(port: u16) -> Result<OwnedFd> {
    let socket = connect_as_next(port)?;
    send_all(&socket, UPGRADE)?;
    let mut answer = [0; 1024];
    let mut length = 0;
    while !answer[..length].ends_with(b"\r\n\r\n") {
        let (read, _) = recv(&socket, &mut answer[length..], RecvFlags::empty())
            .map_err(|error| format!("failed to read the upgrade's answer: {error}"))?;
        length += read;
        if read == 0 {
            break;
        }
    }
    if !answer[..length].starts_with(b"HTTP/1.1 101 ") {
        return Err(unexpected("the upgrade", &answer[..length]).into());
    }
    Ok(socket)
}

/// For messages that are far smaller than any socket buffer.
pub(crate) fn send_all(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    if send(socket, bytes, SendFlags::NOSIGNAL)? != bytes.len() {
        return Err(io::Error::from(io::ErrorKind::WriteZero));
    }
    Ok(())
}

fn unexpected(request: &str, answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let first_line = text.lines().next().unwrap_or("end of file");
    format!("unexpected answer to {request}: {first_line}")
}
