//! One client: sends when it is due, and comes back when it is cut.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::sync::CancellationToken;

use crate::figures::Figures;
use crate::options::{App, Options};

/// How long a handshake may take, or an answer to the last messages.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the other end may take to answer a close frame.
const GOODBYE: Duration = Duration::from_secs(2);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(200);
/// Between two looks whether all is answered.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes that a connection reads at a time. By default they are 128 KiB, kept for each connection.
const READ_AT_ONCE: usize = 4 * 1_024;

type Socket = WebSocketStream<TcpStream>;

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) figures: RefCell<Figures>,
    /// When the first message is due, once all connections are open.
    pub(crate) start: watch::Sender<Option<Instant>>,
    /// Nothing is due any more; when all is answered, clients go.
    pub(crate) finishing: CancellationToken,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        let (start, _) = watch::channel(None);
        let finishing = CancellationToken::new();
        Self { options, figures: RefCell::default(), start, finishing }
    }
}

/// Messages of a client that have no answer yet: when each was due.
type Away = RefCell<HashMap<u64, Instant>>;

/// A client's messages, over all of its connections.
struct Schedule {
    turns: Interval,
    next: u64,
}

/// What the chat says.
#[derive(Deserialize)]
struct Line<'a> {
    event: &'a str,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    slot: Option<u64>,
}

/// Lives until all are to finish.
pub(crate) async fn live(number: u32, shared: Rc<Shared>) {
    let finishing = &shared.finishing;
    tokio::select! {
        () = sleep(shared.options.opens_after(number)) => {}
        () = finishing.cancelled() => return,
    }
    let (mut schedule, away) = (None, Away::default());
    while !finishing.is_cancelled() {
        let before = Instant::now();
        let opened = tokio::select! {
            opened = timeout(TIMEOUT, open(number, &shared)) => opened,
            () = finishing.cancelled() => return,
        };
        let (socket, slot) = match opened {
            Ok(Ok(opened)) => opened,
            failed => {
                let error = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "no answer to the handshake".to_owned(),
                };
                shared.figures.borrow_mut().failed(error);
                sleep(RETRY).await;
                continue;
            }
        };
        shared.figures.borrow_mut().opened(before.elapsed(), slot);
        let (mut sink, mut stream) = socket.split();
        tokio::select! {
            () = listen(&mut stream, &shared, &away) => {
                shared.figures.borrow_mut().cut(away.take().len());
            }
            () = speak(number, &mut sink, &shared, &mut schedule, &away) => {
                shared.figures.borrow_mut().closed(away.take().len());
                let goodbye = async {
                    sink.close().await?;
                    while stream.next().await.transpose()?.is_some() {}
                    Ok::<_, WebSocketError>(())
                };
                let _ = timeout(GOODBYE, goodbye).await;
            }
        }
    }
}

/// A connection, and the slot that has it if the app says so.
async fn open(number: u32, shared: &Shared) -> Result<(Socket, Option<u64>), WebSocketError> {
    let options = &shared.options;
    let socket =
        if options.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = options.source(number) {
        socket.bind((source, 0).into())?;
    }
    let stream = socket.connect(options.address).await?;
    stream.set_nodelay(true)?;
    // Nothing is kept back.
    let config = WebSocketConfig::default().read_buffer_size(READ_AT_ONCE).write_buffer_size(0);
    let url = options.url(number);
    let (socket, response) = client_async_with_config(url, stream, Some(config)).await?;
    // A chat says it itself.
    let slot = response.headers().get("x-worker-slot").filter(|_| options.app == App::Echo);
    Ok((socket, slot.and_then(|slot| slot.to_str().ok()?.parse().ok())))
}

/// Sends what is due, to the end, and waits for the answers.
async fn speak(
    number: u32,
    sink: &mut SplitSink<Socket, Message>,
    shared: &Shared,
    schedule: &mut Option<Schedule>,
    away: &Away,
) {
    let Some(schedule) = begin(number, shared, schedule).await else { return };
    loop {
        let due = tokio::select! {
            due = schedule.turns.tick() => due,
            () = shared.finishing.cancelled() => break,
        };
        let text = shared.options.text(schedule.next);
        away.borrow_mut().insert(schedule.next, due);
        schedule.next += 1;
        shared.figures.borrow_mut().sent(due.elapsed());
        if sink.send(Message::text(text)).await.is_err() {
            // That the connection has ended is read.
            return std::future::pending().await;
        }
    }
    let deadline = Instant::now() + TIMEOUT;
    while !away.borrow().is_empty() && Instant::now() < deadline {
        sleep(LOOK).await;
    }
}

/// Waits for the start. Nothing if all are to finish before.
async fn begin<'a>(
    number: u32,
    shared: &Shared,
    schedule: &'a mut Option<Schedule>,
) -> Option<&'a mut Schedule> {
    if schedule.is_none() {
        let mut started = shared.start.subscribe();
        let start = tokio::select! {
            start = started.wait_for(Option::is_some) => (*start.ok()?)?,
            () = shared.finishing.cancelled() => return None,
        };
        let options = &shared.options;
        let mut turns = interval_at(start + options.offset(number), options.period());
        // What was due while there was no connection is sent at once, and late.
        turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
        *schedule = Some(Schedule { turns, next: 0 });
    }
    schedule.as_mut()
}

/// Reads to the end of the connection.
async fn listen(stream: &mut SplitStream<Socket>, shared: &Shared, away: &Away) {
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Text(text) => match shared.options.app {
                App::Echo => answered(&text, shared, away),
                App::Chat => hear(&text, shared, away),
            },
            Message::Close(_) => return,
            _ => {}
        }
    }
}

fn hear(text: &str, shared: &Shared, away: &Away) {
    let Ok(line) = serde_json::from_str::<Line<'_>>(text) else { return };
    match (line.event, line.text) {
        ("said", Some(text)) => answered(&text, shared, away),
        ("welcome", _) => shared.figures.borrow_mut().served_by(line.slot),
        ("resumed", _) => shared.figures.borrow_mut().moves += 1,
        _ => {}
    }
}

fn answered(text: &str, shared: &Shared, away: &Away) {
    let number = text.split(':').next().and_then(|number| number.parse().ok());
    if let Some(due) = number.and_then(|number: u64| away.borrow_mut().remove(&number)) {
        shared.figures.borrow_mut().answered(due.elapsed());
    }
}
