//! The connection load: short connections as fast as they are served, from
//! thousands of client addresses.

use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Result, client, interrupt};

/// Connections underway at once: enough to keep all cores busy. Each is a
/// blocking thread: that costs fewer system calls than an event loop would.
const CLIENTS: usize = 16;

/// What one turn of the load came to.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) served: u64,
    pub(crate) failed: u64,
    pub(crate) first_failure: Option<String>,
    pub(crate) took: Duration,
}

impl Turn {
    fn add(&mut self, other: Self) {
        self.served += other.served;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

pub(crate) fn run(port: u16, length: Duration) -> Result<Turn> {
    let start = Instant::now();
    let deadline = start + length;
    let clients = (0..CLIENTS)
        .map(|_| thread::spawn(move || connect_until(port, deadline)))
        .collect::<Vec<_>>();
    let mut turn = Turn::default();
    for client in clients {
        turn.add(client.join().map_err(|_| "a load thread panicked")?);
    }
    turn.took = start.elapsed();
    Ok(turn)
}

fn connect_until(port: u16, deadline: Instant) -> Turn {
    let mut turn = Turn::default();
    while Instant::now() < deadline && !interrupt::requested() {
        match client::get(port) {
            Ok(()) => turn.served += 1,
            Err(error) => {
                turn.failed += 1;
                turn.first_failure.get_or_insert_with(|| error.to_string());
            }
        }
    }
    turn
}
