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
//! [`worker::http`] serve an axum router or any hyper service with one call. WebSockets whose handlers
//! say so move to the next worker with what they leave ([`worker::session`]). Workers in other
//! languages are written from [`handoff::message`] and [`handoff::scoreboard`], which document every
//! byte; `examples/worker.py` is one.
//!
//! # For those who work on this crate
//!
//! Data goes one way, and every file imports from files further up in this list only:
//!
//! | part | what it is | must never |
//! |---|---|---|
//! | [`handoff`] | the border: messages, descriptors, channel, slots | contain policy |
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
//! Frontend and supervisor run on threads of their own and meet in [`handoff::slots`] alone.

// So that the demo can share a file with an example, which knows this crate by its name.
#[cfg(feature = "demo")]
extern crate self as sticky_lb;

pub mod handoff {
    //! The border between the primary and its workers: what is said, how descriptors travel, and
    //! how to get back what no worker has taken. Holds no client's bytes and no policy.
    pub mod channel;
    pub mod drain;
    pub mod estate;
    pub mod ids;
    pub mod kernel;
    pub mod message;
    pub mod scm_rights;
    pub mod scoreboard;
    pub mod slots;
    pub mod untouched;
}

#[cfg(feature = "cli")]
pub mod frontend {
    //! A connection's way in: accepted, placed, handed over. Never knows how a worker is started.
    pub mod acceptor;
    pub mod affinity;
    pub mod counter_page;
    pub mod dispatcher;
    pub mod estate;
    pub mod inquiry;
    pub mod listener;
    pub mod memory;
    pub mod pace;
    pub mod placement;
    pub mod poller;
    pub mod rebalance;
    pub mod reports;
    pub mod router;
    pub mod session_route;
    pub mod shedding;
    pub mod slot_table;
    pub mod spill;

    pub mod measure {
        //! What is counted and measured on the way. Fixed in size, pure, and told the time.
        pub mod heaviest;
        pub mod rate;
        pub mod tally;
        pub mod times;
    }
}

#[cfg(feature = "cli")]
pub mod system {
    //! What surrounds the primary: systemd, the container. Knows nothing of workers.
    pub mod activation;
    pub mod directory;
    pub mod journal;
    pub mod keeper;
    pub mod limits;
    pub mod notify;
    pub mod program;
    pub mod store;
}

#[cfg(feature = "cli")]
pub mod supervisor {
    //! A worker's life: what is decided, what is carried out, and what workers print. Never touches
    //! a client's socket.

    // Decided: functions of facts and of the time.
    pub mod autoscale;
    pub mod lifecycle;
    pub mod limits;
    pub mod restart;
    pub mod rollout;
    pub mod slot_life;
    pub mod watchdog;

    // Carried out: one owner, and what it does it with.
    pub mod command;
    pub mod environment;
    pub mod event;
    pub mod orphans;
    pub mod output;
    pub mod pool;
    pub mod process;
    pub mod procfs;
    pub mod sample;
    pub mod start_error;
    mod text;
}

pub mod worker {
    //! The library that a worker links: attach, say ready, accept, move sessions, drain.
    pub mod accept;
    pub mod attach;
    #[cfg(feature = "axum")]
    pub mod axum;
    pub mod connection;
    pub mod drain;
    #[cfg(feature = "hyper")]
    pub mod http;
    mod linger;
    mod link;
    mod orphan;
    mod outlet;
    pub mod session;

    pub use accept::{AcceptError, Worker};
    pub use attach::AttachError;
    pub use connection::{Connection, ConnectionGuard, ConnectionInfo};
    pub use drain::Drain;
    pub use session::Session;
}

#[cfg(feature = "cli")]
pub mod triggers {
    //! What starts a rolling restart by itself: a changed file, the time of day. Knows nothing of
    //! workers.
    pub mod cron;
    pub mod watch;
}

#[cfg(feature = "cli")]
pub mod control {
    //! How operators see and steer a running primary: control socket, admin listener, dashboard,
    //! metrics. Reaches frontend and supervisor through their handles alone.

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
}

#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "cli")]
pub mod keeper;
#[cfg(feature = "cli")]
pub mod log;
#[cfg(feature = "cli")]
pub mod primary;
#[cfg(feature = "cli")]
pub mod upgrade;

#[cfg(feature = "cli")]
pub mod settings {
    //! What may be written: flags and the keys of `sticky-lb.toml`, one table for both. Never does
    //! anything with it.
    pub mod change;
    pub mod control;
    pub mod drain;
    pub mod file;
    pub mod general;
    pub mod hand_off;
    pub mod layers;
    pub mod lifecycle;
    pub mod limits;
    pub mod output;
    pub mod placement;
    pub mod pm2 {
        //! Configuration files of PM2, read and converted.
        mod command;
        pub mod convert;
        pub mod ecosystem;
        mod keys;
    }
    pub mod problems;
    pub mod reader;
    pub mod report;
    mod resolve;
    pub mod scaling;
    pub mod table;
    pub mod template;
    pub mod triggers;
    pub mod units;
    pub mod user;
    pub mod worker;
}

#[cfg(feature = "demo")]
pub mod demo {
    //! The built-in worker: what `sticky-lb` runs when it is given no command.
    pub mod app;
    pub mod server;
    // The chat is the example's, so that what people see here is what they can copy there.
    #[path = "../../examples/chat/history.rs"]
    mod history;
    #[path = "../../examples/chat/rooms.rs"]
    mod rooms;
}

#[cfg(all(feature = "cli", feature = "demo"))]
pub mod cli;
