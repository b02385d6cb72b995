//! The keys of clients: digests of their addresses, or, where the kernel picks the worker, hashes that it computes, too.

use std::net::IpAddr;

use crate::frontend::affinity::Affinity;
use crate::frontend::steering::Steering;
use crate::protocol::ids::AffinityKey;

/// Turns client addresses into keys.
#[derive(Clone, Debug)]
pub enum ClientKeys {
    /// By a digest.
    Digest(Affinity),
    /// As the kernel's program does. Prefixes are those of the affinity.
    Steering(Steering, Affinity),
}

impl From<Affinity> for ClientKeys {
    fn from(affinity: Affinity) -> Self {
        Self::Digest(affinity)
    }
}

impl ClientKeys {
    /// The key of the client at `address`.
    #[must_use]
    pub fn key(&self, address: IpAddr) -> AffinityKey {
        match self {
            Self::Digest(affinity) => affinity.key(address),
            Self::Steering(steering, _) => steering.key(address),
        }
    }

    /// The part of the address that counts: it is folded and cut to its prefix.
    #[must_use]
    pub fn counts(&self, address: IpAddr) -> IpAddr {
        match self {
            Self::Digest(affinity) | Self::Steering(_, affinity) => affinity.counts(address),
        }
    }

    /// The whole digest that the key is the beginning of, in hexadecimal, and its name. Nothing where there is no
    /// digest. Not for the way of connections: it allocates.
    #[must_use]
    pub fn digest(&self, address: IpAddr) -> Option<(&'static str, String)> {
        match self {
            Self::Digest(affinity) => Some(affinity.digest(address)),
            Self::Steering(..) => None,
        }
    }
}
