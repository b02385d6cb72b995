//! `sticky-lb top`: everything live in a terminal, and keys to steer by.
//!
//! Threads of their own read what the primary tells, keys and signals, and carry out orders; this
//! one keeps the state and draws it, once for whatever came in together. Whatever ends it, the
//! terminal is as it was before.

use std::error::Error;
use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use ratatui::DefaultTerminal;
use tokio::time::Instant;

use crate::control::discovery::find;

use self::messages::Message;
use self::state::{State, Wish};
use self::theme::Look;
use super::failure::Failure;
use super::operator::Which;

mod draw;
mod figures;
mod format;
mod messages;
mod order;
mod rows;
#[cfg(test)]
mod sample;
mod state;
mod theme;

/// Messages that may wait; when it is full, whoever sends waits: keys in the terminal, snapshots
/// in the socket.
const MESSAGES: usize = 64;

/// At least so often all is drawn, so that it shows when nothing comes.
const DRAW_EVERY: Duration = Duration::from_secs(1);

/// There is nothing to draw on.
#[derive(Debug, thiserror::Error)]
#[error("top needs a terminal: `sticky-lb status` and `sticky-lb workers` print once")]
pub(super) struct NoTerminal;

/// What is watched.
#[derive(Debug)]
struct View {
    state: State,
    /// The control socket of the primary.
    path: PathBuf,
    sender: SyncSender<Message>,
    messages: Receiver<Message>,
    /// When the last snapshot came.
    told: Instant,
}

/// Shows it until whoever watches has enough.
pub(super) fn run(which: &Which) -> Result<(), Box<dyn Error>> {
    let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    if is_dumb || !stdout().is_terminal() {
        return Err(NoTerminal.into());
    }
    let wanted = which.wanted();
    let path = find(&wanted).map_err(Failure::from)?;
    let (sender, messages) = sync_channel(MESSAGES);
    messages::from_primary(path, wanted, sender.clone())?;
    // What is wrong from the start is said like any other error.
    let (path, live) = match messages.recv()? {
        Message::Live(path, live) => (path, *live),
        Message::Lost(reason) => return Err(reason.into()),
        _ => return Ok(()),
    };
    messages::from_signals(sender.clone())?;
    let state = State::new(live);
    let view = View { state, path, sender, messages, told: Instant::now() };
    let ended = ratatui::try_init().map_err(Into::into).and_then(|terminal| view.show(terminal));
    // Where the terminal has gone there is nothing to restore.
    let _ = ratatui::try_restore();
    ended
}

impl View {
    fn show(mut self, mut terminal: DefaultTerminal) -> Result<(), Box<dyn Error>> {
        let look = Look::of_this_terminal();
        messages::from_keys(self.sender.clone())?;
        loop {
            self.state.silence = self.told.elapsed();
            terminal.draw(|frame| self.state.page = draw::draw(frame, &self.state, look))?;
            let mut next = match self.messages.recv_timeout(DRAW_EVERY) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                // Never: there is a sender in here.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            while let Some(message) = next {
                match self.take(message)? {
                    Some(Wish::Quit) => return Ok(()),
                    Some(Wish::Clear) => terminal.clear()?,
                    Some(Wish::CarryOut(order)) => {
                        messages::from_order(order, self.path.clone(), self.sender.clone())?;
                    }
                    None => {}
                }
                next = self.messages.try_recv().ok();
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<Option<Wish>, Box<dyn Error>> {
        match message {
            Message::Answered(order, outcome) => self.state.answered(order, outcome),
            Message::Broken(error) => return Err(error),
            Message::End => return Ok(Some(Wish::Quit)),
            Message::Key(key) => return Ok(self.state.key(key)),
            Message::Live(path, live) => {
                (self.path, self.told) = (path, Instant::now());
                self.state.live(*live);
            }
            Message::Lost(reason) => self.state.lost(reason),
            // Whoever draws looks at the size.
            Message::Resized => {}
        }
        Ok(None)
    }
}
