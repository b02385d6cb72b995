//! What a gate and its handles share: where a connection stands, and when it may leave.
//!
//! Never waits and never wakes anybody itself: it says whom to wake, so that the lock is free by
//! then.

use std::fmt;
use std::task::{Context, Waker};

use bytes::BytesMut;
use tokio::net::TcpStream;

use crate::worker::connection::ConnectionGuard;
use crate::worker::session::checkpoint::Kept;
use crate::worker::session::follow::answer::Answer;
use crate::worker::session::follow::frames::Frames;
use crate::worker::session::follow::requests::Requests;
use crate::worker::session::handle::{Baggage, Kind, Seized, Taken};
use crate::worker::session::resting::Safety;

/// What is expected from both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests and answers.
    Http,
    /// A client has asked for a WebSocket; until the server's answer is written nothing is read.
    Wait,
    /// The head of a request that another worker has answered is read again, and the answer is
    /// swallowed.
    Replay,
    /// Frames.
    WebSocket,
    /// Anything.
    Unknown,
    /// Nothing more: the replay had another answer, the client has its close frame.
    Refused,
}

pub(super) struct State {
    /// Gone when taken or ended.
    pub(super) stream: Option<TcpStream>,
    pub(super) guard: Option<ConnectionGuard>,
    pub(super) phase: Phase,

    /// Read from the socket, and of these the first that may be delivered whatever follows.
    pub(super) unread: BytesMut,
    pub(super) cleared: usize,
    /// The first that are known to be the beginning of a head and no more.
    pub(super) partial: usize,
    /// What is left on the socket of a request's body.
    pub(super) body: u64,
    /// Of the request that became a WebSocket; in a replay, how much of it was delivered.
    pub(super) head: Vec<u8>,
    pub(super) replayed: usize,
    pub(super) answer: Answer,
    pub(super) requests: Requests,
    pub(super) read: Frames,
    pub(super) written: Frames,
    /// The library has more to write than the socket took.
    pub(super) owes: bool,
    /// The library has ended its side.
    pub(super) shut: bool,
    pub(super) safety: Safety,

    /// Asked to stop; has stopped; must not even write.
    pub(super) stop: bool,
    pub(super) drained: bool,
    pub(super) held: bool,
    /// Somebody tried to write, or to end, while held.
    pub(super) write_refused: bool,
    pub(super) left: bool,
    pub(super) dropped: bool,

    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// The reader can't go on before something is written.
    pub(super) reader_waits: bool,
}

/// What a library leaves that is done with a connection.
pub(super) struct Left {
    pub(super) stream: TcpStream,
    pub(super) guard: Option<ConnectionGuard>,
    pub(super) kept: Option<Box<Kept>>,
}

/// Whom to wake when the lock is free.
pub(super) type Wake = [Option<Waker>; 2];

impl State {
    pub(super) fn new(stream: TcpStream, guard: Option<ConnectionGuard>) -> Self {
        Self {
            stream: Some(stream),
            guard,
            phase: Phase::Http,
            unread: BytesMut::new(),
            cleared: 0,
            partial: 0,
            body: 0,
            head: Vec::new(),
            replayed: 0,
            answer: Answer::default(),
            requests: Requests::new(),
            read: Frames::default(),
            written: Frames::default(),
            owes: false,
            shut: false,
            safety: Safety::default(),
            stop: false,
            drained: false,
            held: false,
            write_refused: false,
            left: false,
            dropped: false,
            reader: None,
            writer: None,
            reader_waits: false,
        }
    }

    pub(super) fn unpack(&mut self, baggage: Baggage) {
        self.phase = match baggage.kind {
            Kind::Http => Phase::Http,
            Kind::WebSocket => Phase::Replay,
            Kind::Closing | Kind::Unknown | Kind::Ended => Phase::Unknown,
        };
        self.head = baggage.head;
        self.unread = BytesMut::from(baggage.unread.as_slice());
    }

    pub(super) fn kind(&self) -> Kind {
        if self.stream.is_none() {
            return Kind::Ended;
        }
        match self.phase {
            Phase::Unknown => Kind::Unknown,
            Phase::Refused => Kind::Closing,
            _ if self.closing() => Kind::Closing,
            Phase::Http | Phase::Wait => Kind::Http,
            Phase::Replay | Phase::WebSocket => Kind::WebSocket,
        }
    }

    /// One of the two sides says goodbye, and is to finish that here.
    pub(super) fn closing(&self) -> bool {
        self.shut || self.read.closing() || self.written.closing()
    }

    /// The library has nothing half read.
    pub(super) fn read_at_boundary(&self) -> bool {
        match self.phase {
            Phase::Http => self.cleared == 0 && self.body == 0 && self.requests.idle(),
            Phase::WebSocket => self.read.between_messages(),
            _ => false,
        }
    }

    /// The library has nothing half written, as far as can be seen.
    pub(super) fn written_at_boundary(&self) -> bool {
        !self.owes && (self.phase != Phase::WebSocket || self.written.between_messages())
    }

    pub(super) fn at_boundary(&self) -> bool {
        !self.closing() && self.read_at_boundary() && self.written_at_boundary()
    }

    pub(super) fn stop(&mut self, stop: bool) -> Wake {
        if self.stop == stop {
            return Wake::default();
        }
        self.stop = stop;
        self.drained = false;
        [self.reader.take(), None]
    }

    /// Holds it if it is at a boundary: by the reader's own word, or by that of a handler which has
    /// been drained before and says that it has written its last.
    pub(super) fn hold(&mut self, departed: bool) -> (bool, Wake) {
        if self.held {
            return (true, Wake::default());
        }
        let proven = self.drained || departed && self.stop;
        // What the primary doesn't know of yet would be heard of too late.
        let known = self.safety.kept.as_ref().is_none_or(|kept| kept.is_told());
        self.held = self.stream.is_some() && proven && known && self.at_boundary();
        self.write_refused = false;
        if self.held {
            return (true, Wake::default());
        }
        // It tells again when the reader comes to a boundary again.
        self.drained = false;
        (false, [self.reader.take(), None])
    }

    pub(super) fn release(&mut self) -> Wake {
        if !std::mem::take(&mut self.held) {
            return Wake::default();
        }
        self.drained = false;
        [self.reader.take(), self.writer.take()]
    }

    pub(super) fn take(&mut self) -> (Option<Taken>, Wake) {
        if !self.held || self.write_refused {
            return (None, self.release());
        }
        let Some(stream) = self.stream.take() else { return (None, Wake::default()) };
        let (guard, kept) = (self.guard.take(), self.safety.kept.take());
        (Some(Taken { stream, guard, baggage: self.pack(), kept }), self.leave())
    }

    fn pack(&mut self) -> Baggage {
        let (kind, head) = match self.phase {
            Phase::WebSocket => (Kind::WebSocket, std::mem::take(&mut self.head)),
            _ => (Kind::Http, Vec::new()),
        };
        Baggage { kind, head, unread: std::mem::take(&mut self.unread).into() }
    }

    pub(super) fn seize(&mut self) -> (Option<Seized>, Wake) {
        let Some(stream) = self.stream.take() else { return (None, Wake::default()) };
        let at_frame_boundary = match self.phase {
            // What the library has written is not sent.
            Phase::Replay => true,
            Phase::WebSocket => {
                self.written.between_frames() && !self.written.closing() && !self.shut
            }
            _ => false,
        };
        let (guard, kept) = (self.guard.take(), self.safety.kept.take());
        let seized = Seized { stream, guard, at_frame_boundary, kept };
        (Some(seized), self.leave())
    }

    pub(super) fn refused(&self) -> bool {
        self.phase == Phase::Refused
    }

    /// The library is done with it. What is to be dropped is given back. A socket whose replay was
    /// refused stays, so that it may linger.
    pub(super) fn drop_gate(&mut self) -> (Option<Left>, Wake) {
        self.abandon();
        self.dropped = true;
        self.drained = false;
        self.held = false;
        let wakers = [self.reader.take(), self.writer.take()];
        if self.refused() {
            return (None, wakers);
        }
        let (guard, kept) = (self.guard.take(), self.safety.kept.take());
        (self.stream.take().map(|stream| Left { stream, guard, kept }), wakers)
    }

    fn leave(&mut self) -> Wake {
        self.left = true;
        self.held = false;
        self.drained = false;
        [self.reader.take(), self.writer.take()]
    }

    /// If the reader waits for what is written, and that has come.
    pub(super) fn reader_to_wake(&mut self) -> Option<Waker> {
        if !self.reader_waits {
            return None;
        }
        let goes_on = match self.phase {
            Phase::Http => self.requests.answered(),
            Phase::Wait | Phase::Replay => false,
            Phase::WebSocket => {
                !self.stop || self.closing() || !self.drained && self.written_at_boundary()
            }
            Phase::Unknown | Phase::Refused => true,
        };
        if !goes_on {
            return None;
        }
        self.reader_waits = false;
        self.reader.take()
    }

    /// Keeps the waker; gives back what was kept before, to be dropped when the lock is free.
    pub(super) fn park(place: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
        match place {
            Some(kept) if kept.will_wake(cx.waker()) => None,
            _ => place.replace(cx.waker().clone()),
        }
    }
}

/// Without what the client has sent, which may be secret.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("stream", &self.stream)
            .field("phase", &self.phase)
            .field("unread", &self.unread.len())
            .field("requests", &self.requests)
            .field("read", &self.read)
            .field("written", &self.written)
            .field("stop", &self.stop)
            .field("drained", &self.drained)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}
