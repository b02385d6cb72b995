//! The looks of a line in a file: as the worker wrote it, with a time before it, or as JSON.
//!
//! Pure; nothing here fails once the settings are accepted.

use jiff::tz::TimeZone;

use crate::supervisor::output::date;
use crate::supervisor::output::lines::{Chunk, Stream};
use crate::supervisor::output::settings::{LogFormat, OutputError, OutputSettings};

/// Renders lines as the settings have it.
#[derive(Debug)]
pub(super) struct Renderer {
    name: String,
    format: LogFormat,
    date_format: Option<String>,
    rendered: Vec<u8>,
}

impl Renderer {
    pub(super) fn new(settings: &OutputSettings) -> Result<Self, OutputError> {
        let OutputSettings { name, format, date_format, .. } = settings.clone();
        if let Some(date_format) = &date_format {
            date::check(date_format)?;
        }
        Ok(Self { name, format, date_format, rendered: Vec::new() })
    }

    /// All lines of a chunk. They were read together and have one time.
    pub(super) fn render<'a>(&'a mut self, chunk: &'a Chunk) -> &'a [u8] {
        let zoned = || chunk.time.to_zoned(TimeZone::system());
        let time = self.date_format.as_ref().map(|pattern| date::format(pattern, &zoned()));
        self.rendered.clear();
        match (self.format, time) {
            (LogFormat::Text, None) => return &chunk.text.bytes,
            (LogFormat::Text, Some(time)) => self.dated(chunk, &time),
            (LogFormat::Json, time) => {
                // As JavaScript's toISOString.
                let time = time.unwrap_or_else(|| format!("{:.3}", chunk.time));
                self.json(chunk, &time);
            }
        }
        &self.rendered
    }

    fn dated(&mut self, chunk: &Chunk, time: &str) {
        for line in chunk.text.lines() {
            self.rendered.extend_from_slice(time.as_bytes());
            self.rendered.extend_from_slice(b": ");
            self.rendered.extend_from_slice(line);
            self.rendered.push(b'\n');
        }
    }

    fn json(&mut self, chunk: &Chunk, time: &str) {
        let end = self.json_end(chunk, time);
        for line in chunk.text.lines() {
            self.rendered.extend_from_slice(b"{\"message\":");
            quote(&String::from_utf8_lossy(line), &mut self.rendered);
            self.rendered.extend_from_slice(&end);
        }
    }

    /// The part that all lines have in common.
    fn json_end(&self, chunk: &Chunk, time: &str) -> Vec<u8> {
        let origin = &chunk.origin;
        let mut end = b",\"timestamp\":".to_vec();
        quote(time, &mut end);
        let kind = if origin.stream == Stream::Out { "out" } else { "err" };
        end.extend_from_slice(format!(",\"type\":\"{kind}\"").as_bytes());
        end.extend_from_slice(format!(",\"process_id\":{}", origin.worker.slot).as_bytes());
        end.extend_from_slice(b",\"app_name\":");
        quote(&self.name, &mut end);
        let mut rest =
            format!(",\"pid\":{},\"generation\":{}", origin.pid, origin.worker.generation);
        if chunk.text.partial {
            rest.push_str(",\"partial\":true");
        }
        rest.push_str("}\n");
        end.extend_from_slice(rest.as_bytes());
        end
    }
}

/// A string of JSON.
fn quote(text: &str, quoted: &mut Vec<u8>) {
    quoted.push(b'"');
    let mut rest = text.as_bytes();
    // All that needs an escape is ASCII, which is part of no other character.
    let escaped = |byte: &u8| *byte < b' ' || matches!(*byte, b'"' | b'\\');
    while let Some(at) = rest.iter().position(escaped) {
        quoted.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => quoted.extend_from_slice(&[b'\\', byte]),
            b'\t' => quoted.extend_from_slice(b"\\t"),
            b'\r' => quoted.extend_from_slice(b"\\r"),
            byte => quoted.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    quoted.extend_from_slice(rest);
    quoted.push(b'"');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::link::seam::WorkerId;
    use crate::protocol::ids::{Generation, SlotId};
    use crate::supervisor::output::lines::{Origin, Text};

    fn rendered(settings: OutputSettings, bytes: &[u8], partial: bool) -> Vec<u8> {
        let worker = WorkerId { slot: SlotId(3), generation: Generation(7) };
        let origin = Origin { worker, pid: 4711, stream: Stream::Err };
        let text = Text { bytes: bytes.to_vec(), partial };
        let time = "2026-11-22T10:00:00.5Z".parse().unwrap();
        Renderer::new(&settings).unwrap().render(&Chunk { origin, time, text }).to_vec()
    }

    fn settings(format: LogFormat, date_format: Option<&str>) -> OutputSettings {
        let date_format = date_format.map(str::to_owned);
        OutputSettings { format, date_format, ..OutputSettings::default() }
    }

    #[test]
    fn text_is_left_alone_or_gets_a_time() {
        let bytes = b"a\n\xff\0\x1b[1m\n\n";
        assert_eq!(rendered(settings(LogFormat::Text, None), bytes, false), bytes);
        let dated = rendered(settings(LogFormat::Text, Some("[at] x")), bytes, false);
        let time = "at 1795341600500";
        let expected = [time, ": a\n", time, ": \u{fffd}\0\x1b[1m\n", time, ": \n"].concat();
        assert_eq!(String::from_utf8_lossy(&dated), expected);
    }

    #[test]
    fn json_has_the_keys_of_pm2() {
        let text = rendered(settings(LogFormat::Json, None), b"one\ntwo\n", false);
        let lines: Vec<Value> = serde_json::Deserializer::from_slice(&text)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
        let line = |message| {
            json!({
                "message": message, "timestamp": "2026-11-22T10:00:00.500Z", "type": "err",
                "process_id": 3, "app_name": "app", "pid": 4711, "generation": 7,
            })
        };
        assert_eq!(lines, [line("one"), line("two")]);
        let text = rendered(settings(LogFormat::Json, Some("x")), b"piece\n", true);
        let piece: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            (&piece["partial"], &piece["timestamp"]),
            (&true.into(), &"1795341600500".into())
        );
    }

    #[test]
    fn json_is_sound_whatever_the_line_says() {
        let all: String =
            (0..=0x2fff_u32).filter(|c| *c != 10).filter_map(char::from_u32).collect();
        let text =
            rendered(settings(LogFormat::Json, None), (all.clone() + "\n").as_bytes(), false);
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap()["message"], all);
        let text = rendered(settings(LogFormat::Json, None), b"bad \xff\xfe utf-8\n", false);
        let line: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(line["message"], "bad \u{fffd}\u{fffd} utf-8");
    }
}
