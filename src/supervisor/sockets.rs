//! How many clients a worker has that doesn't say so itself: the kernel's list of TCP sockets, and the descriptors of
//! its processes.
//!
//! Reads only, and takes some milliseconds with thousands of clients.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::supervisor::procfs::tree;
use crate::system::tcp_clients::open_inodes;

/// The sockets of all clients that have come by one port.
#[derive(Debug)]
pub struct ClientSockets(HashSet<u64>);

impl ClientSockets {
    /// Those of the clients of `port`. None if the kernel doesn't tell.
    #[must_use]
    pub fn of_port(port: u16) -> Option<Self> {
        open_inodes(port).ok().map(Self)
    }

    /// How many of them a process and what it has started have open. None if that can't be seen.
    #[must_use]
    pub fn of_process(&self, pid: i32) -> Option<u64> {
        if self.0.is_empty() {
            return Some(0);
        }
        let mut open = HashSet::new();
        for pid in tree(pid) {
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
            let inodes = descriptors.flatten().filter_map(|entry| inode(&entry.path()));
            open.extend(inodes.filter(|inode| self.0.contains(inode)));
        }
        Some(open.len() as u64)
    }
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
        let count = |port| ClientSockets::of_port(port).unwrap().of_process(own).unwrap();
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
}
