//! The native dialect: workers that speak [`crate::protocol`], linked with the library or written from its
//! documentation.
//!
//! Never waits and never decides where a connection goes.

mod channel;
mod handshake;
mod outbox;
mod protect;
mod resync;
mod sessions;
#[cfg(feature = "cli")]
mod snapshot;
mod start;
mod stats;
mod transfer;
mod transport;

pub use channel::Channel;
#[cfg(feature = "cli")]
pub use snapshot::{ChannelDocument, ConnectionDocument};
pub use stats::NativeStats;

pub(in crate::link) use start::start;
