//! Descriptors on their way to a Node worker, in the order in which it answers: first it says whether the
//! descriptor has come, then, for a connection to one of its servers, whether that has taken it.
//!
//! Pure.

use std::collections::VecDeque;

use crate::protocol::ids::{ConnectionId, Timestamp};

/// Lines with a descriptor that wait for an answer, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Handed {
    lines: VecDeque<Handover>,
    /// So many of the first have been answered with an ACK.
    acknowledged: usize,
    /// Connections that are answered, since the worker's start.
    completed: u64,
    /// When the ping was sent that waits for its answer.
    ping_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Handover {
    what: What,
    is_done: bool,
}

/// A line that is answered by ACK or NACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A connection with the number of its message; one that its program takes has none and is done with the ACK.
    Connection(ConnectionId, Option<u64>),
    /// The question whether the event loop is alive, which is answered by NACK.
    Ping,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// Nothing yet, or nothing that is known: it may answer the primary before.
    Nothing,
    /// The worker has this connection.
    Taken,
    /// The worker doesn't take this connection.
    Refused(ConnectionId),
    /// The event loop is alive.
    Pong,
}

impl Handed {
    /// A connection was sent, with this number in its message, if it has one.
    pub(super) fn sent(&mut self, id: ConnectionId, number: Option<u64>) {
        self.push(What::Connection(id, number));
    }

    /// A ping was sent.
    pub(super) fn ping_sent(&mut self, now: Timestamp) {
        self.ping_since = Some(now);
        self.push(What::Ping);
    }

    /// Since when a ping has waited for its answer.
    pub(super) fn ping_since(&self) -> Option<Timestamp> {
        self.ping_since
    }

    fn push(&mut self, what: What) {
        self.lines.push_back(Handover { what, is_done: false });
    }

    /// Whether a ping waits for its answer. No descriptor may be sent meanwhile: a stream glues a line without one and
    /// the next line with one together, and Node gives the descriptor to the first of them.
    pub(super) fn has_ping(&self) -> bool {
        self.ping_since.is_some()
    }

    /// The worker has gone on without an answer to its ping: it answers none.
    pub(super) fn forget_ping(&mut self) {
        if self.ping_since.take().is_some() {
            // It is the last line, since nothing follows it.
            self.lines.pop_back();
            self.acknowledged = self.acknowledged.min(self.lines.len());
        }
    }

    /// The connection of the message with this number.
    pub(super) fn connection(&self, number: u64) -> Option<ConnectionId> {
        self.connections().find(|(_, it)| *it == Some(number)).map(|(id, _)| id)
    }

    /// The connection that was sent last.
    pub(super) fn last_connection(&self) -> Option<ConnectionId> {
        self.connections().last().map(|(id, _)| id)
    }

    fn connections(&self) -> impl Iterator<Item = (ConnectionId, Option<u64>)> {
        self.lines.iter().filter_map(|line| match line.what {
            What::Connection(id, number) => Some((id, number)),
            What::Ping => None,
        })
    }

    /// Connections that the worker has answered since its start.
    pub(super) fn completed(&self) -> u64 {
        self.completed
    }

    /// The descriptor of the oldest line without an ACK has come.
    pub(super) fn ack(&mut self) -> Answered {
        let Some(line) = self.lines.get_mut(self.acknowledged) else { return Answered::Nothing };
        self.acknowledged += 1;
        match line.what {
            What::Connection(_, Some(_)) => return Answered::Nothing,
            What::Connection(_, None) | What::Ping => line.is_done = true,
        }
        let answered = if line.what == What::Ping { Answered::Pong } else { Answered::Taken };
        self.complete();
        answered
    }

    /// The descriptor of the oldest line without an ACK has not come.
    pub(super) fn nack(&mut self) -> Answered {
        let Some(line) = self.lines.get_mut(self.acknowledged) else { return Answered::Nothing };
        self.acknowledged += 1;
        line.is_done = true;
        let answered = match line.what {
            What::Connection(id, _) => Answered::Refused(id),
            What::Ping => Answered::Pong,
        };
        self.complete();
        answered
    }

    /// The connection of the message with this number was taken, or not.
    pub(super) fn answer(&mut self, number: u64, accepted: bool) -> Answered {
        let is_it = |line: &&mut Handover| {
            !line.is_done && matches!(line.what, What::Connection(_, Some(it)) if it == number)
        };
        let Some(line) = self.lines.iter_mut().find(is_it) else { return Answered::Nothing };
        line.is_done = true;
        let answered = match line.what {
            What::Connection(id, _) if !accepted => Answered::Refused(id),
            _ => Answered::Taken,
        };
        self.complete();
        answered
    }

    /// The worker has never received this connection.
    pub(super) fn withdraw(&mut self, id: ConnectionId) {
        let is_it = |line: &Handover| matches!(line.what, What::Connection(it, _) if it == id);
        if let Some(position) = self.lines.iter().rposition(is_it) {
            self.lines.remove(position);
            self.acknowledged -= usize::from(position < self.acknowledged);
        }
    }

    /// Those at the front that are done leave. One that is done before an older one waits for that.
    fn complete(&mut self) {
        while let Some(line) = self.lines.front().filter(|line| line.is_done) {
            match line.what {
                What::Ping => self.ping_since = None,
                What::Connection(..) => self.completed += 1,
            }
            self.lines.pop_front();
            // It was answered without an ACK: Deno's answers may overtake.
            self.acknowledged = self.acknowledged.saturating_sub(1);
        }
    }

    /// As a primary before has left it: the connections with their numbers, and the count.
    pub(super) fn restore(
        completed: u64,
        acknowledged: usize,
        lines: Vec<HandedLine>,
        now: Timestamp,
    ) -> Self {
        let lines: VecDeque<_> = lines
            .into_iter()
            .map(|(id, number, is_done)| Handover {
                what: id.map_or(What::Ping, |id| What::Connection(id, number)),
                is_done,
            })
            .collect();
        let ping_since = lines.back().filter(|line| line.what == What::Ping).map(|_| now);
        Self { acknowledged: acknowledged.min(lines.len()), lines, completed, ping_since }
    }

    /// For [`Handed::restore`].
    pub(super) fn into_parts(self) -> (u64, usize, Vec<HandedLine>) {
        let line = |line: Handover| match line.what {
            What::Connection(id, number) => (Some(id), number, line.is_done),
            What::Ping => (None, None, line.is_done),
        };
        (self.completed, self.acknowledged, self.lines.into_iter().map(line).collect())
    }
}

/// A line as plain data: the connection, none for a ping; the number of its message; whether it is done.
pub(super) type HandedLine = (Option<ConnectionId>, Option<u64>, bool);

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ConnectionId {
        ConnectionId(number)
    }

    #[test]
    fn connections_to_a_server_are_done_when_it_has_answered() {
        let mut handed = Handed::default();
        (1..=3).for_each(|number| handed.sent(id(number), Some(number * 10)));
        assert_eq!(handed.ack(), Answered::Nothing);
        assert_eq!(handed.answer(10, true), Answered::Taken);
        assert_eq!((handed.ack(), handed.ack()), (Answered::Nothing, Answered::Nothing));
        assert_eq!(handed.completed(), 1);
        // Out of order: the place waits.
        assert_eq!(handed.answer(30, false), Answered::Refused(id(3)));
        assert_eq!(handed.completed(), 1);
        assert_eq!(handed.answer(20, true), Answered::Taken);
        assert_eq!(handed.completed(), 3);
        assert_eq!(handed.answer(20, true), Answered::Nothing);
    }

    #[test]
    fn a_program_has_a_connection_with_the_ack() {
        let mut handed = Handed::default();
        handed.sent(id(1), None);
        handed.ping_sent(Timestamp(5));
        assert_eq!(handed.ack(), Answered::Taken);
        assert_eq!((handed.has_ping(), handed.ping_since()), (true, Some(Timestamp(5))));
        assert_eq!(handed.nack(), Answered::Pong);
        assert!(!handed.has_ping());
        handed.sent(id(2), None);
        assert_eq!(handed.nack(), Answered::Refused(id(2)));
        assert_eq!((handed.completed(), handed.ack()), (2, Answered::Nothing));
    }

    #[test]
    fn a_ping_that_is_not_answered_is_forgotten() {
        let mut handed = Handed::default();
        handed.ping_sent(Timestamp(5));
        handed.forget_ping();
        handed.forget_ping();
        handed.sent(id(1), Some(1));
        assert_eq!((handed.has_ping(), handed.ack()), (false, Answered::Nothing));
        assert_eq!(handed.answer(1, true), Answered::Taken);
    }

    #[test]
    fn what_the_worker_has_not_received_is_not_answered() {
        let mut handed = Handed::default();
        (1..=4).for_each(|number| handed.sent(id(number), Some(number)));
        handed.ack();
        handed.withdraw(id(3));
        handed.withdraw(id(4));
        assert_eq!(handed.answer(1, true), Answered::Taken);
        assert_eq!(handed.nack(), Answered::Refused(id(2)));
        assert_eq!(handed.completed(), 2);
        handed.sent(id(3), Some(9));
        let (completed, acknowledged, lines) = handed.into_parts();
        let mut handed = Handed::restore(completed, acknowledged, lines, Timestamp(7));
        handed.ack();
        assert_eq!(handed.answer(9, true), Answered::Taken);
        assert_eq!(handed.completed(), 3);
    }
}
