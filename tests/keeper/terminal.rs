//! Keeper and primary in a terminal, where a person presses keys.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use crate::common::process::{Signal, children, group_and_session, signal, state};
use crate::common::{eventually, own_directory};

/// A shell with job control. Dropping it ends it.
struct Terminal {
    shell: Child,
    keyboard: File,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn open() -> Self {
        let pair = nix::pty::openpty(None, None).expect("the kernel has a terminal left");
        let clone = || pair.slave.try_clone().unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "sh", "-i"]).current_dir(own_directory());
        command.env("PS1", "").env("STICKY_LB_RUNTIME_DIR", own_directory());
        command.stdin(clone()).stdout(clone()).stderr(clone());
        let shell = command.spawn().unwrap();
        let keyboard = File::from(pair.master);
        let mut screen = keyboard.try_clone().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let text = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self { shell, keyboard, shown }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
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
