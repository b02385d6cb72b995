//! The lines of a room, across workers: where each comes from, and how far each member has read.
//!
//! While members of a room move from one worker to the next, the room is in both for a moment. Each
//! brings the lines along that it knows of, and knows which of them it has had: so no member misses one
//! that was said in the other worker meanwhile, and none has one twice.

use std::collections::VecDeque;

/// Lines that a room keeps. Who lags behind by more misses some.
const KEPT: usize = 256;

/// The worker that a line was said in: its slot, its generation, its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Origin(pub(crate) u32, pub(crate) u32, pub(crate) u32);

/// A line, and where it was said: numbered from 1 in the room of each worker.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Line {
    origin: Origin,
    number: u64,
    pub(crate) text: Box<str>,
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
    /// The last line of each worker that the member has had. They are few.
    had: Vec<(Origin, u64)>,
    /// The lines of this worker's history that were looked at.
    #[serde(skip)]
    looked_at: u64,
}

impl History {
    /// Something is said in this worker.
    pub(crate) fn say(&mut self, origin: Origin, text: String) {
        self.said_here += 1;
        self.keep(Line { origin, number: self.said_here, text: text.into_boxed_str() });
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
            if cursor.number(line.origin).is_none_or(|had| had < line.number) {
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
        match self.had.iter_mut().find(|(origin, _)| *origin == line.origin) {
            Some((_, number)) => *number = line.number,
            None => {
                self.had.reserve_exact(1);
                self.had.push((line.origin, line.number));
            }
        }
    }

    /// The last line of that worker that the member has had.
    fn number(&self, origin: Origin) -> Option<u64> {
        self.had.iter().find(|(had, _)| *had == origin).map(|(_, number)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(history: &History, cursor: &mut Cursor) -> Vec<String> {
        let mut had = Vec::new();
        while let Some(line) = history.next(cursor).cloned() {
            cursor.pass(&line);
            had.push(line.text.into_string());
        }
        had
    }

    const OLD: Origin = Origin(0, 0, 1);
    const NEW: Origin = Origin(0, 1, 2);

    fn said(origin: Origin, texts: &[&str]) -> History {
        let mut history = History::default();
        texts.iter().for_each(|text| history.say(origin, (*text).to_owned()));
        history
    }

    #[test]
    fn a_newcomer_hears_what_is_said_from_then_on() {
        let mut history = said(OLD, &["before"]);
        let mut cursor = history.end();
        history.say(OLD, "after".to_owned());
        assert_eq!(read(&history, &mut cursor), ["after"]);
        assert_eq!(read(&history, &mut cursor), [""; 0]);
    }

    #[test]
    fn no_member_misses_or_repeats_a_line_while_a_room_migrates() {
        let mut old = said(OLD, &["one"]);
        let (mut early, mut late) = (History::default().end(), History::default().end());
        assert_eq!(read(&old, &mut early), ["one"]);
        // The first to move brings along what was said, then both rooms go on for a while.
        let mut new = History::default();
        new.learn(old.lines());
        early.looked_at = 0;
        new.say(NEW, "two".to_owned());
        old.say(OLD, "three".to_owned());
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
        let mut history = said(OLD, &["first"]);
        let mut cursor = Cursor::default();
        (0..KEPT).for_each(|number| history.say(OLD, number.to_string()));
        assert_eq!(read(&history, &mut cursor).len(), KEPT);
        assert_eq!(history.lines().len(), KEPT);
    }
}
