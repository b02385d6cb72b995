//! A frontend in the test's own process, with workers that are threads: what no binary shows can be
//! asked there.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use sticky_lb::internals::frontend::affinity::{Affinity, DigestKind, Prefixes};
use sticky_lb::internals::frontend::dispatcher::{DispatchError, Dispatcher, DispatcherSettings};
use sticky_lb::internals::frontend::listener::{Listener, ListenerSettings};
use sticky_lb::internals::frontend::placement::Placement;
use sticky_lb::internals::frontend::query::{FrontendHandle, queries};
use sticky_lb::internals::frontend::router::{Router, RouterSettings};
use sticky_lb::internals::frontend::slot_table::{AckTimeout, SlotSettings, SlotTable};
use sticky_lb::internals::frontend::snapshot::FrontendHandover;
use sticky_lb::internals::link::Link;
use sticky_lb::internals::link::inherit::Inherit;
use sticky_lb::internals::link::seam::{CommandSender, SlotCommand, SlotEvent, WorkerId, seam};
use sticky_lb::internals::sessions::close_requests::PaceSettings;
use sticky_lb::protocol::ids::{Generation, SlotId};
use sticky_lb::protocol::message::MAX_TO_WORKER;
use sticky_lb::protocol::scm_rights::{Received, receive};
use sticky_lb::protocol::scoreboard::{Counter, Scoreboard};
use tokio::sync::mpsc;

use super::TIMEOUT;

/// What a frontend ends with.
pub type Ended = Result<Option<Box<FrontendHandover>>, DispatchError>;

/// A frontend, and what steers it.
#[derive(Debug)]
pub struct Frontend<T> {
    /// Where clients connect.
    pub address: SocketAddr,
    /// As the supervisor has it.
    pub commander: CommandSender,
    /// As operators have it.
    pub handle: FrontendHandle,
    events: mpsc::Receiver<SlotEvent>,
    slots: u16,
    thread: JoinHandle<T>,
    workers: Vec<JoinHandle<()>>,
}

/// A listener on a free port.
pub fn listener() -> Listener {
    let host = Some("127.0.0.1".to_owned());
    let settings = ListenerSettings { host, port: 0, backlog: 1024 };
    Listener::bind(&settings).expect("a part of the frontend")
}

/// The first worker of a slot.
pub fn worker(slot: u16) -> WorkerId {
    WorkerId { slot: SlotId(slot), generation: Generation(0) }
}

impl<T: Send + 'static> Frontend<T> {
    /// Has `run` run one, whose clients belong to so many slots. It accepts nothing yet.
    pub fn start(slots: u16, run: impl FnOnce(Dispatcher) -> T + Send + 'static) -> Self {
        Self::start_with(slots, TIMEOUT, PaceSettings::default(), run)
    }

    /// The same, with patience and pace of its own.
    pub fn start_with(
        slots: u16,
        patience: Duration,
        pace: PaceSettings,
        run: impl FnOnce(Dispatcher) -> T + Send + 'static,
    ) -> Self {
        Self::start_from(listener().into(), slots, patience, pace, run)
    }

    /// The same, going on from what another has left.
    pub fn start_from(
        before: FrontendHandover,
        slots: u16,
        patience: Duration,
        pace: PaceSettings,
        run: impl FnOnce(Dispatcher) -> T + Send + 'static,
    ) -> Self {
        let address = before.listener().expect("it listens").local();
        let (commander, events, orders) = seam().expect("a part of the frontend");
        let (handle, queries) = queries().expect("a part of the frontend");
        let thread = thread::spawn(move || {
            let prefixes = Prefixes { v4: 32, v6: 64 };
            let affinity = Affinity::new(DigestKind::Md5, b"", prefixes);
            let router = Router::new(&RouterSettings {
                placement: Placement::Rendezvous,
                weights: vec![1.0; usize::from(slots)],
                load_bound: None,
                memory_capacity: NonZeroUsize::new(100).expect("a part of the frontend"),
                memory_lifetime: Duration::from_secs(3_600),
            });
            let (ack_timeout, slot_wait) = (AckTimeout::same(patience), patience);
            let table = SlotTable::new(SlotSettings { ack_timeout, slot_wait, queue: 256 });
            let settings = DispatcherSettings { max_held: 10_000, max_protected: 1_000, pace };
            let dispatcher =
                Dispatcher::new(before, affinity, router, table, settings, orders, queries);
            run(dispatcher.expect("a part of the frontend"))
        });
        Self { address, commander, handle, events, slots, thread, workers: Vec::new() }
    }

    /// Puts a worker into each slot, and has connections accepted.
    pub async fn serve(&mut self) {
        let ranked = (0..self.slots).map(|slot| (SlotId(slot), 1.0)).collect();
        self.commander.send(SlotCommand::Rank(ranked)).await.expect("a part of the frontend");
        for slot in 0..self.slots {
            let (channel, end) = Link::native(256).expect("a part of the frontend");
            self.workers.push(thread::spawn(move || serve(end)));
            let attach = SlotCommand::Attach(worker(slot), Box::new(channel.into()));
            self.commander.send(attach).await.expect("a part of the frontend");
            self.commander
                .send(SlotCommand::Serve(worker(slot)))
                .await
                .expect("a part of the frontend");
        }
        self.commander.send(SlotCommand::Accept).await.expect("a part of the frontend");
    }

    /// Waits until so many connections are their workers' own.
    pub async fn wait_for_acknowledged(&self, count: usize) {
        let all = async {
            while self.commander.count().await.expect("a part of the frontend").acknowledged
                < count as u64
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, all).await.expect("all are acknowledged");
    }

    /// What its workers said or did next.
    pub async fn event(&mut self) -> SlotEvent {
        let event = tokio::time::timeout(TIMEOUT, self.events.recv());
        event.await.expect("something happens").expect("the frontend runs")
    }

    /// Ends it, and says what came of it.
    pub async fn end(self) -> T {
        self.end_by(SlotCommand::End).await
    }

    /// The same, by this command.
    pub async fn end_by(self, command: SlotCommand) -> T {
        self.commander.send(command).await.expect("a part of the frontend");
        let result = self.thread.join().expect("a part of the frontend");
        // The primary's ends are gone with it.
        self.workers.into_iter().for_each(|worker| worker.join().expect("a part of the frontend"));
        result
    }
}

/// Closes what it is sent, and acknowledges it.
fn serve(mut inherit: Inherit) {
    let page = inherit.descriptor("scoreboard").expect("a part of the frontend");
    let scoreboard = Scoreboard::open(page).expect("a part of the frontend");
    let channel = inherit.take("channel").expect("a part of the frontend");
    let (mut bytes, mut sockets) = ([0; MAX_TO_WORKER], Vec::new());
    loop {
        match receive(&channel, &mut bytes, &mut sockets).expect("a part of the frontend") {
            Received::Message { .. } => {
                scoreboard.add(Counter::Completed, sockets.len() as u64);
                sockets.clear();
            }
            Received::Empty => {
                let mut polled = [PollFd::new(&channel, PollFlags::IN)];
                poll(&mut polled, None).expect("a part of the frontend");
            }
            Received::Closed => return,
        }
    }
}
