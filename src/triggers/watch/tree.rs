//! Watched files and folders, and what the kernel says of them. Decides which changes count; never
//! waits.
//!
//! Each folder is watched for itself, save those that are ignored. So are the folders on the way to
//! what is watched: that is how it is noticed when it is replaced, by a deploy that switches a
//! symlink or by an editor that renames.
//!
//! # Pitfalls
//!
//! * Symlinks inside a watched folder are not followed. That one of them is switched counts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::WatchError;
use super::ignored::Ignored;

/// The events of watched files; none of those that are unlinked already.
const CONTENT: WatchFlags =
    WAY.union(WatchFlags::MODIFY).union(WatchFlags::CLOSE_WRITE).union(WatchFlags::ATTRIB);

/// The events of the folders on the way: entries come and go.
const WAY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::EXCL_UNLINK)
    // One folder may be both.
    .union(WatchFlags::MASK_ADD);

/// What is found in a watched folder is not followed if it has become a link meanwhile.
const LINKED: WatchFlags = WatchFlags::DONT_FOLLOW.union(WatchFlags::ONLYDIR);

/// The largest number of links on a way, as the kernel's.
const MAX_LINKS: usize = 40;

const COMES: ReadFlags = ReadFlags::CREATE.union(ReadFlags::MOVED_TO);
const GOES: ReadFlags = ReadFlags::DELETE.union(ReadFlags::MOVED_FROM);

/// The watched paths with all that is in them.
#[derive(Debug)]
pub(super) struct Tree {
    inotify: OwnedFd,
    roots: Vec<PathBuf>,
    /// Those of the roots that were there at the start.
    present: Vec<PathBuf>,
    /// Files, folders and links that lead to a root by another name than its own: where a link on its way points
    /// to.
    ways: HashSet<PathBuf>,
    folders: HashMap<i32, PathBuf>,
    outdated: bool,
    /// It was logged that something is not watched.
    complained: bool,
}

struct Event {
    watch: i32,
    flags: ReadFlags,
    name: Option<OsString>,
}

impl Tree {
    /// Watches all that there is. A root that is missing is waited for.
    pub(super) fn watch(roots: &[PathBuf], ignored: &Ignored) -> Result<Self, WatchError> {
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        let inotify = inotify::init(flags).map_err(|errno| match errno {
            Errno::MFILE => too_many("max_user_instances"),
            errno => WatchError::Start(errno.into()),
        })?;
        let mut tree = Self {
            inotify,
            roots: roots.to_vec(),
            present: roots.iter().filter(|root| root.exists()).cloned().collect(),
            ways: HashSet::new(),
            folders: HashMap::new(),
            outdated: false,
            complained: false,
        };
        roots.iter().try_for_each(|root| tree.add_root(root, ignored))?;
        Ok(tree)
    }

    /// Whether folders came or went, so that watching has to start over.
    pub(super) fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Whether a root is gone that was there.
    pub(super) fn has_lost_a_root(&self) -> bool {
        self.present.iter().any(|root| !root.exists())
    }

    /// Reads some of what the kernel has to say; the paths that count. Folders that are new are watched from
    /// then on.
    pub(super) fn read(&mut self, ignored: &Ignored) -> io::Result<Vec<PathBuf>> {
        let events = self.events()?;
        Ok(events.iter().filter_map(|event| self.note(event, ignored)).collect())
    }

    fn events(&self) -> io::Result<Vec<Event>> {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => events.push(Event {
                    watch: event.wd(),
                    flags: event.events(),
                    name: event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).into()),
                }),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(events),
                Err(error) => return Err(error.into()),
            }
            if reader.is_buffer_empty() {
                return Ok(events);
            }
        }
    }

    /// The path of an event, if it counts.
    fn note(&mut self, event: &Event, ignored: &Ignored) -> Option<PathBuf> {
        if event.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            // Some event was missed, it is not known which.
            self.outdated = true;
            return self.roots.first().cloned();
        }
        if event.flags.contains(ReadFlags::IGNORED) {
            self.folders.remove(&event.watch);
            return None;
        }
        let folder = self.folders.get(&event.watch)?;
        let path = event.name.as_ref().map_or_else(|| folder.clone(), |name| folder.join(name));
        let comes = event.flags.intersects(COMES);
        let comes_or_goes = comes || event.flags.intersects(GOES);
        if comes_or_goes && self.leads_to_a_root(&path) {
            self.outdated = true;
            self.look_again(&path, ignored);
            return Some(path);
        }
        let mut roots = self.roots.iter().filter(|root| path.starts_with(root));
        roots.find(|root| !ignored.covers(root, &path))?;
        if comes_or_goes && event.flags.contains(ReadFlags::ISDIR) {
            self.outdated = true;
            if comes {
                self.add_later(path.clone(), ignored);
            }
        }
        (comes_or_goes || is_written(&path, event.flags)).then_some(path)
    }

    fn leads_to_a_root(&self, path: &Path) -> bool {
        self.ways.contains(path) || self.roots.iter().any(|root| root.starts_with(path))
    }

    /// The roots that are reached through a path may be there again, or be others.
    fn look_again(&mut self, path: &Path, ignored: &Ignored) {
        let is_other_name = self.ways.contains(path);
        let roots = self.roots.clone();
        for root in roots.into_iter().filter(|root| is_other_name || root.starts_with(path)) {
            let added = self.add_root(&root, ignored);
            self.complain(added);
        }
    }

    fn add_later(&mut self, folder: PathBuf, ignored: &Ignored) {
        let added = self.add_below(folder, LINKED, ignored);
        self.complain(added);
    }

    /// Once: who writes to a watched folder could fill the log with folders that come.
    fn complain(&mut self, added: Result<(), WatchError>) {
        if let Err(error) = added
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::error!(%error, "not all files are watched any more");
        }
    }

    fn add_root(&mut self, root: &Path, ignored: &Ignored) -> Result<(), WatchError> {
        for name in followed(root) {
            if let Some(folder) = name.parent() {
                self.add(folder, WAY)?;
            }
            self.ways.insert(name);
        }
        // Last, so that a folder that both ways lead through has the name that people know.
        let way: Vec<&Path> = root.ancestors().skip(1).collect();
        for folder in way.into_iter().rev() {
            self.add(folder, WAY)?;
        }
        self.add_below(root.to_owned(), WatchFlags::empty(), ignored)
    }

    /// A file, or a folder with all that is in it. `flags` are for the top.
    fn add_below(
        &mut self,
        top: PathBuf,
        flags: WatchFlags,
        ignored: &Ignored,
    ) -> Result<(), WatchError> {
        let mut found = vec![(top, flags)];
        while let Some((path, flags)) = found.pop() {
            // Watched first and read then, so that nothing comes in between.
            self.add(&path, CONTENT | flags)?;
            // A path that is no folder, or no longer there, has nothing in it.
            let Ok(entries) = fs::read_dir(&path) else { continue };
            let folders = entries.flatten().filter(|it| it.file_type().is_ok_and(|it| it.is_dir()));
            let counts = |path: &PathBuf| {
                self.roots.iter().any(|root| path.starts_with(root) && !ignored.covers(root, path))
            };
            let folders = folders.map(|folder| folder.path()).filter(counts);
            found.extend(folders.map(|folder| (folder, LINKED)));
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, flags: WatchFlags) -> Result<(), WatchError> {
        match inotify::add_watch(&self.inotify, path, flags) {
            Ok(watch) => {
                self.folders.insert(watch, path.to_owned());
                Ok(())
            }
            // Gone again.
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(Errno::ACCESS) => {
                tracing::debug!(path = %path.display(), "not allowed to watch");
                Ok(())
            }
            Err(Errno::NOSPC) => Err(too_many("max_user_watches")),
            Err(errno) => Err(WatchError::Io { path: path.to_owned(), source: errno.into() }),
        }
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// The names that the kernel goes through behind the first link on the way to a path.
fn followed(path: &Path) -> Vec<PathBuf> {
    let (mut here, mut rest) = (PathBuf::new(), names(path));
    let (mut found, mut links) = (Vec::new(), 0);
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(name);
        if links > 0 {
            found.push(next.clone());
        }
        match fs::read_link(&next) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                if target.is_absolute() {
                    here.clear();
                }
                let mut targets = names(&target);
                targets.append(&mut rest);
                rest = targets;
            }
            _ => here = next,
        }
    }
    found
}

/// The parts of a path, the root among them.
fn names(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter(|it| *it != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

/// Whether a file has other content, or was touched.
fn is_written(path: &Path, flags: ReadFlags) -> bool {
    let touched = || {
        let is_file = !flags.contains(ReadFlags::ISDIR);
        is_file && fs::metadata(path).is_ok_and(|metadata| is_touched(&metadata))
    };
    flags.intersects(ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE)
        || flags.contains(ReadFlags::ATTRIB) && touched()
}

/// Both times are the same when `touch` has set them; another owner or mode changes only one.
fn is_touched(metadata: &fs::Metadata) -> bool {
    (metadata.mtime(), metadata.mtime_nsec()) == (metadata.ctime(), metadata.ctime_nsec())
}

fn too_many(limit: &'static str) -> WatchError {
    let allowed = fs::read_to_string(Path::new("/proc/sys/fs/inotify").join(limit));
    let allowed = allowed.map_or_else(|_| "too low".to_owned(), |text| text.trim().to_owned());
    WatchError::TooMany { limit, allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_counts_as_a_change() {
        let roots = [PathBuf::from("/proc/self")];
        let ignored = Ignored::new(&["*".to_owned()]).unwrap();
        let mut tree = Tree::watch(&roots, &ignored).unwrap();
        assert!(!tree.is_outdated());
        let overflow = Event { watch: -1, flags: ReadFlags::QUEUE_OVERFLOW, name: None };
        assert_eq!(tree.note(&overflow, &ignored).as_ref(), roots.first());
        assert!(tree.is_outdated(), "folders may have come that are not watched");
    }
}
