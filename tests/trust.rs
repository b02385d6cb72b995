//! Commands believe root's and their own user's primaries only, wait for nobody for ever, and show nothing
//! that steers a terminal. Needs root, like `tests/processes.rs`: strangers are other users.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use common::{Primary, TIMEOUT, eventually, own_directory};
use serde_json::json;
use sticky_lb::internals::control::report::{Event, LogLine, Status};

/// The user of strangers.
const STRANGER: u32 = 65534;

/// Answers everything as somebody would who wants to be believed. `$1` is the socket.
const LIAR: &str = r#"
import json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(9)
os.chmod(sys.argv[1], 0o777)
while True:
    client = listener.accept()[0]
    try:
        client.recv(4096)
        client.sendall(b'{"done":{"from":1,"to":4,"deferred":false,"name":"app"}}\n')
        client.close()
    except OSError:
        pass
"#;

struct Liar(Child);

impl Liar {
    fn at(path: &Path) -> Self {
        let liar = Command::new("python3").args(["-c", LIAR]).arg(path).spawn().unwrap();
        eventually("somebody listens", || UnixStream::connect(path).is_ok());
        Self(liar)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn folder(owner: u32, mode: u32) -> PathBuf {
    let path = own_directory();
    chown(&path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

fn run(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
    command.args(words).env("STICKY_LB_RUNTIME_DIR", folder).stdin(Stdio::null());
    command.output().unwrap()
}

/// What a command that fails complains about.
fn complaint(folder: &Path, words: &[&str]) -> String {
    let output = run(folder, words);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words:?}: {errors}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{words:?}");
    errors
}

#[test]
fn a_strangers_socket_is_not_believed() {
    for (owner, mode) in [(STRANGER, 0o755), (0, 0o1777), (0, 0o775)] {
        let place = folder(owner, mode);
        if mode == 0o775 {
            chown(&place, Some(0), Some(STRANGER)).unwrap();
        }
        let socket = place.join("app-3000.sock");
        let _liar = Liar::at(&socket);
        let said = complaint(&place, &["scale", "4"]);
        assert!(said.contains("no running primary found"), "{said}");
        let refused = "belongs to another user or is writable by others";
        assert!(said.contains(&format!("directory {place:?} {refused}")), "{said}");
        let said = complaint(&place, &["scale", "4", "--control", socket.to_str().unwrap()]);
        assert!(said.contains("is served by user 65534, and only root's"), "{said}");
    }
    // In a folder of root's, its socket is passed over.
    let place = folder(0, 0o755);
    let elsewhere = folder(STRANGER, 0o755);
    let _liar = Liar::at(&elsewhere.join("app-1.sock"));
    std::os::unix::fs::symlink(elsewhere.join("app-1.sock"), place.join("app-1.sock")).unwrap();
    let runtime = place.to_str().unwrap();
    let primary = Primary::with_workers(1).environment("STICKY_LB_RUNTIME_DIR", runtime).start();
    let found: Status = serde_json::from_slice(&run(&place, &["status", "--json"]).stdout).unwrap();
    assert_eq!(found.pid, primary.pid());
    primary.stop();
}

/// Runs a command as this user, who is no other than root otherwise.
fn run_as(
    user: u32,
    environment: &[(&str, &str)],
    words: &[&str],
) -> (Option<i32>, String, String) {
    let user = user.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--inh-caps=-all"]);
    command.arg(env!("CARGO_BIN_EXE_sticky-lb")).args(words).stdin(Stdio::null());
    for name in ["STICKY_LB_RUNTIME_DIR", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "SUDO_UID"] {
        command.env_remove(name);
    }
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_user_who_may_not_speak_to_a_primary_learns_who_may() {
    let place = folder(0, 0o700);
    let runtime = place.to_str().unwrap();
    let primary = Primary::with_workers(1).environment("STICKY_LB_RUNTIME_DIR", runtime).start();
    let environment = [("STICKY_LB_RUNTIME_DIR", runtime)];
    // The folder is closed, then the socket in it.
    for mode in [0o700, 0o755] {
        fs::set_permissions(&place, Permissions::from_mode(mode)).unwrap();
        let (code, _, said) = run_as(STRANGER, &environment, &["status"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.starts_with(&format!("sticky-lb: may not read {runtime}")), "{said}");
        assert!(said.contains("(user 0): run as root or as its user"), "{said}");
        assert!(!said.contains("no running primary"), "{said}");
    }
    let socket = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path());
    let socket = socket.into_iter().find(|path| path.extension().is_some_and(|it| it == "sock"));
    let socket = socket.unwrap();
    let words = ["status", "--control", socket.to_str().unwrap()];
    let (_, _, said) = run_as(STRANGER, &environment, &words);
    assert!(said.contains("run as root or as its user"), "{said}");
    primary.stop();
}

#[test]
fn root_finds_the_primary_of_the_user_who_has_called_sudo_and_names_those_of_others() {
    const NAME: &str = "found-by-sudo";
    let user = STRANGER.to_string();
    let launcher =
        ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--inh-caps=-all"];
    let primary = Primary::with_workers(1)
        .arguments(&["--name", NAME])
        .launcher(&launcher)
        .environment("STICKY_LB_RUNTIME_DIR", "")
        .environment("XDG_RUNTIME_DIR", "")
        .start();
    let words = ["status", "--json", "--name", NAME];
    let (code, found, said) = run_as(0, &[("SUDO_UID", &user)], &words);
    assert_eq!(code, Some(0), "{said}");
    let found: Status = serde_json::from_str(&found).unwrap();
    assert_eq!((found.pid, found.name.as_str()), (primary.pid(), NAME));
    let (code, _, said) = run_as(0, &[], &words);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("sudo -u '#{user}'")), "{said}");
    primary.stop();
}

/// A socket of this user's that plays a primary: `answer` is what it says once it has said how it is.
fn play(answer: impl Fn(&mut UnixStream) + Send + Sync + 'static) -> PathBuf {
    let place = folder(0, 0o755);
    let listener = UnixListener::bind(place.join("play-1.sock")).unwrap();
    thread::spawn(move || {
        let status =
            Status { name: "play\x1b]0;x\x07".into(), accepting: true, ..Status::default() };
        let status = format!("{}\n", json!({"done": status}));
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            BufReader::new(&client).read_line(&mut line).unwrap();
            if line.contains("\"status\"") {
                let _ = client.write_all(status.as_bytes());
            } else {
                answer(&mut client);
            }
        }
    });
    place
}

#[test]
fn an_answer_that_never_ends_ends_the_command() {
    // In time, whatever trickles in.
    let place = play(|client| {
        while client.write_all(b"{").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let started = SystemTime::now();
    assert!(complaint(&place, &["describe", "0"]).contains("does not answer in time"));
    assert!(started.elapsed().unwrap() < TIMEOUT);
    // In memory.
    let place = play(|client| while client.write_all(&[b' '; 65536]).is_ok() {});
    assert!(complaint(&place, &["reload"]).contains("has a line of more than"));
    // And one that has begun and stays silent, of a command that waits.
    let place = play(|client| {
        let _ = client.write_all(b"{\"item\":");
        let _ = client.read(&mut [0]);
    });
    assert!(complaint(&place, &["restart", "0"]).contains("does not answer in time"));
}

#[test]
fn a_primary_that_stands_still_is_not_waited_for() {
    let place = folder(0, 0o755);
    let socket = place.join("app-1.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    for words in [&["reload"][..], &["events", "-f"], &["drain", "1", "--wait"]] {
        let words = [words, &["--control", socket.to_str().unwrap()]].concat();
        assert!(complaint(&place, &words).contains("does not answer in time"), "{words:?}");
    }
}

#[test]
fn nothing_that_is_answered_steers_the_terminal() {
    let texts = ["\x1b]0;owned\x07", "\x1b[2J", "\u{9b}2J", "\r"].concat();
    let line = LogLine { text: format!("{texts}\x1b[31mred"), ..LogLine::default() };
    let line = json!({"item": line});
    let event = json!({"item": Event { text: texts.clone(), ..Event::default() }});
    let problem = json!({"error": {"code": "failed", "message": texts}});
    let done = json!({"done": {"levels": texts}});
    for (words, answer) in [
        (&["logs"][..], format!("{line}\n{done}\n")),
        (&["logs", "--json"], format!("{line}\n{done}\n")),
        (&["events"], format!("{event}\n{done}\n")),
        (&["log-level"], format!("{done}\n")),
        (&["kill", "0"], format!("{problem}\n")),
        (&["status"], "{\"done\":[]}\n".to_owned()),
        (&["status", "--name", "\x1b[2J"], String::new()),
    ] {
        let place = play(move |client| drop(client.write_all(answer.as_bytes())));
        let pair = nix::pty::openpty(None, None).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
        command.args(words).env("STICKY_LB_RUNTIME_DIR", &place).stdin(Stdio::null());
        command.stdout(pair.slave.try_clone().unwrap()).stderr(pair.slave);
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut seen = Vec::new();
        // At its end the kernel says that there is no terminal any more.
        let _ = File::from(pair.master).read_to_end(&mut seen);
        child.wait().unwrap();
        let seen = String::from_utf8(seen).unwrap().replace("\r\n", "\n");
        assert!(!seen.is_empty(), "{words:?}");
        for wrong in ["\x1b]", "\x1b[2J", "\u{9b}", "\x07", "\r"] {
            assert!(!seen.contains(wrong), "{words:?}: {wrong:?} in {seen:?}");
        }
    }
}

/// The environment of a machine whose /tmp and /run are of its own.
fn machine(words: &[&str], script: &str) -> Output {
    let script = format!(
        "set -e; mount -t tmpfs -o mode=1777 none /tmp; mount -t tmpfs none /run; {script}"
    );
    let mut command = Command::new("unshare");
    // All of it ends with the shell.
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_sticky-lb")]);
    command.args(words).env_remove("STICKY_LB_RUNTIME_DIR").env_remove("RUNTIME_DIRECTORY");
    command.env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null()).output().unwrap()
}

const AS_DAEMON: &str = "setpriv --reuid 1 --regid 1 --clear-groups";

/// A primary is started, seen by `status`, and stopped; then what is in /tmp is listed.
fn seen_and_stopped(prefix: &str) -> String {
    format!(
        "{prefix} \"$1\" --workers 1 --port 0 2>/tmp/log & \
         for i in $(seq 200); do {prefix} \"$1\" status >/tmp/status 2>/tmp/errors && break; sleep 0.1; done; \
         cat /tmp/status; ls -l /tmp | grep ^d || true; {prefix} \"$1\" stop; wait; cat /tmp/log"
    )
}

#[test]
fn a_runtime_directory_that_a_stranger_has_made_is_neither_used_nor_believed() {
    let script = format!(
        "mkdir -m 777 /tmp/sticky-lb-1 && chown 65534 /tmp/sticky-lb-1; {}",
        seen_and_stopped(AS_DAEMON)
    );
    let output = machine(&[], &script);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("control:     /tmp/sticky-lb-1-"), "{text}");
    assert!(text.contains("another user has taken the runtime directory"), "{text}");
    let own = text.lines().find(|line| line.contains("sticky-lb-1-") && line.starts_with('d'));
    assert!(own.is_some_and(|line| line.starts_with("drwx------")), "{text}");
}

#[test]
fn root_uses_no_runtime_directory_of_another_user() {
    let script = format!(
        "mkdir -p /run/user/1000 && chown 1000 /run/user/1000; export XDG_RUNTIME_DIR=/run/user/1000; {}",
        seen_and_stopped("")
    );
    let output = machine(&[], &script);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.contains("control:     /run/sticky-lb/app-"), "{text} {output:?}");
    // And is not told lies in /tmp.
    let script = "mkdir /tmp/sticky-lb-1 && chown 1 /tmp/sticky-lb-1; \
                  setpriv --reuid 1 --regid 1 --clear-groups \"$1\" --workers 1 --port 0 2>/tmp/log & \
                  for i in $(seq 200); do [ -e /tmp/sticky-lb-1/*.sock ] && break; sleep 0.1; done; \
                  \"$1\" scale 4 || echo code $?; setpriv --reuid 1 --regid 1 --clear-groups \"$1\" stop";
    let output = machine(&[], script);
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("code 1"), "{text} {errors}");
    assert!(errors.contains("no running primary found"), "{text} {errors}");
}

#[test]
fn root_finds_what_systemd_has_given_to_a_units_user() {
    let script = format!(
        "mkdir -p /run/sticky-lb/app && chown 1 /run/sticky-lb/app; \
         RUNTIME_DIRECTORY=/run/sticky-lb/app {AS_DAEMON} \"$1\" --workers 1 --port 0 2>/tmp/log & \
         for i in $(seq 200); do \"$1\" status && break; sleep 0.1; done; \"$1\" stop"
    );
    let output = machine(&[], &script);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("control:     /run/sticky-lb/app/app-"), "{text} {output:?}");
    assert!(text.contains("primary has ended"), "{text}");
}
