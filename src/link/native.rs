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
pub mod snapshot;
mod start;
mod stats;
mod transfer;
mod transport;

pub use channel::Channel;
pub use stats::NativeStats;
pub use transport::{PAGE, PARTS};

pub(in crate::link) use start::start;
