//! The operator's end: asks a primary, and reads its answer.
//!
//! Blocks, since a command has nothing else to do.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::control::protocol::{Envelope, Line, Problem, Request, VERSION};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody is there.
    #[error("cannot reach the primary at {path:?}")]
    Connect {
        /// The control socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("lost the primary")]
    Lost(#[source] io::Error),
    /// The primary ended before it had answered.
    #[error("primary ended before it had answered")]
    Ended,
    /// What the primary says isn't understood.
    #[error("answer of the primary is not understood: is it of another release?")]
    Answer(#[source] serde_json::Error),
    /// The primary says no.
    #[error(transparent)]
    Problem(#[from] Problem),
}

/// A request that was sent, and its answer.
#[derive(Debug)]
pub struct Conversation {
    reader: BufReader<UnixStream>,
}

impl Conversation {
    /// Sends a request to the primary at `path`. With a `patience`, its answer must come in pieces
    /// that don't take longer.
    ///
    /// # Errors
    ///
    /// If nobody is there.
    pub fn begin(
        path: &Path,
        request: &Request,
        patience: Option<Duration>,
    ) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { path: path.to_owned(), source };
        let mut socket = UnixStream::connect(path).map_err(failed)?;
        socket.set_read_timeout(patience).map_err(failed)?;
        let envelope = Envelope { version: VERSION, request };
        let mut line = serde_json::to_vec(&envelope).map_err(io::Error::from).map_err(failed)?;
        line.push(b'\n');
        // A primary that refuses whoever asks has said why already.
        let sent = socket.write_all(&line);
        if let Err(error) = sent
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(ClientError::Lost(error));
        }
        Ok(Self { reader: BufReader::new(socket) })
    }

    /// Hands each item of the answer to `each`, and returns what ends it.
    ///
    /// # Errors
    ///
    /// If the primary says no, is gone, or says what isn't understood; or what `each` says.
    pub fn finish<T: DeserializeOwned, E: From<ClientError>>(
        mut self,
        mut each: impl FnMut(Value) -> Result<(), E>,
    ) -> Result<T, E> {
        let mut text = String::new();
        loop {
            text.clear();
            match self.reader.read_line(&mut text) {
                Ok(0) => return Err(ClientError::Ended.into()),
                Ok(_) => {}
                Err(error) => return Err(ClientError::Lost(error).into()),
            }
            match serde_json::from_str(&text).map_err(ClientError::Answer)? {
                Line::Item(item) => each(item)?,
                Line::Done(done) => {
                    return Ok(serde_json::from_value(done).map_err(ClientError::Answer)?);
                }
                Line::Error(problem) => return Err(ClientError::Problem(problem).into()),
            }
        }
    }
}

/// Asks for something that has no items.
///
/// # Errors
///
/// As [`Conversation::begin`] and [`Conversation::finish`].
pub fn ask<T: DeserializeOwned>(path: &Path, request: &Request) -> Result<T, ClientError> {
    Conversation::begin(path, request, None)?.finish(|_| Ok(()))
}
