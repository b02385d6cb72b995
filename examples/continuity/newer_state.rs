//! Stands between a primary and the successor that it asks: the state that the successor finds is of
//! a version that it cannot know. The successor itself is the real one.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use command_fds::{CommandFdExt, FdMapping};
use serde_json::Value;
use sticky_lb::protocol::sealed::seal;

/// The number of the descriptor in which a successor finds the state.
const STATE: i32 = 3;

/// The role `newer-state`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The successor.
    program: PathBuf,
    /// What it was asked.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// Whether the successor would go on.
pub(crate) fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let mut state: Value = serde_json::from_slice(&fs::read(format!("/proc/self/fd/{STATE}"))?)?;
    let version = state["version"].as_u64().ok_or("state has no version")?;
    state["version"] = (version + 1).into();
    let state = seal(state.to_string().as_bytes())?;
    let mapping = FdMapping { parent_fd: state, child_fd: STATE };
    let mut command = Command::new(&options.program);
    command.args(&options.arguments).fd_mappings(vec![mapping])?;
    Ok(command.status()?.success())
}
