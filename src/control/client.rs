//! The commands' side of the control socket: sends a request and reads the answer.
//!
//! Blocks: a command has nothing else to do.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::control::protocol::{Code, Envelope, Line, Problem, Request, VERSION};

/// A request without an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The socket doesn't accept.
    #[error("cannot reach the primary at {path:?}")]
    Connect {
        /// The control socket.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("lost the primary")]
    Lost(#[source] io::Error),
    /// The primary doesn't answer in time.
    #[error(
        "the primary does not answer in time: its process may be stopped, or its machine overloaded"
    )]
    Silent,
    /// The primary ended before its answer was complete.
    #[error("the primary ended before it had answered")]
    Ended,
    /// The answer is not valid.
    #[error("the primary's answer is not valid: it may be another release")]
    Answer(#[source] serde_json::Error),
    /// The primary has refused, or failed.
    #[error(transparent)]
    Problem(#[from] Problem),
}

/// A request and its answer.
#[derive(Debug)]
pub struct Conversation {
    reader: BufReader<UnixStream>,
}

impl Conversation {
    /// Sends a request to the primary at `path`. With a `timeout`, no read of its answer may take
    /// longer.
    ///
    /// # Errors
    ///
    /// If the primary cannot be reached.
    pub fn begin(
        path: &Path,
        request: &Request,
        timeout: Option<Duration>,
    ) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { path: path.to_owned(), source };
        let mut socket = UnixStream::connect(path).map_err(failed)?;
        socket.set_read_timeout(timeout).map_err(failed)?;
        let envelope = Envelope { version: VERSION, request };
        let mut line = serde_json::to_vec(&envelope).map_err(io::Error::from).map_err(failed)?;
        line.push(b'\n');
        // A primary that refuses the client has sent its reason already.
        let sent = socket.write_all(&line);
        if let Err(error) = sent
            && error.kind() != ErrorKind::BrokenPipe
        {
            return Err(ClientError::Lost(error));
        }
        Ok(Self { reader: BufReader::new(socket) })
    }

    /// The next line of the answer.
    ///
    /// # Errors
    ///
    /// If the primary has ended, or its answer is not valid.
    pub fn next_line(&mut self) -> Result<Line, ClientError> {
        let mut text = Vec::new();
        match self.reader.read_until(b'\n', &mut text) {
            Ok(0) => return Err(ClientError::Ended),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(ClientError::Silent);
            }
            Err(error) => return Err(ClientError::Lost(error)),
        }
        let line = serde_json::from_slice(&text).map_err(ClientError::Answer)?;
        Ok(if let Line::Error(problem) = line { Line::Error(explained(problem)) } else { line })
    }

    /// Whether the next line is already buffered, so that the descriptor will not become readable.
    #[must_use]
    pub fn has_read_ahead(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }

    /// Passes each item of the answer to `each`, and returns the last line.
    ///
    /// # Errors
    ///
    /// If the primary refuses, has ended, or its answer is not valid; or an error of `each`.
    pub fn finish<T: DeserializeOwned, E: From<ClientError>>(
        mut self,
        mut each: impl FnMut(Value) -> Result<(), E>,
    ) -> Result<T, E> {
        loop {
            match self.next_line()? {
                Line::Item(item) => each(item)?,
                Line::Done(done) => {
                    return Ok(serde_json::from_value(done).map_err(ClientError::Answer)?);
                }
                Line::Error(problem) => return Err(ClientError::Problem(problem).into()),
            }
        }
    }
}

impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.get_ref().as_fd()
    }
}

/// Adds this release, which the primary doesn't know.
fn explained(mut problem: Problem) -> Problem {
    if problem.code == Code::Version {
        let release = env!("CARGO_PKG_VERSION");
        problem.message +=
            &format!(" (this command is of sticky-lb {release} and speaks version {VERSION})");
    }
    problem
}

/// Sends a request whose answer has no items.
///
/// # Errors
///
/// As [`Conversation::begin`] and [`Conversation::finish`].
pub fn ask<T: DeserializeOwned>(path: &Path, request: &Request) -> Result<T, ClientError> {
    Conversation::begin(path, request, None)?.finish(|_| Ok(()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// The result of a request to a listener that answers with these bytes.
    fn answer(said: &[u8], timeout: Duration) -> Result<Value, ClientError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let begun = Conversation::begin(&path, &Request::Status {}, Some(timeout)).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        BufReader::new(&peer).read_line(&mut String::new()).unwrap();
        peer.write_all(said).unwrap();
        // Without an answer the connection stays open.
        let _peer = said.is_empty().then_some(peer);
        begun.finish(|_| Ok(()))
    }

    #[test]
    fn a_silent_primary_is_not_waited_for() {
        let silent = answer(b"", Duration::from_millis(20));
        assert!(matches!(silent, Err(ClientError::Silent)), "{silent:?}");
    }

    #[test]
    fn an_answer_that_is_not_valid_is_an_error() {
        let timeout = Duration::from_secs(20);
        for garbage in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"\xff\xfe\n", b"{}\n", b"[\n", b"{"]
        {
            let answer = answer(garbage, timeout);
            assert!(matches!(answer, Err(ClientError::Answer(_))), "{answer:?}");
        }
        let cut = answer(b"{\"item\":1}\n", timeout);
        assert!(matches!(cut, Err(ClientError::Ended)), "{cut:?}");
    }

    #[test]
    fn both_versions_are_named() {
        let said = b"{\"error\":{\"code\":\"version\",\"message\":\"9.9.9 speaks version 7\"}}\n";
        let error = answer(said, Duration::from_secs(20)).unwrap_err().to_string();
        assert!(error.contains("9.9.9 speaks version 7"), "{error}");
        assert!(error.contains(env!("CARGO_PKG_VERSION")), "{error}");
    }
}
