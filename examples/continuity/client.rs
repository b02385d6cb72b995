//! One client: counts with whoever serves it, and comes back when it is cut.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::sync::CancellationToken;

use crate::ledger::{Ledger, Wrong};
use crate::load::LoadOptions;
use crate::stats::{Ending, Stats};
use crate::wire::{Said, Told};

/// How long an answer, or the end of a handshake, may take before it counts as lost.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long the other end may take to answer a close frame.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long to wait after an attempt to connect that came to nothing.
const RETRY: Duration = Duration::from_millis(200);

/// Clients that come at the same time, so that none waits for too long when they are many.
const AT_ONCE: usize = 64;

/// Bytes that a connection reads at a time. There are thousands of them, and messages are small.
const READ_AT_ONCE: usize = 1_024;

type Socket = WebSocketStream<TcpStream>;

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) address: SocketAddr,
    pub(crate) options: LoadOptions,
    pub(crate) stats: RefCell<Stats>,
    /// Nobody says anything new until this is over.
    pub(crate) held: Cell<bool>,
    /// Has room for those that come at the same time.
    opening: Semaphore,
    /// Nobody says anything new; when all is answered, everybody goes.
    pub(crate) finishing: CancellationToken,
}

impl Shared {
    pub(crate) fn new(address: SocketAddr, options: LoadOptions) -> Self {
        Self {
            address,
            options,
            stats: RefCell::default(),
            held: Cell::new(false),
            opening: Semaphore::new(AT_ONCE),
            finishing: CancellationToken::new(),
        }
    }
}

/// Lives until all are to finish.
pub(crate) async fn live(number: u32, shared: Rc<Shared>) {
    let mut again = false;
    while !shared.finishing.is_cancelled() {
        let room = shared.opening.acquire().await;
        // A handshake takes more memory than a connection.
        let opened = timeout(TIMEOUT, Box::pin(open(number, &shared))).await;
        let opened =
            opened.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        drop(room);
        let socket = match opened {
            Ok(socket) => socket,
            Err(error) => {
                shared.stats.borrow_mut().failed(error.to_string());
                sleep(RETRY).await;
                continue;
            }
        };
        shared.stats.borrow_mut().opened(again, Instant::now());
        again = true;
        let mut conversation = Conversation::new(socket, &shared);
        match conversation.run(number).await {
            Ok(()) => {
                shared.stats.borrow_mut().closed();
                let goodbye = async {
                    conversation.socket.close(None).await?;
                    conversation.end().await
                };
                let _ = timeout(GOODBYE, goodbye).await;
            }
            Err(ending) => {
                shared.stats.borrow_mut().cut(ending, conversation.ledger.unanswered());
                let _ = timeout(GOODBYE, conversation.end()).await;
            }
        }
    }
}

async fn open(number: u32, shared: &Shared) -> Result<Socket, WebSocketError> {
    let socket = TcpSocket::new_v4()?;
    let source = Ipv4Addr::new(127, 78, 0, 0).to_bits() + 1 + number % shared.options.sources;
    socket.bind((Ipv4Addr::from_bits(source), 0).into())?;
    let stream = socket.connect(shared.address).await?;
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(READ_AT_ONCE);
    let url = match shared.options.push {
        0 => format!("ws://{}/count", shared.address),
        push => format!("ws://{}/count?push={push}", shared.address),
    };
    Ok(client_async_with_config(url, stream, Some(config)).await?.0)
}

/// One connection, until it ends.
struct Conversation<'a> {
    socket: Socket,
    shared: &'a Shared,
    ledger: Ledger,
    /// What is accounted for of what went wrong.
    accounted: Wrong,
    resumed: Option<Instant>,
}

impl<'a> Conversation<'a> {
    fn new(socket: Socket, shared: &'a Shared) -> Self {
        let (ledger, accounted) = (Ledger::default(), Wrong::default());
        Self { socket, shared, ledger, accounted, resumed: None }
    }

    /// Until all is said and answered, or the other end has cut it.
    async fn run(&mut self, number: u32) -> Result<(), Ending> {
        self.talk(number).await?;
        let answered = async {
            while self.ledger.unanswered() > 0 {
                let heard = self.socket.next().await;
                self.hear(heard)?;
            }
            Ok(())
        };
        let answered = timeout(TIMEOUT, answered).await;
        if answered.is_err() {
            self.ledger.give_up();
            self.account();
        }
        answered.unwrap_or(Ok(()))
    }

    /// Says numbers and hears answers until all are to finish.
    async fn talk(&mut self, number: u32) -> Result<(), Ending> {
        let every = self.shared.options.period(number);
        // Spread over the period, whatever time clients came at.
        let offset = every.mul_f64((f64::from(number) * 0.618_034).fract());
        let mut turns = interval_at(Instant::now() + offset, every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut finishing = pin!(self.shared.finishing.cancelled());
        // What can't be sent any more has an end to be read.
        let mut sendable = true;
        loop {
            tokio::select! {
                heard = self.socket.next() => self.hear(heard)?,
                _ = turns.tick(), if sendable => {
                    sendable = self.shared.held.get() || self.say().await.is_ok();
                }
                () = &mut finishing => return Ok(()),
            }
        }
    }

    async fn say(&mut self) -> Result<(), WebSocketError> {
        let number = self.ledger.say(Instant::now());
        self.shared.stats.borrow_mut().counts.said += 1;
        let said = Said { number, padding: self.shared.options.padding().into() };
        let text = serde_json::to_string(&said).map_err(io::Error::from)?;
        self.socket.send(Message::Text(text.into())).await
    }

    fn hear(&mut self, heard: Option<Result<Message, WebSocketError>>) -> Result<(), Ending> {
        match heard {
            None => Err(Ending::Ended),
            Some(Err(error)) => Err(ending(&error)),
            Some(Ok(Message::Close(None))) => Err(Ending::ClosedWithoutCode),
            Some(Ok(Message::Close(Some(frame)))) => Err(Ending::Closed(frame.code.into())),
            Some(Ok(Message::Text(text))) => {
                let told = serde_json::from_str(&text).map_err(|_| Ending::Garbled)?;
                self.note(&told);
                Ok(())
            }
            Some(Ok(_)) => Ok(()),
        }
    }

    fn note(&mut self, told: &Told<'_>) {
        let now = Instant::now();
        let mut stats = self.shared.stats.borrow_mut();
        match *told {
            Told::Answer { number, pushed, .. } => {
                let took = self.ledger.answered(number, pushed, now);
                stats.counts.answered += 1;
                if let Some(took) = took {
                    let across = self.resumed.is_some_and(|resumed| now - took < resumed);
                    stats.round_trip(took, across);
                }
            }
            Told::Push { number } => {
                self.ledger.pushed(number);
                stats.counts.pushes += 1;
            }
            Told::Hello(place) => stats.served_by(place),
            Told::Resumed(place) => {
                stats.served_by(place);
                stats.resumed(now);
                self.resumed = Some(now);
            }
            Told::Breach { .. } => self.ledger.breached(),
        }
        drop(stats);
        self.account();
    }

    fn account(&mut self) {
        let wrong = self.ledger.wrong();
        if wrong != self.accounted {
            self.shared.stats.borrow_mut().account(self.accounted, wrong);
            self.accounted = wrong;
        }
    }

    /// Answers a close frame, and reads to the end.
    async fn end(&mut self) -> Result<(), WebSocketError> {
        while self.socket.next().await.transpose()?.is_some() {}
        Ok(())
    }
}

fn ending(error: &WebSocketError) -> Ending {
    match error {
        WebSocketError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ending::Ended,
        WebSocketError::Io(_) => Ending::Reset,
        WebSocketError::ConnectionClosed
        | WebSocketError::AlreadyClosed
        | WebSocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ending::Ended,
        _ => Ending::Garbled,
    }
}
