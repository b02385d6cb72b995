//! Room for the images of recovered sessions that are on their way: each is copied out of the checkpoint of
//! its dead worker when it is sent, and a worker may have left many, of 16 MiB each.
//!
//! Never waits: a session without room waits where it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of images that are on their way at a time.
const MAX_BYTES: u64 = 64 << 20;

/// The room that is left. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ImageBudget {
    used: Arc<AtomicU64>,
}

/// A share of it, until it is dropped.
#[derive(Debug)]
pub struct ImageShare {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl ImageBudget {
    /// Room for so many bytes, if there is any. One image has room alone, however long.
    #[must_use]
    pub fn take(&self, bytes: u64) -> Option<ImageShare> {
        let used = self.used.load(Ordering::Relaxed);
        if used > 0 && used.saturating_add(bytes) > MAX_BYTES {
            return None;
        }
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Some(ImageShare { used: Arc::clone(&self.used), bytes })
    }
}

impl Drop for ImageShare {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_bytes_and_for_one_image_of_any_length() {
        let budget = ImageBudget::default();
        let long = budget.take(2 * MAX_BYTES);
        assert!(long.is_some());
        assert!(budget.take(1).is_none());
        drop(long);
        let shares: Vec<_> = std::iter::from_fn(|| budget.take(MAX_BYTES / 4)).collect();
        assert_eq!(shares.len(), 4);
        drop(shares);
        assert!(budget.take(MAX_BYTES).is_some());
    }
}
