//! The output of workers: read line by line, and written to its destinations.
//!
//! Workers' standard output goes to standard output, their standard error to standard error. One
//! thread reads all pipes and never waits, so that no worker does. One writes to each of the two
//! streams and one to files; a full disk or a reader that doesn't read may stop these. Between them
//! are queues of 8 MiB. When one is full, lines are dropped, counted, and logged once it flows again.
//! No thread wakes up while no worker prints.
//!
//! The last 1 MiB of lines stays in memory for those who look while it runs ([`Output::recent`]), and
//! who may follow: the chunks that were read, shared with the queues and not copied.
//!
//! Never fails once it has started, and never looks at what a line says.
//!
//! # Lines
//!
//! * A line of more than 64 KiB is cut into pieces, each a line in text; in JSON all but the last
//!   have `"partial":true`. No byte is lost.
//! * A file that is standard output or standard error itself gets no line twice: lines are written there as in
//!   files if these have a format of their own.
//! * `\r\n` becomes `\n`. Anything else passes in text as it is, invalid UTF-8 too; in JSON that is
//!   replaced.
//! * The last line of a worker gets an end if it has none.
//! * A pipe that a process started by a worker keeps open is closed when the worker is gone and
//!   nothing has come through it for 5 s.

use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::link::seam::WorkerId;

mod check;
mod console;
mod date;
mod files;
mod lines;
mod log_file;
mod queue;
mod reader;
mod render;
pub mod settings;
mod sink;
mod snapshot;
mod tail;

pub use check::problems;
pub use date::check as check_date_format;
pub use lines::Stream;
pub use settings::{LogFormat, OutputError, OutputSettings, Prefix};
pub use snapshot::{OutputHandover, PipeHandover, PipeState};
pub use tail::{Follower, LineFilter, Printed, PrintedLine, Recent};

use console::{Console, Style};
use files::{Files, FilesOrder};
use queue::Queue;
use reader::{Command, Passage, Reader};
use tail::Tail;

/// The name of the last lines' memory among the descriptors of a successor.
pub const LINES: &str = "lines";

/// The limit of commands that wait for the reader. The reader never blocks, so that it is never
/// reached; a further command is dropped with an error in the log.
const COMMANDS: usize = 1024;

/// Takes what workers print, and writes it. No call waits for what is written to, but for
/// [`Output::finish`], and opening files.
#[derive(Clone, Debug)]
pub struct Output {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: SyncSender<Command>,
    wake: Arc<OwnedFd>,
    dropped: Arc<AtomicU64>,
    tail: Arc<Tail>,
    queues: Queues,
    /// Closed when the threads have ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

/// The queues between the threads.
#[derive(Debug)]
struct Queues {
    stdout: Arc<Queue<Style>>,
    /// The same one where both streams are one.
    stderr: Arc<Queue<Style>>,
    files: Arc<Queue<FilesOrder>>,
}

impl Output {
    /// Opens the files and starts the threads.
    ///
    /// # Errors
    ///
    /// If a file cannot be opened, the date format is wrong, or the kernel refuses something.
    pub fn start(settings: OutputSettings) -> Result<Self, OutputError> {
        let dropped = Arc::new(AtomicU64::new(0));
        let prefix = settings.prefix;
        let files = Files::open(settings, Arc::clone(&dropped))?;
        Self::with_files(files, prefix, dropped, Tail::resume(None))
    }

    fn with_files(
        files: Files,
        prefix: Prefix,
        dropped: Arc<AtomicU64>,
        tail: Tail,
    ) -> Result<Self, OutputError> {
        let [out, err] = styles(prefix);
        let stdout = Console::new(Stream::Out, out, Arc::clone(&dropped))?;
        let stderr = Console::new(Stream::Err, err, Arc::clone(&dropped))?;
        let is_shared = console::is_shared();

        let (for_stdout, for_files) = (Queue::new(), Queue::new());
        let for_stderr = if is_shared { Arc::clone(&for_stdout) } else { Queue::new() };
        let queues = Queues {
            stdout: Arc::clone(&for_stdout),
            stderr: Arc::clone(&for_stderr),
            files: Arc::clone(&for_files),
        };
        let tail = Arc::new(tail);
        let passage = Passage {
            stdout: Arc::clone(&for_stdout),
            stderr: Arc::clone(&for_stderr),
            files: Arc::clone(&for_files),
            wanted: files.are_wanted(),
            taken_over: files.taken_over(),
            tail: Arc::clone(&tail),
            dropped: Arc::clone(&dropped),
        };
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(io::Error::from)?);
        let (commands, received) = sync_channel(COMMANDS);
        let reader = Reader::new(Arc::clone(&wake), received, passage)?;
        // Nothing is ever sent: it is closed when the last thread has ended.
        let (running, ended) = mpsc::channel(1);
        spawn("output-reader", &running, move || reader.run())?;
        spawn("output-files", &running, move || files.write(&for_files))?;
        spawn("output-stdout", &running, move || stdout.write(&for_stdout))?;
        if !is_shared {
            spawn("output-stderr", &running, move || stderr.write(&for_stderr))?;
        }
        let ended = Mutex::new(ended);
        Ok(Self { shared: Arc::new(Shared { commands, wake, dropped, tail, queues, ended }) })
    }

    /// Takes what a new worker prints, from the read ends of its pipes.
    pub fn take(&self, worker: WorkerId, pid: i32, stdout: OwnedFd, stderr: OwnedFd) {
        self.shared.send(Command::Take { worker, pid, stdout, stderr });
    }

    /// Adds whole lines to the standard output of a worker, which has not printed them itself. Lines for which
    /// there is no room are dropped and counted.
    pub fn print(&self, worker: WorkerId, lines: Vec<u8>) {
        let count = lines::count(&lines);
        if self.shared.commands.try_send(Command::Print { worker, lines }).is_err() {
            self.count_dropped(count);
        }
        self.shared.wake();
    }

    /// Reopens all files, after they were renamed.
    pub fn reopen(&self) {
        self.shared.send(Command::Reopen);
    }

    /// Goes on with other settings, from the next line on.
    ///
    /// # Errors
    ///
    /// If a file cannot be opened or the date format is wrong. All stays as it was then.
    pub fn change(&self, settings: OutputSettings) -> Result<(), OutputError> {
        let styles = styles(settings.prefix);
        let files = Files::open(settings, Arc::clone(&self.shared.dropped))?;
        self.shared.send(Command::Change(styles, Box::new(files)));
        Ok(())
    }

    /// How many lines have not arrived somewhere so far: there was no room in a queue, or they
    /// could not be written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// The last `count` lines that `filter` takes, as far as they are in memory, and those that follow.
    /// A follower may run on any runtime; workers and files never wait for it.
    #[must_use]
    pub fn recent(&self, filter: LineFilter, count: usize) -> Recent {
        self.shared.tail.recent(filter, count)
    }

    /// Writes what there is, and ends. It gives up after `timeout`: a thread that is stopped by what it
    /// writes to is left to the end of the process.
    pub async fn finish(self, timeout: Duration) {
        self.shared.send(Command::End);
        self.shared.ended(timeout).await;
    }

    /// The memory with the last lines, for a successor; `None` if there is none, or no free descriptor.
    #[must_use]
    pub fn memory(&self) -> Option<OwnedFd> {
        self.shared.tail.memory().and_then(Result::ok)
    }

    /// Resumes another one: its last lines, its pipes, its incomplete lines, its count. A file that cannot be opened any more
    /// is no error: it is tried again with the next lines, and `failed` is told.
    ///
    /// # Errors
    ///
    /// As [`Output::start`]. `before` is as it was then: a worker whose pipe is closed could not print any
    /// more.
    pub fn resume(
        settings: OutputSettings,
        before: &mut OutputHandover,
        failed: impl FnOnce(OutputError),
    ) -> Result<Self, OutputError> {
        let dropped = Arc::new(AtomicU64::new(0));
        let prefix = settings.prefix;
        let mut files = Files::new(settings, Arc::clone(&dropped))?;
        if let Some(error) = files.open_first() {
            failed(error);
        }
        let OutputHandover { pipes, dropped: lost, lines } = std::mem::take(before);
        let output = Self::with_files(files, prefix, dropped, Tail::resume(lines))?;
        output.count_dropped(lost);
        pipes.into_iter().for_each(|pipe| output.adopt_pipe(pipe));
        Ok(output)
    }

    /// Reads a worker's pipe from where it was left.
    pub fn adopt_pipe(&self, pipe: PipeHandover) {
        self.shared.send_surely(Command::AdoptPipe(pipe));
    }

    /// Stops reading, writes everything that was read, and ends. After `timeout` it gives up writing, as
    /// [`Output::finish`] does. Later output of workers waits in the pipes, as long as there is room.
    pub async fn hand_over(self, timeout: Duration) -> OutputHandover {
        let (reply, pipes) = oneshot::channel();
        self.shared.send_surely(Command::HandOver(reply));
        // No answer comes only if the kernel has refused to wait for pipes at all.
        let pipes = pipes.await.unwrap_or_default();
        self.shared.ended(timeout).await;
        OutputHandover { pipes, dropped: self.dropped(), lines: self.memory() }
    }

    fn count_dropped(&self, lines: u64) {
        self.shared.dropped.fetch_add(lines, Ordering::Relaxed);
    }
}

impl Shared {
    fn send(&self, command: Command) {
        if let Err(error) = self.commands.try_send(command) {
            tracing::error!(%error, "output command dropped");
        }
        self.wake();
    }

    /// Waits for a place in the queue. The reader never blocks, so that there soon is one.
    fn send_surely(&self, command: Command) {
        // If it fails, there is no reader any more.
        let _ = self.commands.send(command);
        self.wake();
    }

    fn wake(&self) {
        // An eventfd takes 2^64 - 2 of these before the reader has to read.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }

    /// Waits for the threads, for a while. Lines that still wait then are lost.
    async fn ended(&self, timeout: Duration) {
        let mut ended = self.ended.lock().await;
        if tokio::time::timeout(timeout, ended.recv()).await.is_err() {
            let lines = self.queues.waiting();
            self.dropped.fetch_add(lines, Ordering::Relaxed);
            tracing::warn!(lines, "output blocked: the last lines are lost");
        }
    }
}

impl Queues {
    /// Lines that wait.
    fn waiting(&self) -> u64 {
        let Self { stdout, stderr, files } = self;
        let of_stderr = if Arc::ptr_eq(stdout, stderr) { 0 } else { stderr.lines() };
        stdout.lines() + of_stderr + files.lines()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // After `finish` the threads have ended.
        let _ = self.commands.try_send(Command::End);
        self.wake();
    }
}

/// What lines look like on standard output and on standard error.
fn styles(prefix: Prefix) -> [Style; 2] {
    // https://no-color.org
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let terminals = [io::stdout().is_terminal(), io::stderr().is_terminal()];
    terminals.map(|is_terminal| Style::new(prefix, is_terminal, no_color))
}

fn spawn(
    name: &str,
    running: &mpsc::Sender<()>,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let running = running.clone();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        run();
        drop(running);
    })?;
    Ok(())
}
