//! Tables without borders, and lists of keys and values.
//!
//! On a pipe a row is a line, whatever it holds. On a terminal that is too narrow, columns are left
//! out that matter least, and texts are wrapped inside of their column.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table};

use crate::cli::screen::{Look, Tone};
use crate::cli::units::clean;

/// Columns between two columns.
const GAP: u16 = 2;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    head: &'static str,
    kind: Kind,
    /// Those with more are left out first where there is no room; those with 0 never.
    spare: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Words, from the left.
    Word,
    /// Numbers, to the right.
    Number,
    /// May be wrapped.
    Text,
}

/// A value in a table.
#[derive(Clone, Debug)]
pub(super) struct Value {
    text: String,
    tone: Tone,
}

impl Column {
    /// Of numbers, which stand to the right.
    pub(super) const fn number(head: &'static str) -> Self {
        Self { head, kind: Kind::Number, spare: 0 }
    }

    /// Of words.
    pub(super) const fn word(head: &'static str) -> Self {
        Self { head, kind: Kind::Word, spare: 0 }
    }

    /// Of texts, which may be long.
    pub(super) const fn text(head: &'static str) -> Self {
        Self { head, kind: Kind::Text, spare: 0 }
    }

    #[cfg(test)]
    pub(super) const fn head(&self) -> &'static str {
        self.head
    }

    /// Left out where there is no room, before those that say less.
    pub(super) const fn spare(self, spare: u8) -> Self {
        Self { spare, ..self }
    }
}

impl Value {
    /// A state, in its colour.
    pub(super) fn state(state: &str) -> Self {
        Self { text: clean(state), tone: Tone::from_state(state) }
    }

    /// Something in its colour.
    pub(super) fn toned(text: &str, tone: Tone) -> Self {
        Self { text: clean(text), tone }
    }
}

impl<T: ToString> From<T> for Value {
    fn from(value: T) -> Self {
        Self { text: clean(&value.to_string()), tone: Tone::Plain }
    }
}

/// A table as text.
pub(super) fn table(columns: &[Column], rows: Vec<Vec<Value>>, look: Look) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).force_no_tty();
    if look.colour {
        table.enforce_styling();
    }
    table.set_header(columns.iter().map(|column| cell(column, &Value::from(column.head))));
    for row in rows {
        table.add_row(columns.iter().zip(&row).map(|(column, value)| cell(column, value)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    if let Some(width) = look.width {
        fit(&mut table, columns, width);
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

fn cell(column: &Column, value: &Value) -> Cell {
    let cell = Cell::new(&value.text);
    let cell = match value.tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::DarkGreen),
        Tone::Warn => cell.fg(Color::DarkYellow),
        Tone::Bad => cell.fg(Color::DarkRed),
    };
    let right = column.kind == Kind::Number;
    cell.set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
}

/// Leaves out what there is no room for, and wraps texts in what is left of it.
fn fit(table: &mut Table, columns: &[Column], width: u16) {
    let needs: Vec<u16> = table.column_max_content_widths();
    // The last column needs no gap behind it.
    let mut needed: usize = needs.iter().map(|need| usize::from(need + GAP)).sum();
    let mut spare: Vec<_> = (0..columns.len()).filter(|it| columns[*it].spare > 0).collect();
    spare.sort_by_key(|it| columns[*it].spare);
    let room = usize::from(width) + usize::from(GAP);
    while needed > room
        && let Some(left_out) = spare.pop()
    {
        constrain(table, left_out, ColumnConstraint::Hidden);
        needed -= usize::from(needs[left_out] + GAP);
    }
    if needed <= room || !columns.iter().any(|column| column.kind == Kind::Text) {
        return;
    }
    for (index, column) in columns.iter().enumerate() {
        if column.kind != Kind::Text && table.column(index).is_some_and(|it| !it.is_hidden()) {
            constrain(table, index, ColumnConstraint::ContentWidth);
        }
    }
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width + GAP);
}

fn constrain(table: &mut Table, column: usize, constraint: ColumnConstraint) {
    if let Some(column) = table.column_mut(column) {
        column.set_constraint(constraint);
    }
}

/// Lines of `key: value`, values below each other.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let longest = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let line = |(key, value): &(&str, String)| {
        let line = format!("{:<width$}{value}", format!("{key}:"), width = longest + 3);
        line.trim_end().to_owned() + "\n"
    };
    pairs.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::number("slot"),
        Column::word("state"),
        Column::number("total").spare(1),
        Column::text("why"),
    ];

    fn rows() -> Vec<Vec<Value>> {
        let why = "a reason of many words, which is much longer than there is room for";
        vec![
            vec![3.into(), Value::state("serving"), 1_234_567.into(), "-".into()],
            vec![12.into(), Value::state("errored"), 1.into(), why.into()],
        ]
    }

    #[test]
    fn on_a_pipe_a_row_is_a_line() {
        let text = table(&COLUMNS, rows(), Look::default());
        let expected = "slot  state      total  why
   3  serving  1234567  -
  12  errored        1  a reason of many words, which is much longer than there is room for
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_matters_least_makes_room() {
        let text = table(&COLUMNS[..3], rows(), Look { colour: false, width: Some(15) });
        assert_eq!(text, "slot  state\n   3  serving\n  12  errored\n");
        let text = table(&COLUMNS[..3], rows(), Look { colour: false, width: Some(22) });
        assert_eq!(text.lines().next(), Some("slot  state      total"));
    }

    #[test]
    fn texts_are_wrapped_in_their_column_on_a_terminal() {
        let text = table(&COLUMNS, rows(), Look { colour: false, width: Some(40) });
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(!text.contains("total"), "{text}");
        assert!(text.contains("\n               which is"), "{text}");
    }

    #[test]
    fn colours_move_no_column() {
        // Whatever the environment says.
        ratatui::crossterm::style::force_color_output(true);
        let text = table(&COLUMNS, rows(), Look { colour: true, width: None });
        assert!(text.contains("\x1b[38;5;2mserving"), "{text:?}");
        let mut plain = String::new();
        for (index, part) in text.split('\x1b').enumerate() {
            plain += if index == 0 { part } else { part.split_once('m').unwrap().1 };
        }
        let plain: String = plain.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        assert_eq!(plain, table(&COLUMNS, rows(), Look::default()));
    }

    #[test]
    fn nothing_that_is_told_breaks_a_row() {
        let evil = vec![vec![0.into(), Value::state("x\ny"), 0.into(), "\x1b[2Ja\tb\r\n".into()]];
        let text = table(&COLUMNS, evil, Look::default());
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(!text.contains(['\x1b', '\t', '\r']), "{text:?}");
    }

    #[test]
    fn values_stand_below_each_other() {
        let text =
            pairs(&[("pid", "1".into()), ("uptime", "2 s".into()), ("admin", String::new())]);
        assert_eq!(text, "pid:     1\nuptime:  2 s\nadmin:\n");
    }
}
