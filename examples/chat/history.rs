//! The lines of a room, across workers: where each comes from, and how far each member has read.
//!
//! While members of a room move from one worker to the next, the room is in both for a moment. Each
//! brings the lines along that it knows of, and knows which of them it has had: so no member misses one
//! that was said in the other worker meanwhile, and none has one twice.

use std::collections::{HashMap, VecDeque};

/// Lines that a room keeps. Who lags behind by more misses some.
const KEPT: usize = 256;

/// A line, and where it was said: numbered from 1 in the room of each worker.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Line {
    origin: String,
    number: u64,
    pub(crate) text: String,
}

/// The last lines of a room, in the order in which this worker has had them.
#[derive(Debug, Default)]
pub(crate) struct History {
    lines: VecDeque<Line>,
    /// How many there were before those that are kept.
    before: u64,
    said_here: u64,
}

/// How far a member has read.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Cursor {
    /// The last line of each worker that the member has had.
    had: HashMap<String, u64>,
    /// The lines of this worker's history that were looked at.
    #[serde(skip)]
    looked_at: u64,
}

impl History {
    /// Something is said in this worker, whose name is unique.
    pub(crate) fn say(&mut self, origin: &str, text: String) {
        self.said_here += 1;
        self.keep(Line { origin: origin.to_owned(), number: self.said_here, text });
    }

    /// Lines that a member brings along.
    pub(crate) fn learn(&mut self, lines: Vec<Line>) {
        for line in lines {
            let known = self.lines.iter().rev().find(|known| known.origin == line.origin);
            if known.is_none_or(|known| known.number < line.number) {
                self.keep(line);
            }
        }
    }

    fn keep(&mut self, line: Line) {
        self.lines.push_back(line);
        if self.lines.len() > KEPT {
            self.lines.pop_front();
            self.before += 1;
        }
    }

    /// The place of a new member, which gets no line from before.
    pub(crate) fn end(&self) -> Cursor {
        let mut cursor = Cursor { looked_at: self.length(), ..Cursor::default() };
        self.lines.iter().for_each(|line| cursor.note(line));
        cursor
    }

    /// The next line that a member has not had. It has when [`Cursor::pass`] says so.
    pub(crate) fn next(&self, cursor: &mut Cursor) -> Option<&Line> {
        cursor.looked_at = cursor.looked_at.max(self.before);
        while cursor.looked_at < self.length() {
            let place = usize::try_from(cursor.looked_at - self.before).ok()?;
            let line = self.lines.get(place)?;
            if cursor.had.get(&line.origin).is_none_or(|had| *had < line.number) {
                return Some(line);
            }
            cursor.looked_at += 1;
        }
        None
    }

    /// All that is kept, to be brought along.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines.iter().cloned().collect()
    }

    fn length(&self) -> u64 {
        self.before + self.lines.len() as u64
    }
}

impl Cursor {
    /// The member has had this line.
    pub(crate) fn pass(&mut self, line: &Line) {
        self.looked_at += 1;
        self.note(line);
    }

    fn note(&mut self, line: &Line) {
        self.had.insert(line.origin.clone(), line.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(history: &History, cursor: &mut Cursor) -> Vec<String> {
        let mut had = Vec::new();
        while let Some(line) = history.next(cursor).cloned() {
            cursor.pass(&line);
            had.push(line.text);
        }
        had
    }

    fn said(origin: &str, texts: &[&str]) -> History {
        let mut history = History::default();
        texts.iter().for_each(|text| history.say(origin, (*text).to_owned()));
        history
    }

    #[test]
    fn a_newcomer_hears_what_is_said_from_then_on() {
        let mut history = said("a", &["before"]);
        let mut cursor = history.end();
        history.say("a", "after".to_owned());
        assert_eq!(read(&history, &mut cursor), ["after"]);
        assert_eq!(read(&history, &mut cursor), [""; 0]);
    }

    #[test]
    fn no_member_misses_or_repeats_a_line_while_a_room_migrates() {
        let mut old = said("old", &["one"]);
        let (mut early, mut late) = (History::default().end(), History::default().end());
        assert_eq!(read(&old, &mut early), ["one"]);
        // The first to move brings along what was said, then both rooms go on for a while.
        let mut new = History::default();
        new.learn(old.lines());
        early.looked_at = 0;
        new.say("new", "two".to_owned());
        old.say("old", "three".to_owned());
        assert_eq!(read(&new, &mut early), ["two"]);
        assert_eq!(read(&old, &mut late), ["one", "three"]);
        // The last one brings the rest.
        new.learn(old.lines());
        late.looked_at = 0;
        assert_eq!(read(&new, &mut early), ["three"]);
        assert_eq!(read(&new, &mut late), ["two"]);
    }

    #[test]
    fn who_lags_behind_goes_on_with_what_is_kept() {
        let mut history = said("a", &["first"]);
        let mut cursor = Cursor::default();
        (0..KEPT).for_each(|number| history.say("a", number.to_string()));
        assert_eq!(read(&history, &mut cursor).len(), KEPT);
        assert_eq!(history.lines().len(), KEPT);
    }
}
