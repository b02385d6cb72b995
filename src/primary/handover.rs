//! The end of a primary that is upgraded: everything is gathered, and the program becomes its successor.

use std::convert::Infallible;
use std::path::PathBuf;

use crate::frontend::snapshot::FrontendEstate;
use crate::handover::descriptors::Descriptors;
use crate::primary::endpoints::Endpoints;
use crate::primary::record::Record;
use crate::primary::snapshot::{Journals, Leaving};
use crate::supervisor::output::OutputEstate;
use crate::supervisor::pool::snapshot::PoolEstate;
use crate::system::journal::Journal;
use crate::upgrade::document::{Document, EstateError};
use crate::upgrade::exec::{Refused, Successor, exec};

/// A primary that has stopped, and whose workers run.
#[derive(Debug)]
pub struct HandOver {
    document: Document,
    descriptors: Descriptors,
    program: PathBuf,
}

impl HandOver {
    pub(super) fn gather(
        program: PathBuf,
        frontend: FrontendEstate,
        pool: PoolEstate,
        output: OutputEstate,
        doors: Endpoints,
        record: Record,
    ) -> Result<Self, EstateError> {
        let (primary, journal) = record.into_parts();
        let pool_journal = pool.links.journal;
        let pool_journal = pool_journal.map_or_else(Journal::create, Ok)?;
        let mut left = Descriptors::default();
        doors.hand_over(&mut left);
        let leaving = Leaving {
            primary,
            pool: pool.document,
            frontend,
            processes: pool.processes,
            output,
            journals: Journals { primary: journal, pool: pool_journal },
            doors: left,
        };
        let (document, descriptors) = leaving.pack()?;
        Ok(Self { document, descriptors, program })
    }

    /// Becomes the successor. To be called on the main thread, when nothing else runs any more.
    ///
    /// # Errors
    ///
    /// If it cannot be run; everything is as it was.
    pub fn become_successor(self) -> Result<Infallible, Box<Refused>> {
        exec(&Successor::of(&self.program), self.document, self.descriptors)
    }
}
