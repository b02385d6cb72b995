//! The shape of a WebSocket's handler: whether it receives, whether another of its tasks sends, and what
//! is still to be sent.
//!
//! Never guesses what a handler means to send: it sees which task reads and writes, and when.

use tokio::task::{Id, try_id};

/// What is seen of a handler's tasks since its WebSocket opened.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// The task that has read last.
    reader: Option<Id>,
    has_received: bool,
    /// Messages that are still to be sent, by the handler's own word.
    pending: u32,
    /// It has ever said so.
    is_guarded: bool,
    /// A task has sent a message beside another one that waits for messages, and the handler has not
    /// said what is still to be sent: there may be more.
    sends_beside: bool,
}

impl Shape {
    /// The present task reads.
    pub(super) fn note_read(&mut self) {
        self.has_received = true;
        self.reader = try_id();
    }

    /// The present task has sent a message, or a part of one, while another waits for messages or not.
    pub(super) fn note_sent(&mut self, is_awaited: bool) {
        self.sends_beside |= is_awaited && self.is_beside();
    }

    /// A message is still to be sent.
    pub(super) fn begin(&mut self) {
        self.pending += 1;
        self.is_guarded = true;
    }

    /// It is sent, or will not be.
    pub(super) fn end(&mut self) {
        self.pending -= 1;
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending > 0
    }

    /// Nothing was ever read.
    pub(super) fn never_received(&self) -> bool {
        !self.has_received
    }

    /// Messages may be on their way between two tasks, and nothing says when they are sent.
    pub(super) fn sends_beside(&self) -> bool {
        self.sends_beside && !self.is_guarded
    }

    /// Whether the present task isn't the one that reads.
    fn is_beside(&self) -> bool {
        self.has_received && self.reader != try_id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_sends_beside_the_one_that_waits_is_seen_unless_it_says_what_it_sends() {
        let in_a_task = |mut shape: Shape, act: fn(&mut Shape)| async move {
            tokio::spawn(async move {
                act(&mut shape);
                shape
            })
            .await
            .unwrap()
        };
        let alone = in_a_task(Shape::default(), |shape| {
            shape.note_read();
            shape.note_sent(true);
        });
        assert!(!alone.await.sends_beside());
        let reads = || in_a_task(Shape::default(), Shape::note_read);
        // The socket has gone on from one task to the next.
        let on = in_a_task(reads().await, |shape| shape.note_sent(false));
        assert!(!on.await.sends_beside());
        let beside = in_a_task(reads().await, |shape| shape.note_sent(true));
        assert!(beside.await.sends_beside());
        let guarded = in_a_task(reads().await, |shape| {
            shape.begin();
            shape.note_sent(true);
            shape.end();
        });
        assert!(!guarded.await.sends_beside());
    }
}
