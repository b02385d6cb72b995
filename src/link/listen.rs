//! The dialect of programs that accept their clients themselves, on a listening socket that they were started with.
//! They say nothing but `sd_notify`, and not all of them say that.
//!
//! Never waits and never decides where a connection goes.
//!
//! | file | what it is |
//! |---|---|
//! | [`channel`] | the primary's end: readiness, the order to drain, what survives a crash |
//! | [`notify`] | the socket that the worker's `NOTIFY_SOCKET` names |
//! | [`message`] | a notification, read |
//! | [`sender`] | whether a process belongs to a worker |
//!
//! # The wire
//!
//! `READY=1` makes the worker ready. Everything else is read and has no effect: `STOPPING`, `RELOADING`, `STATUS`,
//! `MAINPID`, `WATCHDOG`. Descriptors are closed: so `BARRIER=1` is answered, and `FDSTORE=1` refused.

mod channel;
mod message;
mod notify;
mod sender;
#[cfg(test)]
mod tests;

pub use channel::Channel;
pub use notify::PARTS;

pub(in crate::link) use channel::{adopt, start};
