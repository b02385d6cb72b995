//! The frontend, played: it keeps channels, and notes what it is told.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sticky_lb::internals::link::Link;
use sticky_lb::internals::link::seam::{
    CommandReceiver, Counters, SlotCommand, SlotEventKind, WorkerId,
};
use sticky_lb::protocol::drain::{DrainMode, DrainOrder, DrainReason};

/// As workers without sessions are ordered to drain by the end of the channel, its content doesn't matter.
const ORDER: DrainOrder = DrainOrder {
    mode: DrainMode::Wait,
    reason: DrainReason::Restart,
    window: std::time::Duration::ZERO,
};

/// What a frontend leaves.
pub(super) type Channels = HashMap<WorkerId, Link>;

/// What outlives each of its plays: what it was told, and whether it keeps what workers say to itself.
#[derive(Default)]
pub(super) struct Frontend {
    pub(super) told: Mutex<Vec<String>>,
    pub(super) deaf: AtomicBool,
    /// Workers that are to drain, and haven't been told.
    drains: Mutex<BTreeSet<WorkerId>>,
    ended: AtomicBool,
}

/// One play of it.
struct Play<'a> {
    frontend: &'a Frontend,
    channels: Channels,
    /// Of whom the pool hasn't heard that they are ready.
    unready: Vec<WorkerId>,
    /// What comes before is what an earlier one was told.
    accepts: bool,
}

impl Frontend {
    /// Whether the pool has let it end.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Until it is to end, or to hand over, or the pool is gone.
    pub(super) fn play(&self, mut orders: CommandReceiver) -> Channels {
        let mut play =
            Play { frontend: self, channels: Channels::new(), unready: Vec::new(), accepts: false };
        loop {
            orders.clear_wake();
            while let Some(command) = orders.next_command() {
                if matches!(command, SlotCommand::End | SlotCommand::HandOver) {
                    return play.channels;
                }
                play.handle_command(command);
            }
            if !self.deaf.load(Ordering::SeqCst) {
                play.unready.drain(..).for_each(|it| orders.send_event(it, SlotEventKind::Ready));
                // A worker may still have to be attached, of whom an earlier play was told.
                self.drains.lock().unwrap().retain(|worker| {
                    let channel = play.channels.get_mut(worker);
                    channel.map(|channel| channel.drain(ORDER)).is_none()
                });
            }
            // Short, since nothing wakes it when it isn't deaf any more.
            let mut wake = [PollFd::new(&orders, PollFlags::IN)];
            let _ = poll(&mut wake, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
        }
    }
}

impl Play<'_> {
    fn handle_command(&mut self, command: SlotCommand) {
        match command {
            SlotCommand::Accept => self.accepts = true,
            SlotCommand::Attach(worker, channel) => {
                self.channels.insert(worker, channel.link);
                self.unready.push(worker);
            }
            SlotCommand::Drain(worker, order) => {
                self.frontend.drains.lock().unwrap().insert(worker);
                self.note(say_drain(worker, order));
            }
            SlotCommand::Gone(worker) => drop(self.channels.remove(&worker)),
            SlotCommand::GiveUp(slot) => self.note(format!("give up {slot}")),
            SlotCommand::Rank(slots) => self.note(format!("rank {}", slots.len())),
            SlotCommand::StopAccepting(reply) => drop(reply.send(())),
            SlotCommand::Count(reply) => {
                self.frontend.ended.store(true, Ordering::SeqCst);
                let _ = reply.send(Counters::default());
            }
            _ => {}
        }
    }

    fn note(&self, what: String) {
        if self.accepts {
            self.frontend.told.lock().unwrap().push(what);
        }
    }
}

fn say_drain(worker: WorkerId, order: DrainOrder) -> String {
    let WorkerId { slot, generation } = worker;
    let DrainOrder { mode, reason, window } = order;
    let (code, seconds) = (reason.close_code(), window.as_secs());
    format!("drain {slot}.{generation}: {mode} {code} {seconds}")
}
