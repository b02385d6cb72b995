//! What a gate lets the library read: all there is, or once asked to stop, no more than the rest of
//! what it has begun.
//!
//! Never delivers what follows the head of an upgrade before its answer is written, so that nothing
//! of the frames is in the library's HTTP part.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use crate::worker::session::follow::request::Request;
use crate::worker::session::state::{Phase, State};

/// A head that is longer is not followed. What hyper takes is longer, what clients send is not.
const MAX_HEAD: usize = 64 * 1024;
/// Read at once of a head that comes in pieces.
const PIECE: usize = 16 * 1024;

type Read = Poll<io::Result<()>>;

impl State {
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
        if buffer.remaining() == 0 || self.stream.is_none() || self.phase == Phase::Refused {
            return Poll::Ready(Ok(()));
        }
        if self.held {
            return Poll::Pending;
        }
        let result = match self.phase {
            Phase::WebSocket => self.read_frames(cx, buffer),
            Phase::Http => self.read_http(cx, buffer),
            Phase::Wait => self.read_until_answered(cx, buffer),
            Phase::Replay => self.read_again(cx, buffer),
            Phase::Unknown => self.read_anything(cx, buffer),
            Phase::Refused => Poll::Ready(Ok(())),
        };
        if result.is_ready() {
            // Whoever ends has no boundary to wait for any more.
            self.drained = false;
            if let Some(guard) = &mut self.guard {
                guard.used();
            }
        }
        result
    }

    fn read_frames(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
        let limited = self.stop && !self.closing();
        let limit = if limited {
            usize::try_from(self.read.certain()).unwrap_or(usize::MAX)
        } else {
            usize::MAX
        };
        if limit == 0 {
            return self.stay(cx);
        }
        let before = buffer.filled().len();
        if !self.unread.is_empty() {
            self.deliver(limit, buffer);
        } else if limited {
            ready!(self.read_socket_up_to(limit, cx, buffer))?;
        } else {
            ready!(self.read_socket(cx, buffer))?;
        }
        self.read.follow(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }

    fn read_http(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
        loop {
            if self.cleared > 0 {
                return self.deliver_cleared(buffer);
            }
            if self.phase != Phase::Http {
                return self.read_anything(cx, buffer);
            }
            if self.body > 0 {
                return self.read_body(cx, buffer);
            }
            if !self.requests.answered() || self.stop && self.requests.idle() {
                return self.stay(cx);
            }
            if self.unread.is_empty() {
                if ready!(self.read_head(cx, buffer))? {
                    return Poll::Ready(Ok(()));
                }
            } else {
                ready!(self.read_rest_of_head(cx))?;
            }
        }
    }

    /// Straight to where it is wanted, which is all that it takes if the head is there at once.
    /// Returns whether something is delivered, or the end.
    fn read_head(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let before = buffer.filled().len();
        ready!(self.read_socket(cx, buffer))?;
        let new = &buffer.filled()[before..];
        if new.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let delivered = self.begin(Request::read(new), new);
        self.unread.extend_from_slice(&new[delivered..]);
        self.partial = if delivered == 0 { self.unread.len() } else { 0 };
        buffer.set_filled(before + delivered);
        Poll::Ready(Ok(delivered > 0))
    }

    /// A head of which there is something already, perhaps all.
    fn read_rest_of_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.partial == self.unread.len() {
            let too_long = self.unread.len() > MAX_HEAD;
            if too_long || ready!(self.read_piece(cx))? == 0 {
                self.phase = Phase::Unknown;
                return Poll::Ready(Ok(()));
            }
        }
        let unread = std::mem::take(&mut self.unread);
        self.cleared = self.begin(Request::read(&unread), &unread);
        self.unread = unread;
        self.partial = if self.cleared == 0 { self.unread.len() } else { 0 };
        Poll::Ready(Ok(()))
    }

    /// Notes what a head announces; how many of the bytes may be delivered.
    fn begin(&mut self, request: Request, bytes: &[u8]) -> usize {
        match request {
            Request::Partial => 0,
            Request::Plain { head, body } => {
                self.requests.begin();
                let rest = bytes.len() - head;
                let at_once = usize::try_from(body).map_or(rest, |body| body.min(rest));
                self.body = body - at_once as u64;
                head + at_once
            }
            Request::WebSocket { head } => {
                self.requests.begin();
                self.head = bytes[..head].to_vec();
                self.phase = Phase::Wait;
                head
            }
            Request::Unknown => {
                self.phase = Phase::Unknown;
                bytes.len()
            }
        }
    }

    fn read_body(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
        let before = buffer.filled().len();
        ready!(self.read_socket(cx, buffer))?;
        let new = &buffer.filled()[before..];
        let of_body = usize::try_from(self.body).map_or(new.len(), |body| body.min(new.len()));
        self.body -= of_body as u64;
        self.unread.extend_from_slice(&new[of_body..]);
        buffer.set_filled(before + of_body);
        Poll::Ready(Ok(()))
    }

    fn read_until_answered(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
        if self.cleared > 0 {
            return self.deliver_cleared(buffer);
        }
        self.stay_until_answered(cx)
    }

    fn read_again(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
        let rest = &self.head[self.replayed..];
        if rest.is_empty() {
            return self.stay_until_answered(cx);
        }
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        self.replayed += length;
        Poll::Ready(Ok(()))
    }

    fn read_anything(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
        if self.unread.is_empty() {
            return self.read_socket(cx, buffer);
        }
        self.cleared = 0;
        self.deliver(usize::MAX, buffer);
        Poll::Ready(Ok(()))
    }

    fn stay_until_answered(&mut self, cx: &mut Context<'_>) -> Read {
        let result = self.stay(cx);
        self.reader_waits = true;
        result
    }

    /// Reads nothing more until something is written or the library may go on.
    fn stay(&mut self, cx: &mut Context<'_>) -> Read {
        let waiting = match self.look(cx) {
            Seen::End(result) => return Poll::Ready(result),
            Seen::Something => true,
            Seen::Nothing => false,
        };
        self.reader_waits = waiting || self.stop;
        self.drained = self.stop && self.at_boundary();
        Poll::Pending
    }

    /// Without reading, so that what there is stays where the next worker finds it.
    fn look(&self, cx: &mut Context<'_>) -> Seen {
        let Some(stream) = &self.stream else { return Seen::End(Ok(())) };
        if !self.unread.is_empty() {
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

    fn deliver_cleared(&mut self, buffer: &mut ReadBuf<'_>) -> Read {
        let before = self.unread.len();
        self.deliver(self.cleared, buffer);
        self.cleared -= before - self.unread.len();
        Poll::Ready(Ok(()))
    }

    fn deliver(&mut self, limit: usize, buffer: &mut ReadBuf<'_>) {
        let length = limit.min(self.unread.len()).min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        if self.unread.is_empty() {
            // It is needed seldom, and by few.
            self.unread = BytesMut::new();
        }
    }

    fn read_socket(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        let before = buffer.filled().len();
        let result = Pin::new(stream).poll_read(cx, buffer);
        self.safety.read += (buffer.filled().len() - before) as u64;
        result
    }

    fn read_socket_up_to(
        &mut self,
        limit: usize,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Read {
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(limit.min(buffer.remaining())));
        ready!(self.read_socket(cx, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }

    /// Behind what is unread.
    fn read_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut unread = std::mem::take(&mut self.unread);
        let before = unread.len();
        unread.resize(before + PIECE, 0);
        let mut piece = ReadBuf::new(&mut unread[before..]);
        let result = self.read_socket(cx, &mut piece);
        let read = piece.filled().len();
        unread.truncate(before + read);
        self.unread = unread;
        result.map_ok(|()| read)
    }
}

enum Seen {
    Nothing,
    Something,
    End(io::Result<()>),
}
