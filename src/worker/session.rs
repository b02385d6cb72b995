//! Connections that migrate from a worker that is to end to the one that follows it.
//!
//! Never gives a client up without a close frame.

pub(crate) mod api;
mod cell;
pub(crate) mod checkpoint;
pub(crate) mod closing;
pub(crate) mod handle;
pub(crate) mod image;
#[cfg(feature = "hyper")]
pub(crate) mod in_flight;
pub(crate) mod inner;
pub(crate) mod migration;
pub(crate) mod parts;
mod pending_write;
mod protection;
mod reading;
pub(crate) mod registry;
mod request_guard;
pub(crate) mod resumed;
pub(crate) mod resync;
mod shape;
#[cfg(feature = "hyper")]
pub(crate) mod slow_clients;
mod state;
pub(crate) mod stream;
mod waiting;
mod window;
mod writing;

mod follow {
    //! Follows the bytes that pass without understanding them. Functions of bytes.
    pub(super) mod answer;
    pub(super) mod frames;
    pub(super) mod negotiated;
    pub(super) mod request;
    pub(super) mod requests;
}

pub use api::{Migratable, Migrating, Migration, Session};
pub use image::MAX_STATE_BYTES;
pub use pending_write::PendingWrite;
pub use request_guard::RequestGuard;
pub use stream::{READ_BUFFER_SIZE, SessionStream};

#[cfg(feature = "axum")]
#[cfg(test)]
mod tests {
    //! The stream under real libraries, its sockets moved between workers that are tasks.
    mod apps;
    mod boundaries;
    mod client;
    mod frames;
    mod fuzz;
    mod http;
    mod migration;
    mod websocket;
}
