//! The hand-off without clients: messages to bytes and back, descriptors through a channel, and the counters
//! and measurements of each connection.

use std::collections::VecDeque;
use std::fs::File;
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sticky_lb::internals::frontend::measure::stats::Stats;
use sticky_lb::internals::link::Link;
use sticky_lb::internals::link::connection::PendingConnection;
use sticky_lb::protocol::ids::{AffinityKey, ConnectionId, SlotId, Timestamp};
use sticky_lb::protocol::message::{
    BATCH, ConnectionRecord, MAX_TO_WORKER, ToWorker, decode_to_worker, encode_connections,
};
use sticky_lb::protocol::scm_rights::receive;
use sticky_lb::protocol::scoreboard::{Counter, Scoreboard};

fn record(id: u64) -> ConnectionRecord {
    ConnectionRecord {
        id: ConnectionId(id),
        accepted_at: Timestamp(id),
        key: AffinityKey(id),
        client: ([203, 0, 113, 9], 50_000).into(),
        local: ([192, 0, 2, 1], 3000).into(),
        tag: id,
    }
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    for count in [1, BATCH as u64] {
        let records: Vec<_> = (0..count).map(record).collect();
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("encode", count), |bencher| {
            let mut buffer = [0; MAX_TO_WORKER];
            bencher.iter(|| encode_connections(&mut buffer, black_box(&records).iter()).len());
        });
        let mut buffer = [0; MAX_TO_WORKER];
        let bytes = encode_connections(&mut buffer, records.iter());
        group.bench_function(BenchmarkId::new("decode", count), |bencher| {
            bencher.iter(|| match decode_to_worker(black_box(bytes)) {
                Ok(ToWorker::Connections(records)) => records.iter().map(|r| r.id.0).sum::<u64>(),
                _ => 0,
            });
        });
    }
}

/// A round trip: duplicate, send, receive, complete, close.
fn channel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("channel");
    let file: OwnedFd = File::open("/dev/null").expect("it can be opened").into();
    for count in [1, 8, BATCH] {
        let (mut channel, mut inherit) = Link::native(256).expect("a channel");
        let page = inherit.descriptor("scoreboard").expect("a scoreboard");
        let scoreboard = Scoreboard::open(page).expect("a scoreboard");
        let worker = inherit.take("channel").expect("the worker's end");
        let mut queue = VecDeque::with_capacity(count);
        let mut taken = Vec::with_capacity(count);
        let mut buffer = [0; MAX_TO_WORKER];
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("descriptors", count), |bencher| {
            bencher.iter(|| {
                for id in 0..count as u64 {
                    let socket = file.try_clone().expect("a descriptor");
                    queue.push_back(PendingConnection {
                        record: record(id),
                        socket: socket.into(),
                        crashes: 0,
                        transfer: None,
                    });
                }
                let sent = channel.send_from(&mut queue, Timestamp(0)).expect("an open channel");
                receive(&worker, &mut buffer, &mut taken).expect("an open channel");
                scoreboard.add(Counter::Completed, taken.len() as u64);
                taken.clear();
                assert_eq!(channel.complete(drop).expect("nothing too many"), Some(sent));
            });
        });
    }
}

/// The cost of counting and measuring a connection: with one client, and with so many that none
/// is known to the search for the top client.
fn stats(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stats");
    for (name, clients) in [("one client", 1), ("many clients", u64::MAX)] {
        let (mut stats, mut count) = (Stats::default(), 0_u64);
        stats.grow(8);
        group.bench_function(BenchmarkId::new("accepted", name), |bencher| {
            bencher.iter(|| {
                count += 1;
                let key = AffinityKey(count % clients);
                stats.accepted(key, black_box([203, 0, 113, 9].into()), Timestamp(count * 10_000));
            });
        });
    }
    let (mut stats, mut count) = (Stats::default(), 0_u64);
    stats.grow(8);
    group.bench_function("acknowledged", |bencher| {
        bencher.iter(|| {
            count += 1;
            let (slot, time) = (SlotId((count % 8) as u16), Duration::from_micros(count % 2_000));
            stats.acknowledged(slot, black_box(time), Timestamp(count * 10_000));
        });
    });
    group.bench_function("quantiles", |bencher| {
        bencher.iter(|| stats.recent.quantiles(Timestamp(count * 10_000)));
    });
}

criterion_group!(benches, messages, channel, stats);
criterion_main!(benches);
