//! Descriptors on their way to a Node worker, in the order in which it answers: first it says whether the
//! descriptor has come, then, for a connection to one of its servers, whether that has taken it.
//!
//! Pure.

use std::collections::VecDeque;

use crate::protocol::ids::ConnectionId;

/// Lines with a descriptor that wait for an answer, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Handed {
    lines: VecDeque<Handover>,
    /// So many of the first have been answered with an ACK.
    acknowledged: usize,
    /// Connections that are answered, since the worker's start.
    completed: u64,
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
    /// The question whether the event loop is alive.
    Ping,
    /// A socket that workers share, for the query with this number.
    Shared(u64),
    /// A connection of the primary's own.
    Probe,
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
    /// The worker has the socket for the query with this number.
    Shares(u64),
    /// The worker has not got the socket for the query with this number.
    SharesNot(u64),
}

impl Handed {
    /// A connection was sent, with this number in its message, if it has one.
    pub(super) fn sent(&mut self, id: ConnectionId, number: Option<u64>) {
        self.push(What::Connection(id, number));
    }

    /// A ping was sent.
    pub(super) fn ping_sent(&mut self) {
        self.push(What::Ping);
    }

    /// A socket that workers share was sent, for the query with this number.
    pub(super) fn shared_sent(&mut self, query: u64) {
        self.push(What::Shared(query));
    }

    /// A connection of the primary's own was sent.
    pub(super) fn probe_sent(&mut self) {
        self.push(What::Probe);
    }

    fn push(&mut self, what: What) {
        self.lines.push_back(Handover { what, is_done: false });
    }

    /// Whether nothing waits for an answer.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether a ping waits for its answer.
    pub(super) fn has_ping(&self) -> bool {
        self.lines.iter().any(|line| line.what == What::Ping)
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
            What::Ping | What::Shared(_) | What::Probe => None,
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
        let answered = match line.what {
            What::Connection(_, Some(_)) => return Answered::Nothing,
            What::Connection(_, None) => Answered::Taken,
            What::Ping => Answered::Pong,
            What::Shared(query) => Answered::Shares(query),
            What::Probe => Answered::Nothing,
        };
        line.is_done = true;
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
            What::Shared(query) => Answered::SharesNot(query),
            What::Probe => Answered::Nothing,
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
        self.remove(|what| matches!(what, What::Connection(it, _) if *it == id));
    }

    /// The worker has never received the socket for the query with this number.
    pub(super) fn withdraw_shared(&mut self, query: u64) {
        self.remove(|what| *what == What::Shared(query));
    }

    /// The worker has never received the last ping.
    pub(super) fn withdraw_ping(&mut self) {
        self.remove(|what| *what == What::Ping);
    }

    /// The worker has never received the last connection of the primary's own.
    pub(super) fn withdraw_probe(&mut self) {
        self.remove(|what| *what == What::Probe);
    }

    fn remove(&mut self, is_it: impl Fn(&What) -> bool) {
        if let Some(position) = self.lines.iter().rposition(|line| is_it(&line.what)) {
            self.lines.remove(position);
            self.acknowledged -= usize::from(position < self.acknowledged);
        }
    }

    /// Those at the front that are done leave. One that is done before an older one waits for that.
    fn complete(&mut self) {
        while let Some(line) = self.lines.front().filter(|line| line.is_done) {
            self.completed += u64::from(matches!(line.what, What::Connection(..)));
            self.lines.pop_front();
            // It was answered without an ACK: Deno's answers may overtake.
            self.acknowledged = self.acknowledged.saturating_sub(1);
        }
    }

    /// As a primary before has left it: the connections with their numbers, and the count.
    pub(super) fn restore(completed: u64, acknowledged: usize, lines: Vec<HandedLine>) -> Self {
        let lines: VecDeque<_> = lines
            .into_iter()
            .map(|(id, number, is_done)| Handover {
                what: match (id, number) {
                    (Some(id), number) => What::Connection(id, number),
                    (None, Some(query)) => What::Shared(query),
                    (None, None) => What::Ping,
                },
                is_done,
            })
            .collect();
        Self { acknowledged: acknowledged.min(lines.len()), lines, completed }
    }

    /// For [`Handed::restore`].
    pub(super) fn into_parts(self) -> (u64, usize, Vec<HandedLine>) {
        let line = |line: Handover| match line.what {
            What::Connection(id, number) => (Some(id), number, line.is_done),
            What::Shared(query) => (None, Some(query), line.is_done),
            // The connection of a probe ends with this primary.
            What::Ping | What::Probe => (None, None, line.is_done),
        };
        (self.completed, self.acknowledged, self.lines.into_iter().map(line).collect())
    }
}

/// A line as plain data: the connection, none for a ping or a shared socket; the number of its message, or of the
/// query that a shared socket is for; whether it is done.
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
        handed.ping_sent();
        handed.sent(id(2), None);
        assert_eq!(handed.ack(), Answered::Taken);
        assert_eq!(handed.nack(), Answered::Pong);
        assert_eq!(handed.nack(), Answered::Refused(id(2)));
        assert_eq!((handed.completed(), handed.ack()), (2, Answered::Nothing));
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
        let mut handed = Handed::restore(completed, acknowledged, lines);
        handed.ack();
        assert_eq!(handed.answer(9, true), Answered::Taken);
        assert_eq!(handed.completed(), 3);
    }

    #[test]
    fn a_shared_socket_is_there_with_the_ack_and_no_connection() {
        let mut handed = Handed::default();
        handed.shared_sent(5);
        handed.probe_sent();
        handed.shared_sent(6);
        handed.sent(id(1), None);
        handed.shared_sent(7);
        handed.withdraw_shared(7);
        assert_eq!(handed.ack(), Answered::Shares(5));
        assert_eq!(handed.ack(), Answered::Nothing);
        let (completed, acknowledged, lines) = handed.into_parts();
        let mut handed = Handed::restore(completed, acknowledged, lines);
        assert_eq!(handed.nack(), Answered::SharesNot(6));
        assert_eq!((handed.ack(), handed.completed()), (Answered::Taken, 1));
        assert!(handed.is_empty());
    }
}
