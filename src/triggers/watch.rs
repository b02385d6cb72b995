//! A change of a file that is worth a rolling restart.
//!
//! A thread waits for what the kernel says of the watched files, and for quiet after a change. Knows
//! nothing of what is done about it.
//!
//! # Promises
//!
//! * Changes between two calls of [`Watcher::changed`] are reported by the next one, once.
//! * A change is told at the latest ten times [`WatchSettings::delay`] after it, even if there is no
//!   quiet.
//! * Reading, opening to read, and changes of owner or mode don't count; `touch` does.
//! * Files that this process itself writes don't count, whatever their names.
//!
//! Uses inotify itself: the usual library also asks to be told of every file that is opened, so
//! that workers that serve files would cost the primary a wake-up for each.

use std::io::{self, PipeReader, PipeWriter};
use std::path::{self, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::time::Instant;

mod ignored;
mod own;
pub mod pace;
mod tree;

use ignored::Ignored;
use own::OwnFiles;
use tree::Tree;

/// The changes that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSettings {
    /// Files, and folders with all that is in them.
    pub paths: Vec<PathBuf>,
    /// Names and patterns of what doesn't count. Without a slash it is a name at any depth:
    /// `node_modules`, `*.log`. With one it is a path from the watched folder on, or an absolute one:
    /// `public/uploads`, `**/cache/*.tmp`. Whatever is below counts no more than it does.
    pub ignore: Vec<String>,
    /// Files that this process writes: neither they count nor their rotated ones. Those that it has open for
    /// writing when it begins to watch are known without this.
    pub own: Vec<PathBuf>,
    /// The time without a change before a restart.
    pub delay: Duration,
}

/// The defaults: hidden files, the folders that package managers install and
/// compilers build, and what editors leave behind for a moment.
pub const IGNORED_BY_DEFAULT: [&str; 6] = [".*", "node_modules", "target", "*~", "#*#", "4913"];

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The kernel refuses to watch one of them.
    #[error("cannot watch {}", path.display())]
    Io {
        /// The path to watch.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// There is nothing like that.
    #[error("cannot watch {}: it doesn't exist", .0.display())]
    Missing(PathBuf),
    /// A pattern is none.
    #[error("pattern {pattern:?} of what to ignore: {problem}")]
    Pattern {
        /// The text.
        pattern: String,
        /// The reason.
        problem: String,
    },
    /// The kernel refuses to watch anything.
    #[error("cannot watch files")]
    Start(#[source] io::Error),
    /// So much is watched already, by all programs of this user.
    #[error(
        "cannot watch files: fs.inotify.{limit} is {allowed}, and this user's programs use them up; \
         raise it (sysctl fs.inotify.{limit}=…), or watch less, or ignore large folders"
    )]
    TooMany {
        /// The name of the limit.
        limit: &'static str,
        /// How many it allows.
        allowed: String,
    },
}

/// Refuses patterns of what to ignore that are none.
///
/// # Errors
///
/// With the first wrong one.
pub fn check_patterns(patterns: &[String]) -> Result<(), WatchError> {
    Ignored::new(patterns).map(drop)
}

/// Watches files until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    /// One change at most waits here. While it does, another one has nothing to add.
    changes: mpsc::Receiver<PathBuf>,
    /// The thread ends when this is dropped.
    _stop: PipeWriter,
}

impl Watcher {
    /// Begins to watch. All that changes from now on is told.
    ///
    /// # Errors
    ///
    /// If something that is to be watched doesn't exist or cannot be watched, or if a pattern is
    /// wrong.
    pub fn start(settings: WatchSettings) -> Result<Self, WatchError> {
        let ignored = Ignored::new(&settings.ignore)?;
        let absolute = |path: &PathBuf| {
            let failed = |source| WatchError::Io { path: path.clone(), source };
            path::absolute(path).map_err(failed)
        };
        let roots: Vec<PathBuf> = settings.paths.iter().map(absolute).collect::<Result<_, _>>()?;
        if let Some(missing) = roots.iter().find(|root| !root.exists()) {
            return Err(WatchError::Missing(missing.clone()));
        }
        let own = OwnFiles::find(&settings.own);
        let tree = Tree::watch(&roots, &ignored)?;
        let (told, changes) = mpsc::channel(1);
        let (stopped, stop) = io::pipe().map_err(WatchError::Start)?;
        let thread = Thread { tree, roots, ignored, own, delay: settings.delay, stopped, told };
        let named = thread::Builder::new().name("watch".to_owned());
        named.spawn(move || thread.run()).map_err(WatchError::Start)?;
        Ok(Self { changes, _stop: stop })
    }

    /// Returns one of the paths that changed, after a change that counts and the quiet that follows
    /// it. May be dropped and called again without missing anything.
    pub async fn changed(&mut self) -> PathBuf {
        match self.changes.recv().await {
            Some(path) => path,
            // The thread has failed and has said so.
            None => std::future::pending().await,
        }
    }

    /// Forgets a change that waits: what is about to be done is done for it as well.
    pub fn skip(&mut self) {
        // An error says that there is none.
        let _ = self.changes.try_recv();
    }
}

/// The watching thread: walking through folders takes time.
struct Thread {
    tree: Tree,
    roots: Vec<PathBuf>,
    ignored: Ignored,
    own: OwnFiles,
    delay: Duration,
    stopped: PipeReader,
    told: mpsc::Sender<PathBuf>,
}

/// How a wait ended.
enum Woken {
    Change(PathBuf),
    Quiet,
    Stopped,
}

impl Thread {
    fn run(mut self) {
        while let Some(path) = self.next_burst().unwrap_or_else(|error| {
            tracing::error!(%error, "files are no longer watched");
            None
        }) {
            self.renew();
            // A receiver that has not taken the last one yet restarts once for both.
            let _ = self.told.try_send(path);
        }
    }

    /// Waits for a change and for the quiet after it. There is no quiet while something that was
    /// there is gone: a deploy is about to put it back.
    fn next_burst(&mut self) -> io::Result<Option<PathBuf>> {
        let Woken::Change(path) = self.wait(None)? else { return Ok(None) };
        let mut burst = Burst::begin(Instant::now(), self.delay);
        let mut until = burst.quiet();
        loop {
            match self.wait(Some(until))? {
                Woken::Change(_) => {
                    burst.last = Instant::now();
                    until = burst.quiet();
                }
                Woken::Quiet if until < burst.limit() && self.tree.has_lost_a_root() => {
                    until = burst.limit();
                }
                Woken::Quiet => return Ok(Some(path)),
                Woken::Stopped => return Ok(None),
            }
        }
    }

    /// Changes that don't count don't end it.
    fn wait(&mut self, until: Option<Instant>) -> io::Result<Woken> {
        loop {
            let timeout = match until.map(|until| until.checked_duration_since(Instant::now())) {
                None => None,
                Some(Some(left)) if !left.is_zero() => Some(left),
                Some(_) => return Ok(Woken::Quiet),
            };
            let [stopped, changed] = self.poll(timeout)?;
            if stopped {
                return Ok(Woken::Stopped);
            }
            let paths = if changed { self.tree.read(&self.ignored)? } else { Vec::new() };
            if let Some(path) = paths.into_iter().find(|path| !self.own.cover(path)) {
                return Ok(Woken::Change(path));
            }
        }
    }

    fn poll(&self, timeout: Option<Duration>) -> io::Result<[bool; 2]> {
        let mut sources =
            [PollFd::new(&self.stopped, PollFlags::IN), PollFd::new(&self.tree, PollFlags::IN)];
        let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut sources, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(sources.map(|source| !source.revents().is_empty())),
            Err(error) => Err(error.into()),
        }
    }

    /// After folders came or went: watches what there is now, and nothing else. What changed before
    /// is told anyway.
    fn renew(&mut self) {
        if !self.tree.is_outdated() {
            return;
        }
        for root in self.roots.iter().filter(|root| !root.exists()) {
            tracing::warn!(path = %root.display(), "watched path is gone; waiting for its return");
        }
        match Tree::watch(&self.roots, &self.ignored) {
            Ok(tree) => self.tree = tree,
            Err(error) => tracing::error!(%error, "not all files are watched any more"),
        }
    }
}

/// Changes that follow each other closely.
struct Burst {
    first: Instant,
    last: Instant,
    delay: Duration,
}

impl Burst {
    fn begin(now: Instant, delay: Duration) -> Self {
        Self { first: now, last: now, delay }
    }

    /// When it will have been quiet for long enough.
    fn quiet(&self) -> Instant {
        (self.last + self.delay).min(self.limit())
    }

    /// When it is told, quiet or not.
    fn limit(&self) -> Instant {
        self.first + self.delay * 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_ends_with_quiet_or_after_ten_delays() {
        let start = Instant::now();
        let delay = Duration::from_millis(100);
        let after = |millis| start + Duration::from_millis(millis);
        for (last, end) in [(0, 100), (70, 170), (900, 1_000), (950, 1_000)] {
            let burst = Burst { last: after(last), ..Burst::begin(start, delay) };
            assert_eq!(burst.quiet(), after(end), "last change after {last} ms");
        }
    }
}
