//! What a primary begins with: nothing, or what another one has left to it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use crate::error::chain;
use crate::handover::descriptors::Descriptors;
use crate::primary::snapshot::Estate;
use crate::supervisor::output::{Output, OutputError, OutputSettings};
use crate::supervisor::pool::snapshot::After;
use crate::system::activation::{ActivationError, Inherited, LISTENER, inherited};
use crate::system::store::{CONFIGURATION, Store};
use crate::upgrade::exec::Refused;
use crate::upgrade::{EstateError, inherit};

/// How a primary begins.
#[derive(Debug)]
pub struct Beginning(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    /// The first of all.
    First {
        /// The listener, if somebody has passed one.
        listener: Option<OwnedFd>,
        /// It is kept already.
        is_kept: bool,
        /// The text of the configuration file, if its keeper has read it.
        source: Option<String>,
        /// What a crash has left was of no use.
        lost: Option<String>,
    },
    /// After another one.
    Successor(Box<Estate>),
}

impl Beginning {
    /// Looks for what was left to this process. It can be taken once.
    ///
    /// # Errors
    ///
    /// If it is an upgrade and nothing can be made of it, or what was passed is no listener.
    pub fn find() -> Result<Self, BeginningError> {
        if let Some((document, descriptors)) = inherit::inherited()? {
            let mut estate = Estate::unpack(&document, descriptors)?;
            estate.primary.replacements.upgrades += 1;
            estate.primary.replacements.upgrade_failed = None;
            return Ok(Self(Kind::Successor(Box::new(estate))));
        }
        let Inherited { listener, listener_is_kept: is_kept, mut kept } = inherited()?;
        let source = kept.take(CONFIGURATION).map(text).transpose().map_err(EstateError::Memory)?;
        Ok(match listener {
            Some(listener) if !kept.is_empty() => after_crash(listener, is_kept, source, kept)?,
            Some(_) => Self(Kind::First { listener, is_kept, source, lost: None }),
            None => {
                let error = EstateError::Missing(LISTENER.to_owned());
                let lost = (!kept.is_empty()).then(|| forget(&names(&kept), &error));
                Self(Kind::First { listener, is_kept, source, lost })
            }
        })
    }

    /// What is left where the successor couldn't be run: everything.
    ///
    /// # Errors
    ///
    /// If nothing can be made of it, which was made here.
    pub fn after_refusal(refused: Refused) -> Result<Self, BeginningError> {
        let Refused { error, document, descriptors } = refused;
        let mut estate = Estate::unpack(&document, descriptors)?;
        estate.primary.replacements.failed_upgrades += 1;
        estate.primary.replacements.upgrade_failed = Some(chain(&error));
        Ok(Self(Kind::Successor(Box::new(estate))))
    }

    /// The text of the configuration file, where somebody has read it before: its keeper, or the primary
    /// that has crashed.
    #[must_use]
    pub fn source(&self) -> Option<Option<String>> {
        match &self.0 {
            Kind::Successor(estate) if estate.after == After::Crash => {
                Some(estate.primary.source.clone())
            }
            Kind::First { source: Some(source), .. } => Some(Some(source.clone())),
            _ => None,
        }
    }

    /// Starts what takes workers' lines, with those that were begun.
    ///
    /// # Errors
    ///
    /// As [`Output::start`].
    pub fn start_output(&mut self, settings: OutputSettings) -> Result<Output, OutputError> {
        match &mut self.0 {
            Kind::First { .. } => Output::start(settings),
            Kind::Successor(estate) => Output::resume(settings, &mut estate.output),
        }
    }
}

/// Why a primary cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginningError {
    /// What was left to it is not understood.
    #[error(transparent)]
    Estate(#[from] EstateError),
    /// What was passed to it cannot be used.
    #[error(transparent)]
    Activation(#[from] ActivationError),
}

fn after_crash(
    listener: OwnedFd,
    is_kept: bool,
    source: Option<String>,
    mut kept: Descriptors,
) -> Result<Beginning, BeginningError> {
    let names = names(&kept);
    let copy = listener.try_clone().map_err(EstateError::Memory)?;
    match Estate::after_crash(copy, &mut kept) {
        Ok(mut estate) => {
            estate.primary.replacements.recoveries += 1;
            Ok(Beginning(Kind::Successor(Box::new(estate))))
        }
        Err(error) => {
            let lost = Some(forget(&names, &error));
            Ok(Beginning(Kind::First { listener: Some(listener), is_kept, source, lost }))
        }
    }
}

fn text(memory: OwnedFd) -> io::Result<String> {
    let file = File::from(memory);
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
    // Whoever starts after a crash has the same open file: its offset is no matter.
    file.read_exact_at(&mut bytes, 0)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn names(kept: &Descriptors) -> Vec<String> {
    kept.iter().map(|(name, _)| name.to_owned()).collect()
}

/// What cannot be used is not kept any longer, so that the next one finds nothing of it. Returns why it
/// cannot.
fn forget(names: &[String], error: &EstateError) -> String {
    if let Some(store) = Store::from_environment() {
        names.iter().for_each(|name| store.remove(name));
    }
    chain(error)
}
