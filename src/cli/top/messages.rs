//! Where news comes from: the primary, keys, signals, orders. A thread each, which does nothing
//! but wait and tell.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event::{Event as Input, KeyEvent, KeyEventKind, read};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::control::client::{ClientError, Conversation, Deadline};
use crate::control::discovery::{Wanted, find};
use crate::control::protocol::Request;
use crate::control::report::Live;
use crate::error::chain;

use super::order::Order;

/// Between two tries to reach a primary that is lost.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// How long a primary may take for its first snapshot. What comes later is waited for: the view shows for how
/// long nothing has come.
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);

/// Something that came in.
#[derive(Debug)]
pub(super) enum Message {
    /// The result of an order.
    Answered(Order, Result<String, String>),
    /// There will be no more news of some kind.
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// A signal says that it is time to end.
    End,
    Key(KeyEvent),
    /// A snapshot, and the control socket that it came from.
    Live(PathBuf, Box<Live>),
    /// There is no primary, for this reason.
    Lost(String),
    Resized,
}

/// Sends, and doesn't care whether anybody listens: if nobody does, the process ends.
struct Sender(SyncSender<Message>);

impl Sender {
    fn send(&self, message: Message) {
        let _ = self.0.send(message);
    }
}

/// A thread that panics has restored the terminal: nothing may be drawn any more.
impl Drop for Sender {
    fn drop(&mut self) {
        if thread::panicking() {
            self.send(Message::Broken("a part of it has failed".into()));
        }
    }
}

fn start(
    name: &str,
    sender: SyncSender<Message>,
    work: impl FnOnce(&Sender) + Send + 'static,
) -> io::Result<()> {
    let sender = Sender(sender);
    thread::Builder::new().name(name.to_owned()).spawn(move || work(&sender))?;
    Ok(())
}

/// Reads snapshots of the primary at `path`. When it has gone, looks for the next one.
pub(super) fn from_primary(
    mut path: PathBuf,
    wanted: Wanted,
    sender: SyncSender<Message>,
) -> io::Result<()> {
    start("primary", sender, move |sender| {
        let mut wanted = wanted;
        loop {
            let error = watch(&path, &mut wanted, sender);
            sender.send(Message::Lost(chain(&error)));
            thread::sleep(TRY_EVERY);
            // With a free port comes another path. At the start it was said what is wrong.
            let is_gone = matches!(error, ClientError::Connect { .. });
            if is_gone && let Ok(found) = find(&wanted) {
                path = found;
            }
        }
    })
}

/// Sends what comes until there is no more. From then on, another is wanted only if it has the
/// same name.
fn watch(path: &Path, wanted: &mut Wanted, sender: &Sender) -> ClientError {
    let deadline = Deadline::after(FIRST_TIMEOUT);
    let told = Conversation::begin(path, &Request::Live {}, deadline).and_then(|mut begun| {
        let first = begun.next_line()?;
        begun.set_deadline(None);
        begun.finish_after::<Value, ClientError>(first, |item| {
            let live: Box<Live> = serde_json::from_value(item).map_err(ClientError::Answer)?;
            wanted.name = Some(live.status.name.clone());
            sender.send(Message::Live(path.to_owned(), live));
            Ok(())
        })
    });
    told.err().unwrap_or(ClientError::Ended)
}

/// Signals that end a process.
pub(super) fn from_signals(sender: SyncSender<Message>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    drop(_inside);
    start("signals", sender, move |sender| {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        sender.send(Message::End);
    })
}

/// Keys, and changes of the terminal's size.
pub(super) fn from_keys(sender: SyncSender<Message>) -> io::Result<()> {
    start("keys", sender, |sender| {
        loop {
            match read() {
                Ok(Input::Key(key)) if key.kind != KeyEventKind::Release => {
                    sender.send(Message::Key(key));
                }
                Ok(Input::Resize(..)) => sender.send(Message::Resized),
                Ok(_) => {}
                Err(error) => return sender.send(Message::Broken(error.into())),
            }
        }
    })
}

/// Gives an order, and tells what came of it.
pub(super) fn from_order(
    order: Order,
    path: PathBuf,
    sender: SyncSender<Message>,
) -> io::Result<()> {
    start("order", sender, move |sender| {
        let outcome = order.carry_out(&path);
        sender.send(Message::Answered(order, outcome));
    })
}
