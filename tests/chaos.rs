//! Everything at once: rolling restarts, scaling, upgrades, kills of workers and of the primary, stalls,
//! workers that are stopped for good and reopened files, in random order under a constant load, beside
//! clients that don't read and whose sockets linger; and nobody reads the log. Only what a killed worker had
//! acknowledged and what a killed primary had not handed over may be cut, which is counted; and afterwards
//! everything is as it was.

mod common;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use common::client::connect_from;
use common::load::Load;
use common::process::{Signal, children, descriptors, signal, state};
use common::{Primary, eventually, example};
use rustix::pipe::fcntl_getpipe_size;
use serde_json::json;

/// Clients at a time that don't read, and whose sockets linger.
const SLOW: u8 = 6;

/// They come and go until it is over.
fn be_slow(to: SocketAddr, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let connect = |number| connect_from(IpAddr::V4(Ipv4Addr::new(127, 9, 0, number)), to);
        let clients: Vec<_> = (1..=SLOW).map(connect).collect();
        std::thread::park_timeout(Duration::from_millis(200));
        drop(clients);
    }
}

/// How long: `scripts/prove-chaos` asks for more.
fn duration() -> Duration {
    let seconds = std::env::var("STICKY_LB_CHAOS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(12))
}

/// The same row for the same seed (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % count.max(1)
    }
}

#[test]
fn whatever_happens_nobody_is_lost_and_all_returns_to_its_base() {
    let (_reader, mut log) = std::io::pipe().unwrap();
    log.write_all(&vec![b'\n'; fcntl_getpipe_size(&log).unwrap()]).unwrap();
    let primary = Primary::with_workers(3)
        .worker(&[&example("test_worker"), "answers-or-lingers"])
        .error_output(log)
        .arguments(&["--watchdog-timeout", "1s"])
        .arguments(&["--min-uptime", "50ms", "--max-restarts", "1000000"])
        .arguments(&["--exp-backoff-restart-delay", "10ms", "--exp-backoff-max-delay", "50ms"])
        .arguments(&["--keeper-min-uptime", "0"])
        .start();
    let base = descriptors(primary.primary_pid()).len();
    let load = Load::start(primary.address());
    let (is_over, address) = (Arc::new(AtomicBool::new(false)), primary.address());
    let flag = Arc::clone(&is_over);
    let slow = std::thread::spawn(move || be_slow(address, &flag));
    let (mut random, mut kills, mut crashes) = (Random(0x2545_f491_4f6c_dd1d), 0, 0);
    let start = SystemTime::now();
    while start.elapsed().unwrap() < duration() {
        let workers = primary.workers();
        let victim = workers.get(random.below(workers.len())).map(|(pid, ..)| *pid);
        match (random.below(11), victim) {
            (0 | 1, _) => primary.signal(Signal::HUP),
            (2, _) => primary.signal(Signal::TTIN),
            (3, _) => primary.signal(Signal::TTOU),
            (4, _) => primary.signal(Signal::USR1),
            (5 | 6, _) => primary.signal(Signal::USR2),
            (7, _) => {
                primary.crash();
                crashes += 1;
            }
            (8, Some(pid)) => {
                signal(pid, Signal::KILL);
                kills += 1;
            }
            (9, Some(pid)) => {
                // For good: the watchdog kills it.
                signal(pid, Signal::STOP);
                kills += 1;
            }
            (_, Some(pid)) => {
                signal(pid, Signal::STOP);
                // Longer than ack_timeout.
                std::thread::park_timeout(Duration::from_millis(400));
                signal(pid, Signal::CONT);
            }
            _ => {}
        }
        std::thread::park_timeout(Duration::from_millis(random.below(300) as u64));
    }
    is_over.store(true, Ordering::Relaxed);
    slow.join().unwrap();
    let (answered, failed) = load.stop_and_count();
    println!(
        "{answered} answered, {} cut by {kills} kills and {crashes} crashes of the primary",
        failed.len()
    );
    assert!(failed.len() <= (kills + crashes) * Load::CLIENTS, "{failed:?}");
    assert!(!failed.iter().any(|text| text.contains("os error 11")), "somebody hangs: {failed:?}");
    primary.ask("scale", json!({"to": 3}));
    primary.signal(Signal::HUP);
    eventually("three workers and their descriptors", || {
        primary.workers().len() == 3 && descriptors(primary.primary_pid()).len() == base
    });
    for parent in [primary.pid(), primary.primary_pid()] {
        assert!(children(parent).iter().all(|pid| state(*pid) != Some('Z')), "a zombie");
    }
    let stopped = primary.stop();
    let count = |what: &str| stopped[what].as_u64().expect("a number");
    assert_eq!(count("accepted"), count("acknowledged") + count("lost"));
    assert!(count("lost") <= (crashes * (Load::CLIENTS + usize::from(SLOW))) as u64, "{stopped}");
}
