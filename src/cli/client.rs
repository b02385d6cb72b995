//! Finds a primary and sends it requests.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use rustix::event::{PollFd, PollFlags};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::failure::Failure;
use crate::cli::screen::{Look, Screen};
use crate::cli::seen::Seen;
use crate::cli::successor::{Replaceable, last_process};
use crate::cli::waiting::{Waiting, comes_first, spinner};
use crate::control::client::{ClientError, Conversation, Deadline};
use crate::control::discovery::{Wanted, find};
use crate::control::protocol::{Line, Request};
use crate::control::report::Status;

/// How long a primary may take to answer what it knows, or for a line that it has begun.
const TIMEOUT: Duration = Duration::from_secs(10);

// No doc comments on these two: clap would show them as each command's description.

// Selects a primary.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Which primary")]
pub(super) struct PrimaryArgs {
    /// Name of its app [default: the only primary that runs].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Its control socket.
    #[arg(long, value_name = "PATH", conflicts_with = "name")]
    control: Option<PathBuf>,
}

impl PrimaryArgs {
    /// As discovery takes it.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted { control: self.control.clone(), name: self.name.clone() }
    }
}

// Selects a primary and how to show its answer. Part of every command that sends a request.
#[derive(Clone, Debug, Args)]
pub(super) struct ClientArgs {
    #[command(flatten)]
    primary: PrimaryArgs,
    /// Print the primary's answer as JSON, an object a line, and an error as `{"error": …}` too.
    #[arg(long, help_heading = None)]
    pub(super) json: bool,
}

/// Sends requests to a primary and shows its answers.
#[derive(Debug)]
pub(super) struct ControlClient {
    /// The control socket.
    pub(super) path: PathBuf,
    /// The primary that was found answering there, which may be replaced.
    primary: Option<Replaceable>,
    /// For all that the primary answers at once.
    deadline: Deadline,
    /// Answers are printed as JSON.
    pub(super) json: bool,
    /// Standard output.
    pub(super) screen: Screen,
}

impl ControlClient {
    /// Finds the primary.
    ///
    /// # Errors
    ///
    /// If there is none, or several.
    pub(super) fn find(arguments: &ClientArgs) -> Result<Self, Failure> {
        let path = find(&arguments.primary.wanted())?;
        let deadline = Deadline::after(TIMEOUT);
        let (json, screen) = (arguments.json, Screen::new());
        Ok(Self { path, primary: None, deadline, json, screen })
    }

    /// Asks for something that the primary answers at once.
    ///
    /// # Errors
    ///
    /// If it doesn't answer, or says no.
    pub(super) fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        let begun = Conversation::begin(&self.path, request, self.deadline)?;
        Ok(begun.finish(|_| Ok::<_, ClientError>(()))?)
    }

    /// As [`Self::ask`], after something that has taken its time.
    ///
    /// # Errors
    ///
    /// As [`Self::ask`].
    pub(super) fn ask_later<T: DeserializeOwned>(
        &mut self,
        request: &Request,
    ) -> Result<T, Failure> {
        self.deadline = Deadline::after(TIMEOUT);
        self.ask(request)
    }

    /// Asks, and prints the answer as text or as JSON.
    ///
    /// # Errors
    ///
    /// If the primary doesn't answer, or says no, or it can't be printed.
    pub(super) fn show<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        text: impl FnOnce(&T, Look) -> String,
    ) -> Result<(), Failure> {
        let answer = self.ask(request)?;
        self.say(answer, text)
    }

    /// As [`Self::show`] for a request that may take long: the terminal shows `waits_for` meanwhile,
    /// and Ctrl-C ends the waiting with `goes_on`.
    ///
    /// # Errors
    ///
    /// As [`Self::show`], and on Ctrl-C.
    pub(super) fn wait<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        waits_for: String,
        goes_on: &'static str,
        text: impl FnOnce(&T, Look) -> String,
    ) -> Result<(), Failure> {
        let mut waiting = self.begin(request, goes_on)?;
        let answer = turning(waits_for, || waiting.finish())?;
        self.say(answer, text)
    }

    /// Sends a request that may take long.
    ///
    /// # Errors
    ///
    /// If no primary answers there.
    pub(super) fn begin(
        &mut self,
        request: &Request,
        goes_on: &'static str,
    ) -> Result<Waiting, Failure> {
        self.check_answers()?;
        Waiting::begin(&self.path, request, self.deadline, goes_on)
    }

    /// As [`Self::begin`], to the primary that follows one that was lost.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(super) fn begin_again(
        &mut self,
        request: &Request,
        goes_on: &'static str,
    ) -> Result<Waiting, Failure> {
        if !self.find_successor() {
            return Err(ClientError::Ended.into());
        }
        self.begin(request, goes_on)
    }

    /// Waits for the primary that follows one that was lost. There is none if everything has ended.
    fn find_successor(&mut self) -> bool {
        let found = self.primary.as_ref().and_then(|primary| primary.successor(&self.path));
        self.deadline = Deadline::after(TIMEOUT);
        found.map(|path| self.path = path).is_some()
    }

    /// Fails if the primary doesn't answer: a request that may take long would not show it.
    fn check_answers(&mut self) -> Result<(), Failure> {
        let begun = Conversation::begin(&self.path, &Request::Status {}, self.deadline)?;
        let last = last_process(&begun);
        let status: Status = begun.finish(|_| Ok::<_, ClientError>(()))?;
        self.primary = Some(Replaceable::new(status.pid, last));
        Ok(())
    }

    /// Prints items as they come. If the primary is replaced meanwhile and there is a request to `go_on`
    /// with, the next one is asked for that; items that have come before are left out.
    ///
    /// # Errors
    ///
    /// As [`Self::show`], also when the reader of standard output has gone.
    pub(super) fn stream<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        go_on: Option<&Request>,
        mut text: impl FnMut(&T, Look) -> String,
    ) -> Result<(), Failure> {
        self.check_answers()?;
        let mut seen = Seen::default();
        let mut result = self.stream_once(request, &mut seen, &mut text);
        while let Some(request) = go_on.filter(|_| has_gone(&result)) {
            if !self.find_successor() {
                break;
            }
            seen.begin_again();
            let checked = self.check_answers();
            result = checked.and_then(|()| self.stream_once(request, &mut seen, &mut text));
        }
        result
    }

    fn stream_once<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        seen: &mut Seen,
        text: &mut impl FnMut(&T, Look) -> String,
    ) -> Result<(), Failure> {
        let mut conversation = Conversation::begin(&self.path, request, self.deadline)?;
        loop {
            if !conversation.has_read_ahead() {
                self.wait_or_stop(&conversation)?;
            }
            conversation.set_deadline(Some(Deadline::after(TIMEOUT)));
            match conversation.next_line()? {
                Line::Item(item) if !seen.is_new(&item) => {}
                Line::Item(item) => self.say(item, |item, look| text(item, look))?,
                Line::Done(_) => return Ok(()),
                Line::Error(problem) => return Err(ClientError::Problem(problem).into()),
            }
        }
    }

    /// Prints an answer.
    ///
    /// # Errors
    ///
    /// If it isn't understood, or can't be printed.
    pub(super) fn say<T: DeserializeOwned>(
        &mut self,
        answer: Value,
        text: impl FnOnce(&T, Look) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            let lines = match answer {
                Value::Array(lines) => lines,
                answer => vec![answer],
            };
            return lines.iter().try_for_each(|it| self.screen.json(it)).map_err(Failure::Print);
        }
        let report = serde_json::from_value(answer).map_err(ClientError::Answer)?;
        let text = text(&report, self.screen.look);
        self.screen.print(&text).map_err(Failure::Print)
    }

    /// Waits for the primary or for the end of the reader: as long as nothing is printed, a closed pipe
    /// would not be noticed.
    fn wait_or_stop(&self, conversation: &Conversation) -> Result<(), Failure> {
        let output = std::io::stdout();
        // Errors only: whether the other end of a pipe is closed.
        let closed = PollFd::new(&output, PollFlags::empty());
        if comes_first(conversation.as_fd(), closed).map_err(Failure::Wait)? {
            return Err(Failure::Print(std::io::ErrorKind::BrokenPipe.into()));
        }
        Ok(())
    }
}

/// Whether the primary has gone, or has said that nothing more comes.
fn has_gone(result: &Result<(), Failure>) -> bool {
    matches!(
        result,
        Ok(())
            | Err(Failure::Client(
                ClientError::Ended | ClientError::Lost(_) | ClientError::Connect { .. }
            ))
    )
}

/// Shows a spinner on a terminal meanwhile.
pub(super) fn turning<T>(message: String, wait: impl FnOnce() -> T) -> T {
    let spinner: ProgressBar = spinner(message);
    let done = wait();
    spinner.finish_and_clear();
    done
}
