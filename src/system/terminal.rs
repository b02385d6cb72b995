//! The terminal that a program was started in, and its end.
//!
//! When a terminal is closed, its programs get SIGHUP, which also orders a reload. A program that a person has
//! started in a terminal ends with it; `nohup` and `setsid` say that it stays.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The terminal that controls this process, if one does.
const CONTROLLING: &str = "/dev/tty";

/// How often is looked whether it is there, and how long its end is news.
const INTERVAL: Duration = Duration::from_secs(1);

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
    /// It has ended a while ago: what comes now comes from elsewhere.
    is_past: Arc<AtomicBool>,
}

/// What was so at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    /// A service has no terminal, nor has what `setsid` starts.
    is_controlled: bool,
    /// SIGHUP was ignored, as by `nohup`.
    is_ignored: bool,
}

impl Terminal {
    /// To be called before SIGHUP has a handler. Where there is a terminal, a thread looks each second whether
    /// it is still there.
    #[must_use]
    pub fn find() -> Self {
        let is_controlled = File::open(CONTROLLING).is_ok();
        let start = Start { is_controlled, is_ignored: is_hangup_ignored() };
        let is_past = Arc::<AtomicBool>::default();
        if is_controlled {
            let flag = Arc::clone(&is_past);
            // Signals are for threads that handle them.
            let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
            let look = thread::Builder::new().name("terminal".to_owned());
            // Without one, every HUP after the end is taken for that of the end.
            let _ = look.spawn(move || note_end(&flag));
            before.into_iter().for_each(|mask| _ = mask.thread_set_mask());
        }
        Self { start, has_ended: Cell::new(false), is_past }
    }

    /// The meaning of a SIGHUP that has come now.
    #[must_use]
    pub fn hangup(&self) -> Hangup {
        let is_end = has_ended() && !self.is_past.load(Ordering::Relaxed);
        let meaning = self.start.meaning(is_end);
        let is_again = meaning != Hangup::Reload && self.has_ended.replace(true);
        if is_again && meaning == Hangup::Stop { Hangup::Stay } else { meaning }
    }
}

impl Start {
    fn meaning(self, is_end: bool) -> Hangup {
        match self {
            Self { is_controlled: true, is_ignored: true } if is_end => Hangup::Stay,
            Self { is_controlled: true, is_ignored: false } if is_end => Hangup::Stop,
            _ => Hangup::Reload,
        }
    }
}

/// Waits for the end of the terminal, and then as long as signals of it may come.
fn note_end(is_past: &AtomicBool) {
    while !has_ended() {
        thread::sleep(INTERVAL);
    }
    thread::sleep(INTERVAL);
    is_past.store(true, Ordering::Relaxed);
}

/// Whether the controlling terminal has ended, or the session whose it was. The shell may be faster than the
/// kernel: then standard input shows it first, if that is the terminal.
fn has_ended() -> bool {
    File::open(CONTROLLING).is_err() || io::stdin().is_terminal() && is_input_hung_up()
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
        let start = |is_controlled, is_ignored| Start { is_controlled, is_ignored };
        for (start, is_end, expected) in [
            (start(true, false), true, Stop),
            // An order.
            (start(true, false), false, Reload),
            // nohup
            (start(true, true), true, Stay),
            (start(true, true), false, Reload),
            // A service, or setsid.
            (start(false, false), true, Reload),
            (start(false, true), true, Reload),
        ] {
            assert_eq!(start.meaning(is_end), expected, "{start:?}");
        }
    }
}
