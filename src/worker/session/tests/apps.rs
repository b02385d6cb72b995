//! Servers of WebSockets and HTTP as apps write them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::ws::{Message as AxumMessage, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Path, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::serve::IncomingStream;
use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::worker::session::in_flight::InFlightBody;
use crate::worker::session::stream::SessionStream;
use crate::worker::session::tests::migration::{App, Served};

/// Of the answers that take more than a socket's buffers.
pub(super) const BIG: usize = 6_000_000;

pub(super) fn tungstenite() -> App {
    Arc::new(|served_stream, served| {
        tokio::spawn(async move {
            if let Ok(socket) = tokio_tungstenite::accept_async(served_stream).await {
                echo(socket, served).await;
            }
        });
    })
}

pub(super) fn hyper_upgrade() -> App {
    Arc::new(|served_stream, served| {
        let service = service_fn(move |request| upgrade(request, served.clone()));
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(served_stream), service)
            .with_upgrades();
        tokio::spawn(connection);
    })
}

async fn upgrade(
    mut request: hyper::Request<Incoming>,
    served: Served,
) -> Result<hyper::Response<String>, hyper::Error> {
    let accept = derive_accept_key(request.headers()[SEC_WEBSOCKET_KEY].as_bytes());
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
            let io = TokioIo::new(upgraded);
            echo(WebSocketStream::from_raw_socket(io, Role::Server, None).await, served).await;
        }
    });
    let mut response = hyper::Response::new(String::new());
    *response.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, "upgrade".parse().unwrap());
    headers.insert(UPGRADE, "websocket".parse().unwrap());
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().unwrap());
    Ok(response)
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>, served: Served) {
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            work(&served).await;
            if socket.send(message).await.is_err() {
                return;
            }
            served.handled.notify_one();
        }
    }
}

async fn work(served: &Served) {
    if served.pace > Duration::ZERO {
        tokio::time::sleep(served.pace).await;
    }
}

/// Two workers, each with a server of its own.
pub(super) fn axum() -> App {
    let workers = [(); 2].map(|()| {
        let (streams, feed) = mpsc::channel(64);
        let service = router().into_make_service_with_connect_info::<Served>();
        tokio::spawn(async move { axum::serve(Feed(feed), service).await });
        streams
    });
    Arc::new(move |served_stream, served| {
        workers[served.worker].try_send((served_stream, served)).unwrap()
    })
}

fn router() -> Router {
    Router::new()
        .route("/", any(axum_echo))
        .route("/number/{number}", get(number))
        .route("/body", post(|body: Bytes| async { body }))
        .route("/big", get(|| async { vec![b'x'; BIG] }))
        .layer(from_fn(count))
}

async fn axum_echo(
    upgrade: WebSocketUpgrade,
    ConnectInfo(served): ConnectInfo<Served>,
) -> Response {
    upgrade.on_upgrade(async |socket| axum_loop(socket, served).await)
}

async fn axum_loop(mut socket: WebSocket, served: Served) {
    while let Some(Ok(message)) = socket.recv().await {
        if let AxumMessage::Text(_) | AxumMessage::Binary(_) = &message {
            work(&served).await;
            if socket.send(message).await.is_err() {
                return;
            }
            served.handled.notify_one();
        }
    }
}

async fn number(Path(number): Path<u64>, ConnectInfo(served): ConnectInfo<Served>) -> String {
    work(&served).await;
    number.to_string()
}

/// Requests are counted, and each is a reason to move.
async fn count(ConnectInfo(served): ConnectInfo<Served>, request: Request, next: Next) -> Response {
    let in_flight = served.handle.request_started(None);
    if request.uri().path() != "/" {
        served.handled.notify_one();
    }
    next.run(request).await.map(|body| Body::new(InFlightBody::new(body, in_flight)))
}

struct Feed(mpsc::Receiver<(SessionStream, Served)>);

impl axum::serve::Listener for Feed {
    type Io = SessionStream;
    type Addr = Served;

    async fn accept(&mut self) -> (SessionStream, Served) {
        match self.0.recv().await {
            Some(arrived) => arrived,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Served> {
        Err(std::io::ErrorKind::AddrNotAvailable.into())
    }
}

impl Connected<IncomingStream<'_, Feed>> for Served {
    fn connect_info(stream: IncomingStream<'_, Feed>) -> Self {
        stream.remote_addr().clone()
    }
}
