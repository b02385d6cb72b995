//! Affinity keys, and how they are placed on slots.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::AffinitySettings;
use crate::frontend::affinity::{DigestKind, Prefixes};
use crate::frontend::placement::Placement;
use crate::frontend::router::RouterSettings;
use crate::link::interface::Dispatch;
use crate::settings::before::Before;
use crate::settings::problems::Problems;
use crate::settings::secret;
use crate::settings::units::{above_zero, duration, within};
use crate::supervisor::command::User;

/// How clients are placed on slots.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Placement")]
pub struct PlacementArgs {
    /// Place connections on slots by this method.
    #[arg(long, value_enum, default_value = "rendezvous")]
    pub placement: PlacementArg,
    /// Weigh the slots, one number for each: a slot of weight 2 gets twice the clients of one of
    /// weight 1 [default: equal weights].
    #[arg(long, value_name = "W,W,...", value_delimiter = ',', value_parser = above_zero)]
    pub weights: Vec<f64>,
    /// Send new clients elsewhere while a slot has more than this many times the mean number of
    /// connections [default: no bound].
    #[arg(long, value_name = "FACTOR", value_parser = load_bound)]
    pub load_bound: Option<f64>,
    /// Digest clients' addresses with this function.
    #[arg(long, value_enum, default_value = "md5")]
    pub digest: DigestArg,
    /// Mix the secret in this file into the digest, so that nobody outside can aim at one worker
    /// [default: none].
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Use this many leading bits of an IPv4 address as the affinity key.
    #[arg(long, value_name = "BITS", default_value = "32", value_parser = within(0..=32_u8))]
    pub ipv4_prefix: u8,
    /// Use this many leading bits of an IPv6 address as the affinity key [default: 64; with modulo,
    /// 128].
    #[arg(long, value_name = "BITS", value_parser = within(0..=128_u8))]
    pub ipv6_prefix: Option<u8>,
    /// Keep a client's fallback slot for this long after its last connection.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub fallback_ttl: Duration,
    /// Keep the fallback slots of at most this many clients.
    #[arg(long, value_name = "N", default_value = "65536", value_parser = table_size)]
    pub fallback_entries: NonZeroUsize,
}

/// How connections are placed on slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlacementArg {
    /// Sticky: a change of the number of slots moves only one slot's share of clients.
    Rendezvous,
    /// Sticky, as in Node's tutorials: a change of the number of slots moves nearly all clients.
    Modulo,
    /// Not sticky: the slot with the fewest connections.
    LeastConnections,
    /// Not sticky: one after the other.
    RoundRobin,
    /// Not sticky: the less loaded of two random slots.
    Random,
}

/// Digest of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DigestArg {
    /// MD5, as in Node's tutorials.
    Md5,
    /// SHA-256, where policy forbids MD5.
    Sha256,
}

impl PlacementArgs {
    pub(super) fn affinity(
        &self,
        user: Option<&User>,
        before: Option<&Before>,
        problems: &mut Problems,
    ) -> AffinitySettings {
        let secret = self.secret_file.as_deref().and_then(|file| {
            let before = before.map(|before| before.secret.clone());
            secret::read(file, user)
                .or_else(|text| problems.or_before("secret_file", text, before).ok_or(()))
                .ok()
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

    /// `max` is the largest number of slots that scaling allows: weights are given for all of them.
    pub(super) fn router(
        &self,
        dispatch: Dispatch,
        workers: u16,
        max: u16,
        problems: &mut Problems,
    ) -> RouterSettings {
        if dispatch.is_by_listeners() {
            self.check_for_listeners(dispatch, max, problems);
        }
        if !self.weights.is_empty() && self.weights.len() != usize::from(max) {
            let given = self.weights.len();
            let counted = |count: usize, one: &str| {
                format!("{count} {one}{}", if count == 1 { "" } else { "s" })
            };
            let text =
                format!("{} given for {}", counted(given, "weight"), counted(max.into(), "worker"));
            problems.note("weights", text);
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

    /// The kernel's choice depends on the client's address alone.
    fn check_for_listeners(&self, dispatch: Dispatch, max: u16, problems: &mut Problems) {
        let name = dispatch.name();
        if self.placement != PlacementArg::Rendezvous {
            let text = format!("needs dispatch = \"primary\", and it is {name}");
            problems.note("placement", text);
        }
        if self.load_bound.is_some() {
            let text = format!(
                "needs dispatch = \"primary\", and it is {name}: the kernel knows no loads"
            );
            problems.note("load_bound", text);
        }
        if max > dispatch.max_slots() {
            let most = dispatch.max_slots();
            let text = format!("{max} are more than {most}, the most for dispatch = \"{name}\"");
            problems.note("workers", text);
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
