//! The upgrade of a running primary: the program becomes its successor by `execve`, in the same process,
//! so that workers stay its children, and everything that it has open stays open.
//!
//! Only carries the state file; each part converts itself. Never loses a descriptor: if the kernel refuses
//! to run the successor, the caller has everything back.
//!
//! ```text
//! USR2 ─► the new program reads configuration and state, in a process of its own (check)
//!      ─► pool and frontend stop at the end of a turn and hand over (primary)
//!      ─► state file into a memfd, descriptors lose close-on-exec, execve (exec)
//!      ─► the new program reads the memfd and goes on (inherit)
//! ```

pub mod check;
pub mod exec;
pub mod inherit;

/// The variable that names the memfd of the state file, and the process that it is meant for, to the
/// successor: `7:1234`.
pub const VARIABLE: &str = "STICKY_LB_STATE";
