//! The conversation of all workers here: each message is answered with how many there were so far and
//! how many workers have had a part in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sticky_lb::worker::Session;

/// One client's count.
pub struct Count {
    messages: Arc<AtomicU64>,
    workers: u64,
}

impl Count {
    /// Goes on from the worker before, and can migrate.
    pub fn new(session: Session) -> Self {
        let state = session.restored().unwrap_or_default();
        let (numbers, _) = state.as_chunks::<8>();
        let number = |at: usize| numbers.get(at).map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let (messages, workers) = (Arc::new(AtomicU64::new(number(0))), number(1) + 1);
        let left = Arc::clone(&messages);
        session.on_migrate(move || {
            [left.load(Ordering::Relaxed), workers].map(u64::to_le_bytes).concat()
        });
        Self { messages, workers }
    }

    /// The answer to the next message.
    pub fn answer(&self) -> String {
        format!("{} {}", self.messages.fetch_add(1, Ordering::Relaxed) + 1, self.workers)
    }
}
