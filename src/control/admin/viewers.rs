//! Viewers of streams: their number, and the snapshot that all of them share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::MissedTickBehavior;

use crate::control::admin::answer::Rejection;
use crate::control::answers::Control;
use crate::control::history::History;
use crate::control::protocol::{Code, Problem};

/// The largest number of viewers of all streams; further ones get an error.
const MAX_VIEWERS: usize = 64;
/// Snapshots that a viewer may lag behind.
const MAX_LAG: usize = 4;

/// Permits for viewers.
#[derive(Clone, Debug)]
pub(super) struct Viewers(Arc<Semaphore>);

impl Default for Viewers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_VIEWERS)))
    }
}

impl Viewers {
    /// A permit for one more viewer.
    pub(super) fn enter(&self) -> Result<OwnedSemaphorePermit, Rejection> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            let text = format!("{MAX_VIEWERS} viewers are connected: close some, or try again");
            Problem::new(Code::Busy, text).into()
        })
    }
}

/// Takes a snapshot every second while there are viewers: one for all of them.
#[derive(Debug)]
pub(super) struct Live {
    /// The number of the last event sent, or of the newest one when the first viewer joined. Locked
    /// during a send or a join, so that each viewer gets each event once.
    sent: Mutex<Option<u64>>,
    snapshots: broadcast::Sender<Bytes>,
    /// Notified when the first viewer joins.
    joined: Notify,
}

impl Live {
    pub(super) fn start(control: Control) -> Arc<Self> {
        let (sent, joined) = (Mutex::default(), Notify::new());
        let live = Arc::new(Self { sent, snapshots: broadcast::Sender::new(MAX_LAG), joined });
        tokio::spawn(Arc::clone(&live).run(control));
        live
    }

    async fn run(self: Arc<Self>, control: Control) {
        let mut each_second = tokio::time::interval(Duration::from_secs(1));
        each_second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            if self.snapshots.receiver_count() == 0 {
                // Sleeps without viewers.
                self.joined.notified().await;
            }
            each_second.tick().await;
            let before = *self.lock();
            let mut seen = before;
            // Fails when pool or frontend has ended.
            let Ok(live) = control.live_since(&mut seen).await else { return };
            let message = message("live", &live);
            let mut sent = self.lock();
            // Another first viewer may have joined meanwhile.
            if *sent == before {
                *sent = seen;
                let _ = self.snapshots.send(message);
            }
        }
    }

    /// The event up to which a new viewer gets the past first, and a receiver of what follows.
    pub(super) fn join(&self, history: &History) -> (Option<u64>, broadcast::Receiver<Bytes>) {
        let mut sent = self.lock();
        if self.snapshots.receiver_count() == 0 {
            *sent = history.newest();
            self.joined.notify_one();
        }
        (*sent, self.snapshots.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, Option<u64>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A Server-Sent Event.
pub(super) fn message(kind: &str, data: &impl Serialize) -> Bytes {
    // Serialization of reports doesn't fail. JSON has line ends only inside strings, escaped.
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {kind}\ndata: {data}\n\n"))
}
