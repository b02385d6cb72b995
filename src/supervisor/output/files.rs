//! The files that lines go to, and the thread that writes them.
//!
//! The one writer of all files: nothing else opens, writes or rotates them while it runs. A disk may
//! block it; nothing waits for it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::protocol::ids::SlotId;
use crate::supervisor::output::console;
use crate::supervisor::output::lines::{Chunk, Stream};
use crate::supervisor::output::log_file::{FilePolicy, LogFile};
use crate::supervisor::output::queue::{Item, Queue};
use crate::supervisor::output::render::Renderer;
use crate::supervisor::output::settings::{OutputError, OutputSettings};

/// A command between lines.
#[derive(Debug)]
pub(super) enum FilesOrder {
    /// Reopen all files: they were renamed.
    Reopen,
    /// Go on with these.
    Change(Box<Files>),
}

/// All files that are open.
#[derive(Debug)]
pub(super) struct Files {
    settings: OutputSettings,
    renderer: Renderer,
    files: Vec<LogFile>,
    /// Where each slot's streams go, as indices of `files`.
    routes: HashMap<(SlotId, Stream), Vec<usize>>,
    dropped: Arc<AtomicU64>,
}

impl Files {
    /// Opens the files that are for all workers, or else those of slot 0, so that a wrong path is
    /// noticed at once.
    pub(super) fn open(
        settings: OutputSettings,
        dropped: Arc<AtomicU64>,
    ) -> Result<Self, OutputError> {
        let mut files = Self::new(settings, dropped)?;
        files.open_first().map_or(Ok(files), Err)
    }

    /// With none of them open.
    pub(super) fn new(
        settings: OutputSettings,
        dropped: Arc<AtomicU64>,
    ) -> Result<Self, OutputError> {
        let renderer = Renderer::new(&settings)?;
        let (files, routes) = (Vec::new(), HashMap::new());
        Ok(Self { settings, renderer, files, routes, dropped })
    }

    /// Opens those that [`Self::open`] does. Returns the first error; that file is tried again with the next
    /// lines.
    pub(super) fn open_first(&mut self) -> Option<OutputError> {
        let mut failed = None;
        for stream in [Stream::Out, Stream::Err] {
            for file in self.route(SlotId(0), stream).to_vec() {
                let error = self.files[file].open().err();
                failed = failed.or(error);
            }
        }
        failed
    }

    /// Whether lines go to any file.
    pub(super) fn are_wanted(&self) -> bool {
        let OutputSettings { out_file, error_file, log_file, .. } = &self.settings;
        out_file.is_some() || error_file.is_some() || log_file.is_some()
    }

    /// Whether lines of standard output, and those of standard error, go there as to a file, in the format of
    /// files.
    pub(super) fn taken_over(&self) -> [bool; 2] {
        [Stream::Out, Stream::Err].map(|stream| {
            let paths = paths(&self.settings, SlotId(0), stream);
            !self.settings.is_plain() && paths.iter().any(|path| console::is_at(path, stream))
        })
    }

    /// Writes until the queue is closed.
    pub(super) fn write(mut self, queue: &Queue<FilesOrder>) {
        let mut batch = Vec::new();
        while queue.take(&mut batch) {
            for item in batch.drain(..) {
                match item {
                    Item::Lines(chunk) => self.append(&chunk),
                    Item::Order(FilesOrder::Reopen) => {
                        self.flush();
                        self.files.iter_mut().for_each(LogFile::reopen);
                    }
                    Item::Order(FilesOrder::Change(files)) => {
                        self.flush();
                        self = *files;
                    }
                }
            }
            self.flush();
            say_drops(queue);
        }
        say_drops(queue);
    }

    fn append(&mut self, chunk: &Chunk) {
        let origin = chunk.origin;
        self.route(origin.worker.slot, origin.stream);
        let lines = self.renderer.render(chunk);
        for file in self.routes.get(&(origin.worker.slot, origin.stream)).into_iter().flatten() {
            self.files[*file].append(lines);
        }
    }

    fn flush(&mut self) {
        self.files.iter_mut().for_each(LogFile::flush);
    }

    fn route(&mut self, slot: SlotId, stream: Stream) -> &[usize] {
        let Self { settings, files, routes, dropped, .. } = self;
        routes.entry((slot, stream)).or_insert_with(|| {
            let mut route = Vec::new();
            for path in paths(settings, slot, stream) {
                // Its lines are there already.
                if settings.is_plain() && console::is_at(&path, stream) {
                    continue;
                }
                let known = files.iter().position(|file| file.path() == path);
                let index = known.unwrap_or_else(|| {
                    files.push(LogFile::new(path, FilePolicy::new(settings), Arc::clone(dropped)));
                    files.len() - 1
                });
                // The same file may have been named twice.
                if !route.contains(&index) {
                    route.push(index);
                }
            }
            route
        })
    }
}

fn say_drops(queue: &Queue<FilesOrder>) {
    if let Some(lines) = queue.drops_to_say() {
        tracing::warn!(lines, "lines dropped: log files are not written fast enough");
    }
}

fn paths(settings: &OutputSettings, slot: SlotId, stream: Stream) -> Vec<PathBuf> {
    let own = match stream {
        Stream::Out => &settings.out_file,
        Stream::Err => &settings.error_file,
    };
    let named = [own, &settings.log_file].into_iter().flatten();
    named.map(|path| if settings.merge_logs { path.clone() } else { of_slot(path, slot) }).collect()
}

/// `out.log` becomes `out-3.log`, as in PM2. Devices are for all.
fn of_slot(path: &Path, slot: SlotId) -> PathBuf {
    if path.starts_with("/dev") || path.starts_with("/proc/self/fd") {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{slot}"));
    if let Some(extension) = path.extension() {
        name.push(OsString::from("."));
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_stands_before_the_extension() {
        for (path, expected) in [
            ("out.log", "out-3.log"),
            ("logs/app.out.log", "logs/app.out-3.log"),
            ("/var/log/out", "/var/log/out-3"),
            (".hidden", ".hidden-3"),
            ("/dev/null", "/dev/null"),
            ("/proc/self/fd/1", "/proc/self/fd/1"),
        ] {
            assert_eq!(of_slot(Path::new(path), SlotId(3)), Path::new(expected));
        }
    }

    #[test]
    fn lines_go_to_their_own_file_and_the_common_one() {
        let mut settings = OutputSettings {
            out_file: Some("out.log".into()),
            log_file: Some("all.log".into()),
            ..OutputSettings::default()
        };
        let names = |settings: &OutputSettings, stream| {
            let paths = paths(settings, SlotId(1), stream);
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&settings, Stream::Out), ["out-1.log", "all-1.log"]);
        assert_eq!(names(&settings, Stream::Err), ["all-1.log"]);
        settings.merge_logs = true;
        assert_eq!(names(&settings, Stream::Out), ["out.log", "all.log"]);
    }

    #[test]
    fn a_file_that_is_named_twice_is_opened_once() {
        let settings = OutputSettings {
            out_file: Some("/dev/null".into()),
            error_file: Some("/dev/null".into()),
            log_file: Some("/dev/null".into()),
            ..OutputSettings::default()
        };
        let files = Files::open(settings, Arc::new(AtomicU64::new(0))).unwrap();
        assert_eq!(files.files.len(), 1);
    }
}
