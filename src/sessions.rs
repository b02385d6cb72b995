//! Migration: sessions on their way from one worker to another, protected sessions, and the pace at
//! which clients move.
//!
//! Never accepts connections, and imports nothing of the frontend: slots, links and the router are
//! reached through the traits of [`host`].

pub mod broker;
pub mod close_requests;
pub mod host;
pub mod lines;
pub mod open_offers;
pub mod pace;
mod proofs;
mod protected;
pub mod rebalance;
pub mod recovery;
pub mod recovery_outcome;
pub mod route;
