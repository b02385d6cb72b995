//! The operator's end: asks a primary, and reads its answer.
//!
//! Blocks, since a command has nothing else to do.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::control::protocol::{Code, Envelope, Line, Problem, Request, VERSION};

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
    /// The primary says nothing.
    #[error("primary doesn't answer in time: is its process stopped, or its machine overloaded?")]
    Silent,
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
    /// If the primary is gone, or says what isn't understood.
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

    /// Whether the next line was read already, and its descriptor will not tell of it.
    #[must_use]
    pub fn has_read_ahead(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
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

/// The primary doesn't know which release it was asked by.
fn explained(mut problem: Problem) -> Problem {
    if problem.code == Code::Version {
        let release = env!("CARGO_PKG_VERSION");
        problem.message +=
            &format!(" (this command is of sticky-lb {release} and speaks version {VERSION})");
    }
    problem
}

/// Asks for something that has no items.
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

    /// What somebody says who listens only, and then says this.
    fn answer(said: &[u8], patience: Duration) -> Result<Value, ClientError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let begun = Conversation::begin(&path, &Request::Status {}, Some(patience)).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        BufReader::new(&peer).read_line(&mut String::new()).unwrap();
        peer.write_all(said).unwrap();
        // Whoever says nothing stays.
        let _peer = said.is_empty().then_some(peer);
        begun.finish(|_| Ok(()))
    }

    #[test]
    fn who_says_nothing_is_not_waited_for() {
        let silent = answer(b"", Duration::from_millis(20));
        assert!(matches!(silent, Err(ClientError::Silent)), "{silent:?}");
    }

    #[test]
    fn what_is_no_answer_is_said_to_be_none() {
        let patience = Duration::from_secs(20);
        for garbage in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"\xff\xfe\n", b"{}\n", b"[\n", b"{"]
        {
            let answer = answer(garbage, patience);
            assert!(matches!(answer, Err(ClientError::Answer(_))), "{answer:?}");
        }
        let cut = answer(b"{\"item\":1}\n", patience);
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
