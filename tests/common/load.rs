//! A constant load of new connections, and of some that are kept alive for as long as their answers
//! allow it. Each request has to be answered.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::{connect_from, get_from, nth, read_kept_alive};

const THREADS: u16 = 3;

/// Then nothing is to be expected any more.
const MOST_FAILED: usize = 1_000;

/// Clients that connect, ask and go, again and again, until told to stop.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

#[derive(Debug, Default)]
struct Shared {
    done: AtomicBool,
    answered: AtomicU64,
}

impl Load {
    /// Connections that are open at a time, at the most.
    pub const CLIENTS: usize = THREADS as usize + 1;

    /// Some hundred connections a second from a few hundred addresses.
    pub fn start(address: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = |number| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || ask_again_and_again(number, address, &shared))
        };
        let mut threads: Vec<_> = (0..THREADS).map(thread).collect();
        let kept_alive = Arc::clone(&shared);
        threads.push(std::thread::spawn(move || ask_kept_alive(address, &kept_alive)));
        let load = Self { threads, shared };
        load.wait_for_more(20);
        load
    }

    /// Waits until so many more are answered.
    pub fn wait_for_more(&self, answers: u64) {
        let wanted = self.shared.answered.load(Ordering::Relaxed) + answers;
        super::eventually("answers go on", || {
            self.shared.answered.load(Ordering::Relaxed) >= wanted
                || self.threads.iter().any(JoinHandle::is_finished)
        });
    }

    /// Stops, and returns how many were answered. Fails the test if one was not.
    pub fn stop(self) -> u64 {
        let (answered, failed) = self.stop_and_count();
        assert!(failed.is_empty(), "{} requests failed: {failed:?}", failed.len());
        answered
    }

    /// Stops, and returns how many were answered, and what became of the others.
    pub fn stop_and_count(self) -> (u64, Vec<String>) {
        self.shared.done.store(true, Ordering::Relaxed);
        let threads = self.threads.into_iter();
        let failed = threads.flat_map(|thread| thread.join().expect("no panic")).collect();
        (self.shared.answered.load(Ordering::Relaxed), failed)
    }
}

/// On one connection, until an answer says that it is the last.
fn ask_kept_alive(address: SocketAddr, shared: &Shared) -> Vec<String> {
    let mut failed = Vec::new();
    let mut stream = None;
    while !shared.done.load(Ordering::Relaxed) && failed.len() < MOST_FAILED {
        match ask_on(&mut stream, address) {
            Ok(()) => {
                shared.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                failed.push(format!("kept alive: {error}"));
                stream = None;
            }
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    failed
}

fn ask_on(stream: &mut Option<TcpStream>, address: SocketAddr) -> io::Result<()> {
    let open = match stream {
        Some(open) => open,
        None => stream.insert(connect_from(nth(700), address)?),
    };
    open.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    if read_kept_alive(open)?.header("connection") == Some("close") {
        *stream = None;
    }
    Ok(())
}

fn ask_again_and_again(thread: u16, address: SocketAddr, shared: &Shared) -> Vec<String> {
    let mut failed = Vec::new();
    for n in (thread..600).step_by(usize::from(THREADS)).cycle() {
        if shared.done.load(Ordering::Relaxed) || failed.len() > MOST_FAILED {
            break;
        }
        match get_from(nth(n), address, "/") {
            Ok(answer) if answer.head.starts_with("HTTP/1.1 200") => {
                shared.answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => failed.push(answer.head),
            Err(error) => failed.push(format!("client {n}: {error}")),
        }
        std::thread::park_timeout(Duration::from_millis(3));
    }
    failed
}
