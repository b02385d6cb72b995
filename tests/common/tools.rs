//! Programs from elsewhere that `scripts/test` installs, and that talk to a primary as real clients.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::own_directory;

/// A file that `scripts/test` has installed.
pub fn tool(path: &str) -> PathBuf {
    let found = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools").join(path);
    assert!(found.exists(), "this test needs {}: scripts/test installs it", found.display());
    found
}

/// A file of `tests/clients`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Clients at work in a process of their own. Dropping it kills them.
#[derive(Debug)]
pub struct Clients {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    directory: PathBuf,
}

impl Clients {
    /// Starts a program that says what it has seen in a line of JSON.
    pub fn start(command: &mut Command) -> Self {
        let directory = own_directory();
        let log = File::create(directory.join("log")).expect("a new file");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().expect("the program starts");
        let output = process.stdout.take().expect("it has an output");
        Self { process, lines: BufReader::new(output).lines(), directory }
    }

    /// Waits until each client has had an answer.
    pub fn wait_until_ready(&mut self) {
        assert_eq!(self.line(), "ready");
    }

    /// Ends them: what they have seen.
    pub fn finish(mut self) -> Value {
        drop(self.process.stdin.take());
        let line = self.line();
        assert!(self.process.wait().expect("it can be waited for").success(), "{line}");
        serde_json::from_str(&line).expect("a line of JSON")
    }

    fn line(&mut self) -> String {
        let line = self.lines.next().and_then(Result::ok);
        line.unwrap_or_else(|| panic!("the clients have ended; see their log"))
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            eprintln!("--- clients\n{log}--- end of their log");
        }
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The cases of Autobahn's test suite against an echo, 247 that take some seconds; performance and
/// compression are left out, which these servers don't speak.
pub fn pass_autobahn(address: SocketAddr, path: &str) {
    let directory = own_directory();
    let mut command = Command::new(tool("python/bin/kosoku"));
    command.args(["-m", "fuzzingclient", "-x", "9.*", "-x", "12.*", "-x", "13.*"]).arg("-o");
    command.arg(&directory).arg(format!("{}{path}", address));
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let index = fs::read(directory.join("index.json")).expect("a report");
    let index: Value = serde_json::from_slice(&index).expect("a report of JSON");
    let cases = index.as_object().and_then(|agents| agents.values().next()?.as_object());
    let cases = cases.expect("a report of one agent");
    assert_eq!(cases.len(), 247);
    for (case, found) in cases {
        for key in ["behavior", "behaviorClose"] {
            let passed = ["OK", "NON-STRICT", "INFORMATIONAL"].map(Value::from);
            assert!(passed.contains(&found[key]), "case {case}: {found}");
        }
    }
    let _ = fs::remove_dir_all(directory);
}
