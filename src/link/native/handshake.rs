//! Messages that a worker sends once: hello, sessions, ready.

use crate::handover::carry;
use crate::handover::link::HandshakeSnapshot;
use crate::link::error::ChannelError;
use crate::protocol::scoreboard::{Scoreboard, SharedFlag};

/// Which of them have come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HandshakeFlags {
    /// It has attached.
    pub(super) hello_received: bool,
    /// It takes connections.
    pub(super) ready: bool,
    /// It migrates sessions and takes those of others.
    pub(super) takes_sessions: bool,
}

carry!(struct HandshakeFlags => HandshakeSnapshot { hello_received, ready, takes_sessions });

impl HandshakeFlags {
    /// As a primary that has died had noted on the scoreboard.
    pub(super) fn noted(board: &Scoreboard) -> Self {
        Self {
            hello_received: board.has_flag(SharedFlag::Hello),
            ready: board.has_flag(SharedFlag::Ready),
            takes_sessions: board.has_flag(SharedFlag::Sessions),
        }
    }

    /// A message has come: the hello is the first, and comes once. To a primary that follows a dead one it
    /// may have come before.
    pub(super) fn receive(&mut self, is_hello: bool, is_lenient: bool) -> Result<(), ChannelError> {
        if self.hello_received == is_hello && !is_lenient {
            return Err(ChannelError::NoHello);
        }
        self.hello_received = true;
        Ok(())
    }

    pub(super) fn hello(board: &Scoreboard) {
        board.set_flag(SharedFlag::Hello);
    }

    pub(super) fn receive_ready(&mut self, board: &Scoreboard) {
        board.set_flag(SharedFlag::Ready);
        self.ready = true;
    }

    /// The worker migrates sessions: said once, before it is ready.
    pub(super) fn receive_sessions(
        &mut self,
        is_lenient: bool,
        board: &Scoreboard,
    ) -> Result<(), ChannelError> {
        if (self.ready || self.takes_sessions) && !is_lenient {
            return Err(ChannelError::NoSessions);
        }
        self.enable_sessions(board);
        Ok(())
    }

    pub(super) fn enable_sessions(&mut self, board: &Scoreboard) {
        board.set_flag(SharedFlag::Sessions);
        self.takes_sessions = true;
    }
}
