//! The live view as it is used: the real binary in a real terminal, which tmux plays.

mod common;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::client::connect_from;
use common::process::{self, Signal};
use common::{Primary, eventually, own_directory};

const BINARY: &str = env!("CARGO_BIN_EXE_sticky-lb");

/// A shell in a terminal of 80×24. Dropping it ends both.
struct Terminal {
    directory: PathBuf,
}

impl Terminal {
    /// Where primaries that have `runtime` as their runtime directory are found.
    fn open(runtime: &std::path::Path) -> Self {
        let terminal = Self { directory: own_directory() };
        let variable = |name: &str, value: &str| ["-e".to_owned(), format!("{name}={value}")];
        let runtime = runtime.to_str().expect("a path of UTF-8");
        let variables = [variable("STICKY_LB_RUNTIME_DIR", runtime), variable("LC_ALL", "C.UTF-8")];
        let size = ["-x", "80", "-y", "24"].map(str::to_owned);
        let new = ["new-session", "-d"].map(str::to_owned).into_iter();
        let arguments: Vec<_> = new.chain(size).chain(variables.into_iter().flatten()).collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        terminal.tmux(&[&arguments[..], &["sh"]].concat());
        // Root has another prompt.
        terminal.enter("PS1='$ '; clear");
        terminal.wait_until("an empty screen", |screen| screen.starts_with("$\n"));
        terminal
    }

    /// A server of its own, which no configuration changes.
    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(self.directory.join("tmux"));
        command.args(arguments).current_dir(&self.directory).env_remove("TMUX");
        let output = command.stdin(Stdio::null()).output().expect("tmux is installed");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn enter(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.press("Enter");
    }

    fn wait_for(&self, text: &str) {
        self.wait_until(text, |screen| screen.contains(text));
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let mut screen = String::new();
        let watched = std::panic::AssertUnwindSafe(|| {
            eventually(what, || {
                screen = self.screen();
                condition(&screen)
            });
        });
        let came = std::panic::catch_unwind(watched).is_ok();
        assert!(came, "{what} never came on the screen:\n{screen}");
    }

    /// Starts the view from a shell that remembers how the terminal was.
    fn start_top(&self, workers: u16) {
        self.enter("clear; echo a line from before; stty -g > before");
        self.wait_for("a line from before\n$");
        self.enter(&format!("{BINARY} top; echo code=$?"));
        self.wait_for_workers(workers);
    }

    fn wait_for_workers(&self, workers: u16) {
        self.wait_until(&format!("{workers} workers that serve"), |screen| {
            let rows = rows(screen);
            let serve = rows.iter().filter(|row| row[3] == "serving").count();
            (rows.len(), serve) == (workers.into(), workers.into())
        });
    }

    /// The view has ended, and left nothing behind.
    fn check_that_all_is_as_before(&self) {
        self.wait_for("code=0\n$");
        let screen = self.screen();
        assert!(screen.starts_with("a line from before\n$"), "{screen}");
        let flags = "#{alternate_on} #{cursor_flag}";
        assert_eq!(self.tmux(&["display-message", "-p", flags]), "0 1\n", "screen and cursor");
        self.enter("stty -g > after; echo it is $(cmp before after && echo the same)");
        self.wait_for("it is the same\n");
    }

    /// The process that the shell has started.
    fn program(&self) -> u32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let children = process::children(shell.trim().parse().expect("a process"));
        assert_eq!(children.len(), 1, "{children:?}");
        children[0]
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Rows of the table: slot, generation, process, state.
fn rows(screen: &str) -> Vec<[String; 4]> {
    let table = screen.lines().skip_while(|line| !line.starts_with(" slot")).skip(1);
    let cells = table.map(|line| line.trim_start_matches('>').split_whitespace());
    let rows = cells.map(|cells| cells.take(4).map(str::to_owned).collect::<Vec<_>>());
    let is_row = |row: &[String; 4]| row[0].parse::<u16>().is_ok();
    rows.map_while(|row| row.try_into().ok().filter(is_row)).collect()
}

fn row(screen: &str, slot: u16) -> Option<[String; 4]> {
    rows(screen).into_iter().find(|row| row[0] == slot.to_string())
}

#[test]
fn a_killed_worker_is_seen_to_be_replaced_and_q_gives_the_terminal_back() {
    let primary = Primary::with_workers(3).start();
    let terminal = Terminal::open(primary.directory());
    terminal.start_top(3);
    let killed = primary.worker(1);
    let expected = ["1", "0", &killed.to_string(), "serving"].map(str::to_owned);
    assert_eq!(row(&terminal.screen(), 1), Some(expected));
    process::signal(killed, Signal::KILL);
    terminal.wait_until("its successor", |screen| {
        row(screen, 1).is_some_and(|row| row[1] == "1" && row[3] == "serving")
    });
    let successor = primary.worker(1).to_string();
    let screen = terminal.screen();
    assert_eq!(row(&screen, 1).map(|row| row[2].clone()), Some(successor), "{screen}");
    assert!(screen.contains("slot 1: worker crashed after"), "{screen}");
    terminal.press("q");
    terminal.check_that_all_is_as_before();
}

#[test]
fn every_signal_that_ends_it_gives_the_terminal_back() {
    let primary = Primary::with_workers(2).start();
    for signal in [None, Some(Signal::TERM), Some(Signal::INT), Some(Signal::HUP)] {
        let terminal = Terminal::open(primary.directory());
        terminal.start_top(2);
        match signal {
            None => terminal.press("C-c"),
            Some(signal) => process::signal(terminal.program(), signal),
        }
        terminal.check_that_all_is_as_before();
    }
}

#[test]
fn an_order_is_carried_out_after_a_yes_alone() {
    let primary = Primary::with_workers(2).start();
    let terminal = Terminal::open(primary.directory());
    terminal.start_top(2);
    terminal.press("+");
    terminal.wait_for("Scale up?");
    terminal.press("n");
    terminal.wait_for("scale up: not ordered");
    terminal.press("+");
    terminal.wait_for("Scale up?");
    assert_eq!(primary.workers().len(), 2);
    terminal.press("y");
    terminal.wait_for_workers(3);
    terminal.wait_for("scale up: from 2 workers to 3");
    for (key, question, outcome) in [
        ("d", "Drain slot 0?", "drain slot 0: done"),
        ("u", "Undrain slot 0?", "undrain slot 0: done"),
        ("R", "Restart slot 0?", "restart slot 0: done"),
        ("-", "Scale down?", "scale down: from 3 workers to 2"),
        ("r", "Reload?", "reload: rolling restart 1 is done, 2 of 2 slots replaced"),
    ] {
        terminal.press(key);
        terminal.wait_for(question);
        terminal.press("y");
        terminal.wait_for(outcome);
    }
    terminal.wait_for_workers(2);
}

#[test]
fn the_view_takes_the_room_that_there_is() {
    let primary = Primary::with_workers(2).start();
    let terminal = Terminal::open(primary.directory());
    terminal.start_top(2);
    assert!(!terminal.screen().contains("answered"), "{}", terminal.screen());
    terminal.tmux(&["resize-window", "-x", "160", "-y", "40"]);
    terminal.wait_for("answered");
    terminal.tmux(&["resize-window", "-x", "60", "-y", "20"]);
    terminal.wait_until("fewer columns", |screen| {
        let slots: Vec<_> = rows(screen).into_iter().map(|[slot, ..]| slot).collect();
        slots == ["0", "1"] && screen.contains(" slot     pid state")
    });
}

#[test]
fn what_a_rollout_waits_for_is_read_to_the_end_in_eighty_columns() {
    let primary = Primary::with_workers(2).arguments(&["--min-uptime", "15s"]).start();
    let terminal = Terminal::open(primary.directory());
    terminal.start_top(2);
    primary.signal(Signal::HUP);
    terminal.wait_for("waits for its new worker to last for");
    terminal.wait_for("min_uptime");
}

#[test]
fn one_address_with_nearly_all_connections_is_named() {
    let primary = Primary::with_workers(2).start();
    let terminal = Terminal::open(primary.directory());
    terminal.start_top(2);
    let client = primary.client_of(1);
    let connect = |_| connect_from(client, primary.address()).expect("room");
    let _held: Vec<_> = (0..40).map(connect).collect();
    let said = format!("{client} has 100% of connections and sticks to slot 1\nsee the guide");
    terminal.wait_for(&said);
}

#[test]
fn an_empty_bar_looks_empty_in_the_selected_row_too() {
    let primary = Primary::with_workers(2).start();
    let terminal = Terminal::open(primary.directory());
    terminal.start_top(2);
    let screen = terminal.tmux(&["capture-pane", "-p", "-e"]);
    let head = terminal.screen().lines().find_map(|line| line.find("load")).expect("a heading");
    let rows: Vec<_> = screen.lines().map(cells).collect();
    let selected = rows.iter().find(|cells| cells.first().is_some_and(|(first, _)| *first == '>'));
    let selected = selected.unwrap_or_else(|| panic!("no row is selected: {screen}"));
    assert!(selected[0].1, "the row is reversed: {screen:?}");
    let bar = selected.iter().skip(head).take(6);
    assert!(bar.clone().all(|cell| *cell == (' ', false)), "{:?}", bar.collect::<Vec<_>>());
}

/// The characters of a line with escape sequences, and which of them are reversed.
fn cells(line: &str) -> Vec<(char, bool)> {
    let (mut cells, mut is_reversed) = (Vec::new(), false);
    for (number, part) in line.split("\x1b[").enumerate() {
        let text = match part.split_once('m') {
            Some((codes, text)) if number > 0 => {
                for code in codes.split(';') {
                    match code {
                        "7" => is_reversed = true,
                        "" | "0" | "27" => is_reversed = false,
                        _ => {}
                    }
                }
                text
            }
            _ => part,
        };
        cells.extend(text.chars().map(|c| (c, is_reversed)));
    }
    cells
}

#[test]
fn a_primary_that_is_restarted_is_found_again() {
    let runtime = own_directory();
    let path = runtime.to_str().expect("a path of UTF-8");
    let start =
        |workers| Primary::with_workers(workers).environment("STICKY_LB_RUNTIME_DIR", path).start();
    let primary = start(2);
    let terminal = Terminal::open(&runtime);
    terminal.start_top(2);
    drop(primary);
    terminal.wait_for("lost the primary, trying again");
    let primary = start(3);
    terminal.wait_for_workers(3);
    terminal.wait_for(&format!("another primary is there: process {}", primary.pid()));
    assert!(!terminal.screen().contains("lost the primary"), "{}", terminal.screen());
    drop(primary);
    terminal.wait_for("lost the primary, trying again");
    terminal.press("q");
    terminal.check_that_all_is_as_before();
    let _ = std::fs::remove_dir_all(runtime);
}

#[test]
fn what_is_wrong_from_the_start_is_said_without_a_view() {
    let nowhere = own_directory();
    let terminal = Terminal::open(&nowhere);
    terminal.enter(&format!("{BINARY} top; echo code=$?"));
    terminal.wait_for("code=1");
    let screen = terminal.screen().replace('\n', "");
    assert!(screen.contains("sticky-lb: no running primary found"), "{screen}");
    terminal.enter("clear; echo cleared");
    terminal.wait_for("cleared\n$");
    terminal.enter(&format!("TERM=dumb {BINARY} monit; echo code=$?"));
    terminal.wait_for("code=2");
    assert!(terminal.screen().contains("top needs a terminal"), "{}", terminal.screen());
    let _ = std::fs::remove_dir_all(nowhere);
}

#[test]
fn without_a_terminal_there_is_no_view() {
    let output = Command::new(BINARY).arg("top").stdin(Stdio::null()).output();
    let output = output.expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty(), "{output:?}");
    let expected =
        "sticky-lb: top needs a terminal: `sticky-lb status` and `sticky-lb workers` print once\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
}
