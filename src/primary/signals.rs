//! What signals to the primary mean.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What somebody wants of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// TERM, INT or QUIT: stop gracefully.
    Stop,
    /// A second one of them: stop at once.
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
    stopping: bool,
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
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
            stopping: false,
        })
    }

    /// The next wish. May be dropped and called again without losing one.
    pub(super) async fn next(&mut self) -> Wish {
        let (name, wish) = tokio::select! {
            _ = self.terminate.recv() => ("TERM", Wish::Stop),
            _ = self.interrupt.recv() => ("INT", Wish::Stop),
            _ = self.quit.recv() => ("QUIT", Wish::Stop),
            _ = self.hangup.recv() => ("HUP", Wish::Reload),
            _ = self.reopen.recv() => ("USR1", Wish::Reopen),
            _ = self.upgrade.recv() => ("USR2", Wish::Upgrade),
            _ = self.one_more.recv() => ("TTIN", Wish::OneMore),
            _ = self.one_fewer.recv() => ("TTOU", Wish::OneFewer),
        };
        tracing::info!(signal = name, "signal received");
        match wish {
            Wish::Stop if std::mem::replace(&mut self.stopping, true) => Wish::StopNow,
            wish => wish,
        }
    }
}
