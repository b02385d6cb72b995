//! Sticky sessions by handing each client's TCP connection to its own worker process.

pub mod frontend {
    //! A connection's way in: listener, affinity, placement, dispatcher. Never knows how a worker
    //! is spawned.
    pub mod affinity;
    pub mod dispatcher;
    pub mod listener;
    pub mod memory;
    pub mod placement;
    pub mod router;
    pub mod slot_table;
    pub mod watched;
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
