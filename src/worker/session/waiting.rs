//! How long an HTTP connection has waited for its next request, over all workers that have served it.
//!
//! Pure: the caller passes the time.

use std::time::Duration;

use tokio::time::Instant;

#[cfg(feature = "hyper")]
use crate::worker::http_limits::HttpLimits;

/// A connection's wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// A request has come on it.
    is_used: bool,
    since: Instant,
}

impl Waiting {
    /// Waits for the first request.
    pub(super) fn new(now: Instant) -> Self {
        Self { is_used: false, since: now }
    }

    /// A request has come, or its answer is made, or a head has begun: the wait begins again.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Self { is_used: true, since: now };
    }

    /// Whether it has waited for too long. In the middle of a head the limit is that of heads.
    #[cfg(feature = "hyper")]
    pub(super) fn is_overdue(&self, limits: &HttpLimits, in_head: bool, now: Instant) -> bool {
        let is_idle = self.is_used && !in_head;
        let limit = if is_idle { limits.idle_timeout } else { limits.header_timeout };
        limit.is_some_and(|limit| now.saturating_duration_since(self.since) >= limit)
    }

    /// As bytes: 1 if it was used, else 0, and the milliseconds so far, 4 bytes, little-endian.
    pub(super) fn encode(&self, now: Instant) -> Vec<u8> {
        let waited = now.saturating_duration_since(self.since).as_millis();
        let waited = u32::try_from(waited).unwrap_or(u32::MAX);
        [&[u8::from(self.is_used)][..], &waited.to_le_bytes()].concat()
    }

    /// A worker that doesn't say has left it unused, a moment ago.
    pub(super) fn decode(bytes: &[u8], now: Instant) -> Self {
        let Some((&[used], waited)) = bytes.split_first_chunk::<1>() else { return Self::new(now) };
        let waited = waited.try_into().map_or(0, u32::from_le_bytes);
        let since = now.checked_sub(Duration::from_millis(waited.into()));
        Self { is_used: used == 1, since: since.unwrap_or(now) }
    }
}

#[cfg(all(test, feature = "hyper"))]
mod tests {
    use super::*;

    #[test]
    fn a_wait_goes_on_in_the_next_worker_and_ends_with_a_request() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let limits = HttpLimits::new();
        let mut waiting = Waiting::new(start);
        assert!(!waiting.is_overdue(&limits, false, start + 29 * second));
        let next = Waiting::decode(&waiting.encode(start + 20 * second), start + 20 * second);
        assert!(!next.is_overdue(&limits, false, start + 29 * second));
        assert!(next.is_overdue(&limits, false, start + 30 * second));
        waiting.begin(start + 20 * second);
        assert!(!waiting.is_overdue(&limits, false, start + 94 * second));
        assert!(waiting.is_overdue(&limits, true, start + 50 * second), "in the middle of a head");
        let next = Waiting::decode(&waiting.encode(start + 90 * second), start + 90 * second);
        assert!(next.is_overdue(&limits, false, start + 95 * second));
        let never = limits.header_timeout(None).idle_timeout(None);
        assert!(!next.is_overdue(&never, true, start + 9_999 * second));
        assert!(!Waiting::decode(&[], start).is_overdue(&limits, false, start));
    }
}
