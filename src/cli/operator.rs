//! Finds the primary that is meant, and asks it.

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
use crate::cli::waiting::{Waiting, comes_first, spinner};
use crate::control::client::{ClientError, Conversation};
use crate::control::discovery::{Wanted, find};
use crate::control::protocol::{Line, Request};

/// How long a primary may take to answer what it knows.
const TIMEOUT: Duration = Duration::from_secs(10);

// No doc comments on these two: they would be said to be what each command does.

// Which primary is meant.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Which primary")]
pub(super) struct Which {
    /// Name of its app [default: the only one that runs].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Its control socket.
    #[arg(long, value_name = "PATH", conflicts_with = "name")]
    control: Option<PathBuf>,
}

impl Which {
    /// To be looked for.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted { control: self.control.clone(), name: self.name.clone() }
    }
}

// Which primary is meant, and how to show what it says. Part of every command that asks one.
#[derive(Clone, Debug, Args)]
pub(super) struct Reach {
    #[command(flatten)]
    which: Which,
    /// As JSON: what the primary says, an object a line.
    #[arg(long, help_heading = None)]
    pub(super) json: bool,
}

/// Somebody who asks a primary, and what is said to them.
#[derive(Debug)]
pub(super) struct Operator {
    path: PathBuf,
    /// What is printed is JSON.
    pub(super) json: bool,
    /// Where it is printed.
    pub(super) screen: Screen,
}

impl Operator {
    /// Finds the primary.
    ///
    /// # Errors
    ///
    /// If there is none, or several.
    pub(super) fn find(reach: &Reach) -> Result<Self, Failure> {
        Ok(Self { path: find(&reach.which.wanted())?, json: reach.json, screen: Screen::new() })
    }

    /// Asks for something that the primary knows.
    ///
    /// # Errors
    ///
    /// If it doesn't answer, or says no.
    pub(super) fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        let begun = Conversation::begin(&self.path, request, Some(TIMEOUT))?;
        Ok(begun.finish(|_| Ok::<_, ClientError>(()))?)
    }

    /// Asks, and shows what comes: as text, or as the JSON that it is.
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

    /// As [`Self::show`] for what may take long: somebody is told what is waited for, and what goes
    /// on if they wait no longer.
    ///
    /// # Errors
    ///
    /// As [`Self::show`], and if somebody has pressed Ctrl-C.
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

    /// Begins what may take long.
    ///
    /// # Errors
    ///
    /// If nobody is there.
    pub(super) fn begin(
        &self,
        request: &Request,
        goes_on: &'static str,
    ) -> Result<Waiting, Failure> {
        Waiting::begin(&self.path, request, goes_on)
    }

    /// Shows items as they come.
    ///
    /// # Errors
    ///
    /// As [`Self::show`]. Ends when nobody reads any more, too.
    pub(super) fn stream<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        mut text: impl FnMut(&T, Look) -> String,
    ) -> Result<(), Failure> {
        let mut conversation = Conversation::begin(&self.path, request, None)?;
        loop {
            if !conversation.has_read_ahead() {
                self.wait_or_stop(&conversation)?;
            }
            match conversation.next_line()? {
                Line::Item(item) => self.say(item, |item, look| text(item, look))?,
                Line::Done(_) => return Ok(()),
                Line::Error(problem) => return Err(ClientError::Problem(problem).into()),
            }
        }
    }

    /// Shows what the primary has said.
    ///
    /// # Errors
    ///
    /// If it isn't understood, or can't be printed.
    pub(super) fn say<T: DeserializeOwned>(
        &mut self,
        said: Value,
        text: impl FnOnce(&T, Look) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            return self.screen.json(&said).map_err(Failure::Print);
        }
        let report = serde_json::from_value(said).map_err(ClientError::Answer)?;
        let text = text(&report, self.screen.look);
        self.screen.print(&text).map_err(Failure::Print)
    }

    /// Where nothing happens, nothing is printed, and that nobody reads would not be noticed.
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

/// Has something turn on a terminal meanwhile.
pub(super) fn turning<T>(message: String, wait: impl FnOnce() -> T) -> T {
    let spinner: ProgressBar = spinner(message);
    let done = wait();
    spinner.finish_and_clear();
    done
}
