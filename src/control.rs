//! Operators see and steer a running primary: control socket, admin listener, dashboard, metrics.
//!
//! Reaches frontend and supervisor through their handles alone.

// Agreed by both ends.
pub mod protocol;
pub mod report;
pub mod socket;

// The primary's end.
pub mod admin;
pub mod answers;
pub mod connections;
pub mod history;
pub mod links;
pub mod metrics;
pub mod server;
pub mod settings;
pub mod snapshot;
pub mod usage;

// The operator's end.
pub mod client;
pub mod discovery;
