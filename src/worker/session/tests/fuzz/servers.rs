//! The same servers on a plain socket and on a stream that is followed. They write down what they see.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::worker::session::handle::Handle;
use crate::worker::session::in_flight::InFlightBody;
use crate::worker::session::tests::fuzz::conversation::{Conversation, Server};

type Body = Either<Full<Bytes>, InFlightBody<Full<Bytes>>>;

/// A server of one connection.
#[derive(Clone)]
pub(super) struct App {
    server: Server,
    handle: Option<Handle>,
    events: Arc<Mutex<Vec<String>>>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Its first request was seen before.
    is_replayed: Arc<AtomicBool>,
}

impl App {
    pub(super) fn new(conversation: &Conversation, handle: Option<Handle>) -> Self {
        let server = conversation.server;
        let (events, tasks, is_replayed) = (Arc::default(), Arc::default(), Arc::default());
        Self { server, handle, events, tasks, is_replayed }
    }

    /// That of the next worker.
    pub(super) fn next(&self, handle: Handle) -> Self {
        let is_replayed = Arc::new(AtomicBool::new(handle.is_replaying()));
        Self { handle: Some(handle), is_replayed, ..self.clone() }
    }

    /// All of them, when all tasks have ended.
    pub(super) async fn events(self) -> Vec<String> {
        loop {
            let task = self.tasks.lock().unwrap().pop();
            let Some(task) = task else { return std::mem::take(&mut self.events.lock().unwrap()) };
            task.await.unwrap();
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap().push(tokio::spawn(task));
    }

    /// What comes after the connection has left is no event.
    fn note(&self, event: String) {
        if !self.handle.as_ref().is_some_and(Handle::is_detached) {
            self.events.lock().unwrap().push(event);
        }
    }

    pub(super) fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let app = self.clone();
        match self.server {
            Server::Hyper => self.spawn(app.serve_hyper(stream)),
            Server::Tungstenite => self.spawn(app.serve_tungstenite(stream)),
        }
    }

    async fn serve_tungstenite<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) {
        match tokio_tungstenite::accept_async(stream).await {
            Ok(socket) => self.echo(socket).await,
            Err(error) => self.note(format!("handshake: {}", kind(&error))),
        }
    }

    async fn serve_hyper<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let app = self.clone();
        let service = service_fn(move |request| app.clone().answer(request));
        let connection = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if connection.await.is_err() {
            self.note("connection: error".to_owned());
        }
    }

    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let in_flight = self.handle.as_ref().map(|handle| handle.request_started(None));
        let is_replayed = self.is_replayed.swap(false, Ordering::Relaxed);
        let wanted = request.headers().get(UPGRADE).cloned();
        let upgraded = hyper::upgrade::on(&mut request);
        let what = format!("{} {} {:?}", request.method(), request.uri(), request.version());
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.map(|body| body.to_bytes());
        if !is_replayed {
            self.note(format!("{what} {:?}", body.as_ref().map(Bytes::len).ok()));
        }
        let mut answer = Response::new(match path.as_str() {
            "/big" => Bytes::from(vec![b'x'; 300_000]),
            _ => body.unwrap_or_default(),
        });
        let upgrade = match (path.as_str(), wanted) {
            ("/websocket", Some(_)) => Some("websocket"),
            ("/switch" | "/h2c", Some(_)) => Some("other"),
            _ => None,
        };
        if path == "/refuse" {
            *answer.status_mut() = StatusCode::FORBIDDEN;
        }
        if let Some(upgrade) = upgrade {
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *answer.body_mut() = Bytes::new();
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            answer.headers_mut().insert(UPGRADE, HeaderValue::from_static(upgrade));
            self.spawn(self.clone().go_on(upgrade, upgraded));
        }
        Ok(answer.map(|body| match in_flight {
            Some(in_flight) => Either::Right(InFlightBody::new(Full::new(body), in_flight)),
            None => Either::Left(Full::new(body)),
        }))
    }

    async fn go_on(self, protocol: &'static str, upgraded: hyper::upgrade::OnUpgrade) {
        let Ok(upgraded) = upgraded.await else { return };
        let mut io = TokioIo::new(upgraded);
        if protocol == "websocket" {
            self.echo(WebSocketStream::from_raw_socket(io, Role::Server, None).await).await;
            return;
        }
        let mut bytes = Vec::new();
        let _ = io.read_to_end(&mut bytes).await;
        self.note(format!("{} bytes of another protocol", bytes.len()));
        let _ = io.write_all(&bytes).await;
        let _ = io.shutdown().await;
    }

    async fn echo<S: AsyncRead + AsyncWrite + Unpin>(self, mut socket: WebSocketStream<S>) {
        loop {
            match socket.next().await {
                Some(Ok(message)) => {
                    self.note(format!("{:?} {}", std::mem::discriminant(&message), message.len()));
                    let is_data = message.is_text() || message.is_binary();
                    if is_data && socket.send(message).await.is_err() {
                        return self.note("send: error".to_owned());
                    }
                }
                Some(Err(error)) => return self.note(format!("receive: {}", kind(&error))),
                None => return self.note("end".to_owned()),
            }
        }
    }
}

fn kind(error: &tokio_tungstenite::tungstenite::Error) -> String {
    format!("{error:?}")
}

/// A socket as it is, which says when the library has let go of it.
pub(super) struct Plain {
    stream: TcpStream,
    ended: Arc<Notify>,
}

impl Plain {
    pub(super) fn new(stream: TcpStream, ended: &Arc<Notify>) -> Self {
        Self { stream, ended: Arc::clone(ended) }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.ended.notify_one();
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
