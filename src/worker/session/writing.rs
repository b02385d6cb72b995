//! Writes for the library, and follows the bytes: which of them are frames, and whether those are whole.
//!
//! Never changes a byte but for the answer to a request that is read again: the client has had one, so
//! this one is swallowed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::AsyncWrite;

use crate::worker::session::follow::answer::Outcome;
use crate::worker::session::state::{Phase, State};

/// Close codes (RFC 6455, 7.4.1 and the registry): come back later; policy violation.
const SERVICE_RESTART: u16 = 1012;
const POLICY: u16 = 1008;

pub(super) fn poll_write(
    state: &mut State,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    if state.stream.is_none() {
        // A write that isn't sent must not vanish silently.
        return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
    }
    if state.refuse_write() {
        return Poll::Pending;
    }
    match state.phase {
        Phase::Replay => return Poll::Ready(Ok(swallow(state, bytes))),
        // The rest of the answer that the client doesn't get.
        Phase::Rejected => return Poll::Ready(Ok(bytes.len())),
        Phase::Http | Phase::Wait | Phase::WebSocket | Phase::Unknown => {}
    }
    let Some(stream) = &mut state.stream else { return Poll::Ready(Ok(0)) };
    state.output.is_pending = true;
    let written = ready!(Pin::new(stream).poll_write(cx, bytes))?;
    state.protection.written += written as u64;
    state.output.is_pending = written < bytes.len();
    note_activity(state);
    follow_written(state, &bytes[..written]);
    Poll::Ready(Ok(written))
}

/// A handler that writes may not have changed its state accordingly yet. It has when it wants to
/// read again.
fn note_activity(state: &mut State) {
    if state.note_activity() {
        state.wakers.reader_waits = true;
    }
}

pub(super) fn flush(state: &mut State) {
    if state.phase != Phase::WebSocket && !state.output.is_pending {
        state.requests.flush();
    }
}

pub(super) fn poll_shutdown(state: &mut State, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    if state.refuse_write() {
        return Poll::Pending;
    }
    abandon(state);
    let Some(stream) = &mut state.stream else { return Poll::Ready(Ok(())) };
    state.output.is_shut = true;
    Pin::new(stream).poll_shutdown(cx)
}

/// The library has gone away without an answer.
pub(super) fn abandon(state: &mut State) {
    if state.phase == Phase::Replay {
        reject(state, SERVICE_RESTART);
    }
}

fn follow_written(state: &mut State, bytes: &[u8]) {
    match state.phase {
        Phase::WebSocket => follow_frames(state, bytes),
        Phase::Http => state.requests.wrote(),
        Phase::Wait => {
            state.requests.wrote();
            follow_answer(state, bytes);
        }
        Phase::Replay | Phase::Unknown | Phase::Rejected => {}
    }
}

fn follow_frames(state: &mut State, bytes: &[u8]) {
    state.written.follow(bytes);
    if state.written.take_message() {
        state.shape.note_sent(state.wakers.is_reading);
    }
}

fn follow_answer(state: &mut State, bytes: &[u8]) {
    match state.answer.follow(bytes) {
        None => {}
        Some(Outcome::Status { code: 101, head }) => {
            become_websocket(state);
            follow_frames(state, &bytes[head..]);
        }
        Some(Outcome::Status { .. }) => {
            state.phase = Phase::Http;
            state.upgrade.head = Vec::new();
        }
        Some(Outcome::Strange) => state.phase = Phase::Unknown,
    }
}

fn become_websocket(state: &mut State) {
    state.phase = Phase::WebSocket;
    state.since = Instant::now();
    if let Some(guard) = &mut state.guard {
        guard.note_websocket();
    }
}

/// How many bytes are swallowed: to the end of the answer's head. The rest is written.
fn swallow(state: &mut State, bytes: &[u8]) -> usize {
    match state.answer.follow(bytes) {
        None => bytes.len(),
        Some(Outcome::Status { code: 101, head }) => {
            become_websocket(state);
            state.output.is_pending = head < bytes.len();
            head
        }
        Some(Outcome::Status { code, .. }) => {
            reject(state, if code >= 500 { SERVICE_RESTART } else { POLICY });
            bytes.len()
        }
        Some(Outcome::Strange) => {
            reject(state, SERVICE_RESTART);
            bytes.len()
        }
    }
}

/// The session doesn't go on here: its client gets a close frame, which ends no message, as it
/// came between two. A client that reads so little that there is no room for it gets none.
fn reject(state: &mut State, code: u16) {
    state.phase = Phase::Rejected;
    let [high, low] = code.to_be_bytes();
    if let Some(stream) = &state.stream {
        let _ = stream.try_write(&[0x88, 2, high, low]);
    }
}
