//! Keeper and primary in a terminal, where a person presses keys.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::common::process::{Signal, children, group_and_session, signal, state};
use crate::common::{eventually, own_directory};

/// A shell with job control. Dropping it ends it.
struct Terminal {
    shell: Child,
    /// None once it is closed.
    keyboard: Option<File>,
    shown: Arc<Mutex<String>>,
    is_closed: Arc<AtomicBool>,
    screen: Option<JoinHandle<()>>,
}

impl Terminal {
    fn open() -> Self {
        let pair = nix::pty::openpty(None, None).expect("the kernel has a terminal left");
        // Whoever has this end, too, would keep the terminal open.
        fcntl_setfd(&pair.master, FdFlags::CLOEXEC).unwrap();
        let clone = || pair.slave.try_clone().unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "sh", "-i"]).current_dir(own_directory());
        command.env("PS1", "").env("STICKY_LB_RUNTIME_DIR", own_directory());
        command.stdin(clone()).stdout(clone()).stderr(clone());
        let shell = command.spawn().unwrap();
        let keyboard = File::from(pair.master);
        let mut screen = keyboard.try_clone().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let is_closed = Arc::<AtomicBool>::default();
        let (text, ended) = (Arc::clone(&shown), Arc::clone(&is_closed));
        let screen = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !ended.load(Ordering::Relaxed) {
                let mut polled = [PollFd::new(&screen, PollFlags::IN)];
                let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                if poll(&mut polled, Some(&pause)).unwrap() == 0 {
                    continue;
                }
                let Ok(length @ 1..) = screen.read(&mut bytes) else { return };
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self { shell, keyboard: Some(keyboard), shown, is_closed, screen: Some(screen) }
    }

    /// Closes the window.
    fn close(&mut self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.screen.take().unwrap().join().unwrap();
        self.keyboard = None;
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    fn wait_for(&self, text: &str) {
        eventually(text, || self.shown.lock().unwrap().contains(text));
    }

    /// The keeper that the shell has started, and its primary.
    fn keeper_and_primary(&self) -> [u32; 2] {
        let keeper = children(self.shell.id())[0];
        [keeper, children(keeper)[0]]
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        for pid in children(self.shell.id()) {
            children(pid).into_iter().for_each(|pid| signal(pid, Signal::KILL));
            signal(pid, Signal::KILL);
        }
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn keys_that_pause_and_end_a_program_do_so_with_both() {
    let mut terminal = Terminal::open();
    let binary = env!("CARGO_BIN_EXE_sticky-lb");
    terminal.press(&format!("{binary} --workers 1 --port 0; echo code=$?\n"));
    terminal.wait_for(" 1 worker ready ");
    let both = terminal.keeper_and_primary();
    let group = |pid: u32| group_and_session(pid).unwrap();
    assert_eq!(group(both[0]).1, group(both[1]).1, "session");
    assert_ne!(group(both[0]).0, group(both[1]).0, "group");
    let stands_still = || both.map(|pid| state(pid) == Some('T'));
    for _ in 0..2 {
        terminal.press("\x1a");
        eventually("both stand still", || stands_still() == [true, true]);
        terminal.press("fg\n");
        eventually("both go on", || stands_still() == [false, false]);
    }
    terminal.press("\x03");
    terminal.wait_for("sticky-lb served 0 connections in ");
    terminal.wait_for("code=");
    eventually("both are gone", || both.iter().all(|pid| state(*pid).is_none()));
    let shown = terminal.shown.lock().unwrap();
    assert_eq!(shown.matches("signal received").count(), 1, "{shown}");
}

#[test]
fn a_terminal_that_wants_to_stop_who_is_not_in_front_does_not_stop_the_primary() {
    let mut terminal = Terminal::open();
    let binary = env!("CARGO_BIN_EXE_sticky-lb");
    terminal.press(&format!("stty tostop; exec {binary} --workers 2 --port 0\n"));
    terminal.wait_for(" 2 workers ready ");
    let [keeper, own] = [terminal.shell.id(), children(terminal.shell.id())[0]];
    let scalings = || terminal.shown.lock().unwrap().matches(" scaled ").count();
    for (pid, before) in [(keeper, 0), (own, 2)] {
        signal(pid, Signal::TTOU);
        eventually("one fewer", || scalings() == before + 1);
        signal(pid, Signal::TTIN);
        eventually("one more", || scalings() == before + 2);
    }
    terminal.press("\x03");
    terminal.wait_for("sticky-lb served 0 connections in ");
    eventually("its keeper is gone", || state(keeper) == Some('Z'));
}

#[test]
fn without_a_shell_that_could_let_it_go_on_nothing_is_paused() {
    let mut terminal = Terminal::open();
    let binary = env!("CARGO_BIN_EXE_sticky-lb");
    // The only group of its session.
    terminal.press(&format!("exec {binary} --workers 1 --port 0\n"));
    terminal.wait_for(" 1 worker ready ");
    let own = children(terminal.shell.id())[0];
    terminal.press("\x1a\x03");
    terminal.wait_for("sticky-lb served 0 connections in ");
    eventually("the primary is gone", || state(own).is_none());
    eventually("its keeper is gone", || state(terminal.shell.id()) == Some('Z'));
}

/// Whether a process has ended, whoever reaps it.
fn has_ended(pid: u32) -> bool {
    matches!(state(pid), None | Some('Z'))
}

#[test]
fn a_terminal_that_is_closed_ends_what_was_started_in_it() {
    for (flag, count) in [
        ("", 2),
        ("--no-keeper", 1),
        ("</dev/null", 2),
        ("--no-keeper </dev/null", 1),
        // A shell that tells its jobs; others let go on what is behind.
        ("</dev/null &", 2),
    ] {
        let mut terminal = Terminal::open();
        let binary = env!("CARGO_BIN_EXE_sticky-lb");
        terminal.press("exec bash -i\n");
        terminal.press(&format!("{binary} --workers 1 --port 0 {flag}\n"));
        terminal.wait_for(" 1 worker ready ");
        let first = children(terminal.shell.id())[0];
        let all = [vec![first], children(first)].concat();
        assert_eq!(all.len(), 2, "keeper and primary, or primary and worker");
        terminal.close();
        eventually("all have ended", || all.iter().all(|pid| has_ended(*pid)));
        assert_eq!(all.iter().take(count).filter(|pid| has_ended(**pid)).count(), count, "{flag}");
    }
}

/// The kernel tells those in front of the shell's end, and the terminal is still open then.
#[test]
fn a_shell_that_is_killed_ends_what_it_has_in_front() {
    for flag in ["", "--no-keeper"] {
        let mut terminal = Terminal::open();
        let binary = env!("CARGO_BIN_EXE_sticky-lb");
        terminal.press(&format!("{binary} --workers 1 --port 0 {flag}\n"));
        terminal.wait_for(" 1 worker ready ");
        let first = children(terminal.shell.id())[0];
        let all = [vec![first], children(first)].concat();
        signal(terminal.shell.id(), Signal::KILL);
        eventually("all have ended", || all.iter().all(|pid| has_ended(*pid)));
    }
}

/// One that stays when its terminal has ended, by `disown`, is reloaded by whoever signals it later.
#[test]
fn a_hangup_long_after_the_end_of_the_terminal_is_an_order() {
    for flag in ["", "--no-keeper"] {
        let mut terminal = Terminal::open();
        let binary = env!("CARGO_BIN_EXE_sticky-lb");
        let log = own_directory().join("log");
        let said = |text: &str| std::fs::read_to_string(&log).unwrap_or_default().contains(text);
        let name = log.display();
        let command = format!("{binary} --workers 1 --port 0 {flag} >{name} 2>&1 &");
        terminal.press(&format!("exec bash -i\n{command}\ndisown -a\n"));
        eventually("the worker is ready", || said("worker ready"));
        let (shell, first) = (terminal.shell.id(), children(terminal.shell.id())[0]);
        terminal.close();
        eventually("the shell has ended", || has_ended(shell));
        // It is an order as soon as the end is past.
        std::thread::park_timeout(std::time::Duration::from_secs(3));
        assert!(!has_ended(first), "it has stopped");
        signal(first, Signal::HUP);
        eventually("a reload, as ordered", || said("rolling restart done"));
        signal(first, Signal::TERM);
        eventually("it has ended", || has_ended(first));
    }
}

#[test]
fn a_primary_under_nohup_or_in_a_session_of_its_own_stays_when_the_terminal_is_closed() {
    for launcher in ["nohup", "setsid --wait"] {
        let mut terminal = Terminal::open();
        let binary = env!("CARGO_BIN_EXE_sticky-lb");
        let log = own_directory().join("log");
        let said = |text: &str| std::fs::read_to_string(&log).unwrap_or_default().contains(text);
        let name = log.display();
        terminal.press(&format!("{launcher} {binary} --workers 1 --port 0 > {name} 2>&1\n"));
        eventually("the worker is ready", || said("worker ready"));
        let keeper = match launcher {
            "nohup" => children(terminal.shell.id())[0],
            _ => children(children(terminal.shell.id())[0])[0],
        };
        let shell = terminal.shell.id();
        terminal.close();
        eventually("the shell has ended", || has_ended(shell));
        if launcher == "nohup" {
            eventually("the end of the terminal is known", || said("terminal closed"));
        }
        assert!(!has_ended(keeper), "{launcher}");
        assert!(!said("rolling restart started"), "{launcher}");
        signal(keeper, Signal::HUP);
        if launcher != "nohup" {
            eventually("a reload, as ordered", || said("rolling restart done"));
        }
        signal(keeper, Signal::TERM);
        eventually("the keeper has ended", || has_ended(keeper));
    }
}
