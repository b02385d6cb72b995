//! The end of descriptors that others have had in their hands: nothing that serves waits for it.
//!
//! `close` can wait: for a client that reads slowly, if this copy of its socket is the last one and
//! somebody has set SO_LINGER; for as many of those as somebody has put into the queue of a Unix socket;
//! for gigabytes of memory. So such a descriptor has a type that ends it by being dropped, wherever that is:
//!
//! * [`ClientSocket`], a TCP socket: it is closed at once, after a look at SO_LINGER, which no lock of the
//!   socket holds up. Where that has a time, a thread of its own closes it. 0, which is a reset, stays as the
//!   app wants it.
//! * [`Deferred`], anything else: a thread of its own closes it.
//!
//! Never waits, never loses a descriptor. Those threads don't wait for long either: a signal to a thread that
//! waits for a socket to linger ends the wait, for this socket and for all that are closed with it (tcp(7) and
//! `sk_stream_wait_close`: the kernel sends what is unsent all the same). Bounded by the limit of descriptors,
//! as each one that waits is open: where that is reached, clients wait in the backlog.

use std::collections::VecDeque;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::net::sockopt::socket_linger;

use crate::kernel::{Interrupt, close};

/// Threads that close, at most. One that waits is joined by another.
const MAX_THREADS: usize = 4;

/// How long a close may wait for a socket to linger.
const PATIENCE: Duration = Duration::from_millis(10);

/// Room that is made for descriptors, so that usually none is made later.
const RESERVED: usize = 256;

/// A TCP socket. Dropping it closes it, without waiting.
#[derive(Debug)]
pub struct ClientSocket(Option<OwnedFd>);

impl From<OwnedFd> for ClientSocket {
    fn from(socket: OwnedFd) -> Self {
        Self(Some(socket))
    }
}

impl From<ClientSocket> for OwnedFd {
    fn from(mut socket: ClientSocket) -> Self {
        taken(socket.0.take())
    }
}

impl From<Deferred> for ClientSocket {
    fn from(socket: Deferred) -> Self {
        Self(Some(socket.into_inner()))
    }
}

impl AsFd for ClientSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        taken(self.0.as_ref()).as_fd()
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        let Some(socket) = self.0.take() else { return };
        // An error means that there is nothing that could linger.
        match socket_linger(&socket) {
            Ok(Some(time)) if !time.is_zero() => close_later(socket),
            _ => close(socket),
        }
    }
}

/// A descriptor, or what has one. Dropping it has the descriptor closed on a thread of its own.
#[derive(Debug)]
pub struct Deferred<T: Into<OwnedFd> = OwnedFd>(Option<T>);

impl<T: Into<OwnedFd>> Deferred<T> {
    /// Takes it out.
    #[must_use]
    pub fn into_inner(mut self) -> T {
        taken(self.0.take())
    }
}

impl<T: Into<OwnedFd>> From<T> for Deferred<T> {
    fn from(descriptor: T) -> Self {
        Self(Some(descriptor))
    }
}

impl<T: Into<OwnedFd>> Deref for Deferred<T> {
    type Target = T;

    fn deref(&self) -> &T {
        taken(self.0.as_ref())
    }
}

impl<T: Into<OwnedFd> + AsFd> AsFd for Deferred<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

impl<T: Into<OwnedFd>> Drop for Deferred<T> {
    fn drop(&mut self) {
        if let Some(descriptor) = self.0.take() {
            close_later(descriptor.into());
        }
    }
}

/// It is taken out only by value, and with that the rest is gone.
fn taken<T>(descriptor: Option<T>) -> T {
    descriptor.unwrap_or_else(|| unreachable!("it was taken out before"))
}

/// Descriptors that wait to be closed, the oldest first, and the threads that close them.
#[derive(Debug)]
struct Closing {
    waiting: VecDeque<OwnedFd>,
    threads: usize,
    /// Of those, the ones that have nothing to do.
    idle: usize,
}

static CLOSING: Mutex<Closing> =
    Mutex::new(Closing { waiting: VecDeque::new(), threads: 0, idle: 0 });
static ARRIVED: Condvar = Condvar::new();

/// Starts a thread, so that what serves doesn't have to.
pub fn start() {
    let mut closing = closing();
    closing.waiting.reserve(RESERVED);
    closing.ensure_thread();
}

/// Takes out what waits, for a successor that this process is about to become: `execve` would close it,
/// and wait.
#[must_use]
pub fn take_waiting() -> VecDeque<OwnedFd> {
    std::mem::take(&mut closing().waiting)
}

fn close_later(descriptor: OwnedFd) {
    let mut closing = closing();
    closing.waiting.push_back(descriptor);
    closing.ensure_thread();
    ARRIVED.notify_one();
}

fn closing() -> MutexGuard<'static, Closing> {
    CLOSING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Closing {
    fn ensure_thread(&mut self) {
        if self.threads == 0 {
            self.start_thread();
        }
    }

    /// Without one, what waits does so until the next comes.
    fn start_thread(&mut self) {
        let thread = thread::Builder::new().name("closing".to_owned());
        self.threads += usize::from(thread.spawn(close_all).is_ok());
    }

    /// A thread is about to close what it may have to wait for: another stands by for what comes next.
    fn begin(&mut self) -> Option<OwnedFd> {
        let descriptor = self.waiting.pop_front()?;
        if self.idle == 0 && self.threads < MAX_THREADS {
            self.start_thread();
        }
        Some(descriptor)
    }
}

fn close_all() {
    // Signals are for threads that handle them; only an invalid argument could make it fail.
    let _ = SigSet::all().thread_block();
    // Without one, a socket that lingers is waited for.
    let interrupt = Interrupt::for_this_thread().ok();
    let mut closing = closing();
    loop {
        if let Some(descriptor) = closing.begin() {
            drop(closing);
            interrupt.iter().for_each(|interrupt| interrupt.every(PATIENCE));
            drop(descriptor);
            interrupt.iter().for_each(Interrupt::stop);
            closing = self::closing();
        } else {
            closing.idle += 1;
            closing = ARRIVED.wait(closing).unwrap_or_else(PoisonError::into_inner);
            closing.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use rustix::net::sockopt::set_socket_linger;

    use super::*;
    use crate::protocol::ids::Timestamp;

    const LINGER: Duration = Duration::from_secs(60);

    /// A client that doesn't read, and its connection, full of what it should read.
    fn full(linger: Duration) -> (TcpStream, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 65_536]).is_ok() {}
        set_socket_linger(&server, Some(linger)).unwrap();
        (client, server.into())
    }

    fn read_all(mut client: TcpStream) -> std::io::Result<usize> {
        client.set_read_timeout(Some(LINGER)).unwrap();
        client.read_to_end(&mut Vec::new())
    }

    #[test]
    fn a_slow_reader_is_not_waited_for_and_gets_everything() {
        let (client, server) = full(LINGER);
        let start = Timestamp::now();
        drop(ClientSocket::from(server));
        assert!(Timestamp::now().since(start) < LINGER / 2);
        assert!(read_all(client).unwrap() > 65_536);
    }

    #[test]
    fn a_reset_stays_a_reset() {
        let (client, server) = full(Duration::ZERO);
        drop(ClientSocket::from(server));
        assert!(read_all(client).is_err());
    }

    #[test]
    fn what_may_wait_keeps_nobody() {
        let start = Timestamp::now();
        let lingering: Vec<_> = (0..MAX_THREADS - 1).map(|_| full(LINGER)).collect();
        let (clients, sockets): (Vec<_>, Vec<_>) = lingering.into_iter().unzip();
        sockets.into_iter().for_each(|socket| drop(Deferred::from(socket)));
        let (mut reader, writer) = std::io::pipe().unwrap();
        drop(Deferred::from(OwnedFd::from(writer)));
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "it is closed by another thread");
        assert!(Timestamp::now().since(start) < LINGER / 2);
        drop(clients);
    }

    /// Puts a descriptor into the queue of a Unix socket, as its only copy.
    fn nested(inner: Vec<OwnedFd>) -> OwnedFd {
        let (outer, sender) = std::os::unix::net::UnixStream::pair().unwrap();
        let fds: Vec<_> = inner.iter().map(AsFd::as_fd).collect();
        crate::protocol::scm_rights::send(&sender, b"x", &fds).unwrap();
        outer.into()
    }

    #[test]
    fn sockets_that_linger_hold_up_no_thread_however_many_and_however_hidden() {
        let start = Timestamp::now();
        let (mut clients, mut outers) = (Vec::new(), Vec::new());
        for _ in 0..2 * MAX_THREADS {
            let (more, sockets): (Vec<_>, Vec<_>) = (0..3).map(|_| full(LINGER)).unzip();
            clients.extend(more);
            outers.push(nested(sockets));
        }
        outers.into_iter().for_each(|outer| drop(Deferred::from(outer)));
        let (mut reader, writer) = std::io::pipe().unwrap();
        drop(Deferred::from(OwnedFd::from(writer)));
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "it is closed after all of them");
        assert!(Timestamp::now().since(start) < LINGER / 2);
        // What was unsent comes all the same.
        assert!(read_all(clients.swap_remove(0)).unwrap() > 65_536);
    }

    #[test]
    fn what_is_taken_out_stays_open() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let deferred = Deferred::from(OwnedFd::from(writer));
        let mut writer = std::io::PipeWriter::from(deferred.into_inner());
        writer.write_all(b"x").unwrap();
        assert_eq!(reader.read(&mut [0; 2]).unwrap(), 1);
    }
}
