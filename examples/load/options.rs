//! What load is made.

use std::net::{Ipv4Addr, SocketAddr};

use clap::{Parser, ValueEnum};
use tokio::time::Duration;

/// Makes a load of WebSockets from many local addresses. Exit code 1 if anything was lost.
#[derive(Clone, Debug, Parser)]
#[command(name = "load")]
pub(crate) struct Options {
    /// Where the app is.
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    pub(crate) address: SocketAddr,
    /// What the app does: `echo` sends back what it gets, `chat` is that of the demo.
    #[arg(long, value_enum, default_value = "echo")]
    pub(crate) app: App,
    /// The path of the WebSocket (`/echo`, or `/ws` of a chat).
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// WebSockets that are open at a time.
    #[arg(long, default_value_t = 200, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,
    /// Client addresses, 127.79.0.1 and up, that take turns; 0 leaves the choice to the kernel.
    #[arg(long, default_value_t = 100, value_name = "K",
          value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub(crate) sources: u32,
    /// Messages that all of them send in a second.
    #[arg(long, default_value_t = 1_000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: u32,
    /// How long, after all are open.
    #[arg(long, default_value_t = 10.0, value_name = "S", value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Bytes of a message.
    #[arg(long, default_value_t = 32, value_name = "BYTES",
          value_parser = clap::value_parser!(u32).range(1..=4_000))]
    size: u32,
    /// WebSockets that are opened in a second, at first.
    #[arg(long, default_value_t = 1_000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    opening: u32,
    /// The longest time of 99 % of messages that is well, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) p99: Option<f64>,
    /// The result as a line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress.
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// What an app does with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum App {
    Echo,
    Chat,
}

impl Options {
    /// What flags alone don't rule out.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.sources == 0 || self.address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let address = self.address;
        Err(format!(
            "{address} cannot be reached from addresses of 127.0.0.0/8: give one of those (the app has to \
             listen there), or --sources 0 to come from one address"
        ))
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// How long it takes to open all connections.
    pub(crate) fn opening(&self) -> Duration {
        self.opens_after(self.connections)
    }

    /// When a client connects.
    pub(crate) fn opens_after(&self, number: u32) -> Duration {
        Duration::from_secs_f64(f64::from(number) / f64::from(self.opening))
    }

    /// The time between two messages of a client.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.connections) / f64::from(self.rate))
    }

    /// The time of a client's first message: all of them are spread evenly over the period.
    pub(crate) fn offset(&self, number: u32) -> Duration {
        self.period().mul_f64(f64::from(number) / f64::from(self.connections))
    }

    /// A client's address, if it is not the kernel's choice.
    pub(crate) fn source(&self, number: u32) -> Option<Ipv4Addr> {
        let first = Ipv4Addr::new(127, 79, 0, 1).to_bits();
        Some(Ipv4Addr::from_bits(first + number.checked_rem(self.sources)?))
    }

    pub(crate) fn url(&self, number: u32) -> String {
        let address = self.address;
        match self.app {
            App::Echo => format!("ws://{address}{}", self.path.as_deref().unwrap_or("/echo")),
            // A room is one worker's: each client has one of its own.
            App::Chat => {
                let path = self.path.as_deref().unwrap_or("/ws");
                format!("ws://{address}{path}?room=load-{number}&name=load-{number}")
            }
        }
    }

    /// The text of a message, which begins with its number.
    pub(crate) fn text(&self, number: u64) -> String {
        let mut text = format!("{number}:");
        while text.len() < self.size as usize {
            text.push('x');
        }
        text
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be between 0.1 and 86400".to_owned()),
    }
}
