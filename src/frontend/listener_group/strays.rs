//! Accepts and closes what came too late to sockets that no worker holds, on a thread of its own: whether `accept` waits is
//! up to everybody who has a copy of the socket, and a process that a worker has left behind may have one.
//!
//! One job waits at most. While one is at work, and where one waits for ever, later ones are left out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::frontend::listener::{AcceptError, Listener};

/// Clients of one socket that one job accepts, at most: the rest waits for the next one.
const MAX_CLIENTS: u64 = 1024;

/// Sockets to look at, and the addresses of connections of the primary's own, which are no clients.
#[derive(Debug)]
struct Job {
    sockets: Vec<Listener>,
    own: Vec<SocketAddr>,
}

/// The thread.
#[derive(Debug)]
pub(super) struct Strays {
    jobs: SyncSender<Job>,
    /// Clients that were closed and not reported yet.
    closed: Arc<AtomicU64>,
}

impl Strays {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a thread.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, received) = sync_channel(1);
        let closed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&closed);
        thread::Builder::new().name("strays".to_owned()).spawn(move || work(&received, &count))?;
        Ok(Self { jobs, closed })
    }

    /// Has the clients of these sockets closed, unless it is busy.
    pub(super) fn close(&self, sockets: Vec<Listener>, own: Vec<SocketAddr>) {
        // They are there with the next look, too.
        let _ = self.jobs.try_send(Job { sockets, own });
    }

    /// How many clients were closed since the last time.
    pub(super) fn take_count(&self) -> u64 {
        self.closed.swap(0, Ordering::Relaxed)
    }
}

fn work(jobs: &Receiver<Job>, closed: &AtomicU64) {
    while let Ok(Job { sockets, own }) = jobs.recv() {
        for socket in sockets {
            closed.fetch_add(close_clients(&socket, &own), Ordering::Relaxed);
        }
    }
}

fn close_clients(socket: &Listener, own: &[SocketAddr]) -> u64 {
    let mut clients = 0;
    for _ in 0..MAX_CLIENTS {
        // A worker may have set it otherwise.
        if rustix::io::ioctl_fionbio(socket, true).is_err() {
            break;
        }
        match socket.accept() {
            Ok(accepted) => clients += u64::from(!own.contains(&accepted.client)),
            Err(AcceptError::Skip(_)) => {}
            Err(_) => break,
        }
    }
    clients
}
