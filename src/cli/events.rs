//! `--events-fd N`: what happens to the primary, a line of JSON each, on a descriptor that it was
//! started with. Workers don't inherit it, so that none of them can forge a line.
//!
//! Nothing waits for their reader: a thread writes, and events are dropped and counted while its queue is
//! full, but for those by which a script knows that a primary listens, is ready or has stopped: these find a
//! place, and the end waits for them. An event is written behind the lines of the log that came before it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use serde_json::Value;

use crate::kernel::adopt_if;
use crate::log::write_all;
use crate::protocol::ids::Timestamp;
use crate::system::activation::is_passed_socket;
use crate::system::keeper::passed_events;

/// Lines that may wait.
const QUEUE_LIMIT: u64 = 1024;

/// Lines that may wait beside those, of events that come once in a primary's life.
const RESERVED: u64 = 16;

/// How often dropped events are spoken of.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);

/// Why there is no such descriptor.
#[derive(Debug, thiserror::Error)]
#[error(
    "--events-fd {number}: {reason}; open it for writing, as in `--events-fd {example} {example}>events`"
)]
pub(super) struct EventsError {
    number: RawFd,
    reason: String,
    example: RawFd,
}

/// The descriptor.
#[derive(Clone, Debug)]
pub(super) struct EventsFile {
    descriptor: Arc<OwnedFd>,
    /// A copy of standard output or standard error, which a successor has anyway.
    is_copy: bool,
}

impl EventsFile {
    /// Takes the descriptor of that number; from a keeper, the one that it passes in its place. To be
    /// called once, before other descriptors are taken.
    ///
    /// # Errors
    ///
    /// If it isn't open, can't be written to, or is used for something else.
    pub(super) fn take(number: RawFd) -> Result<Self, EventsError> {
        let error = |reason: String| EventsError { number, reason, example: number.max(3) };
        let actual = passed_events().unwrap_or(number);
        let (is_copy, descriptor) = match actual {
            ..=0 => return Err(error("standard input is no place for events".to_owned())),
            1 => (true, io::stdout().as_fd().try_clone_to_owned().and_then(writable)),
            2 => (true, io::stderr().as_fd().try_clone_to_owned().and_then(writable)),
            _ if is_passed_socket(actual) => {
                return Err(error("that is a socket of LISTEN_FDS".to_owned()));
            }
            _ => (false, adopt_if(actual, is_writable)),
        };
        let descriptor = descriptor.map_err(|source| {
            error(match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::BADF) => "the descriptor is not open".to_owned(),
                _ => source.to_string(),
            })
        })?;
        Ok(Self { descriptor: Arc::new(descriptor), is_copy })
    }

    /// Whether a program that takes this one's place has it, too.
    pub(super) fn set_inherited(&self, inherited: bool) {
        if self.is_copy {
            return;
        }
        // Fails for descriptors that are not open only.
        if let Ok(mut flags) = fcntl_getfd(&self.descriptor) {
            flags.set(FdFlags::CLOEXEC, !inherited);
            let _ = fcntl_setfd(&self.descriptor, flags);
        }
    }
}

impl AsFd for EventsFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn writable(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    is_writable(descriptor.as_fd())?;
    Ok(descriptor)
}

fn is_writable(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let flags = fcntl_getfl(descriptor)?;
    if flags.contains(OFlags::PATH) || flags & OFlags::ACCMODE == OFlags::RDONLY {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is open for reading only"));
    }
    Ok(())
}

/// Writes events, where they are wanted.
#[derive(Debug)]
pub(super) struct EventWriter {
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    lines: SyncSender<String>,
    ended: Receiver<()>,
    count: Arc<Count>,
}

/// Events that are not written.
#[derive(Debug, Default)]
struct Count {
    /// They will be.
    waiting: AtomicU64,
    dropped: AtomicU64,
}

impl EventWriter {
    /// Starts the thread, if there is somewhere to write to. It runs `flush_log` before each event.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub(super) fn start(
        file: Option<&EventsFile>,
        flush_log: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let Some(file) = file.cloned() else { return Ok(Self { thread: None }) };
        let room = usize::try_from(QUEUE_LIMIT + RESERVED).unwrap_or(usize::MAX);
        let (sender, lines) = sync_channel(room);
        let (running, ended) = sync_channel(1);
        let count = Arc::<Count>::default();
        let counted = Arc::clone(&count);
        thread::Builder::new().name("events".to_owned()).spawn(move || {
            write_lines(&lines, &file, &counted, flush_log);
            drop(running);
        })?;
        Ok(Self { thread: Some(Thread { lines: sender, ended, count }) })
    }

    /// Adds an event.
    pub(super) fn write(&self, event: &Value) {
        let Some(Thread { lines, count, .. }) = &self.thread else { return };
        let has_room = count.waiting.load(Ordering::Relaxed) < QUEUE_LIMIT;
        count.waiting.fetch_add(1, Ordering::Relaxed);
        if !(has_room || is_essential(event))
            || matches!(lines.try_send(format!("{event}\n")), Err(TrySendError::Full(_)))
        {
            count.waiting.fetch_sub(1, Ordering::Relaxed);
            if count.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::warn!(
                    "events dropped: the descriptor of --events-fd is not read fast enough"
                );
            }
        }
    }

    /// Waits until all events are written, for `timeout` at most.
    pub(super) fn finish(self, timeout: Duration) {
        let Some(Thread { lines, ended, count }) = self.thread else { return };
        drop(lines);
        if ended.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
            let [waiting, dropped] =
                [&count.waiting, &count.dropped].map(|count| count.load(Ordering::Relaxed));
            let events = waiting + dropped;
            tracing::warn!(events, "events are lost: the descriptor of --events-fd is not read");
        }
    }
}

/// Whether scripts wait for this event.
fn is_essential(event: &Value) -> bool {
    matches!(event["event"].as_str(), Some("listening" | "ready" | "stopped"))
}

fn write_lines(lines: &Receiver<String>, file: &EventsFile, count: &Count, flush_log: impl Fn()) {
    let (mut has_failed, mut reported) = (false, Timestamp(0));
    for line in lines {
        flush_log();
        let written = write_all(file.as_fd(), line.as_bytes());
        count.waiting.fetch_sub(1, Ordering::Relaxed);
        let now = Timestamp::now();
        if count.dropped.load(Ordering::Relaxed) > 0 && now.since(reported) >= LOSS_INTERVAL {
            reported = now;
            let events = count.dropped.swap(0, Ordering::Relaxed);
            tracing::warn!(
                events,
                "events were dropped: the descriptor of --events-fd is read again"
            );
        }
        match written {
            Ok(()) => has_failed = false,
            Err(error) => {
                if !std::mem::replace(&mut has_failed, true) {
                    tracing::warn!(%error, "events are lost: cannot write to the descriptor of --events-fd");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use serde_json::json;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn file(descriptor: impl Into<OwnedFd>) -> EventsFile {
        EventsFile { descriptor: Arc::new(descriptor.into()), is_copy: false }
    }

    #[test]
    fn events_are_lines_of_json() {
        let (reader, writer) = io::pipe().unwrap();
        let events = EventWriter::start(Some(&file(writer)), || {}).unwrap();
        events.write(&json!({"event": "ready"}));
        events.write(&json!({"event": "stopped"}));
        events.finish(TIMEOUT);
        let lines: Vec<_> = BufReader::new(reader).lines().map(Result::unwrap).collect();
        assert_eq!(lines, [r#"{"event":"ready"}"#, r#"{"event":"stopped"}"#]);
    }

    #[test]
    fn a_reader_that_does_not_read_stops_nothing_and_what_counts_finds_a_place() {
        let (reader, writer) = io::pipe().unwrap();
        let events = EventWriter::start(Some(&file(writer)), || {}).unwrap();
        let long = json!({"event": "x".repeat(4096)});
        let all = 2 * QUEUE_LIMIT;
        (0..all).for_each(|_| events.write(&long));
        events.write(&json!({"event": "stopped"}));
        let dropped = events.thread.as_ref().unwrap().count.dropped.load(Ordering::Relaxed);
        assert!(dropped > 0);
        let read = thread::spawn(|| BufReader::new(reader).lines().map(Result::unwrap).collect());
        events.finish(TIMEOUT);
        let lines: Vec<String> = read.join().unwrap();
        assert_eq!(lines.len() as u64, all - dropped + 1);
        assert_eq!(lines.last().unwrap(), r#"{"event":"stopped"}"#);
    }

    #[test]
    fn the_end_waits_only_so_long() {
        let (_reader, writer) = io::pipe().unwrap();
        let events = EventWriter::start(Some(&file(writer)), || {}).unwrap();
        let long = json!({"event": "x".repeat(4096)});
        (0..100).for_each(|_| events.write(&long));
        events.finish(Duration::from_millis(10));
    }

    #[test]
    fn a_reader_that_has_gone_stops_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let events = EventWriter::start(Some(&file(writer)), || {}).unwrap();
        events.write(&json!({"event": "ready"}));
        events.finish(TIMEOUT);
        let none = EventWriter::start(None, || {}).unwrap();
        none.write(&json!({"event": "ready"}));
        none.finish(TIMEOUT);
    }

    #[test]
    fn a_descriptor_must_be_open_for_writing() {
        assert!(is_writable(std::fs::File::open("/dev/null").unwrap().as_fd()).is_err());
        assert!(is_writable(std::fs::File::create("/dev/null").unwrap().as_fd()).is_ok());
        for (number, expected) in
            [(0, "standard input"), (-1, "standard input"), (9_999, "not open")]
        {
            let error = EventsFile::take(number).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
