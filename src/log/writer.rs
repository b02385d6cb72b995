//! Writes the log to standard error, directly or through a queue.
//!
//! A process that serves must not wait for the reader of standard error, which workers' lines fill too. So a
//! thread of its own writes there; when its queue is full, lines are dropped, counted and logged. Without
//! that thread, a process writes itself, and drops a line that isn't taken within a second.

use std::cell::Cell;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing_subscriber::fmt::MakeWriter;

use super::limit::{LineLimit, Suppressed};
use crate::protocol::ids::Timestamp;

/// Lines that may wait.
const QUEUE_LIMIT: usize = 4096;

/// How long a process without the thread waits for standard error.
const WRITE_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// How often lines that are missing are spoken of.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);

thread_local! {
    /// The thread that writes: its own lines need no queue.
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

/// Writes lines to standard error.
#[derive(Clone, Debug, Default)]
pub(super) struct LogWriter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: OnceLock<SyncSender<Entry>>,
    dropped: AtomicU64,
    limit: LineLimit,
    /// A flush has waited in vain, and nothing was written since.
    is_stuck: AtomicBool,
}

#[derive(Debug)]
enum Entry {
    Lines(Vec<u8>),
    /// All before it is written when this is dropped.
    Flush(SyncSender<()>),
    /// A line was left out.
    Wake,
}

/// Takes each formatted line in one call.
#[derive(Debug)]
pub(super) struct LineWriter<'a>(&'a Shared);

impl LogWriter {
    /// From now on a thread writes. It gets no signals: they are for the thread that calls this.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub(super) fn start_thread(&self) -> io::Result<()> {
        if self.has_thread() {
            return Ok(());
        }
        let (sender, entries) = sync_channel(QUEUE_LIMIT);
        let shared = Arc::clone(&self.0);
        let before = SigSet::thread_get_mask()?;
        SigSet::all().thread_block()?;
        let started = thread::Builder::new().name("log".to_owned()).spawn(move || {
            IS_WRITER.set(true);
            run(&entries, &shared);
        });
        before.thread_set_mask()?;
        started?;
        // Nobody else sets it.
        let _ = self.0.queue.set(sender);
        Ok(())
    }

    /// Whether a thread writes.
    pub(super) fn has_thread(&self) -> bool {
        self.0.queue.get().is_some()
    }

    /// The limit of lines whose losses it speaks of.
    pub(super) fn limit(&self) -> &LineLimit {
        &self.0.limit
    }

    /// Has the thread look for lines that were left out.
    pub(super) fn wake(&self) {
        // One that has a full queue looks anyway.
        self.0.queue.get().map(|queue| queue.try_send(Entry::Wake));
    }

    /// Adds lines that are no event of the log.
    pub(super) fn write_lines(&self, lines: &[u8]) {
        // Never fails.
        let _ = LineWriter(&self.0).write_all(lines);
    }

    /// Waits until all that was logged so far is written, for `timeout` at most. After a wait in vain, not
    /// again before something is written.
    pub(super) fn flush(&self, timeout: Duration) {
        let Some(queue) = self.0.queue.get() else { return };
        if self.0.is_stuck.load(Ordering::Relaxed) {
            return;
        }
        let (done, written) = sync_channel(1);
        // If the queue is full, nothing is read, and waiting is in vain.
        if queue.try_send(Entry::Flush(done)).is_ok() {
            // Nothing is sent: it ends when the other end is dropped.
            let in_vain = written.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout);
            self.0.is_stuck.store(in_vain, Ordering::Relaxed);
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
        match self.0.queue.get() {
            Some(_) if IS_WRITER.get() => write_to_stderr(lines),
            Some(queue) => {
                let is_dropped = queue.try_send(Entry::Lines(lines.to_vec())).is_err();
                self.0.dropped.fetch_add(is_dropped.into(), Ordering::Relaxed);
            }
            None if is_writable() => write_to_stderr(lines),
            None => {}
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run(entries: &Receiver<Entry>, shared: &Shared) {
    let mut reported = Timestamp(0);
    loop {
        let entry = match shared.has_losses() {
            true => entries.recv_timeout(LOSS_INTERVAL),
            false => entries.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match entry {
            Ok(Entry::Lines(lines)) => write_to_stderr(&lines),
            Ok(Entry::Flush(done)) => drop(done),
            Ok(Entry::Wake) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        shared.is_stuck.store(false, Ordering::Relaxed);
        let now = Timestamp::now();
        if shared.has_losses() && now.since(reported) >= LOSS_INTERVAL {
            shared.report_losses();
            reported = now;
        }
    }
}

impl Shared {
    fn has_losses(&self) -> bool {
        self.dropped.load(Ordering::Relaxed) > 0 || self.limit.has_suppressed()
    }

    /// To be called on the thread that writes.
    fn report_losses(&self) {
        let lines = self.dropped.swap(0, Ordering::Relaxed);
        if lines > 0 {
            tracing::warn!(lines, "log lines dropped: standard error is not read fast enough");
        }
        for Suppressed { lines, slot, message } in self.limit.take_suppressed() {
            tracing::warn!(lines, slot, line = message, "log lines suppressed: too many of a kind");
        }
    }
}

fn is_writable() -> bool {
    let stderr = io::stderr();
    let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
    !matches!(poll(&mut polled, Some(&WRITE_TIMEOUT)), Ok(0))
}

/// Writes to standard error what is no line of the log, unless that isn't read for a second. Not under the
/// lock: a thread may hold that for as long as nobody reads.
#[cfg(feature = "demo")]
pub(crate) fn write_to_people(text: &[u8]) {
    if is_writable() {
        // There is no other place for an error.
        let _ = write_all(io::stderr().as_fd(), text);
    }
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
