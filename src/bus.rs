//! Messages between the programs of Node workers: what `process.send` brings to the primary, and what goes back.
//!
//! Never in a connection's way: a task on a thread of its own handles them, behind bounded queues
//! ([`crate::link::programs`]).
//!
//! | file | what it is |
//! |---|---|
//! | [`rules`] | the settings: types of messages and what they do |
//! | `decide` | the decision: a message in, replies out; pure |
//! | `head` | the fields of a message that matter here |
//! | `log4js` | lines of log4js, which a worker doesn't write itself; pure |
//! | `prom_client` | metrics of several workers put together; pure |
//! | `counter` | the programs' common counter, in memory that outlives this process |
//! | [`service`] | the task |
//!
//! # What full queues do
//!
//! A program's message that finds the bus too busy is dropped, and so is a message to a program that reads none.
//! Both are counted, and said once.

mod counter;
mod decide;
mod head;
mod log4js;
mod prom_client;
pub mod rules;
pub mod service;

pub use counter::COUNTER;
