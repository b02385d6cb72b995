//! Signals to the primary, as actions.

use std::io;
use std::time::Duration;

use nix::sys::signal::SigSet;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::protocol::ids::Timestamp;
use crate::system::keeper::is_kept;
use crate::system::terminal::{Hangup, Terminal};

mod blocked;

use blocked::BlockedSignal;

/// The action that a signal stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalAction {
    /// TERM, INT or QUIT: stop gracefully.
    Stop,
    /// A second one of them, later: stop at once.
    StopNow,
    /// HUP, unless its terminal has ended: read the configuration again, and replace all workers.
    Reload,
    /// USR1: log files were renamed, reopen them.
    Reopen,
    /// USR2: upgrade in place.
    Upgrade,
    /// TTIN: one worker more.
    OneMore,
    /// TTOU: one worker fewer.
    OneFewer,
}

/// The signals that the primary answers. Others do what they always do.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    reopen: Signal,
    upgrade: Signal,
    one_more: Signal,
    one_fewer: Signal,
    /// Reads TTOU where it is blocked.
    blocked: Option<BlockedSignal>,
    /// None if a keeper has it.
    terminal: Option<Terminal>,
    stops: Stops,
}

impl Signals {
    /// From now on signals are read. Those that came while they were blocked are the first.
    pub(super) fn install() -> io::Result<Self> {
        let terminal = (!is_kept()).then(Terminal::find);
        let mut signals = Self { terminal, ..Self::handled()? };
        if is_kept() {
            signals.blocked = Some(BlockedSignal::block()?);
        } else {
            SigSet::empty().thread_set_mask()?;
        }
        Ok(signals)
    }

    fn handled() -> io::Result<Self> {
        let raw = |signal: rustix::process::Signal| SignalKind::from_raw(signal.as_raw());
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
            one_more: signal(raw(rustix::process::Signal::TTIN))?,
            one_fewer: signal(raw(rustix::process::Signal::TTOU))?,
            blocked: None,
            terminal: None,
            stops: Stops::default(),
        })
    }

    /// The next action. May be dropped and called again without losing one.
    pub(super) async fn next(&mut self) -> SignalAction {
        loop {
            let (name, action) = tokio::select! {
                _ = self.terminate.recv() => ("TERM", SignalAction::Stop),
                _ = self.interrupt.recv() => ("INT", SignalAction::Stop),
                _ = self.quit.recv() => ("QUIT", SignalAction::Stop),
                _ = self.hangup.recv() => ("HUP", SignalAction::Reload),
                _ = self.reopen.recv() => ("USR1", SignalAction::Reopen),
                _ = self.upgrade.recv() => ("USR2", SignalAction::Upgrade),
                _ = self.one_more.recv() => ("TTIN", SignalAction::OneMore),
                _ = self.one_fewer.recv() => ("TTOU", SignalAction::OneFewer),
                () = next(self.blocked.as_ref()) => ("TTOU", SignalAction::OneFewer),
            };
            tracing::info!(signal = name, "signal received");
            let action = match action {
                SignalAction::Stop => self.stops.filter(Timestamp::now()),
                SignalAction::Reload => self.hangup(),
                other => Some(other),
            };
            match action {
                Some(action) => return action,
                None => tracing::debug!(signal = name, "signal ignored"),
            }
        }
    }

    fn hangup(&mut self) -> Option<SignalAction> {
        match self.terminal.as_ref().map_or(Hangup::Reload, Terminal::hangup) {
            Hangup::Reload => Some(SignalAction::Reload),
            Hangup::Stop => {
                tracing::info!("terminal closed: stopping; nohup or setsid would keep it running");
                self.stops.filter(Timestamp::now())
            }
            Hangup::Stay => None,
        }
    }
}

async fn next(blocked: Option<&BlockedSignal>) {
    match blocked {
        Some(blocked) => blocked.next().await,
        None => std::future::pending().await,
    }
}

/// A signal to stop that comes again within that is the same one: `pkill` and `killall` signal the primary
/// and its keeper, which forwards it.
const REPEAT_TIMEOUT: Duration = Duration::from_millis(200);

/// Tells a second signal to stop from the first one that comes twice. Pure.
#[derive(Debug, Default)]
struct Stops {
    first: Option<Timestamp>,
}

impl Stops {
    fn filter(&mut self, now: Timestamp) -> Option<SignalAction> {
        match self.first {
            None => {
                self.first = Some(now);
                Some(SignalAction::Stop)
            }
            Some(first) if now.since(first) < REPEAT_TIMEOUT => None,
            Some(_) => Some(SignalAction::StopNow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_to_stop_that_comes_twice_is_one() {
        use SignalAction::{Stop, StopNow};
        for (times, expected) in [
            (&[5_000][..], &[Some(Stop)][..]),
            (&[0, 0], &[Some(Stop), None]),
            (&[0, 199, 200], &[Some(Stop), None, Some(StopNow)]),
            (&[0, 100, 201, 202], &[Some(Stop), None, Some(StopNow), Some(StopNow)]),
            // Not measured from the one that didn't count.
            (&[0, 150, 300], &[Some(Stop), None, Some(StopNow)]),
            (&[0, 3_600_000], &[Some(Stop), Some(StopNow)]),
        ] {
            let mut stops = Stops::default();
            let start = Timestamp::now();
            let actions =
                times.iter().map(|time| stops.filter(start + Duration::from_millis(*time)));
            assert_eq!(actions.collect::<Vec<_>>(), expected, "{times:?}");
        }
    }
}
