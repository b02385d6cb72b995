//! The two standard streams as commands use them, and the looks that they allow.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};

use clap::builder::styling::{AnsiColor, Style};
use rustix::termios::tcgetwinsize;
use serde_json::Value;

use crate::log::write_to_people;

/// The looks that a stream allows: none on a pipe.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// With colours.
    pub(super) colour: bool,
    /// Columns of the terminal.
    pub(super) width: Option<u16>,
}

/// A meaning, which decides the colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way, or taken out by somebody.
    Warn,
    /// Wrong.
    Bad,
}

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen {
    output: io::Stdout,
    is_terminal: bool,
    /// The looks that it allows.
    pub(super) look: Look,
}

impl Look {
    /// For a standard stream.
    fn new(stream: &(impl IsTerminal + std::os::fd::AsFd)) -> Self {
        if !stream.is_terminal() {
            return Self::default();
        }
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        // A terminal that doesn't know its size says 0.
        let width = tcgetwinsize(stream).ok().map(|size| size.ws_col).filter(|width| *width > 0);
        Self { colour: !no_colour, width }
    }

    /// In the colour of its meaning.
    pub(super) fn paint(self, text: impl fmt::Display, tone: Tone) -> String {
        match tone.colour().filter(|_| self.colour) {
            Some(colour) => in_style(text, colour.on_default()),
            None => text.to_string(),
        }
    }

    /// The prefix of a worker's line, in the colours that the primary has for it on its own terminal.
    pub(super) fn prefix(self, slot: u16, err: bool) -> String {
        use AnsiColor as C;
        const COLOURS: [AnsiColor; 10] = [
            C::Cyan,
            C::Green,
            C::Yellow,
            C::Magenta,
            C::Blue,
            C::BrightCyan,
            C::BrightGreen,
            C::BrightYellow,
            C::BrightMagenta,
            C::BrightBlue,
        ];
        if !self.colour {
            return format!("{slot} | ");
        }
        let own = COLOURS[usize::from(slot) % COLOURS.len()].on_default();
        let bar = if err { C::Red.on_default() } else { own };
        // Ends colours that the line before has left on.
        format!("\x1b[0m{} {} ", in_style(slot, own), in_style("|", bar))
    }
}

impl Tone {
    /// The tone of a state of a slot or a worker.
    pub(super) fn from_state(state: &str) -> Self {
        match state {
            "serving" | "spare" | "open" => Self::Good,
            "spawning" | "standby" | "draining" | "drained" | "removed" | "holding" => Self::Warn,
            "back-off" | "errored" | "aborted" | "killed" => Self::Bad,
            _ => Self::Plain,
        }
    }

    fn colour(self) -> Option<AnsiColor> {
        match self {
            Self::Plain => None,
            Self::Good => Some(AnsiColor::Green),
            Self::Warn => Some(AnsiColor::Yellow),
            Self::Bad => Some(AnsiColor::Red),
        }
    }
}

impl Screen {
    pub(super) fn new() -> Self {
        let output = io::stdout();
        Self { look: Look::new(&output), is_terminal: output.is_terminal(), output }
    }

    /// Prints text that ends its lines itself. A terminal gets colours and nothing else that steers it.
    ///
    /// # Errors
    ///
    /// If the reader has gone, and what the kernel says.
    pub(super) fn print(&mut self, text: &str) -> io::Result<()> {
        let text = if self.is_terminal { harmless(text) } else { text.into() };
        self.output.write_all(text.as_bytes())?;
        self.output.flush()
    }

    /// Prints one line of JSON.
    ///
    /// # Errors
    ///
    /// As [`Self::print`].
    pub(super) fn json(&mut self, value: &Value) -> io::Result<()> {
        self.print(&format!("{}\n", ascii_controls(&value.to_string())))
    }
}

/// Prints something for people on standard error, unless nobody reads there.
pub(super) fn complain(text: &str) {
    let text = harmless(text);
    let lines = text.lines().map(|line| format!("sticky-lb: {line}\n"));
    write_to_people(lines.collect::<String>().as_bytes());
}

/// Without what steers a terminal, which could change its title, its clipboard or what is on it already:
/// that is written as `\x1b`. Colours stay.
fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return text.into();
    }
    let (mut harmless, mut rest) = (String::new(), text);
    while let Some(place) = rest.find(steers) {
        let (before, from) = rest.split_at(place);
        harmless.push_str(before);
        let mut after = from.chars();
        let control = after.next().unwrap_or_default();
        rest = after.as_str();
        match colour(from) {
            Some(colour) => {
                harmless.push_str(colour);
                rest = &from[colour.len()..];
            }
            None => harmless.push_str(&format!("\\x{:02x}", u32::from(control))),
        }
    }
    (harmless + rest).into()
}

fn steers(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t') || turns(c)
}

/// Whether it turns the direction of text, and so shows another order than there is.
pub(super) fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A sequence that changes colours, at the start of a text.
fn colour(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("\x1b[")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, ';' | ':'))?;
    rest[end..].starts_with('m').then(|| &text[..2 + end + 1])
}

/// JSON escapes the controls of ASCII alone, but for the last one. Terminals know more.
fn ascii_controls(json: &str) -> Cow<'_, str> {
    if !json.contains(char::is_control) {
        return json.into();
    }
    let escaped = json.chars().map(|c| match c {
        c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    });
    escaped.collect::<String>().into()
}

fn in_style(text: impl fmt::Display, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOURED: Look = Look { colour: true, width: None };

    #[test]
    fn without_a_terminal_all_is_plain() {
        let plain = Look::default();
        assert_eq!(plain.paint("errored", Tone::Bad), "errored");
        assert_eq!(
            (plain.prefix(3, false), plain.prefix(13, true)),
            ("3 | ".into(), "13 | ".into())
        );
    }

    #[test]
    fn nothing_but_colours_reaches_a_terminal() {
        for (text, expected) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\x1b[1;31mred\x1b[0m \x1b[38:5:9m\x1b[m", "\x1b[1;31mred\x1b[0m \x1b[38:5:9m\x1b[m"),
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("\x1b[2J\x1b[", "\\x1b[2J\\x1b["),
            ("a\rb\u{9b}2J\u{7f}\x1b", "a\\x0db\\x9b2J\\x7f\\x1b"),
            ("a\u{202e}b\u{2066}", "a\\x202eb\\x2066"),
        ] {
            assert_eq!(harmless(text), expected);
        }
        let value = serde_json::json!({"text": "\x1b[2J\u{9b}2J\u{7f} ä"});
        let text = value.to_string();
        let escaped = ascii_controls(&text);
        assert!(!escaped.contains(char::is_control) && escaped.contains('ä'), "{escaped}");
        assert_eq!(serde_json::from_str::<Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn on_a_terminal_what_is_wrong_is_red() {
        assert_eq!(
            COLOURED.paint("errored", Tone::from_state("errored")),
            "\x1b[31merrored\x1b[0m"
        );
        assert_eq!(COLOURED.paint("moon", Tone::from_state("moon")), "moon");
        assert!(COLOURED.prefix(0, true).contains("\x1b[31m|"), "{:?}", COLOURED.prefix(0, true));
        assert!(!COLOURED.prefix(0, false).contains("\x1b[31m|"));
    }
}
