//! The primary's end: a thread of its own, so that whoever asks much never delays supervision.
//!
//! One task a client. Requests are bounded in size and time, clients in number; whoever doesn't
//! read is left after a while. Never decides anything.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot};
use tokio::time::timeout;

use crate::control::admin::AdminListener;
use crate::control::answers::Control;
use crate::control::protocol::{Code, LONGEST_REQUEST, Line, Problem, parse};
use crate::control::socket::is_allowed;
use crate::supervisor::event::Event;

/// Clients at a time; those beyond are told so.
const CLIENTS: usize = 64;
/// How long a client may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a client may take to read a line.
const LINE_TIME: Duration = Duration::from_secs(10);
/// How often it is looked whether a client is still there that only listens.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Items of an answer that may wait for the client; whoever makes them waits beyond that.
const ITEMS: usize = 16;

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// Nothing is ever sent.
    _running: oneshot::Sender<()>,
}

/// Where requests come from.
#[derive(Debug)]
pub struct Endpoints {
    /// The control socket, if there is one.
    pub control: Option<std::os::unix::net::UnixListener>,
    /// The admin listener, if there is one.
    pub admin: Option<AdminListener>,
}

impl Server {
    /// Starts the thread, which keeps the history from now on.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn start(
        control: Control,
        announced: broadcast::Receiver<Event>,
        doors: Endpoints,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .build()?;
        let (running, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("control".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(control.history.clone().record(announced));
                tokio::select! {
                    () = serve(&control, doors) => {}
                    // Its sender is gone.
                    _ = ended => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { _running: running })
    }
}

async fn serve(control: &Control, doors: Endpoints) {
    let socket = async {
        match doors.control.map(UnixListener::from_std) {
            Some(Ok(listener)) => listen(control, &listener).await,
            Some(Err(error)) => tracing::error!(%error, "control socket is of no use"),
            None => {}
        }
    };
    let admin = async {
        if let Some(listener) = doors.admin
            && let Err(error) = listener.serve(control.clone()).await
        {
            tracing::error!(%error, "admin listener is of no use");
        }
    };
    tokio::join!(socket, admin);
    std::future::pending().await
}

async fn listen(control: &Control, listener: &UnixListener) {
    let room = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                // Out of descriptors, most likely: clients wait in the backlog.
                tracing::warn!(%error, "control socket cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let permit = Arc::clone(&room).try_acquire_owned().ok();
        tokio::spawn(attend(control.clone(), client, permit));
    }
}

/// One client, from its request to the end of the answer.
async fn attend(control: Control, client: UnixStream, permit: Option<OwnedSemaphorePermit>) {
    let allowed = is_allowed(&client).unwrap_or(false);
    let (reader, mut writer) = client.into_split();
    let problem = match (allowed, &permit) {
        (false, _) => {
            Some(Problem::new(Code::Forbidden, "only its own user and root may steer it"))
        }
        (_, None) => Some(Problem::new(
            Code::Busy,
            format!("{CLIENTS} clients are connected: close some, or try again"),
        )),
        _ => None,
    };
    if let Some(problem) = problem {
        return drop(write(&mut writer, &Line::Error(problem)).await);
    }
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(LONGEST_REQUEST as u64));
    match timeout(REQUEST_TIME, reader.read_until(b'\n', &mut line)).await {
        // Whoever connects and says nothing wants to know whether somebody is there.
        Ok(Ok(0) | Err(_)) | Err(_) => return,
        Ok(Ok(_)) => {}
    }
    let (items, made) = mpsc::channel(ITEMS);
    let answer = async {
        let request = parse(&line)?;
        let done = control.answer(request, &items).await;
        drop(items);
        done
    };
    converse(answer, made, &mut writer).await;
}

/// Sends what comes until the answer is complete, or nobody reads it.
async fn converse(
    answer: impl Future<Output = Result<serde_json::Value, Problem>>,
    mut made: mpsc::Receiver<serde_json::Value>,
    writer: &mut OwnedWriteHalf,
) {
    let mut answer = std::pin::pin!(answer);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let last = loop {
        tokio::select! {
            biased;
            Some(item) = made.recv() => {
                if write(writer, &Line::Item(item)).await.is_err() {
                    return;
                }
            }
            done = &mut answer => break done,
            _ = look.tick() => if is_gone(writer) {
                return;
            }
        }
    };
    while let Ok(item) = made.try_recv() {
        if write(writer, &Line::Item(item)).await.is_err() {
            return;
        }
    }
    let last = last.map_or_else(Line::Error, Line::Done);
    // Whoever has gone meanwhile doesn't want to know.
    let _ = write(writer, &last).await;
}

async fn write(writer: &mut OwnedWriteHalf, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    timeout(LINE_TIME, writer.write_all(&bytes)).await?
}

/// Whether the client has closed its socket, not only its writing half.
fn is_gone(writer: &OwnedWriteHalf) -> bool {
    let stream: &UnixStream = writer.as_ref();
    let descriptor = stream.as_fd();
    let mut polled = [PollFd::new(&descriptor, PollFlags::empty())];
    let looked = poll(&mut polled, Some(&Timespec::default()));
    looked.is_ok() && polled[0].revents().contains(PollFlags::HUP)
}
