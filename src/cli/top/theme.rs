//! Colours and characters that the terminal at hand can show.
//!
//! Colours are of the 16 that each terminal has its own idea of, and never tell anything alone.

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::{bar, block, border};

/// The styles and characters to draw with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    has_colours: bool,
    characters: Characters,
}

/// The characters of a terminal's font.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Characters {
    Ascii,
    /// Those of the Linux console: half blocks, no eighths.
    Console,
    Unicode,
}

impl Characters {
    /// From `TERM` and the locale.
    pub(super) fn of(term: &str, locale: &str) -> Self {
        let locale = locale.to_ascii_lowercase();
        match term {
            _ if !locale.contains("utf-8") && !locale.contains("utf8") => Self::Ascii,
            "linux" => Self::Console,
            _ => Self::Unicode,
        }
    }
}

impl Look {
    pub(super) const fn new(has_colours: bool, characters: Characters) -> Self {
        Self { has_colours, characters }
    }

    /// For lines of bars, one a second.
    pub(super) fn upright(self) -> bar::Set<'static> {
        match self.characters {
            Characters::Ascii => ASCII_UPRIGHT,
            Characters::Console => bar::THREE_LEVELS,
            Characters::Unicode => bar::NINE_LEVELS,
        }
    }

    /// For bars that lie.
    pub(super) fn lying(self) -> block::Set<'static> {
        match self.characters {
            Characters::Ascii => ASCII_LYING,
            Characters::Console => block::THREE_LEVELS,
            Characters::Unicode => block::NINE_LEVELS,
        }
    }

    pub(super) fn border(self) -> border::Set<'static> {
        match self.characters {
            Characters::Ascii => ASCII_BORDER,
            Characters::Console | Characters::Unicode => border::PLAIN,
        }
    }

    /// From the environment: `NO_COLOR`, `TERM`, the locale.
    pub(super) fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable);
        let term = variable("TERM").unwrap_or_default();
        let characters = Characters::of(&term, &locale.unwrap_or_default());
        Self::new(variable("NO_COLOR").is_none(), characters)
    }

    pub(super) fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    pub(super) fn warning(self) -> Style {
        self.coloured(Color::Yellow)
    }

    pub(super) fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn line(self) -> Style {
        self.coloured(Color::Cyan)
    }

    /// Cannot be overlooked.
    pub(super) fn alarm(self) -> Style {
        self.bad().add_modifier(Modifier::REVERSED)
    }

    /// The style of a state.
    pub(super) fn state(self, state: &str) -> Style {
        match state {
            "serving" => self.good(),
            "aborted" | "errored" | "killed" => self.bad(),
            "stopped" | "drained" | "removed" => Style::new().add_modifier(Modifier::DIM),
            _ => self.warning(),
        }
    }

    /// The style of a kind of event.
    pub(super) fn event(self, kind: &str) -> Style {
        match kind {
            "worker-crashed" | "worker-killed" | "slot-errored" | "rollout-aborted" => self.bad(),
            "slot-back-off" | "replacement-failed" | "slot-stopped" | "stopping" => self.warning(),
            "worker-ready" | "slot-replaced" | "rollout-done" => self.good(),
            _ => Style::new(),
        }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }
}

const ASCII_UPRIGHT: bar::Set<'static> = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "|",
    five_eighths: "|",
    half: ":",
    three_eighths: ":",
    one_quarter: ".",
    one_eighth: ".",
    empty: " ",
};

const ASCII_LYING: block::Set<'static> = block::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "#",
    five_eighths: "#",
    half: "-",
    three_eighths: "-",
    one_quarter: " ",
    one_eighth: " ",
    empty: " ",
};

const ASCII_BORDER: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_those_that_the_terminal_has() {
        for (term, locale, expected) in [
            ("xterm-256color", "en_GB.UTF-8", Characters::Unicode),
            ("tmux", "C.utf8", Characters::Unicode),
            ("linux", "de_DE.UTF-8", Characters::Console),
            ("linux", "C", Characters::Ascii),
            ("xterm", "POSIX", Characters::Ascii),
            ("xterm", "", Characters::Ascii),
        ] {
            assert_eq!(Characters::of(term, locale), expected, "{term} {locale}");
        }
    }
}
