//! The settings: which messages of programs do what. Pure.

use std::collections::HashMap;

/// What a message of one type does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// One is added to the counter, and all programs are told its value by a message of this type.
    Increment(String),
    /// The sender is told the counter's value by a message of this type.
    GetCounter(String),
    /// All other programs are sent its `payload` by a message of this type.
    Broadcast(String),
    /// The worker has finished a request.
    Request,
    /// The worker has finished a request, and this field says how many are in flight.
    Load(String),
    /// The worker is replaced.
    Replace,
    /// Nothing, on purpose.
    Ignore,
}

/// Libraries whose messages are known without being set by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Libraries {
    /// Messages of `@socket.io/cluster-adapter` are relayed.
    pub socket_io: bool,
    /// Messages of log4js are written to the worker's output.
    pub log4js: bool,
    /// Metrics of prom-client are collected.
    pub prom_client: bool,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Actions by type.
    pub actions: HashMap<String, Action>,
    /// Libraries.
    pub libraries: Libraries,
}

/// One word of the setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing that was set before, or that is on by default.
    Off,
    /// Relay messages of `@socket.io/cluster-adapter`.
    SocketIo,
    /// Write lines of log4js.
    Log4js,
    /// Collect metrics of prom-client.
    PromClient,
    /// The messages of tutorials.
    Guide,
    /// A message of this type does that.
    Message(String, Action),
}

/// The messages of tutorials, and their actions.
const GUIDE: [(&str, &str); 6] = [
    ("increment", "increment"),
    ("get-counter", "get-counter"),
    ("broadcast", "broadcast"),
    ("request", "request"),
    ("request-complete", "load"),
    ("memory-exceeded", "replace"),
];

/// What is on by default: nothing of that happens without a message that has the library's mark.
pub const DEFAULT: [&str; 2] = ["socket.io", "log4js"];

impl std::str::FromStr for Rule {
    type Err = String;

    /// `NAME` or `TYPE=ACTION` or `TYPE=ACTION:WORD`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => return Ok(Self::Off),
            "socket.io" => return Ok(Self::SocketIo),
            "log4js" => return Ok(Self::Log4js),
            "prom-client" => return Ok(Self::PromClient),
            "guide" => return Ok(Self::Guide),
            _ => {}
        }
        let (kind, action) = text.rsplit_once('=').ok_or_else(|| {
            "expected `guide`, `socket.io`, `log4js`, `prom-client`, `off`, or TYPE=ACTION"
                .to_owned()
        })?;
        if kind.is_empty() {
            return Err("expected a message's type before =".to_owned());
        }
        Ok(Self::Message(kind.to_owned(), action.parse()?))
    }
}

impl std::str::FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, word) = match text.split_once(':') {
            Some((name, word)) => (name, Some(word)),
            None => (text, None),
        };
        let or = |default: &str| word.filter(|it| !it.is_empty()).unwrap_or(default).to_owned();
        let plain = |action: Self| match word {
            None => Ok(action),
            Some(_) => Err(format!("expected nothing after {name}")),
        };
        match name {
            "increment" => Ok(Self::Increment(or("counter-update"))),
            "get-counter" => Ok(Self::GetCounter(or("counter-value"))),
            "broadcast" => Ok(Self::Broadcast(or("broadcast-message"))),
            "load" => Ok(Self::Load(or("count"))),
            "request" => plain(Self::Request),
            "replace" => plain(Self::Replace),
            "ignore" => plain(Self::Ignore),
            _ => Err("expected `increment`, `get-counter`, `broadcast`, `request`, `load`, `replace` or \
                      `ignore`"
                .to_owned()),
        }
    }
}

impl Rules {
    /// From the words of the setting; later ones count.
    #[must_use]
    pub fn new(words: &[Rule]) -> Self {
        let libraries = Libraries { socket_io: true, log4js: true, prom_client: false };
        let mut rules = Self { libraries, ..Self::default() };
        for word in words {
            match word {
                Rule::Off => rules = Self::default(),
                Rule::SocketIo => rules.libraries.socket_io = true,
                Rule::Log4js => rules.libraries.log4js = true,
                Rule::PromClient => rules.libraries.prom_client = true,
                Rule::Guide => rules.add_guide(),
                Rule::Message(kind, action) => {
                    rules.actions.insert(kind.clone(), action.clone());
                }
            }
        }
        rules
    }

    fn add_guide(&mut self) {
        for (kind, action) in GUIDE {
            if let Ok(action) = action.parse() {
                self.actions.insert(kind.to_owned(), action);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(words: &[&str]) -> Rules {
        Rules::new(&words.iter().map(|word| word.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn marks_are_recognised_by_default_and_nothing_else_is() {
        let default = rules(&[]);
        assert_eq!(default, rules(&DEFAULT));
        assert!(default.actions.is_empty());
        assert_eq!(rules(&["off"]), Rules::default());
        let only = rules(&["off", "prom-client"]).libraries;
        assert_eq!(only, Libraries { prom_client: true, ..Libraries::default() });
    }

    #[test]
    fn the_guide_is_a_list_of_rules_and_later_ones_count() {
        let guide = rules(&["guide"]);
        assert_eq!(guide.actions.len(), GUIDE.len());
        assert_eq!(guide.actions["increment"], Action::Increment("counter-update".to_owned()));
        assert_eq!(guide.actions["request-complete"], Action::Load("count".to_owned()));
        let other = rules(&["guide", "increment=increment:hits", "a=b=replace"]);
        assert_eq!(other.actions["increment"], Action::Increment("hits".to_owned()));
        assert_eq!(other.actions["a=b"], Action::Replace);
    }

    #[test]
    fn a_word_that_is_no_rule_is_refused() {
        for wrong in ["", "x", "=replace", "x=", "x=away", "x=replace:y", "x=Load"] {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
    }
}
