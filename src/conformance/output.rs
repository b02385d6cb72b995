//! The output of a worker under test: read and thrown away, but for the end of its standard error.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::supervisor::process::Printed;

/// So much of a line is shown.
const MAX_LINE: usize = 400;
/// Reads in one look, at most.
const MAX_READS: usize = 64;

/// The pipes of a worker.
#[derive(Debug)]
pub struct Output {
    /// Standard output, then standard error; none once they are closed.
    pipes: Vec<File>,
    /// The end of what has come on standard error.
    end: Vec<u8>,
    /// Whether it is read.
    pub is_read: bool,
}

impl Output {
    /// Of these pipes.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn new(printed: Printed) -> io::Result<Self> {
        let pipe = |pipe: OwnedFd| -> io::Result<File> {
            fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
            Ok(pipe.into())
        };
        let pipes = vec![pipe(printed.stdout)?, pipe(printed.stderr)?];
        Ok(Self { pipes, end: Vec::new(), is_read: true })
    }

    /// Reads what has come.
    pub fn look(&mut self) {
        let mut bytes = [0; 8192];
        for (number, pipe) in self.pipes.iter_mut().enumerate().filter(|_| self.is_read) {
            for _ in 0..MAX_READS {
                let Ok(length @ 1..) = pipe.read(&mut bytes) else { break };
                if number == 1 {
                    self.end.extend_from_slice(&bytes[..length]);
                    let extra = self.end.len().saturating_sub(4 * MAX_LINE);
                    self.end.drain(..extra);
                }
            }
        }
    }

    /// Nobody will ever read it.
    pub fn close(&mut self) {
        self.pipes.clear();
    }

    /// The line of standard error that says best why it has ended.
    #[must_use]
    pub fn reason(&self) -> String {
        reason(&self.end)
    }
}

/// The last line that names an error, else the last one.
fn reason(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = || text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| line.contains("Error")).or_else(|| lines().next());
    line.unwrap_or_default().chars().filter(|c| !c.is_control()).take(MAX_LINE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_with_the_error_says_why() {
        for (printed, expected) in [
            (&b""[..], ""),
            (b"one\ntwo\n\n  \n", "two"),
            (b"Traceback\nValueError: \x1b[31mno", "ValueError: [31mno"),
            (b"Error: no port\n    at main.js:1\n\nNode.js v20\n", "Error: no port"),
        ] {
            assert_eq!(reason(printed), expected);
        }
        assert_eq!(reason(&[b'x'; 2 * MAX_LINE]).len(), MAX_LINE);
    }
}
