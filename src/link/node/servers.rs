//! The servers that a worker's program has open on the front's port, each with a key that no other one of
//! that worker ever has.

use serde::{Deserialize, Serialize};

/// Servers that are remembered, at most; of more, the oldest are forgotten.
const MAX_SERVERS: usize = 32;

/// Open servers, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Servers {
    open: Vec<u64>,
    next: u64,
    /// Of those that are closed, the one that was closed last.
    closed: Option<u64>,
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
}
