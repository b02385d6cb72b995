//! The commands' side of the control socket: sends a request and reads the answer.
//!
//! Blocks: a command has nothing else to do.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::control::protocol::{Code, Envelope, Line, Problem, Request, VERSION};
use crate::control::socket::is_trusted;
use crate::protocol::ids::Timestamp;

/// The longest line of an answer in bytes: hundreds of thousands of connections.
const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;

/// The end of a wait.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Timestamp);

impl Deadline {
    /// So long from now.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self(Timestamp::now() + time)
    }

    /// The time until then.
    ///
    /// # Errors
    ///
    /// If there is none.
    fn left(self) -> Result<Duration, ClientError> {
        let left = self.0.since(Timestamp::now());
        if left.is_zero() { Err(ClientError::Silent) } else { Ok(left) }
    }
}

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
    /// The socket is another user's.
    #[error("may not use {0:?}: run as root or as its user")]
    Denied(PathBuf),
    /// Another user listens there.
    #[error(
        "{path:?} is served by user {uid}, and only root's and this user's primaries are trusted: if \
         it is the right one, run the command as that user, by sudo -u '#{uid}'"
    )]
    Stranger {
        /// The control socket.
        path: PathBuf,
        /// The user.
        uid: u32,
    },
    /// A line has no end.
    #[error("the primary's answer has a line of more than {MAX_LINE_BYTES} bytes")]
    Long,
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
    deadline: Option<Deadline>,
}

impl Conversation {
    /// Sends a request to the primary at `path`. All of its answer has to be there at the deadline,
    /// unless that is changed.
    ///
    /// # Errors
    ///
    /// If the primary cannot be reached, or belongs to another user.
    pub fn begin(path: &Path, request: &Request, deadline: Deadline) -> Result<Self, ClientError> {
        let failed = |source: io::Error| match source.kind() {
            // The time is over, for a place in the backlog.
            ErrorKind::WouldBlock => ClientError::Silent,
            ErrorKind::PermissionDenied => ClientError::Denied(path.to_owned()),
            _ => ClientError::Connect { path: path.to_owned(), source },
        };
        let mut socket = reach(path, deadline.left()?).map_err(failed)?;
        let uid = socket_peercred(&socket).map_err(|errno| failed(errno.into()))?.uid.as_raw();
        if !is_trusted(path, uid) {
            return Err(ClientError::Stranger { path: path.to_owned(), uid });
        }
        let envelope = Envelope { version: VERSION, request };
        let mut line = serde_json::to_vec(&envelope).map_err(io::Error::from).map_err(failed)?;
        line.push(b'\n');
        match socket.write_all(&line) {
            Ok(()) => {}
            // A primary that refuses the client has sent its reason already.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => return Err(broken(error)),
        }
        Ok(Self { reader: BufReader::new(socket), deadline: Some(deadline) })
    }

    /// Changes when what follows has to be there; `None` for an answer that takes as long as it takes.
    pub fn set_deadline(&mut self, deadline: Option<Deadline>) {
        self.deadline = deadline;
    }

    /// The next line of the answer.
    ///
    /// # Errors
    ///
    /// If the primary has ended or is late, or its answer is not valid.
    pub fn next_line(&mut self) -> Result<Line, ClientError> {
        let text = self.read_line()?;
        let line = serde_json::from_slice(&text).map_err(ClientError::Answer)?;
        Ok(if let Line::Error(problem) = line { Line::Error(explained(problem)) } else { line })
    }

    fn read_line(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut text = Vec::new();
        loop {
            if self.reader.buffer().is_empty() {
                let left = self.deadline.map(Deadline::left).transpose()?;
                self.reader.get_ref().set_read_timeout(left).map_err(ClientError::Lost)?;
            }
            let found = match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                found => found.map_err(broken)?,
            };
            let end = found.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(found.len(), |end| end + 1);
            text.extend_from_slice(&found[..taken]);
            self.reader.consume(taken);
            match (taken, end) {
                (0, _) if text.is_empty() => return Err(ClientError::Ended),
                (0, _) | (_, Some(_)) => return Ok(text),
                _ if text.len() > MAX_LINE_BYTES => return Err(ClientError::Long),
                _ => {}
            }
        }
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
        each: impl FnMut(Value) -> Result<(), E>,
    ) -> Result<T, E> {
        let first = self.next_line()?;
        self.finish_after(first, each)
    }

    /// As [`Self::finish`], where the first line was read already.
    ///
    /// # Errors
    ///
    /// As [`Self::finish`].
    pub fn finish_after<T: DeserializeOwned, E: From<ClientError>>(
        mut self,
        first: Line,
        mut each: impl FnMut(Value) -> Result<(), E>,
    ) -> Result<T, E> {
        let mut line = first;
        loop {
            match line {
                Line::Item(item) => each(item)?,
                Line::Done(done) => {
                    return Ok(serde_json::from_value(done).map_err(ClientError::Answer)?);
                }
                Line::Error(problem) => return Err(ClientError::Problem(problem).into()),
            }
            line = self.next_line()?;
        }
    }
}

impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.get_ref().as_fd()
    }
}

/// A connection. Where the backlog is full, it waits for a place until `timeout`; so does what is
/// written.
fn reach(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// A connection that broke, or whose other end is late.
fn broken(error: io::Error) -> ClientError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Silent,
        _ => ClientError::Lost(error),
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

/// Sends a request that may take long, whose items don't matter. The primary has to take it until the
/// deadline.
///
/// # Errors
///
/// As [`Conversation::begin`] and [`Conversation::finish`].
pub fn ask<T: DeserializeOwned>(
    path: &Path,
    request: &Request,
    deadline: Deadline,
) -> Result<T, ClientError> {
    let mut begun = Conversation::begin(path, request, deadline)?;
    begun.set_deadline(None);
    begun.finish(|_| Ok(()))
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
        let begun = Conversation::begin(&path, &Request::Status {}, Deadline::after(timeout));
        let begun = begun.unwrap();
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
    fn nothing_that_comes_puts_the_deadline_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let timeout = Duration::from_millis(200);
        let begun = Conversation::begin(&path, &Request::Status {}, Deadline::after(timeout));
        let (mut peer, _) = listener.accept().unwrap();
        let trickle = std::thread::spawn(move || {
            // Until nobody reads any more.
            while peer.write_all(b"{\"item\":1}\n{\"it").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
                if peer.write_all(b"em\":1}\n").is_err() {
                    break;
                }
            }
        });
        let end = begun.unwrap().finish::<Value, ClientError>(|_| Ok(()));
        assert!(matches!(end, Err(ClientError::Silent)), "{end:?}");
        trickle.join().unwrap();
    }

    #[test]
    fn a_full_backlog_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        let deadline = Deadline::after(Duration::from_millis(20));
        let begun = Conversation::begin(&path, &Request::Status {}, deadline);
        assert!(matches!(begun, Err(ClientError::Silent)), "{begun:?}");
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
