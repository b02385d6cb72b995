//! The start of a primary: from nothing, or from the state that another one has left.

use std::io;
use std::os::fd::OwnedFd;

use crate::config::Config;
use crate::error::chain;
use crate::handover::StateError;
use crate::handover::descriptors::{Descriptors, LISTENER};
use crate::handover::pool::PoolSnapshot;
use crate::handover::primary::PrimarySnapshot;
use crate::primary::handover::Handover;
use crate::protocol::sealed::read_sealed;
use crate::supervisor::output::{Output, OutputError};
use crate::supervisor::pool::snapshot::After;
use crate::system::activation::{ActivationError, Inherited, inherited};
use crate::system::keeper;
use crate::system::store::{CONFIGURATION, Store};
use crate::upgrade::exec::Refused;
use crate::upgrade::inherit;

/// Bytes of the longest configuration.
const MAX_CONFIGURATION: u64 = 64 << 20;

/// What a primary starts from.
#[derive(Debug)]
pub enum Startup {
    /// It is the first of all.
    First {
        /// The listener, if one was passed.
        listener: Option<OwnedFd>,
        /// The keeper or systemd has a copy of it.
        is_kept: bool,
        /// The text of the configuration file, if its keeper has read it.
        source: Option<String>,
        /// Why the state that a crash has left is unusable.
        lost: Option<String>,
    },
    /// It follows another one.
    Successor(Box<Handover>),
}

impl Startup {
    /// Looks for what was left to this process. It can be taken once.
    ///
    /// # Errors
    ///
    /// If it is an upgrade whose state is unusable, or what was passed is no listener.
    pub fn find() -> Result<Self, StartupError> {
        keeper::attach();
        if let Some((file, descriptors)) = inherit::inherited()? {
            let mut handover = Handover::restore(file, descriptors)?;
            handover.primary.replacements.upgrades += 1;
            handover.primary.replacements.upgrade_failed = None;
            return Ok(Self::Successor(Box::new(handover)));
        }
        let Inherited { listener, listener_is_kept: is_kept, mut kept } = inherited()?;
        let source = kept.take(CONFIGURATION).map(text).transpose().map_err(StateError::Memory)?;
        Ok(match listener {
            Some(listener) if !kept.is_empty() => after_crash(listener, is_kept, source, kept)?,
            Some(_) => Self::First { listener, is_kept, source, lost: None },
            None => {
                let error = StateError::Missing(LISTENER.to_owned());
                let lost = (!kept.is_empty()).then(|| forget(&names(&kept), &error));
                Self::First { listener, is_kept, source, lost }
            }
        })
    }

    /// From a hand-over whose successor couldn't be run: everything.
    ///
    /// # Errors
    ///
    /// If that is unusable, which was made here.
    pub fn after_refusal(refused: Refused) -> Result<Self, StartupError> {
        let Refused { error, file, descriptors } = refused;
        let mut handover = Handover::restore(file, descriptors)?;
        handover.primary.replacements.failed_upgrades += 1;
        handover.primary.replacements.upgrade_failed = Some(chain(&error));
        Ok(Self::Successor(Box::new(handover)))
    }

    /// The text of the configuration file, if the keeper of a first primary has read it.
    #[must_use]
    pub fn source(&self) -> Option<String> {
        match self {
            Self::First { source, .. } => source.clone(),
            Self::Successor(_) => None,
        }
    }

    /// What a primary before has left of its settings.
    #[must_use]
    pub fn before(&self) -> Option<(&PrimarySnapshot, &PoolSnapshot, After)> {
        match self {
            Self::First { .. } => None,
            Self::Successor(left) => Some((&left.primary, &left.pool, left.after)),
        }
    }

    /// The text of the configuration file that workers of an upgraded primary run with.
    #[must_use]
    pub fn workers_source(&self) -> Option<Option<String>> {
        match self {
            Self::Successor(handover) if handover.after == After::Upgrade => {
                Some(handover.primary.source.clone())
            }
            _ => None,
        }
    }

    /// Starts to write the workers' lines, with those that are incomplete. A successor that cannot open a file
    /// notes that in its configuration.
    ///
    /// # Errors
    ///
    /// As [`Output::start`].
    pub fn start_output(&mut self, config: &mut Config) -> Result<Output, OutputError> {
        let settings = config.output.clone();
        match self {
            Self::First { .. } => Output::start(settings),
            Self::Successor(handover) => Output::resume(settings, &mut handover.output, |error| {
                config.not_renewed.push(chain(&error));
            }),
        }
    }
}

/// Why a primary cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartupError {
    /// The state that was left to it is unusable.
    #[error(transparent)]
    State(#[from] StateError),
    /// The descriptors that were passed to it are unusable.
    #[error(transparent)]
    Activation(#[from] ActivationError),
}

fn after_crash(
    listener: OwnedFd,
    is_kept: bool,
    source: Option<String>,
    mut kept: Descriptors,
) -> Result<Startup, StartupError> {
    let names = names(&kept);
    let copy = listener.try_clone().map_err(StateError::Memory)?;
    match Handover::after_crash(copy, &mut kept) {
        Ok(mut handover) => {
            handover.primary.replacements.recoveries += 1;
            Ok(Startup::Successor(Box::new(handover)))
        }
        Err(error) => {
            let lost = Some(forget(&names, &error));
            Ok(Startup::First { listener: Some(listener), is_kept, source, lost })
        }
    }
}

fn text(memory: OwnedFd) -> io::Result<String> {
    String::from_utf8(read_sealed(memory, MAX_CONFIGURATION)?).map_err(io::Error::other)
}

fn names(kept: &Descriptors) -> Vec<String> {
    kept.iter().map(|(name, _)| name.to_owned()).collect()
}

/// Ends the keeping of what is unusable, so that the next primary finds nothing of it. Returns the reason
/// in words.
fn forget(names: &[String], error: &StateError) -> String {
    if let Some(store) = Store::from_environment() {
        names.iter().for_each(|name| store.remove(name));
    }
    chain(error)
}
