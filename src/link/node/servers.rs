//! The servers that a worker's program has open: those on the front's port, each with a key that no other one of
//! that worker ever has, and those on sockets that it shares with other workers, with the names of these.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::link::node::ports::PortKey;

/// Servers that are remembered, at most; of more, the oldest are forgotten.
const MAX_SERVERS: usize = 32;

/// Bytes of names of shared sockets, at most: a worker that has so many open gets no further one.
const MAX_NAMES: usize = 2800;

/// Bytes that the number of a query takes, and what stands around it.
const NUMBER: usize = 26;

/// Open servers, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Servers {
    open: Vec<u64>,
    next: u64,
    /// Of those that are closed, the one that was closed last.
    closed: Option<u64>,
    /// Names of shared sockets, each with the number of the query that it answers.
    #[serde(default)]
    shared: Vec<(String, u64)>,
}

impl Servers {
    /// Opens one and returns its key.
    pub(super) fn open(&mut self) -> String {
        let number = self.next;
        self.next += 1;
        if self.open.len() == MAX_SERVERS {
            self.open.remove(0);
        }
        self.open.push(number);
        key(number)
    }

    /// Closes one; false if it is not one of these.
    pub(super) fn close(&mut self, closed: &str) -> bool {
        let Some(position) = self.open.iter().position(|number| key(*number) == closed) else {
            return false;
        };
        self.closed = Some(self.open.remove(position));
        true
    }

    /// The key of the server that gets connections: of several, the first. If all are closed, the last one: the
    /// worker refuses them then, so that they go to others.
    pub(super) fn serving(&self) -> Option<String> {
        self.open.first().copied().or(self.closed).map(key)
    }

    /// Whether a shared socket can be opened to answer the query with this number.
    ///
    /// # Errors
    ///
    /// If another query has opened it, or too many are open.
    pub(super) fn can_share(&self, name: &str, query: u64) -> Result<(), Errno> {
        if let Some((_, before)) = self.shared.iter().find(|(open, _)| open == name) {
            // A primary before may have died with the answer.
            return if *before == query { Ok(()) } else { Err(Errno::ADDRINUSE) };
        }
        let used: usize = self.shared_names().map(|name| name.len() + NUMBER).sum();
        if used + name.len() + NUMBER > MAX_NAMES { Err(Errno::MFILE) } else { Ok(()) }
    }

    /// A shared socket is open.
    pub(super) fn share(&mut self, name: &str, query: u64) {
        if !self.shared.iter().any(|(open, _)| open == name) {
            self.shared.push((name.to_owned(), query));
        }
    }

    /// Closes a shared socket; false if it is not one of these.
    pub(super) fn unshare(&mut self, name: &str) -> bool {
        let before = self.shared.len();
        self.shared.retain(|(open, _)| open != name);
        self.shared.len() < before
    }

    /// Closes the shared socket of a query that could not be answered, and returns its name.
    pub(super) fn unshare_query(&mut self, query: u64) -> Option<String> {
        let position = self.shared.iter().position(|(_, number)| *number == query)?;
        Some(self.shared.remove(position).0)
    }

    /// The names of shared sockets that are open.
    pub(super) fn shared_names(&self) -> impl Iterator<Item = &str> {
        self.shared.iter().map(|(name, _)| name.as_str())
    }

    /// Whether the program has asked for this TCP port, and shares it.
    pub(super) fn shares_tcp(&self, port: u16) -> bool {
        let mut keys = self.shared_names().filter_map(PortKey::from_name);
        keys.any(|key| key.kind.is_tcp() && key.port == port)
    }
}

fn key(number: u64) -> String {
    format!("front:{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_open_server_gets_connections_and_no_key_comes_twice() {
        let mut servers = Servers::default();
        assert_eq!(servers.serving(), None);
        let (first, second) = (servers.open(), servers.open());
        assert_eq!(servers.serving().as_ref(), Some(&first));
        assert!(servers.close(&first) && !servers.close(&first));
        assert_eq!(servers.serving().as_ref(), Some(&second));
        assert!(servers.close(&second));
        assert_eq!(servers.serving().as_ref(), Some(&second));
        let third = servers.open();
        assert!(third != first && third != second);
        for _ in 0..100 {
            servers.open();
        }
        assert_eq!(servers.open.len(), MAX_SERVERS);
    }

    #[test]
    fn a_shared_socket_is_open_once_and_answered_again() {
        let mut servers = Servers::default();
        let key = PortKey {
            kind: crate::link::node::ports::AddressType::Ipv4,
            port: 9100,
            index: 0,
            address: None,
        };
        let name = key.name();
        assert_eq!(servers.can_share(&name, 7), Ok(()));
        servers.share(&name, 7);
        assert!(servers.shares_tcp(9100) && !servers.shares_tcp(9101));
        assert_eq!(servers.can_share(&name, 7), Ok(()), "the same query, again");
        assert_eq!(servers.can_share(&name, 8), Err(Errno::ADDRINUSE));
        assert!(servers.unshare(&name) && !servers.unshare(&name));
        assert_eq!(servers.can_share(&name, 9), Ok(()));
        servers.share(&name, 9);
        assert_eq!(servers.unshare_query(9), Some(name));
        let many = (0..1000).map(|number| format!("{number:0>100}"));
        let open = many.take_while(|name| {
            let can = servers.can_share(name, u64::MAX);
            servers.share(name, u64::MAX);
            can.is_ok()
        });
        assert!((20..100).contains(&open.count()));
    }
}
