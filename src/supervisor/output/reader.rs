//! The thread that reads what workers print. It always reads, so that no worker waits.
//!
//! Never writes, and never waits for those that do: what their queues don't take is dropped there.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;
use tokio::sync::oneshot;

use crate::link::seam::WorkerId;
use crate::protocol::ids::Timestamp;
use crate::supervisor::output::console::Style;
use crate::supervisor::output::files::{Files, FilesOrder};
use crate::supervisor::output::lines::{Chunk, LONGEST, Lines, Origin, Stream, Text};
use crate::supervisor::output::queue::Queue;
use crate::supervisor::output::snapshot::{PipeHandover, PipeState};
use crate::supervisor::output::tail::Tail;

/// A pipe that holds more takes more of a burst at once. Where it is not granted, less will do.
const PIPE_SIZE: usize = 256 * 1024;
/// A pipe whose worker is gone is closed when nothing has come through it for that long: a process
/// else holds it open, whom the worker has started.
const FORSAKEN_AFTER: Duration = Duration::from_secs(5);
/// What is read in one go before something is said, at most: more than any pipe holds.
const READS: usize = 64;
/// Names the eventfd; the others count from 0.
const WAKE: u64 = u64::MAX;

/// A command to the reader.
#[derive(Debug)]
pub(super) enum Command {
    /// A worker was started.
    Take { worker: WorkerId, pid: i32, stdout: OwnedFd, stderr: OwnedFd },
    /// Pass on whole lines of a worker that it has not printed itself.
    Print { worker: WorkerId, lines: Vec<u8> },
    /// Reopen the files.
    Reopen,
    /// Go on with these styles, of standard output and standard error, and these files.
    Change([Style; 2], Box<Files>),
    /// Continue with a pipe that another process has read so far.
    AdoptPipe(PipeHandover),
    /// End, and leave the pipes to a successor.
    HandOver(oneshot::Sender<Vec<PipeHandover>>),
    /// Pass on what is there, and end.
    End,
}

/// Reads all pipes.
#[derive(Debug)]
pub(super) struct Reader {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    commands: Receiver<Command>,
    sources: HashMap<u64, Source>,
    next: u64,
    buffer: Vec<u8>,
    passage: Passage,
}

#[derive(Debug)]
enum Source {
    Pipe(Pipe),
    /// A worker's process, whose end is reported.
    Process {
        pid: i32,
        _pidfd: OwnedFd,
        pipes: Vec<u64>,
    },
}

#[derive(Debug)]
struct Pipe {
    descriptor: OwnedFd,
    origin: Origin,
    lines: Lines,
    /// When something has come last, once the worker is gone.
    gone: Option<Timestamp>,
}

/// Where lines go from here.
#[derive(Debug)]
pub(super) struct Passage {
    pub(super) stdout: Arc<Queue<Style>>,
    pub(super) stderr: Arc<Queue<Style>>,
    pub(super) files: Arc<Queue<FilesOrder>>,
    /// Whether there are any files.
    pub(super) wanted: bool,
    /// Files are where standard output or standard error is, and lines go there once.
    pub(super) taken_over: [bool; 2],
    /// For those who look now.
    pub(super) tail: Arc<Tail>,
    pub(super) dropped: Arc<AtomicU64>,
}

impl Reader {
    /// Reads nothing yet. After a command is sent, `wake` is to be written to.
    pub(super) fn new(
        wake: Arc<OwnedFd>,
        commands: Receiver<Command>,
        passage: Passage,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        let (sources, buffer) = (HashMap::new(), vec![0; LONGEST]);
        Ok(Self { epoll, wake, commands, sources, next: 0, buffer, passage })
    }

    /// Reads until it is told to end.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            let timeout = self.timeout();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "what workers print cannot be read any more");
                    break;
                }
            }
            // First, so that what is printed after a command is treated as it says.
            let woken = events.iter().any(|event| event.data.u64() == WAKE);
            if woken && let ControlFlow::Break(reply) = self.handle_commands() {
                return self.end(reply);
            }
            for event in &events {
                self.serve(event.data.u64());
            }
            self.close_forsaken(Timestamp::now());
        }
        self.end(None);
    }

    fn serve(&mut self, token: u64) {
        match self.sources.get(&token) {
            Some(Source::Pipe(_)) => {
                self.read(token, 1);
            }
            Some(Source::Process { pipes, .. }) => {
                for pipe in pipes.clone() {
                    if let Some(Source::Pipe(pipe)) = self.sources.get_mut(&pipe) {
                        pipe.gone = Some(Timestamp::now());
                    }
                }
                self.sources.remove(&token);
            }
            None => {}
        }
    }

    /// Reads from a pipe so many times, unless it is empty before.
    fn read(&mut self, token: u64, times: usize) {
        let Some(Source::Pipe(pipe)) = self.sources.get_mut(&token) else { return };
        for _ in 0..times {
            match rustix::io::read(&pipe.descriptor, &mut *self.buffer) {
                Err(Errno::AGAIN | Errno::INTR) => return,
                // A pipe that cannot be read has ended, too.
                Ok(0) | Err(_) => {
                    pipe.end(&self.passage);
                    self.sources.remove(&token);
                    return;
                }
                Ok(count) => pipe.feed(&self.buffer[..count], &self.passage),
            }
        }
    }

    fn read_all(&mut self) {
        let tokens: Vec<_> = self.sources.keys().copied().collect();
        for token in tokens {
            self.read(token, READS);
        }
    }

    /// Ends where it is told to, with where the pipes are to go, if anywhere.
    fn handle_commands(&mut self) -> ControlFlow<Option<oneshot::Sender<Vec<PipeHandover>>>> {
        // It is woken again for what is sent from here on.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Take { worker, pid, stdout, stderr } => {
                    self.take(worker, pid, stdout, stderr);
                }
                Command::Print { worker, lines } => self.print(worker, lines),
                Command::Reopen => self.passage.files.order(FilesOrder::Reopen),
                Command::Change([stdout, stderr], files) => {
                    self.passage.wanted = files.are_wanted();
                    self.passage.taken_over = files.taken_over();
                    self.passage.stdout.order(stdout);
                    self.passage.stderr.order(stderr);
                    self.passage.files.order(FilesOrder::Change(files));
                }
                Command::AdoptPipe(pipe) => self.adopt_pipe(pipe),
                Command::HandOver(reply) => return ControlFlow::Break(Some(reply)),
                Command::End => return ControlFlow::Break(None),
            }
        }
        ControlFlow::Continue(())
    }

    fn take(&mut self, worker: WorkerId, pid: i32, stdout: OwnedFd, stderr: OwnedFd) {
        let origin = |stream| Origin { worker, pid, stream };
        let out = self.add_pipe(stdout, origin(Stream::Out), Lines::default());
        let err = self.add_pipe(stderr, origin(Stream::Err), Lines::default());
        self.watch_process(pid, vec![out, err]);
    }

    /// Lines of a worker whose pipe is gone count as dropped: they can't be told from those of another.
    fn print(&self, worker: WorkerId, bytes: Vec<u8>) {
        let of_worker = self.pipes().map(|(_, pipe)| pipe.origin);
        let text = Text { bytes, partial: false };
        match of_worker.into_iter().find(|it| it.worker == worker && it.stream == Stream::Out) {
            Some(origin) => self.passage.pass(origin, text),
            None => drop(self.passage.dropped.fetch_add(text.count(), Ordering::Relaxed)),
        }
    }

    fn adopt_pipe(&mut self, PipeHandover { state, descriptor }: PipeHandover) {
        let PipeState { worker, pid, stream, begun, gone } = state;
        let token = self.add_pipe(descriptor, Origin { worker, pid, stream }, Lines::begun(begun));
        if gone {
            // The number may be another's by now.
            if let Some(Source::Pipe(pipe)) = self.sources.get_mut(&token) {
                pipe.gone = Some(Timestamp::now());
            }
            return;
        }
        let known = self.sources.values_mut().find_map(|source| match source {
            Source::Process { pid: found, pipes, .. } if *found == pid => Some(pipes),
            _ => None,
        });
        match known {
            Some(pipes) => pipes.push(token),
            None => self.watch_process(pid, vec![token]),
        }
    }

    fn watch_process(&mut self, pid: i32, pipes: Vec<u64>) {
        let process = Pid::from_raw(pid).ok_or(Errno::SRCH);
        let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let token = self.token();
        match process.and_then(|process| self.watch(process.as_fd(), token).map(|()| process)) {
            Ok(process) => {
                let source = Source::Process { pid, _pidfd: process, pipes };
                self.sources.insert(token, source);
            }
            // It is gone already, and its pipes will end when they are read to their end.
            Err(error) => tracing::debug!(pid, %error, "end of a worker is not watched for"),
        }
    }

    fn add_pipe(&mut self, descriptor: OwnedFd, origin: Origin, lines: Lines) -> u64 {
        let token = self.token();
        let _ = fcntl_setpipe_size(&descriptor, PIPE_SIZE);
        let ready = rustix::io::ioctl_fionbio(&descriptor, true);
        match ready.and_then(|()| self.watch(descriptor.as_fd(), token)) {
            Ok(()) => {
                let pipe = Pipe { descriptor, origin, lines, gone: None };
                self.sources.insert(token, Source::Pipe(pipe));
            }
            Err(error) => {
                let slot = origin.worker.slot.0;
                tracing::error!(slot, pid = origin.pid, %error, "what a worker prints is lost");
            }
        }
        token
    }

    fn watch(&self, descriptor: BorrowedFd<'_>, token: u64) -> Result<(), Errno> {
        epoll::add(&self.epoll, descriptor, EventData::new_u64(token), EventFlags::IN)
    }

    fn token(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How long to wait: for ever, unless there is a forsaken pipe.
    fn timeout(&self) -> Option<Timespec> {
        let since = self.pipes().filter_map(|(_, pipe)| pipe.gone).min()?;
        // A moment more, so that the time is over when it is looked at.
        let due = since + FORSAKEN_AFTER + Duration::from_millis(1);
        Timespec::try_from(due.since(Timestamp::now())).ok()
    }

    fn close_forsaken(&mut self, now: Timestamp) {
        let over = |pipe: &Pipe| pipe.gone.is_some_and(|since| now.since(since) >= FORSAKEN_AFTER);
        let forsaken: Vec<_> =
            self.pipes().filter(|(_, pipe)| over(pipe)).map(|(token, _)| token).collect();
        for token in forsaken {
            if let Some(Source::Pipe(mut pipe)) = self.sources.remove(&token) {
                pipe.end(&self.passage);
            }
        }
    }

    fn pipes(&self) -> impl Iterator<Item = (u64, &Pipe)> {
        self.sources.iter().filter_map(|(token, source)| match source {
            Source::Pipe(pipe) => Some((*token, pipe)),
            Source::Process { .. } => None,
        })
    }

    /// A successor reads the rest of the pipes; without one, they are read here.
    fn end(mut self, successor: Option<oneshot::Sender<Vec<PipeHandover>>>) {
        if successor.is_none() {
            self.read_all();
        }
        let pipes = self.sources.into_values().filter_map(|source| match source {
            Source::Pipe(pipe) => Some(pipe),
            Source::Process { .. } => None,
        });
        match successor {
            // The caller waits for it.
            Some(reply) => drop(reply.send(pipes.map(Pipe::hand_over).collect())),
            None => pipes.for_each(|mut pipe| pipe.end(&self.passage)),
        }
        self.passage.stdout.close();
        self.passage.stderr.close();
        self.passage.files.close();
        self.passage.tail.close();
    }
}

impl Pipe {
    fn feed(&mut self, bytes: &[u8], passage: &Passage) {
        let origin = self.origin;
        self.lines.feed(bytes, |text| passage.pass(origin, text));
        self.gone = self.gone.map(|_| Timestamp::now());
    }

    fn hand_over(self) -> PipeHandover {
        let Origin { worker, pid, stream } = self.origin;
        let (begun, gone) = (self.lines.into_begun(), self.gone.is_some());
        let state = PipeState { worker, pid, stream, begun, gone };
        PipeHandover { state, descriptor: self.descriptor }
    }

    fn end(&mut self, passage: &Passage) {
        let origin = self.origin;
        self.lines.end(|text| passage.pass(origin, text));
    }
}

impl Passage {
    fn pass(&self, origin: Origin, text: Text) {
        let chunk = Arc::new(Chunk { origin, time: jiff::Timestamp::now(), text });
        let [is_out_taken, is_err_taken] = self.taken_over;
        let (console, is_taken) = match origin.stream {
            Stream::Out => (&self.stdout, is_out_taken),
            Stream::Err => (&self.stderr, is_err_taken),
        };
        let mut dropped = if is_taken { 0 } else { console.push(&chunk) };
        if self.wanted {
            dropped += self.files.push(&chunk);
        }
        if dropped > 0 {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        self.tail.push(&chunk);
    }
}
