//! The loop of the keeper: signals, the primary's messages, its exit.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::keeper::back_off::{BackOff, Next};
use crate::keeper::children::Children;
use crate::keeper::descriptor_store::DescriptorStore;
use crate::keeper::launch::Launcher;
use crate::keeper::message::{self, Order};
use crate::keeper::process::{Exit, Process};
use crate::keeper::signals::{SignalAction, Signals};
use crate::keeper::socket::{Datagram, Socket};
use crate::keeper::{KeeperError, KeeperSettings, failed_to};
use crate::kernel::keep_inherited_descriptors;
use crate::protocol::ids::Timestamp;
use crate::protocol::sealed::seal;
use crate::system::activation::inherited;
use crate::system::descriptors::raise_descriptor_limit;
use crate::system::notify::Notifier;
use crate::system::store::{CONFIGURATION, PREFIX};

/// Datagrams that are handled before other events.
const MAX_DATAGRAMS: usize = 256;

/// The last datagrams of a primary that has exited. Its queue holds far fewer.
const MAX_LAST_DATAGRAMS: usize = 65_536;

/// Killed processes may take so long to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which primaries have accepted connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    None,
    /// One before, but not the one that was started last.
    Before,
    Current,
}

/// A primary that was told twice to stop may take so long: it kills its workers then, and waits for nobody.
const STOP_NOW_TIMEOUT: Duration = Duration::from_secs(10);

/// How far the stop of the primary is.
#[derive(Debug, Default)]
struct Stop {
    has_begun: bool,
    /// When a primary is killed that was told twice to stop, and doesn't.
    kill_at: Option<Timestamp>,
    is_killed: bool,
}

/// The keeper of a primary.
#[derive(Debug)]
pub(super) struct Watch {
    kill_timeout: Duration,
    signals: Signals,
    /// The way from the primary that was started last, which may have exited.
    socket: Option<Socket>,
    manager: Option<Notifier>,
    launcher: Launcher,
    store: DescriptorStore,
    children: Children,
    back_off: BackOff,
    primary: Option<Process>,
    /// When the next one starts, if there is none.
    due: Timestamp,
    /// Signals that it gets then.
    pending: Vec<Signal>,
    served: Served,
    stop: Stop,
    has_lost_descriptors: bool,
}

impl Watch {
    /// Starts, without a primary yet.
    ///
    /// # Errors
    ///
    /// If the kernel refuses something, or a descriptor of the service manager cannot be used.
    pub(super) fn new(
        settings: KeeperSettings,
        configuration: Option<&str>,
        events: Option<OwnedFd>,
    ) -> Result<Self, KeeperError> {
        let passed = inherited()?;
        if let Err(error) = keep_inherited_descriptors() {
            tracing::warn!(%error, "descriptors that the keeper has inherited go on to the primary");
        }
        if let Err(error) = raise_descriptor_limit() {
            tracing::warn!(%error, "descriptor limit of the keeper not raised");
        }
        let signals = Signals::block().map_err(failed_to("read signals"))?;
        let children = Children::adopt().map_err(failed_to("take care of orphaned processes"))?;
        let manager = Notifier::from_environment();
        let has_watchdog = manager.as_ref().and_then(Notifier::watchdog_interval).is_some();
        let launcher = Launcher::new(passed.listener, has_watchdog, events)
            .map_err(failed_to("find its program"))?;
        let mut store = DescriptorStore::default();
        if let Some(text) = configuration {
            let text = seal(text.as_bytes()).map_err(failed_to("pass the configuration on"))?;
            store.insert(&format!("{PREFIX}{CONFIGURATION}"), vec![text]);
        }
        Ok(Self {
            kill_timeout: settings.kill_timeout,
            signals,
            socket: None,
            manager,
            launcher,
            store,
            children,
            back_off: BackOff::new(settings.min_uptime),
            primary: None,
            due: Timestamp::now(),
            pending: Vec::new(),
            served: Served::None,
            stop: Stop::default(),
            has_lost_descriptors: false,
        })
    }

    /// Waits for an event, or for the time of the next start.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(super) fn wait(&self) -> io::Result<()> {
        let next = self.primary.as_ref().map_or(self.due, Process::next_look);
        let until = next.min(self.stop.kill_at.unwrap_or(next));
        let pause = Timespec::try_from(until.since(Timestamp::now())).ok();
        let mut polled = vec![PollFd::new(&self.signals, PollFlags::IN)];
        polled.extend(self.socket.as_ref().map(|socket| PollFd::new(socket, PollFlags::IN)));
        polled.extend(self.primary.as_ref().map(|primary| PollFd::new(primary, PollFlags::IN)));
        rustix::io::retry_on_intr(|| poll(&mut polled, pause.as_ref()))?;
        Ok(())
    }

    /// Handles all events. Returns the exit code at the end.
    ///
    /// # Errors
    ///
    /// If primaries keep crashing.
    pub(super) fn turn(&mut self) -> Result<Option<u8>, KeeperError> {
        self.receive(MAX_DATAGRAMS);
        if let Some(exit) = self.primary.as_mut().and_then(Process::exit)
            && let Some(code) = self.handle_exit(exit)?
        {
            return Ok(Some(code));
        }
        while let Some(action) = self.signals.next() {
            if self.handle_signal(action) {
                return Ok(Some(0));
            }
        }
        if self.stop.kill_at.take_if(|at| *at <= Timestamp::now()).is_some() {
            tracing::error!("primary does not stop: killed, and its workers with it");
            self.forward(Signal::KILL);
            self.stop.is_killed = true;
        }
        if self.primary.is_none() && Timestamp::now() >= self.due {
            self.start()?;
        }
        Ok(None)
    }

    /// A failed start counts as a crash at once.
    fn start(&mut self) -> Result<(), KeeperError> {
        match self.launch() {
            Ok((primary, socket)) => {
                self.socket = Some(socket);
                tracing::debug!(pid = %primary.pid(), "primary started");
                // They wait there until it has handlers.
                self.pending.drain(..).for_each(|signal| primary.signal(signal));
                self.primary = Some(primary);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "primary not started");
                self.restart_after(Duration::ZERO)
            }
        }
    }

    fn launch(&self) -> io::Result<(Process, Socket)> {
        let (socket, primarys) = Socket::pair()?;
        Ok((self.launcher.start(primarys.as_fd(), self.store.iter())?, socket))
    }

    /// Handles the primary's datagrams: so many at most.
    fn receive(&mut self, limit: usize) {
        for _ in 0..limit {
            let datagram = self.socket.as_ref().map(Socket::receive);
            let Some(Ok(Some(datagram))) = datagram else { return };
            self.handle_message(datagram);
        }
    }

    fn handle_message(&mut self, datagram: Datagram) {
        if datagram.descriptors_lost && !std::mem::replace(&mut self.has_lost_descriptors, true) {
            tracing::error!(
                "no descriptor left: a crash of the primary would lose some of its own"
            );
        }
        let message = message::parse(&datagram.bytes, std::process::id());
        match message.order {
            Order::Store(name) => self.store.insert(name, datagram.descriptors),
            Order::Remove(name) => {
                self.store.remove(name);
                self.reap();
            }
            Order::Nothing => {}
        }
        if message.ready {
            self.served = Served::Current;
        }
        if message.stopping {
            self.begin_stop();
        }
        if let Some(manager) = self.manager.as_ref().filter(|_| !message.relayed.is_empty()) {
            manager.relay(&message.relayed);
        }
    }

    /// Returns whether that is the end.
    fn handle_signal(&mut self, action: SignalAction) -> bool {
        match action {
            SignalAction::Reap => self.reap(),
            SignalAction::Stop(_) if self.primary.is_none() => {
                tracing::info!("stopping while there is no primary");
                self.end_children(Some(self.kill_timeout));
                return true;
            }
            SignalAction::Stop(signal) => {
                if self.stop.has_begun {
                    self.stop.kill_at.get_or_insert_with(|| Timestamp::now() + STOP_NOW_TIMEOUT);
                }
                self.begin_stop();
                self.forward(signal);
            }
            SignalAction::Forward(signal) => self.forward(signal),
            SignalAction::Pause => {
                self.forward(Signal::STOP);
                self.signals.pause();
                self.forward(Signal::CONT);
            }
            SignalAction::Continue => self.forward(Signal::CONT),
        }
        false
    }

    /// Sends a signal to the primary, or to the next one if there is none.
    fn forward(&mut self, signal: Signal) {
        if let Some(primary) = &self.primary {
            primary.signal(signal);
        } else if !matches!(signal, Signal::STOP | Signal::CONT) {
            self.pending.retain(|pending| *pending != signal);
            self.pending.push(signal);
        }
    }

    /// No other primary follows: when this one closes its listener, no copy may let clients connect.
    fn begin_stop(&mut self) {
        self.stop.has_begun = true;
        self.store.retain_processes();
    }

    /// The primary has exited. Returns the keeper's exit code if no other one follows.
    fn handle_exit(&mut self, exit: Exit) -> Result<Option<u8>, KeeperError> {
        self.receive(MAX_LAST_DATAGRAMS);
        self.socket = None;
        // One that was told to stop has done so.
        let exit = if self.stop.has_begun { exit.finished() } else { exit };
        let uptime = self.primary.take().map_or(Duration::ZERO, |primary| primary.uptime());
        let uptime_ms = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX);
        if exit.is_crash() && !self.stop.has_begun {
            tracing::warn!(reason = %exit, uptime_ms, "primary crashed");
            self.restart_after(uptime)?;
            return Ok(None);
        }
        if exit != Exit::Status(0) && !self.stop.has_begun && self.served == Served::Before {
            tracing::error!(reason = %exit, uptime_ms, "primary cannot go on after the one before");
            self.restart_after(uptime)?;
            return Ok(None);
        }
        if exit.is_crash() {
            tracing::warn!(reason = %exit, uptime_ms, "primary crashed while stopping");
        }
        if exit == Exit::Status(0) || self.stop.is_killed {
            self.end_children(None);
        }
        Ok(Some(exit.code()))
    }

    /// Plans the next primary after one of this uptime, unless they keep crashing.
    fn restart_after(&mut self, uptime: Duration) -> Result<(), KeeperError> {
        if self.served == Served::Current {
            self.served = Served::Before;
        }
        match self.back_off.crashed(uptime) {
            Next::After(pause) => {
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(pause_ms, "primary is started again");
                self.due = Timestamp::now() + pause;
                Ok(())
            }
            Next::GiveUp => Err(KeeperError::GivenUp),
        }
    }

    fn reap(&mut self) {
        let primary = self.primary.as_ref().map(Process::pid);
        let store = &self.store;
        self.children.reap(|pid| Some(pid) == primary || store.has_process(pid));
    }

    /// Ends the processes that primaries have left: after a grace period, if there is one.
    fn end_children(&mut self, grace: Option<Duration>) {
        self.store.clear();
        if let Some(grace) = grace {
            self.children.signal(Signal::TERM);
            self.wait_for_exit(grace, None);
        }
        self.wait_for_exit(EXIT_TIMEOUT, Some(Signal::KILL));
    }

    /// Waits for their exit, at most so long. Those that are left, and orphans that they leave, get the
    /// signal; without one, an order to stop ends the wait.
    fn wait_for_exit(&mut self, timeout: Duration, signal: Option<Signal>) {
        let until = Timestamp::now() + timeout;
        loop {
            signal.into_iter().for_each(|signal| self.children.signal(signal));
            self.children.reap(|_| false);
            let left = until.since(Timestamp::now());
            if !self.children.has_any() || left.is_zero() {
                return;
            }
            let mut polled = [PollFd::new(&self.signals, PollFlags::IN)];
            let _ = poll(&mut polled, Timespec::try_from(left).ok().as_ref());
            while let Some(action) = self.signals.next() {
                if signal.is_none() && matches!(action, SignalAction::Stop(_)) {
                    return;
                }
            }
        }
    }
}
