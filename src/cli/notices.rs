//! The sentences about what an operator should know: an address that has nearly all connections, connections
//! that take far too much memory.

use crate::control::report::{DominantClient, HeavyConnections};

use super::units::{bytes, clean};

/// `127.0.0.1 has 100% of connections and sticks to slot 2`.
pub(super) fn dominance(client: &DominantClient) -> String {
    let DominantClient { address, share, slot, .. } = client;
    // Rounded down: all is all.
    let percent = (share * 100.0).floor();
    format!("{} has {percent}% of connections and sticks to slot {slot}", clean(address))
}

/// `a connection takes 132 KiB of slot 2's worker, far more than a WebSocket needs`.
pub(super) fn heaviness(heavy: &HeavyConnections) -> String {
    let HeavyConnections { slot, memory_per_connection, .. } = heavy;
    let each = bytes(*memory_per_connection);
    format!("a connection takes {each} of slot {slot}'s worker, far more than a WebSocket needs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_are_all() {
        let client = |share| DominantClient {
            address: "10.0.0.1".into(),
            share,
            slot: 2,
            ..DominantClient::default()
        };
        let expected = "10.0.0.1 has 100% of connections and sticks to slot 2";
        assert_eq!(dominance(&client(1.0)), expected);
        assert!(dominance(&client(0.9999)).contains(" 99% "));
    }
}
