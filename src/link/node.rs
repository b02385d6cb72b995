//! The dialect of Node's cluster: unmodified programs for Node and Deno are workers, since the primary says
//! what Node's own cluster primary would say.
//!
//! Never waits and never decides where a connection goes.
//!
//! | file | what it is |
//! |---|---|
//! | [`channel`] | the primary's end: hand-off, answers, readiness |
//! | [`handed`] | descriptors on their way, in the order in which the worker answers |
//! | [`message`] | lines of JSON, read and written |
//! | [`query`] | the answer to a program that wants to listen |
//! | [`ports`] | sockets beside the front's port, which workers share |
//! | [`openings`] | answers that such a socket goes with |
//! | [`probes`] | connections of the primary's own, which show that a program takes some |
//! | [`servers`] | the servers that a worker has open |
//! | [`memo`] | what a successor has to know after a crash of the primary |
//! | [`outgoing`] | lines that wait to be sent |
//! | [`transport`] | the socket pair: lines, descriptors, take-back |
//!
//! # The wire
//!
//! The worker finds a stream socket in `NODE_CHANNEL_FD` and its number in `NODE_UNIQUE_ID`. Both sides write
//! lines of JSON; a line that carries a descriptor is sent by one call with one descriptor. The source is Node's
//! behaviour (`lib/internal/cluster`, `lib/internal/child_process.js`, versions 20 to 26), measured from outside.

mod channel;
mod handed;
mod memo;
mod message;
mod openings;
mod outgoing;
pub mod ports;
mod probes;
mod query;
mod servers;
pub mod settings;
pub mod snapshot;
mod start;
#[cfg(test)]
mod tests;
mod transport;

pub use channel::Channel;
pub use start::unique_id;
pub use transport::PARTS;

pub(in crate::link) use start::start;
