//! The state that a stream and its handles share: where a connection stands, and when it may be
//! detached.
//!
//! Never waits and wakes nothing itself: it says which tasks to wake, so that the lock is free by
//! then.

use std::fmt;
use std::task::{Context, Waker};
use tokio::time::Instant;

use bytes::BytesMut;
use tokio::net::TcpStream;

use crate::worker::guard::{ConnectionGuard, Ending};
#[cfg(feature = "hyper")]
use crate::worker::http_limits::HttpLimits;
use crate::worker::session::checkpoint::Checkpoint;
use crate::worker::session::follow::answer::Answer;
use crate::worker::session::follow::frames::Frames;
use crate::worker::session::follow::negotiated::{Negotiated, Obstacle};
use crate::worker::session::follow::requests::Requests;
use crate::worker::session::image::{ConnectionState, Kind};
use crate::worker::session::parts::{Detached, Finished, ForceDetached};
use crate::worker::session::protection::Protection;
use crate::worker::session::shape::Shape;
use crate::worker::session::waiting::Waiting;

/// The protocol that both sides speak now.
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
    /// Anything. The answer to the last request may be followed all the same.
    Unknown,
    /// Nothing more: the replay had another answer, and the client has its close frame.
    Rejected,
}

/// How far the stream is on its way out of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The library serves it.
    Serving,
    /// The library gets the rest of what it is reading, and no more.
    Stopping,
    /// The library has handled all of that, and waits for more.
    Drained,
    /// Nothing is written, either.
    Held {
        /// The library has tried to write or to end since.
        write_refused: bool,
    },
    /// The socket was taken.
    Detached,
    /// The library has dropped its end.
    Dropped,
}

/// Bytes that were read from the socket and not by the library.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) unread: BytesMut,
    /// Of these, the first that may be delivered, whatever follows.
    pub(super) deliverable: usize,
    /// The first that are known to be the beginning of a head and no more.
    pub(super) partial: usize,
    /// Bytes of a request's body that are left on the socket.
    pub(super) body: u64,
    /// For the next request.
    pub(super) waiting: Waiting,
    /// Nothing more comes.
    pub(super) is_ended: bool,
}

impl Input {
    fn new() -> Self {
        Self {
            unread: BytesMut::new(),
            deliverable: 0,
            partial: 0,
            body: 0,
            waiting: Waiting::new(Instant::now()),
            is_ended: false,
        }
    }
}

/// The request that became a WebSocket.
#[derive(Debug, Default)]
pub(super) struct UpgradeRequest {
    pub(super) head: Vec<u8>,
    /// In a replay, how much of it was delivered.
    pub(super) replayed: usize,
    /// The answer that the client has got, as far as it is known.
    pub(super) negotiated: Option<Negotiated>,
    /// The reason why it can't migrate, if there is one.
    pub(super) obstacle: Option<Obstacle>,
}

/// The library's output.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// There is more than the socket took.
    pub(super) is_pending: bool,
    /// The library has ended its side.
    pub(super) is_shut: bool,
    /// It was closed here, and neither by its client nor for what that has sent, nor with its worker.
    pub(super) is_closed_here: bool,
}

/// The library's tasks.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// The reader can't go on before something is written.
    pub(super) reader_waits: bool,
    /// The library's last read found nothing, and the library waits.
    pub(super) is_reading: bool,
}

pub(super) struct State {
    /// Gone when the connection is detached or ended.
    pub(super) stream: Option<TcpStream>,
    pub(super) guard: Option<ConnectionGuard>,
    pub(super) phase: Phase,
    /// The time when the phase began that only an end ends.
    pub(super) since: Instant,
    pub(super) stage: Stage,
    pub(super) input: Input,
    pub(super) upgrade: UpgradeRequest,
    pub(super) answer: Answer,
    pub(super) requests: Requests,
    pub(super) read: Frames,
    pub(super) written: Frames,
    pub(super) output: Output,
    pub(super) protection: Protection,
    pub(super) shape: Shape,
    pub(super) wakers: Wakers,
}

/// Tasks to wake when the lock is free.
pub(super) type Wake = [Option<Waker>; 2];

impl State {
    pub(super) fn new(stream: TcpStream, guard: Option<ConnectionGuard>) -> Self {
        Self {
            stream: Some(stream),
            guard,
            phase: Phase::Http,
            since: Instant::now(),
            stage: Stage::Serving,
            input: Input::new(),
            upgrade: UpgradeRequest::default(),
            answer: Answer::default(),
            requests: Requests::new(),
            read: Frames::default(),
            written: Frames::default(),
            output: Output::default(),
            protection: Protection::default(),
            shape: Shape::default(),
            wakers: Wakers::default(),
        }
    }

    /// Goes on where another worker has left it.
    pub(super) fn restore(
        &mut self,
        connection: ConnectionState,
        checkpoint: Option<Box<Checkpoint>>,
    ) {
        self.phase = match connection.kind {
            Kind::Http => Phase::Http,
            Kind::WebSocket => Phase::Replay,
            Kind::Closing | Kind::Unknown | Kind::Ended => Phase::Unknown,
        };
        match self.phase {
            Phase::Http => self.input.waiting = Waiting::decode(&connection.head, Instant::now()),
            _ => self.upgrade.head = connection.head,
        }
        self.upgrade.negotiated = connection.negotiated;
        if self.phase == Phase::Replay {
            self.answer.expect();
        }
        self.input.unread = BytesMut::from(connection.unread.as_slice());
        self.protection.checkpoint = checkpoint;
    }

    pub(super) fn kind(&self) -> Kind {
        if self.stream.is_none() {
            return Kind::Ended;
        }
        match self.phase {
            Phase::Unknown => Kind::Unknown,
            Phase::Rejected => Kind::Closing,
            _ if self.is_closing() => Kind::Closing,
            Phase::Http | Phase::Wait => Kind::Http,
            Phase::Replay | Phase::WebSocket => Kind::WebSocket,
        }
    }

    /// One of the two sides closes, and is to finish that here.
    pub(super) fn is_closing(&self) -> bool {
        self.output.is_shut || self.read.closing() || self.written.closing()
    }

    /// This side closes. If the client is here and has sent nothing to this worker, it is closed from
    /// here: one that has sent something may have broken a rule by it.
    pub(super) fn note_closing(&mut self) {
        let is_here = self.stream.is_some() && !self.input.is_ended;
        self.output.is_closed_here |= is_here && self.protection.read == 0;
    }

    /// The library gets no more than the rest of what it is reading.
    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.stage, Stage::Stopping | Stage::Drained | Stage::Held { .. })
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.stage, Stage::Held { .. })
    }

    /// Nothing in this process serves it any more.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Detached | Stage::Dropped) || self.is_rejected()
    }

    pub(super) fn is_rejected(&self) -> bool {
        self.phase == Phase::Rejected
    }

    /// The library has nothing half read.
    pub(super) fn read_at_boundary(&self) -> bool {
        match self.phase {
            Phase::Http => {
                self.input.deliverable == 0 && self.input.body == 0 && self.requests.idle()
            }
            Phase::WebSocket => self.read.between_messages(),
            _ => false,
        }
    }

    /// The library has nothing half written, as far as can be seen.
    pub(super) fn written_at_boundary(&self) -> bool {
        let is_whole = self.phase != Phase::WebSocket || self.written.between_messages();
        !self.output.is_pending && is_whole && !self.shape.is_pending()
    }

    /// The library has never wanted a message: there is none that it could have half handled.
    pub(super) fn never_received(&self) -> bool {
        self.phase == Phase::WebSocket && self.shape.never_received()
    }

    /// The library could send and receive, and doesn't wait for a message.
    pub(super) fn does_not_receive(&self) -> bool {
        self.phase == Phase::WebSocket && !self.wakers.is_reading && !self.output.is_pending
    }

    pub(super) fn at_boundary(&self) -> bool {
        !self.is_closing() && self.read_at_boundary() && self.written_at_boundary()
    }

    /// It is an HTTP connection whose client takes too long with its request.
    #[cfg(feature = "hyper")]
    pub(super) fn is_overdue(&self, limits: &HttpLimits, now: Instant) -> bool {
        let waits = self.phase == Phase::Http && self.stage == Stage::Serving;
        let waits = waits && self.read_at_boundary() && self.written_at_boundary();
        waits && self.input.waiting.is_overdue(limits, self.input.partial > 0, now)
    }

    /// The library serves it, waits for more, and has nothing half done.
    pub(super) fn is_at_rest(&self) -> bool {
        self.stage == Stage::Serving && self.wakers.is_reading && self.at_boundary()
    }

    pub(super) fn stop(&mut self) -> Wake {
        if self.stage != Stage::Serving {
            return Wake::default();
        }
        self.stage = Stage::Stopping;
        [self.wakers.reader.take(), None]
    }

    pub(super) fn go_on(&mut self) -> Wake {
        if !self.is_stopping() {
            return Wake::default();
        }
        self.stage = Stage::Serving;
        [self.wakers.reader.take(), self.wakers.writer.take()]
    }

    /// The library has done something since it was drained.
    pub(super) fn note_activity(&mut self) -> bool {
        let was_drained = self.stage == Stage::Drained;
        if was_drained {
            self.stage = Stage::Stopping;
        }
        was_drained
    }

    /// A write or an end that comes while it is held: what it was is unknown.
    pub(super) fn refuse_write(&mut self) -> bool {
        let is_held = self.is_held();
        if is_held {
            self.stage = Stage::Held { write_refused: true };
        }
        is_held
    }

    /// Holds it if it is at a boundary: as its reader waits, or as its handler says that it has
    /// written its last since it was drained.
    pub(super) fn hold(&mut self, handler_is_done: bool) -> (bool, Wake) {
        if self.is_held() {
            return (true, Wake::default());
        }
        let is_drained = self.stage == Stage::Drained || handler_is_done && self.is_stopping();
        let is_portable = self.obstacle().is_none();
        // The primary must know of a protected session before it is offered.
        let is_known =
            self.protection.checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.is_sent());
        if self.stream.is_some() && is_drained && is_known && is_portable && self.at_boundary() {
            self.stage = Stage::Held { write_refused: false };
            return (true, Wake::default());
        }
        // It is drained again when the reader comes to a boundary again.
        self.note_activity();
        (false, [self.wakers.reader.take(), None])
    }

    pub(super) fn release(&mut self) -> Wake {
        if !self.is_held() {
            return Wake::default();
        }
        self.stage = Stage::Stopping;
        [self.wakers.reader.take(), self.wakers.writer.take()]
    }

    pub(super) fn detach(&mut self) -> (Option<Detached>, Wake) {
        if self.stage != (Stage::Held { write_refused: false }) {
            return (None, self.release());
        }
        let Some(stream) = self.stream.take() else { return (None, Wake::default()) };
        let (guard, checkpoint) = (self.guard.take(), self.protection.checkpoint.take());
        let connection = self.take_connection();
        (Some(Detached { stream, guard, connection, checkpoint }), self.note_detached())
    }

    fn take_connection(&mut self) -> ConnectionState {
        let UpgradeRequest { head, negotiated, .. } = std::mem::take(&mut self.upgrade);
        let unread = std::mem::take(&mut self.input.unread).into();
        match self.phase {
            Phase::WebSocket => ConnectionState { kind: Kind::WebSocket, head, negotiated, unread },
            _ => {
                let head = self.input.waiting.encode(Instant::now());
                ConnectionState { kind: Kind::Http, head, negotiated: None, unread }
            }
        }
    }

    pub(super) fn force_detach(&mut self) -> (Option<ForceDetached>, Wake) {
        let is_unclosed = self.is_unclosed_websocket();
        let Some(stream) = self.stream.take() else { return (None, Wake::default()) };
        let at_frame_boundary = match self.phase {
            // The library's answer is not sent.
            Phase::Replay => true,
            Phase::WebSocket => {
                self.written.between_frames() && !self.written.closing() && !self.output.is_shut
            }
            _ => false,
        };
        if is_unclosed {
            self.note_ending(if at_frame_boundary { Ending::Closed } else { Ending::Cut });
        }
        let (guard, checkpoint) = (self.guard.take(), self.protection.checkpoint.take());
        let detached = ForceDetached { stream, guard, at_frame_boundary, checkpoint };
        (Some(detached), self.note_detached())
    }

    /// It is a WebSocket, its client is here, and neither side closes it.
    pub(super) fn is_unclosed_websocket(&self) -> bool {
        self.kind() == Kind::WebSocket && !self.input.is_ended
    }

    pub(super) fn note_ending(&mut self, ending: Ending) {
        if let Some(guard) = &mut self.guard {
            guard.note_ending(ending);
        }
    }

    fn note_detached(&mut self) -> Wake {
        self.stage = Stage::Detached;
        [self.wakers.reader.take(), self.wakers.writer.take()]
    }

    /// The library has dropped its end. A socket whose replay was rejected stays, so that it may
    /// linger; anything else is returned.
    pub(super) fn finish(&mut self) -> (Option<Finished>, Wake) {
        if self.stage != Stage::Detached {
            self.note_closing();
            self.stage = Stage::Dropped;
        }
        let wake = [self.wakers.reader.take(), self.wakers.writer.take()];
        if self.is_rejected() {
            return (None, wake);
        }
        let (guard, checkpoint) = (self.guard.take(), self.protection.checkpoint.take());
        (self.stream.take().map(|stream| Finished { stream, guard, checkpoint }), wake)
    }

    /// If the reader waits for a write, and that has come.
    pub(super) fn reader_to_wake(&mut self) -> Option<Waker> {
        if !self.wakers.reader_waits {
            return None;
        }
        let goes_on = match self.phase {
            Phase::Http => self.requests.answered(),
            Phase::Wait | Phase::Replay => false,
            Phase::WebSocket => {
                let is_drained = self.stage == Stage::Drained || self.is_held();
                !self.is_stopping()
                    || self.is_closing()
                    || !is_drained && self.written_at_boundary()
            }
            Phase::Unknown | Phase::Rejected => true,
        };
        if !goes_on {
            return None;
        }
        self.wakers.reader_waits = false;
        self.wakers.reader.take()
    }

    /// The server has agreed to a WebSocket.
    pub(super) fn become_websocket(&mut self, negotiated: Negotiated) {
        let is_asked_for = matches!(self.phase, Phase::Wait | Phase::Replay);
        if self.phase == Phase::Unknown || self.input.body > 0 || self.input.deliverable > 0 {
            self.read = Frames::lost();
        }
        self.upgrade.obstacle =
            if is_asked_for { negotiated.obstacle() } else { Some(Obstacle::Request) };
        self.upgrade.negotiated = Some(negotiated);
        self.phase = Phase::WebSocket;
        self.since = Instant::now();
        if let Some(guard) = &mut self.guard {
            guard.note_websocket(self.upgrade.obstacle.is_none());
        }
    }

    /// Whether the answer to the request that was read again, as the client got it or not, goes on
    /// from the one that the client has.
    pub(super) fn continues(&self, negotiated: &Negotiated) -> bool {
        let before = self.upgrade.negotiated.as_ref();
        // Nothing else can have migrated rightly.
        negotiated.obstacle().is_none() && before.is_none_or(|before| before.means(negotiated))
    }

    /// The reason why the WebSocket can't migrate, if there is one.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        self.upgrade.obstacle
    }

    /// The request's path, if it is a WebSocket's.
    pub(super) fn path(&self) -> Option<String> {
        let line = self.upgrade.head.split(|byte| *byte == b'\r').next()?;
        let target = str::from_utf8(line).ok()?.split(' ').nth(1)?;
        Some(target.split('?').next()?.to_owned())
    }
}

/// Stores the waker; returns the one before, to be dropped when the lock is free.
pub(super) fn park(place: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    match place {
        Some(parked) if parked.will_wake(cx.waker()) => None,
        _ => place.replace(cx.waker().clone()),
    }
}

/// Without what the client has sent, which may be secret.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("stream", &self.stream)
            .field("phase", &self.phase)
            .field("stage", &self.stage)
            .field("unread", &self.input.unread.len())
            .field("requests", &self.requests)
            .field("read", &self.read)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}
