//! Messages to a worker about sessions, draining and closes, until its channel has room for them.
//!
//! Never loses anything, and never grows without bound: there are as many answers as offers may wait,
//! grants add up, and of orders the last one counts.

use crate::handover::carry;
use crate::handover::link::{OutboxSnapshot, QuestionSnapshot};
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{
    BATCH, LIST_SESSIONS, MAX_IDS, PING, ToWorker, encode_close_grant, encode_drain, encode_move,
    encode_moved, encode_resync, encode_returned,
};

/// Messages that wait for room.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The question of a primary that has taken the place of another.
    pub(super) question: Option<Question>,
    pub(super) moved: Vec<ConnectionId>,
    pub(super) returned: Vec<ConnectionId>,
    pub(super) drain: Option<DrainOrder>,
    /// Their number.
    pub(super) session_lists: u32,
    pub(super) moves: Vec<ConnectionId>,
    pub(super) close_grants: u32,
}

carry!(struct Outbox => OutboxSnapshot { question, moved, returned, drain, session_lists, moves, close_grants });

/// The question for a worker that had another primary before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Ping,
    /// With this number.
    Resync(u64),
}

carry!(enum Question => QuestionSnapshot { Ping, Resync(number) });

/// The kind of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    Question(Question),
    Moved,
    Returned,
    Drain,
    ListSessions,
    Move,
    CloseGrant,
}

impl Outbox {
    /// The message to send first: answers before orders, and before all that the question.
    pub(super) fn next(&self) -> Option<Outgoing> {
        if let Some(question) = self.question {
            return Some(Outgoing::Question(question));
        }
        let waiting = [
            (Outgoing::Moved, !self.moved.is_empty()),
            (Outgoing::Returned, !self.returned.is_empty()),
            (Outgoing::Drain, self.drain.is_some()),
            (Outgoing::ListSessions, self.session_lists > 0),
            (Outgoing::Move, !self.moves.is_empty()),
            (Outgoing::CloseGrant, self.close_grants > 0),
        ];
        waiting.into_iter().find(|(_, waits)| *waits).map(|(outgoing, _)| outgoing)
    }

    /// Its message, in `buffer`.
    pub(super) fn encode<'a>(&self, outgoing: Outgoing, buffer: &'a mut [u8; MAX_IDS]) -> &'a [u8] {
        let short: &[u8] = match outgoing {
            Outgoing::Question(Question::Ping) => &PING,
            Outgoing::Question(Question::Resync(number)) => &encode_resync(number),
            Outgoing::Moved => return encode_moved(buffer, self.moved.iter().copied()),
            Outgoing::Returned => return encode_returned(buffer, self.returned.iter().copied()),
            Outgoing::Move => return encode_move(buffer, self.moves.iter().copied()),
            Outgoing::Drain => match self.drain {
                Some(order) => &encode_drain(order),
                None => &[],
            },
            Outgoing::ListSessions => &LIST_SESSIONS,
            Outgoing::CloseGrant => &encode_close_grant(self.close_grants),
        };
        buffer[..short.len()].copy_from_slice(short);
        &buffer[..short.len()]
    }

    /// It was sent. Returns the offers that it answers.
    pub(super) fn sent(&mut self, outgoing: Outgoing) -> Vec<ConnectionId> {
        match outgoing {
            Outgoing::Question(_) => self.question = None,
            Outgoing::Moved => return first(&mut self.moved),
            Outgoing::Returned => return first(&mut self.returned),
            Outgoing::Move => drop(first(&mut self.moves)),
            Outgoing::Drain => self.drain = None,
            Outgoing::ListSessions => self.session_lists -= 1,
            Outgoing::CloseGrant => self.close_grants = 0,
        }
        Vec::new()
    }

    /// The worker has not received this message and never will: to be sent again. Returns the
    /// offers that are unanswered by that.
    pub(super) fn requeue(&mut self, message: &ToWorker<'_>) -> Vec<ConnectionId> {
        match message {
            ToWorker::Moved(ids) => {
                self.moved.extend(ids.iter());
                return ids.iter().collect();
            }
            ToWorker::Returned(ids) => {
                self.returned.extend(ids.iter());
                return ids.iter().collect();
            }
            ToWorker::Move(ids) => self.moves.extend(ids.iter()),
            // If one waits already, it is newer.
            ToWorker::Drain(order) => drop(self.drain.get_or_insert(*order)),
            ToWorker::ListSessions => self.session_lists += 1,
            ToWorker::CloseGrant(count) => {
                self.close_grants = self.close_grants.saturating_add(*count)
            }
            _ => {}
        }
        Vec::new()
    }
}

fn first(ids: &mut Vec<ConnectionId>) -> Vec<ConnectionId> {
    ids.drain(..ids.len().min(BATCH)).collect()
}
