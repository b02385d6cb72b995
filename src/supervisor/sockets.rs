//! How many clients a worker has that doesn't say so itself: the kernel's list of TCP sockets, and the descriptors of
//! its processes.
//!
//! Reads only, and takes some milliseconds with thousands of clients.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::supervisor::procfs::tree;
use crate::system::tcp_clients::{Handshake, PortSockets, port_sockets};

/// The sockets of all clients that have come by one port, and those that listen on it.
#[derive(Debug)]
pub struct ClientSockets(PortSockets);

/// The sockets of one process and what it has started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Those of clients.
    pub clients: u64,
    /// It listens on the port by another socket than its own.
    pub listens_elsewhere: bool,
}

impl ClientSockets {
    /// Those of the clients of `port`. None if the kernel doesn't tell.
    #[must_use]
    pub fn of_port(port: u16) -> Option<Self> {
        port_sockets(port).ok().map(Self)
    }

    /// The handshakes.
    #[must_use]
    pub fn into_handshakes(self) -> HashSet<Handshake> {
        self.0.handshakes
    }

    /// How many of them a process and what it has started have open. None if that can't be seen. `own` is the inode of
    /// its listening socket.
    #[must_use]
    pub fn of_process(&self, pid: i32, own: Option<u64>) -> Option<Open> {
        let is_watched = own.is_some() && !self.0.listening.is_empty();
        if self.0.open.is_empty() && !is_watched {
            return Some(Open::default());
        }
        let mut listens_elsewhere = false;
        let mut open = HashSet::new();
        for pid in tree(pid) {
            for inode in inodes(pid)? {
                if self.0.open.contains(&inode) {
                    open.insert(inode);
                }
                listens_elsewhere |=
                    is_watched && own != Some(inode) && self.0.listening.contains(&inode);
            }
        }
        Some(Open { clients: open.len() as u64, listens_elsewhere })
    }
}

/// Whether a process has the socket of this inode open. None if that can't be seen.
#[must_use]
pub fn has_open(pid: i32, socket: u64) -> Option<bool> {
    Some(inodes(pid)?.any(|inode| inode == socket))
}

/// The inodes of the sockets that a process has open. None if that can't be seen.
fn inodes(pid: i32) -> Option<impl Iterator<Item = u64>> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(descriptors.flatten().filter_map(|entry| inode(&entry.path())))
}

/// The inode of the socket that a link in `/proc/PID/fd` stands for.
fn inode(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_accepted_sockets_of_the_port_count_and_each_once() {
        let own = i32::try_from(std::process::id()).unwrap();
        let count =
            |port| ClientSockets::of_port(port).unwrap().of_process(own, None).unwrap().clients;
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            assert_eq!(count(port), 0);
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, _) = listener.accept().unwrap();
            let copy = socket.try_clone().unwrap();
            assert_eq!(count(port), 1, "{address}");
            drop(client);
            assert_eq!(count(port), 1, "its client has gone, and it is open");
            drop((socket, copy));
            assert_eq!(count(port), 0);
        }
    }

    #[test]
    fn a_listener_beside_its_own_is_seen() {
        let own = i32::try_from(std::process::id()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets = ClientSockets::of_port(port).unwrap();
        let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
        let elsewhere = |inode| sockets.of_process(own, Some(inode)).unwrap().listens_elsewhere;
        assert!(!elsewhere(inode) && elsewhere(inode + 1));
    }
}
