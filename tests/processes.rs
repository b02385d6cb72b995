//! Worker processes: their surroundings as the kernel shows them, and what becomes of all that they
//! start. Needs root: workers of other users are what it is about.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use common::client::ask;
use common::process::{Signal, children, exists, signal, state, variable};
use common::{Builder, Primary, eventually};
use sticky_lb::internals::link::inherit::Inherit;
use sticky_lb::internals::link::seam::WorkerId;
use sticky_lb::internals::supervisor::command::{InheritedVariables, User, WorkerCommand};
use sticky_lb::internals::supervisor::process::Process;
use sticky_lb::internals::supervisor::sample;
use sticky_lb::protocol::ids::{Generation, SlotId};

/// A worker of slot 0 that has started processes which write down who they are, and the demo in
/// its place then. `$1` is the directory.
fn with_descendants(scripts: &str) -> Builder {
    Primary::with_workers(2).slot_zero(scripts)
}

/// In the worker's group; out of it; out of it by a double fork.
const DESCENDANTS: &str = "sleep 1000 & echo $! >> pids; \
    setsid sh -c 'echo $$ >> pids; sleep 1000 & echo $! >> pids; wait' & \
    (setsid sh -c 'echo $$ >> pids; exec sleep 1000' &)";

/// The processes that workers have written down, once there are so many.
fn written_down(directory: &Path, count: usize) -> Vec<u32> {
    let mut pids = Vec::new();
    eventually("descendants have started", || {
        let text = fs::read_to_string(directory.join("pids")).unwrap_or_default();
        pids = text.lines().filter_map(|line| line.parse().ok()).collect();
        pids.len() >= count
    });
    pids
}

fn status_line(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_worker_runs_as_its_user_with_its_umask_niceness_and_directory() {
    let primary = Primary::with_workers(1)
        .arguments(&["--user", "daemon", "--umask", "027", "--nice", "-3", "--cwd", "/var"])
        .start();
    let worker = primary.worker(0);
    assert_eq!(status_line(worker, "Uid:"), "1 1 1 1");
    assert_eq!(status_line(worker, "Gid:"), "1 1 1 1");
    assert_eq!(status_line(worker, "Groups:"), "1");
    assert_eq!(status_line(worker, "Umask:"), "0027");
    assert_eq!(status_line(worker, "CapEff:"), "0000000000000000");
    let stat = fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
    assert_eq!(stat.rsplit_once(") ").unwrap().1.split(' ').nth(16), Some("-3"), "{stat}");
    assert_eq!(fs::read_link(format!("/proc/{worker}/cwd")).unwrap(), Path::new("/var"));
    for name in ["USER", "LOGNAME"] {
        assert_eq!(variable(worker, name).as_deref(), Some("daemon"), "{name}");
    }
    assert_eq!(variable(worker, "HOME").as_deref(), Some("/usr/sbin"));
    assert_eq!(status_line(primary.pid(), "Uid:"), "0 0 0 0");
    ask(common::client::nth(0), primary.address());
    primary.stop();
}

#[test]
fn a_worker_with_a_user_of_its_own_gains_no_rights_unless_that_is_wanted() {
    const NONE: &str = "0000000000000000";
    let own = status_line(std::process::id(), "CapBnd:");
    for (arguments, no_new_privs, bounding) in [
        (&["--user", "daemon"][..], "1", NONE),
        (&[], "0", own.as_str()),
        (&["--user", "root"], "1", &own),
        (&["--user", "daemon", "--no-new-privs=false"], "0", NONE),
        (&["--user", "daemon", "--drop-capabilities=false"], "1", &own),
        (&["--no-new-privs", "--drop-capabilities"], "1", NONE),
    ] {
        let primary = Primary::with_workers(1).arguments(arguments).start();
        let worker = primary.worker(0);
        assert_eq!(status_line(worker, "NoNewPrivs:"), no_new_privs, "{arguments:?}");
        for set in ["CapBnd:", "CapAmb:", "CapInh:"] {
            let expected = if set == "CapBnd:" { bounding } else { NONE };
            assert_eq!(status_line(worker, set), expected, "{arguments:?} {set}");
        }
        assert_eq!(status_line(primary.pid(), "CapBnd:"), own, "the primary keeps its own");
        ask(common::client::nth(0), primary.address());
        primary.stop();
    }
}

#[test]
fn a_worker_that_prints_events_forges_none() {
    const LINE: &str = r#"{"event":"stopped","how":"forged"}"#;
    let demo = env!("CARGO_BIN_EXE_sticky-lb");
    let shell = format!("echo '{LINE}'; echo '{LINE}' >&2; exec {demo} demo-worker");
    let primary = Primary::with_workers(2).worker(&["sh", "-c", &shell]).start();
    eventually("both have printed", || primary.printed().len() == 2);
    assert!(primary.printed().iter().all(|line| line == LINE.as_bytes()));
    primary.wait_for_log(LINE);
    // No worker has the pipe of events, under whatever number.
    let is_own = |(number, target): &(i32, String)| *number <= 2 || !target.starts_with("pipe:");
    assert!(common::process::descriptors(primary.worker(0)).iter().all(is_own));
    let stopped = primary.stop();
    assert_eq!(stopped["how"], "graceful", "the first of its kind is the primary's");
}

#[test]
fn a_start_that_fails_says_at_which_step() {
    for (arguments, worker, expected) in [
        (
            &["--cwd", "/root", "--user", "daemon"][..],
            "true",
            "cannot change to directory /root: Permission denied",
        ),
        (&[], "no-such-program", "command \"no-such-program\": no such file in PATH"),
        (&["--cwd", "/etc"], "./no-such-program", "No such file or directory (os error 2)"),
        (&["--cwd", "/etc"], "./passwd", "Permission denied"),
    ] {
        let (code, log) = Primary::with_workers(1).arguments(arguments).worker(&[worker]).run();
        let last = log.lines().last().unwrap_or_default();
        assert_eq!(code, Some(1), "{log}");
        assert!(last.contains(expected), "{last:?}, expected {expected:?}");
    }
}

#[test]
fn a_script_without_its_interpreter_is_said_so() {
    let script = common::own_directory().join("worker");
    fs::write(&script, "#!/nonexistent/node\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    let (_, log) = Primary::with_workers(1).worker(&[script.to_str().unwrap()]).run();
    assert!(log.contains("the interpreter or loader that it names does not exist"), "{log}");
}

#[test]
fn nobody_but_root_may_run_workers_as_somebody_else() {
    for (arguments, expected) in [
        (&["--user", "daemon"][..], "cannot become user daemon: run as root"),
        (&["--nice", "-5"], "cannot set niceness -5: run as root"),
        (&["--drop-capabilities"], "--drop-capabilities: needs CAP_SETPCAP: run as root"),
    ] {
        let (code, log) =
            Primary::with_workers(1).arguments(arguments).launcher(UNPRIVILEGED).run();
        assert!(matches!(code, Some(1 | 2)), "{log}");
        assert!(log.contains(expected), "{log}");
    }
    // Who is that user already needs no privilege.
    Primary::with_workers(1).arguments(&["--user", "nobody"]).launcher(UNPRIVILEGED).start().stop();
}

const UNPRIVILEGED: &[&str] =
    &["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--inh-caps=-all"];

#[test]
fn a_worker_inherits_no_variable_that_is_the_primarys_own_or_filtered() {
    let primary = Primary::with_workers(1)
        .arguments(&["--filter-env", "SECRET_", "--filter-env", "AWS_"])
        .launcher(&[
            "env",
            "SECRET_A=1",
            "AWS_B=2",
            "KEPT=3",
            "WEB_CONCURRENCY=4",
            "WATCHDOG_USEC=5",
            "NODE_CHANNEL_FD=6",
            "PORT=7",
        ])
        .start();
    let worker = primary.worker(0);
    for name in ["SECRET_A", "AWS_B", "WEB_CONCURRENCY", "WATCHDOG_USEC", "NODE_CHANNEL_FD"] {
        assert_eq!(variable(worker, name), None, "{name}");
    }
    assert_eq!(variable(worker, "KEPT").as_deref(), Some("3"));
    assert_eq!(variable(worker, "PORT"), Some(primary.port().to_string()));
}

#[test]
fn signals_are_as_by_default_in_workers_whatever_the_primary_was_started_with() {
    // A shell ignores SIGINT and SIGQUIT for what it runs in the background; nohup SIGHUP.
    let ignoring = &["sh", "-c", "trap '' HUP INT QUIT PIPE USR1; exec \"$0\" \"$@\""];
    let primary = Primary::with_workers(1)
        .launcher(ignoring)
        .worker(&["sh", "-c", &format!("exec {} never-attaches", common::example("test_worker"))])
        .arguments(&["--listen-timeout", "1h"])
        .start_listening();
    let worker = primary.worker(0);
    eventually("the worker runs its program", || status_line(worker, "Name:") == "test_worker");
    assert_eq!(status_line(worker, "SigBlk:"), "0000000000000000");
    // Rust ignores SIGPIPE (13) itself; 32 and 33 are the C library's own.
    eventually("SIGPIPE alone is ignored", || {
        let ignored = u64::from_str_radix(&status_line(worker, "SigIgn:"), 16).unwrap();
        ignored & !(0b11 << 31) == 1 << 12
    });
}

#[tokio::test]
async fn what_is_configured_reaches_the_process() {
    let output = common::own_directory().join("environment");
    let environment = [("A", "configured"), ("PORT", "1"), ("OUT", output.to_str().unwrap())];
    let command = WorkerCommand {
        program: "sh".into(),
        arguments: ["-c", "env > $OUT.new; mv $OUT.new $OUT; exec sleep 1000"]
            .map(Into::into)
            .into(),
        environment: environment.map(|(name, value)| (name.into(), value.into())).into(),
        inherited: InheritedVariables::Few,
        user: Some(User { name: None, home: None, uid: 0, gid: 0, groups: vec![0, 4, 27] }),
        ..WorkerCommand::default()
    };
    let process = start(&command);
    eventually("the worker has written", || output.exists());
    let text = fs::read_to_string(&output).unwrap();
    let names: HashSet<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    assert!(names.contains(&("A", "configured")) && names.contains(&("PORT", "3000")), "{text}");
    assert!(!text.contains("CARGO"), "{text}");
    let pid = u32::try_from(process.pid()).unwrap();
    assert_eq!(status_line(pid, "Groups:"), "0 4 27");
    process.signal(Signal::KILL);
    process.ended().await;
    process.reap().unwrap();
    assert!(process.reap().is_err(), "a status is taken twice");
}

#[tokio::test]
async fn a_sample_counts_what_a_worker_has_started() {
    let command = WorkerCommand {
        program: "sh".into(),
        arguments: [
            "-c",
            "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; \
             python3 -c 'import time; held = b\"x\" * (64 << 20); time.sleep(1000)' & wait",
        ]
        .map(Into::into)
        .into(),
        ..WorkerCommand::default()
    };
    let process = start(&command);
    let pid = process.pid();
    eventually("the memory of the grandchild", || sample::memory(pid) > Some(64 << 20));
    assert!(sample::cpu_time(pid) > Some(std::time::Duration::from_millis(30)));
    process.signal(Signal::KILL);
    process.ended().await;
    process.reap().unwrap();
    assert_eq!(sample::memory(pid), None);
}

fn start(command: &WorkerCommand) -> Process {
    let worker = WorkerId { slot: SlotId(0), generation: Generation(0) };
    Process::start(command, 3000, worker, Inherit::default()).unwrap().0
}

#[test]
fn nothing_that_a_worker_has_started_outlives_the_end() {
    let primary = with_descendants(DESCENDANTS).start();
    let pids = written_down(primary.directory(), 4);
    assert!(pids.iter().all(|pid| exists(*pid)));
    primary.stop();
    assert_gone(&pids);
}

#[test]
fn nothing_that_a_worker_has_started_outlives_its_kill() {
    let primary = with_descendants(DESCENDANTS).start();
    let pids = written_down(primary.directory(), 4);
    let worker = primary.worker(0);
    signal(worker, Signal::KILL);
    eventually("all descendants are gone", || pids.iter().all(|pid| !exists(*pid)));
    // Those of its successor, which has started the same, are left alone.
    let all = written_down(primary.directory(), 8);
    assert!(all[4..].iter().all(|pid| exists(*pid) && state(*pid) != Some('Z')));
    eventually("no zombie", || {
        children(primary.primary_pid()).iter().all(|pid| state(*pid) != Some('Z'))
    });
    primary.stop();
    assert_gone(&all);
}

#[test]
fn nothing_that_a_worker_has_started_outlives_a_kill_at_the_end_of_grace() {
    let stubborn = format!("{DESCENDANTS}; trap '' TERM; sleep 1000");
    let primary = with_descendants(&stubborn)
        .arguments(&["--kill-timeout", "200ms", "--listen-timeout", "1h"])
        .start_listening();
    let pids = written_down(primary.directory(), 4);
    primary.signal(Signal::TERM);
    primary.stop_finished();
    assert_gone(&pids);
}

#[test]
fn nothing_is_left_when_no_worker_gets_ready() {
    let mut primary = Primary::with_workers(1)
        .worker(&["sh", "-c", &format!("{DESCENDANTS}; sleep 0.1; exit 3")])
        .spawn();
    let pids = written_down(primary.directory(), 4);
    assert_eq!(primary.wait().code(), Some(1));
    assert_gone(&pids);
    assert_gone(&written_down(primary.directory(), 4));
}

#[test]
fn orphans_of_a_living_worker_are_left_alone_and_reaped() {
    let primary = with_descendants(
        "(setsid sh -c 'echo $$ >> pids; while [ ! -e end ]; do sleep 0.02; done' &)",
    )
    .start();
    let orphan = written_down(primary.directory(), 1)[0];
    eventually("it comes to the primary", || children(primary.primary_pid()).contains(&orphan));
    // Another worker's end is no reason to end it.
    let other = primary.worker(1);
    signal(other, Signal::KILL);
    eventually("a successor", || primary.worker(1) != other);
    primary.wait_for_log("slot=1 generation=1");
    assert!(exists(orphan) && state(orphan) != Some('Z'));
    fs::write(primary.directory().join("end"), "").unwrap();
    eventually("it is reaped", || !exists(orphan));
    assert_eq!(primary.workers().len(), 2);
    primary.stop();
}

#[test]
fn what_was_there_before_the_primary_is_not_its_to_end() {
    let primary = Primary::with_workers(1)
        .launcher(&["sh", "-c", "sleep 1000 & echo $! > pids; exec \"$0\" \"$@\""])
        .start();
    let before = written_down(primary.directory(), 1)[0];
    primary.stop();
    assert!(exists(before));
    signal(before, Signal::KILL);
}

#[test]
fn an_orphan_that_hides_whose_it_is_ends_with_the_primary() {
    let primary =
        with_descendants("(setsid env -i sh -c 'echo $$ >> pids; exec sleep 1000' &)").start();
    let orphan = written_down(primary.directory(), 1);
    primary.stop();
    assert_gone(&orphan);
}

#[test]
fn max_is_as_many_workers_as_processors_may_be_used() {
    let allowed = status_line(std::process::id(), "Cpus_allowed_list:");
    let first = allowed.split(['-', ',']).next().unwrap();
    let primary = Primary::with_workers(1)
        .arguments(&["--workers", "max"])
        .launcher(&["taskset", "--cpu-list", first])
        .start_listening();
    assert_eq!(primary.wait_for_event("ready")["workers"], 1);
    primary.stop();
}

/// As in a container.
const AS_PID_1: &[&str] =
    &["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// PID 1, which the launcher has started, and the primary: its child if it is a keeper.
fn first_and_primary(primary: &Primary, has_keeper: bool) -> (u32, u32) {
    let first = children(primary.pid())[0];
    assert_eq!(status_line(first, "NSpid:").split(' ').nth(1), Some("1"));
    (first, if has_keeper { children(first)[0] } else { first })
}

#[test]
fn the_primary_does_the_duty_of_pid_1() {
    for has_keeper in [true, false] {
        let orphan = "(setsid sh -c 'sleep 0.1' &); (setsid sleep 1000 &)";
        let mut primary = with_descendants(orphan)
            .arguments(&[&format!("--keeper={has_keeper}")])
            .launcher(AS_PID_1)
            .start();
        let (first, own) = first_and_primary(&primary, has_keeper);
        eventually("the orphan that ends is reaped", || {
            let children = children(own);
            children.len() == 3 && children.iter().all(|pid| state(*pid) != Some('Z'))
        });
        ask(common::client::nth(0), primary.address());
        let all = children(own);
        signal(first, Signal::TERM);
        primary.wait_for_event("stopped");
        assert_eq!(primary.wait().code(), Some(0));
        assert_gone(&all);
    }
}

#[test]
fn as_pid_1_a_second_signal_ends_it_at_once() {
    for has_keeper in [true, false] {
        let mut primary = Primary::with_workers(1)
            .arguments(&["--listen-timeout", "1h", "--kill-timeout", "1h"])
            .arguments(&[&format!("--keeper={has_keeper}")])
            .launcher(AS_PID_1)
            .worker(&["sh", "-c", "trap '' TERM; echo $$ >> pids; while :; do sleep 0.05; done"])
            .start_listening();
        written_down(primary.directory(), 1);
        let (first, _) = first_and_primary(&primary, has_keeper);
        signal(first, Signal::INT);
        primary.wait_for_log("stopping gracefully");
        std::thread::park_timeout(std::time::Duration::from_millis(250));
        signal(first, Signal::TERM);
        assert_eq!(primary.wait().code(), Some(0));
    }
}

fn assert_gone(pids: &[u32]) {
    let left: Vec<_> = pids.iter().filter(|pid| exists(**pid)).collect();
    assert!(left.is_empty(), "{left:?} of {pids:?} are left");
}
