//! Writes for the library, and follows the bytes: which of them are frames, and whether those are whole.
//!
//! Never changes a byte but for the answer to a request that is read again: the client has had one, so
//! this one is swallowed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendFlags, send};
use tokio::io::AsyncWrite;

use crate::worker::guard::{ConnectionGuard, Ending};
use crate::worker::session::follow::answer::Outcome;
use crate::worker::session::follow::negotiated::Obstacle;
use crate::worker::session::state::{Phase, State, UpgradeRequest};

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
    let written = ready!(Pin::new(stream).poll_write(cx, bytes)).inspect_err(|_| {
        // Its client is gone.
        state.input.is_ended = true;
    })?;
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
    state.note_closing();
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
        Phase::Http | Phase::Wait => {
            state.requests.wrote();
            follow_answer(state, bytes);
        }
        Phase::Unknown => follow_answer(state, bytes),
        Phase::Replay | Phase::Rejected => {}
    }
}

fn follow_frames(state: &mut State, bytes: &[u8]) {
    let was_closing = state.written.closing();
    state.written.follow(bytes);
    if state.written.closing() && !was_closing {
        if !state.read.closing() {
            state.note_ending(Ending::Closed);
        }
        state.note_closing();
    }
    if state.written.take_message() {
        state.shape.note_sent(state.wakers.is_reading);
    }
}

fn follow_answer(state: &mut State, bytes: &[u8]) {
    match state.answer.follow(bytes) {
        None => {}
        Some(Outcome::WebSocket { head, negotiated }) => {
            state.become_websocket(negotiated);
            follow_frames(state, &bytes[head..]);
        }
        Some(Outcome::OtherProtocol) => {
            state.phase = Phase::Unknown;
            state.upgrade = UpgradeRequest::default();
        }
        Some(Outcome::Declined(_)) if state.phase == Phase::Wait => {
            state.phase = Phase::Http;
            state.upgrade = UpgradeRequest::default();
        }
        // It isn't known for certain where answers end.
        Some(Outcome::Strange) if state.phase == Phase::Wait => state.phase = Phase::Unknown,
        Some(Outcome::Declined(_) | Outcome::Strange) => {}
    }
}

/// How many bytes are swallowed: to the end of the answer's head. The rest is written.
fn swallow(state: &mut State, bytes: &[u8]) -> usize {
    match state.answer.follow(bytes) {
        None => bytes.len(),
        Some(Outcome::WebSocket { head, negotiated }) if state.continues(&negotiated) => {
            state.become_websocket(negotiated);
            state.output.is_pending = head < bytes.len();
            head
        }
        Some(Outcome::WebSocket { .. }) => {
            state.upgrade.obstacle = Some(Obstacle::OtherAnswer);
            reject(state, SERVICE_RESTART);
            bytes.len()
        }
        Some(Outcome::Declined(code)) => {
            reject(state, if code >= 500 { SERVICE_RESTART } else { POLICY });
            bytes.len()
        }
        Some(Outcome::OtherProtocol | Outcome::Strange) => {
            reject(state, SERVICE_RESTART);
            bytes.len()
        }
    }
}

/// The session doesn't go on here: its client gets a close frame, which ends no message, as it
/// came between two. A client that reads so little that there is no room for it gets none.
fn reject(state: &mut State, code: u16) {
    state.note_closing();
    state.phase = Phase::Rejected;
    send_close(state, code);
}

/// The library has gone away from an open WebSocket as its worker ends, without a close frame: its
/// client gets one here, if it isn't in the middle of another.
pub(super) fn say_goodbye(state: &mut State) {
    let code =
        state.guard.as_ref().filter(|guard| guard.is_ending()).map(ConnectionGuard::close_code);
    let Some(code) = code.filter(|_| state.is_unclosed_websocket()) else { return };
    let is_told = state.written.between_frames() && send_close(state, code);
    state.note_ending(if is_told { Ending::Closed } else { Ending::Cut });
}

/// Whether there was room for the frame.
fn send_close(state: &State, code: u16) -> bool {
    let [high, low] = code.to_be_bytes();
    let frame = [0x88, 2, high, low];
    // Not by the runtime, which may not know yet that there is room.
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = state.stream.as_ref().map(|stream| send(stream, &frame, flags));
    sent.is_some_and(|sent| sent == Ok(frame.len()))
}
