//! One port, many worker processes, every client stays with its own.
//!
//! The program `sticky-lb` is the *primary*: it accepts TCP connections without reading them, picks a
//! worker by the client's address, and hands the raw descriptor to that worker's process. From then on it
//! is out of the way. Deploys, crashes and scaling go on without the clients noticing. This library is
//! what a worker links.
//!
//! ```text
//! client ─► listener ─► affinity ─► slot ─► link ══ SCM_RIGHTS ══► worker: accept()
//!            accept4,     key →      holds    one per    the socket itself,    │
//!            never read   ranking    a worker  worker    bytes still unread    └► hyper, axum,
//!                                                                                tungstenite, …
//! ```
//!
//! # A worker
//!
//! ```no_run
//! use sticky_lb::worker::Worker;
//! use tokio::io::{copy, split};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let worker = Worker::attach()?;
//!     worker
//!         .serve(async |stream, _session| {
//!             let (mut read, mut write) = split(stream);
//!             copy(&mut read, &mut write).await
//!         })
//!         .await?;
//!     Ok(())
//! }
//! ```
//!
//! `sticky-lb --workers 4 --port 3000 -- ./target/release/echo` runs four of them.
//!
//! | | |
//! |---|---|
//! | [`guide`] | everything, from the first command on; [`guide::workers_in_rust`] for this library |
//! | [`worker`] | attach, serve plain streams, any hyper service (feature `hyper`) or an axum router (feature `axum`), migrate, drain |
//! | [`protocol`] | every byte between primary and worker, for workers in other languages |
//!
//! A worker needs `default-features = false` and `axum`, `hyper` or none; the default features are the
//! program's.
//!
//! # For contributors
//!
//! Data goes one way, and every part imports from parts further up only:
//!
//! | part | what it is | must never |
//! |---|---|---|
//! | `kernel` | all unsafe code | offer what safe code can misuse |
//! | [`protocol`] | the native wire format: messages, descriptors, scoreboard, checkpoint | contain policy |
//! | `closing` | the end of descriptors that others have had | let one that serves wait |
//! | `handover` | what an upgrade or a crash carries over | lose a descriptor |
//! | `link` | the primary's end to one worker | decide where a connection goes |
//! | `sessions` | migration: broker, protected sessions, pacing, recovery | accept connections |
//! | `frontend` | listener, affinity, placement, dispatcher | know how a worker is spawned |
//! | `system` | systemd and the container around the primary | know of workers |
//! | `supervisor` | a worker's life: decided (pure), carried out; its output | touch a client's socket |
//! | `bus` | messages between programs of Node workers | sit in a connection's way |
//! | `triggers` | files that change, times of day | know of workers |
//! | [`worker`] | the library that a worker links | import the primary's side |
//! | `log` | the primary's own log | know what it speaks of |
//! | `control` | control socket, commands, metrics, dashboard | reach in but through handles |
//! | `upgrade` | a primary that becomes the next one | lose a descriptor |
//! | `config`, `primary` | settings gathered, parts put together | decide anything |
//! | `keeper` | the small parent that restarts the primary | serve, or need a runtime |
//! | `conformance` | checks whether a program is a good worker, by playing the primary | serve |
//! | `settings` | flags and keys, and what they stand for | act on them |
//! | `demo` | the worker that runs when no other is given | be needed by anything but `cli` |
//! | `cli` | commands and their output | be needed by anything |
//! | [`guide`] | the documentation | contain code |
//!
//! Frontend and supervisor run on threads of their own and meet in `link::seam` alone. Decisions are pure
//! functions of facts and the time; I/O is thin; each piece of state has one owner.
//! `cargo doc --document-private-items` shows all parts.

// So that the demo can share a file with an example, which knows this crate by its name.
#[cfg(feature = "demo")]
extern crate self as sticky_lb;

// For those who write a worker.
pub mod guide;
pub mod protocol;
pub mod worker;

// The binary's parts, from the bottom up.
#[cfg(feature = "cli")]
mod bus;
#[cfg(all(feature = "cli", feature = "demo"))]
mod cli;
#[cfg(feature = "cli")]
mod closing;
#[cfg(feature = "cli")]
mod config;
#[cfg(feature = "cli")]
mod conformance;
#[cfg(feature = "cli")]
mod control;
#[cfg(feature = "demo")]
mod demo;
#[cfg(feature = "cli")]
mod error;
#[cfg(feature = "cli")]
mod frontend;
#[cfg(feature = "cli")]
mod handover;
#[cfg(feature = "cli")]
mod keeper;
mod kernel;
#[cfg(feature = "cli")]
mod link;
#[cfg(feature = "cli")]
mod log;
#[cfg(feature = "cli")]
mod primary;
#[cfg(feature = "cli")]
mod sessions;
#[cfg(feature = "cli")]
mod settings;
#[cfg(feature = "cli")]
mod supervisor;
#[cfg(feature = "cli")]
mod system;
#[cfg(feature = "cli")]
mod triggers;
#[cfg(feature = "cli")]
mod upgrade;

#[doc(hidden)]
pub mod internals;

/// README's Rust code, compiled.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
mod readme {}
