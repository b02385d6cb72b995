//! What workers print: taken line by line, and written to where it is wanted.
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
//! * `\r\n` becomes `\n`. Anything else passes in text as it is, invalid UTF-8 too; in JSON that is
//!   replaced.
//! * The last line of a worker gets an end if it has none.
//! * A pipe that somebody keeps open, whom a worker has started, is closed when the worker is gone
//!   and nothing has come through it for 5 s.

use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::{Mutex, mpsc};

use crate::link::seam::WorkerId;

mod console;
mod date;
mod files;
mod lines;
mod log_file;
mod queue;
mod reader;
mod render;
mod sink;
mod snapshot;
mod tail;

pub use lines::Stream;
pub use snapshot::{OutputHandover, PipeHandover, PipeState};
pub use tail::{Follower, LineFilter, Printed, PrintedLine, Recent};

use console::{Console, Style};
use files::Files;
use queue::Queue;
use reader::{Command, Passage, Reader};
use tail::Tail;

/// Commands that may wait for the reader. It waits for nobody, so that they are never that many;
/// what comes beyond is not done, and an error in the log.
const COMMANDS: usize = 1024;
/// How long the end waits for those who read or store what workers printed.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Where workers' lines go, and how they look there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSettings {
    /// The app's name, in file names and JSON.
    pub name: String,
    /// When lines on standard output and standard error are preceded by their slot: `3 | `.
    pub prefix: Prefix,
    /// A file for standard output, one for all workers or one for each.
    pub out_file: Option<PathBuf>,
    /// A file for standard error.
    pub error_file: Option<PathBuf>,
    /// A file for both.
    pub log_file: Option<PathBuf>,
    /// Workers share a file; else each has its own, with its slot in the name.
    pub merge_logs: bool,
    /// What lines in files look like.
    pub format: LogFormat,
    /// How times are written before lines in files: strftime, or day.js tokens as PM2 takes them.
    pub date_format: Option<String>,
    /// A file of so many bytes is rotated.
    pub rotate_size: Option<u64>,
    /// A file of that age is rotated.
    pub rotate_interval: Option<Duration>,
    /// Rotated files that are kept.
    pub rotate_keep: u32,
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self {
            name: "app".to_owned(),
            prefix: Prefix::Auto,
            out_file: None,
            error_file: None,
            log_file: None,
            merge_logs: false,
            format: LogFormat::Text,
            date_format: None,
            rotate_size: None,
            rotate_interval: None,
            rotate_keep: 10,
        }
    }
}

/// When lines on standard output and standard error are preceded by their slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// Where it is a terminal.
    Auto,
    /// Always; in colour where it is a terminal.
    Always,
    /// Never.
    Never,
}

/// What lines in files look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// As the worker wrote them.
    Text,
    /// JSON objects with PM2's keys.
    Json,
}

/// Why output cannot go where it is wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// There is no such format.
    #[error("date format {format:?} is wrong: {reason}")]
    DateFormat {
        /// What was written.
        format: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be opened.
    #[error("cannot open log file {path:?}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses a thread or a descriptor.
    #[error("cannot take what workers print")]
    Start(#[from] io::Error),
}

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
    /// Closed when the threads have ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Output {
    /// Opens the files and starts the threads.
    ///
    /// # Errors
    ///
    /// If a file cannot be opened, the date format is wrong, or the kernel refuses something.
    pub fn start(settings: OutputSettings) -> Result<Self, OutputError> {
        let [out, err] = styles(settings.prefix);
        let dropped = Arc::new(AtomicU64::new(0));
        let stdout = Console::new(Stream::Out, out, Arc::clone(&dropped))?;
        let stderr = Console::new(Stream::Err, err, Arc::clone(&dropped))?;
        let is_shared = console::is_shared();
        let files = Files::open(settings, Arc::clone(&dropped))?;

        let (for_stdout, for_files) = (Queue::new(), Queue::new());
        let for_stderr = if is_shared { Arc::clone(&for_stdout) } else { Queue::new() };
        let tail = Arc::<Tail>::default();
        let passage = Passage {
            stdout: Arc::clone(&for_stdout),
            stderr: Arc::clone(&for_stderr),
            files: Arc::clone(&for_files),
            wanted: files.are_wanted(),
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
        Ok(Self { shared: Arc::new(Shared { commands, wake, dropped, tail, ended }) })
    }

    /// Takes what a new worker prints, from the read ends of its pipes.
    pub fn take(&self, worker: WorkerId, pid: i32, stdout: OwnedFd, stderr: OwnedFd) {
        self.shared.send(Command::Take { worker, pid, stdout, stderr });
    }

    /// Opens all files anew, after somebody has renamed them.
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

    /// The last `count` lines that `filter` takes, as far as they are kept, and what follows them.
    /// Whoever follows may live on any runtime; workers and files wait for nobody who does.
    #[must_use]
    pub fn recent(&self, filter: LineFilter, count: usize) -> Recent {
        self.shared.tail.recent(filter, count)
    }

    /// Writes what there is, and ends. After 2 s it gives up: a thread that is stopped by what it
    /// writes to is left to the end of the process.
    pub async fn finish(self) {
        self.shared.send(Command::End);
        self.shared.ended().await;
    }

    fn count_dropped(&self, lines: u64) {
        self.shared.dropped.fetch_add(lines, Ordering::Relaxed);
    }
}

impl Shared {
    fn send(&self, command: Command) {
        if let Err(error) = self.commands.try_send(command) {
            tracing::error!(%error, "output does not follow");
        }
        self.wake();
    }

    /// Waits for a place in the queue. The reader waits for nobody, so that there soon is one.
    fn send_surely(&self, command: Command) {
        // If it fails, there is no reader any more.
        let _ = self.commands.send(command);
        self.wake();
    }

    fn wake(&self) {
        // An eventfd takes 2^64 - 2 of these before the reader has to read.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }

    /// Waits for the threads, for a while.
    async fn ended(&self) {
        let mut ended = self.ended.lock().await;
        if tokio::time::timeout(TIMEOUT, ended.recv()).await.is_err() {
            tracing::warn!("output is not taken: some lines are lost at the end");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // After `finish` there is nobody any more.
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
