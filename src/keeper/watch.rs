//! The loop of the keeper: signals, what the primary says, its end.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::keeper::back_off::{BackOff, Next};
use crate::keeper::children::Children;
use crate::keeper::kept::Kept;
use crate::keeper::launch::Launcher;
use crate::keeper::message::{self, Order};
use crate::keeper::process::{End, Process};
use crate::keeper::signals::{Meaning, Signals};
use crate::keeper::socket::{Datagram, Socket};
use crate::keeper::{KeeperError, KeeperSettings, failed_to};
use crate::kernel::keep_inherited_descriptors;
use crate::protocol::ids::Timestamp;
use crate::protocol::sealed::seal;
use crate::system::activation::inherited;
use crate::system::limits::raise_descriptor_limit;
use crate::system::notify::Notifier;
use crate::system::store::{CONFIGURATION, PREFIX};

/// Datagrams that are heard before something else has its turn.
const AT_A_TIME: usize = 256;

/// The most of a dead primary's last words. Its queue holds far fewer, unless somebody else fills it.
const LAST_WORDS: usize = 65_536;

/// How long killed processes may take to end.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Watches over a primary.
#[derive(Debug)]
pub(super) struct Watch {
    kill_timeout: Duration,
    signals: Signals,
    socket: Socket,
    manager: Option<Notifier>,
    launcher: Launcher,
    kept: Kept,
    children: Children,
    back_off: BackOff,
    primary: Option<Process>,
    /// When the next one is to start, if there is none.
    due: Timestamp,
    /// Signals that it is to have then.
    waiting: Vec<Signal>,
    /// The primary was told to stop, or says that it does.
    stopping: bool,
    has_lost: bool,
}

impl Watch {
    /// Begins, with no primary yet.
    ///
    /// # Errors
    ///
    /// If the kernel refuses what is needed, or what was passed cannot be used.
    pub(super) fn new(
        settings: KeeperSettings,
        configuration: Option<&str>,
    ) -> Result<Self, KeeperError> {
        let passed = inherited()?;
        if let Err(error) = keep_inherited_descriptors() {
            tracing::warn!(%error, "primary inherits descriptors that its keeper has inherited");
        }
        if let Err(error) = raise_descriptor_limit() {
            tracing::warn!(%error, "descriptor limit of the keeper not raised");
        }
        let signals = Signals::block().map_err(failed_to("read signals"))?;
        let children = Children::adopt().map_err(failed_to("take care of orphaned processes"))?;
        let socket = Socket::bind().map_err(failed_to("listen to its primary"))?;
        let manager = Notifier::from_environment();
        let has_watchdog = manager.as_ref().and_then(Notifier::watchdog_interval).is_some();
        let launcher = Launcher::new(socket.name(), passed.listener, has_watchdog)
            .map_err(failed_to("find its program"))?;
        let mut kept = Kept::default();
        if let Some(text) = configuration {
            let text = seal(text.as_bytes()).map_err(failed_to("pass the configuration on"))?;
            kept.keep(&format!("{PREFIX}{CONFIGURATION}"), vec![text]);
        }
        Ok(Self {
            kill_timeout: settings.kill_timeout,
            signals,
            socket,
            manager,
            launcher,
            kept,
            children,
            back_off: BackOff::new(settings.min_uptime),
            primary: None,
            due: Timestamp::now(),
            waiting: Vec::new(),
            stopping: false,
            has_lost: false,
        })
    }

    /// Waits until something happens or is due.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn wait(&self) -> io::Result<()> {
        let pause = self.due.since(Timestamp::now());
        let pause = Timespec::try_from(pause).ok().filter(|_| self.primary.is_none());
        let mut polled = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.socket, PollFlags::IN),
        ];
        polled.extend(self.primary.as_ref().map(|primary| PollFd::new(primary, PollFlags::IN)));
        rustix::io::retry_on_intr(|| poll(&mut polled, pause.as_ref()))?;
        Ok(())
    }

    /// Does what there is to do. Returns the exit code at the end.
    ///
    /// # Errors
    ///
    /// If primaries keep dying.
    pub(super) fn turn(&mut self) -> Result<Option<u8>, KeeperError> {
        self.hear(AT_A_TIME);
        if let Some(end) = self.primary.as_ref().and_then(Process::end)
            && let Some(code) = self.ended(end)?
        {
            return Ok(Some(code));
        }
        while let Some(meaning) = self.signals.next() {
            if self.heed(meaning) {
                return Ok(Some(0));
            }
        }
        if self.primary.is_none() && Timestamp::now() >= self.due {
            self.start()?;
        }
        Ok(None)
    }

    /// That none can be started is as if it had died at once.
    fn start(&mut self) -> Result<(), KeeperError> {
        match self.launcher.start(self.kept.iter()) {
            Ok(primary) => {
                tracing::debug!(pid = %primary.pid(), "primary is started");
                // They wait there, too, until it has handlers.
                self.waiting.drain(..).for_each(|signal| primary.signal(signal));
                self.primary = Some(primary);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "cannot start a primary");
                self.follow(Duration::ZERO)
            }
        }
    }

    /// Hears what the primary has said: so many datagrams at most.
    fn hear(&mut self, most: usize) {
        for _ in 0..most {
            let Ok(Some(datagram)) = self.socket.receive() else { return };
            let primary = self.primary.as_ref().map(Process::pid);
            if primary.is_some() && datagram.sender == primary {
                self.obey(datagram);
            }
        }
    }

    fn obey(&mut self, datagram: Datagram) {
        if datagram.descriptors_lost && !std::mem::replace(&mut self.has_lost, true) {
            tracing::error!("no descriptor left: a crash of the primary would lose what it keeps");
        }
        let message = message::parse(&datagram.bytes, std::process::id());
        match message.order {
            Order::Keep(name) => self.kept.keep(name, datagram.descriptors),
            Order::Remove(name) => {
                self.kept.remove(name);
                self.bury();
            }
            Order::Nothing => {}
        }
        if message.stopping {
            self.expect_the_end();
        }
        if let Some(manager) = self.manager.as_ref().filter(|_| !message.relayed.is_empty()) {
            manager.relay(&message.relayed);
        }
    }

    /// Returns whether that is the end.
    fn heed(&mut self, meaning: Meaning) -> bool {
        match meaning {
            Meaning::Ended => self.bury(),
            Meaning::Stop(_) if self.primary.is_none() => {
                tracing::info!("stopping while there is no primary");
                self.end_children(Some(self.kill_timeout));
                return true;
            }
            Meaning::Stop(signal) => {
                self.expect_the_end();
                self.pass_on(signal);
            }
            Meaning::Forward(signal) => self.pass_on(signal),
            Meaning::Pause => {
                self.pass_on(Signal::STOP);
                self.signals.stand_still();
                self.pass_on(Signal::CONT);
            }
            Meaning::Continue => self.pass_on(Signal::CONT),
        }
        false
    }

    /// To the next primary, if there is none.
    fn pass_on(&mut self, signal: Signal) {
        if let Some(primary) = &self.primary {
            primary.signal(signal);
        } else if !matches!(signal, Signal::STOP | Signal::CONT) {
            self.waiting.retain(|waiting| *waiting != signal);
            self.waiting.push(signal);
        }
    }

    /// There is to be no other primary: when this one closes its listener, nobody is to be let in
    /// because of a copy.
    fn expect_the_end(&mut self) {
        self.stopping = true;
        self.kept.keep_processes_only();
    }

    /// The primary has ended: what now?
    fn ended(&mut self, end: End) -> Result<Option<u8>, KeeperError> {
        self.hear(LAST_WORDS);
        let lived = self.primary.take().map_or(Duration::ZERO, |primary| primary.age());
        let lived_ms = u64::try_from(lived.as_millis()).unwrap_or(u64::MAX);
        if end.is_crash() && !self.stopping {
            tracing::warn!(reason = %end, lived_ms, "primary has crashed");
            self.follow(lived)?;
            return Ok(None);
        }
        if end.is_crash() {
            tracing::warn!(reason = %end, lived_ms, "primary has crashed while it stopped");
        }
        if end == End::Status(0) {
            self.end_children(None);
        }
        Ok(Some(end.code()))
    }

    /// One that lived for so long is followed by another, unless they keep dying.
    fn follow(&mut self, lived: Duration) -> Result<(), KeeperError> {
        match self.back_off.died(lived) {
            Next::After(pause) => {
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(pause_ms, "another primary is started");
                self.due = Timestamp::now() + pause;
                Ok(())
            }
            Next::GiveUp => Err(KeeperError::GivenUp),
        }
    }

    fn bury(&mut self) {
        let primary = self.primary.as_ref().map(Process::pid);
        let kept = &self.kept;
        self.children.bury(|pid| Some(pid) == primary || kept.has_process(pid));
    }

    /// Ends what primaries have left: after a grace period, if there is one.
    fn end_children(&mut self, grace: Option<Duration>) {
        self.kept.clear();
        if let Some(grace) = grace {
            self.children.signal(Signal::TERM);
            self.wait_for_exit(grace, None);
        }
        self.wait_for_exit(TIMEOUT, Some(Signal::KILL));
    }

    /// Waits for their end, at most so long. Whoever is there still, and who comes when another has
    /// ended, gets the signal; without one, an order to stop ends the waiting.
    fn wait_for_exit(&mut self, patience: Duration, signal: Option<Signal>) {
        let until = Timestamp::now() + patience;
        loop {
            signal.into_iter().for_each(|signal| self.children.signal(signal));
            self.children.bury(|_| false);
            let left = until.since(Timestamp::now());
            if !self.children.has_any() || left.is_zero() {
                return;
            }
            let mut polled = [PollFd::new(&self.signals, PollFlags::IN)];
            let _ = poll(&mut polled, Timespec::try_from(left).ok().as_ref());
            while let Some(meaning) = self.signals.next() {
                if signal.is_none() && matches!(meaning, Meaning::Stop(_)) {
                    return;
                }
            }
        }
    }
}
