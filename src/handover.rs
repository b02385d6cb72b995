//! An upgrade or a crash of the primary carries this over to its successor.
//!
//! Never loses a descriptor.

pub mod descriptors;
