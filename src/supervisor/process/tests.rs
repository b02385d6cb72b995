//! Real processes: the environment and the descriptors that they find.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::link::Link;
use crate::link::event::LinkEvent;
use crate::link::inherit::WorkerFacts;
use crate::link::interface::{Interface, InterfaceChoice};
use crate::link::node::ports::Rights;
use crate::link::node::settings::NodeSettings;
use crate::protocol::ids::{Generation, SlotId};

const WORKER: WorkerId = WorkerId { slot: SlotId(3), generation: Generation(1) };
const TIMEOUT: Duration = Duration::from_secs(20);

/// Runs a script that stands still, with a guard that takes it for a process that is being started.
fn run_guarded(script: &str) -> std::process::ExitStatus {
    let words = ["sh", "-c", script].map(|word| format!("{word}\0")).concat();
    let guard = SpawnGuard::of(Some(words.into_bytes()));
    let status = Command::new("sh").args(["-c", script]).status().unwrap();
    drop(guard);
    status
}

#[test]
fn a_start_that_stands_still_is_told_to_go_on() {
    assert_eq!(run_guarded("kill -STOP $$; exit 7").code(), Some(7));
}

#[test]
fn one_that_stands_still_again_and_again_is_killed() {
    let status = run_guarded("while :; do kill -STOP $$; done");
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
}

fn command(words: &[&str]) -> WorkerCommand {
    let (program, arguments) = words.split_first().unwrap();
    WorkerCommand {
        program: program.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        ..WorkerCommand::default()
    }
}

/// So many listening sockets, and what the worker inherits of them; the first ones are named `web` and `six`.
fn listening(count: usize) -> (Vec<TcpListener>, Inherit) {
    let mut inherit = Inherit::default();
    let sockets: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    for (name, socket) in ["web", "six"].iter().zip(&sockets) {
        inherit.listen_on(name, socket.try_clone().unwrap().into());
    }
    (sockets, inherit)
}

fn start(command: &WorkerCommand, inherit: Inherit) -> (Process, String) {
    let (process, printed) = Process::start(command, 8000, WORKER, inherit).unwrap();
    let mut text = String::new();
    File::from(printed.stdout).read_to_string(&mut text).unwrap();
    (process, text)
}

/// A shell's own process id, and what it finds.
const FOUND: &str = "echo $$ $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES $WEB_CONCURRENCY";

#[tokio::test]
async fn a_worker_with_listening_sockets_finds_its_own_process_id() {
    let (_sockets, inherit) = listening(2);
    let (process, text) = start(&command(&["sh", "-c", FOUND]), inherit);
    let pid = process.pid();
    assert_eq!(text, format!("{pid} {pid} 2 web:six 1\n"));
}

#[tokio::test]
async fn a_worker_without_finds_none() {
    let (process, text) = start(&command(&["sh", "-c", FOUND]), Inherit::default());
    assert_eq!(text, format!("{}\n", process.pid()));
}

#[tokio::test]
async fn what_a_command_sets_for_concurrency_stays() {
    let (_sockets, inherit) = listening(1);
    let mut command = command(&["sh", "-c", "echo $WEB_CONCURRENCY $LISTEN_PID"]);
    let set = |name: &str| (name.into(), "4".into());
    command.environment = vec![set("WEB_CONCURRENCY"), set("LISTEN_PID")];
    let (process, text) = start(&command, inherit);
    assert_eq!(text, format!("4 {}\n", process.pid()));
}

#[tokio::test]
async fn numbers_of_listening_sockets_stand_in_the_arguments() {
    for (count, expected) in [(0, "{fd} x{fd6}"), (1, "3 x{fd6}"), (2, "3 x4")] {
        let (_sockets, inherit) = listening(count);
        let (_, text) = start(&command(&["echo", "{fd}", "x{fd6}"]), inherit);
        assert_eq!(text, format!("{expected}\n"));
    }
}

#[test]
fn each_word_is_replaced_once() {
    let number = |text: &str, count| with_numbers(OsStr::new(text), count).into_string().unwrap();
    assert_eq!(number("-b fd://{fd} -b fd://{fd6} {fd}{fd}{", 2), "-b fd://3 -b fd://4 33{");
    assert_eq!(number("{{fd}}", 1), "{3}");
}

/// A program's descriptors, its listening sockets, and the flags of the first one.
const DESCRIPTORS: &str = r#"
import fcntl, os
found = [number for number in range(256) if os.path.exists(f"/proc/self/fd/{number}")]
names = [os.readlink(f"/proc/self/fd/{number}") for number in (3, 4)]
print(found, names, fcntl.fcntl(3, fcntl.F_GETFD), fcntl.fcntl(3, fcntl.F_GETFL) & os.O_NONBLOCK != 0)
"#;

#[tokio::test]
async fn a_worker_inherits_its_listening_sockets_and_nothing_else() {
    // As the primary does; the test's own starter leaves some.
    kernel::keep_inherited_descriptors().unwrap();
    for nonblocking in [false, true] {
        let (sockets, inherit) = listening(2);
        sockets.iter().for_each(|socket| socket.set_nonblocking(nonblocking).unwrap());
        let inodes = sockets.iter().map(|socket| rustix::fs::fstat(socket).unwrap().st_ino);
        let names: Vec<_> = inodes.map(|inode| format!("'socket:[{inode}]'")).collect();
        let (_, text) = start(&command(&["python3", "-c", DESCRIPTORS]), inherit);
        let nonblocking = if nonblocking { "True" } else { "False" };
        let names = names.join(", ");
        assert_eq!(text, format!("[0, 1, 2, 3, 4] [{names}] 0 {nonblocking}\n"));
    }
}

/// Errors of starts without listening sockets and with two.
fn errors(command: &WorkerCommand) -> [String; 2] {
    [0, 2].map(|count| {
        let (_sockets, inherit) = listening(count);
        let error = Process::start(command, 8000, WORKER, inherit).unwrap_err();
        assert!(!crate::supervisor::start_error::is_before_program(&error), "{error}");
        format!("{:?} {error}", error.kind())
    })
}

#[tokio::test]
async fn a_command_that_cannot_be_run_gives_the_same_error_with_listening_sockets() {
    for (program, expected) in [
        ("sticky-lb-no-such-program", "NotFound no such file in PATH"),
        ("/nonexistent/program", "NotFound No such file"),
        ("/etc/passwd", "PermissionDenied Permission denied"),
        ("/", "PermissionDenied Permission denied"),
    ] {
        let [without, with] = errors(&command(&[program]));
        assert!(without.starts_with(expected), "{without}");
        assert_eq!(with, without);
    }
}

/// The pipe by which the standard library learns of it has none of the worker's numbers.
#[tokio::test]
async fn a_failed_start_is_seen_whatever_numbers_the_worker_has() {
    let mut inherit = Inherit::default();
    for _ in 0..50 {
        inherit.add("high", "HIGH", fcntl_dupfd_cloexec(nothing().unwrap(), 200).unwrap());
    }
    let command = command(&["sticky-lb-no-such-program"]);
    let error = Process::start(&command, 8000, WORKER, inherit).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_step_that_fails_before_is_named_as_ever() {
    let mut command = command(&["true"]);
    command.directory = Some("/nonexistent".into());
    let (_sockets, inherit) = listening(1);
    let error = Process::start(&command, 8000, WORKER, inherit).unwrap_err();
    assert!(crate::supervisor::start_error::is_before_program(&error), "{error}");
}

/// `PATH` is the worker's, and a script without an interpreter's name is the shell's: as ever.
#[tokio::test]
async fn a_program_is_looked_for_in_the_workers_path() {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::env::temp_dir().join(format!("sticky-lb-path-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let script = folder.join("only-there");
    std::fs::write(&script, "echo found $LISTEN_PID\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = command(&["only-there"]);
    command.environment = vec![("PATH".into(), folder.clone().into())];
    let (_sockets, inherit) = listening(1);
    let started = Process::start(&command, 8000, WORKER, inherit);
    let text = started.map(|(process, printed)| {
        let mut text = String::new();
        File::from(printed.stdout).read_to_string(&mut text).unwrap();
        (process.pid(), text)
    });
    std::fs::remove_dir_all(&folder).unwrap();
    let (pid, text) = text.unwrap();
    assert_eq!(text, format!("found {pid}\n"));
}

fn listen_link() -> (Link, Inherit) {
    let facts = WorkerFacts {
        worker: WORKER,
        credits: 4,
        orphan_timeout: TIMEOUT,
        kill_timeout: TIMEOUT,
        migrate_timeout: TIMEOUT,
        protect: false,
        interface: InterfaceChoice::Only(Interface::Listen),
        rights: Rights::default(),
        port: 8000,
        node: Arc::new(NodeSettings::default()),
    };
    Link::start(&facts).unwrap()
}

/// Whether the link reports readiness until the worker's output ends.
fn becomes_ready(script: &str) -> bool {
    let (mut link, mut inherit) = listen_link();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    inherit.listen_on("web", socket.into());
    let command = command(&["sh", "-c", script]);
    let (process, printed) = Process::start(&command, 8000, WORKER, inherit).unwrap();
    let (mut ready, mut messages) = (0, 0);
    loop {
        let mut polled = [
            PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN),
            PollFd::new(&printed.stdout, PollFlags::IN),
        ];
        let timeout = Timespec::try_from(TIMEOUT).unwrap();
        assert!(poll(&mut polled, Some(&timeout)).unwrap() > 0, "{script}: nothing happens");
        let has_ended = !polled[1].revents().is_empty();
        match link.receive().unwrap() {
            LinkEvent::Ready => ready += 1,
            LinkEvent::Nothing if has_ended => break,
            LinkEvent::Nothing => {}
            _ => messages += 1,
        }
    }
    process.signal(Signal::KILL);
    assert!(ready <= 1 && ready + messages > 0, "{script}: {ready} {messages}");
    ready == 1
}

/// Sends a line, and waits until its descriptor is closed, as `systemd-notify` does.
const SEND: &str = r#"
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(sys.argv[1])
s.send(sys.argv[2].encode())
r, w = os.pipe()
s.sendmsg([b"BARRIER=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [w]))])
os.close(w)
os.read(r, 1)
"#;

#[tokio::test]
async fn a_worker_and_what_it_starts_says_ready() {
    let send = format!("python3 -c '{SEND}' \"$NOTIFY_SOCKET\" READY=1");
    for script in [
        format!("exec {send}"),
        format!("{send}; exit"),
        format!("(sh -c 'exec \"$@\"' sh {send}; exit); exit"),
        format!("setsid -w {send}; exit"),
        // Its parent has ended.
        format!("({send} & exit); sleep 5 & wait; exit"),
    ] {
        assert!(becomes_ready(&script), "{script}");
    }
}

#[tokio::test]
async fn a_worker_that_says_something_else_is_not_ready() {
    for said in ["STATUS=READY=1", "READY=0", "STOPPING=1", "FDSTORE=1", "\u{fffd}"] {
        let script = format!("exec python3 -c '{SEND}' \"$NOTIFY_SOCKET\" '{said}'");
        assert!(!becomes_ready(&script), "{said}");
    }
}

#[tokio::test]
async fn a_stranger_cannot_say_ready_for_a_worker() {
    let (mut link, inherit) = listen_link();
    let socket = inherit.number();
    let name = socket.variables.iter().find(|(name, _)| *name == "NOTIFY_SOCKET").unwrap();
    let worker = Inherit::default();
    let mut of_link = worker;
    of_link.note_pid_in(socket.pid_cell.unwrap());
    let (process, printed) =
        Process::start(&command(&["sleep", "20"]), 8000, WORKER, of_link).unwrap();
    // Another worker, which knows the name, and the primary itself.
    let mut other = command(&["python3", "-c", SEND, &name.1, "READY=1"]);
    other.environment = Vec::new();
    let (stranger, its) = Process::start(&other, 8000, WORKER, Inherit::default()).unwrap();
    std::os::unix::net::UnixDatagram::unbound().unwrap().send_to(b"READY=1", &name.1).unwrap();
    let mut messages = 0;
    while messages < 3 {
        let mut polled = [PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN)];
        let timeout = Timespec::try_from(TIMEOUT).unwrap();
        assert_eq!(poll(&mut polled, Some(&timeout)), Ok(1));
        assert!(!matches!(link.receive().unwrap(), LinkEvent::Ready | LinkEvent::Nothing));
        messages += 1;
    }
    assert!(!link.is_ready());
    // Its barrier was answered all the same.
    let mut text = String::new();
    File::from(its.stdout).read_to_string(&mut text).unwrap();
    stranger.ended().await;
    assert_eq!(stranger.reap().unwrap(), Exit::Status(0));
    process.signal(Signal::KILL);
    drop(printed);
}
