//! The client with the most connections lately, in bounded memory.
//!
//! Some clients have a counter each; one that has none takes over the smallest, or one that is hardly
//! larger, and what that had counted is its error ("space saving", Metwally, Agrawal and El Abbadi
//! 2005). A client with more than one in `COUNTERS` of all connections has one, and its share is
//! wrong by no more than that.
//! All counts are halved every ten seconds. Allocates nothing; pure.

use std::net::IpAddr;

use crate::frontend::query::TopClients;
use crate::handover::carry;
use crate::handover::frontend::{ClientSnapshot, TopClientSnapshot};
use crate::protocol::ids::{AffinityKey, Timestamp};

/// Clients that have a counter.
const COUNTERS: usize = 32;

/// After so many nanoseconds, counts are halved.
const HALF_LIFE: u64 = 10_000_000_000;

/// The weight of a connection: halved again and again, it stays above 0 for a while.
const ONE: u64 = 1 << 16;

/// Counts connections by client.
#[derive(Clone, Debug)]
pub struct TopClientCounter {
    /// The lower halves of the clients' keys, which tell them apart well enough. Looked through for
    /// each connection, and so apart from the rest.
    marks: [u32; COUNTERS],
    counts: [u64; COUNTERS],
    clients: [Client; COUNTERS],
    total: u64,
    half_lives: u64,
    /// No count is below.
    floor: u64,
    /// Where a small count was found last.
    hand: usize,
}

carry!(struct TopClientCounter => TopClientSnapshot { marks, counts, clients, total, half_lives, floor, hand });

#[derive(Clone, Copy, Debug)]
struct Client {
    /// As it connected last.
    address: IpAddr,
    /// So much of its count may be another client's.
    error: u64,
}

carry!(struct Client => ClientSnapshot { address, error });

impl Default for Client {
    fn default() -> Self {
        Self { address: IpAddr::V4([0; 4].into()), error: 0 }
    }
}

impl Default for TopClientCounter {
    fn default() -> Self {
        Self {
            marks: [0; COUNTERS],
            counts: [0; COUNTERS],
            clients: [Client::default(); COUNTERS],
            total: 0,
            half_lives: 0,
            floor: 0,
            hand: 0,
        }
    }
}

impl TopClientCounter {
    /// A connection has come.
    pub fn count(&mut self, key: AffinityKey, address: IpAddr, now: Timestamp) {
        self.age(now);
        self.total += ONE;
        let mark = mark(key);
        if let Some(known) = self.place_of(mark) {
            self.counts[known] += ONE;
            self.clients[known].address = address;
        } else {
            let small = self.small();
            self.marks[small] = mark;
            self.clients[small] = Client { address, error: self.counts[small] };
            self.counts[small] += ONE;
        }
    }

    /// The client with the most connections, and the share that it has at least. None if no client has come
    /// for long.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    pub fn top_client(&self, now: Timestamp) -> Option<TopClients> {
        self.total.checked_shr(self.half_lives_passed(now)).filter(|left| *left > 0)?;
        let certain = self.counts.iter().zip(&self.clients).map(|(count, client)| {
            let count = count.saturating_sub(client.error);
            (count, client.address)
        });
        let (count, address) = certain.max_by_key(|(count, _)| *count)?;
        Some(TopClients { address, share: count as f64 / self.total as f64 })
    }

    fn age(&mut self, now: Timestamp) {
        let passed = self.half_lives_passed(now);
        if passed == 0 {
            return;
        }
        self.half_lives = now.0 / HALF_LIFE;
        let errors = self.clients.iter_mut().map(|client| &mut client.error);
        for number in self.counts.iter_mut().chain(errors).chain([&mut self.total, &mut self.floor])
        {
            *number = number.checked_shr(passed).unwrap_or(0);
        }
    }

    fn half_lives_passed(&self, now: Timestamp) -> u32 {
        let passed = (now.0 / HALF_LIFE).saturating_sub(self.half_lives);
        u32::try_from(passed).unwrap_or(u32::MAX)
    }

    fn place_of(&self, mark: u32) -> Option<usize> {
        // All at once, which is faster than one after the other, and most clients have no counter.
        let known = self.marks.iter().fold(false, |known, other| known | (*other == mark));
        if known { self.marks.iter().position(|other| *other == mark) } else { None }
    }

    /// The place of the smallest count, or of one that is not a whole one more. Where all clients
    /// are new, it is the next place each time.
    fn small(&mut self) -> usize {
        for _ in 0..COUNTERS {
            self.hand = (self.hand + 1) % COUNTERS;
            if self.counts[self.hand] < self.floor + ONE {
                return self.hand;
            }
        }
        let counts = self.counts.iter().enumerate();
        let smallest = counts.min_by_key(|(_, count)| **count);
        (self.hand, self.floor) = smallest.map_or((0, 0), |(place, count)| (place, *count));
        self.hand
    }
}

fn mark(key: AffinityKey) -> u32 {
    let [a, b, c, d, ..] = key.0.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn address(client: u32) -> IpAddr {
        IpAddr::V4(client.into())
    }

    fn key(client: u32) -> AffinityKey {
        AffinityKey(u64::from(client).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn who_came_long_ago_counts_no_more() {
        let mut top_client = TopClientCounter::default();
        assert_eq!(top_client.top_client(at(0)), None);
        for _ in 0..100 {
            top_client.count(key(1), address(1), at(1));
        }
        assert_eq!(
            top_client.top_client(at(2)),
            Some(TopClients { address: address(1), share: 1.0 })
        );
        for _ in 0..100 {
            top_client.count(key(2), address(2), at(42));
        }
        let Some(TopClients { address: first, share }) = top_client.top_client(at(42)) else {
            panic!()
        };
        assert_eq!(first, address(2));
        // 100 halved four times are 6.25.
        assert!((share - 100.0 / 106.25).abs() < 1e-3, "{share}");
        assert_eq!(top_client.top_client(at(10_000)), None);
        assert_eq!(top_client.top_client(Timestamp(u64::MAX)), None);
    }

    #[test]
    fn a_client_is_named_by_its_last_address() {
        let mut top_client = TopClientCounter::default();
        top_client.count(key(1), address(1), at(1));
        top_client.count(key(1), address(7), at(1));
        assert_eq!(
            top_client.top_client(at(1)).map(|top_client| top_client.address),
            Some(address(7))
        );
    }

    #[test]
    fn where_all_are_alike_no_client_is_the_top() {
        let mut top_client = TopClientCounter::default();
        for client in 0..50_000 {
            top_client.count(key(client), address(client), at(1));
        }
        let share = top_client.top_client(at(1)).unwrap().share;
        assert!(share < 0.001, "{share} of 50,000 clients with one connection each");
    }

    /// Connections of clients, of whom one comes with this probability and the others, so many, alike.
    fn stream() -> impl Strategy<Value = Vec<(u32, u64)>> {
        (1..600_u32, 1..3_000_u32).prop_flat_map(|(thousandths, others)| {
            let client = prop_oneof![
                thousandths => Just(0),
                1_000 - thousandths => 1..=others,
            ];
            prop::collection::vec((client, 0..20_u64), 200..2_000)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_heavy_client_is_found_and_its_share_is_about_right(stream in stream()) {
            let (mut top_client, mut now) = (TopClientCounter::default(), Timestamp(0));
            let mut exact: HashMap<u32, f64> = HashMap::new();
            let mut half_lives = 0;
            for (client, pause) in stream {
                now = now + Duration::from_millis(pause);
                for _ in half_lives..now.0 / HALF_LIFE {
                    exact.values_mut().for_each(|count| *count /= 2.0);
                }
                half_lives = now.0 / HALF_LIFE;
                *exact.entry(client).or_default() += 1.0;
                top_client.count(key(client), address(client), now);
            }
            let total: f64 = exact.values().sum();
            let most = exact.values().fold(0.0_f64, |most, count| most.max(*count)) / total;
            let told = top_client.top_client(now).unwrap();
            let IpAddr::V4(named) = told.address else { panic!("no client came by IPv6") };
            let its = exact[&named.to_bits()] / total;
            let error = 1.0 / COUNTERS as f64 + 1e-3;
            prop_assert!(told.share <= its + 1e-3 && told.share >= its - error, "{told:?}, {its}");
            prop_assert!(its >= most - error, "{told:?} has {its}, another one {most}");
            if exact.get(&0).is_some_and(|count| count / total > 0.1)
                && exact.iter().all(|(client, count)| *client == 0 || count / total < 0.05)
            {
                prop_assert_eq!(told.address, address(0));
            }
        }
    }
}
