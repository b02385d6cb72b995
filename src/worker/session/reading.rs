//! Reads for the library: all there is, or once asked to stop, no more than the rest of what it has
//! begun.
//!
//! Never delivers what follows the head of an upgrade before its answer is written, so that nothing
//! of the frames is in the library's HTTP part.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use crate::worker::session::follow::request::Request;
use crate::worker::session::state::{Phase, Stage, State};

/// A head that is longer is not followed. hyper takes longer ones, but clients send none.
const MAX_HEAD: usize = 64 * 1024;
/// Bytes read at once of a head that comes in pieces.
const PIECE: usize = 16 * 1024;

type Read = Poll<io::Result<()>>;

pub(super) fn poll_read(state: &mut State, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
    if buffer.remaining() == 0 || state.stream.is_none() || state.phase == Phase::Rejected {
        return Poll::Ready(Ok(()));
    }
    if state.is_held() {
        return Poll::Pending;
    }
    if state.phase == Phase::WebSocket {
        state.shape.note_read();
    }
    let result = match state.phase {
        Phase::WebSocket => read_frames(state, cx, buffer),
        Phase::Http => read_http(state, cx, buffer),
        Phase::Wait => read_until_answered(state, cx, buffer),
        Phase::Replay => read_again(state, cx, buffer),
        Phase::Unknown => read_anything(state, cx, buffer),
        Phase::Rejected => Poll::Ready(Ok(())),
    };
    if result.is_ready() {
        // At the end of the stream there is no boundary to wait for any more.
        state.note_activity();
        if let Some(guard) = &mut state.guard {
            guard.used();
        }
    }
    result
}

fn read_frames(state: &mut State, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
    let limited = state.is_stopping() && !state.is_closing();
    let limit = if limited {
        usize::try_from(state.read.certain()).unwrap_or(usize::MAX)
    } else {
        usize::MAX
    };
    if limit == 0 {
        return stay(state, cx);
    }
    let before = buffer.filled().len();
    if !state.input.unread.is_empty() {
        deliver(state, limit, buffer);
    } else if limited {
        ready!(read_socket_up_to(state, limit, cx, buffer))?;
    } else {
        ready!(read_socket(state, cx, buffer))?;
    }
    state.read.follow(&buffer.filled()[before..]);
    Poll::Ready(Ok(()))
}

fn read_http(state: &mut State, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
    loop {
        if state.input.deliverable > 0 {
            return deliver_some(state, buffer);
        }
        if state.phase != Phase::Http {
            return read_anything(state, cx, buffer);
        }
        if state.input.body > 0 {
            return read_body(state, cx, buffer);
        }
        if !state.requests.answered() || state.is_stopping() && state.requests.idle() {
            return stay(state, cx);
        }
        if state.input.unread.is_empty() {
            if ready!(read_head(state, cx, buffer))? {
                return Poll::Ready(Ok(()));
            }
        } else {
            ready!(read_rest_of_head(state, cx))?;
        }
    }
}

/// Reads straight into the buffer, which suffices if the whole head is there.
/// Returns whether something is delivered, or the end.
fn read_head(
    state: &mut State,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<bool>> {
    let before = buffer.filled().len();
    ready!(read_socket(state, cx, buffer))?;
    let new = &buffer.filled()[before..];
    if new.is_empty() {
        return Poll::Ready(Ok(true));
    }
    let delivered = begin(state, Request::read(new), new);
    state.input.unread.extend_from_slice(&new[delivered..]);
    state.input.partial = if delivered == 0 { state.input.unread.len() } else { 0 };
    state.input.waiting.begin(Instant::now());
    buffer.set_filled(before + delivered);
    Poll::Ready(Ok(delivered > 0))
}

/// Reads on in a head of which some is there already, perhaps all.
fn read_rest_of_head(state: &mut State, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    if state.input.partial == state.input.unread.len() {
        let too_long = state.input.unread.len() > MAX_HEAD;
        if too_long || ready!(read_piece(state, cx))? == 0 {
            state.phase = Phase::Unknown;
            return Poll::Ready(Ok(()));
        }
    }
    let unread = std::mem::take(&mut state.input.unread);
    state.input.deliverable = begin(state, Request::read(&unread), &unread);
    state.input.unread = unread;
    state.input.partial = if state.input.deliverable == 0 { state.input.unread.len() } else { 0 };
    Poll::Ready(Ok(()))
}

/// Notes what a head announces; returns how many of the bytes may be delivered.
fn begin(state: &mut State, request: Request, bytes: &[u8]) -> usize {
    match request {
        Request::Partial => 0,
        Request::Plain { head, body } => {
            state.requests.begin();
            state.answer.expect();
            let rest = bytes.len() - head;
            let at_once = usize::try_from(body).map_or(rest, |body| body.min(rest));
            state.input.body = body - at_once as u64;
            head + at_once
        }
        Request::WebSocket { head } => {
            state.requests.begin();
            state.answer.expect();
            state.upgrade.head = bytes[..head].to_vec();
            state.phase = Phase::Wait;
            head
        }
        Request::Chunked | Request::Unknown => {
            if request == Request::Chunked {
                state.answer.expect();
            }
            state.phase = Phase::Unknown;
            bytes.len()
        }
    }
}

fn read_body(state: &mut State, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
    let before = buffer.filled().len();
    ready!(read_socket(state, cx, buffer))?;
    let new = &buffer.filled()[before..];
    let of_body = usize::try_from(state.input.body).map_or(new.len(), |body| body.min(new.len()));
    state.input.body -= of_body as u64;
    state.input.unread.extend_from_slice(&new[of_body..]);
    buffer.set_filled(before + of_body);
    Poll::Ready(Ok(()))
}

fn read_until_answered(state: &mut State, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
    if state.input.deliverable > 0 {
        return deliver_some(state, buffer);
    }
    stay_until_answered(state, cx)
}

fn read_again(state: &mut State, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
    let rest = &state.upgrade.head[state.upgrade.replayed..];
    if rest.is_empty() {
        return stay_until_answered(state, cx);
    }
    let length = rest.len().min(buffer.remaining());
    buffer.put_slice(&rest[..length]);
    state.upgrade.replayed += length;
    Poll::Ready(Ok(()))
}

fn read_anything(state: &mut State, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
    if state.input.unread.is_empty() {
        return read_socket(state, cx, buffer);
    }
    state.input.deliverable = 0;
    deliver(state, usize::MAX, buffer);
    Poll::Ready(Ok(()))
}

fn stay_until_answered(state: &mut State, cx: &mut Context<'_>) -> Read {
    let result = stay(state, cx);
    state.wakers.reader_waits = true;
    result
}

/// Reads nothing more until something is written or the library may go on.
fn stay(state: &mut State, cx: &mut Context<'_>) -> Read {
    let waiting = match look(state, cx) {
        Seen::End(result) => {
            state.input.is_ended = true;
            return Poll::Ready(result);
        }
        Seen::Something => true,
        Seen::Nothing => false,
    };
    state.wakers.reader_waits = waiting || state.is_stopping();
    if state.is_stopping() {
        state.stage = if state.at_boundary() { Stage::Drained } else { Stage::Stopping };
    }
    Poll::Pending
}

/// Peeks, so that the bytes stay where the next worker finds them.
fn look(state: &State, cx: &mut Context<'_>) -> Seen {
    let Some(stream) = &state.stream else { return Seen::End(Ok(())) };
    if !state.input.unread.is_empty() {
        return Seen::Something;
    }
    let mut byte = [0];
    match stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
        Poll::Pending => Seen::Nothing,
        Poll::Ready(Ok(0)) => Seen::End(Ok(())),
        Poll::Ready(Ok(_)) => Seen::Something,
        Poll::Ready(Err(error)) => Seen::End(Err(error)),
    }
}

fn deliver_some(state: &mut State, buffer: &mut ReadBuf<'_>) -> Read {
    let before = state.input.unread.len();
    deliver(state, state.input.deliverable, buffer);
    state.input.deliverable -= before - state.input.unread.len();
    Poll::Ready(Ok(()))
}

fn deliver(state: &mut State, limit: usize, buffer: &mut ReadBuf<'_>) {
    let length = limit.min(state.input.unread.len()).min(buffer.remaining());
    buffer.put_slice(&state.input.unread[..length]);
    state.input.unread.advance(length);
    if state.input.unread.is_empty() {
        // Few connections need it, and seldom.
        state.input.unread = BytesMut::new();
    }
}

fn read_socket(state: &mut State, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
    let Some(stream) = &mut state.stream else { return Poll::Ready(Ok(())) };
    let before = buffer.filled().len();
    let result = Pin::new(stream).poll_read(cx, buffer);
    let read = buffer.filled().len() - before;
    state.protection.read += read as u64;
    state.input.is_ended |= result.is_ready() && read == 0;
    result
}

fn read_socket_up_to(
    state: &mut State,
    limit: usize,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Read {
    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(limit.min(buffer.remaining())));
    ready!(read_socket(state, cx, &mut part))?;
    let read = part.filled().len();
    buffer.advance(read);
    Poll::Ready(Ok(()))
}

/// Appends to the unread bytes.
fn read_piece(state: &mut State, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut unread = std::mem::take(&mut state.input.unread);
    let before = unread.len();
    unread.resize(before + PIECE, 0);
    let mut piece = ReadBuf::new(&mut unread[before..]);
    let result = read_socket(state, cx, &mut piece);
    let read = piece.filled().len();
    unread.truncate(before + read);
    state.input.unread = unread;
    result.map_ok(|()| read)
}

enum Seen {
    Nothing,
    Something,
    End(io::Result<()>),
}
