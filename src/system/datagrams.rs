//! Datagrams to the keeper or to a service manager, in the order in which they are sent.
//!
//! Never waits: what the other side has no room for waits in a queue, from which a thread of its own sends.
//! Bounded: when the queue is full, a message is dropped, counted and logged: to the store no more than once
//! in [`LOG_INTERVAL`], to a service manager once.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sendmsg_addr};

use crate::protocol::ids::Timestamp;

/// Messages that wait, at most: as many as a hundred workers need to be replaced.
const MAX_WAITING: usize = 2_048;

/// So often lost messages are logged, at most.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Pauses between two looks whether there is room.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Who gets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recipient {
    /// The keeper or the descriptor store of systemd.
    Store,
    /// A service manager.
    Manager,
}

/// Sends. Clones have the same queue.
#[derive(Clone, Debug)]
pub(super) struct DatagramSender {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: UnixDatagram,
    /// None if the socket is connected.
    address: Option<rustix::net::SocketAddrUnix>,
    queue: Mutex<Queue>,
    emptied: Condvar,
}

#[derive(Debug)]
struct Queue {
    recipient: Recipient,
    waiting: VecDeque<Datagram>,
    has_thread: bool,
    lost: u64,
    logged_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Datagram {
    text: Box<[u8]>,
    descriptor: Option<OwnedFd>,
}

impl DatagramSender {
    /// Over a socket that is connected.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(super) fn connected(socket: UnixDatagram) -> io::Result<Self> {
        Self::new(Recipient::Store, socket, None)
    }

    /// To the address of a service manager, where there may be a socket or not.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(super) fn to(address: &SocketAddr) -> io::Result<Self> {
        let address = match (address.as_pathname(), abstract_name(address)) {
            (Some(path), _) => rustix::net::SocketAddrUnix::new(path)?,
            (None, Some(name)) => rustix::net::SocketAddrUnix::new_abstract_name(name)?,
            (None, None) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Self::new(Recipient::Manager, UnixDatagram::unbound()?, Some(address))
    }

    fn new(
        recipient: Recipient,
        socket: UnixDatagram,
        address: Option<rustix::net::SocketAddrUnix>,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (waiting, emptied) = (VecDeque::new(), Condvar::new());
        let queue = Queue { recipient, waiting, has_thread: false, lost: 0, logged_at: None };
        let queue = Mutex::new(queue);
        Ok(Self { shared: Arc::new(Shared { socket, address, queue, emptied }) })
    }

    /// Sends a message, with a copy of a descriptor or without.
    pub(super) fn send(&self, text: &[u8], descriptor: Option<BorrowedFd<'_>>) {
        let mut queue = self.shared.queue();
        if queue.waiting.is_empty() {
            match self.shared.try_send(text, descriptor) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return queue.note(sent),
            }
        }
        let added = queue.add(text, descriptor);
        queue.note(added);
        if !queue.waiting.is_empty() && !queue.has_thread {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name("datagrams".to_owned());
            // Without a thread, the next message tries again.
            queue.has_thread = thread.spawn(move || shared.send_waiting()).is_ok();
        }
    }

    /// Waits until nothing waits, at most so long, and says whether that is so.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let queue = self.shared.queue();
        let waits = |queue: &mut Queue| !queue.waiting.is_empty();
        let waited = self.shared.emptied.wait_timeout_while(queue, timeout, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0.waiting.is_empty()
    }

    /// Messages that were lost.
    #[cfg(test)]
    pub(super) fn lost(&self) -> u64 {
        self.shared.queue().lost
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_send(&self, text: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptor.as_slice().is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptor.as_slice()));
        }
        let (bytes, flags) = ([IoSlice::new(text)], SendFlags::NOSIGNAL);
        uninterrupted(|| {
            match &self.address {
                Some(address) => sendmsg_addr(&self.socket, address, &bytes, &mut control, flags)?,
                None => sendmsg(&self.socket, &bytes, &mut control, flags)?,
            };
            Ok(())
        })
    }

    /// Sends what waits, and ends with that.
    fn send_waiting(&self) {
        let (shortest, longest) = PAUSES;
        let mut pause = shortest;
        loop {
            let mut queue = self.queue();
            let Some(Datagram { text, descriptor }) = queue.waiting.front() else {
                queue.has_thread = false;
                self.emptied.notify_all();
                return;
            };
            match self.try_send(text, descriptor.as_ref().map(AsFd::as_fd)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(queue);
                    thread::park_timeout(pause);
                    pause = (pause * 2).min(longest);
                }
                sent => {
                    pause = shortest;
                    queue.waiting.pop_front();
                    queue.note(sent);
                }
            }
        }
    }
}

impl Queue {
    fn add(&mut self, text: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(io::Error::other("too many messages wait"));
        }
        let descriptor = descriptor.map(|it| it.try_clone_to_owned()).transpose()?;
        self.waiting.push_back(Datagram { text: text.into(), descriptor });
        Ok(())
    }

    fn note(&mut self, sent: io::Result<()>) {
        let Err(error) = sent else { return };
        self.lost += 1;
        let now = Timestamp::now();
        match (self.recipient, self.logged_at) {
            (Recipient::Store, Some(at)) if now.since(at) < LOG_INTERVAL => return,
            (Recipient::Store, _) => tracing::warn!(
                %error,
                lost = self.lost,
                "descriptor not stored: a crash of the primary would lose it",
            ),
            (Recipient::Manager, Some(_)) => return,
            (Recipient::Manager, None) => {
                tracing::warn!(%error, "cannot notify the service manager");
            }
        }
        self.logged_at = Some(now);
    }
}

/// Calls again what a signal has interrupted.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn abstract_name(address: &SocketAddr) -> Option<&[u8]> {
    std::os::linux::net::SocketAddrExt::as_abstract_name(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other side, and a sender whose messages wait.
    fn full() -> (UnixDatagram, DatagramSender, usize) {
        let (near, far) = UnixDatagram::pair().unwrap();
        far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let sender = DatagramSender::connected(near).unwrap();
        let mut count = 0;
        while sender.shared.queue().waiting.is_empty() {
            sender.send(count.to_string().as_bytes(), None);
            count += 1;
        }
        (far, sender, count)
    }

    fn next(far: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = far.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn messages_that_there_is_no_room_for_come_later_and_in_order() {
        let (far, sender, count) = full();
        for number in count..count + 100 {
            sender.send(number.to_string().as_bytes(), None);
        }
        assert!(!sender.flush(Duration::ZERO));
        for number in 0..count + 100 {
            assert_eq!(next(&far), number.to_string());
        }
        assert!(sender.flush(Duration::from_secs(20)));
        assert_eq!(sender.lost(), 0);
    }

    #[test]
    fn a_side_that_never_reads_costs_messages_and_no_time() {
        let (_far, sender, _) = full();
        let file = std::fs::File::open("/dev/null").unwrap();
        for _ in 0..MAX_WAITING + 7 {
            sender.send(b"x", Some(file.as_fd()));
        }
        assert_eq!(sender.shared.queue().waiting.len(), MAX_WAITING);
        assert!(sender.lost() >= 7);
    }

    #[test]
    fn a_signal_costs_no_message() {
        let mut results =
            vec![Ok(5), Err(io::ErrorKind::Interrupted), Err(io::ErrorKind::Interrupted)];
        let mut call = || results.pop().unwrap().map_err(io::Error::from);
        assert_eq!(uninterrupted(&mut call).unwrap(), 5);
        let refused = uninterrupted(|| Err::<(), _>(io::ErrorKind::ConnectionRefused.into()));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
