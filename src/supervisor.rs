//! A worker's life: its decisions, their execution, and the output of workers.
//!
//! Never touches a client's socket.

// Decided: functions of facts and of the time.
pub mod autoscale;
pub mod lifecycle;
pub mod limits;
pub mod restart;
pub mod rollout;
pub mod slot_life;
pub mod sockets;
pub mod watchdog;
pub mod wrappers;

// Carried out: one owner, and its tools.
pub mod command;
pub mod ended;
pub mod environment;
pub mod event;
pub mod orphans;
pub mod output;
pub mod pool;
pub mod process;
pub mod procfs;
pub mod program;
pub mod sample;
pub mod shell;
mod spawn_guard;
pub mod start_error;
