//! The upgrade of a running primary: the program becomes its successor by `execve`, in the same process,
//! so that workers stay its children, and everything that it has open stays open.
//!
//! Only carries: what is in an estate, each part writes and reads itself. Never loses a descriptor:
//! if the kernel refuses to run the successor, the caller has everything back.
//!
//! ```text
//! USR2 ─► the new program reads configuration and estate, in a process beside (check)
//!      ─► pool and frontend stop at the end of a turn and hand over (primary)
//!      ─► document into a memfd, descriptors lose close-on-exec, execve (exec)
//!      ─► the new program reads the memfd and goes on (inherit)
//! ```

pub mod check;
pub mod document;
pub mod exec;
pub mod inherit;

pub use document::{Document, EstateError};

/// Names, in the environment of the successor, the memfd with the document and the process that it is
/// meant for: `7:1234`.
pub const VARIABLE: &str = "STICKY_LB_STATE";
