//! Documents that are installed with the program: completions for shells, the manual page.

use std::io;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::failure::Failure;
use crate::cli::flags;
use crate::cli::screen::Screen;

const NAME: &str = "sticky-lb";

/// Sections of the manual page behind those that are made from the flags.
const SECTIONS: [(&str, &[(&str, &str)]); 5] = [
    ("SIGNALS", &SIGNALS),
    ("FILES", &FILES),
    ("ENVIRONMENT", &ENVIRONMENT),
    ("EXIT STATUS", &EXIT_CODES),
    ("EXAMPLES", &EXAMPLES),
];

const SIGNALS: [(&str, &str); 6] = [
    (
        "HUP",
        "Read the configuration again and replace all workers, slot by slot. From the terminal that is \
         standard input, when that is closed: stop gracefully, unless started with nohup or setsid.",
    ),
    ("USR1", "Reopen log files, after they were renamed."),
    ("USR2", "Replace the running program with the one on disk, in the same process."),
    ("TTIN", "Run one worker more."),
    ("TTOU", "Run one worker fewer."),
    ("TERM, INT, QUIT", "Stop gracefully. A second one stops at once and cuts connections."),
];

const FILES: [(&str, &str); 2] = [
    ("sticky-lb.toml", "The configuration, read from the current directory or from --config."),
    (
        "NAME-PORT.sock",
        "The control socket, in the first of these directories that is known: \
         $STICKY_LB_RUNTIME_DIR, $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/sticky-lb, /run/sticky-lb for root, \
         /tmp/sticky-lb-UID for others.",
    ),
];

const ENVIRONMENT: [(&str, &str); 9] = [
    ("PORT", "Port to listen on, where --port isn't given. Workers get the port that clients use."),
    ("WEB_CONCURRENCY", "Number of workers, where --workers isn't given."),
    ("STICKY_LB_RUNTIME_DIR", "Directory of control sockets."),
    (
        "STICKY_LB_PROGRAM",
        "Path of the program that an upgrade runs [default: the path it was started by].",
    ),
    ("NO_COLOR, TERM", "No colours if NO_COLOR is set or TERM is dumb."),
    (
        "LISTEN_FDS, LISTEN_PID",
        "A listening socket from a service manager, used instead of --host and --port.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "A service manager that is told of readiness, reloads and the end.",
    ),
    (
        "STICKY_LB_SLOT, STICKY_LB_GENERATION, NODE_APP_INSTANCE",
        "Set for workers: slot, generation, and the slot once more as PM2 users expect it.",
    ),
    (
        "STICKY_LB_CHANNEL, STICKY_LB_SCOREBOARD",
        "Set for workers: descriptors of the native protocol.",
    ),
];

const EXIT_CODES: [(&str, &str); 4] = [
    ("0", "Done."),
    ("1", "Failed."),
    ("2", "Wrong usage or configuration."),
    ("130", "Ctrl-C has ended the waiting; the request goes on."),
];

const EXAMPLES: [(&str, &str); 5] = [
    (
        "sticky-lb --workers 4 --port 8080 -- ./server --verbose",
        "Run four workers of ./server behind port 8080.",
    ),
    ("sticky-lb status", "Show the state of the primary."),
    (
        "sticky-lb reload",
        "Read the configuration again and replace all workers without losing a client.",
    ),
    (
        "sticky-lb --events-fd 3 -- ./server 3>events.json >app.log 2>error.log",
        "Write events, workers' standard output, and workers' standard error with the log to three files.",
    ),
    ("sticky-lb --name shop where 192.0.2.7", "Explain where a client of the app shop goes."),
];

/// Prints a completion script.
///
/// # Errors
///
/// If it can't be printed.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut flags::plain_command(), NAME, &mut script);
    print(&script)
}

/// Prints the manual page: the program, then each command.
///
/// # Errors
///
/// If it can't be printed.
pub(super) fn man() -> Result<(), Failure> {
    print(&page(flags::plain_command()).map_err(Failure::Print)?)
}

fn print(text: &[u8]) -> Result<(), Failure> {
    Screen::new().print(&String::from_utf8_lossy(text)).map_err(Failure::Print)
}

fn page(mut command: Command) -> io::Result<Vec<u8>> {
    command.build();
    let mut page = Vec::new();
    let whole = Man::new(command.clone()).manual("User Commands");
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    for part in command
        .get_subcommands()
        .filter(|part| !flags::is_internal(part) && part.get_name() != "help")
    {
        section(part, &mut page)?;
    }
    for (title, entries) in SECTIONS {
        page.extend_from_slice(entry_section(title, entries).as_bytes());
    }
    whole.render_version_section(&mut page)?;
    Ok(page)
}

/// A section of terms and their meanings.
fn entry_section(title: &str, entries: &[(&str, &str)]) -> String {
    let plain = |text: &str| text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    let entry = |(term, meaning): &(&str, &str)| {
        format!(".TP\n\\fB{}\\fR\n{}\n", plain(term), plain(meaning))
    };
    format!(".SH \"{title}\"\n") + &entries.iter().map(entry).collect::<String>()
}

/// A command's own page, as a section of the program's.
fn section(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let own = Man::new(command.clone());
    let mut text = Vec::new();
    own.render_synopsis_section(&mut text)?;
    own.render_description_section(&mut text)?;
    own.render_options_section(&mut text)?;
    let text = String::from_utf8_lossy(&text).replace("\n.SH ", "\n.SS ");
    let title = command.get_name().to_uppercase();
    page.extend_from_slice(format!(".SH \"COMMAND {title}\"\n{text}").as_bytes());
    Ok(())
}
