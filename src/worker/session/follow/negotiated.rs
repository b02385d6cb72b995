//! The agreement that comes with a WebSocket: its subprotocol and its extensions, and whether those
//! keep anything that can't migrate.
//!
//! Never negotiates: it reads the answer of the library, which is the last word on it.

use httparse::Header;

/// The only extension that is known (RFC 7692).
const DEFLATE: &str = "permessage-deflate";
/// With both, nothing of a message is kept for the next.
const NO_CONTEXT: [&str; 2] = ["client_no_context_takeover", "server_no_context_takeover"];
const WINDOWS: [&str; 2] = ["client_max_window_bits", "server_max_window_bits"];

/// The reason why a WebSocket can't migrate, whatever its handler declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Obstacle {
    /// Its compression goes on from message to message.
    ContextTakeover,
    /// It has an extension whose state is unknown.
    Extension,
    /// Its request can't be read again: it has a body, or asked for no WebSocket.
    Request,
    /// In the new worker its handler has closed it at once.
    ClosedAtOnce,
    /// In the new worker the answer is another than the one that its client has got.
    OtherAnswer,
}

impl Obstacle {
    /// For the operator: what it is, and what to do.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::ContextTakeover => {
                "permessage-deflate keeps its window from one message to the next: let the server \
                 negotiate client_no_context_takeover and server_no_context_takeover, or no compression"
            }
            Self::Extension => {
                "it has agreed to an extension of which nothing is known: only permessage-deflate \
                 without context takeover migrates"
            }
            Self::Request => "its request has a body, or did not ask for a WebSocket",
            Self::ClosedAtOnce => {
                "after a migration its handler closes it at once: it can't go on from the state that it \
                 is left, and should not declare that it migrates"
            }
            Self::OtherAnswer => {
                "the new version chooses another subprotocol or other extensions for the same request"
            }
        }
    }
}

/// The subprotocol and the extensions that a server has agreed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Negotiated {
    /// `Sec-WebSocket-Protocol`; empty if there is none.
    pub(crate) protocol: Vec<u8>,
    /// `Sec-WebSocket-Extensions`, all lines as one; empty if there is none.
    pub(crate) extensions: Vec<u8>,
}

impl Negotiated {
    pub(crate) fn new(headers: &[Header<'_>]) -> Self {
        let all = |name: &str| {
            let lines = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            lines.map(|header| header.value.trim_ascii()).collect::<Vec<_>>().join(&b", "[..])
        };
        Self {
            protocol: all("sec-websocket-protocol"),
            extensions: all("sec-websocket-extensions"),
        }
    }

    /// What keeps it from being migrated.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        let extensions = self.extensions();
        let (name, parameters) = match &extensions[..] {
            [] => return None,
            [one] => one,
            _ => return Some(Obstacle::Extension),
        };
        let is_known = |(key, _): &(String, String)| {
            NO_CONTEXT.contains(&key.as_str()) || WINDOWS.contains(&key.as_str())
        };
        // They are in order: the same one twice stands beside itself.
        let is_doubled = parameters.windows(2).any(|pair| pair[0].0 == pair[1].0);
        if name != DEFLATE || is_doubled || !parameters.iter().all(is_known) {
            return Some(Obstacle::Extension);
        }
        let is_stateless = NO_CONTEXT.iter().all(|key| parameters.iter().any(|(it, _)| it == key));
        (!is_stateless).then_some(Obstacle::ContextTakeover)
    }

    /// Whether both mean the same to a client, however they are written.
    pub(crate) fn means(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.extensions() == other.extensions()
    }

    /// Names, and parameters in alphabetical order. Text in quotes may be taken apart: no extension
    /// that is known has any.
    fn extensions(&self) -> Vec<(String, Vec<(String, String)>)> {
        let text = String::from_utf8_lossy(&self.extensions);
        let extensions = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        let parsed = extensions.map(|text| {
            let mut parts = text.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut parameters: Vec<_> = parts.map(parameter).collect();
            parameters.sort();
            (name, parameters)
        });
        parsed.collect()
    }
}

fn parameter(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extensions(text: &str) -> Negotiated {
        Negotiated { protocol: Vec::new(), extensions: text.into() }
    }

    #[test]
    fn only_what_keeps_nothing_can_migrate() {
        let deflate = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let table = [
            (String::new(), None),
            (deflate.to_owned(), None),
            (format!("{deflate};client_max_window_bits=\"10\"; server_max_window_bits = 9"), None),
            (deflate.to_uppercase(), None),
            ("permessage-deflate".to_owned(), Some(Obstacle::ContextTakeover)),
            (
                "permessage-deflate; server_no_context_takeover".to_owned(),
                Some(Obstacle::ContextTakeover),
            ),
            (
                "permessage-deflate; client_no_context_takeover".to_owned(),
                Some(Obstacle::ContextTakeover),
            ),
            (format!("{deflate}; shared_window"), Some(Obstacle::Extension)),
            (format!("{deflate}; server_no_context_takeover"), Some(Obstacle::Extension)),
            (format!("{deflate}, x-other"), Some(Obstacle::Extension)),
            ("permessage-bzip2".to_owned(), Some(Obstacle::Extension)),
            ("\u{fffd}".to_owned(), Some(Obstacle::Extension)),
        ];
        for (text, obstacle) in table {
            assert_eq!(extensions(&text).obstacle(), obstacle, "{text}");
        }
    }

    #[test]
    fn the_same_is_the_same_however_it_is_written() {
        let one = extensions("permessage-deflate; a; b=\"10\"");
        assert!(one.means(&extensions("permessage-deflate;b=10;a")));
        for other in ["", "permessage-deflate; a; b=9", "permessage-deflate; a; b=10, x"] {
            assert!(!one.means(&extensions(other)), "{other}");
        }
        let chat = Negotiated { protocol: b"chat".to_vec(), ..Negotiated::default() };
        assert!(!chat.means(&Negotiated::default()) && chat.means(&chat));
    }

    #[test]
    fn several_lines_are_one() {
        let header = |name, value| Header { name, value };
        let headers = [
            header("sec-websocket-EXTENSIONS", b" x-a ".as_slice()),
            header("Sec-WebSocket-Protocol", b"chat".as_slice()),
            header("Sec-WebSocket-Extensions", b"x-b; c".as_slice()),
        ];
        let expected =
            Negotiated { protocol: b"chat".to_vec(), extensions: b"x-a, x-b; c".to_vec() };
        assert_eq!(Negotiated::new(&headers), expected);
    }
}
