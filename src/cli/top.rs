//! `sticky-lb top`: everything live in a terminal, and keys to steer by.
//!
//! Threads of their own read snapshots, keys and signals, and carry out orders. The main thread keeps
//! the state and draws it, once for all messages that came together. The terminal is restored at any
//! end.

use std::error::Error;
use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use ratatui::DefaultTerminal;
use tokio::time::Instant;

use crate::control::discovery::find;

use self::messages::Message;
use self::state::{Action, State};
use self::theme::Look;
use super::client::PrimaryArgs;
use super::failure::Failure;

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

/// Messages that may wait. When it is full, senders wait: keys in the terminal, snapshots in the socket.
const MESSAGES: usize = 64;

/// The longest time between two drawings, so that missing snapshots are seen.
const DRAW_INTERVAL: Duration = Duration::from_secs(1);

/// A primary on a terminal.
#[derive(Debug)]
struct View {
    state: State,
    /// The control socket of the primary.
    path: PathBuf,
    sender: SyncSender<Message>,
    messages: Receiver<Message>,
    /// When the last snapshot came.
    last_snapshot: Instant,
}

/// Shows a primary until a key ends it.
pub(super) fn run(arguments: &PrimaryArgs) -> Result<(), Box<dyn Error>> {
    let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    if is_dumb || !stdout().is_terminal() {
        return Err(Failure::NoTerminal.into());
    }
    let wanted = arguments.wanted();
    let path = find(&wanted).map_err(Failure::from)?;
    let (sender, messages) = sync_channel(MESSAGES);
    messages::from_primary(path, wanted, sender.clone())?;
    // Before the first snapshot, errors are printed as of any command.
    let (path, live) = match messages.recv()? {
        Message::Live(path, live) => (path, *live),
        Message::Lost(reason) => return Err(reason.into()),
        _ => return Ok(()),
    };
    messages::from_signals(sender.clone())?;
    let state = State::new(live);
    let view = View { state, path, sender, messages, last_snapshot: Instant::now() };
    let ended = ratatui::try_init().map_err(Into::into).and_then(|terminal| view.show(terminal));
    // Fails where the terminal has gone, and nothing is to be restored.
    let _ = ratatui::try_restore();
    ended
}

impl View {
    fn show(mut self, mut terminal: DefaultTerminal) -> Result<(), Box<dyn Error>> {
        let look = Look::from_environment();
        messages::from_keys(self.sender.clone())?;
        loop {
            self.state.silence = self.last_snapshot.elapsed();
            terminal.draw(|frame| self.state.page = draw::draw(frame, &self.state, look))?;
            let mut next = match self.messages.recv_timeout(DRAW_INTERVAL) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                // Never: there is a sender in here.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            while let Some(message) = next {
                match self.take(message)? {
                    Some(Action::Quit) => return Ok(()),
                    Some(Action::Clear) => terminal.clear()?,
                    Some(Action::CarryOut(order)) => {
                        messages::from_order(order, self.path.clone(), self.sender.clone())?;
                    }
                    None => {}
                }
                next = self.messages.try_recv().ok();
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<Option<Action>, Box<dyn Error>> {
        match message {
            Message::Answered(order, outcome) => self.state.answered(order, outcome),
            Message::Broken(error) => return Err(error),
            Message::End => return Ok(Some(Action::Quit)),
            Message::Key(key) => return Ok(self.state.key(key)),
            Message::Live(path, live) => {
                (self.path, self.last_snapshot) = (path, Instant::now());
                self.state.live(*live);
            }
            Message::Lost(reason) => self.state.lost(reason),
            // The next drawing takes the new size.
            Message::Resized => {}
        }
        Ok(None)
    }
}
