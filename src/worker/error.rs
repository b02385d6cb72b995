//! Why a worker fails.
//!
//! `Debug` of these errors prints what `Display` and the sources say, since that is what a `main`
//! that returns them shows.

use std::error::Error;
use std::fmt;
use std::io;

use crate::protocol::message::MessageError;

/// Why a process can't attach to a primary.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no primary.
    #[error(
        "not started by sticky-lb (STICKY_LB_CHANNEL is not set): run `sticky-lb --workers 4 -- COMMAND`, \
         with this program as the COMMAND"
    )]
    NoPrimary,
    /// It has attached already; that worker goes on.
    #[error("this process has attached to its primary before")]
    AlreadyAttached,
    /// A variable has another value than the primary sets.
    #[error("{name} is {value:?}, expected a number: it is set by sticky-lb, don't change it")]
    Variable {
        /// Its name.
        name: &'static str,
        /// Its value, empty if it isn't set.
        value: String,
    },
    /// A descriptor is not the one that the primary passed on.
    #[error(
        "descriptor {number} of {name} is not what sticky-lb passed on: was it closed by a program \
         in between?"
    )]
    Descriptor {
        /// The variable that names it.
        name: &'static str,
        /// Its number.
        number: i32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The channel can't be used.
    #[error("cannot talk to the primary")]
    Channel(#[source] io::Error),
}

/// Why the channel to the primary can't be used.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The primary sent a message that this version doesn't know.
    #[error("cannot understand the primary")]
    Message(#[from] MessageError),
    /// The channel failed.
    #[error("channel to the primary failed")]
    Io(#[source] io::Error),
    /// Migration was enabled too late.
    #[error("enable_migration() comes too late: call it before ready()")]
    AlreadyReady,
    /// There is no primary, or it is gone.
    #[error("there is no primary")]
    NoPrimary,
    /// The primary reads too slowly.
    #[error("channel to the primary is full, try again later")]
    Full,
}

/// Why a worker that may also run without a primary fails.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It can't attach to its primary.
    #[error("cannot attach to the primary")]
    Attach(#[from] AttachError),
    /// The channel to the primary can't be used.
    #[error("no more connections come")]
    Channel(#[from] ChannelError),
    /// There is no primary, and it can't listen itself.
    #[error("cannot listen on an address of its own")]
    Listen(#[source] io::Error),
}

impl fmt::Debug for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_sources(self, f)
    }
}

impl fmt::Debug for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_sources(self, f)
    }
}

impl fmt::Debug for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_sources(self, f)
    }
}

/// Writes an error and what caused it: `text: cause: its cause`.
fn write_with_sources(error: &dyn Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{error}")?;
    let mut source = error.source();
    while let Some(cause) = source {
        write!(f, ": {cause}")?;
        source = cause.source();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_the_text_and_the_causes() {
        let gone = ChannelError::Io(io::Error::other("gone"));
        assert_eq!(format!("{gone:?}"), "channel to the primary failed: gone");
        let serving = ServeError::Channel(gone);
        let text = "no more connections come: channel to the primary failed: gone";
        assert_eq!(format!("{serving:?}"), text);
        let boxed: Box<dyn Error> = Box::new(AttachError::AlreadyAttached);
        assert_eq!(format!("{boxed:?}"), "this process has attached to its primary before");
    }
}
