//! What a primary has had of things that others may take away: files, directories, entries of users. Its
//! successor goes on with it where it doesn't find the thing itself.

use std::path::PathBuf;

use crate::control::settings::Token;
use crate::handover::Carry;
use crate::handover::pool::PoolSnapshot;
use crate::handover::primary::PrimarySnapshot;
use crate::supervisor::command::User;
use crate::supervisor::pool::snapshot::After;

/// The things of a primary that its successor may not find any more.
#[derive(Clone, Debug)]
pub struct Before {
    pub(super) after: After,
    /// The text of the configuration file, if there was one.
    pub(super) source: Option<String>,
    /// Of affinity keys.
    pub(super) secret: Vec<u8>,
    /// Of the admin listener, where it comes from a file.
    pub(super) token: Option<Token>,
    /// The workers'.
    pub(super) directory: Option<PathBuf>,
    /// The workers'.
    pub(super) user: Option<User>,
}

impl Before {
    /// From what that primary has left.
    #[must_use]
    pub fn new(primary: &PrimarySnapshot, pool: &PoolSnapshot, after: After) -> Self {
        let command = &pool.settings.command;
        Self {
            after,
            source: primary.source.clone(),
            secret: primary.secret.clone(),
            token: primary.token.as_deref().map(Token::new),
            directory: command.directory.clone(),
            user: command.user.clone().map(User::restore),
        }
    }
}
