//! The file of the token that a primary makes for itself, where no other is configured.
//!
//! It lies beside the control socket and lasts as long as that: a user who may read it may use the socket,
//! too. Knows nothing of requests.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use rustix::process::geteuid;

use crate::control::settings::Token;

/// Random bytes of a token.
const BYTES: usize = 32;

/// Matches no file: dropping removes nothing.
const NO_FILE: (u64, u64) = (0, 0);

/// A token that cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the admin token to {path:?}: name a file with admin_token_file")]
pub struct TokenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A token's file. Dropping it removes the file.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    /// Device and inode: the file of another primary is not removed.
    identity: (u64, u64),
    token: Token,
}

impl TokenFile {
    /// The name of the file beside a control socket.
    #[must_use]
    pub fn beside(socket: &Path) -> PathBuf {
        socket.with_extension("token")
    }

    /// Writes a token, in the place of one that a primary has left which was killed: a new one, or that of
    /// the primary `before`.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn create(path: PathBuf, before: Option<Token>) -> Result<Self, TokenError> {
        let token = before.map_or_else(random, Ok);
        match token.and_then(|token| Ok((place(&path, &token)?, token))) {
            Ok((identity, token)) => Ok(Self { path, identity, token }),
            Err(source) => Err(TokenError { path, source }),
        }
    }

    /// The token of a primary before, whose file is not there and cannot be written now.
    #[must_use]
    pub fn unwritten(path: PathBuf, token: Token) -> Self {
        Self { path, identity: NO_FILE, token }
    }

    /// Whether the file is there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok()
    }

    /// Writes the file again, if it is not there any more.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn renew(&mut self) -> io::Result<()> {
        if !self.is_there() {
            self.identity = place(&self.path, &self.token)?;
        }
        Ok(())
    }

    /// Takes over the one of the primary before, so that its clients go on. `None` if it is not there
    /// any more, or others could know it.
    #[must_use]
    pub fn adopt(path: PathBuf) -> Option<Self> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(&path).ok()?;
        let found = file.metadata().ok()?;
        let is_private = found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0;
        let mut text = String::new();
        if !found.is_file() || !is_private || file.read_to_string(&mut text).is_err() {
            return None;
        }
        let token = text.trim_end();
        let is_whole = token.len() == 2 * BYTES && token.bytes().all(|it| it.is_ascii_hexdigit());
        let identity = (found.dev(), found.ino());
        is_whole.then(|| Self { path, identity, token: Token::new(token) })
    }

    /// Leaves the file to a successor.
    pub fn leave(mut self) {
        self.identity = NO_FILE;
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let is_same = |found: &fs::Metadata| (found.dev(), found.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(|found| is_same(&found)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn random() -> io::Result<Token> {
    let mut random = [0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(Token::new(&HEXLOWER.encode(&random)))
}

/// Writes it under another name first: nobody reads half of it. Returns the file's identity.
fn place(path: &Path, token: &Token) -> io::Result<(u64, u64)> {
    let fresh = path.with_extension(format!("token.{}.new", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let written = write(&fresh, token).and_then(|()| {
        fs::rename(&fresh, path)?;
        let found = fs::symlink_metadata(path)?;
        Ok((found.dev(), found.ino()))
    });
    written.inspect_err(|_| _ = fs::remove_file(&fresh))
}

fn write(path: &Path, token: &Token) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{}\n", token.text()).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_goes_with_its_primary_or_is_left_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = TokenFile::beside(&folder.path().join("app-3000.sock"));
        assert!(TokenFile::adopt(path.clone()).is_none());
        let first = TokenFile::create(path.clone(), None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let token = first.token().clone();
        assert!(token.is(fs::read_to_string(&path).unwrap().trim_end()));
        first.leave();
        let second = TokenFile::adopt(path.clone()).unwrap();
        assert_eq!(*second.token(), token);
        // Another primary with this name keeps its own.
        let third = TokenFile::create(path.clone(), None).unwrap();
        assert_ne!(*third.token(), token);
        drop(second);
        assert!(path.exists());
        drop(third);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_token_that_others_could_know_is_not_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.token");
        TokenFile::create(path.clone(), None).unwrap().leave();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(TokenFile::adopt(path.clone()).is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short\n").unwrap();
        assert!(TokenFile::adopt(path).is_none());
    }
}
