//! The seam between supervisor and frontend: commands that say which worker fills which slot, and events
//! that report the workers' messages.
//!
//! Holds no state; both directions are bounded queues.
//!
//! * Commands: when full, the supervisor waits.
//! * Events: when full, the event is dropped, since the frontend never waits. The loss is repaired:
//!   a worker whose `Ready` is lost misses its time limit, one whose `Violation` is lost finds its
//!   channel closed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::{mpsc, oneshot};

use crate::handover::carry;
use crate::handover::pool::{CountersSnapshot, SurvivalSnapshot};
use crate::link::error::ChannelError;
use crate::link::event::WorkerNote;
use crate::link::interface::Interface;
use crate::link::programs::{self, BusEnd, FrontendEnd, ProgramCommand};
use crate::link::{Attached, GroupMember};
use crate::protocol::drain::DrainOrder;
use crate::protocol::ids::SlotId;
pub use crate::protocol::ids::WorkerId;

const COMMANDS: usize = 256;
const EVENTS: usize = 4096;

/// From the supervisor to the frontend.
#[derive(Debug)]
pub enum SlotCommand {
    /// Begin to accept connections. After a crash of the primary before this one, it also says that
    /// all workers that are left are attached.
    Accept,
    /// Clients belong to these slots, with these weights, each above 0.
    Rank(Vec<(SlotId, f64)>),
    /// A worker was started or adopted: receive its messages.
    Attach(WorkerId, Box<Attached>),
    /// Reply with a listening socket for a worker that is about to start.
    Member(WorkerId, oneshot::Sender<io::Result<GroupMember>>),
    /// From now on the slot's clients go to this worker.
    Serve(WorkerId),
    /// Send it no more, and order it to drain.
    Drain(WorkerId, DrainOrder),
    /// It drains: tell it to close its servers and the connections that are idle, where its dialect can.
    Disconnect(WorkerId),
    /// Ask it whether its loop is alive. Nothing is asked of one that has no room for questions.
    Ping(WorkerId),
    /// Its process has ended: what it did not acknowledge goes to others.
    Gone(WorkerId),
    /// No worker is to come: the slot's clients need not wait.
    GiveUp(SlotId),
    /// Hand out what the backlog holds, close the listener, answer when all is handed over.
    StopAccepting(oneshot::Sender<()>),
    /// Reply with the counters.
    Count(oneshot::Sender<Counters>),
    /// All workers are gone: end.
    End,
    /// Stop, and leave everything to a successor; workers go on. The last command, and not given while
    /// the listener is being closed.
    HandOver,
}

/// From the frontend to the supervisor.
#[derive(Debug)]
pub struct SlotEvent {
    /// The worker.
    pub worker: WorkerId,
    /// Its message or breach.
    pub kind: SlotEventKind,
}

/// A message or a breach of a worker.
#[derive(Debug)]
pub enum SlotEventKind {
    /// It has attached.
    Attached,
    /// It takes connections.
    Ready,
    /// Its loop has answered a ping.
    Pong {
        /// It has something that it should have acknowledged by now.
        overdue: bool,
    },
    /// It asks to be drained and replaced.
    ReplaceMe,
    /// It broke the protocol; nothing goes to it any more.
    Violation(ChannelError),
    /// It is known what it speaks.
    Speaks(Interface),
    /// Something that the operator should know.
    Note(WorkerNote),
}

/// Counters of connections since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Taken from the backlog.
    pub accepted: u64,
    /// Owned by a worker.
    pub acknowledged: u64,
    /// Taken back from a worker that died, stalled or refused, and given to another.
    pub redispatched: u64,
    /// Sent elsewhere than to the first of their ranking.
    pub fallbacks: u64,
    /// Used by a worker that died without acknowledging, or ended by the client before it.
    pub lost: u64,
    /// Times a worker didn't acknowledge in time.
    pub stalls: u64,
    /// Connections that a worker refused.
    pub refused: u64,
    /// Errors of `accept`.
    pub accept_errors: u64,
    /// Sessions that another worker has taken.
    pub moved: u64,
    /// Sessions that no worker took, and that their workers went on with.
    pub returned: u64,
    /// Sessions that ended since no worker was left to take them, or whose new worker died with them.
    pub sessions_lost: u64,
    /// Clients that workers were allowed to close.
    pub closed: u64,
    /// Protected sessions whose workers died.
    pub survival: Survival,
}

carry!(struct Counters => CountersSnapshot { accepted, acknowledged, redispatched, fallbacks, lost, stalls, refused, accept_errors, moved, returned, sessions_lost, closed, survival });

/// Protected sessions whose workers died, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survival {
    /// Recovered: they go on in another worker.
    pub recovered: u64,
    /// Closed: something was read or written since they were at rest.
    pub busy: u64,
    /// Closed: their clients had gone, or their worker had closed them.
    pub client_gone: u64,
    /// Closed: their checkpoint entry was missing or wrong.
    pub unverified: u64,
    /// Closed: they were at rest, and no worker took them.
    pub no_target: u64,
    /// Sessions to be protected for which there was no descriptor.
    pub not_protected: u64,
}

carry!(struct Survival => SurvivalSnapshot { recovered, busy, client_gone, unverified, no_target, not_protected });

impl Survival {
    /// Closed ones, by reason.
    #[must_use]
    pub fn recovery_failures(&self) -> [(&'static str, u64); 4] {
        [
            ("busy", self.busy),
            ("client-gone", self.client_gone),
            ("unverified", self.unverified),
            ("no-target", self.no_target),
        ]
    }
}

/// The supervisor's side.
#[derive(Clone, Debug)]
pub struct CommandSender {
    commands: mpsc::Sender<SlotCommand>,
    wake: Arc<OwnedFd>,
}

/// The frontend has ended, by an error that it reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frontend has ended")]
pub struct FrontendGone;

impl CommandSender {
    /// Sends a command; waits where the frontend has many to do.
    ///
    /// # Errors
    ///
    /// If the frontend has ended.
    pub async fn send(&self, command: SlotCommand) -> Result<(), FrontendGone> {
        self.commands.send(command).await.map_err(|_| FrontendGone)?;
        programs::wake(&self.wake);
        Ok(())
    }

    /// Closes the listener once the backlog is handed out, and waits for that.
    ///
    /// # Errors
    ///
    /// If the frontend has ended.
    pub async fn stop_accepting(&self) -> Result<(), FrontendGone> {
        self.ask(SlotCommand::StopAccepting).await
    }

    /// Asks for the counters.
    ///
    /// # Errors
    ///
    /// If the frontend has ended.
    pub async fn count(&self) -> Result<Counters, FrontendGone> {
        self.ask(SlotCommand::Count).await
    }

    /// Asks for a listening socket for a worker that is about to start. The inner error is the kernel's.
    ///
    /// # Errors
    ///
    /// If the frontend has ended.
    pub async fn member(&self, worker: WorkerId) -> Result<io::Result<GroupMember>, FrontendGone> {
        self.ask(|reply| SlotCommand::Member(worker, reply)).await
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> SlotCommand,
    ) -> Result<T, FrontendGone> {
        let (reply, answer) = oneshot::channel();
        self.send(question(reply)).await?;
        answer.await.map_err(|_| FrontendGone)
    }
}

/// The frontend's side.
#[derive(Debug)]
pub struct CommandReceiver {
    commands: mpsc::Receiver<SlotCommand>,
    wake: Arc<OwnedFd>,
    events: mpsc::Sender<SlotEvent>,
    /// The way to the bus, if there is one.
    programs: Option<FrontendEnd>,
    /// Notes that were sent.
    noted: Vec<WorkerNote>,
}

impl CommandReceiver {
    /// The next command, if there is one.
    pub fn next_command(&mut self) -> Option<SlotCommand> {
        match self.commands.try_recv() {
            Ok(command) => Some(command),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => Some(SlotCommand::End),
        }
    }

    /// Connects the bus: messages of programs go there from now on.
    pub fn connect_bus(&mut self) -> BusEnd {
        let (frontend, bus) = programs::connect(Arc::clone(&self.wake));
        self.programs = Some(frontend);
        bus
    }

    /// The next command of the bus, if there is one.
    pub fn next_program_command(&mut self) -> Option<ProgramCommand> {
        self.programs.as_mut()?.next_command()
    }

    /// Commands of the bus are left for the next turn.
    pub fn wake_again(&self) {
        programs::wake(&self.wake);
    }

    /// Passes a message of a worker's program to the bus, without waiting.
    pub fn pass(&self, worker: WorkerId, message: Vec<u8>) {
        if self.programs.as_ref().is_some_and(|bus| bus.pass(worker, Some(message))) {
            tracing::warn!(
                slot = worker.slot.0,
                "workers' programs send more messages than can be handled: some are dropped",
            );
        }
    }

    /// Tells the bus that a worker has ended.
    pub fn pass_end(&self, worker: WorkerId) {
        if let Some(bus) = &self.programs {
            bus.pass(worker, None);
        }
    }

    /// Sends a note, once for each kind: what can be noted again and again must not fill the queue.
    pub fn note(&mut self, worker: WorkerId, note: WorkerNote) {
        if !self.noted.contains(&note) {
            self.noted.push(note);
            self.send_event(worker, SlotEventKind::Note(note));
        }
    }

    /// Counts messages to programs that were dropped.
    pub fn count_untold(&self, count: u64) {
        self.programs.iter().for_each(|bus| bus.count_untold(count));
    }

    /// Whether the bus has handled all that it was given, and all its commands are taken.
    #[must_use]
    pub fn is_bus_idle(&self) -> bool {
        self.programs.as_ref().is_none_or(FrontendEnd::is_idle)
    }

    /// Before commands are taken: those that come later make the descriptor readable again.
    pub fn clear_wake(&self) {
        // Without a command since the last time there is nothing to read.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
    }

    /// Sends an event to the supervisor, without waiting.
    pub fn send_event(&self, worker: WorkerId, kind: SlotEventKind) {
        if self.events.try_send(SlotEvent { worker, kind }).is_err() {
            tracing::error!(slot = worker.slot.0, "supervisor is too busy for a worker's event");
        }
    }
}

impl AsFd for CommandReceiver {
    /// Readable when there are commands.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Makes the seam: the supervisor's side and its events, and the frontend's side.
///
/// # Errors
///
/// If the kernel has no descriptor left.
pub fn seam() -> io::Result<(CommandSender, mpsc::Receiver<SlotEvent>, CommandReceiver)> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (commands, orders) = mpsc::channel(COMMANDS);
    let (events, heard) = mpsc::channel(EVENTS);
    let commander = CommandSender { commands, wake: Arc::clone(&wake) };
    Ok((
        commander,
        heard,
        CommandReceiver { commands: orders, wake, events, programs: None, noted: Vec::new() },
    ))
}
