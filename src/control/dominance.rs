//! One client address that has nearly all connections: what a load test from one machine looks like, or a
//! proxy in front. All of them are one slot's, and the other workers idle.
//!
//! Nobody counts connections by client: the kernel's list of sockets is looked at, when somebody asks,
//! every two seconds and a twentieth of the time at most.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::protocol::ids::Timestamp;
use crate::system::tcp_clients::clients;

/// With fewer connections, that most are one client's says nothing.
pub(super) const MIN_CONNECTIONS: u64 = 16;
/// The smallest share of nearly all.
const NEARLY_ALL: f64 = 0.9;
/// Connections that are looked at: enough for a share.
const MAX_SAMPLE: usize = 4_096;
/// The shortest time between two looks.
const MIN_INTERVAL: Duration = Duration::from_secs(2);

/// An address that has nearly all connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dominant {
    /// Which.
    pub(super) address: IpAddr,
    /// Its share of connections, 0 to 1.
    pub(super) share: f64,
}

/// The last look.
#[derive(Debug, Default)]
pub(super) struct Dominance {
    last: Option<Dominant>,
    next: Option<Timestamp>,
}

impl Dominance {
    /// The address that has nearly all connections to `local`, if there is one. Blocks while the kernel
    /// looks through its sockets.
    pub(super) fn look(&mut self, local: SocketAddr) -> Option<Dominant> {
        let now = Timestamp::now();
        if self.next.is_none_or(|next| now >= next) {
            self.last = match clients(local, MAX_SAMPLE) {
                Ok(clients) => dominant(&clients),
                Err(error) => {
                    tracing::debug!(%error, "clients of connections cannot be listed");
                    None
                }
            };
            let took = Timestamp::now().since(now);
            self.next = Some(now + MIN_INTERVAL.max(took * 20));
        }
        self.last
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
fn dominant(clients: &[IpAddr]) -> Option<Dominant> {
    let mut counts = HashMap::<IpAddr, u64>::new();
    for client in clients {
        *counts.entry(*client).or_default() += 1;
    }
    let (address, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    let share = count as f64 / clients.len() as f64;
    let is_dominant = clients.len() as u64 >= MIN_CONNECTIONS && share >= NEARLY_ALL;
    is_dominant.then_some(Dominant { address, share })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_all_of_many_connections_are_dominant() {
        let one = IpAddr::from([10, 0, 0, 1]);
        let of = |own: usize, others: u8| {
            let others = (0..others).map(|n| IpAddr::from([10, 0, 1, n]));
            dominant(&vec![one; own].into_iter().chain(others).collect::<Vec<_>>())
        };
        assert_eq!(of(16, 0), Some(Dominant { address: one, share: 1.0 }));
        assert_eq!(of(90, 10), Some(Dominant { address: one, share: 0.9 }));
        for (own, others) in [(0, 0), (15, 0), (0, 100), (89, 11)] {
            assert_eq!(of(own, others), None, "{own} and {others}");
        }
    }
}
