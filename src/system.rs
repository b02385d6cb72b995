//! The surroundings of the primary: systemd, the container.
//!
//! Knows nothing of workers.

pub mod activation;
mod datagrams;
pub mod descriptors;
pub mod directory;
pub mod journal;
pub mod keeper;
pub mod limits;
pub mod notify;
pub mod place;
pub mod program;
pub mod ring;
pub mod store;
pub mod tasks;
pub mod tcp_clients;
pub mod terminal;
