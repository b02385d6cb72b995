//! What signals to the primary mean.

use std::io;
use std::time::Duration;

use nix::sys::signal::SigSet;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::protocol::ids::Timestamp;
use crate::system::keeper::is_kept;

mod blocked;

use blocked::BlockedSignal;

/// What somebody wants of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// TERM, INT or QUIT: stop gracefully.
    Stop,
    /// A second one of them, later: stop at once.
    StopNow,
    /// HUP: read the configuration again, and replace all workers.
    Reload,
    /// USR1: log files were renamed, and are to be opened anew.
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
    /// Where that one isn't handled.
    apart: Option<BlockedSignal>,
    stops: Stops,
}

impl Signals {
    /// From now on signals are wishes. Those that came before, while they were blocked, are the first.
    pub(super) fn install() -> io::Result<Self> {
        let mut signals = Self::handled()?;
        if is_kept() {
            signals.apart = Some(BlockedSignal::block()?);
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
            apart: None,
            stops: Stops::default(),
        })
    }

    /// The next wish. May be dropped and called again without losing one.
    pub(super) async fn next(&mut self) -> Wish {
        loop {
            let (name, wish) = tokio::select! {
                _ = self.terminate.recv() => ("TERM", Wish::Stop),
                _ = self.interrupt.recv() => ("INT", Wish::Stop),
                _ = self.quit.recv() => ("QUIT", Wish::Stop),
                _ = self.hangup.recv() => ("HUP", Wish::Reload),
                _ = self.reopen.recv() => ("USR1", Wish::Reopen),
                _ = self.upgrade.recv() => ("USR2", Wish::Upgrade),
                _ = self.one_more.recv() => ("TTIN", Wish::OneMore),
                _ = self.one_fewer.recv() => ("TTOU", Wish::OneFewer),
                () = next(self.apart.as_ref()) => ("TTOU", Wish::OneFewer),
            };
            tracing::info!(signal = name, "signal received");
            let wish =
                if wish == Wish::Stop { self.stops.hear(Timestamp::now()) } else { Some(wish) };
            match wish {
                Some(wish) => return wish,
                None => tracing::debug!("the wish to stop is no new one"),
            }
        }
    }
}

async fn next(apart: Option<&BlockedSignal>) {
    match apart {
        Some(apart) => apart.next().await,
        None => std::future::pending().await,
    }
}

/// A wish to stop that comes again within that is the same: `pkill` and `killall` signal the primary
/// and its keeper, which passes it on.
const SAME_WISH: Duration = Duration::from_millis(200);

/// Tells a second wish to stop from the first one that comes twice. Pure.
#[derive(Debug, Default)]
struct Stops {
    first: Option<Timestamp>,
}

impl Stops {
    fn hear(&mut self, now: Timestamp) -> Option<Wish> {
        match self.first {
            None => {
                self.first = Some(now);
                Some(Wish::Stop)
            }
            Some(first) if now.since(first) < SAME_WISH => None,
            Some(_) => Some(Wish::StopNow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_to_stop_that_comes_twice_is_one() {
        use Wish::{Stop, StopNow};
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
            let heard = times.iter().map(|time| stops.hear(start + Duration::from_millis(*time)));
            assert_eq!(heard.collect::<Vec<_>>(), expected, "{times:?}");
        }
    }
}
