//! Stands in for a primary's admin listener: serves the dashboard and the figures that a test gives
//! it, however many workers they are of.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use sticky_lb::internals::control::report::{Event, Live, Status, Worker};

const PAGE: &str = include_str!("../../src/control/admin/page.html");

/// A running one. It ends with the test.
#[derive(Debug)]
pub struct FakeAdmin {
    address: SocketAddr,
    script: Arc<Script>,
}

#[derive(Debug, Default)]
struct Script {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Each viewer is sent all of them.
    messages: Vec<Arc<str>>,
    /// Connections are closed.
    away: bool,
}

impl FakeAdmin {
    /// Starts it without figures.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let script = Arc::<Script>::default();
        let served = Arc::clone(&script);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let script = Arc::clone(&served);
                // That a client has gone is no error.
                thread::spawn(move || drop(serve(client, &script)));
            }
        });
        Self { address, script }
    }

    /// Where its page is.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// What viewers are told next.
    pub fn tell(&self, live: &Live) {
        let data = serde_json::to_string(live).expect("figures can be written");
        self.script.lock().messages.push(format!("event: live\ndata: {data}\n\n").into());
        self.script.changed.notify_all();
    }

    /// Viewers that come are not told what others were.
    pub fn forget(&self) {
        self.script.lock().messages.clear();
    }

    /// Closes all connections, and those that come; or no longer.
    pub fn go_away(&self, away: bool) {
        self.script.lock().away = away;
        self.script.changed.notify_all();
    }
}

impl Script {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }
}

fn serve(mut client: TcpStream, script: &Script) -> std::io::Result<()> {
    let mut lines = BufReader::new(client.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    if script.lock().away {
        return Ok(());
    }
    let (kind, body) = match request.split(' ').nth(1) {
        Some("/") => ("text/html; charset=utf-8", PAGE),
        Some("/api/live") => ("text/event-stream", ""),
        _ => ("application/json", r#"{"error":{"code":"refused","message":"not <b>here</b>"}}"#),
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n");
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())?;
    if body.is_empty() { stream(client, script) } else { Ok(()) }
}

fn stream(mut client: TcpStream, script: &Script) -> std::io::Result<()> {
    for next in 0.. {
        let mut state = script.lock();
        while state.messages.len() <= next && !state.away {
            state = script.changed.wait(state).expect("nobody panics with it");
        }
        if state.away {
            break;
        }
        let message = Arc::clone(&state.messages[next]);
        drop(state);
        client.write_all(message.as_bytes())?;
    }
    Ok(())
}

/// Figures of so many workers in their second `n`, and an event.
pub fn live(workers: u16, n: u32) -> Live {
    let workers: Vec<_> = (0..workers).map(|slot| worker(slot, n)).collect();
    let total: u64 = workers.iter().map(|worker| worker.connections).sum();
    let time_ms = 1_900_000_000_000 + 1_000 * i64::from(n);
    Live {
        time_ms,
        status: status(&workers, total, n),
        workers,
        events: vec![Event {
            number: n.into(),
            time_ms,
            kind: ["worker-ready", "worker-draining", "worker-exited"][n as usize % 3].to_owned(),
            slot: Some(7),
            generation: Some(n),
            pid: Some(4_711),
            text: format!("happened in second {n}"),
            ended: None,
            rollout: None,
        }],
    }
}

fn status(workers: &[Worker], connections: u64, n: u32) -> Status {
    let count = u16::try_from(workers.len()).expect("not so many");
    let wave = wave(n, 0);
    Status {
        name: "shop".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: 42,
        uptime_s: f64::from(n),
        listening: vec!["0.0.0.0:3000".to_owned()],
        placement: "rendezvous".to_owned(),
        serving: count - 1,
        workers: count,
        accepting: true,
        connections,
        requests: u64::from(n % 40),
        accepts_per_second: 20.0 * wave,
        handoff_p50_ms: Some(0.08 + wave / 500.0),
        handoff_p99_ms: Some(0.3 + wave / 20.0),
        accepted: u64::from(n) * 200,
        fallbacks: u64::from(n / 20),
        ..Status::default()
    }
}

fn worker(slot: u16, n: u32) -> Worker {
    if slot == 7 {
        return Worker { slot, state: "back-off".to_owned(), crashes: 3, ..Worker::default() };
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small, positive")]
    let connections = (60.0 + wave(n, slot) * 4.0) as u64;
    Worker {
        slot,
        generation: Some(1),
        pid: Some(10_000 + i32::from(slot)),
        state: "serving".to_owned(),
        uptime_s: Some(f64::from(n)),
        connections,
        requests: connections / 30,
        handoffs_per_second: wave(n, slot),
        handoff_p99_ms: Some(0.2 + wave(n, slot) / 30.0),
        memory: Some((30 + u64::from(slot) % 20) << 20),
        cpu: Some(wave(n, slot) * 2.0),
        share: 0.001,
        ..Worker::default()
    }
}

/// From 0 to 20, another for each slot.
fn wave(n: u32, slot: u16) -> f64 {
    10.0 + 6.0 * (f64::from(n) / 9.0 + f64::from(slot)).sin() + 4.0 * (f64::from(n) * 0.7).cos()
}
