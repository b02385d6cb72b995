//! The native wire format: messages, descriptors, scoreboard, checkpoints. Workers in any language can be
//! written from it.
//!
//! Contains no policy.

pub mod checkpoint;
pub mod drain;
pub mod ids;
pub mod message;
pub mod peer;
#[cfg(test)]
pub(crate) mod random;
pub mod scm_rights;
pub mod scoreboard;
pub mod sealed;
pub mod tcp_progress;
