//! The state that an upgrade or a crash of the primary carries over to its successor: plain data of types
//! of its own, with a version, and descriptors by their names. Both ways have the same words:
//!
//! | word | what it is |
//! |---|---|
//! | `…Snapshot` | a part as plain data, written and read here |
//! | [`Carry`] | a part converts itself: `snapshot` and `restore` |
//! | [`Descriptors`](descriptors::Descriptors) | what must stay open, by name |
//! | [`StateFile`] | all snapshots of an upgrade, in sealed memory |
//! | journal | the snapshots of primary and pool, for a crash ([`encode`], [`decode`]) |
//! | `…Handover` | a part that has stopped, with its descriptors in its hands |
//!
//! Never loses a descriptor, and imports the protocol's own types alone.

pub mod descriptors;
#[expect(missing_docs, reason = "fields are named as those of the part")]
pub mod frontend;
#[expect(missing_docs, reason = "fields are named as those of the part")]
pub mod link;
#[expect(missing_docs, reason = "fields are named as those of the part")]
pub mod output;
#[expect(missing_docs, reason = "fields are named as those of the part")]
pub mod pool;
#[expect(missing_docs, reason = "fields are named as those of the part")]
pub mod primary;
#[expect(missing_docs, reason = "fields are named as those of the part")]
pub mod settings;

mod carry;
mod state_file;
mod text;

pub use carry::Carry;
pub(crate) use carry::carry;
#[cfg(test)]
pub(crate) use state_file::tests::{assert_is_format, sample};
pub use state_file::{StateError, StateFile, VERSION, decode, encode};
