//! A dialect for tests alone, the proof that another one fits: lines of JSON over a stream socket, each connection
//! a line with its descriptor. Lines are written and read in pieces, so that parts of lines are the rule.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use crate::link::connection::PendingConnection;
use crate::link::dialect::Dialect;
use crate::link::error::{ChannelError, was_queued};
use crate::link::event::LinkEvent;
use crate::link::in_flight::InFlight;
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::ConnectionId;
use crate::protocol::scm_rights::{Received, receive_without_descriptors, send};

type Result<T> = std::result::Result<T, ChannelError>;

/// Bytes that are written and read at a time.
pub(super) const PIECE: usize = 7;

/// A line: the first two to the worker, the others to the primary, which completes the oldest first.
#[derive(Serialize, Deserialize)]
pub(super) enum Line {
    Connection(u64),
    Drain,
    Attached,
    Ready,
    Acknowledged(u64),
    Refused(u64),
}

/// The primary's end.
#[derive(Debug)]
pub struct JsonLines {
    socket: UnixStream,
    worker_end: UnixStream,
    in_flight: InFlight,
    completed: u64,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

pub(super) fn encode(message: &Line) -> Vec<u8> {
    [serde_json::to_vec(message).unwrap_or_default(), b"\n".to_vec()].concat()
}

impl JsonLines {
    pub(super) fn create(credits: usize) -> std::io::Result<(Self, UnixStream)> {
        let (socket, worker_end) = UnixStream::pair()?;
        let end = worker_end.try_clone()?;
        let (in_flight, incoming, outgoing) = (InFlight::new(credits), Vec::new(), Vec::new());
        Ok((Self { socket, worker_end, in_flight, completed: 0, incoming, outgoing }, end))
    }
}

impl Dialect for JsonLines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    fn in_flight_mut(&mut self) -> &mut InFlight {
        &mut self.in_flight
    }

    /// The descriptor goes with the first piece.
    fn send(&mut self, queue: &VecDeque<PendingConnection>, _: usize) -> Result<bool> {
        self.send_outgoing()?;
        let Some(first) = queue.front().filter(|_| !self.has_outgoing()) else { return Ok(false) };
        let line = encode(&Line::Connection(first.record.id.0));
        if !was_queued(send(&self.socket, &line[..PIECE], &[first.socket.as_fd()])?)? {
            return Ok(false);
        }
        self.outgoing.extend(&line[PIECE..]);
        self.send_outgoing().map(|()| true)
    }

    fn receive(&mut self) -> Result<LinkEvent> {
        while !self.incoming.contains(&b'\n') {
            let mut piece = [0; PIECE];
            match receive_without_descriptors(&self.socket, &mut piece)? {
                Received::Message { length, .. } => self.incoming.extend(&piece[..length]),
                Received::Empty => return Ok(LinkEvent::Nothing),
                Received::Closed => return Err(ChannelError::Closed),
            }
        }
        let line: Vec<_> = self.incoming.iter().copied().take_while(|it| *it != b'\n').collect();
        self.incoming.drain(..=line.len());
        Ok(match serde_json::from_slice(&line).map_err(|error| ChannelError::Io(error.into()))? {
            Line::Attached => LinkEvent::Attached,
            Line::Ready => LinkEvent::Ready,
            Line::Acknowledged(count) => {
                self.completed += count;
                LinkEvent::Acknowledged(count)
            }
            Line::Refused(id) => {
                self.completed += 1;
                LinkEvent::Refused(self.in_flight.refuse(ConnectionId(id)).into_iter().collect())
            }
            Line::Connection(_) | Line::Drain => return Err(ChannelError::NoHello),
        })
    }

    fn complete(&mut self, done: impl FnMut(PendingConnection)) -> Result<Option<usize>> {
        self.in_flight.complete(self.completed, self.in_flight.counts().refused, done)
    }

    /// The rest of a line that the worker has begun to read is sent again: it has the descriptor.
    fn take_back(&mut self) -> Vec<PendingConnection> {
        let (mut unread, mut taken, mut bytes) = (Vec::new(), Vec::new(), [0; 4096]);
        let end = &self.worker_end;
        while let Ok(Received::Message { length, .. }) =
            receive_without_descriptors(end, &mut bytes)
        {
            unread.extend(&bytes[..length]);
        }
        unread.append(&mut self.outgoing);
        for line in unread.split_inclusive(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Line::Connection(id)) => taken.extend(self.in_flight.withdraw(ConnectionId(id))),
                _ => self.outgoing.extend(line),
            }
        }
        taken
    }

    fn drain(&mut self, _: DrainOrder) {
        self.outgoing.extend(encode(&Line::Drain));
    }

    fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    fn send_outgoing(&mut self) -> Result<()> {
        loop {
            let piece = self.outgoing.len().min(PIECE);
            if piece == 0 || !was_queued(send(&self.socket, &self.outgoing[..piece], &[])?)? {
                return Ok(());
            }
            self.outgoing.drain(..piece);
        }
    }
}
