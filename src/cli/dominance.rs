//! The sentence about an address that has nearly all connections.

use crate::control::report::DominantClient;

use super::units::clean;

/// `127.0.0.1 has 100% of connections and sticks to slot 2`.
pub(super) fn sentence(client: &DominantClient) -> String {
    let DominantClient { address, share, slot, .. } = client;
    // Rounded down: all is all.
    let percent = (share * 100.0).floor();
    format!("{} has {percent}% of connections and sticks to slot {slot}", clean(address))
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
        assert_eq!(sentence(&client(1.0)), expected);
        assert!(sentence(&client(0.9999)).contains(" 99% "));
    }
}
