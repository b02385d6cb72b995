//! The cost of the stream that lets WebSockets migrate, and of protection: processor time of
//! an echo on tokio-tungstenite, for each message, with the bare socket under the library, with the
//! stream between them, and with a protected one, in turns.
//!
//! ```text
//! cargo bench --bench session_stream
//! ```
//!
//! The worker is this program again, in a process of its own, and the primary is no more than a channel.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::collections::VecDeque;
use std::error::Error;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use futures_util::{SinkExt, StreamExt};
use rustix::time::{ClockId, clock_gettime};
use sticky_lb::internals::link::Link;
use sticky_lb::internals::link::connection::PendingConnection;
use sticky_lb::internals::link::event::{LinkEvent, SessionEvent};
use sticky_lb::internals::link::inherit::Numbered;
use sticky_lb::internals::link::protection::ProtectionEvent;
use sticky_lb::protocol::ids::{AffinityKey, ConnectionId, Timestamp};
use sticky_lb::protocol::message::ConnectionRecord;
use sticky_lb::worker::{Connection, READ_BUFFER_SIZE, Worker};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Rounds of turns, and messages of a turn. Short turns, so that all of a round meet the same machine.
const ROUNDS: usize = 300;
const MESSAGES: u32 = 3_000;
const BYTES: usize = 64;

/// Kinds of connections; a connection's id says which it is.
const KINDS: [&str; 4] = [
    "the bare socket",
    "the session stream",
    "protected, no state",
    "protected, a state of 1,000 bytes",
];

fn main() -> Result<()> {
    if std::env::var_os("STICKY_LB_CHANNEL").is_some() {
        return work();
    }
    let mut bench = Bench::start()?;
    let mut times = KINDS.map(|_| Vec::new());
    for round in 0..ROUNDS {
        // Each of them comes first as often as any other.
        for turn in 0..KINDS.len() {
            let kind = (round + turn) % KINDS.len();
            times[kind].push(bench.turn(kind)?);
        }
    }
    bench.worker.kill()?;
    bench.worker.wait()?;
    println!("microseconds of processor time a message, the quickest tenth, and the median share:");
    for (kind, name) in KINDS.iter().enumerate() {
        let share = |of: usize| {
            let shares = times[kind].iter().zip(&times[of]).map(|(one, other)| one / other);
            quantile(shares.collect(), 0.5)
        };
        let quickest = quantile(times[kind].clone(), 0.1);
        println!(
            "{quickest:6.2}  x {:.3} of bare, x {:.3} of the stream's  {name}",
            share(0),
            share(1)
        );
    }
    Ok(())
}

/// The primary and the client.
struct Bench {
    listener: TcpListener,
    channel: Link,
    worker: Child,
    /// Copies, as the primary has them.
    kept: Vec<OwnedFd>,
    turns: usize,
}

impl Bench {
    fn start() -> Result<Self> {
        let (channel, inherit) = Link::native(8)?;
        let Numbered { descriptors, variables, .. } = inherit.number();
        let mappings = descriptors.into_iter();
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        let mut command = Command::new(std::env::current_exe()?);
        let zero = ["SLOT", "GENERATION", "ORPHAN_TIMEOUT", "KILL_TIMEOUT"];
        command
            .envs(zero.map(|name| (format!("STICKY_LB_{name}"), "0")))
            .envs(variables)
            .env("STICKY_LB_PROTECT", "1")
            .fd_mappings(mappings.collect())?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        Ok(Self { listener, channel, worker: command.spawn()?, kept: Vec::new(), turns: 0 })
    }

    /// Microseconds of processor time that the worker takes for a message.
    fn turn(&mut self, kind: usize) -> Result<f64> {
        let stream = TcpStream::connect(self.listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        self.hand_over(kind)?;
        let (mut socket, _) = tungstenite::client("ws://bench/", stream)?;
        for _ in 0..MESSAGES {
            socket.send(Message::binary(vec![7; BYTES]))?;
            socket.read()?;
        }
        socket.send(Message::text("how long?"))?;
        let took = socket.read()?.into_text()?.parse::<f64>()?;
        socket.close(None)?;
        while socket.read().is_ok() {}
        if kind >= 2 && !self.hear()? {
            return Err("the protected session was not kept".into());
        }
        Ok(took / f64::from(MESSAGES))
    }

    fn hand_over(&mut self, kind: usize) -> Result<()> {
        let (accepted, client) = self.listener.accept()?;
        accepted.set_nodelay(true)?;
        accepted.set_nonblocking(true)?;
        let id = ConnectionId((self.turns * KINDS.len() + kind) as u64);
        self.turns += 1;
        let (now, key) = (Timestamp::now(), AffinityKey(0));
        let record = ConnectionRecord { id, accepted_at: now, key, client, local: client, tag: 0 };
        let socket = OwnedFd::from(accepted);
        let mut queue = VecDeque::from([PendingConnection {
            record,
            socket: socket.into(),
            crashes: 0,
            transfer: None,
        }]);
        self.channel.send_from(&mut queue, now)?;
        while !self.channel.in_flight().is_empty() {
            self.channel.complete(drop)?;
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Whether a session was kept.
    fn hear(&mut self) -> Result<bool> {
        let mut kept = false;
        loop {
            match self.channel.receive()? {
                LinkEvent::Nothing => return Ok(kept),
                LinkEvent::Session(SessionEvent::Protection(ProtectionEvent::Protect {
                    sessions,
                    ..
                })) => {
                    self.kept.extend(sessions.into_iter().map(|session| session.socket.into()));
                    kept = true;
                }
                LinkEvent::Session(SessionEvent::Protection(_)) => self.kept.clear(),
                _ => {}
            }
        }
    }
}

/// The worker.
fn work() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut worker = Worker::attach()?;
        worker.enable_migration()?;
        worker.ready()?;
        while let Some(connection) = worker.accept().await? {
            tokio::spawn(serve(connection));
        }
        Ok(())
    })
}

async fn serve(connection: Connection) -> Result<()> {
    let kind = connection.info().id.0 % KINDS.len() as u64;
    if kind == 0 {
        let (stream, _guard) = connection.into_parts()?;
        return echo(stream).await;
    }
    let (stream, session) = connection.into_session();
    match kind {
        1 => {}
        2 => drop(session.protect(Vec::new)),
        _ => drop(session.protect(|| vec![7; 1_000])),
    }
    echo(stream).await
}

async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_SIZE);
    let mut socket = accept_async_with_config(stream, Some(config)).await?;
    let start = used();
    while let Some(message) = socket.next().await.transpose()? {
        if message.is_binary() {
            socket.send(message).await?;
        } else if message.is_text() {
            let took = (used() - start).as_secs_f64() * 1e6;
            socket.send(Message::text(took.to_string())).await?;
        }
    }
    Ok(())
}

/// Processor time of this thread.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn quantile(mut figures: Vec<f64>, share: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place among hundreds"
    )]
    figures[(figures.len() as f64 * share) as usize]
}
