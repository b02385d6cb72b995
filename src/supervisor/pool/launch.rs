//! Starts one worker: its link first, then its process.

use std::sync::Arc;

use crate::link::inherit::{LISTENER_NAME, WorkerFacts};
use crate::link::interface::Interface;
use crate::link::seam::{CommandSender, FrontendGone, SlotCommand, WorkerId};
use crate::link::stats_source::StatsSource;
use crate::link::{Attached, GroupMember, Link};
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::output::Output;
use crate::supervisor::pool::crash_record::CrashRecord;
use crate::supervisor::pool::error::PoolError;
use crate::supervisor::pool::settings::PoolSettings;
use crate::supervisor::process::Process;
use crate::supervisor::start_error::is_before_program;

/// The parts of the pool that a start needs.
#[derive(Debug)]
pub(super) struct Launcher<'a> {
    pub(super) settings: &'a PoolSettings,
    pub(super) frontend: &'a CommandSender,
    pub(super) record: &'a CrashRecord,
    pub(super) output: &'a Output,
}

/// A worker that was started.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) process: Process,
    pub(super) stats: StatsSource,
    /// What it speaks, if only one thing is spoken to it.
    pub(super) interface: Option<Interface>,
    /// Its listening socket, if it has one of its own.
    pub(super) member: Option<GroupMember>,
}

impl Launcher<'_> {
    /// Starts a worker. The inner error is the start's own: another attempt may succeed.
    ///
    /// # Errors
    ///
    /// If the frontend has ended.
    pub(super) async fn start(
        &self,
        worker: WorkerId,
        command: Arc<WorkerCommand>,
    ) -> Result<Result<Launched, PoolError>, FrontendGone> {
        let member = match self.settings.dispatch.is_by_listeners() {
            true => Some(self.frontend.member(worker).await?).transpose(),
            false => Ok(None),
        };
        let started = member.and_then(|member| {
            let (link, mut inherit) = Link::start(&self.facts(worker, &command))?;
            if let Some(member) = &member
                && link.interface() == Some(Interface::Listen)
            {
                inherit.listen_on(LISTENER_NAME, member.try_clone()?.socket);
            }
            Ok((StatsSource::new(&link)?, link, member, inherit))
        });
        let (stats, link, member, inherit) = match started {
            Ok(started) => started,
            Err(source) => return Ok(Err(PoolError::Channel(source))),
        };
        // Before there is a process that a successor couldn't speak to.
        self.record.store_link(worker, &link);
        if let Some(member) = &member {
            self.record.store_part(worker, GroupMember::PART, &member.socket);
        }
        let interface = link.interface();
        let attached = Box::new(Attached::new(link, member));
        let member = attached.copy_of_member();
        self.frontend.send(SlotCommand::Attach(worker, attached)).await?;
        Ok(match Process::start(&command, self.settings.port, worker, inherit) {
            Ok((process, printed)) => {
                self.record.store_process(worker, &process, &printed);
                self.output.take(worker, process.pid(), printed.stdout, printed.stderr);
                Ok(Launched { process, stats, interface, member })
            }
            Err(source) => {
                self.record.remove_worker(worker);
                Err(match is_before_program(&source) {
                    true => PoolError::Process(source),
                    false => PoolError::Command { command: command.program.clone(), source },
                })
            }
        })
    }

    fn facts(&self, worker: WorkerId, command: &WorkerCommand) -> WorkerFacts {
        WorkerFacts {
            worker,
            credits: self.settings.credits,
            orphan_timeout: self.settings.orphan_timeout,
            kill_timeout: self.settings.lifecycle.kill_timeout,
            migrate_timeout: self.settings.migrate_timeout,
            protect: self.settings.protect,
            interface: self.settings.interface,
            port: self.settings.port,
            node: Arc::clone(&self.settings.node),
            rights: command.rights(),
        }
    }
}
