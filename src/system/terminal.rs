//! The terminal that a program was started in, and its end.
//!
//! When a terminal is closed, its programs get SIGHUP, which also orders a reload. A program that a person has
//! started in a terminal ends with it; `nohup` and `setsid` say that it stays.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, IsTerminal};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The terminal that controls this process, if one does.
const CONTROLLING: &str = "/dev/tty";

/// The meaning of a SIGHUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// Somebody orders a reload.
    Reload,
    /// The terminal has ended: this program is to end, too.
    Stop,
    /// The terminal has ended, and this program is to stay.
    Stay,
}

/// The terminal at the start of this process.
#[derive(Debug)]
pub struct Terminal {
    start: Start,
    /// It has ended and that was said: several signals come for one end.
    has_ended: Cell<bool>,
}

/// What was so at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    is_controlled: bool,
    is_input: bool,
    /// SIGHUP was ignored, as by `nohup`.
    is_ignored: bool,
}

impl Terminal {
    /// To be called before SIGHUP has a handler.
    #[must_use]
    pub fn find() -> Self {
        let start = Start {
            is_controlled: File::open(CONTROLLING).is_ok(),
            is_input: io::stdin().is_terminal(),
            is_ignored: is_hangup_ignored(),
        };
        Self { start, has_ended: Cell::new(false) }
    }

    /// The meaning of a SIGHUP that has come now.
    #[must_use]
    pub fn hangup(&self) -> Hangup {
        let meaning = self.start.meaning(is_input_hung_up(), File::open(CONTROLLING).is_err());
        let is_again = meaning != Hangup::Reload && self.has_ended.replace(true);
        if is_again && meaning == Hangup::Stop { Hangup::Stay } else { meaning }
    }
}

impl Start {
    fn meaning(self, is_input_gone: bool, is_controlling_gone: bool) -> Hangup {
        match self {
            Self { is_controlled: false, .. } => Hangup::Reload,
            Self { is_ignored: true, .. } if is_controlling_gone => Hangup::Stay,
            Self { is_ignored: false, is_input: true, .. } if is_input_gone => Hangup::Stop,
            _ => Hangup::Reload,
        }
    }
}

/// Whether the terminal that is standard input has ended.
fn is_input_hung_up() -> bool {
    let input = io::stdin();
    let mut polled = [PollFd::new(&input, PollFlags::empty())];
    let found = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    found.is_ok() && polled[0].revents().contains(PollFlags::HUP)
}

fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is signal 1, the lowest bit.
    ignored.is_some_and(|mask| mask & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminals_end_stops_whom_a_person_has_started_in_it() {
        use Hangup::{Reload, Stay, Stop};
        let start =
            |is_controlled, is_input, is_ignored| Start { is_controlled, is_input, is_ignored };
        for (start, is_input_gone, is_controlling_gone, expected) in [
            (start(true, true, false), true, true, Stop),
            // The shell may be faster than the kernel.
            (start(true, true, false), true, false, Stop),
            (start(true, true, false), false, false, Reload),
            // nohup
            (start(true, false, true), false, true, Stay),
            (start(true, true, true), true, true, Stay),
            (start(true, false, true), false, false, Reload),
            // setsid
            (start(false, true, false), true, true, Reload),
            // A service.
            (start(false, false, false), false, true, Reload),
            // Its input is a file.
            (start(true, false, false), false, true, Reload),
        ] {
            assert_eq!(start.meaning(is_input_gone, is_controlling_gone), expected, "{start:?}");
        }
    }
}
