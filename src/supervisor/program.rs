//! The program of a worker, looked for as the kernel will look for it.
//!
//! Runs nothing.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::supervisor::command::WorkerCommand;
use crate::supervisor::environment;
use crate::supervisor::start_error::{StartError, explain};

/// Where programs are looked for without `PATH`, as in execvp(3).
const USUAL_PATH: &str = "/bin:/usr/bin";

/// Fails if the program of this command could not be run, with the reason that its start would give.
///
/// # Errors
///
/// If it is not found, or not executable, or its interpreter is not there.
pub fn check(command: &WorkerCommand) -> io::Result<()> {
    let found = find(command).map_err(|error| explain(command, error))?;
    let missing = interpreter(&found).filter(|interpreter| !interpreter.exists());
    missing.map_or(Ok(()), |_| Err(io::Error::new(ErrorKind::NotFound, StartError::Interpreter)))
}

fn find(command: &WorkerCommand) -> io::Result<PathBuf> {
    let directory = command.directory.clone().unwrap_or_default();
    if command.program.as_bytes().contains(&b'/') {
        return executable(directory.join(&command.program));
    }
    let variables = environment::assemble(command, std::env::vars_os(), []);
    let usual = OsStr::new(USUAL_PATH);
    let path = variables.get(OsStr::new("PATH")).map_or(usual, OsString::as_os_str);
    let folders = std::env::split_paths(path).map(|folder| directory.join(folder));
    let mut refused = ErrorKind::NotFound.into();
    for folder in folders {
        match executable(folder.join(&command.program)) {
            Ok(found) => return Ok(found),
            // Another folder may have one that can be run.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => refused = error,
            Err(_) => {}
        }
    }
    Err(refused)
}

fn executable(path: PathBuf) -> io::Result<PathBuf> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error()));
    }
    access(&path, Access::EXEC_OK)?;
    Ok(path)
}

/// The interpreter that a script names in its first line.
fn interpreter(program: &Path) -> Option<PathBuf> {
    let mut begin = Vec::new();
    File::open(program).ok()?.take(256).read_to_end(&mut begin).ok()?;
    let line = begin.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.trim_ascii().split(u8::is_ascii_whitespace).next()?;
    Some(OsString::from_vec(word.to_vec()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> WorkerCommand {
        let mut words = shlex::split(line).unwrap().into_iter().map(OsString::from);
        WorkerCommand {
            program: words.next().unwrap(),
            arguments: words.collect(),
            directory: Some("/etc".into()),
            ..WorkerCommand::default()
        }
    }

    #[test]
    fn a_program_is_found_as_the_kernel_finds_it() {
        for found in ["sh -c true", "/bin/sh", "../bin/sh"] {
            assert!(check(&command(found)).is_ok(), "{found}");
        }
        for (line, expected) in [
            ("no-such-program", "no such file in PATH"),
            ("./no-such-program", "No such file or directory"),
            ("./passwd", "Permission denied"),
            ("/etc", "Permission denied"),
        ] {
            let error = check(&command(line)).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{line}: {error}");
        }
        let environment = vec![("PATH".into(), "/nonexistent".into())];
        assert!(check(&WorkerCommand { environment, ..command("sh") }).is_err());
    }
}
