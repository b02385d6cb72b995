//! How others steer the pool: orders that are answered, and its status.
//!
//! The only way in. Orders go through one bounded queue; where it is full, the sender waits.

use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot};

use crate::protocol::ids::SlotId;
use crate::supervisor::pool::settings::PoolSettings;
use crate::supervisor::pool::status::PoolStatus;
use crate::supervisor::rollout::Trigger;

/// The limit of orders that wait. Further senders wait until the pool has time.
const ORDERS: usize = 64;

/// A change of the number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// To that many.
    To(u16),
    /// By that many more, or fewer.
    By(i32),
}

/// The result of an order to scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// The number of slots before.
    pub from: u16,
    /// The number of slots from now on.
    pub to: u16,
    /// It is carried out when the rolling restart that is under way has ended.
    pub deferred: bool,
}

/// A command for a single slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotOrder {
    /// Its clients go to others; its worker finishes what it has and ends, and none follows until
    /// it is undrained. A rolling restart leaves it alone.
    Drain,
    /// A drained, errored or stopped slot is filled again.
    Undrain,
    /// Its worker is replaced by a new one, which serves before the old one drains. What became of
    /// it is announced as `Replaced` or `ReplacementFailed`.
    Restart,
    /// Its serving worker gets SIGKILL; what follows is what follows a crash.
    Kill,
    /// Its serving worker gets this signal.
    Signal(Signal),
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such slot.
    #[error("there is no slot {slot}: slots are {slots}")]
    NoSlot {
        /// The one that was named.
        slot: SlotId,
        /// Those that there are, `0 to 3`.
        slots: String,
    },
    /// No worker serves there.
    #[error("no worker serves in slot {0}")]
    NoWorker(SlotId),
    /// It has been taken out of service.
    #[error("slot {0} is drained: undrain it first")]
    Drained(SlotId),
    /// It is the last that serves.
    #[error("slot {0} is the last one that serves: `stop` ends everything")]
    LastServing(SlotId),
    /// It does what it is to do already.
    #[error("slot {0} is {1} already")]
    Already(SlotId, &'static str),
    /// The number is out of bounds.
    #[error("the number of workers has to be from {1} to {2}, not {0}")]
    OutOfRange(i64, u16, u16),
    /// Everything ends.
    #[error("everything is being stopped")]
    Stopping,
    /// The configuration is wrong.
    #[error("{0}")]
    Configuration(String),
    /// The pool has ended.
    #[error("the primary has ended")]
    Gone,
}

impl Refusal {
    /// There is no such slot among these.
    #[must_use]
    pub fn no_slot(slot: SlotId, slots: &[SlotId]) -> Self {
        Self::NoSlot { slot, slots: list(slots) }
    }
}

/// `0 to 3`, or where there are gaps `0, 2 to 5`.
fn list(slots: &[SlotId]) -> String {
    let runs = slots.chunk_by(|one, next| one.0.checked_add(1) == Some(next.0));
    let runs = runs.filter_map(|run| match run {
        [] => None,
        [only] => Some(only.to_string()),
        [first, .., last] => Some(format!("{first} to {last}")),
    });
    runs.collect::<Vec<_>>().join(", ")
}

/// A command of the operator.
#[derive(Debug)]
pub enum Order {
    /// Drain all and end.
    Stop,
    /// End all at once.
    StopNow,
    /// Replace all workers, slot by slot, by workers of these settings.
    Reload(Trigger, Box<PoolSettings>, Option<Reply<u64>>),
    /// More workers, or fewer.
    Scale(Scale, Option<Reply<Scaled>>),
    /// Something for a single slot.
    Slot(SlotId, SlotOrder, Reply<()>),
    /// Stop, leave everything to a successor, and tell when that begins.
    HandOver(Reply<()>),
    /// Say how all is.
    Status(Reply<PoolStatus>),
}

/// Where the answer to an order goes.
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// Steers the pool.
#[derive(Clone, Debug)]
pub struct PoolHandle {
    orders: mpsc::Sender<Order>,
}

impl PoolHandle {
    /// Makes the handle, and what the pool takes orders from.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Order>) {
        let (orders, ordered) = mpsc::channel(ORDERS);
        (Self { orders }, ordered)
    }

    /// How all slots and workers are.
    ///
    /// # Errors
    ///
    /// If the pool has ended.
    pub async fn status(&self) -> Result<PoolStatus, Refusal> {
        self.ask(Order::Status).await
    }

    /// More workers, or fewer.
    ///
    /// # Errors
    ///
    /// If there cannot be so many, or everything ends.
    pub async fn scale(&self, scale: Scale) -> Result<Scaled, Refusal> {
        self.ask(|reply| Order::Scale(scale, Some(reply))).await
    }

    /// Has a single slot do something.
    ///
    /// # Errors
    ///
    /// If there is no such slot, it cannot do that now, or everything ends.
    pub async fn slot(&self, slot: SlotId, order: SlotOrder) -> Result<(), Refusal> {
        self.ask(|reply| Order::Slot(slot, order, reply)).await
    }

    /// Replaces all workers, slot by slot. Returns the rolling restart's number, by which events
    /// tell what becomes of it.
    ///
    /// # Errors
    ///
    /// If everything ends.
    pub async fn reload(&self, trigger: Trigger, settings: PoolSettings) -> Result<u64, Refusal> {
        self.ask(|reply| Order::Reload(trigger, Box::new(settings), Some(reply))).await
    }

    /// Ends the pool's run where it is, for a successor to go on with it.
    ///
    /// # Errors
    ///
    /// If everything ends.
    pub async fn hand_over(&self) -> Result<(), Refusal> {
        self.ask(Order::HandOver).await
    }

    /// Ends everything: gracefully, or at once.
    pub async fn stop(&self, at_once: bool) {
        self.order(if at_once { Order::StopNow } else { Order::Stop }).await;
    }

    /// Sends an order without waiting for its outcome.
    pub async fn order(&self, order: Order) {
        // If it fails, the pool has ended, and the sender soon will.
        let _ = self.orders.send(order).await;
    }

    async fn ask<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| Refusal::Gone)?;
        answer.await.map_err(|_| Refusal::Gone)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_listed_for_people() {
        let table: [(&[u16], &str); 5] = [
            (&[], ""),
            (&[7], "7"),
            (&[0, 1, 2, 3], "0 to 3"),
            (&[0, 2, 3, 4, 6], "0, 2 to 4, 6"),
            (&[3, u16::MAX], "3, 65535"),
        ];
        for (slots, expected) in table {
            let slots: Vec<_> = slots.iter().copied().map(SlotId).collect();
            assert_eq!(list(&slots), expected);
        }
    }
}
