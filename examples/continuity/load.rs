//! All clients together.

use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;

use clap::Args;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};

use crate::arrivals::arrive;
use crate::client::{Shared, live};
use crate::verdict::{Excuses, Expect, complaints};
use crate::view::View;

/// How many clients there are, and what they do.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadOptions {
    /// WebSockets that are open at a time.
    #[arg(long, default_value_t = 5_000, value_name = "N")]
    pub(crate) connections: u32,
    /// The number of the first of them, which decides on its address: where another process has those
    /// before it.
    #[arg(long, default_value_t = 0, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub(crate) first: u32,
    /// Messages that each sends in a second.
    #[arg(long, default_value = "1", value_name = "N", value_parser = rate)]
    pub(crate) rate: f64,
    /// So many of them, the first ones, send five messages in a second instead.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) frequent: u32,
    /// Milliseconds between two messages that each gets without asking; 0 for none.
    #[arg(long, default_value_t = 1_000, value_name = "MS")]
    pub(crate) push: u64,
    /// Client addresses, 127.78.0.1 and up, that take turns.
    #[arg(long, default_value_t = 500, value_name = "K",
          value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) sources: u32,
    /// Bytes that each message has beside its number. No more than fit in the buffers of a
    /// connection, as both ends send without waiting for each other.
    #[arg(long, default_value_t = 0, value_name = "BYTES",
          value_parser = clap::value_parser!(u32).range(0..=16_384))]
    pub(crate) size: u32,
    /// WebSockets that are opened in a second, at first.
    #[arg(long, default_value_t = 1_000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) opening: u32,
    /// Other clients in a second that come once, ask for a page and go; 0 for none.
    #[arg(long, default_value_t = 50, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) arrivals: u32,
    /// No live counters.
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// Between two messages of a client that sends frequently.
const FREQUENT: Duration = Duration::from_millis(200);

impl LoadOptions {
    /// The time between two messages of a client.
    pub(crate) fn period(&self, number: u32) -> Duration {
        if number.saturating_sub(self.first) < self.frequent {
            return FREQUENT;
        }
        Duration::from_secs_f64(1.0 / self.rate)
    }

    /// Clients that say hardly anything.
    pub(crate) fn silent() -> Self {
        Self {
            connections: 0,
            first: 0,
            rate: 0.01,
            frequent: 0,
            push: 0,
            sources: 60_000,
            size: 0,
            opening: 1_000,
            arrivals: 0,
            quiet: true,
        }
    }

    /// The flags that make another process do the same.
    pub(crate) fn flags(&self) -> [(&'static str, String); 9] {
        [
            ("--connections", self.connections.to_string()),
            ("--first", self.first.to_string()),
            ("--rate", self.rate.to_string()),
            ("--frequent", self.frequent.to_string()),
            ("--push", self.push.to_string()),
            ("--sources", self.sources.to_string()),
            ("--size", self.size.to_string()),
            ("--opening", self.opening.to_string()),
            ("--arrivals", self.arrivals.to_string()),
        ]
    }

    pub(crate) fn padding(&self) -> String {
        "x".repeat(self.size as usize)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.01..=10_000.0).contains(&rate) => Ok(rate),
        _ => Err("must be between 0.01 and 10000".to_owned()),
    }
}

/// The role `client`.
#[derive(Debug, Args)]
pub(crate) struct ClientOptions {
    /// Where the primary listens.
    #[arg(long, value_name = "ADDRESS")]
    address: SocketAddr,
    /// How long, after all are open; without it until Ctrl-C.
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// What clients should see.
    #[arg(long, value_enum, default_value = "continuity")]
    expect: Expect,
    /// Reconnects that there may be within a second.
    #[arg(long, value_name = "N")]
    most_reconnects: Option<usize>,
    /// Takes orders from standard input, a line each, until the last one or its end: hold, resume, report,
    /// finish. When all are open, and after each order, a line of JSON says what clients have seen so far.
    #[arg(long, conflicts_with = "seconds")]
    orders: bool,
    #[command(flatten)]
    load: LoadOptions,
}

/// Clients at work. Dropping it cuts them off.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) shared: Rc<Shared>,
    clients: JoinSet<()>,
}

impl Load {
    /// Opens one after the other.
    pub(crate) fn start(address: SocketAddr, options: LoadOptions) -> Self {
        let each = Duration::from_secs(1) / options.opening;
        let (connections, first) = (options.connections, options.first);
        let shared = Rc::new(Shared::new(address, options));
        let mut clients = JoinSet::new();
        for nth in 0..connections {
            let shared = Rc::clone(&shared);
            clients.spawn_local(async move {
                sleep(each * nth).await;
                live(first + nth, shared).await;
            });
        }
        clients.spawn_local(arrive(Rc::clone(&shared)));
        Self { shared, clients }
    }

    /// Waits until each has been open at once.
    pub(crate) async fn opened(&self) {
        while self.shared.stats.borrow().open < u64::from(self.shared.options.connections) {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until everything is answered, or too late, and closes all.
    pub(crate) async fn finish(&mut self) {
        self.shared.finishing.cancel();
        while self.clients.join_next().await.is_some() {}
    }
}

/// What another process orders the clients to do.
async fn follow_orders(load: &mut Load) -> Result<(), Box<dyn Error>> {
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    load.opened().await;
    report(load)?;
    while let Some(order) = orders.next_line().await? {
        match order.as_str() {
            "hold" => load.shared.held.set(true),
            "resume" => load.shared.held.set(false),
            "report" => {}
            "finish" => break,
            other => return Err(format!("no such order: {other}").into()),
        }
        report(load)?;
    }
    load.finish().await;
    report(load)
}

fn report(load: &Load) -> Result<(), Box<dyn Error>> {
    println!("{}", serde_json::to_string(&*load.shared.stats.borrow())?);
    Ok(())
}

pub(crate) async fn run(options: ClientOptions) -> Result<bool, Box<dyn Error>> {
    let mut load = Load::start(options.address, options.load);
    if options.orders {
        follow_orders(&mut load).await?;
        return Ok(true);
    }
    let view = View::follow(&load.shared);
    let over = async {
        load.opened().await;
        match options.seconds {
            Some(seconds) => sleep(Duration::from_secs_f64(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    load.finish().await;
    view.end();
    let stats = load.shared.stats.borrow();
    let complaints =
        complaints(&stats, options.expect, options.most_reconnects, Excuses::default());
    let mut report = stats.report();
    report["complaints"] = complaints.as_slice().into();
    println!("{report}");
    Ok(complaints.is_empty())
}
