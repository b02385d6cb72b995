//! Messages to a worker about sessions, draining and closes, until its channel has room for them.
//!
//! Never loses anything, and never grows without bound: there are as many answers as offers may wait,
//! grants add up, and of orders the last one counts.

use crate::handover::carry;
use crate::handover::link::{OutboxSnapshot, QuestionSnapshot};
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{
    BATCH, CENSUS, MAX_IDS, PING, ToWorker, encode_close, encode_drain, encode_move, encode_moved,
    encode_report, encode_returned,
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
    pub(super) censuses: u32,
    pub(super) moves: Vec<ConnectionId>,
    pub(super) closes: u32,
}

carry!(struct Outbox => OutboxSnapshot { question, moved, returned, drain, censuses, moves, closes });

/// The question for a worker that had another primary before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Ping,
    /// With this number.
    Report(u64),
}

carry!(enum Question => QuestionSnapshot { Ping, Report(number) });

/// The kind of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Question(Question),
    Moved,
    Returned,
    Drain,
    Census,
    Move,
    Close,
}

impl Outbox {
    /// The message to send first: answers before orders, and before all that the question.
    pub(super) fn next(&self) -> Option<Note> {
        if let Some(question) = self.question {
            return Some(Note::Question(question));
        }
        let waiting = [
            (Note::Moved, !self.moved.is_empty()),
            (Note::Returned, !self.returned.is_empty()),
            (Note::Drain, self.drain.is_some()),
            (Note::Census, self.censuses > 0),
            (Note::Move, !self.moves.is_empty()),
            (Note::Close, self.closes > 0),
        ];
        waiting.into_iter().find(|(_, waits)| *waits).map(|(note, _)| note)
    }

    /// Its message, in `buffer`.
    pub(super) fn encode<'a>(&self, note: Note, buffer: &'a mut [u8; MAX_IDS]) -> &'a [u8] {
        let short: &[u8] = match note {
            Note::Question(Question::Ping) => &PING,
            Note::Question(Question::Report(number)) => &encode_report(number),
            Note::Moved => return encode_moved(buffer, self.moved.iter().copied()),
            Note::Returned => return encode_returned(buffer, self.returned.iter().copied()),
            Note::Move => return encode_move(buffer, self.moves.iter().copied()),
            Note::Drain => match self.drain {
                Some(order) => &encode_drain(order),
                None => &[],
            },
            Note::Census => &CENSUS,
            Note::Close => &encode_close(self.closes),
        };
        buffer[..short.len()].copy_from_slice(short);
        &buffer[..short.len()]
    }

    /// It was sent. Returns the offers that it answers.
    pub(super) fn sent(&mut self, note: Note) -> Vec<ConnectionId> {
        match note {
            Note::Question(_) => self.question = None,
            Note::Moved => return first(&mut self.moved),
            Note::Returned => return first(&mut self.returned),
            Note::Move => drop(first(&mut self.moves)),
            Note::Drain => self.drain = None,
            Note::Census => self.censuses -= 1,
            Note::Close => self.closes = 0,
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
            ToWorker::Census => self.censuses += 1,
            ToWorker::Close(count) => self.closes = self.closes.saturating_add(*count),
            _ => {}
        }
        Vec::new()
    }
}

fn first(ids: &mut Vec<ConnectionId>) -> Vec<ConnectionId> {
    ids.drain(..ids.len().min(BATCH)).collect()
}
