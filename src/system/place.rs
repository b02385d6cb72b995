//! The place of a file: its folder, held by a descriptor, and its name there.
//!
//! A path is a row of names, and a user who may write to a folder may exchange a name in it, for a link as
//! well. A privileged process that opens such a path writes where others choose. [`Place::guarded`]
//! goes from name to name without letting the kernel follow links, and refuses whatever someone else
//! than root and this process's user could exchange. Never looks at what is in a file.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{self, Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fstat, fstatfs, mkdirat, openat,
    readlinkat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

/// The largest number of links on a way, as the kernel's.
const MAX_LINKS: usize = 40;

/// The mode of a folder that is created, less the process's mask.
const FOLDER_MODE: u32 = 0o755;

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A path that others could lead elsewhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unsafe {
    /// Others may exchange what is in a folder.
    #[error(
        "{} can be changed by {who}, who could put a link there to any file: choose a place in a \
         folder that root alone may change, with all folders above it",
        path.display()
    )]
    Folder {
        /// The folder, or the link.
        path: PathBuf,
        /// By whom.
        who: String,
    },
    /// Somebody may change a file, a folder on its way or a link there, and so what is read from it.
    #[error("{path} can be changed by {who}: run `chown root {path}` and `chmod go-w {path}`", path = path.display())]
    Changeable {
        /// The file, the folder or the link.
        path: PathBuf,
        /// By whom.
        who: String,
    },
    /// Others have put the file there, or know it by another name.
    #[error("{} {why}: remove it, or choose another", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
}

impl From<Unsafe> for io::Error {
    fn from(error: Unsafe) -> Self {
        Self::new(ErrorKind::PermissionDenied, error)
    }
}

/// A file's folder and name. The file need not exist.
#[derive(Debug)]
pub struct Place {
    folder: OwnedFd,
    name: OsString,
    path: PathBuf,
    links: Links,
}

/// What is done about a link that has the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    /// It is followed: nobody gains by it.
    Follow,
    /// It was followed already, and there is none where it leads.
    Refuse,
    /// It is one of the kernel's own, `/proc/self/fd/1`, and followed.
    Kernel,
}

impl Place {
    /// The place that the kernel finds, with folders created that are missing.
    ///
    /// # Errors
    ///
    /// The kernel's, and for a path without a file's name.
    pub fn new(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(ErrorKind::IsADirectory)?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(parent)?;
        let folder = openat(CWD, parent, FOLDER, Mode::empty())?;
        Ok(Self { folder, name, path: path.to_owned(), links: Links::Follow })
    }

    /// As [`Self::new`], of a file that is to be written. Folders that are created belong to this
    /// process's user.
    ///
    /// # Errors
    ///
    /// Also if someone else than root and this process's user could lead the path elsewhere, or put
    /// something into the folder.
    pub fn guarded(path: &Path) -> io::Result<Self> {
        let place = Walk::new(path, Trust::Own, true)?.place()?;
        // In a folder as /tmp, names belong to those who take them first.
        if place.links != Links::Kernel {
            let folder = place.path.parent().unwrap_or(&place.path);
            Trust::Own.check_mode(folder, &fstat(&place.folder)?)?;
        }
        Ok(place)
    }

    /// Opens a file for reading. As [`Self::guarded`], but folders such as /tmp are allowed: whose file it is has
    /// to be looked at.
    ///
    /// # Errors
    ///
    /// The kernel's, and if it is not safe.
    pub fn open_guarded(path: &Path) -> io::Result<File> {
        Walk::new(path, Trust::Own, false)?.place()?.open(OFlags::RDONLY, 0)
    }

    /// Fails if this user, who has these groups, could change the file or lead its path elsewhere.
    ///
    /// # Errors
    ///
    /// Also the kernel's.
    pub fn check_unchangeable(path: &Path, uid: u32, groups: &[u32]) -> io::Result<()> {
        let trust = Trust::AllBut(uid, groups);
        let place = Walk::new(path, trust, false)?.place()?;
        if place.links == Links::Kernel {
            return Ok(());
        }
        let found = statat(&place.folder, &place.name, AtFlags::SYMLINK_NOFOLLOW)?;
        if trust.is_owner(&found) && !trust.is_writable(&found) {
            return Ok(());
        }
        let who = if trust.is_owner(&found) { trust.writer(&found) } else { format!("user {uid}") };
        Err(Unsafe::Changeable { path: place.path, who }.into())
    }

    /// Opens the file to append, and creates it with this mode, less the process's mask.
    ///
    /// # Errors
    ///
    /// The kernel's, and in a guarded place if others own the file or know it by another name.
    pub fn append(&self, mode: u32) -> io::Result<File> {
        let file = self.open(OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE, mode)?;
        if self.links == Links::Refuse {
            let found = fstat(&file)?;
            if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile {
                check_owner(&self.path, &found)?;
                check_names(&self.path, &found)?;
            }
        }
        Ok(file)
    }

    /// Renames a file of this folder; neither name is followed.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.folder, from, &self.folder, to)?)
    }

    /// Removes a file of this folder.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.folder, name, AtFlags::empty())?)
    }

    /// Whether something in this folder has this name.
    #[must_use]
    pub fn has(&self, name: &OsStr) -> bool {
        statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The file's name in its folder.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// A named pipe without a reader is an error instead of a wait.
    fn open(&self, flags: OFlags, mode: u32) -> io::Result<File> {
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let follow = if self.links == Links::Refuse { OFlags::NOFOLLOW } else { OFlags::empty() };
        let mode = Mode::from_raw_mode(mode);
        Ok(openat(&self.folder, &self.name, flags | follow, mode)?.into())
    }
}

/// Whose folders and links a way may lead through.
#[derive(Clone, Copy, Debug)]
enum Trust<'a> {
    /// Root's and this process's user's.
    Own,
    /// All but this user's, who has these groups.
    AllBut(u32, &'a [u32]),
}

impl Trust<'_> {
    fn is_owner(self, found: &Stat) -> bool {
        match self {
            Self::Own => found.st_uid == 0 || found.st_uid == geteuid().as_raw(),
            Self::AllBut(uid, _) => found.st_uid != uid,
        }
    }

    /// Whether its mode lets others write than those who are trusted.
    fn is_writable(self, found: &Stat) -> bool {
        let groups = match self {
            Self::Own => &[found.st_gid],
            Self::AllBut(_, groups) => groups,
        };
        let by_group = found.st_mode & 0o020 != 0 && groups.contains(&found.st_gid);
        found.st_mode & 0o002 != 0 || by_group
    }

    /// In a sticky folder nobody renames or removes what belongs to others.
    fn check_folder(self, path: &Path, found: &Stat) -> Result<(), Unsafe> {
        self.check_owner(path, found)?;
        let is_sticky = found.st_mode & 0o1000 != 0;
        if is_sticky { Ok(()) } else { self.check_mode(path, found) }
    }

    /// Of a folder or a link.
    fn check_owner(self, path: &Path, found: &Stat) -> Result<(), Unsafe> {
        if self.is_owner(found) {
            return Ok(());
        }
        Err(self.unsafe_folder(path, format!("user {}", found.st_uid)))
    }

    fn check_mode(self, path: &Path, found: &Stat) -> Result<(), Unsafe> {
        if self.is_writable(found) {
            return Err(self.unsafe_folder(path, self.writer(found)));
        }
        Ok(())
    }

    /// Those who may write by its mode, beside its owner.
    fn writer(self, found: &Stat) -> String {
        if found.st_mode & 0o002 != 0 {
            return "all users".to_owned();
        }
        match self {
            Self::AllBut(uid, _) => format!("user {uid}, of group {}", found.st_gid),
            Self::Own => format!("group {}", found.st_gid),
        }
    }

    fn unsafe_folder(self, path: &Path, who: String) -> Unsafe {
        let path = path.to_owned();
        match self {
            Self::Own => Unsafe::Folder { path, who },
            Self::AllBut(..) => Unsafe::Changeable { path, who },
        }
    }
}

/// A way from the root to a file, name by name.
struct Walk<'a> {
    trust: Trust<'a>,
    folder: OwnedFd,
    /// The folder's path without links, for messages.
    path: PathBuf,
    rest: VecDeque<OsString>,
    links: usize,
    creates: bool,
}

impl<'a> Walk<'a> {
    fn new(path: &Path, trust: Trust<'a>, creates: bool) -> io::Result<Self> {
        let path = path::absolute(path)?;
        path.file_name().ok_or(ErrorKind::IsADirectory)?;
        let folder = openat(CWD, "/", FOLDER, Mode::empty())?;
        trust.check_folder(Path::new("/"), &fstat(&folder)?)?;
        Ok(Self { trust, folder, path: "/".into(), rest: names(&path), links: 0, creates })
    }

    fn place(mut self) -> io::Result<Place> {
        while let Some(name) = self.rest.pop_front() {
            let path = self.path.join(&name);
            // The kernel's links lead to what is open already, and nobody can exchange them.
            let kernel = fstatfs(&self.folder)?.f_type == PROC_SUPER_MAGIC;
            let is_last = self.rest.is_empty() && name != "..";
            if is_last && kernel {
                return Ok(Place { folder: self.folder, name, path, links: Links::Kernel });
            }
            let entry = match self.entry(&name, kernel) {
                Err(Errno::NOENT) if is_last => None,
                Err(Errno::NOENT) if self.creates => Some(self.create(&name)?),
                found => Some(found?),
            };
            let found = entry.as_ref().map(fstat).transpose()?;
            let kind = found.map(|found| FileType::from_raw_mode(found.st_mode));
            match (entry, found, kind) {
                (Some(link), Some(found), Some(FileType::Symlink)) => {
                    self.trust.check_owner(&path, &found)?;
                    self.follow(&link)?;
                }
                (Some(folder), Some(found), Some(FileType::Directory)) if !is_last => {
                    self.trust.check_folder(&path, &found)?;
                    (self.folder, self.path) = (folder, path);
                }
                _ if is_last => {
                    return Ok(Place { folder: self.folder, name, path, links: Links::Refuse });
                }
                _ => return Err(ErrorKind::NotADirectory.into()),
            }
        }
        Err(ErrorKind::IsADirectory.into())
    }

    fn entry(&self, name: &OsStr, kernel: bool) -> Result<OwnedFd, Errno> {
        let nofollow = if kernel { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = OFlags::PATH | OFlags::CLOEXEC | nofollow;
        openat(&self.folder, name, flags, Mode::empty())
    }

    fn create(&self, name: &OsStr) -> Result<OwnedFd, Errno> {
        match mkdirat(&self.folder, name, Mode::from_raw_mode(FOLDER_MODE)) {
            Ok(()) | Err(Errno::EXIST) => self.entry(name, false),
            Err(errno) => Err(errno),
        }
    }

    fn follow(&mut self, link: &OwnedFd) -> io::Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = PathBuf::from(OsString::from_vec(readlinkat(link, "", Vec::new())?.into()));
        if target.is_absolute() {
            self.folder = openat(CWD, "/", FOLDER, Mode::empty())?;
            self.path = "/".into();
        }
        for name in names(&target).into_iter().rev() {
            self.rest.push_front(name);
        }
        Ok(())
    }
}

/// The names of a path, `..` among them.
fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().filter_map(name).collect()
}

fn check_owner(path: &Path, found: &Stat) -> Result<(), Unsafe> {
    if Trust::Own.is_owner(found) {
        return Ok(());
    }
    let why = format!("belongs to user {}", found.st_uid);
    Err(Unsafe::File { path: path.to_owned(), why })
}

/// A file with another name is another's file, too.
fn check_names(path: &Path, found: &Stat) -> Result<(), Unsafe> {
    if found.st_nlink <= 1 {
        return Ok(());
    }
    let why = format!("has {} names (hard links)", found.st_nlink);
    Err(Unsafe::File { path: path.to_owned(), why })
}
