//! Nanoseconds a connection spends on finding its slot: the key from the address, the slot from the
//! key.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sticky_lb::internals::frontend::affinity::{Affinity, DigestKind, Prefixes};
use sticky_lb::internals::frontend::fallback::FallbackReason;
use sticky_lb::internals::frontend::placement::{Availability, Placement, Ranking, Slots};
use sticky_lb::internals::frontend::router::{Router, RouterSettings};
use sticky_lb::protocol::ids::{AffinityKey, SlotId, Timestamp};

fn keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key");
    let prefixes = Prefixes { v4: 32, v6: 64 };
    let clients: [(&str, IpAddr); 2] = [
        ("v4", Ipv4Addr::new(203, 0, 113, 9).into()),
        ("v6", Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2).into()),
    ];
    for (digest, kind) in [("md5", DigestKind::Md5), ("sha256", DigestKind::Sha256)] {
        let affinity = Affinity::new(kind, b"secret", prefixes);
        for (family, client) in clients {
            group.bench_function(BenchmarkId::new(digest, family), |bencher| {
                bencher.iter(|| affinity.key(black_box(client)));
            });
        }
    }
}

fn rankings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rendezvous");
    for slots in [8, 64, 512] {
        let weights: Vec<f64> = (0..slots).map(|slot| f64::from(slot % 3 + 1)).collect();
        for (name, ranking) in [
            ("equal weights", Ranking::new(&vec![1.0; weights.len()])),
            ("weights", Ranking::new(&weights)),
        ] {
            group.bench_function(BenchmarkId::new(name, slots), |bencher| {
                let mut key = 0_u64;
                bencher.iter(|| {
                    key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    ranking.first(black_box(AffinityKey(key)))
                });
            });
        }
    }
}

/// Slots that all serve, each with another number of connections.
struct AllOpen(u16);

impl Slots for AllOpen {
    fn count(&self) -> u16 {
        self.0
    }

    fn availability(&self, _: SlotId) -> Availability {
        Availability::Open
    }

    fn load(&self, slot: SlotId) -> u64 {
        black_box(u64::from(slot.0) * 31 % 97)
    }

    fn closed_because(&self, _: SlotId) -> FallbackReason {
        FallbackReason::NotServing
    }
}

fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for (name, placement) in [
        ("rendezvous", Placement::Rendezvous),
        ("modulo", Placement::Modulo),
        ("least-connections", Placement::LeastConnections),
        ("random", Placement::Random),
    ] {
        for slots in [8, 64, 512] {
            let mut router = Router::new(&RouterSettings {
                placement,
                weights: vec![1.0; usize::from(slots)],
                load_bound: None,
                memory_capacity: NonZeroUsize::MIN,
                memory_lifetime: Duration::from_secs(1),
            });
            group.bench_function(BenchmarkId::new(name, slots), |bencher| {
                let mut key = 0_u64;
                bencher.iter(|| {
                    key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    router.route(black_box(AffinityKey(key)), &AllOpen(slots), Timestamp(0))
                });
            });
        }
    }
}

criterion_group!(benches, keys, rankings, routes);
criterion_main!(benches);
