//! Sticky sessions by handing each client's TCP connection to its own worker process.

// So that the demo can share a file with an example, which knows this crate by its name.
#[cfg(feature = "demo")]
extern crate self as sticky_lb;

#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod primary;

pub mod frontend {
    //! A connection's way in: listener, affinity, placement, dispatcher. Never knows how a worker
    //! is spawned.
    pub mod acceptor;
    pub mod affinity;
    pub mod dispatcher;
    pub mod listener;
    pub mod memory;
    pub mod placement;
    pub mod poller;
    pub mod router;
    pub mod slot_table;
}

pub mod handoff {
    //! The border between the primary and its workers.
    pub mod channel;
    pub mod kernel;
    pub mod message;
    pub mod scm_rights;
    pub mod scoreboard;
    pub mod slots;
    pub mod untouched;
}

pub mod supervisor {
    //! A worker's life: lifecycle and restarts, decided; processes, carried out. Never touches a
    //! client's socket.
    pub mod lifecycle;
    pub mod pool;
    pub mod process;
    pub mod restart;
}

pub mod worker {
    //! The library that a worker links: attach, say ready, accept, drain.
    pub mod accept;
    pub mod attach;
    #[cfg(feature = "axum")]
    pub mod axum;
    pub mod connection;
    pub mod drain;
    #[cfg(feature = "hyper")]
    pub mod http;

    pub use accept::{AcceptError, Worker};
    pub use attach::AttachError;
    pub use connection::{Connection, ConnectionGuard, ConnectionInfo};
    pub use drain::Drain;
}

#[cfg(feature = "demo")]
pub mod demo {
    //! The built-in worker: what `sticky-lb` runs when it is given no command.
    pub mod app;
    pub mod server;
    // The chat is the example's, so that what people see here is what they can copy there.
    #[path = "../../examples/chat/rooms.rs"]
    mod rooms;
}
