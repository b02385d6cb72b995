//! Clients: HTTP over plain sockets, from any address of the loopback network.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

use super::TIMEOUT;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status line and headers.
    pub head: String,
    /// The rest.
    pub body: String,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The worker that answered.
    pub fn pid(&self) -> u32 {
        let pid = self.header("x-worker-id").and_then(|pid| pid.parse().ok());
        pid.unwrap_or_else(|| panic!("no worker in {self:?}"))
    }

    /// Its slot.
    pub fn slot(&self) -> u16 {
        let slot = self.header("x-worker-slot").and_then(|slot| slot.parse().ok());
        slot.unwrap_or_else(|| panic!("no slot in {self:?}"))
    }
}

/// The nth client: an address of its own out of 127.0.0.0/8.
pub fn nth(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(127, 77, high, low).into()
}

/// Connects from an address.
pub fn connect_from(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::new(from, 0))?;
    // Bounds the handshake too.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(TIMEOUT))?;
    connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Asks for a path on a connection of its own.
pub fn get_from(from: IpAddr, to: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = connect_from(from, to)?;
    send_get(&mut stream, path)?;
    read_answer(stream)
}

/// Asks for `/`, and fails the test if there is no answer.
pub fn ask(from: IpAddr, to: SocketAddr) -> Answer {
    get_from(from, to, "/").unwrap_or_else(|error| panic!("no answer for {from}: {error}"))
}

/// Sends a request for a connection's only answer.
pub fn send_get(stream: &mut TcpStream, path: &str) -> io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())
}

/// Reads to the end of the connection.
pub fn read_answer(mut stream: TcpStream) -> io::Result<Answer> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(Answer { head: head.to_owned(), body: body.to_owned() })
}

/// Reads one answer with a content length, and leaves the connection open.
pub fn read_kept_alive(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    let mut answer = Answer { head, body: String::new() };
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Ok(answer)
}

/// Whether the connection ends, by FIN or by reset, before the time is over.
pub fn ends_within(stream: &mut TcpStream, time: Duration) -> bool {
    stream.set_read_timeout(Some(time)).expect("a time that is not zero");
    match stream.read(&mut [0; 1024]) {
        Ok(0) => true,
        Ok(_) => ends_within(stream, time),
        Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
    }
}
