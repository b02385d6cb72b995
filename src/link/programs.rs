//! The way between the frontend and the bus: messages of workers' programs, and commands that follow from them.
//!
//! Holds no state; both directions are bounded queues.
//!
//! * Messages: when full, by number or by bytes, the message is dropped and counted, since the frontend never
//!   waits.
//! * Commands: when full, the bus waits.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::protocol::ids::WorkerId;

/// Messages that may wait, by number.
const MESSAGES: usize = 4096;

/// The same in KiB.
const ROOM: u32 = 64 * 1024;

/// Commands that may wait.
const COMMANDS: usize = 256;

/// Commands that are carried out in one turn of the frontend.
pub const TURN: usize = 64;

/// A message of a worker's program, as it was sent, or the worker's end.
#[derive(Debug)]
pub struct ProgramMessage {
    /// The sender.
    pub worker: WorkerId,
    /// The message; none if the worker has ended.
    pub bytes: Option<Vec<u8>>,
    /// Given back when it is handled.
    _room: OwnedSemaphorePermit,
}

/// The workers that a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// All of them.
    All,
    /// All but this one.
    Others(WorkerId),
    /// This one.
    One(WorkerId),
}

impl Recipients {
    /// Whether it goes to this one.
    #[must_use]
    pub fn include(self, worker: WorkerId) -> bool {
        match self {
            Self::All => true,
            Self::Others(sender) => worker != sender,
            Self::One(one) => worker == one,
        }
    }
}

/// What a program has said of its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// In flight, if it has said that.
    pub open: Option<u64>,
    /// Finished since it has said so last.
    pub finished: u64,
}

/// From the bus to the frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramCommand {
    /// Send this line, with its end.
    Tell(Recipients, Arc<[u8]>),
    /// Note the requests of a worker.
    Requests(WorkerId, RequestCounts),
    /// Have a worker replaced, as if it had asked for that.
    Replace(WorkerId),
}

/// Messages that were dropped, in both directions.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Of programs: the bus was too busy.
    received: AtomicU64,
    /// To programs: their workers don't read.
    told: AtomicU64,
}

impl Dropped {
    /// Messages of programs that were dropped, and messages to programs.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.told.load(Ordering::Relaxed))
    }
}

/// The bus's side.
#[derive(Debug)]
pub struct BusEnd {
    /// Messages of programs.
    pub messages: mpsc::Receiver<ProgramMessage>,
    /// Commands to the frontend.
    pub commands: ProgramCommands,
    /// Messages that were dropped.
    pub dropped: Arc<Dropped>,
}

/// The way from the bus to the frontend.
#[derive(Clone, Debug)]
pub struct ProgramCommands {
    commands: mpsc::Sender<ProgramCommand>,
    wake: Arc<OwnedFd>,
}

impl ProgramCommands {
    /// Sends a command; waits where the frontend has many to do. False if the frontend has ended.
    pub async fn send(&self, command: ProgramCommand) -> bool {
        let is_sent = self.commands.send(command).await.is_ok();
        wake(&self.wake);
        is_sent
    }
}

/// The frontend's side.
#[derive(Debug)]
pub(super) struct FrontendEnd {
    messages: mpsc::Sender<ProgramMessage>,
    room: Arc<Semaphore>,
    commands: mpsc::Receiver<ProgramCommand>,
    dropped: Arc<Dropped>,
}

impl FrontendEnd {
    /// Passes a message on, or drops it. Says whether it is the first one that is dropped.
    pub(super) fn pass(&self, worker: WorkerId, bytes: Option<Vec<u8>>) -> bool {
        let size = bytes.as_ref().map_or(0, Vec::len) / 1024 + 1;
        let size = u32::try_from(size).unwrap_or(ROOM).min(ROOM);
        let room = Arc::clone(&self.room).try_acquire_many_owned(size);
        let message = room.map(|room| ProgramMessage { worker, bytes, _room: room });
        if message.is_ok_and(|message| self.messages.try_send(message).is_ok()) {
            return false;
        }
        self.dropped.received.fetch_add(1, Ordering::Relaxed) == 0
    }

    pub(super) fn next_command(&mut self) -> Option<ProgramCommand> {
        self.commands.try_recv().ok()
    }

    /// Counts messages that a worker has no room for.
    pub(super) fn count_untold(&self, count: u64) {
        self.dropped.told.fetch_add(count, Ordering::Relaxed);
    }

    /// Whether all messages are handled and all commands are taken.
    pub(super) fn is_idle(&self) -> bool {
        self.commands.is_empty() && self.room.available_permits() == ROOM as usize
    }
}

/// Has the frontend look for commands.
pub(super) fn wake(wake: &OwnedFd) {
    // An eventfd takes 2^64 - 2 of these before the frontend has to read.
    let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
}

/// Makes the way between a frontend, which is woken by `wake`, and the bus.
pub(super) fn connect(wake: Arc<OwnedFd>) -> (FrontendEnd, BusEnd) {
    let (messages, received) = mpsc::channel(MESSAGES);
    let (commands, orders) = mpsc::channel(COMMANDS);
    let (room, dropped) = (Arc::new(Semaphore::new(ROOM as usize)), Arc::<Dropped>::default());
    let bus = BusEnd {
        messages: received,
        commands: ProgramCommands { commands, wake },
        dropped: Arc::clone(&dropped),
    };
    (FrontendEnd { messages, room, commands: orders, dropped }, bus)
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::protocol::ids::{Generation, SlotId};

    const WORKER: WorkerId = WorkerId { slot: SlotId(0), generation: Generation(0) };

    fn ends() -> (FrontendEnd, BusEnd) {
        let (_read, write) = rustix::pipe::pipe().unwrap();
        connect(Arc::new(write))
    }

    #[test]
    fn messages_are_dropped_by_number_and_said_once() {
        let (frontend, mut bus) = ends();
        let said = (0..MESSAGES + 5).map(|_| frontend.pass(WORKER, Some(b"x".to_vec())));
        assert_eq!(said.filter(|said| *said).count(), 1);
        assert_eq!(bus.dropped.counts(), (5, 0));
        drop(bus.messages.try_recv().unwrap());
        assert!(!frontend.pass(WORKER, Some(b"x".to_vec())));
        assert_eq!(bus.dropped.counts(), (5, 0), "there is room again");
    }

    #[test]
    fn messages_are_dropped_by_bytes() {
        let (frontend, mut bus) = ends();
        let large = || Some(vec![0; 30 << 20]);
        assert!(!frontend.pass(WORKER, large()) && !frontend.pass(WORKER, large()));
        assert!(frontend.pass(WORKER, large()), "the first that is dropped");
        assert!(!frontend.is_idle());
        drop((bus.messages.try_recv().unwrap(), bus.messages.try_recv().unwrap()));
        assert!(frontend.is_idle());
        assert!(!frontend.pass(WORKER, large()));
        assert_eq!(bus.dropped.counts(), (1, 0));
    }

    #[test]
    fn recipients_are_all_the_others_or_one() {
        let other = WorkerId { slot: SlotId(1), ..WORKER };
        for (recipients, expected) in [
            (Recipients::All, [true, true]),
            (Recipients::Others(WORKER), [false, true]),
            (Recipients::One(WORKER), [true, false]),
        ] {
            assert_eq!([WORKER, other].map(|worker| recipients.include(worker)), expected);
        }
    }
}
