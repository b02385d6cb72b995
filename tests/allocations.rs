//! The way of a connection through the primary allocates nothing: not when it is accepted, counted
//! and placed, not when it is handed over, not when it is acknowledged and measured.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::client::{connect_from, nth};
use common::frontend::Frontend;

/// Clients that connect before they are looked at.
const AT_ONCE: usize = 50;

/// Runs a frontend for so many connections, and returns how often its thread has allocated.
async fn allocations_for(connections: u16) -> u64 {
    let mut frontend = Frontend::start(2, |dispatcher| {
        allocation_counter::measure(|| drop(dispatcher.run().unwrap())).count_total
    });
    frontend.serve().await;
    let clients: Vec<_> = (0..connections).map(nth).collect();
    let mut connected = 0;
    for clients in clients.chunks(AT_ONCE) {
        let connect = |client: &_| connect_from(*client, frontend.address).unwrap();
        let held: Vec<_> = clients.iter().map(connect).collect();
        connected += held.len();
        frontend.wait_for_acknowledged(connected).await;
    }
    frontend.end().await
}

#[tokio::test]
async fn a_thousand_connections_allocate_no_more_than_one() {
    let (one, thousand) = (allocations_for(1).await, allocations_for(1_000).await);
    assert!(one > 0, "nothing was counted");
    assert_eq!(thousand, one);
}
