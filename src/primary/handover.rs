//! All that a primary leaves to its successor, with its descriptors: gathered before an upgrade, put
//! together from journals and kept descriptors after a crash.
//!
//! Never decides what happens to it. If a part that a crash has left is unusable, only the listener is
//! taken: clients come first.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use crate::bus::COUNTER;
use crate::control::history::EVENTS;
use crate::frontend::listener::Listener;
use crate::frontend::shared_counters::{COUNTERS, SharedCounters};
use crate::frontend::snapshot::FrontendHandover;
use crate::handover::descriptors::{Descriptors, LISTENER, WorkerPart};
use crate::handover::output::OutputSnapshot;
use crate::handover::pool::PoolSnapshot;
use crate::handover::primary::PrimarySnapshot;
use crate::handover::{Carry, StateError, StateFile, decode};
use crate::link::inherit::AdoptedFacts;
use crate::link::{Attached, GroupMember, Link, snapshot as links};
use crate::primary::journal::PrimaryJournal;
use crate::protocol::ids::WorkerId;
use crate::supervisor::output::{LINES, OutputHandover, PipeHandover, PipeState, Stream};
use crate::supervisor::pool::snapshot::{AdoptedWorker, After, PoolHandover};
use crate::system::journal::{self, Journal};
use crate::system::store::PROGRAM;
use crate::upgrade::exec::{Refused, Successor, exec};

/// The journal of the primary itself.
pub(super) const PRIMARY: &str = "primary";
/// The listener of the control socket.
pub(super) const CONTROL: &str = "control";
/// The admin listener.
pub(super) const ADMIN: &str = "admin";

/// The descriptors of the primary itself that are kept for a successor after a crash.
pub(super) const KEPT: [&str; 10] =
    [LISTENER, PROGRAM, PRIMARY, journal::NAME, COUNTERS, CONTROL, ADMIN, LINES, EVENTS, COUNTER];

/// A primary that has stopped, and whose workers run.
#[derive(Debug)]
pub struct Handover {
    pub(super) after: After,
    pub(super) primary: PrimarySnapshot,
    pub(super) pool: PoolSnapshot,
    /// Without the channels.
    pub(super) frontend: FrontendHandover,
    pub(super) workers: Vec<AdoptedWorker>,
    pub(super) output: OutputHandover,
    pub(super) journals: Journals,
    /// Control socket and admin listener; and the memory with the last events.
    pub(super) endpoints: Descriptors,
}

/// The journals that a successor after a crash reads.
#[derive(Debug)]
pub(super) struct Journals {
    pub(super) primary: Journal,
    pub(super) pool: Journal,
}

impl Handover {
    /// Of parts that have stopped.
    pub(super) fn gather(
        mut frontend: FrontendHandover,
        pool: PoolHandover,
        output: OutputHandover,
        endpoints: Descriptors,
        primary: PrimaryJournal,
    ) -> Result<Self, StateError> {
        let (primary, journal) = primary.into_parts();
        let pool_journal = pool.links.journal.map_or_else(Journal::create, Ok)?;
        let mut processes: BTreeMap<_, _> = pool.processes.into_iter().collect();
        let workers = frontend.take_channels().into_iter().map(|(id, channel)| {
            let process = processes.remove(&id);
            AdoptedWorker { id, channel, process, stdout: None, stderr: None }
        });
        Ok(Self {
            after: After::Upgrade,
            primary,
            pool: pool.snapshot,
            workers: workers.collect(),
            frontend,
            output,
            journals: Journals { primary: journal, pool: pool_journal },
            endpoints,
        })
    }

    /// Becomes the program at this path, as its successor. To be called on the main thread, when nothing
    /// else runs any more.
    ///
    /// # Errors
    ///
    /// If the program cannot be run, with everything that was to be carried over.
    pub fn become_successor(self, program: &Path) -> Result<Infallible, Box<Refused>> {
        let (file, descriptors) = self.into_state();
        exec(&Successor::new(program), file, descriptors)
    }

    /// As plain data and descriptors.
    fn into_state(self) -> (StateFile, Descriptors) {
        let Self { primary, pool, mut frontend, workers, output, journals, .. } = self;
        let mut descriptors = self.endpoints;
        let channels = workers.into_iter().map(|worker| {
            let AdoptedWorker { id, channel, process, stdout, stderr } = worker;
            let parts = [
                (WorkerPart::Process, process),
                (WorkerPart::Stdout, stdout),
                (WorkerPart::Stderr, stderr),
            ];
            for (part, descriptor) in parts {
                if let Some(descriptor) = descriptor {
                    descriptors.insert(part.name(id), descriptor);
                }
            }
            (id, channel)
        });
        let channels: Vec<_> = channels.collect();
        frontend.return_channels(channels);
        let pipes = output.pipes.into_iter().map(|PipeHandover { state, descriptor }| {
            descriptors.insert(output_part(state.stream).name(state.worker), descriptor);
            state.snapshot()
        });
        let (pipes, lines) = (pipes.collect(), output.lines);
        let output = OutputSnapshot { pipes, dropped: output.dropped };
        if let Some(lines) = lines {
            descriptors.insert(LINES, lines);
        }
        let frontend = frontend.into_snapshot(&mut descriptors);
        descriptors.insert(PRIMARY, journals.primary);
        descriptors.insert(journal::NAME, journals.pool);
        (StateFile { primary, pool, frontend, output, descriptors: BTreeMap::new() }, descriptors)
    }

    /// Of an upgrade: what [`Self::become_successor`] has left.
    ///
    /// # Errors
    ///
    /// If a descriptor is missing or unusable, or a snapshot is malformed.
    pub(super) fn restore(
        file: StateFile,
        mut descriptors: Descriptors,
    ) -> Result<Self, StateError> {
        let StateFile { primary, pool, frontend, output, .. } = file;
        let mut frontend = FrontendHandover::restore(frontend, &mut descriptors)?;
        let pipes = output.pipes.into_iter().filter_map(|pipe| {
            let state = PipeState::restore(pipe);
            let descriptor = descriptors.take(&output_part(state.stream).name(state.worker))?;
            Some(PipeHandover { state, descriptor })
        });
        let (pipes, dropped) = (pipes.collect(), output.dropped);
        let output = OutputHandover { pipes, dropped, lines: descriptors.take(LINES) };
        let workers = frontend.take_channels().into_iter().map(|(id, channel)| {
            let process = descriptors.take(&WorkerPart::Process.name(id));
            AdoptedWorker { id, channel, process, stdout: None, stderr: None }
        });
        Ok(Self {
            after: After::Upgrade,
            primary,
            pool,
            workers: workers.collect(),
            frontend,
            output,
            journals: Journals::take(&mut descriptors)?,
            endpoints: descriptors,
        })
    }

    /// Of a crash: what the keeper or systemd has kept.
    ///
    /// # Errors
    ///
    /// If a part is missing or unusable, of another version, or malformed.
    pub(super) fn after_crash(
        listener: OwnedFd,
        kept: &mut Descriptors,
    ) -> Result<Self, StateError> {
        let journals = Journals::take(kept)?;
        let (primary, pool) = journals.read()?;
        let page = kept.require(COUNTERS)?;
        let listener = Listener::handed_over(listener)?;
        let frontend = FrontendHandover::after_crash(listener, SharedCounters::open(page)?);
        let frontend = frontend.with_ports(kept);
        let facts = AdoptedFacts {
            credits: pool.settings.credits,
            port: pool.settings.port,
            node: Arc::new(Carry::restore(pool.settings.node.clone())),
        };
        let workers = links::workers(kept).into_iter();
        let workers = workers.filter_map(|id| adopt(id, kept, &facts)).collect();
        Ok(Self {
            after: After::Crash,
            workers,
            primary,
            pool,
            frontend,
            output: OutputHandover { lines: kept.take(LINES), ..OutputHandover::default() },
            journals,
            endpoints: std::mem::take(kept),
        })
    }
}

/// A state like the one that a successor would get, of the journals of a primary that runs.
pub(super) fn example(primary: &Journal, pool: &Journal) -> Result<StateFile, StateError> {
    Ok(StateFile {
        primary: read(primary, PRIMARY)?,
        pool: read(pool, journal::NAME)?,
        frontend: FrontendHandover::default().into_snapshot(&mut Descriptors::default()),
        output: OutputSnapshot::default(),
        descriptors: BTreeMap::new(),
    })
}

impl Journals {
    fn take(descriptors: &mut Descriptors) -> Result<Self, StateError> {
        let mut open = |name: &str| descriptors.require(name).map(Journal::open);
        Ok(Self { primary: open(PRIMARY)?, pool: open(journal::NAME)? })
    }

    fn read(&self) -> Result<(PrimarySnapshot, PoolSnapshot), StateError> {
        Ok((read(&self.primary, PRIMARY)?, read(&self.pool, journal::NAME)?))
    }
}

fn read<T: serde::de::DeserializeOwned>(journal: &Journal, name: &str) -> Result<T, StateError> {
    decode(&journal.read().ok_or_else(|| StateError::Missing(name.to_owned()))?)
}

/// A worker as far as it was kept. One whose channel is incomplete had not been started.
fn adopt(id: WorkerId, kept: &mut Descriptors, facts: &AdoptedFacts) -> Option<AdoptedWorker> {
    let (channel, member) = (Link::adopt(facts, id, kept), GroupMember::take(id, kept));
    let mut part = |part: WorkerPart| kept.take(&part.name(id));
    let (process, stdout, stderr) =
        (part(WorkerPart::Process), part(WorkerPart::Stdout), part(WorkerPart::Stderr));
    let channel = channel.inspect_err(|error| {
        tracing::warn!(slot = id.slot.0, generation = id.generation.0, %error, "worker lost");
    });
    Some(AdoptedWorker {
        id,
        channel: Attached::new(channel.ok()?, member),
        process,
        stdout,
        stderr,
    })
}

fn output_part(stream: Stream) -> WorkerPart {
    match stream {
        Stream::Out => WorkerPart::Stdout,
        Stream::Err => WorkerPart::Stderr,
    }
}
