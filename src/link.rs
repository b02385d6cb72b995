//! The primary's end to one worker.
//!
//! Never decides where a connection goes.

pub mod inherit;
pub mod native;
pub mod seam;
pub mod stats;
pub mod stats_source;
