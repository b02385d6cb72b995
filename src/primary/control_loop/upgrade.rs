//! An upgrade as far as the running primary goes: the new program is asked, then the pool is ordered to
//! hand over. If anything is against it, everything goes on as it was.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use tokio::task::JoinHandle;

use crate::config::Config;
use crate::error::chain;
use crate::primary::StatusEvent;
use crate::primary::control_loop::Operator;
use crate::primary::record::Record;
use crate::primary::snapshot::Estate;
use crate::supervisor::pool::handle::{Refusal, Reply};
use crate::supervisor::pool::snapshot::After;
use crate::system::journal::Journal;
use crate::system::program;
use crate::upgrade::Document;
use crate::upgrade::check::ask;
use crate::upgrade::exec::Successor;

/// Whether the new program would go on.
type Answer = Result<(), String>;

/// What an upgrade takes, and one that is under way.
#[derive(Debug)]
pub(in crate::primary) struct Upgrading {
    /// The program, by the path that this one was started by.
    pub(in crate::primary) program: PathBuf,
    /// What is written down: an example of what the successor will have to understand.
    journals: Option<[Journal; 2]>,
    asked: Option<JoinHandle<Answer>>,
    /// Who has ordered it.
    reply: Option<Reply<()>>,
}

impl Upgrading {
    pub(in crate::primary) fn new(record: &Record, pool: &Journal) -> Self {
        let copy = |journal: &Journal| journal.as_fd().try_clone_to_owned().map(Journal::open);
        let journals = copy(record.journal()).and_then(|primary| Ok([primary, copy(pool)?]));
        // Where it isn't known, the kernel says so when it is to be run.
        let program = program::path().unwrap_or_default();
        Self { program, journals: journals.ok(), asked: None, reply: None }
    }

    /// Asks the new program, whose answer is waited for on a thread of its own: it takes its time.
    fn ask(&self) -> JoinHandle<Answer> {
        let asked = self.example().and_then(|example| {
            ask(&Successor::of(&self.program), example).map_err(|error| chain(&error))
        });
        tokio::task::spawn_blocking(move || asked?.answer().map_err(|error| chain(&error)))
    }

    fn example(&self) -> Result<Document, String> {
        let Some([primary, pool]) = &self.journals else {
            return Err("no descriptor is left to copy the state of the primary".to_owned());
        };
        Estate::example(primary, pool).map_err(|error| chain(&error))
    }

    /// Waits for the answer, if one is to come. May be dropped and called again.
    pub(super) async fn answered(&mut self) -> Answer {
        let Some(asked) = &mut self.asked else { return std::future::pending().await };
        let answer = asked.await.unwrap_or_else(|error| Err(error.to_string()));
        self.asked = None;
        answer
    }

    /// Tells whoever has ordered it, who may not wait any more. The pool may be quicker than the
    /// operator: then it is told by whoever hears of the pool's end.
    pub(in crate::primary) fn tell(&mut self, outcome: Result<(), Refusal>) {
        self.reply.take().map(|reply| reply.send(outcome));
    }
}

impl<Reread, Tell> Operator<Reread, Tell>
where
    Reread: Fn() -> Result<Config, String>,
    Tell: FnMut(StatusEvent),
{
    /// Says where clients connect, or, for a successor, what hasn't become of an upgrade.
    pub(in crate::primary) fn begin(&mut self, address: SocketAddr, is_first: bool) {
        if is_first {
            self.tell(StatusEvent::Listening(address));
        }
    }

    pub(super) fn begin_upgrade(&mut self, reply: Option<Reply<()>>) {
        if self.upgrading.asked.is_some() {
            let busy = Refusal::Configuration("an upgrade is under way already".to_owned());
            // Whoever has ordered it may not wait any more.
            reply.map(|reply| reply.send(Err(busy)));
            return;
        }
        tracing::info!(program = ?self.upgrading.program, "new program is asked whether it would go on");
        self.upgrading.asked = Some(self.upgrading.ask());
        self.upgrading.reply = reply;
    }

    /// The new program has answered.
    pub(super) async fn go_on(&mut self, answer: Answer) {
        let refusal = match answer {
            Ok(()) => self.handle.hand_over().await.err(),
            Err(reason) => Some(Refusal::Configuration(reason)),
        };
        if let Some(refusal) = &refusal {
            let error = refusal.to_string();
            tracing::error!(error, "upgrade refused, nothing is changed");
            self.tell(StatusEvent::UpgradeRefused(error));
        }
        self.upgrading.tell(refusal.map_or(Ok(()), Err));
    }

    pub(super) fn tell_of_resuming(&mut self, workers: u16, after: After) {
        let failed = self.record.document().replacements.upgrade_failed.clone();
        match failed.filter(|_| after == After::Upgrade) {
            Some(error) => {
                tracing::error!(error, "upgrade failed, everything goes on as it was");
                self.tell(StatusEvent::UpgradeRefused(error));
            }
            None => self.tell(StatusEvent::Resumed(workers, after)),
        }
    }
}
