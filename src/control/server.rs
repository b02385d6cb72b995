//! The primary's side of the control socket: a thread of its own, so that no client delays supervision.
//!
//! One task per client. Requests are bounded in size and time, clients in number; a client that
//! doesn't read is disconnected. Decides nothing.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio::time::timeout;

use crate::control::admin::AdminListener;
use crate::control::answers::Control;
use crate::control::protocol::{Code, Line, MAX_REQUEST_BYTES, Problem, parse};
use crate::control::socket::is_allowed;
use crate::supervisor::event::Event;

/// The largest number of clients; further ones get an error.
const MAX_CLIENTS: usize = 64;
/// Time for a client's request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a client to read a line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the connection of a listening client is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Capacity of an answer's channel of items.
const MAX_ITEMS: usize = 16;

/// A running server. It ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Dropped to end the thread. One listener waits at most: the next is lost then, and bound again.
    listeners: mpsc::Sender<std::os::unix::net::UnixListener>,
}

/// The sockets on which requests arrive.
#[derive(Debug)]
pub struct Endpoints {
    /// The control socket, if there is one.
    pub control: Option<std::os::unix::net::UnixListener>,
    /// The admin listener, if there is one.
    pub admin: Option<AdminListener>,
}

impl Server {
    /// Starts the thread, which records the history from now on.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a thread.
    pub fn start(
        control: Control,
        announced: broadcast::Receiver<Event>,
        endpoints: Endpoints,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .build()?;
        let (listeners, mut more) = mpsc::channel(1);
        thread::Builder::new().name("control".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(control.history.clone().record(announced));
                tokio::select! {
                    () = serve(&control, endpoints) => {}
                    () = serve_more(&control, &mut more) => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { listeners })
    }

    /// Serves another control socket, too: the one before may not be found any more.
    pub fn serve_also(&self, listener: std::os::unix::net::UnixListener) {
        let _ = self.listeners.try_send(listener);
    }
}

/// Until the server is dropped.
async fn serve_more(
    control: &Control,
    more: &mut mpsc::Receiver<std::os::unix::net::UnixListener>,
) {
    let mut last: Option<UnixListener> = None;
    loop {
        let next = async {
            match &last {
                Some(listener) => listen(control, listener).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = next => {}
            listener = more.recv() => match listener {
                Some(listener) => last = UnixListener::from_std(listener).ok(),
                None => return,
            },
        }
    }
}

async fn serve(control: &Control, endpoints: Endpoints) {
    let socket = async {
        match endpoints.control.map(UnixListener::from_std) {
            Some(Ok(listener)) => listen(control, &listener).await,
            Some(Err(error)) => tracing::error!(%error, "control socket failed"),
            None => {}
        }
    };
    let admin = async {
        if let Some(listener) = endpoints.admin
            && let Err(error) = listener.serve(control.clone()).await
        {
            tracing::error!(%error, "admin listener failed");
        }
    };
    tokio::join!(socket, admin);
    std::future::pending().await
}

async fn listen(control: &Control, listener: &UnixListener) {
    let room = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                // Most likely out of descriptors: clients wait in the backlog.
                tracing::warn!(%error, "control socket cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let permit = Arc::clone(&room).try_acquire_owned().ok();
        tokio::spawn(serve_client(control.clone(), client, permit));
    }
}

/// One client, from its request to the end of the answer.
async fn serve_client(control: Control, client: UnixStream, permit: Option<OwnedSemaphorePermit>) {
    let allowed = is_allowed(&client).unwrap_or(false);
    let (reader, mut writer) = client.into_split();
    let problem = match (allowed, &permit) {
        (false, _) => {
            Some(Problem::new(Code::Forbidden, "only the user of the primary and root have access"))
        }
        (_, None) => Some(Problem::new(
            Code::Busy,
            format!("{MAX_CLIENTS} clients are connected: close some, or try again"),
        )),
        _ => None,
    };
    if let Some(problem) = problem {
        return drop(write(&mut writer, &Line::Error(problem)).await);
    }
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST_BYTES as u64));
    match timeout(REQUEST_TIMEOUT, reader.read_until(b'\n', &mut line)).await {
        // A connection without a request only checks whether the primary runs.
        Ok(Ok(0) | Err(_)) | Err(_) => return,
        Ok(Ok(_)) => {}
    }
    let (items, received) = mpsc::channel(MAX_ITEMS);
    let answer = async {
        let request = parse(&line)?;
        let done = control.answer(request, &items).await;
        drop(items);
        done
    };
    send_answer(answer, received, &mut writer).await;
}

/// Sends items until the answer is complete or the client has gone.
async fn send_answer(
    answer: impl Future<Output = Result<serde_json::Value, Problem>>,
    mut received: mpsc::Receiver<serde_json::Value>,
    writer: &mut OwnedWriteHalf,
) {
    let mut answer = std::pin::pin!(answer);
    let mut check = tokio::time::interval(CHECK_INTERVAL);
    let last = loop {
        tokio::select! {
            biased;
            Some(item) = received.recv() => {
                if write(writer, &Line::Item(item)).await.is_err() {
                    return;
                }
            }
            done = &mut answer => break done,
            _ = check.tick() => if is_gone(writer) {
                return;
            }
        }
    };
    while let Ok(item) = received.try_recv() {
        if write(writer, &Line::Item(item)).await.is_err() {
            return;
        }
    }
    let last = last.map_or_else(Line::Error, Line::Done);
    // Fails if the client has gone.
    let _ = write(writer, &last).await;
}

async fn write(writer: &mut OwnedWriteHalf, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    timeout(WRITE_TIMEOUT, writer.write_all(&bytes)).await?
}

/// Whether the client has closed its whole socket, not only its writing half.
fn is_gone(writer: &OwnedWriteHalf) -> bool {
    let stream: &UnixStream = writer.as_ref();
    let descriptor = stream.as_fd();
    let mut polled = [PollFd::new(&descriptor, PollFlags::empty())];
    let looked = poll(&mut polled, Some(&Timespec::default()));
    looked.is_ok() && polled[0].revents().contains(PollFlags::HUP)
}
