//! The operators' interfaces of a running primary: control socket, admin listener, dashboard, metrics.
//!
//! Uses only the handles of frontend and supervisor.

// Shared by primary and commands.
pub mod protocol;
pub mod report;
pub mod socket;
pub mod token_file;

// The primary's side.
pub mod admin;
pub mod answers;
pub mod connections;
mod dominance;
pub mod history;
pub mod links;
pub mod metrics;
pub mod server;
pub mod settings;
pub mod snapshot;
pub mod usage;

// The commands' side.
pub mod client;
pub mod discovery;
