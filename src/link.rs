//! The primary's end to one worker.
//!
//! Never decides where a connection goes.

pub mod event;
pub mod in_flight;
pub mod native;
pub mod seam;
