//! Workers for tests that use the library in the ways that no example shows: plain hyper, and the
//! connections as a stream.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Query;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::Uri;
use axum::routing::{any, get, post};
use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sticky_lb::worker::{
    ConnectionInfo, HttpLimits, Session, SessionStream, Worker, axum as worker_axum,
    hyper as worker_hyper, serve_or_listen,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{WebSocketStream, accept_async};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let role = std::env::args().nth(1);
    match role.as_deref() {
        Some("listens") => return Ok(serve_or_listen("127.0.0.1:0", plain_echo).await?),
        Some("listens-axum") => {
            return Ok(worker_axum::serve_or_listen("127.0.0.1:0", sessions()).await?);
        }
        Some("listens-hyper") => {
            let service = service_fn(hyper_echo);
            return Ok(worker_hyper::serve_or_listen("127.0.0.1:0", service).await?);
        }
        Some(role) if role.starts_with("forgets-") => return forget(role).await,
        _ => {}
    }
    let mut worker = Worker::attach()?;
    match role.as_deref() {
        Some("plain") => Ok(worker.serve(plain_echo).await?),
        Some("bytes") => Ok(worker.serve(byte_echo).await?),
        Some("attaches-twice") => {
            let error = Worker::attach().err().ok_or("attached twice")?;
            writeln!(std::io::stderr(), "second: {error:?}")?;
            Ok(worker.serve(plain_echo).await?)
        }
        Some("serves-bare") => serve_bare(worker).await,
        Some("plain-loop") => plain_loop(worker, true).await,
        Some("plain-loop-forgets") => plain_loop(worker, false).await,
        Some("plain-loop-enabled") => {
            worker.enable_migration()?;
            plain_loop(worker, true).await
        }
        Some("declares-only") => declare_only(worker).await,
        Some("takes-apart") => take_apart(worker).await,
        Some("hyper") => Ok(worker_hyper::serve(worker, service_fn(hello)).await?),
        Some("chatty") => Ok(worker_hyper::serve(worker, service_fn(chatter)).await?),
        Some("logs-hyper") => {
            start_log();
            Ok(worker_hyper::serve(worker, service_fn(logging)).await?)
        }
        Some("logs-axum") => {
            start_log();
            Ok(worker_axum::serve(worker, Router::new().fallback(log_path)).await?)
        }
        Some("stream") => stream(worker).await,
        Some("sessions") => Ok(worker_axum::serve(worker, sessions()).await?),
        Some("impatient") => {
            let limits = HttpLimits::new()
                .header_timeout(Some(Duration::from_secs(1)))
                .idle_timeout(Some(Duration::from_secs(3)))
                .max_head_bytes(8192);
            worker.set_http_limits(limits);
            return Ok(worker_axum::serve(worker, sessions()).await?);
        }
        Some("undeclared") => Ok(worker_axum::serve(worker, undeclared()).await?),
        Some("axum-echo") => Ok(worker_axum::serve(worker, Router::new().fallback(echo)).await?),
        Some("hyper-echo") => Ok(worker_hyper::serve(worker, service_fn(hyper_echo)).await?),
        other => Err(format!("no such role: {other:?}").into()),
    }
}

/// A WebSocket echo on a byte stream.
async fn plain_echo(
    stream: SessionStream,
    session: Session,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    session.on_migrate(Vec::new);
    let mut socket = accept_async(stream).await?;
    while let Some(message) = socket.next().await.transpose()? {
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// Speaks no protocol at all.
async fn byte_echo(stream: SessionStream, _: Session) -> std::io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    tokio::io::copy(&mut read, &mut write).await.map(drop)
}

/// Leaves out a step of the long way.
async fn forget(step: &str) -> Result<(), Box<dyn Error>> {
    let mut worker = Worker::attach_or_listen("127.0.0.1:0").await?;
    if step != "forgets-ready" {
        worker.ready()?;
    }
    match step {
        "forgets-ready" => drop(worker.accept().await?),
        "forgets-to-accept" => tokio::time::sleep(Duration::from_secs(60)).await,
        "forgets-to-go-on" => drop(tokio::time::timeout(Duration::ZERO, worker.accept()).await),
        "forgets-to-wait" => {
            let mut held = Vec::new();
            while let Some(connection) = worker.accept().await? {
                held.push(connection);
            }
            drop(worker);
        }
        "forgets-to-enable" => return Ok(worker.enable_migration()?),
        other => return Err(format!("no such role: {other}").into()),
    }
    Ok(())
}

/// Enables migration, and doesn't serve sessions.
async fn serve_bare(mut worker: Worker) -> Result<(), Box<dyn Error>> {
    let drain = worker.drain();
    worker.enable_migration()?;
    worker.ready()?;
    while let Some(mut connection) = worker.accept().await? {
        tokio::spawn(async move {
            connection.read_u8().await?;
            connection.write_all(b"bare").await
        });
    }
    drain.completed().await;
    Ok(())
}

/// WebSockets on plain connections; at the end, their last one is waited for or not.
async fn plain_loop(mut worker: Worker, waits: bool) -> Result<(), Box<dyn Error>> {
    let drain = worker.drain();
    worker.ready()?;
    while let Some(connection) = worker.accept().await? {
        tokio::spawn(echo_websocket(connection));
    }
    if waits {
        drain.completed().await;
    }
    Ok(())
}

/// Sessions that declare how they migrate, in a worker that has not enabled it.
async fn declare_only(mut worker: Worker) -> Result<(), Box<dyn Error>> {
    let drain = worker.drain();
    worker.ready()?;
    while let Some(connection) = worker.accept().await? {
        let (stream, session) = connection.into_session();
        session.on_migrate(Vec::new);
        tokio::spawn(echo_websocket(stream));
    }
    drain.completed().await;
    Ok(())
}

/// WebSockets on bare sockets, which nothing closes.
async fn take_apart(mut worker: Worker) -> Result<(), Box<dyn Error>> {
    let drain = worker.drain();
    worker.ready()?;
    while let Some(connection) = worker.accept().await? {
        let (stream, guard) = connection.into_parts()?;
        tokio::spawn(async move {
            let _guard = guard;
            echo_websocket(stream).await
        });
    }
    drain.completed().await;
    Ok(())
}

async fn echo_websocket(
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let mut socket = accept_async(stream).await?;
    while let Some(message) = socket.next().await.transpose()? {
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

async fn hello(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let info = request.extensions().get::<ConnectionInfo>();
    let client = info.map(|info| info.client.ip().to_string()).unwrap_or_default();
    let mut response = Response::new(format!("hello {client}"));
    response.headers_mut().insert("x-worker-id", std::process::id().into());
    Ok(response)
}

/// Logs as an app does that knows nothing of connections.
async fn logging(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    log_path(request.uri().clone()).await;
    hello(request).await
}

async fn log_path(uri: Uri) {
    tracing::info!(path = uri.path(), "request");
}

fn start_log() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).init();
}

/// Says very much for each request before it is answered.
async fn chatter(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    static SAID: AtomicU64 = AtomicU64::new(0);
    let mut text = String::new();
    for _ in 0..1_000 {
        let number = SAID.fetch_add(1, Ordering::Relaxed);
        text.push_str(&format!("chatter {number:06} {}\n", "x".repeat(100)));
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => hello(request).await,
        Err(error) => Ok(Response::new(error.to_string())),
    }
}

/// Each connection is told its client's address, and back what it says.
async fn stream(mut worker: Worker) -> Result<(), Box<dyn Error>> {
    let drain = worker.drain();
    worker.ready()?;
    while let Some(connection) = worker.next().await {
        let mut connection = connection?;
        tokio::spawn(async move {
            let mut said = [0; 5];
            let client = connection.info().client.ip();
            connection.write_all(format!("{client} ").as_bytes()).await?;
            connection.read_exact(&mut said).await?;
            connection.write_all(&said).await?;
            connection.shutdown().await
        });
    }
    drain.completed().await;
    Ok(())
}

/// WebSockets that move, as axum's own; and requests on connections that move.
fn sessions() -> Router {
    Router::new()
        .route("/", get(async || format!("hello from {}", std::process::id())))
        .route("/length", post(async |body: Bytes| body.len().to_string()))
        .route("/large", get(async || vec![b'x'; 6 << 20]))
        .route("/echo", any(echo))
        .route("/slow", any(slow))
        .route("/count", any(count))
        .route("/late", any(late))
        .route("/forgets", any(forgets))
        .route("/only-sends", any(only_sends))
        .route("/only-sends-and-decides", any(only_sends_and_decides))
        .route("/queues", any(queues))
        .route("/talk", any(talk))
        .route("/leave", any(leave))
        .route("/flood", any(flood))
        .route("/stays", any(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(serve_echo)))
}

async fn echo(session: Session, upgrade: WebSocketUpgrade) -> axum::response::Response {
    session.protect(Vec::new);
    upgrade.max_message_size(64 << 20).max_frame_size(64 << 20).on_upgrade(serve_echo)
}

async fn serve_echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let answer = matches!(message, Message::Text(_) | Message::Binary(_));
        if answer && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// The same paths, in a version that knows nothing of migration.
fn undeclared() -> Router {
    let stays = async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(serve_echo);
    Router::new().route("/count", any(stays)).fallback(echo)
}

/// Sends for ever, read or unread.
async fn flood(session: Session, upgrade: WebSocketUpgrade) -> axum::response::Response {
    session.on_migrate(Vec::new);
    upgrade.on_upgrade(
        async |mut socket| {
            while socket.send(vec![0; 1 << 20].into()).await.is_ok() {}
        },
    )
}

/// Takes a millisecond for each message, so that many wait in the library.
async fn slow(session: Session, upgrade: WebSocketUpgrade) -> axum::response::Response {
    session.on_migrate(Vec::new);
    upgrade.on_upgrade(async |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if matches!(message, Message::Text(_)) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// Can't go on from the state that it has left, and says so by closing.
async fn forgets(session: Session, upgrade: WebSocketUpgrade) -> axum::response::Response {
    let is_new = session.restored().is_none();
    session.on_migrate(|| vec![1]);
    upgrade.on_upgrade(async move |socket| {
        if is_new {
            serve_echo(socket).await;
        }
    })
}

/// Never receives, and so can't be at rest.
async fn only_sends(session: Session, upgrade: WebSocketUpgrade) -> axum::response::Response {
    session.on_migrate(Vec::new);
    upgrade.on_upgrade(async |mut socket| {
        while socket.send("news".into()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

/// Never receives, counts, and leaves when it is told to.
async fn only_sends_and_decides(
    session: Session,
    upgrade: WebSocketUpgrade,
) -> axum::response::Response {
    let state = session.restored().map_or(0, |state| state[0]);
    let mut migrating = session.migrating();
    upgrade.on_upgrade(async move |mut socket| {
        for number in state.. {
            if socket.send(number.to_string().into()).await.is_err() {
                return;
            }
            tokio::select! {
                migration = &mut migrating => {
                    return migration.migrate_with(vec![number.wrapping_add(1)]).await;
                }
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
    })
}

/// Answers from another task than the one that receives, each a while later, and doesn't say that
/// answers are pending.
async fn queues(session: Session, upgrade: WebSocketUpgrade) -> axum::response::Response {
    session.on_migrate(Vec::new);
    upgrade.on_upgrade(async |socket| {
        let (mut sink, mut stream) = socket.split();
        let (answers, mut queue) = tokio::sync::mpsc::channel(1024);
        tokio::spawn(async move {
            while let Some(answer) = queue.recv().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if sink.send(answer).await.is_err() {
                    return;
                }
            }
        });
        while let Some(Ok(message)) = stream.next().await {
            if answers.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// As `/count`, and declares how it migrates a while after its WebSocket is open.
async fn late(session: Session, upgrade: WebSocketUpgrade) -> axum::response::Response {
    upgrade.on_upgrade(async move |mut socket| {
        let workers = session.restored().map_or(1, |state| state[8] + 1);
        let count = Arc::new(AtomicU64::new(session.restored().map_or(0, |state| state[0].into())));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let left = Arc::clone(&count);
        session.on_migrate(move || {
            let mut state = left.load(Ordering::Relaxed).to_le_bytes().to_vec();
            state.push(workers);
            state
        });
        while let Some(Ok(message)) = socket.recv().await {
            let answer = format!("{} {workers}", count.fetch_add(1, Ordering::Relaxed) + 1);
            let is_text = matches!(message, Message::Text(_));
            if is_text && socket.send(answer.into()).await.is_err() {
                return;
            }
        }
    })
}

/// Answers each message with how many there were so far and how many workers had a part in it; the
/// state is as long as `?bytes=` says. A session that was restored takes as many milliseconds as
/// `?restore=` says before its handshake is answered.
async fn count(
    session: Session,
    Query(wanted): Query<HashMap<String, usize>>,
    upgrade: WebSocketUpgrade,
) -> axum::response::Response {
    let wanted = |name| wanted.get(name).copied().unwrap_or(0);
    let bytes = wanted("bytes").max(16);
    let state = session.restored().map_or_else(Vec::new, <[u8]>::to_vec);
    if !state.is_empty() {
        tokio::time::sleep(Duration::from_millis(wanted("restore") as u64)).await;
    }
    let (numbers, _) = state.as_chunks::<8>();
    let number = |at: usize| numbers.get(at).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let (count, workers) = (Arc::new(AtomicU64::new(number(0))), number(1) + 1);
    let left = Arc::clone(&count);
    session.protect(move || {
        let mut state = vec![0; bytes];
        state[..8].copy_from_slice(&left.load(Ordering::Relaxed).to_le_bytes());
        state[8..16].copy_from_slice(&workers.to_le_bytes());
        state
    });
    upgrade.on_upgrade(async move |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            if !matches!(message, Message::Text(_)) {
                continue;
            }
            let answer = format!("{} {workers}", count.fetch_add(1, Ordering::Relaxed) + 1);
            if socket.send(answer.into()).await.is_err() {
                return;
            }
        }
    })
}

/// Answers `7` by `answer 7`, where 7 comes after 6, and says `push 1`, `push 2` and so on by itself;
/// each with how many workers had a part in it. The state is as long as `?bytes=` says.
async fn talk(
    session: Session,
    Query(wanted): Query<HashMap<String, u64>>,
    upgrade: WebSocketUpgrade,
) -> axum::response::Response {
    let wanted = |name| wanted.get(name).copied();
    let bytes = wanted("bytes").and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
    let state = session.restored().map_or_else(Vec::new, <[u8]>::to_vec);
    let (numbers, _) = state.as_chunks::<8>();
    let number = |at: usize| numbers.get(at).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let said = Arc::new([AtomicU64::new(number(0)), AtomicU64::new(number(1))]);
    let (left, workers) = (Arc::clone(&said), number(2) + 1);
    let is_whole = state.iter().skip(24).all(|byte| *byte == state[0]);
    session.protect(move || {
        let numbers = [&left[0], &left[1]].map(|number| number.load(Ordering::Relaxed));
        // So that a state of two parts would be seen.
        let mut state = vec![numbers[0].to_le_bytes()[0]; bytes.max(24)];
        for (place, number) in state.chunks_exact_mut(8).zip([numbers[0], numbers[1], workers]) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        state
    });
    let pause = Duration::from_millis(wanted("push").unwrap_or(3_600_000).max(1));
    upgrade.on_upgrade(async move |mut socket| {
        let mut turns = tokio::time::interval_at(tokio::time::Instant::now() + pause, pause);
        loop {
            let (place, text) = tokio::select! {
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => (&said[0], format!("answer {text}")),
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return,
                },
                _ = turns.tick() => {
                    (&said[1], format!("push {}", said[1].load(Ordering::Relaxed) + 1))
                }
            };
            let number = place.load(Ordering::Relaxed) + 1;
            let follows = is_whole && text.ends_with(&format!(" {number}"));
            let text = if follows { format!("{text} {workers}") } else { "wrong".to_owned() };
            if socket.send(text.into()).await.is_err() {
                return;
            }
            place.store(number, Ordering::Relaxed);
        }
    })
}

/// Is protected, and leaves at the first message.
async fn leave(session: Session, upgrade: WebSocketUpgrade) -> axum::response::Response {
    session.protect(Vec::new);
    upgrade.on_upgrade(async |mut socket| drop(socket.recv().await))
}

/// A WebSocket by hyper's own upgrade, as without any framework.
async fn hyper_echo(mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let (Some(session), Some(key)) =
        (request.extensions().get::<Session>().cloned(), request.headers().get(SEC_WEBSOCKET_KEY))
    else {
        return hello(request).await;
    };
    session.protect(Vec::new);
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let upgraded = TokioIo::new(upgrade.await?);
        let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
        while let Some(message) = socket.next().await.transpose()? {
            if message.is_text() || message.is_binary() {
                socket.send(message).await?;
            }
        }
        Ok::<_, Box<dyn Error + Send + Sync>>(())
    });
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = accept.parse() {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(response)
}
