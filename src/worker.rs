//! The library that a worker links: attach, say ready, accept, migrate sessions, drain.
//!
//! # The short way
//!
//! [`Worker::serve`] serves byte streams, `axum::serve` a router and `hyper::serve` any hyper service
//! (with the features of these names). Each says ready, accepts, migrates sessions,
//! drains, and returns when the last connection is closed:
//!
//! ```no_run
//! use sticky_lb::worker::Worker;
//! use tokio::io::AsyncWriteExt;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let worker = Worker::attach()?;
//! worker.serve(async |mut stream, _session| stream.write_all(b"hello\n").await).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`serve_or_listen`] and its namesakes for axum and hyper do the same for development: without a
//! primary they listen on an address of their own.
//!
//! # The long way
//!
//! [`Worker::enable_migration`], [`Worker::ready`], then [`Worker::accept`] until it returns `None`,
//! then [`Drain::completed`]. A step that is left out is logged.
//!
//! # Sessions
//!
//! A connection that is served as a [`SessionStream`] can migrate to another worker without its
//! client noticing; see [`Session`].
//!
//! # The end
//!
//! [`Drain`] tells handlers that the worker is to end, and asks the primary for a replacement.

mod accept;
mod attach;
#[cfg(feature = "axum")]
pub mod axum;
mod connection;
mod connection_info;
mod drain;
mod ending;
mod error;
mod guard;
mod handler_result;
#[cfg(feature = "hyper")]
mod http_limits;
#[cfg(feature = "hyper")]
pub mod hyper;
mod linger;
mod listen;
mod lock;
mod misuse;
mod orphan;
mod primary_channel;
mod serve;
mod session;
mod session_sender;
mod shared;
mod trim;

pub use accept::Worker;
pub use connection::Connection;
pub use connection_info::ConnectionInfo;
pub use drain::Drain;
pub use error::{AttachError, ChannelError, ServeError};
pub use guard::ConnectionGuard;
pub use handler_result::HandlerResult;
#[cfg(feature = "hyper")]
pub use http_limits::HttpLimits;
pub use serve::serve_or_listen;
pub use session::{
    MAX_STATE_BYTES, Migratable, Migrating, Migration, PendingWrite, READ_BUFFER_SIZE,
    RequestGuard, Session, SessionStream,
};

#[doc(hidden)]
pub use attach::Inheritance;
