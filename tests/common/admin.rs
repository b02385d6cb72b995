//! Speaks with the admin listener: HTTP by hand.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::client::{Answer, read_answer};
use super::{Primary, TIMEOUT};

impl Answer {
    /// Its status.
    pub fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no status in {self:?}"))
    }

    /// Its body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// Connects.
pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("somebody listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a time that is not zero");
    stream
}

/// Sends these bytes, and reads to the end.
pub fn say(to: SocketAddr, bytes: &[u8]) -> io::Result<Answer> {
    let mut stream = connect(to);
    stream.write_all(bytes)?;
    read_answer(stream)
}

/// A request without a body, its only one on its connection; `headers` are whole lines.
pub fn request(to: SocketAddr, method: &str, path: &str, headers: &[&str]) -> Answer {
    let named = headers.iter().any(|line| line.to_ascii_lowercase().starts_with("host:"));
    let host = if named { String::new() } else { format!("Host: {to}\r\n") };
    let more: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let text = format!("{method} {path} HTTP/1.1\r\n{host}{more}Connection: close\r\n\r\n");
    say(to, text.as_bytes()).unwrap_or_else(|error| panic!("no answer to {text:?}: {error}"))
}

/// Sends a body too.
pub fn post(to: SocketAddr, path: &str, headers: &[&str], body: &str) -> Answer {
    let more: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    let text = format!(
        "POST {path} HTTP/1.1\r\nHost: {to}\r\n{more}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    say(to, text.as_bytes()).unwrap_or_else(|error| panic!("no answer to {text:?}: {error}"))
}

/// Looks on.
#[derive(Debug)]
pub struct Viewer {
    reader: BufReader<TcpStream>,
    /// The status line.
    pub status: String,
}

impl Viewer {
    /// Begins. HTTP/1.0 knows no pieces, so that lines come as they are.
    pub fn of(to: SocketAddr, path: &str) -> Self {
        let mut stream = connect(to);
        let request = format!("GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it is taken");
        let mut viewer = Self { reader: BufReader::new(stream), status: String::new() };
        viewer.status = viewer.line().unwrap_or_default();
        viewer
    }

    /// The next message: its kind and data; nothing at the end.
    pub fn next(&mut self) -> Option<(String, Value)> {
        let mut kind = String::new();
        loop {
            let line = self.line()?;
            if let Some(said) = line.strip_prefix("event: ") {
                said.clone_into(&mut kind);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((kind, serde_json::from_str(data).expect("JSON")));
            }
        }
    }

    /// The data of the next message, which has to be of this kind.
    pub fn expect(&mut self, kind: &str) -> Value {
        let (found, data) = self.next().unwrap_or_else(|| panic!("the end instead of {kind}"));
        assert_eq!(found, kind, "{data}");
        data
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no line: {error}"),
        }
    }
}

impl Primary {
    /// Where its admin listener is.
    pub fn admin(&self) -> SocketAddr {
        let status = self.ask("status", json!({}));
        let admin = status["admin"].as_str().and_then(|address| address.parse().ok());
        admin.unwrap_or_else(|| panic!("no admin listener in {status}"))
    }

    /// Asks its admin listener for something that is there.
    pub fn get(&self, path: &str) -> Answer {
        let answer = request(self.admin(), "GET", path, &[]);
        assert_eq!(answer.status(), 200, "{path}: {answer:?}");
        answer
    }

    /// Orders something over its admin listener.
    pub fn order(&self, name: &str, keys: &Value) -> Answer {
        let path = format!("/api/{name}");
        post(self.admin(), &path, &["Content-Type: application/json"], &keys.to_string())
    }
}
