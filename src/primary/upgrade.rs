//! An upgrade as seen by the running primary: the new program is checked, then the pool is ordered to hand
//! over. If anything is against it, everything goes on as it was.

use std::os::fd::AsFd;
use std::path::PathBuf;

use tokio::task::JoinHandle;

use crate::control::report::Upgrading;
use crate::error::chain;
use crate::frontend::listener::{Listener, ListenerSettings};
use crate::handover::{StateError, StateFile};
use crate::primary::handover::example;
use crate::primary::journal::PrimaryJournal;
use crate::supervisor::pool::handle::{Refusal, Reply};
use crate::system::journal::Journal;
use crate::system::program;
use crate::system::tasks::waits_in_the_kernel;
use crate::upgrade::check;
use crate::upgrade::exec::Successor;

/// The new program's answer: whether it would go on; with the listener that it is to go on with, if that is
/// another one.
pub(super) type Answer = Result<Option<NextListener>, String>;

/// A listener for the successor, and the settings that it was opened by.
#[derive(Debug)]
pub(super) struct NextListener {
    pub(super) listener: Listener,
    pub(super) settings: ListenerSettings,
}

/// An upgrade, under way or to come.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// The program, by the path that this one was started by.
    program: PathBuf,
    /// An example of the state that the successor will have to understand.
    journals: Option<[Journal; 2]>,
    check: Option<JoinHandle<Answer>>,
    reply: Option<Reply<Upgrading>>,
    /// What the requester is told if it works.
    prospect: Upgrading,
    /// Taken by the one that hands over.
    pub(super) listener: Option<NextListener>,
}

impl Upgrade {
    pub(super) fn new(primary: &PrimaryJournal, pool: &Journal) -> Self {
        let copy = |journal: &Journal| journal.as_fd().try_clone_to_owned().map(Journal::open);
        let journals = copy(primary.journal()).and_then(|primary| Ok([primary, copy(pool)?]));
        // If the path isn't known, the kernel refuses it later.
        let program = program::path().unwrap_or_default();
        let prospect = Upgrading::default();
        Self {
            program,
            journals: journals.ok(),
            check: None,
            reply: None,
            prospect,
            listener: None,
        }
    }

    pub(super) fn into_program(self) -> PathBuf {
        self.program
    }

    /// Starts the check of the new program, on a thread of its own: it takes its time. Then the thread opens
    /// the `next` listener, if another one is wanted: what is in the way is found before anything is given
    /// up. A check that is under way refuses another.
    pub(super) fn start_check(
        &mut self,
        next: Option<ListenerSettings>,
        prospect: Upgrading,
        reply: Option<Reply<Upgrading>>,
    ) {
        if self.check.is_some() {
            let busy = Refusal::Configuration("an upgrade is under way already".to_owned());
            // The requester may have gone.
            reply.map(|reply| reply.send(Err(busy)));
            return;
        }
        tracing::info!(program = ?self.program, "upgrade: new program is checked");
        let check = self.example().and_then(|example| {
            check::start(&Successor::new(&self.program), &example).map_err(|error| chain(&error))
        });
        let wait = move || {
            check?.wait().map_err(|error| chain(&error))?;
            // The same is asked again when it is done: here it costs nobody anything.
            if waits_in_the_kernel() {
                return Err(chain(&StateError::Busy));
            }
            let Some(settings) = next else { return Ok(None) };
            let listener = Listener::bind(&settings).map_err(|error| chain(&error))?;
            Ok(Some(NextListener { listener, settings }))
        };
        self.check = Some(tokio::task::spawn_blocking(wait));
        (self.prospect, self.reply) = (prospect, reply);
    }

    fn example(&self) -> Result<StateFile, String> {
        let Some([primary, pool]) = &self.journals else {
            return Err("no descriptor is left to copy the state of the primary".to_owned());
        };
        example(primary, pool).map_err(|error| chain(&error))
    }

    /// Waits for the answer, if one is to come. May be dropped and called again.
    pub(super) async fn answered(&mut self) -> Answer {
        let Some(check) = &mut self.check else { return std::future::pending().await };
        let answer = check.await.unwrap_or_else(|error| Err(error.to_string()));
        self.check = None;
        answer
    }

    /// Sends the outcome to the requester, which may have gone. The pool may hand over before the control
    /// loop learns of it: then the one that sees the pool's end sends it.
    pub(super) fn reply(&mut self, outcome: Result<(), Refusal>) {
        let outcome = outcome.map(|()| std::mem::take(&mut self.prospect));
        self.reply.take().map(|reply| reply.send(outcome));
    }
}
