//! Workers on WebSocket libraries of other people, and a client that compresses.
//!
//! `peers LIBRARY` is a worker; `peers talk ADDRESS PATH` a client that sends each line of its input, and
//! prints each answer.

mod count;
mod servers;
mod talk;

use std::error::Error;

use sticky_lb::worker::{Worker, axum as worker_axum, hyper as worker_hyper};

type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["talk", address, path] => talk::talk(address, path).await,
        [library] => serve(library, Worker::attach()?).await,
        _ => Err("peers LIBRARY, or peers talk ADDRESS PATH".into()),
    }
}

async fn serve(library: &str, worker: Worker) -> Result<(), BoxError> {
    match library {
        "axum" => worker_axum::serve(worker, servers::axum()).await?,
        "fastwebsockets" => worker_axum::serve(worker, servers::fastwebsockets()).await?,
        "yawc" => worker_axum::serve(worker, servers::yawc()).await?,
        "socketioxide" => worker_axum::serve(worker, servers::socketioxide(false)).await?,
        "socketioxide-declared" => worker_axum::serve(worker, servers::socketioxide(true)).await?,
        "hyper" => {
            let service = hyper::service::service_fn(servers::hyper);
            worker_hyper::serve(worker, service).await?;
        }
        "tungstenite" => worker.serve(servers::tungstenite).await?,
        "tokio-websockets" => worker.serve(servers::tokio_websockets).await?,
        "soketto" => worker.serve(servers::soketto).await?,
        other => return Err(format!("there is no worker on {other}").into()),
    }
    Ok(())
}
