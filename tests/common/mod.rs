//! Runs the real binary in a directory of its own, and talks to it as clients do.
//!
//! Nothing waits for luck: [`eventually`] waits for a condition, and a test that fails prints the
//! command and the log.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stderr,
    reason = "each test file uses its share, and a failed one prints the log"
)]

pub mod admin;
pub mod browser;
pub mod client;
pub mod control;
pub mod counting;
pub mod fake_admin;
pub mod fake_worker;
pub mod frontend;
pub mod keeper;
pub mod load;
pub mod process;
pub mod relay;
pub mod successor;
pub mod tools;

use std::fs;
use std::io::{BufRead, BufReader, PipeReader};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, mpsc};
use std::time::{Duration, SystemTime};

use command_fds::{CommandFdExt, FdMapping};
use serde_json::Value;
use sticky_lb::internals::frontend::affinity::{Affinity, DigestKind, Prefixes};
use sticky_lb::internals::frontend::placement::Ranking;
use sticky_lb::protocol::ids::SlotId;

/// The descriptor that a primary under test writes its events to.
const EVENTS_FD: i32 = 900;

/// How long anything may take. Far more than needed, so that a slow machine fails no test.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = SystemTime::now();
    while !condition() {
        assert!(start.elapsed().unwrap_or_default() < TIMEOUT, "never came: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A primary under test, with its keeper. Dropping it kills both and all workers.
#[derive(Debug)]
pub struct Primary {
    /// The keeper, or the primary itself where it has none; or whatever has launched them.
    child: Child,
    /// The primary's own process, as it was seen last.
    primary: AtomicU32,
    directory: PathBuf,
    events: mpsc::Receiver<Value>,
    printed: Arc<Mutex<Vec<Vec<u8>>>>,
    reading: Arc<Mutex<()>>,
    command: String,
    port: u16,
    slots: u16,
}

/// How a primary is to be started.
#[derive(Debug, Default)]
pub struct Builder {
    slots: u16,
    arguments: Vec<String>,
    worker: Vec<String>,
    launcher: Vec<String>,
    /// Shell commands that are run before it.
    preparation: Option<String>,
    environment: Vec<(String, String)>,
    descriptors: Vec<OwnedFd>,
    output: Option<OwnedFd>,
    error_output: Option<OwnedFd>,
    events_output: Option<OwnedFd>,
}

impl Primary {
    /// With so many demo workers on a free port.
    pub fn with_workers(workers: u16) -> Builder {
        let arguments = ["--port", "0", "--workers"].map(str::to_owned).into();
        Builder { slots: workers, arguments, ..Builder::default() }
            .arguments(&[&workers.to_string()])
    }

    /// With these flags alone.
    pub fn from_flags(flags: &[&str]) -> Builder {
        Builder::default().arguments(flags)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address for clients of IPv4.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The process to send signals to: the keeper, or the primary where it has none.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The primary's own process; of several that followed each other, the last one.
    pub fn primary_pid(&self) -> u32 {
        if let Some(pid) = kept_primary(self.pid()) {
            self.primary.store(pid, Ordering::Relaxed);
        }
        match self.primary.load(Ordering::Relaxed) {
            0 => self.pid(),
            primary => primary,
        }
    }

    /// Kills the primary alone, and waits until it has a successor, which is returned.
    pub fn crash(&self) -> u32 {
        let mut before = 0;
        // In the middle of an upgrade it has no environment to be known by.
        eventually("a primary", || {
            before = self.primary_pid();
            process::state(before).is_some_and(|state| state != 'Z')
        });
        process::signal(before, process::Signal::KILL);
        let mut next = before;
        eventually("another primary", || {
            next = self.primary_pid();
            next != before
        });
        next
    }

    /// Kills keeper and primary, which may do nothing any more.
    pub fn kill_all(&self) {
        let both = [self.pid(), self.primary_pid()];
        // While it stands still, it cannot note the end of the other.
        for signal in [process::Signal::STOP, process::Signal::KILL] {
            both.iter().for_each(|pid| process::signal(*pid, signal));
        }
        eventually("the end of the primary", || {
            matches!(process::state(both[1]), None | Some('Z'))
        });
    }

    /// Waits for this event.
    pub fn wait_for_event(&self, event: &str) -> Value {
        loop {
            let line = self.events.recv_timeout(TIMEOUT);
            let line = line.unwrap_or_else(|error| panic!("no {event} event: {error}"));
            if line["event"] == event {
                return line;
            }
        }
    }

    /// The process of the worker that fills a slot; the newest one.
    pub fn worker(&self, slot: u16) -> u32 {
        let mut found = None;
        eventually("a worker in the slot", || {
            let newest = self.workers().into_iter().filter(|(_, filled, _)| *filled == slot);
            found = newest.max_by_key(|(_, _, generation)| *generation).map(|(pid, _, _)| pid);
            found.is_some()
        });
        found.unwrap_or_default()
    }

    /// All workers: pid, slot, generation.
    pub fn workers(&self) -> Vec<(u32, u16, u32)> {
        let session = process::group_and_session(self.pid()).map(|(_, session)| session);
        let mut children = process::children(self.pid());
        // Those of one that has crashed are its keeper's.
        if self.primary_pid() != self.pid() {
            children.extend(process::children(self.primary_pid()));
        }
        children
            .into_iter()
            .filter_map(|pid| {
                // What workers have left behind has another group or another session.
                let leads = process::group_and_session(pid)? == (pid, session?);
                let pid = leads.then_some(pid)?;
                let number = |name| process::variable(pid, name)?.parse::<u32>().ok();
                let slot = u16::try_from(number("STICKY_LB_SLOT")?).ok()?;
                Some((pid, slot, number("STICKY_LB_GENERATION")?))
            })
            .collect()
    }

    /// The directory that it and its workers run in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A client that belongs to a slot.
    pub fn client_of(&self, slot: u16) -> IpAddr {
        self.clients_of(slot, 1)[0]
    }

    /// Some clients that belong to a slot. They are looked for by the primary's own rule, without
    /// a connection.
    pub fn clients_of(&self, slot: u16, count: usize) -> Vec<IpAddr> {
        let ranking = Ranking::new(&vec![1.0; usize::from(self.slots)]);
        let affinity = Affinity::new(DigestKind::Md5, b"", Prefixes { v4: 32, v6: 64 });
        let belongs = |client: &IpAddr| ranking.first(affinity.key(*client)) == Some(SlotId(slot));
        (0..).map(client::nth).filter(belongs).take(count).collect()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Waits until it has logged `text`.
    pub fn wait_for_log(&self, text: &str) {
        eventually(&format!("log line {text:?}"), || self.log().contains(text));
    }

    /// Waits until a worker knows that its primary is gone.
    pub fn wait_for_no_primary(&self, worker: u32) {
        eventually("the end of the channel", || {
            let channel = process::descriptors(worker).into_iter().find(|(number, _)| *number == 3);
            channel.is_none() || process::is_adopted(worker, self.primary_pid())
        });
    }

    /// What workers have printed to standard output so far, as far as it was read: lines without their
    /// ends. What they print to standard error is in the log.
    pub fn printed(&self) -> Vec<Vec<u8>> {
        self.printed.lock().expect("the reader doesn't panic").clone()
    }

    /// Nobody reads its standard output while this is locked.
    pub fn reading(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.reading)
    }

    /// Sends a signal to the primary.
    pub fn signal(&self, signal: process::Signal) {
        process::signal(self.pid(), signal);
    }

    /// Sends a second wish to stop, which comes too late to be taken for the first one; that must have
    /// been heard.
    pub fn signal_again(&self, signal: process::Signal) {
        std::thread::park_timeout(Duration::from_millis(250));
        self.signal(signal);
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the end of the primary", || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.unwrap_or_default()
    }

    /// Stops it as an operator does, and returns its last line: what became of connections. Checks
    /// that it ended well and left nothing behind.
    pub fn stop(self) -> Value {
        self.signal(process::Signal::TERM);
        self.stop_finished()
    }

    /// As [`Self::stop`], of one that was told to stop before.
    pub fn stop_finished(mut self) -> Value {
        let workers = self.workers();
        let stopped = self.wait_for_event("stopped");
        assert_eq!(self.wait().code(), Some(0), "exit code");
        for (pid, slot, _) in workers {
            assert!(!process::exists(pid), "worker {pid} of slot {slot} outlived its primary");
        }
        stopped
    }
}

impl Builder {
    /// More flags.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// A worker of another kind than the demo.
    pub fn worker(mut self, command: &[&str]) -> Self {
        self.worker = command.iter().map(ToString::to_string).collect();
        self
    }

    /// A worker of `tests/workers/test_worker.rs` that plays `role`.
    pub fn test_worker(self, role: &[&str]) -> Self {
        let program = example("test_worker");
        self.worker(&[&[program.as_str()], role].concat())
    }

    /// Demo workers, but for slot 0, which runs `shell` first.
    pub fn slot_zero(self, shell: &str) -> Self {
        let demo = env!("CARGO_BIN_EXE_sticky-lb");
        let script =
            format!("if [ $STICKY_LB_SLOT = 0 ]; then {shell}; fi; exec {demo} demo-worker");
        self.worker(&["sh", "-c", &script])
    }

    /// Demo workers, but for slot 0, which plays a role of the test worker.
    pub fn slot_zero_plays(self, role: &str) -> Self {
        let program = example("test_worker");
        self.slot_zero(&format!("exec {program} {role}"))
    }

    /// The primary's limit of descriptors.
    pub fn descriptor_limit(self, limit: u64) -> Self {
        self.prepared_by(&[], &format!("ulimit -n {limit}"))
    }

    /// The soft one only, which can be raised again.
    pub fn soft_descriptor_limit(self, limit: u64) -> Self {
        self.prepared_by(&[], &format!("ulimit -S -n {limit}"))
    }

    /// Where it runs `shell` is run before, by a shell that `launcher` starts.
    pub fn prepared_by(mut self, launcher: &[&str], shell: &str) -> Self {
        let launcher = launcher.iter().map(ToString::to_string).collect();
        (self.launcher, self.preparation) = (launcher, Some(shell.to_owned()));
        self
    }

    /// Its standard output is this.
    pub fn output(mut self, output: impl Into<OwnedFd>) -> Self {
        self.output = Some(output.into());
        self
    }

    /// Its standard error is this; there is no log to look at then.
    pub fn error_output(mut self, output: impl Into<OwnedFd>) -> Self {
        self.error_output = Some(output.into());
        self
    }

    /// Its events go there; there are none to wait for then.
    pub fn events_output(mut self, output: impl Into<OwnedFd>) -> Self {
        self.events_output = Some(output.into());
        self
    }

    /// Starts it by a program that is given the command to run behind its own arguments.
    pub fn launcher(mut self, command: &[&str]) -> Self {
        self.launcher = command.iter().map(ToString::to_string).collect();
        self
    }

    /// A variable in its environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A descriptor that it inherits, from number 3 on.
    pub fn descriptor(mut self, descriptor: OwnedFd) -> Self {
        self.descriptors.push(descriptor);
        self
    }

    /// Starts it and waits until all workers serve.
    pub fn start(self) -> Primary {
        let primary = self.start_listening();
        primary.wait_for_event("ready");
        primary
    }

    /// Starts it and waits until it listens.
    pub fn start_listening(self) -> Primary {
        let mut primary = self.spawn();
        let listening = primary.wait_for_event("listening");
        primary.primary_pid();
        primary.port =
            listening["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
        primary
    }

    /// Starts it and waits until all workers serve, without its events: by its control socket.
    pub fn start_unheard(self) -> Primary {
        let (slots, mut primary) = (self.slots, self.spawn());
        eventually("a control socket", || {
            let files = fs::read_dir(&primary.directory).into_iter().flatten().flatten();
            let names = files.filter_map(|file| file.file_name().into_string().ok());
            let port = names.filter_map(|name| {
                name.strip_prefix("app-")?.strip_suffix(".sock")?.parse::<u16>().ok()
            });
            primary.port = port.last().unwrap_or(0);
            primary.port != 0
        });
        eventually("all workers", || {
            let status = primary.try_ask("status").unwrap_or_default();
            status["accepting"] == true && primary.serving().len() == usize::from(slots)
        });
        primary
    }

    /// Starts it and waits for nothing.
    pub fn spawn(mut self) -> Primary {
        let directory = own_directory();
        let log = fs::File::create(directory.join("log")).expect("a new file");
        let mut command = self.command();
        command.current_dir(&directory).process_group(0);
        // Its control socket, where nobody else looks; unless the test sets it itself.
        if !self.environment.iter().any(|(name, _)| name == "STICKY_LB_RUNTIME_DIR") {
            command.env("STICKY_LB_RUNTIME_DIR", &directory);
        }
        let output = self.output.take().map_or_else(Stdio::piped, Stdio::from);
        command.stdin(Stdio::null()).stdout(output);
        command.stderr(self.error_output.take().map_or_else(|| Stdio::from(log), Stdio::from));
        let (events, events_end) = std::io::pipe().expect("the kernel has a pipe left");
        let descriptors = std::mem::take(&mut self.descriptors).into_iter().zip(3..);
        let events_end = self.events_output.take().unwrap_or_else(|| events_end.into());
        let descriptors = descriptors.chain([(events_end, EVENTS_FD)]);
        let mappings = descriptors.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mappings.collect()).expect("each number comes once");
        let described = format!("{command:?}");
        let mut child = command.spawn().expect("the binary starts");
        // Holds what it has given to the child.
        drop(command);
        let (sender, received) = mpsc::channel();
        std::thread::spawn(move || read_events(events, &sender));
        let (printed, reading) = (Arc::default(), Arc::default());
        if let Some(output) = child.stdout.take() {
            let (printed, reading) = (Arc::clone(&printed), Arc::clone(&reading));
            std::thread::spawn(move || read(output, &printed, &reading));
        }
        let (events, command, port, slots) = (received, described, 0, self.slots);
        let primary = AtomicU32::default();
        Primary { child, primary, directory, events, printed, reading, command, port, slots }
    }

    /// Runs it to its end, and returns exit code and log.
    pub fn run(self) -> (Option<i32>, String) {
        let mut primary = self.spawn();
        (primary.wait().code(), primary.log())
    }

    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_sticky-lb");
        let prepared = self.preparation.as_ref().map(|preparation| {
            ["sh".to_owned(), "-c".to_owned(), format!("{preparation}; exec \"$0\" \"$@\"")]
        });
        let mut words = self.launcher.iter().chain(prepared.iter().flatten());
        let mut command = Command::new(words.next().map_or(binary, String::as_str));
        let words: Vec<_> = words.collect();
        if !self.launcher.is_empty() || prepared.is_some() {
            command.args(words).arg(binary);
        }
        command
            .env_remove("NO_COLOR")
            .env("LC_ALL", "C.UTF-8")
            .envs(self.environment.iter().cloned());
        command.args(["--events-fd", &EVENTS_FD.to_string()]).args(&self.arguments);
        if !self.worker.is_empty() {
            command.arg("--").args(&self.worker);
        }
        command
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}--- end of its log", self.command, self.log());
        }
        let primary = self.primary_pid();
        let mut left = process::children(self.pid());
        if primary != self.pid() && is_kept_by(primary, self.pid()) {
            left.extend(process::children(primary));
            left.push(primary);
        }
        // It may have ended already, and so may they.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in left {
            process::signal(pid, process::Signal::KILL);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The primary of a keeper.
fn kept_primary(keeper: u32) -> Option<u32> {
    process::children(keeper).into_iter().find(|pid| is_kept_by(*pid, keeper))
}

/// The check of a new program has the same variables, and is the keeper's child when its primary was killed.
fn is_kept_by(pid: u32, keeper: u32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_check = words.split(|byte| *byte == 0).nth(1) == Some(b"check");
    !is_check
        && process::state(pid).is_some_and(|state| state != 'Z')
        && process::variable(pid, "STICKY_LB_KEEPER") == Some(keeper.to_string())
}

/// Each line has to be an event. Ends when no process has the other end any more.
fn read_events(pipe: PipeReader, events: &mpsc::Sender<Value>) {
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        let event: Value = serde_json::from_str(&line).expect("a line of JSON");
        assert!(event["event"].is_string(), "{line}");
        if events.send(event).is_err() {
            return;
        }
    }
}

fn read(output: ChildStdout, printed: &Mutex<Vec<Vec<u8>>>, reading: &Mutex<()>) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        drop(reading.lock());
        printed.lock().expect("nobody panics with it").push(line);
    }
}

/// A new directory for one test.
pub fn own_directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).expect("the target directory is writable");
    directory
}

/// The path of an example, which is built first if need be: `cargo test --test NAME` does not.
pub fn example(name: &str) -> String {
    static BUILD: Once = Once::new();
    BUILD.call_once_force(|_| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--examples"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the examples don't build");
    });
    let binary = Path::new(env!("CARGO_BIN_EXE_sticky-lb"));
    let path = binary.with_file_name("examples").join(name);
    path.to_str().expect("a path of text").to_owned()
}

/// The program of `tests/peers`.
pub fn peers() -> String {
    static BUILD: Once = Once::new();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    BUILD.call_once_force(|_| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--manifest-path"]);
        build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/Cargo.toml"));
        build.arg("--target-dir").arg(&target);
        assert!(build.status().expect("cargo runs").success(), "tests/peers doesn't build");
    });
    target.join("debug/peers").to_str().expect("a path of text").to_owned()
}
