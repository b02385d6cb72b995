//! One file of lines: opened, written, rotated, reopened.
//!
//! After the start nothing here fails: what cannot be written is lost, counted, and tried again
//! with the next lines.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::protocol::ids::Timestamp;
use crate::supervisor::output::lines::count;
use crate::supervisor::output::settings::{OutputError, OutputSettings};
use crate::supervisor::output::sink::Sink;
use crate::system::place::Place;

/// The time from a failed rotation to the next attempt.
const ROTATE_AGAIN: Duration = Duration::from_secs(10);

/// When a file is rotated, and how many rotated ones stay: `out.log.1` is the newest of them. And how it
/// is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct FilePolicy {
    size: Option<u64>,
    interval: Option<Duration>,
    keep: u32,
    mode: u32,
    guarded: bool,
}

impl FilePolicy {
    pub(super) fn new(settings: &OutputSettings) -> Self {
        Self {
            size: settings.rotate_size,
            interval: settings.rotate_interval,
            keep: settings.rotate_keep,
            mode: settings.file_mode,
            guarded: settings.guarded,
        }
    }

    fn place(self, path: &Path) -> io::Result<Place> {
        if self.guarded { Place::guarded(path) } else { Place::new(path) }
    }
}

/// A file, and the lines that are to be written to it.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    policy: FilePolicy,
    sink: Sink,
    opened: Option<Opened>,
    pending: Vec<u8>,
    /// No rotation before, since one has failed.
    rotate_again: Option<Timestamp>,
}

#[derive(Debug)]
struct Opened {
    file: File,
    size: u64,
    /// When it is old enough to be put aside.
    due: Option<Timestamp>,
    /// Not a pipe or a device, that is.
    is_regular: bool,
}

impl LogFile {
    /// Opened when there is something to write.
    pub(super) fn new(path: PathBuf, policy: FilePolicy, dropped: Arc<AtomicU64>) -> Self {
        let sink = Sink::new(path.display().to_string(), dropped);
        Self { path, policy, sink, opened: None, pending: Vec::new(), rotate_again: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it now.
    pub(super) fn open(&mut self) -> Result<(), OutputError> {
        let opened = Opened::open(&self.path, self.policy);
        let path = || self.path.clone();
        self.opened = Some(opened.map_err(|source| OutputError::File { path: path(), source })?);
        Ok(())
    }

    /// Adds lines that the next [`Self::flush`] writes.
    pub(super) fn append(&mut self, lines: &[u8]) {
        self.pending.extend_from_slice(lines);
    }

    /// Writes what was added.
    pub(super) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if self.opened.take_if(|opened| opened.is_removed()).is_some() {
            tracing::warn!(path = %self.path.display(), "removed log file recreated");
        }
        if self.opened.is_none() {
            self.reopen();
        }
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        while !rest.is_empty() {
            let mut now = self.fitting(rest);
            if now == 0 {
                self.rotate();
                now = self.fitting(rest);
            }
            let (lines, behind) = rest.split_at(now);
            self.write(lines);
            rest = behind;
        }
        self.pending = pending;
        self.pending.clear();
    }

    /// Goes on with the file that has the name now, and creates it if there is none. If it cannot
    /// be opened, the old one stays.
    pub(super) fn reopen(&mut self) {
        match Opened::open(&self.path, self.policy) {
            Ok(opened) => self.replace(opened),
            Err(error) if self.opened.is_some() => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "log file not reopened: the old one stays");
            }
            Err(error) => self.sink.fails(&error, 0),
        }
    }

    fn replace(&mut self, opened: Opened) {
        self.opened = Some(opened);
        self.rotate_again = None;
        self.sink.restart();
    }

    fn write(&mut self, lines: &[u8]) {
        match &mut self.opened {
            Some(opened) => {
                let written = self.sink.write(opened.file.as_fd(), lines);
                opened.size += u64::try_from(written).unwrap_or(0);
            }
            // Why is known: opening it has failed.
            None => self.sink.fails(&ErrorKind::NotFound.into(), count(lines)),
        }
    }

    /// How many bytes of these lines the file still takes; none if it is to be rotated first. One
    /// line fits always, and all of them where the file cannot be rotated.
    fn fitting(&self, lines: &[u8]) -> usize {
        let Some(opened) = self.opened.as_ref().filter(|opened| opened.is_regular) else {
            return lines.len();
        };
        let now = Timestamp::now();
        if self.rotate_again.is_some_and(|again| now < again) {
            return lines.len();
        }
        if opened.size > 0 && opened.due.is_some_and(|due| due <= now) {
            return 0;
        }
        let Some(limit) = self.policy.size else { return lines.len() };
        let room = usize::try_from(limit.saturating_sub(opened.size)).unwrap_or(usize::MAX);
        let end = |byte: &u8| *byte == b'\n';
        match lines.get(..room).map(|fitting| fitting.iter().rposition(end)) {
            None => lines.len(),
            Some(Some(last)) => last + 1,
            Some(None) if opened.size > 0 => 0,
            Some(None) => lines.iter().position(end).map_or(lines.len(), |first| first + 1),
        }
    }

    fn rotate(&mut self) {
        let rotated = self.policy.place(&self.path).and_then(|place| {
            put_aside(&place, self.policy.keep)?;
            Opened::open_at(&place, self.policy)
        });
        match rotated {
            Ok(opened) => self.replace(opened),
            Err(error) => {
                if self.rotate_again.is_none() {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "log file cannot be rotated and grows");
                }
                self.rotate_again = Some(Timestamp::now() + ROTATE_AGAIN);
            }
        }
    }
}

impl Opened {
    fn open(path: &Path, policy: FilePolicy) -> io::Result<Self> {
        Self::open_at(&policy.place(path)?, policy)
    }

    fn open_at(place: &Place, policy: FilePolicy) -> io::Result<Self> {
        let file = place.append(policy.mode)?;
        let metadata = file.metadata()?;
        // The calendar is asked once: what happens to the clock later changes nothing.
        let born = metadata.created().or_else(|_| metadata.modified()).ok();
        let age = born.and_then(|born| born.elapsed().ok()).unwrap_or_default();
        let due = policy.interval.map(|interval| Timestamp::now() + interval.saturating_sub(age));
        Ok(Self { file, size: metadata.len(), due, is_regular: metadata.is_file() })
    }

    /// The file was removed: lines written to it are lost. A renamed file is not meant, since the
    /// renaming tool says when to reopen it.
    fn is_removed(&self) -> bool {
        self.is_regular && self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }
}

/// Gives the file a number, and those that have one the next; the last of them goes.
fn put_aside(place: &Place, keep: u32) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = place.name().to_owned();
        name.push(format!(".{number}"));
        name
    };
    if keep == 0 {
        return unless_missing(place.remove(place.name()));
    }
    // Only those in front of the first gap have to move.
    let used = (1..keep).take_while(|number| place.has(&numbered(*number))).last().unwrap_or(0);
    for number in (1..=used).rev() {
        unless_missing(place.rename(&numbered(number), &numbered(number + 1)))?;
    }
    unless_missing(place.rename(place.name(), &numbered(1)))
}

fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::Ordering;

    use super::*;

    /// A directory of its own, which is removed with it.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let name = format!("sticky-lb-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, size: Option<u64>, interval: Option<Duration>, keep: u32) -> LogFile {
            let policy = FilePolicy { size, interval, keep, mode: 0o640, guarded: false };
            LogFile::new(self.0.join("deep/out.log"), policy, Arc::default())
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.0.join("deep").join(name)).ok()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn say(file: &mut LogFile, lines: &str) {
        file.append(lines.as_bytes());
        file.flush();
    }

    #[test]
    fn it_is_rotated_between_lines_when_it_is_full() {
        let directory = Directory::new("size");
        let mut file = directory.file(Some(10), None, 2);
        say(&mut file, "one\ntwo\nthree\na very long line\nfour\n");
        say(&mut file, "five\n");
        assert_eq!(directory.read("out.log").unwrap(), "four\nfive\n");
        assert_eq!(directory.read("out.log.1").unwrap(), "a very long line\n");
        assert_eq!(directory.read("out.log.2").unwrap(), "three\n");
        assert_eq!(directory.read("out.log.3"), None);
        // Another writer goes on where this one ends.
        let mut file = directory.file(Some(10), None, 0);
        say(&mut file, "six\n");
        assert_eq!(directory.read("out.log").unwrap(), "six\n");
        assert_eq!(directory.read("out.log.1").unwrap(), "a very long line\n");
    }

    #[test]
    fn it_is_rotated_when_it_is_old_and_has_lines() {
        let directory = Directory::new("age");
        let mut file = directory.file(None, Some(Duration::from_secs(60)), 2);
        say(&mut file, "young\n");
        for line in ["old\n", "older\n"] {
            file.opened.as_mut().unwrap().due = Some(Timestamp(0));
            say(&mut file, line);
        }
        let read = |name| directory.read(name).unwrap();
        assert_eq!(
            [read("out.log"), read("out.log.1"), read("out.log.2")].concat(),
            "older\nold\nyoung\n"
        );
    }

    #[test]
    fn gaps_among_the_kept_are_filled() {
        let directory = Directory::new("gaps");
        let mut file = directory.file(Some(1), None, 5);
        say(&mut file, "a\nb\nc\nd\n");
        fs::remove_file(directory.0.join("deep/out.log.2")).unwrap();
        say(&mut file, "e\n");
        let names = ["out.log", "out.log.1", "out.log.2", "out.log.3", "out.log.4"];
        let read = names.map(|name| directory.read(name).unwrap_or_default());
        assert_eq!(read, ["e\n", "d\n", "c\n", "a\n", ""]);
    }

    #[test]
    fn it_follows_a_rename_when_told_and_a_removal_by_itself() {
        let directory = Directory::new("rename");
        let (path, renamed) = (directory.0.join("deep/out.log"), directory.0.join("deep/old"));
        let mut file = directory.file(None, None, 1);
        say(&mut file, "one\n");
        fs::rename(&path, &renamed).unwrap();
        say(&mut file, "two\n");
        file.reopen();
        say(&mut file, "three\n");
        assert_eq!(directory.read("old").unwrap(), "one\ntwo\n");
        assert_eq!(directory.read("out.log").unwrap(), "three\n");
        fs::remove_dir_all(directory.0.join("deep")).unwrap();
        say(&mut file, "four\n");
        assert_eq!(directory.read("out.log").unwrap(), "four\n");
    }

    #[test]
    fn lines_are_counted_while_it_cannot_be_opened() {
        let directory = Directory::new("blocked");
        let dropped = Arc::new(AtomicU64::new(0));
        let policy = FilePolicy::new(&OutputSettings::default());
        let path = directory.0.join("deep/out.log");
        fs::write(directory.0.join("deep"), "a file where a folder should be").unwrap();
        let mut file = LogFile::new(path, policy, Arc::clone(&dropped));
        assert!(file.open().is_err());
        say(&mut file, "one\ntwo\n");
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        fs::remove_file(directory.0.join("deep")).unwrap();
        say(&mut file, "three\n");
        assert_eq!(directory.read("out.log").unwrap(), "three\n");
    }

    #[test]
    fn a_rotation_that_fails_loses_no_line() {
        let directory = Directory::new("stuck");
        let mut file = directory.file(Some(4), None, 1);
        fs::create_dir_all(directory.0.join("deep/out.log.1/full")).unwrap();
        say(&mut file, "one\ntwo\n");
        say(&mut file, "three\n");
        assert_eq!(directory.read("out.log").unwrap(), "one\ntwo\nthree\n");
    }
}
