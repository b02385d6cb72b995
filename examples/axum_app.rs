//! The app of every clustering tutorial, on axum: who serves me, am I well, something heavy.
//!
//! ```text
//! cargo build --release --examples
//! cargo run --release -- --workers 4 --port 3000 -- ./target/release/examples/axum_app
//! curl -i localhost:3000/health
//! ```

use std::error::Error;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{Json, Response};
use axum::routing::get;
use serde_json::{Value, json};
use sticky_lb::worker::{ConnectionInfo, Drain, Worker};
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Under sticky-lb as its worker, else by itself.
    let worker = Worker::attach_or_listen("127.0.0.1:3000").await?;
    let started = Instant::now();
    let drain = worker.drain();
    let app = Router::new()
        .route("/", get(hello))
        .route("/health", get(move || health(started, drain)))
        .route("/heavy", get(heavy))
        .layer(from_fn(name_worker));
    Ok(sticky_lb::worker::axum::serve(worker, app).await?)
}

async fn name_worker(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert("X-Worker-ID", HeaderValue::from(std::process::id()));
    response
}

async fn hello(ConnectInfo(connection): ConnectInfo<ConnectionInfo>) -> String {
    let (pid, slot, client) = (std::process::id(), connection.slot, connection.client.ip());
    format!("Hello {client} from worker {pid} in slot {slot}\n")
}

async fn health(started: Instant, drain: Drain) -> (StatusCode, Json<Value>) {
    let uptime = started.elapsed().as_secs_f64();
    // Fails as soon as everything is to end, so that load balancers send no more clients.
    let (code, status) = match drain.is_ready() {
        true => (StatusCode::OK, "healthy"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    (code, Json(json!({"status": status, "worker": std::process::id(), "uptime": uptime})))
}

async fn heavy() -> Json<Value> {
    let start = Instant::now();
    // Not on the worker's own thread: that one goes on serving.
    let sum = tokio::task::spawn_blocking(|| (0..10_000_000).map(f64::from).map(f64::sqrt).sum());
    let result: f64 = sum.await.unwrap_or(f64::NAN);
    let duration = start.elapsed().as_millis();
    Json(json!({"worker": std::process::id(), "duration": duration, "result": result}))
}
