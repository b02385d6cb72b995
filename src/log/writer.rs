//! Writes the log to standard error, directly or through a queue.
//!
//! A primary must not wait for the reader of standard error, which workers' lines fill too. So a thread
//! of its own writes there; when its queue is full, lines are dropped, counted and logged. A process of
//! one thread writes itself, and drops a line that isn't taken within a second.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait.
const QUEUE_LIMIT: usize = 4096;

/// How long a process of one thread waits for standard error.
const WRITE_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Writes lines to standard error.
#[derive(Clone, Debug, Default)]
pub(super) struct LogWriter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: OnceLock<SyncSender<Entry>>,
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Entry {
    Lines(Vec<u8>),
    /// All before it is written when this is dropped.
    Flush(SyncSender<()>),
}

/// Takes each formatted line in one call.
#[derive(Debug)]
pub(super) struct LineWriter<'a>(&'a Shared);

impl LogWriter {
    /// From now on a thread writes.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub(super) fn start_thread(&self) -> io::Result<()> {
        if self.0.queue.get().is_some() {
            return Ok(());
        }
        let (sender, entries) = sync_channel(QUEUE_LIMIT);
        let shared = Arc::clone(&self.0);
        thread::Builder::new().name("log".to_owned()).spawn(move || run(&entries, &shared))?;
        // Nobody else sets it.
        let _ = self.0.queue.set(sender);
        Ok(())
    }

    /// Adds lines that are no event of the log.
    pub(super) fn write_lines(&self, lines: &[u8]) {
        // Never fails.
        let _ = LineWriter(&self.0).write_all(lines);
    }

    /// Waits until all that was logged so far is written, for `timeout` at most.
    pub(super) fn flush(&self, timeout: Duration) {
        let Some(queue) = self.0.queue.get() else { return };
        let (done, written) = sync_channel(1);
        // If the queue is full, nothing is read, and waiting is in vain.
        if queue.try_send(Entry::Flush(done)).is_ok() {
            // Nothing is sent: it ends when the other end is dropped.
            let _ = written.recv_timeout(timeout);
        }
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(&self.0)
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if let Some(queue) = self.0.queue.get() {
            if queue.try_send(Entry::Lines(lines.to_vec())).is_err() {
                self.0.dropped.fetch_add(1, Ordering::Relaxed);
            }
        } else if is_writable() {
            write_to_stderr(lines);
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run(entries: &Receiver<Entry>, shared: &Shared) {
    loop {
        match entries.recv() {
            Ok(Entry::Lines(lines)) => write_to_stderr(&lines),
            Ok(Entry::Flush(done)) => drop(done),
            Err(_) => return,
        }
        let lines = shared.dropped.swap(0, Ordering::Relaxed);
        if lines > 0 {
            tracing::warn!(lines, "log lines dropped: standard error is not read fast enough");
        }
    }
}

fn is_writable() -> bool {
    let stderr = io::stderr();
    let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
    !matches!(poll(&mut polled, Some(&WRITE_TIMEOUT)), Ok(0))
}

/// Under the lock that workers' lines are written under, too.
fn write_to_stderr(lines: &[u8]) {
    let stderr = io::stderr().lock();
    // There is no other place for an error.
    let _ = write_all(stderr.as_fd(), lines);
}

/// Writes all, and waits where the descriptor doesn't block.
///
/// # Errors
///
/// The kernel's; some bytes may be written then.
pub(crate) fn write_all(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(descriptor, rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&descriptor, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
