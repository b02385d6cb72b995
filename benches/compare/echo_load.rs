//! The WebSocket load: many established connections, a short text message
//! underway on each, the next one sent when the echo is back.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::time::Instant;

use crate::{Result, client, interrupt};

const CONNECTIONS: usize = 64;
/// Two, so that the load can use what a core has left while the other is busy.
const THREADS: usize = 2;
/// Longer silence on all connections of a thread is a failure.
const TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

const TEXT: &[u8; TEXT_LENGTH as usize] = b"sixteen letters.";
const TEXT_LENGTH: u8 = 16;
const MASK: [u8; 4] = [0x5A, 0x11, 0xC3, 0x78];
const ECHO_LENGTH: usize = 2 + TEXT.len();

/// Round trips per second.
pub(crate) fn round_trips(port: u16, length: Duration) -> Result<f64> {
    let connections =
        (0..THREADS).map(|_| open(port, CONNECTIONS / THREADS)).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let deadline = start + length;
    let threads = connections
        .into_iter()
        .map(|part| thread::spawn(move || echo_until(part, deadline)))
        .collect::<Vec<_>>();
    let mut total = 0;
    for thread in threads {
        total += thread.join().map_err(|_| "a load thread panicked")??;
    }
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

/// Established WebSockets, each from another client address.
pub(crate) fn open(port: u16, count: usize) -> Result<Vec<OwnedFd>> {
    (0..count)
        .map(|_| {
            interrupt::check()?;
            client::open_websocket(port)
        })
        .collect()
}

struct Echo {
    socket: OwnedFd,
    received: Vec<u8>,
}

fn echo_until(sockets: Vec<OwnedFd>, deadline: Instant) -> Result<u64> {
    let message = message();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut echoes = Vec::with_capacity(sockets.len());
    for (number, socket) in sockets.into_iter().enumerate() {
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&poll, &socket, data, epoll::EventFlags::IN)?;
        client::send_all(&socket, &message)?;
        echoes.push(Echo { socket, received: Vec::with_capacity(ECHO_LENGTH) });
    }
    let mut count = 0;
    let mut events = Vec::with_capacity(echoes.len());
    while Instant::now() < deadline && !interrupt::requested() {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), Some(&TIMEOUT))?;
        if events.is_empty() {
            return Err("no echo came back any more".into());
        }
        for event in &events {
            let number = usize::try_from(event.data.u64())?;
            count += echoes[number].proceed(&message)?;
        }
    }
    Ok(count)
}

impl Echo {
    /// Reads what is there; 1 if that completes a round trip.
    fn proceed(&mut self, message: &[u8]) -> Result<u64> {
        let free = spare_capacity(&mut self.received);
        let (read, _) = match recv(&self.socket, free, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => return Ok(0),
            other => other?,
        };
        if read == 0 {
            return Err("the server closed a WebSocket".into());
        }
        if self.received.len() < ECHO_LENGTH {
            return Ok(0);
        }
        if self.received[..2] != [0x81, TEXT_LENGTH] || &self.received[2..] != TEXT {
            return Err(format!("a wrong echo: {:02x?}", self.received).into());
        }
        self.received.clear();
        client::send_all(&self.socket, message)?;
        Ok(1)
    }
}

/// A whole text frame, masked as a client's must be.
fn message() -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | TEXT_LENGTH];
    frame.extend(MASK);
    let masked = TEXT.iter().zip(MASK.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}
