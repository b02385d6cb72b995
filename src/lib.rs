//! Sticky sessions by handing each client's TCP connection to its own worker process.
//!
//! A primary accepts connections without reading them, picks a worker by the client's address, and
//! passes the raw descriptor to that worker's process over a Unix socket. The worker serves it with
//! whatever it likes; the primary is out of the way from then on.
//!
//! ```text
//! client ─► listener ─► affinity ─► slot ─► channel ══ SCM_RIGHTS ══► worker: accept() ─► hyper, …
//!           └───────── frontend ──────┘└── handoff ──┘                └──────── worker ────────┘
//!                                       ▲ who fills which slot
//!                                   supervisor ─► processes
//! ```
//!
//! # For those who write a worker
//!
//! [`worker::Worker`] attaches to the primary and yields connections. [`worker::axum`] and
//! [`worker::hyper`] serve an axum router or any hyper service with one call. WebSockets whose handlers
//! say so migrate to the next worker with their state ([`worker::Session`]). Workers in other
//! languages are written from [`protocol::message`] and [`protocol::scoreboard`], which document every
//! byte; `examples/worker.py` is one.
//!
//! # For those who work on this crate
//!
//! Data goes one way, and every file imports from files further up in this list only:
//!
//! | part | what it is | must never |
//! |---|---|---|
//! | [`protocol`] | the border: messages, descriptors, channel, slots | contain policy |
//! | [`frontend`] | listener, affinity, placement, dispatcher | know how a worker is started |
//! | [`system`] | systemd and the container around the primary | know of workers |
//! | [`supervisor`] | a worker's life: decided (pure), carried out; what it prints | touch a client's socket |
//! | [`triggers`] | files that change, times of day | know of workers |
//! | [`worker`] | the library that a worker links | import the primary's side |
//! | [`log`] | the primary's own log | know what it speaks of |
//! | [`control`] | how operators see and steer: socket, admin listener, metrics | reach in but through handles |
//! | [`upgrade`] | a primary carried over into its successor | lose a descriptor |
//! | [`config`], [`primary`] | settings gathered, parts put together | decide anything |
//! | [`keeper`] | the small parent that starts the primary again | serve, or need a runtime |
//! | [`settings`] | what may be written, and what it stands for | do anything with it |
//! | [`demo`] | the worker that runs when no other is given | be needed by anything but `cli` |
//! | [`cli`] | what is typed, and what is printed | be needed by anything |
//!
//! Frontend and supervisor run on threads of their own and meet in [`link::seam`] alone.

// So that the demo can share a file with an example, which knows this crate by its name.
#[cfg(feature = "demo")]
extern crate self as sticky_lb;

// For those who write a worker.
pub mod protocol;
pub mod worker;

// The binary's parts, from the bottom up.
#[cfg(all(feature = "cli", feature = "demo"))]
mod cli;
#[cfg(feature = "cli")]
mod config;
#[cfg(feature = "cli")]
mod control;
#[cfg(feature = "demo")]
mod demo;
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
