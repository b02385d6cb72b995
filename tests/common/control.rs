//! Speaks on the control socket by hand, a line at a time, as its documentation says.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Primary, TIMEOUT};

/// A request that was sent.
#[derive(Debug)]
pub struct Asked {
    reader: BufReader<UnixStream>,
}

/// The end of an answer: what was asked for, or code and message of the problem.
pub type End = Result<Value, (String, String)>;

impl Asked {
    /// Sends bytes as they are.
    pub fn raw(path: &Path, bytes: &[u8]) -> Self {
        let mut socket = UnixStream::connect(path).expect("somebody listens");
        socket.set_read_timeout(Some(TIMEOUT)).expect("a time can be set");
        // Whoever is refused may find the socket closed already.
        let _ = socket.write_all(bytes);
        Self { reader: BufReader::new(socket) }
    }

    /// The next line; nothing at the end.
    pub fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            // Closed with something of ours unread.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer: {error}"),
            Ok(_) => Some(serde_json::from_str(&line).expect("a line of JSON")),
        }
    }

    /// The next item.
    pub fn item(&mut self) -> Value {
        let line = self.line().expect("an item");
        assert!(line["item"].is_object(), "an item: {line}");
        line["item"].clone()
    }

    /// Items up to the end, and the end.
    pub fn all(mut self) -> (Vec<Value>, End) {
        let mut items = Vec::new();
        loop {
            let line = self.line().expect("an end of the answer");
            if let Some(item) = line.get("item") {
                items.push(item.clone());
            } else if let Some(error) = line.get("error") {
                let text = |key: &str| error[key].as_str().expect("text").to_owned();
                return (items, Err((text("code"), text("message"))));
            } else {
                return (items, Ok(line["done"].clone()));
            }
        }
    }

    /// The end.
    pub fn end(self) -> End {
        self.all().1
    }

    /// The socket.
    pub fn socket(&self) -> &UnixStream {
        self.reader.get_ref()
    }
}

impl Primary {
    /// Its control socket, where it is by itself: with another name or port, the only one there.
    pub fn control(&self) -> PathBuf {
        let usual = self.directory().join(format!("app-{}.sock", self.port()));
        if usual.exists() {
            return usual;
        }
        let entries = std::fs::read_dir(self.directory()).into_iter().flatten().flatten();
        let mut paths = entries.map(|entry| entry.path());
        paths.find(|path| path.extension().is_some_and(|it| it == "sock")).unwrap_or(usual)
    }

    /// Sends a request, with more keys.
    pub fn begin(&self, request: &str, keys: Value) -> Asked {
        let mut object = json!({"version": 1, "request": request});
        let more = keys.as_object().expect("an object").clone();
        object.as_object_mut().expect("an object").extend(more);
        Asked::raw(&self.control(), format!("{object}\n").as_bytes())
    }

    /// Asks for something that must be answered well.
    pub fn ask(&self, request: &str, keys: Value) -> Value {
        let end = self.begin(request, keys).end();
        end.unwrap_or_else(|problem| panic!("{request}: {problem:?}"))
    }

    /// Asks for something while perhaps nobody answers.
    pub fn try_ask(&self, request: &str) -> Option<Value> {
        let socket = UnixStream::connect(self.control()).ok()?;
        socket.set_read_timeout(Some(TIMEOUT)).ok()?;
        let object = json!({"version": 1, "request": request});
        (&socket).write_all(format!("{object}\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).ok()?;
        serde_json::from_str::<Value>(&line).ok()?.get("done").cloned()
    }

    /// Asks for something that must be refused: code and message.
    pub fn ask_in_vain(&self, request: &str, keys: Value) -> (String, String) {
        match self.begin(request, keys).end() {
            Err(problem) => problem,
            Ok(done) => panic!("{request} was done: {done}"),
        }
    }
}
