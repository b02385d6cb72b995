//! The library that a worker links: attach, say ready, accept, migrate sessions, drain.

pub mod accept;
pub mod attach;
#[cfg(feature = "axum")]
pub mod axum;
pub mod connection;
pub mod drain;
#[cfg(feature = "hyper")]
pub mod http;
mod linger;
mod orphan;
mod primary_channel;
pub mod session;
mod session_sender;

pub use accept::{AcceptError, Worker};
pub use attach::AttachError;
pub use connection::{Connection, ConnectionGuard, ConnectionInfo};
pub use drain::Drain;
pub use session::Session;
