//! Ctrl-C and SIGTERM: remembered here and looked at by every loop, so that
//! the run ends as if by an error and takes its processes down with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::Result;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From here on the signals no longer end the program at once.
pub(crate) fn watch() -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        REQUESTED.store(true, Ordering::Relaxed);
    });
    Ok(())
}

pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// # Errors
///
/// Once the run shall end.
pub(crate) fn check() -> Result<()> {
    if requested() {
        return Err("interrupted".into());
    }
    Ok(())
}
