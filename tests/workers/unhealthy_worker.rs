//! A worker for tests that falls ill when it is asked to: it leaks memory, or stands still.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::AppendHeaders;
use axum::routing::get;
use sticky_lb::worker::{Drain, Worker, axum as server};

type Answer = (AppendHeaders<[(&'static str, String); 2]>, &'static str);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let worker = Worker::attach()?;
    let drain = worker.drain();
    let router = Router::new()
        .route("/", get(async || answer("well\n")))
        .route("/leak", get(leak))
        .route("/stall", get(stall))
        .route("/sleep", get(sleep))
        .route("/burn", get(burn))
        .route("/leave", get(leave))
        .with_state(drain);
    Ok(server::serve(worker, router).await?)
}

fn answer(text: &'static str) -> Answer {
    let slot = std::env::var("STICKY_LB_SLOT").unwrap_or_default();
    let headers = [("x-worker-id", std::process::id().to_string()), ("x-worker-slot", slot)];
    (AppendHeaders(headers), text)
}

/// As an app that has looked at its memory.
async fn leave(State(drain): State<Drain>) -> Answer {
    answer(if drain.request_replacement().is_ok() { "asked\n" } else { "nobody to ask\n" })
}

/// So many megabytes that are never given back.
async fn leak(Query(query): Query<HashMap<String, usize>>) -> Answer {
    let bytes = query.get("mb").copied().unwrap_or(1) << 20;
    // Written to, or the kernel doesn't give it.
    std::mem::forget(vec![1_u8; bytes]);
    answer("leaked\n")
}

/// This request alone, for so many milliseconds.
async fn sleep(Query(query): Query<HashMap<String, u64>>) -> Answer {
    tokio::time::sleep(Duration::from_millis(query.get("ms").copied().unwrap_or(1_000))).await;
    answer("rested\n")
}

/// A processor, beside the event loop, for so many milliseconds.
async fn burn(Query(query): Query<HashMap<String, u64>>) -> Answer {
    let time = Duration::from_millis(query.get("ms").copied().unwrap_or(1_000));
    let end = tokio::time::Instant::now() + time;
    // Without anybody to wait for it, a worker that is to end would wait.
    std::thread::spawn(move || while tokio::time::Instant::now() < end {});
    tokio::time::sleep(time).await;
    answer("burnt\n")
}

/// The whole event loop, for so many milliseconds.
async fn stall(Query(query): Query<HashMap<String, u64>>) -> Answer {
    std::thread::sleep(Duration::from_millis(query.get("ms").copied().unwrap_or(1_000)));
    answer("awake\n")
}
