//! Lines of log4js: a worker sends its events instead of writing them, and the primary writes them as
//! log4js does by default. Pure.
//!
//! An event is sent as a list in JSON in which texts within objects are numbers of other items of the list (the
//! package flatted), so that objects may contain each other.

use serde_json::Value;

/// Objects are written to this depth; deeper ones, and circles, are left out.
const MAX_DEPTH: usize = 5;

/// The limit of a written message in bytes: an event may name one text very often.
const MAX_LENGTH: usize = 64 * 1024;

/// Texts that stand for numbers which JSON doesn't have.
const MARKS: [(&str, &str); 4] = [
    ("__LOG4JS_undefined__", "undefined"),
    ("__LOG4JS_NaN__", "NaN"),
    ("__LOG4JS_Infinity__", "Infinity"),
    ("__LOG4JS_-Infinity__", "-Infinity"),
];

/// The line of an event, with its end; the event itself where it can't be read.
pub(super) fn line(event: &str) -> String {
    let items = serde_json::from_str::<Vec<Value>>(event).unwrap_or_default();
    let Some(Value::Object(fields)) = items.first() else { return format!("{event}\n") };
    let list = List { items: &items };
    let field = |name: &str| fields.get(name).map(|value| list.resolve(value));
    let text = |name: &str| field(name).and_then(Value::as_str).unwrap_or_default();
    let level = field("level").and_then(|level| level.get("levelStr"));
    let level = level.map(|level| list.resolve(level)).and_then(Value::as_str).unwrap_or("INFO");
    let data = field("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let data: Vec<_> = data.iter().map(|value| list.resolve(value)).collect();
    let mut line = format!("[{}] [{level}] {} - ", text("startTime"), text("categoryName"));
    list.message(&data, &mut line);
    if line.len() > MAX_LENGTH {
        let cut = (0..=MAX_LENGTH).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(cut.unwrap_or(0));
    }
    line.push('\n');
    line
}

/// All items of an event.
struct List<'a> {
    items: &'a [Value],
}

impl<'a> List<'a> {
    /// The item that a text stands for; anything else stands for itself.
    fn resolve(&self, value: &'a Value) -> &'a Value {
        let number = value.as_str().and_then(|number| number.parse::<usize>().ok());
        number.and_then(|number| self.items.get(number)).unwrap_or(value)
    }

    /// The arguments of a call, as Node's `util.format` puts them together.
    fn message(&self, data: &[&'a Value], line: &mut String) {
        let mut rest = data.iter();
        if let Some(Value::String(format)) = data.first()
            && mark(format).is_none()
        {
            rest.next();
            let mut pieces = format.split('%');
            line.push_str(pieces.next().unwrap_or_default());
            let mut is_escaped = false;
            for piece in pieces {
                let is_place = piece.starts_with(['s', 'd', 'i', 'f', 'j', 'o', 'O']);
                match piece {
                    _ if std::mem::take(&mut is_escaped) => line.push_str(piece),
                    // The second of two.
                    "" => {
                        line.push('%');
                        is_escaped = true;
                    }
                    piece if is_place && rest.len() > 0 => {
                        rest.next().into_iter().for_each(|value| self.write(value, true, 0, line));
                        line.push_str(&piece[1..]);
                    }
                    piece => {
                        line.push('%');
                        line.push_str(piece);
                    }
                }
            }
        }
        for value in rest {
            if !line.ends_with(' ') {
                line.push(' ');
            }
            self.write(value, true, 0, line);
        }
    }

    fn write(&self, value: &'a Value, is_plain: bool, depth: usize, line: &mut String) {
        if line.len() > MAX_LENGTH {
            return;
        }
        match value {
            Value::String(text) => match mark(text) {
                Some(meaning) => line.push_str(meaning),
                None if is_plain => line.push_str(text),
                None => line.push_str(&value.to_string()),
            },
            Value::Object(_) | Value::Array(_) if depth >= MAX_DEPTH => line.push('…'),
            Value::Array(items) => {
                line.push('[');
                for (number, item) in items.iter().enumerate() {
                    line.push_str(if number > 0 { ", " } else { "" });
                    self.write(self.resolve(item), false, depth + 1, line);
                }
                line.push(']');
            }
            Value::Object(fields) => {
                // An error: its stack begins with its name and message.
                if let Some(Value::String(stack)) = fields.get("stack").map(|it| self.resolve(it)) {
                    line.push_str(stack);
                    return;
                }
                line.push('{');
                for (number, (name, field)) in fields.iter().enumerate() {
                    line.push_str(if number > 0 { ", " } else { " " });
                    line.push_str(name);
                    line.push_str(": ");
                    self.write(self.resolve(field), false, depth + 1, line);
                }
                line.push_str(if fields.is_empty() { "}" } else { " }" });
            }
            other => line.push_str(&other.to_string()),
        }
    }
}

/// The value that a text stands for, if it does.
fn mark(text: &str) -> Option<&'static str> {
    MARKS.iter().find(|(mark, _)| *mark == text).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event with these arguments, and further items from number 8 on.
    fn event(data: &str, more: &str) -> String {
        let head = r#"{"startTime":"1","categoryName":"2","data":"3","level":"4","pid":7}"#;
        let level = r#"{"level":20000,"levelStr":"5","colour":"6"}"#;
        let time = r#""2026-12-01T11:00:00.000Z""#;
        format!(r#"[{head},{time},"app",{data},{level},"WARN","yellow",0{more}]"#)
    }

    #[test]
    fn an_event_is_written_as_log4js_does() {
        let begin = "[2026-12-01T11:00:00.000Z] [WARN] app - ";
        for (data, more, expected) in [
            (r#"["8"]"#, r#","hello""#, "hello"),
            (r#"["8",5,"9"]"#, r#","hello","you""#, "hello 5 you"),
            (r#"["8","9",3,true]"#, r#","%s is 100%% at %d%","it""#, "it is 100% at 3% true"),
            (r#"["8"]"#, r#","50% of %s""#, "50% of %s"),
            (r#"["8"]"#, r#",{"a":"9","b":["10",2]},"x","y""#, r#"{ a: "x", b: ["y", 2] }"#),
            (
                r#"["8"]"#,
                r#",{"message":"9","stack":"10"},"no","Error: no\n    at x""#,
                "Error: no\n    at x",
            ),
            (r#"["8"]"#, r#","__LOG4JS_NaN__""#, "NaN"),
            (r#"[null]"#, "", " null"),
        ] {
            let expected = format!("{begin}{}\n", expected.trim_start());
            assert_eq!(line(&event(data, more)), expected, "{data}{more}");
        }
    }

    #[test]
    fn circles_and_bombs_end() {
        let circle = line(&event(r#"["8"]"#, r#",{"me":"8"}"#));
        assert!(circle.contains("me: {") && circle.contains('…'), "{circle}");
        let many = vec![r#""8""#; 100_000].join(",");
        let bomb = line(&event(r#"["8"]"#, &format!(",[{many}]")));
        assert!(bomb.len() < 2 * MAX_LENGTH, "{}", bomb.len());
    }

    #[test]
    fn what_is_no_event_is_written_as_it_is() {
        for odd in ["", "x", "[]", "[1]", "{}"] {
            assert_eq!(line(odd), format!("{odd}\n"));
        }
    }
}
