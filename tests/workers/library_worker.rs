//! Workers for tests that use the library in the ways that no example shows: plain hyper, and the
//! connections as a stream.

use std::convert::Infallible;
use std::error::Error;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::Uri;
use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use sticky_lb::worker::{ConnectionInfo, Worker, axum as worker_axum, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let worker = Worker::attach()?;
    match std::env::args().nth(1).as_deref() {
        Some("hyper") => Ok(http::serve(worker, service_fn(hello)).await?),
        Some("chatty") => Ok(http::serve(worker, service_fn(chatter)).await?),
        Some("logs-hyper") => {
            start_log();
            Ok(http::serve(worker, service_fn(logging)).await?)
        }
        Some("logs-axum") => {
            start_log();
            Ok(worker_axum::serve(worker, Router::new().fallback(log_path)).await?)
        }
        Some("stream") => stream(worker).await,
        other => Err(format!("no such role: {other:?}").into()),
    }
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
    drain.finished().await;
    Ok(())
}
