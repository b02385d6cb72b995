//! What the library writes, followed on its way out: what of it is frames, and whether it is whole.
//!
//! Never changes what is written but for the answer to a request that is read again: the client has
//! had one, so this one goes nowhere.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::worker::session::follow::answer::Outcome;
use crate::worker::session::state::{Phase, State};

/// Close codes (RFC 6455, 7.4.1 and the registry): come back later; you are not welcome.
const SERVICE_RESTART: u16 = 1012;
const POLICY: u16 = 1008;

impl State {
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            // What isn't sent must not vanish silently.
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if self.held {
            self.write_refused = true;
            return Poll::Pending;
        }
        match self.phase {
            Phase::Replay => return Poll::Ready(Ok(self.swallow(bytes))),
            // The rest of the answer that nobody gets.
            Phase::Refused => return Poll::Ready(Ok(bytes.len())),
            Phase::Http | Phase::Wait | Phase::WebSocket | Phase::Unknown => {}
        }
        self.owes = true;
        let written = ready!(Pin::new(stream).poll_write(cx, bytes))?;
        self.safety.written += written as u64;
        self.owes = written < bytes.len();
        self.wants_more_proof();
        self.follow_written(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    /// A handler that writes has not noted yet that it did. It has when it wants to read again.
    fn wants_more_proof(&mut self) {
        if std::mem::take(&mut self.drained) {
            self.reader_waits = true;
        }
    }

    pub(super) fn flush(&mut self) {
        if self.phase != Phase::WebSocket && !self.owes {
            self.requests.flush();
        }
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held {
            self.write_refused = true;
            return Poll::Pending;
        }
        self.abandon();
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        self.shut = true;
        Pin::new(stream).poll_shutdown(cx)
    }

    /// The library has gone away without an answer.
    pub(super) fn abandon(&mut self) {
        if self.phase == Phase::Replay {
            self.refuse(SERVICE_RESTART);
        }
    }

    fn follow_written(&mut self, bytes: &[u8]) {
        match self.phase {
            Phase::WebSocket => self.written.follow(bytes),
            Phase::Http => self.requests.wrote(),
            Phase::Wait => {
                self.requests.wrote();
                self.follow_answer(bytes);
            }
            Phase::Replay | Phase::Unknown | Phase::Refused => {}
        }
    }

    fn follow_answer(&mut self, bytes: &[u8]) {
        match self.answer.follow(bytes) {
            None => {}
            Some(Outcome::Status { code: 101, head }) => {
                self.become_websocket();
                self.written.follow(&bytes[head..]);
            }
            Some(Outcome::Status { .. }) => {
                self.phase = Phase::Http;
                self.head = Vec::new();
            }
            Some(Outcome::Strange) => self.phase = Phase::Unknown,
        }
    }

    fn become_websocket(&mut self) {
        self.phase = Phase::WebSocket;
        if let Some(guard) = &mut self.guard {
            guard.note_websocket();
        }
    }

    /// How many bytes go nowhere: to the end of the answer's head, and what follows is written.
    fn swallow(&mut self, bytes: &[u8]) -> usize {
        match self.answer.follow(bytes) {
            None => bytes.len(),
            Some(Outcome::Status { code: 101, head }) => {
                self.become_websocket();
                self.owes = head < bytes.len();
                head
            }
            Some(Outcome::Status { code, .. }) => {
                self.refuse(if code >= 500 { SERVICE_RESTART } else { POLICY });
                bytes.len()
            }
            Some(Outcome::Strange) => {
                self.refuse(SERVICE_RESTART);
                bytes.len()
            }
        }
    }

    /// The session doesn't go on here: its client gets a close frame, which ends no message, as it
    /// came between two. A client that reads so little that there is no room for it gets none.
    fn refuse(&mut self, code: u16) {
        self.phase = Phase::Refused;
        let [high, low] = code.to_be_bytes();
        if let Some(stream) = &self.stream {
            let _ = stream.try_write(&[0x88, 2, high, low]);
        }
    }
}
