//! What the gate costs that lets WebSockets move: processor time of an echo on tokio-tungstenite, for
//! each message, with the gate between socket and library and without it, in turns.
//!
//! ```text
//! cargo bench --bench gate
//! ```

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustix::time::{ClockId, clock_gettime};
use sticky_lb::worker::session::Gate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::{self, Message};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Pairs of turns, and messages of a turn. Short turns, so that both of a pair meet the same machine.
const PAIRS: usize = 300;
const MESSAGES: u32 = 3_000;
const BYTES: usize = 64;

fn main() -> Result<()> {
    let (mut with, mut without, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let gate_first = pair % 2 == 0;
        let (first, second) = (turn(gate_first)?, turn(!gate_first)?);
        let (gate, plain) = if gate_first { (first, second) } else { (second, first) };
        with.push(gate);
        without.push(plain);
        shares.push(gate / plain);
    }
    let (gate, plain) = (quantile(&mut with, 0.1), quantile(&mut without, 0.1));
    println!("microseconds a message, the quickest tenth: {plain:.2} without, {gate:.2} with");
    println!("with the gate: x {:.3} there, x {:.3} in the median pair", gate / plain, {
        quantile(&mut shares, 0.5)
    });
    Ok(())
}

/// Microseconds of processor time that the server takes for a message.
fn turn(gate: bool) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = std::thread::spawn(move || serve(&listener, gate));
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = tungstenite::client("ws://bench/", stream)?;
    for _ in 0..MESSAGES {
        socket.send(Message::binary(vec![7; BYTES]))?;
        socket.read()?;
    }
    socket.close(None)?;
    while socket.read().is_ok() {}
    server.join().map_err(|_| "the server panicked")?
}

fn serve(listener: &TcpListener, gate: bool) -> Result<f64> {
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        if gate { echo(Gate::detached(stream)).await } else { echo(stream).await }
    })
}

async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<f64> {
    let mut socket = accept_async(stream).await?;
    let start = used();
    while let Some(message) = socket.next().await.transpose()? {
        if message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok((used() - start).as_secs_f64() * 1e6 / f64::from(MESSAGES))
}

/// Processor time of this thread.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn quantile(figures: &mut [f64], share: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place among hundreds"
    )]
    figures[(figures.len() as f64 * share) as usize]
}
