//! Closes HTTP connections whose clients take too long with a request.
//!
//! Never costs a connection anything: it looks at all of them now and then.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::worker::http_limits::HttpLimits;
use crate::worker::linger;
use crate::worker::session::inner::Inner;
use crate::worker::session::registry::Sessions;

/// Of a limit, how much later a client may be closed; and the least time between two looks.
const LATENESS: u32 = 10;
const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// Watches the connections of a worker until that ends.
pub(crate) fn watch(sessions: &Arc<Sessions>, limits: HttpLimits) {
    let shortest = [limits.header_timeout, limits.idle_timeout].into_iter().flatten().min();
    let Some(shortest) = shortest else { return };
    let interval = (shortest / LATENESS).max(MIN_INTERVAL);
    tokio::spawn(look_every(interval, Arc::downgrade(sessions), limits));
}

async fn look_every(interval: Duration, sessions: Weak<Sessions>, limits: HttpLimits) {
    loop {
        sleep(interval).await;
        let Some(sessions) = sessions.upgrade() else { return };
        let now = Instant::now();
        for session in sessions.overdue(&limits, now) {
            if sessions.mark_busy(session.info.id) {
                tokio::spawn(close(Arc::clone(&sessions), session));
            }
        }
    }
}

async fn close(sessions: Arc<Sessions>, session: Arc<Inner>) {
    tracing::debug!(connection = session.info.id.0, "client takes too long with its request");
    if let Some(detached) = session.handle.force_detach() {
        linger::close(detached.stream).await;
        drop((detached.guard, detached.checkpoint));
    }
    sessions.unmark_busy(session.info.id);
}
