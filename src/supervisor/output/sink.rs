//! Writes whole lines to a descriptor; says once that it cannot, and once that it can again.
//!
//! Never gives up, and never fails: lines that cannot be written are lost and counted.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::protocol::ids::Timestamp;
use crate::supervisor::output::lines::count;

/// Time without a failure before the log says that it works again: a full disk takes a short
/// line now and then.
const WORKS_AFTER: Duration = Duration::from_secs(1);

/// The state of one descriptor, or of one after the other at the same place.
#[derive(Debug)]
pub(super) struct Sink {
    name: String,
    /// Lines that were dropped or lost, of all sinks.
    dropped: Arc<AtomicU64>,
    /// The last write ended within a line.
    torn: bool,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    last: Timestamp,
    lost: u64,
}

impl Sink {
    /// Of that name in the log.
    pub(super) fn new(name: String, dropped: Arc<AtomicU64>) -> Self {
        Self { name, dropped, torn: false, failing: None }
    }

    /// Writes lines, and returns how many bytes were written.
    pub(super) fn write(&mut self, descriptor: BorrowedFd<'_>, lines: &[u8]) -> usize {
        // A torn line is ended, so that the next begins on a line of its own.
        let begun: &[u8] = if self.torn { b"\n" } else { b"" };
        let (ended, result) = write_all(descriptor, begun);
        self.torn &= ended == 0;
        let (written, result) = match result {
            Ok(()) => write_all(descriptor, lines),
            failed => (0, failed),
        };
        match result {
            Ok(()) => self.works(),
            Err(errno) => {
                self.torn |= written > 0 && lines[written - 1] != b'\n';
                self.fails(&errno.into(), count(&lines[written..]));
            }
        }
        ended + written
    }

    /// Counts lost lines.
    pub(super) fn fails(&mut self, error: &io::Error, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        if self.failing.is_none() {
            tracing::warn!(to = self.name, %error, "output cannot be written: lines are lost");
        }
        let lost = self.failing.as_ref().map_or(0, |failing| failing.lost) + lines;
        self.failing = Some(Failing { last: Timestamp::now(), lost });
    }

    /// The next line begins in a new file.
    pub(super) fn restart(&mut self) {
        self.torn = false;
    }

    fn works(&mut self) {
        if let Some(Failing { last, lost }) = self.failing
            && Timestamp::now().since(last) >= WORKS_AFTER
        {
            tracing::warn!(to = self.name, lost, "output can be written again");
            self.failing = None;
        }
    }
}

/// Writes all, and returns how much of it was written.
fn write_all(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> (usize, Result<(), Errno>) {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(descriptor, &bytes[written..]) {
            Ok(0) => return (written, Err(Errno::IO)),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            // The parent may have made the descriptor non-blocking, for others too.
            Err(Errno::AGAIN) => {
                // If that fails, the next attempt to write says why.
                let _ = poll(&mut [PollFd::new(&descriptor, PollFlags::OUT)], None);
            }
            Err(errno) => return (written, Err(errno)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_torn_is_ended_and_losses_are_counted() {
        let dropped = Arc::new(AtomicU64::new(0));
        let mut sink = Sink::new("test".to_owned(), Arc::clone(&dropped));
        let (mut reader, writer) = io::pipe().unwrap();
        sink.torn = true;
        assert_eq!(sink.write(writer.as_fd(), b"next\n"), 6);
        sink.write(writer.as_fd(), b"and next\n");
        let mut text = [0; 15];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"\nnext\nand next\n");
        drop(reader);
        assert_eq!(sink.write(writer.as_fd(), b"lost\nlost\n"), 0);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn it_works_again_only_after_a_while() {
        let mut sink = Sink::new("test".to_owned(), Arc::new(AtomicU64::new(0)));
        sink.fails(&Errno::NOSPC.into(), 3);
        sink.works();
        sink.fails(&Errno::NOSPC.into(), 4);
        assert!(matches!(sink.failing, Some(Failing { lost: 7, .. })));
        sink.failing = Some(Failing { last: Timestamp(0), lost: 7 });
        sink.works();
        assert!(sink.failing.is_none());
    }
}
