//! What a primary leaves to its successor, all of it: written into a document before an upgrade, found
//! in journals and at whoever keeps descriptors after a crash.
//!
//! Never decides what becomes of it. Of a crash that left something unusable nothing is taken but the
//! listener: clients come first.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::control::links::Replacements;
use crate::control::settings::AdminSettings;
use crate::frontend::listener::Listener;
use crate::frontend::shared_counters::{COUNTERS, SharedCounters};
use crate::frontend::snapshot::{FrontendDocument, FrontendEstate};
use crate::handover::descriptors::{Descriptors, WorkerPart};
use crate::link::Link;
use crate::protocol::ids::{Timestamp, WorkerId};
use crate::supervisor::output::{OutputEstate, PipeState, Stream, TakenPipe};
use crate::supervisor::pool::snapshot::{AdoptedWorker, After, PoolDocument};
use crate::system::activation::LISTENER;
use crate::system::journal::{self, Journal};
use crate::system::store::PROGRAM;
use crate::upgrade::document::{Document, EstateError};

/// Names of parts of the document, and of descriptors.
pub(super) const PRIMARY: &str = "primary";
const POOL: &str = "pool";
const FRONTEND: &str = "frontend";
const OUTPUT: &str = "output";
/// The listener of the control socket.
pub(super) const CONTROL: &str = "control";
/// The admin listener.
pub(super) const ADMIN: &str = "admin";

/// What whoever keeps descriptors has of the primary itself.
pub(super) const KEPT: [&str; 7] =
    [LISTENER, PROGRAM, PRIMARY, journal::NAME, COUNTERS, CONTROL, ADMIN];

/// What is written down of the primary itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PrimaryDocument {
    /// When the first of all was started.
    pub(super) started: Timestamp,
    pub(super) replacements: Replacements,
    /// The text of the configuration file that it runs on.
    pub(super) source: Option<String>,
    /// The secret of its affinity keys.
    pub(super) secret: Vec<u8>,
    pub(super) control: Option<ControlDocument>,
    /// What the admin listener was asked to be.
    pub(super) admin: Option<String>,
    /// It was said that all workers are ready.
    pub(super) all_ready: bool,
}

/// Where the control socket is, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ControlDocument {
    pub(super) path: PathBuf,
    pub(super) wanted: Option<PathBuf>,
    pub(super) name: String,
}

/// How an admin listener is known again.
pub(super) fn admin_name(settings: &AdminSettings) -> String {
    settings.address.to_string()
}

/// All that was left.
#[derive(Debug)]
pub struct Estate {
    pub(super) after: After,
    pub(super) primary: PrimaryDocument,
    pub(super) pool: PoolDocument,
    pub(super) frontend: FrontendEstate,
    pub(super) workers: Vec<AdoptedWorker>,
    pub(super) output: OutputEstate,
    pub(super) journals: Journals,
    /// Control socket and admin listener.
    pub(super) doors: Descriptors,
}

/// What is written for a successor after a crash.
#[derive(Debug)]
pub(super) struct Journals {
    pub(super) primary: Journal,
    pub(super) pool: Journal,
}

/// How far each pipe was read, and how many lines were dropped.
#[derive(Debug, Default, Serialize, Deserialize)]
struct OutputDocument {
    pipes: Vec<PipeState>,
    dropped: u64,
}

/// All that a primary leaves by an upgrade.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) primary: PrimaryDocument,
    pub(super) pool: PoolDocument,
    /// With the channels.
    pub(super) frontend: FrontendEstate,
    /// Pidfds.
    pub(super) processes: Vec<(WorkerId, OwnedFd)>,
    pub(super) output: OutputEstate,
    pub(super) journals: Journals,
    pub(super) doors: Descriptors,
}

impl Leaving {
    /// Writes everything down.
    pub(super) fn pack(self) -> Result<(Document, Descriptors), EstateError> {
        let (mut document, mut descriptors) = (Document::new(), self.doors);
        document.insert(PRIMARY, &self.primary)?;
        document.insert(POOL, &self.pool)?;
        document.insert(FRONTEND, &self.frontend.pack(&mut descriptors))?;
        for (worker, process) in self.processes {
            descriptors.insert(WorkerPart::Process.name(worker), process);
        }
        let mut pipes = Vec::new();
        for TakenPipe { state, descriptor } in self.output.pipes {
            descriptors.insert(part_of(state.stream).name(state.worker), descriptor);
            pipes.push(state);
        }
        document.insert(OUTPUT, &OutputDocument { pipes, dropped: self.output.dropped })?;
        descriptors.insert(PRIMARY, self.journals.primary);
        descriptors.insert(journal::NAME, self.journals.pool);
        Ok((document, descriptors))
    }
}

impl Estate {
    /// Reads what [`Leaving::pack`] has written.
    pub(super) fn unpack(
        document: &Document,
        mut descriptors: Descriptors,
    ) -> Result<Self, EstateError> {
        let frontend: FrontendDocument = document.require(FRONTEND)?;
        let mut frontend = FrontendEstate::unpack(frontend, &mut descriptors)
            .map_err(|error| EstateError::Memory(std::io::Error::other(error)))?;
        let output: OutputDocument = document.require(OUTPUT)?;
        let pipes = output.pipes.into_iter().filter_map(|state| {
            let descriptor = descriptors.take(&part_of(state.stream).name(state.worker))?;
            Some(TakenPipe { state, descriptor })
        });
        let output = OutputEstate { pipes: pipes.collect(), dropped: output.dropped };
        let channels = frontend.take_channels();
        let workers = channels.into_iter().map(|(id, channel)| {
            let process = descriptors.take(&WorkerPart::Process.name(id));
            AdoptedWorker { id, channel, process, stdout: None, stderr: None }
        });
        Ok(Self {
            after: After::Upgrade,
            primary: document.require(PRIMARY)?,
            pool: document.require(POOL)?,
            frontend,
            workers: workers.collect(),
            output,
            journals: Journals::take(&mut descriptors)?,
            doors: descriptors,
        })
    }

    /// Whether such a document is understood, as far as that can be told without its descriptors.
    ///
    /// # Errors
    ///
    /// If it isn't.
    pub fn check(document: &Document) -> Result<(), EstateError> {
        document.require::<PrimaryDocument>(PRIMARY)?;
        document.require::<PoolDocument>(POOL)?;
        document.require::<FrontendDocument>(FRONTEND)?;
        document.read::<OutputDocument>(OUTPUT)?;
        Ok(())
    }

    /// What a successor would have to understand, of journals: an example of each part.
    pub(super) fn example(primary: &Journal, pool: &Journal) -> Result<Document, EstateError> {
        let mut document = Document::new();
        document.insert(PRIMARY, &written::<PrimaryDocument>(primary, PRIMARY)?)?;
        document.insert(POOL, &written::<PoolDocument>(pool, POOL)?)?;
        let frontend = FrontendEstate::default().pack(&mut Descriptors::default());
        document.insert(FRONTEND, &frontend)?;
        Ok(document)
    }

    /// Puts together what a crash has left.
    pub(super) fn after_crash(
        listener: OwnedFd,
        kept: &mut Descriptors,
    ) -> Result<Self, EstateError> {
        let journals = Journals::take(kept)?;
        let primary: PrimaryDocument = written(&journals.primary, PRIMARY)?;
        let bytes = journals.pool.read().ok_or_else(|| EstateError::Missing(POOL.to_owned()))?;
        let pool = PoolDocument::decode(&bytes)
            .map_err(|error| EstateError::Memory(std::io::Error::other(error)))?;
        let page = kept.take(COUNTERS).ok_or_else(|| EstateError::Missing(COUNTERS.to_owned()))?;
        let listener = Listener::handed_over(listener)?;
        let frontend = FrontendEstate::after_crash(listener, SharedCounters::open(page)?);
        let credits = pool.settings().credits;
        let workers = kept.workers().into_iter().filter_map(|id| adopt(id, kept, credits));
        Ok(Self {
            after: After::Crash,
            workers: workers.collect(),
            primary,
            pool,
            frontend,
            output: OutputEstate::default(),
            journals,
            doors: std::mem::take(kept),
        })
    }
}

impl Journals {
    fn take(descriptors: &mut Descriptors) -> Result<Self, EstateError> {
        let mut open = |name: &str| {
            let found = descriptors.take(name).map(Journal::open);
            found.ok_or_else(|| EstateError::Missing(name.to_owned()))
        };
        Ok(Self { primary: open(PRIMARY)?, pool: open(journal::NAME)? })
    }
}

/// A worker as far as it was kept. One whose channel is incomplete had not been started.
fn adopt(id: WorkerId, kept: &mut Descriptors, credits: usize) -> Option<AdoptedWorker> {
    let channel = Link::adopt(id, kept, credits);
    let mut part = |part: WorkerPart| kept.take(&part.name(id));
    let (process, stdout, stderr) =
        (part(WorkerPart::Process), part(WorkerPart::Stdout), part(WorkerPart::Stderr));
    let channel = channel.inspect_err(|error| {
        tracing::warn!(slot = id.slot.0, generation = id.generation.0, %error, "worker is lost");
    });
    Some(AdoptedWorker { id, channel: channel.ok()?, process, stdout, stderr })
}

fn written<T: serde::de::DeserializeOwned>(
    journal: &Journal,
    what: &str,
) -> Result<T, EstateError> {
    let bytes = journal.read().ok_or_else(|| EstateError::Missing(what.to_owned()))?;
    let malformed = |source| EstateError::Malformed { what: what.to_owned(), source };
    serde_json::from_slice(&bytes).map_err(malformed)
}

fn part_of(stream: Stream) -> WorkerPart {
    match stream {
        Stream::Out => WorkerPart::Stdout,
        Stream::Err => WorkerPart::Stderr,
    }
}
