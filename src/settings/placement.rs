//! What names a client, and how it finds its slot.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::AffinitySettings;
use crate::frontend::affinity::{DigestKind, Prefixes};
use crate::frontend::placement::Placement;
use crate::frontend::router::RouterSettings;
use crate::settings::problems::Problems;
use crate::settings::units::{above_zero, duration, within};

/// How clients find their slots.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Placement")]
pub struct PlacementArgs {
    /// How a connection finds its slot.
    #[arg(long, value_enum, default_value = "rendezvous")]
    pub placement: PlacementArg,
    /// A weight for each slot: one of weight 2 gets twice the clients of one of weight 1
    /// [default: all alike].
    #[arg(long, value_name = "W,W,...", value_delimiter = ',', value_parser = above_zero)]
    pub weights: Vec<f64>,
    /// A slot with more than this many times the mean of connections takes no new clients
    /// [default: no bound].
    #[arg(long, value_name = "FACTOR", value_parser = load_bound)]
    pub load_bound: Option<f64>,
    /// Digest of the client's address.
    #[arg(long, value_enum, default_value = "md5")]
    pub digest: DigestArg,
    /// File with a secret that is digested too, so that nobody outside can aim at one worker
    /// [default: none].
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Leading bits of an IPv4 address that name a client.
    #[arg(long, value_name = "BITS", default_value = "32", value_parser = within(0..=32_u8))]
    pub ipv4_prefix: u8,
    /// Leading bits of an IPv6 address that name a client [default: 64, with modulo 128].
    #[arg(long, value_name = "BITS", value_parser = within(0..=128_u8))]
    pub ipv6_prefix: Option<u8>,
    /// How long a client that went elsewhere is remembered, from its last connection on.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub fallback_ttl: Duration,
    /// How many such clients are remembered.
    #[arg(long, value_name = "N", default_value = "65536", value_parser = table_size)]
    pub fallback_entries: NonZeroUsize,
}

/// How a connection finds its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlacementArg {
    /// Sticky; one slot more or fewer moves only that slot's share of clients.
    Rendezvous,
    /// Sticky, as Node's tutorials do it; one slot more or fewer moves nearly all clients.
    Modulo,
    /// Not sticky: the slot with the fewest connections.
    LeastConnections,
    /// Not sticky: one after the other.
    RoundRobin,
    /// Not sticky: the less loaded of two random slots.
    Random,
}

/// What turns an address into a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DigestArg {
    /// As Node's tutorials.
    Md5,
    /// For those who may use no MD5.
    Sha256,
}

impl PlacementArgs {
    pub(super) fn affinity(&self, problems: &mut Problems) -> AffinitySettings {
        let secret = self.secret_file.as_deref().map(|file| {
            std::fs::read(file).unwrap_or_else(|error| {
                problems.note("secret_file", format!("cannot read {}: {error}", file.display()));
                Vec::new()
            })
        });
        // Node's mapping hashes whole addresses.
        let usual_v6 = if self.placement == PlacementArg::Modulo { 128 } else { 64 };
        let v6 = self.ipv6_prefix.unwrap_or(usual_v6);
        let digest = match self.digest {
            DigestArg::Md5 => DigestKind::Md5,
            DigestArg::Sha256 => DigestKind::Sha256,
        };
        let prefixes = Prefixes { v4: self.ipv4_prefix, v6 };
        AffinitySettings { digest, secret: secret.unwrap_or_default(), prefixes }
    }

    /// `most` is how many slots there ever may be: weights are given for all of them.
    pub(super) fn router(
        &self,
        workers: u16,
        most: u16,
        problems: &mut Problems,
    ) -> RouterSettings {
        if !self.weights.is_empty() && self.weights.len() != usize::from(most) {
            let given = self.weights.len();
            problems.note("weights", format!("{given} weights given for {most} workers"));
        }
        let alike = || vec![1.0; usize::from(workers)];
        let weights = if self.weights.is_empty() { alike() } else { self.weights.clone() };
        RouterSettings {
            placement: self.placement.into(),
            weights,
            load_bound: self.load_bound,
            memory_capacity: self.fallback_entries,
            memory_lifetime: self.fallback_ttl,
        }
    }
}

impl From<PlacementArg> for Placement {
    fn from(arg: PlacementArg) -> Self {
        match arg {
            PlacementArg::Rendezvous => Self::Rendezvous,
            PlacementArg::Modulo => Self::Modulo,
            PlacementArg::LeastConnections => Self::LeastConnections,
            PlacementArg::RoundRobin => Self::RoundRobin,
            PlacementArg::Random => Self::Random,
        }
    }
}

fn load_bound(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(bound) if bound >= 1.0 && f64::is_finite(bound) => Ok(bound),
        _ => Err("expected a number of at least 1, such as 1.25".to_owned()),
    }
}

fn table_size(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "expected a number, 1 or above".to_owned())
}
