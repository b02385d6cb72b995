//! The crate's only unsafe code: what the kernel offers and no library wraps safely.
//!
//! Never decides anything: each function is one system call, or the few that make up one question.

#![expect(unsafe_code, reason = "the one file for it; each block says why it is sound")]

use std::ffi::{CString, OsStr};
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, SealFlags, fcntl_get_seals, fstat};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::{Gid, Uid, chdir, setpriority_process, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_gid,
    set_thread_groups, set_thread_uid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Closes a descriptor. That of the standard library is a cancellation point of libc, which costs two atomic
/// operations in a process with threads, at every connection.
#[cfg(feature = "cli")]
pub(crate) fn close(descriptor: OwnedFd) {
    let number = std::os::fd::IntoRawFd::into_raw_fd(descriptor);
    // SAFETY: it was owned, so nobody else uses its number.
    unsafe { rustix::io::close(number) }
}

/// Takes over a descriptor that this process was started with, by its number, and marks it
/// close-on-exec, so that processes started from here don't inherit it.
///
/// Only what was inherited can be taken, and only once: a descriptor that has survived `execve` isn't
/// close-on-exec, and everything that this process opens or has taken over is.
///
/// # Errors
///
/// If no descriptor of that number is open, or it was not inherited, or it was taken before.
#[cfg(feature = "cli")]
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    adopt_if(number, |_| Ok(()))
}

/// As [`adopt`]. `check` fails if the descriptor is not what was expected; it stays as it is then.
///
/// # Errors
///
/// As [`adopt`], or the check's.
pub(crate) fn adopt_if(
    number: RawFd,
    check: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    // Two threads must not take the same one.
    static TAKING: Mutex<()> = Mutex::new(());
    let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if number <= libc::STDERR_FILENO {
        return refused("a standard stream");
    }
    // SAFETY: the borrow ends in this function, and F_GETFD on a number that is not open is an
    // error, not undefined behaviour.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(borrowed)?;
    if flags.contains(rustix::io::FdFlags::CLOEXEC) {
        return refused("not inherited, or taken before");
    }
    check(borrowed)?;
    rustix::io::fcntl_setfd(borrowed, flags | rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: it is open, as fcntl said, and nobody owns it: it was inherited, since everything that
    // is opened in this process is close-on-exec, and this is the first to take it, since it is
    // close-on-exec from here on. The caller has the number from the environment, or from the state,
    // that was made for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Marks everything that this process has inherited beside its standard streams close-on-exec, so
/// that the processes that it starts are given what they are meant to have and nothing else.
///
/// # Errors
///
/// If the kernel is older than 5.11.
pub fn keep_inherited_descriptors() -> io::Result<()> {
    let first = libc::STDERR_FILENO + 1;
    // SAFETY: sets a flag of descriptors and closes none, so that nobody's ownership changes.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Changes that a new process makes to itself before it runs its program. All of it is looked up
/// beforehand: the new process may not even allocate memory.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Its file mode creation mask.
    pub umask: Option<u32>,
    /// Its niceness.
    pub nice: Option<i32>,
    /// It and its descendants can gain no capability any more, but those of root while they are root.
    pub drop_capabilities: bool,
    /// No program that it runs gives it more rights than it has.
    pub no_new_privs: bool,
    /// The user that it becomes: groups, group, user.
    pub user: Option<(Vec<Gid>, Gid, Uid)>,
    /// Its working directory, entered as that user.
    pub directory: Option<CString>,
}

/// The steps that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Setting its niceness.
    Nice = 1,
    /// Becoming the user.
    User = 2,
    /// Going to the directory.
    Directory = 3,
    /// Giving up capabilities.
    Capabilities = 4,
    /// Giving up new rights.
    NoNewPrivs = 5,
}

/// Lets `command` enter its surroundings before it runs its program, with all signals as they are
/// by default and none blocked, whatever this process was started with. [`failed_step`] tells which step failed.
pub fn before_exec(command: &mut Command, surroundings: Surroundings) {
    let enter = move || {
        default_signals();
        surroundings.enter()
    };
    // SAFETY: after a fork, locks that other threads held stay locked for ever. So the closure
    // takes none: it makes system calls and allocates and frees nothing, its errors included.
    unsafe { command.pre_exec(enter) };
}

/// Lets a new process note its process id in memory that it shares with this one, before it runs its program: so it
/// is known before the program can do anything.
pub fn note_pid(command: &mut Command, cell: SharedCell) {
    let note = move || {
        cell.set(std::process::id().into());
        Ok(())
    };
    // SAFETY: as in `before_exec`; a system call and a store to memory that is mapped as long as the closure lives.
    unsafe { command.pre_exec(note) };
}

/// Lets a new process run its program itself, with its own process id, in decimal, in the environment variable
/// `name`. To be called when the program, its arguments and its variables are set, which must be all that it
/// gets; and after every other step, since none comes after it.
///
/// # Errors
///
/// If one of them has a zero byte.
pub fn exec_with_pid(command: &mut Command, name: &str) -> io::Result<()> {
    let mut own = OwnExec::new(command, name)?;
    let exec = move || Err(own.run());
    // SAFETY: as in `before_exec`: all memory was allocated before, and `execvp` is the call that the standard
    // library makes at this point.
    unsafe { command.pre_exec(exec) };
    Ok(())
}

unsafe extern "C" {
    static mut environ: *const *const libc::c_char;
}

/// A program with its arguments and variables, as the kernel takes them.
#[derive(Debug)]
struct OwnExec {
    /// Arguments, then variables, the last of them with room for a process id; each ends with a zero byte.
    texts: Vec<Vec<u8>>,
    arguments: usize,
    /// Room for an array of arguments and one of variables, each with a null pointer at its end.
    pointers: Vec<AtomicPtr<libc::c_char>>,
    /// Where the process id begins in the last text.
    digits: usize,
    /// The process that starts the new one.
    starter: u32,
}

/// Room for any process id, and the zero byte behind it.
const PID_ROOM: usize = 11;

impl OwnExec {
    fn new(command: &Command, name: &str) -> io::Result<Self> {
        let text = |bytes: Vec<u8>| CString::new(bytes).map(CString::into_bytes_with_nul);
        let arguments = std::iter::once(command.get_program()).chain(command.get_args());
        let mut texts = Vec::new();
        for argument in arguments {
            texts.push(text(argument.as_bytes().to_vec())?);
        }
        let arguments = texts.len();
        let set = |(variable, value): (&OsStr, Option<&OsStr>)| {
            let value = value.filter(|_| variable != name)?;
            Some([variable.as_bytes(), b"=", value.as_bytes()].concat())
        };
        for variable in command.get_envs().filter_map(set) {
            texts.push(text(variable)?);
        }
        let mut last = format!("{name}=").into_bytes();
        let digits = last.len();
        last.resize(digits + PID_ROOM, 0);
        texts.push(last);
        let pointers = (0..texts.len() + 2).map(|_| AtomicPtr::default()).collect();
        Ok(Self { texts, arguments, pointers, digits, starter: std::process::id() })
    }

    /// Writes the process id into its variable.
    fn write_pid(&mut self, pid: u32) {
        let digits = self.digits;
        let Some(room) = self.texts.last_mut().and_then(|text| text.get_mut(digits..)) else {
            return;
        };
        room.fill(0);
        let (mut rest, mut count) = (pid, 1);
        while rest >= 10 {
            (rest, count) = (rest / 10, count + 1);
        }
        rest = pid;
        for place in room.iter_mut().take(count).rev() {
            *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
    }

    /// Becomes the program. It comes back with the error only.
    fn run(&mut self) -> io::Error {
        let pid = std::process::id();
        if pid == self.starter {
            // It may have other threads, which read the variables.
            return io::ErrorKind::Unsupported.into();
        }
        self.write_pid(pid);
        // The null pointer at the end of the arguments stays.
        let places = self.pointers.iter_mut().enumerate().filter(|(at, _)| *at != self.arguments);
        for ((_, place), text) in places.zip(&self.texts) {
            *place.get_mut() = text.as_ptr().cast_mut().cast();
        }
        let arguments: *const *const libc::c_char = self.pointers.as_ptr().cast();
        let variables: *const *const libc::c_char =
            self.pointers[self.arguments + 1..].as_ptr().cast();
        // SAFETY: both arrays end with a null pointer, and every other pointer leads to a text of `self` that ends
        // with a zero byte; an AtomicPtr is laid out as a pointer. The variables are put in place for `execvp`, which
        // looks for PATH there, and what was there before is put back: this is the only thread of a process that
        // was forked, as `starter` shows.
        unsafe {
            let before = environ;
            environ = variables;
            libc::execvp(self.texts[0].as_ptr().cast(), arguments);
            let error = io::Error::last_os_error();
            environ = before;
            error
        }
    }
}

/// The step of [`before_exec`] that made a start fail, and the kernel's error.
#[must_use]
pub fn failed_step(error: &io::Error) -> Option<(Step, io::Error)> {
    let number = error.raw_os_error()?;
    let step = match number >> STEP_SHIFT {
        1 => Step::Nice,
        2 => Step::User,
        3 => Step::Directory,
        4 => Step::Capabilities,
        5 => Step::NoNewPrivs,
        _ => return None,
    };
    Some((step, io::Error::from_raw_os_error(number & ((1 << STEP_SHIFT) - 1))))
}

/// One number is all that comes back from a process that hasn't run its program: it carries the
/// step above what any error number can be.
const STEP_SHIFT: i32 = 16;

/// Capabilities that any kernel may have.
const MAX_CAPABILITIES: u32 = 64;

/// Empties the bounding set, the ambient set and the inheritable set. Those that this process has it
/// loses with its user, or keeps as root until it runs a program.
fn drop_capabilities() -> Result<(), Errno> {
    for number in 0..MAX_CAPABILITIES {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(capability) {
            // The kernel has no more of them.
            Err(Errno::INVAL) => break,
            result => result?,
        }
    }
    clear_ambient_capability_set()?;
    let sets = capabilities(None)?;
    set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..sets })
}

/// Whether a process that is started from here may empty its bounding set.
#[must_use]
pub fn may_drop_capabilities() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SETPCAP))
}

impl Surroundings {
    /// As privileges go with the user, niceness comes before; and as a directory may be open to
    /// that user alone (NFS), it comes after.
    fn enter(&self) -> io::Result<()> {
        if let Some(mask) = self.umask {
            umask(Mode::from_raw_mode(mask));
        }
        if let Some(nice) = self.nice {
            setpriority_process(None, nice).map_err(|errno| Step::Nice.failed(errno))?;
        }
        if self.drop_capabilities {
            drop_capabilities().map_err(|errno| Step::Capabilities.failed(errno))?;
        }
        if self.no_new_privs {
            set_no_new_privs(true).map_err(|errno| Step::NoNewPrivs.failed(errno))?;
        }
        if let Some((groups, gid, uid)) = &self.user {
            // A process between fork and exec is one thread. Groups first, the user last: only the
            // privileged user may change groups.
            set_thread_groups(groups)
                .and_then(|()| set_thread_gid(*gid))
                .and_then(|()| set_thread_uid(*uid))
                .map_err(|errno| Step::User.failed(errno))?;
        }
        if let Some(directory) = &self.directory {
            chdir(directory.as_c_str()).map_err(|errno| Step::Directory.failed(errno))?;
        }
        Ok(())
    }
}

impl Step {
    fn failed(self, errno: Errno) -> io::Error {
        io::Error::from_raw_os_error((self as i32) << STEP_SHIFT | errno.raw_os_error())
    }
}

/// Ignored signals stay so in the programs that a process runs, after `nohup`, say; and blocked ones.
fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: safe in a signal handler, so between fork and exec too; the default action is
        // no function that could be unsound. That some cannot be set is as it should be.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = MaybeUninit::uninit();
    // SAFETY: safe in a signal handler, too; sigemptyset initialises the whole set.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Lets this process learn how its children end. Where SIGCHLD is ignored, as the process that started it may
/// have set, the kernel takes their statuses itself.
pub fn hear_of_children() {
    // SAFETY: the default action is no function that could be unsound.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Lets the current tokio runtime watch a descriptor.
///
/// # Errors
///
/// If the kernel refuses: no memory, or a descriptor that cannot be watched.
pub fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same open file until it is dropped, and AsyncFd drops it after
    // it has ended the registration.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, interest) };
    watched.map_err(Into::into)
}

/// Bytes of a mapped page of counters.
pub const PAGE: usize = 4096;

/// How many counters a page holds.
pub const COUNTERS: usize = PAGE / size_of::<AtomicU64>();

/// A page of 64-bit counters that several processes share.
#[derive(Debug)]
pub struct SharedPage {
    memory: SharedMemory,
}

impl SharedPage {
    /// Maps the first page of `file`.
    ///
    /// # Errors
    ///
    /// As for [`SharedMemory::map`].
    pub fn map(file: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { memory: SharedMemory::map(file, 0, PAGE)? })
    }

    /// The counters, [`COUNTERS`] of them.
    #[must_use]
    pub fn counters(&self) -> &[AtomicU64] {
        self.memory.cells()
    }
}

/// One counter of a shared page.
#[derive(Debug)]
pub struct SharedCell {
    page: SharedPage,
    index: usize,
}

impl SharedCell {
    /// The counter of this number; none if the page has fewer.
    #[must_use]
    pub fn new(page: SharedPage, index: usize) -> Option<Self> {
        (index < COUNTERS).then_some(Self { page, index })
    }

    fn set(&self, value: u64) {
        if let Some(cell) = self.page.counters().get(self.index) {
            cell.store(value, Ordering::Release);
        }
    }
}

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its bytes in the buffer.
    pub length: usize,
    /// More bytes came than there was room for.
    pub cut: bool,
    /// The process that has sent it, by its number here; none if it is none of this process's namespace.
    pub sender: Option<i32>,
}

/// Room for what comes beside a datagram's bytes: as many descriptors as the kernel lets travel (`SCM_MAX_FD`), and
/// the sender. In pieces that are aligned as the kernel wants them.
const BESIDE: usize = 256;

/// Receives one datagram of a Unix socket without waiting, none if there is none; its descriptors go to `take`,
/// close-on-exec. The sender is known if the socket has SO_PASSCRED.
///
/// # Errors
///
/// The kernel's.
pub fn receive_datagram(
    socket: impl AsFd,
    bytes: &mut [u8],
    mut take: impl FnMut(OwnedFd),
) -> io::Result<Option<Datagram>> {
    let mut beside = [0_u64; BESIDE];
    let mut piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: plain integers and pointers, for which zero is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    header.msg_control = beside.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&beside) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the kernel writes into `bytes` and `beside`, no more than their lengths, which the header has.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    };
    let mut sender = None;
    // SAFETY: the header describes what the kernel has written into `beside`, which is aligned for it. So does each
    // message there its own length. Descriptors that arrive are new, and nobody else has them.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(message) = next.as_ref() {
            let data = libc::CMSG_DATA(next);
            #[allow(clippy::unnecessary_cast, reason = "its type differs between C libraries")]
            let length = (message.cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    let numbers = data.cast::<RawFd>();
                    for at in 0..length / size_of::<RawFd>() {
                        take(OwnedFd::from_raw_fd(numbers.add(at).read_unaligned()));
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if length >= size_of::<libc::ucred>() => {
                    let pid = data.cast::<libc::ucred>().read_unaligned().pid;
                    sender = Some(pid).filter(|pid| *pid > 0);
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(&raw const header, next);
        }
    }
    let cut = header.msg_flags & libc::MSG_TRUNC != 0;
    Ok(Some(Datagram { length, cut, sender }))
}

/// Gives memory that is free back to the kernel, wherever in the heap it is. Does nothing where the C library
/// has no way to.
pub(crate) fn trim_memory() {
    // SAFETY: it takes no pointer, and may be called by any thread at any time.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::malloc_trim(0) };
}

/// A part of a file as 64-bit cells that several processes share.
#[derive(Debug)]
pub struct SharedMemory {
    start: NonNull<AtomicU64>,
    length: usize,
}

// SAFETY: the pointer leads to memory that lives as long as this value, and that is only ever
// touched through atomics.
unsafe impl Send for SharedMemory {}
// SAFETY: as above; atomics may be shared.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps `length` bytes of `file` from `offset` on, both whole pages.
    ///
    /// # Errors
    ///
    /// If the file is shorter, or is not sealed against shrinking: a file that shrinks would raise SIGBUS at
    /// an access. If the kernel refuses to map it.
    pub fn map(file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<Self> {
        let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        if length == 0 || !length.is_multiple_of(PAGE) {
            return refused("not whole pages");
        }
        if !fcntl_get_seals(file)?.contains(SealFlags::SHRINK) {
            return refused("memory that can shrink");
        }
        let size = u64::try_from(fstat(file)?.st_size).unwrap_or(0);
        if offset.checked_add(length as u64).is_none_or(|end| end > size) {
            return refused("file is shorter than what is to be mapped");
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let (anywhere, flags) = (std::ptr::null_mut(), MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { mmap(anywhere, length, protection, flags, file, offset) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// All of it.
    #[must_use]
    pub fn cells(&self) -> &[AtomicU64] {
        let cells = self.length / size_of::<AtomicU64>();
        // SAFETY: the mapping is `length` bytes long, page-aligned, readable and writable until
        // drop; every bit pattern is a valid AtomicU64, and other processes' writes are what
        // atomics are for.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), cells) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` mapped, and no reference outlives `self`. That it fails is
        // impossible for a valid mapping, and would change nothing.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// The kernel's counters of a TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpCounters {
    /// Bytes that arrived in order, plus one once the peer has sent its FIN.
    pub received: u64,
    /// Bytes that were written: sent ones, retransmissions included, and those that wait.
    pub written: u64,
    /// Bytes that the peer has acknowledged, plus what the handshake counts.
    pub acknowledged: u64,
    /// Where the connection stands.
    pub state: TcpState,
}

/// The state of a TCP connection, as far as it matters for a hand-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// Both sides may send.
    Established,
    /// The peer has sent its FIN and still reads.
    CloseWait,
    /// This side has ended it, or it is over.
    Ended,
}

/// The part of Linux' `struct tcp_info` up to what is read here; `linux/tcp.h`. The C library's
/// own declaration ends earlier.
#[repr(C)]
struct TcpInfo {
    state: u8,
    _until_send_mss: [u8; 15],
    send_mss: u32,
    _receive_mss: u32,
    unacknowledged: u32,
    sacked: u32,
    _until_bytes_acked: [u8; 88],
    bytes_acked: u64,
    bytes_received: u64,
    _until_notsent_bytes: [u8; 8],
    notsent_bytes: u32,
    _until_bytes_sent: [u8; 52],
    bytes_sent: u64,
}

const _: () = assert!(offset_of!(TcpInfo, send_mss) == 16);
const _: () = assert!(offset_of!(TcpInfo, unacknowledged) == 24);
const _: () = assert!(offset_of!(TcpInfo, bytes_acked) == 120);
const _: () = assert!(offset_of!(TcpInfo, bytes_received) == 128);
const _: () = assert!(offset_of!(TcpInfo, notsent_bytes) == 144);
const _: () = assert!(offset_of!(TcpInfo, bytes_sent) == 200);

/// What the kernel knows of a socket (`TCP_INFO`).
fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    let mut info = MaybeUninit::<TcpInfo>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<TcpInfo>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `info`, and sets
    // `length` to what it wrote.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if usize::try_from(length).is_ok_and(|length| length < size_of::<TcpInfo>()) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: zeroed at first, so initialised whatever the kernel wrote; plain integers.
    Ok(unsafe { info.assume_init() })
}

/// Asks the kernel for a socket's counters (`TCP_INFO`).
///
/// # Errors
///
/// If it is no TCP socket, or the kernel is older than 4.19 and doesn't count what was sent.
pub fn tcp_counters(socket: impl AsFd) -> io::Result<TcpCounters> {
    let info = tcp_info(socket.as_fd())?;
    // Numbers of the states: net/tcp_states.h.
    let state = match info.state {
        1 => TcpState::Established,
        8 => TcpState::CloseWait,
        _ => TcpState::Ended,
    };
    let written = info.bytes_sent + u64::from(info.notsent_bytes);
    let (received, acknowledged) = (info.bytes_received, info.bytes_acked);
    Ok(TcpCounters { received, written, acknowledged, state })
}

/// Connections that wait to be accepted from a listening socket; none if it doesn't listen.
///
/// # Errors
///
/// As [`tcp_counters`].
#[cfg(feature = "cli")]
pub fn accept_queue(socket: impl AsFd) -> io::Result<Option<u32>> {
    /// net/tcp_states.h.
    const LISTENING: u8 = 10;
    let info = tcp_info(socket.as_fd())?;
    Ok((info.state == LISTENING).then_some(info.unacknowledged))
}

/// Connections that a listening socket lets wait at most; none if it doesn't listen.
///
/// # Errors
///
/// As [`tcp_counters`].
#[cfg(feature = "cli")]
pub fn accept_limit(socket: impl AsFd) -> io::Result<Option<u32>> {
    const LISTENING: u8 = 10;
    let info = tcp_info(socket.as_fd())?;
    Ok((info.state == LISTENING).then_some(info.sacked))
}

/// Bytes of the largest segment that an established connection sends; none before and after.
///
/// # Errors
///
/// As [`tcp_counters`].
#[cfg(feature = "cli")]
pub fn segment_size(socket: impl AsFd) -> io::Result<Option<u32>> {
    let info = tcp_info(socket.as_fd())?;
    Ok((info.state == 1).then_some(info.send_mss))
}

/// Lets clients of a listening socket send segments of at most so many bytes; 0 for as many as fit.
///
/// # Errors
///
/// If the kernel refuses.
#[cfg(feature = "cli")]
pub fn set_segment_size(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt::TcpMaxSeg};
    Ok(setsockopt(&socket, TcpMaxSeg, &bytes)?)
}

/// An instruction of classic BPF: `struct sock_filter` of linux/filter.h.
#[cfg(feature = "cli")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// Instructions to jump over if so.
    pub jt: u8,
    /// Instructions to jump over if not.
    pub jf: u8,
    /// The constant.
    pub k: u32,
}

/// From now on the program picks the socket of the `SO_REUSEPORT` group for each connection, by its index. It
/// replaces the program before at once, for all sockets of the group.
///
/// # Errors
///
/// If the kernel refuses: the socket isn't such a one, the program is malformed, or too long for
/// `net.core.optmem_max`.
#[cfg(feature = "cli")]
pub fn attach_program(socket: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt::AttachReusePortCbpf};
    let filter = |instruction: &Instruction| {
        let Instruction { code, jt, jf, k } = *instruction;
        libc::sock_filter { code, jt, jf, k }
    };
    let mut filters: Vec<_> = program.iter().map(filter).collect();
    let len = u16::try_from(filters.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel copies the instructions during the call, and they live until it is over.
    let program = libc::sock_fprog { len, filter: filters.as_mut_ptr() };
    Ok(setsockopt(&socket, AttachReusePortCbpf, &program)?)
}

/// Removes the program of the socket's group: the kernel spreads connections by addresses and ports again.
///
/// # Errors
///
/// If there is none.
#[cfg(feature = "cli")]
pub fn detach_program(socket: impl AsFd) -> io::Result<()> {
    /// linux/socket.h; the C library doesn't have it.
    const SO_DETACH_REUSEPORT_BPF: libc::c_int = 68;
    let nothing: libc::c_int = 0;
    let length = libc::socklen_t::try_from(size_of_val(&nothing)).unwrap_or(0);
    // SAFETY: the kernel reads one int, and `nothing` is one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_DETACH_REUSEPORT_BPF,
            (&raw const nothing).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What was written to a socket and hasn't arrived (`SIOCOUTQ`): bytes that the peer of a TCP socket hasn't
/// acknowledged; bytes of memory of what the reader of a Unix socket hasn't read.
///
/// # Errors
///
/// If it is no such socket.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, and `bytes` is one. SIOCOUTQ has the number of TIOCOUTQ.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(bytes.unsigned_abs().into())
}

/// A signal of its own to one thread, again and again: it ends what the thread waits for.
///
/// It is SIGURG, whose handler here does nothing and begins calls again that can be: another thread that gets it
/// doesn't notice.
#[cfg(feature = "cli")]
#[derive(Debug)]
pub(crate) struct Interrupt {
    /// Setting it needs no other thread to look away: there is none that has it.
    timer: std::cell::RefCell<nix::sys::timer::Timer>,
}

#[cfg(feature = "cli")]
impl Interrupt {
    /// For the thread that calls; the signal is unblocked in it.
    ///
    /// # Errors
    ///
    /// If the kernel has no timer left.
    pub(crate) fn for_this_thread() -> io::Result<Self> {
        use nix::sys::signal::{
            SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction,
        };
        extern "C" fn nothing(_: libc::c_int) {}
        let handler = SigHandler::Handler(nothing);
        let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler does nothing, so that it may run at any time in any thread. Nothing else here
        // handles this signal.
        unsafe { sigaction(Signal::SIGURG, &action) }?;
        let mut own = SigSet::empty();
        own.add(Signal::SIGURG);
        own.thread_unblock()?;
        let event = SigEvent::new(SigevNotify::SigevThreadId {
            signal: Signal::SIGURG,
            thread_id: rustix::thread::gettid().as_raw_nonzero().get(),
            si_value: 0,
        });
        let timer = nix::sys::timer::Timer::new(nix::time::ClockId::CLOCK_MONOTONIC, event)?;
        Ok(Self { timer: timer.into() })
    }

    /// Comes after this time, and each time that it has passed again.
    pub(crate) fn every(&self, time: std::time::Duration) {
        use nix::sys::timer::{Expiration, TimerSetTimeFlags};
        let every = Expiration::IntervalDelayed(time.into(), time.into());
        // It is a valid time of a timer that is there.
        let _ = self.timer.borrow_mut().set(every, TimerSetTimeFlags::empty());
    }

    /// Comes no more.
    pub(crate) fn stop(&self) {
        use nix::sys::timer::{Expiration, TimerSetTimeFlags};
        let never = Expiration::OneShot(std::time::Duration::ZERO.into());
        let _ = self.timer.borrow_mut().set(never, TimerSetTimeFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// A read beyond the end of a mapped file, or of one that has shrunk, would end the process.
    #[test]
    fn only_memory_that_is_long_enough_and_cannot_shrink_is_mapped() {
        use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};
        let memory = memfd_create("mapped", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memory, 2 * PAGE as u64).unwrap();
        assert!(SharedPage::map(memory.as_fd()).is_err(), "it could shrink");
        fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
        let whole = SharedMemory::map(memory.as_fd(), 0, 2 * PAGE).unwrap();
        assert_eq!(whole.cells().len(), 2 * COUNTERS);
        let beyond = [(0, 3 * PAGE), (PAGE as u64, 2 * PAGE), (u64::MAX, PAGE), (0, 0), (0, 7)];
        for (offset, length) in beyond {
            assert!(SharedMemory::map(memory.as_fd(), offset, length).is_err());
        }
        let file = File::open("/etc/passwd").unwrap();
        assert!(SharedPage::map(file.as_fd()).is_err(), "a file of a disk can shrink");
    }

    /// A program is one that the kernel has checked, for a socket that can have it.
    #[cfg(feature = "cli")]
    #[test]
    fn programs_are_attached_and_detached() {
        use rustix::net::{AddressFamily, SocketType, socket, sockopt};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let program = |code| [Instruction { code, jt: 0, jf: 0, k: 0 }];
        assert!(attach_program(&socket, &program(0x06)).is_err(), "it isn't shared");
        sockopt::set_socket_reuseport(&socket, true).unwrap();
        assert!(attach_program(&socket, &program(0x00)).is_err(), "it returns nothing");
        assert!(attach_program(&socket, &program(0x06).repeat(70_000)).is_err(), "it is too long");
        assert!(attach_program(&socket, &[]).is_err());
        attach_program(&socket, &program(0x06)).unwrap();
        detach_program(&socket).unwrap();
        assert!(detach_program(&socket).is_err(), "there is none");
        assert_eq!(accept_queue(&socket).unwrap(), None);
        assert_eq!(segment_size(&socket).unwrap(), None);
    }

    #[cfg(feature = "cli")]
    #[test]
    fn only_what_was_inherited_is_adopted_and_only_once() {
        use std::os::fd::IntoRawFd;

        use rustix::io::{FdFlags, fcntl_setfd};

        let own = File::open("/dev/null").unwrap();
        assert!(adopt(own.as_raw_fd()).is_err(), "this process has opened it");
        // As after an execve.
        fcntl_setfd(&own, FdFlags::empty()).unwrap();
        let number = own.into_raw_fd();
        assert!(adopt_if(number, |_| Err(io::ErrorKind::InvalidData.into())).is_err());
        let adopted = adopt(number).unwrap();
        assert!(adopt(number).is_err(), "taken twice");
        assert!(rustix::io::fcntl_getfd(&adopted).unwrap().contains(FdFlags::CLOEXEC));
        for never_open in [-1, 0, 2, 1_000_000] {
            assert!(adopt(never_open).is_err(), "{never_open}");
        }
    }
}
