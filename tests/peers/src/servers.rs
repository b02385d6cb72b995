//! One server for each library, as its own examples write it.

use std::convert::Infallible;

use axum::Router;
use axum::extract::Request;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::any;
use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper_util::rt::TokioIo;
use socketioxide::SocketIo;
use socketioxide::extract::{Data, SocketRef};
use sticky_lb::worker::{Session, SessionStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::BoxError;
use crate::count::Count;

pub fn axum() -> Router {
    let serve = async |session: Session, upgrade: WebSocketUpgrade| {
        let count = Count::new(session);
        upgrade.on_upgrade(async move |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                let is_text = matches!(message, Message::Text(_));
                if is_text && socket.send(count.answer().into()).await.is_err() {
                    return;
                }
            }
        })
    };
    Router::new()
        .route("/", any(serve))
        .route("/versions", any(versions))
        .route("/switch", any(switch))
}

/// Each generation of the worker chooses another subprotocol.
async fn versions(session: Session, upgrade: WebSocketUpgrade) -> Response {
    session.on_migrate(Vec::new);
    let generation = std::env::var("STICKY_LB_GENERATION").unwrap_or_default();
    upgrade.protocols([format!("v{generation}")]).on_upgrade(async |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Text(_)) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// Switches to a protocol that has no frames, and says back what it is told.
async fn switch(mut request: Request) -> Response {
    let protocol = request.headers().get(UPGRADE).cloned();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await?));
        Ok::<_, BoxError>(tokio::io::copy(&mut read, &mut write).await?)
    });
    let mut response = Response::default();
    *response.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().extend(protocol.map(|protocol| (UPGRADE, protocol)));
    response
}

pub fn fastwebsockets() -> Router {
    use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, WebSocketError, upgrade};
    let serve = async |session: Session, upgrade: upgrade::IncomingUpgrade| {
        let count = Count::new(session);
        let (response, upgraded) = upgrade.upgrade().expect("a WebSocket's request");
        tokio::spawn(async move {
            let mut socket = FragmentCollector::new(upgraded.await?);
            loop {
                match socket.read_frame().await?.opcode {
                    OpCode::Close => return Ok::<_, WebSocketError>(()),
                    OpCode::Text => {
                        let answer = Payload::Owned(count.answer().into_bytes());
                        socket.write_frame(Frame::text(answer)).await?;
                    }
                    _ => {}
                }
            }
        });
        response
    };
    Router::new().route("/", any(serve))
}

/// Compresses from message to message, or each message by itself, or nothing.
pub fn yawc() -> Router {
    use yawc::{DeflateOptions, Options};
    let deflate = || Options { compression: Some(DeflateOptions::default()), ..Options::default() };
    let context = move || deflate();
    let none = move || deflate().server_no_context_takeover().client_no_context_takeover();
    Router::new()
        .route(
            "/context",
            any(async move |session, upgrade| serve_yawc(session, upgrade, context())),
        )
        .route(
            "/no-context",
            any(async move |session, upgrade| serve_yawc(session, upgrade, none())),
        )
        .route(
            "/",
            any(async move |session, upgrade| {
                serve_yawc(session, upgrade, Options::default().without_compression())
            }),
        )
}

fn serve_yawc(
    session: Session,
    upgrade: yawc::IncomingUpgrade,
    options: yawc::Options,
) -> hyper::Response<impl hyper::body::Body<Data = hyper::body::Bytes, Error = Infallible> + Send> {
    use yawc::{Frame, OpCode};
    let count = Count::new(session);
    let (response, upgraded) = upgrade.upgrade(options).expect("a WebSocket's request");
    tokio::spawn(async move {
        let mut socket = upgraded.await?;
        while let Some(frame) = socket.next().await {
            if frame.opcode() == OpCode::Text {
                socket.send(Frame::text(count.answer())).await?;
            }
        }
        Ok::<_, BoxError>(())
    });
    response
}

/// A handler that says back what it is told. Its sessions are in the library, and can't be declared by it.
pub fn socketioxide(is_declared: bool) -> Router {
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", async |socket: SocketRef| {
        socket.on("say", async |socket: SocketRef, Data(text): Data<String>| {
            drop(socket.emit("said", &text));
        });
    });
    let router = Router::new().layer(layer);
    if is_declared { router.layer(from_fn(declare)) } else { router }
}

async fn declare(session: Session, request: Request, next: Next) -> Response {
    if request.headers().contains_key(UPGRADE) {
        session.on_migrate(Vec::new);
    }
    next.run(request).await
}

pub async fn hyper(
    mut request: hyper::Request<Incoming>,
) -> Result<hyper::Response<String>, Infallible> {
    let mut response = hyper::Response::new(String::new());
    let (Some(session), Some(key)) =
        (request.extensions().get::<Session>().cloned(), request.headers().get(SEC_WEBSOCKET_KEY))
    else {
        return Ok(response);
    };
    let (accept, upgrade) = (derive_accept_key(key.as_bytes()), hyper::upgrade::on(&mut request));
    let count = Count::new(session);
    tokio::spawn(async move {
        let upgraded = TokioIo::new(upgrade.await?);
        serve_tungstenite(
            WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await,
            count,
        )
        .await
    });
    *response.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().expect("text"));
    Ok(response)
}

pub async fn tungstenite(stream: SessionStream, session: Session) -> Result<(), BoxError> {
    let count = Count::new(session);
    serve_tungstenite(tokio_tungstenite::accept_async(stream).await?, count).await
}

async fn serve_tungstenite<S>(mut socket: WebSocketStream<S>, count: Count) -> Result<(), BoxError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = socket.next().await.transpose()? {
        if message.is_text() {
            socket.send(count.answer().into()).await?;
        }
    }
    Ok(())
}

pub async fn tokio_websockets(stream: SessionStream, session: Session) -> Result<(), BoxError> {
    let count = Count::new(session);
    let (_, mut socket) = tokio_websockets::ServerBuilder::new().accept(stream).await?;
    while let Some(message) = socket.next().await.transpose()? {
        if message.is_text() {
            socket.send(tokio_websockets::Message::text(count.answer())).await?;
        }
    }
    Ok(())
}

pub async fn soketto(stream: SessionStream, session: Session) -> Result<(), BoxError> {
    use soketto::handshake::{Server, server::Response};
    let count = Count::new(session);
    let mut server = Server::new(stream.compat());
    let key = server.receive_request().await?.key();
    server.send_response(&Response::Accept { key, protocol: None }).await?;
    let (mut sender, mut receiver) = server.into_builder().finish();
    let mut message = Vec::new();
    loop {
        message.clear();
        if receiver.receive_data(&mut message).await?.is_text() {
            sender.send_text(count.answer()).await?;
            sender.flush().await?;
        }
    }
}
