//! Gives memory back to the kernel once many connections have gone: the C library keeps what is free
//! between what isn't.
//!
//! Costs nothing for each connection but a count, and no more than a walk through the heap for as many
//! connections as are left.

use std::io;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::kernel;

/// What fewer connections have taken isn't worth a look.
const MIN_RELEASED: usize = 100;

/// The same, when none is left.
const MIN_LAST: usize = 10;

/// Time for what goes together to go.
const DELAY: Duration = Duration::from_secs(1);

/// The C library keeps so many freed pieces of each size for each thread: any of them may be all that is left
/// of a page, which stays for it.
const CACHED: usize = 16;

/// These are multiples of so many bytes, up to so many of them.
const CACHED_STEP: usize = 16;
const CACHED_SIZES: usize = 64;

/// The connections whose memory was freed since it was last given back.
#[derive(Debug, Default)]
pub(crate) struct Trim {
    released: AtomicUsize,
    is_due: AtomicBool,
}

impl Trim {
    /// The memory of a connection, or what it needed for a while, is about to be freed; so many are open.
    pub(crate) fn note_released(self: &Arc<Self>, open: usize) {
        let released = self.released.fetch_add(1, Ordering::Relaxed) + 1;
        let enough = if open == 0 { MIN_LAST } else { MIN_RELEASED.max(open) };
        if released < enough || self.is_due.load(Ordering::Relaxed) {
            return;
        }
        // Outside of a runtime the next one that goes within one is soon enough.
        if let Ok(runtime) = Handle::try_current()
            && !self.is_due.swap(true, Ordering::Relaxed)
        {
            runtime.spawn(Arc::clone(self).give_back());
        }
    }

    async fn give_back(self: Arc<Self>) {
        sleep(DELAY).await;
        self.released.store(0, Ordering::Relaxed);
        self.is_due.store(false, Ordering::Relaxed);
        let cached = take_cached();
        // A large heap takes its time, which is nobody's who serves. Without a thread all stays as it is.
        let _ = start_thread(move || {
            // With the end of a thread its own cache ends, too.
            let freeing = start_thread(move || drop(cached));
            let _ = freeing.map(JoinHandle::join);
            kernel::trim_memory();
        });
    }
}

/// Takes what the C library keeps for this thread.
fn take_cached() -> Vec<Vec<u8>> {
    // 8 bytes of each are the library's.
    let sizes = (1..=CACHED_SIZES).map(|count| count * CACHED_STEP + 8);
    sizes
        .flat_map(|size| iter::repeat_with(move || Vec::with_capacity(size)).take(CACHED))
        .collect()
}

fn start_thread(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("trim".to_owned()).spawn(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_is_given_back_once_as_many_have_gone_as_are_left() {
        let trim = Arc::new(Trim::default());
        let release = |count: usize, open: usize| {
            (0..count).for_each(|_| trim.note_released(open));
            trim.is_due.load(Ordering::Relaxed)
        };
        assert!(!release(MIN_RELEASED - 1, 1), "too few");
        assert!(!release(500, 1_000), "most are left");
        assert!(release(500, 900));
        while trim.is_due.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(!release(1, 0), "it begins again");
        assert!(release(MIN_LAST, 0), "none is left");
    }
}
