//! The thread that writes to standard output: workers' lines, and the primary's own between them.
//!
//! The reader of standard output may block it; nothing waits for it.

use std::os::fd::{AsFd, OwnedFd};

use crate::supervisor::output::lines::{Chunk, Stream};
use crate::supervisor::output::queue::{Item, Queue};
use crate::supervisor::output::settings::Prefix;
use crate::supervisor::output::sink::Sink;

/// A command between lines.
#[derive(Debug)]
pub(super) enum StdoutOrder {
    /// Write this line.
    Say(String),
    /// Lines look like this from now on.
    Change(Style),
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Prefixed,
    Coloured,
}

impl Style {
    pub(super) fn new(prefix: Prefix, is_terminal: bool, no_color: bool) -> Self {
        match prefix {
            Prefix::Never => Self::Plain,
            Prefix::Auto if !is_terminal => Self::Plain,
            Prefix::Auto | Prefix::Always if is_terminal && !no_color => Self::Coloured,
            Prefix::Auto | Prefix::Always => Self::Prefixed,
        }
    }

    fn render(self, chunk: &Chunk, text: &mut Vec<u8>) {
        if self == Self::Plain {
            text.extend_from_slice(&chunk.text.bytes);
            return;
        }
        let prefix = self.prefix(chunk);
        for line in chunk.text.lines() {
            text.extend_from_slice(prefix.as_bytes());
            text.extend_from_slice(line);
            text.push(b'\n');
        }
    }

    fn prefix(self, chunk: &Chunk) -> String {
        // Cyan, green, yellow, magenta, blue, and their bright ones. Red marks standard error.
        const COLOURS: [u8; 10] = [36, 32, 33, 35, 34, 96, 92, 93, 95, 94];
        let slot = chunk.origin.worker.slot;
        if self != Self::Coloured {
            return format!("{slot} | ");
        }
        let colour = COLOURS[slot.index() % COLOURS.len()];
        // The first 0 ends whatever the line before has left on.
        match chunk.origin.stream {
            Stream::Out => format!("\x1b[0;{colour}m{slot} |\x1b[0m "),
            Stream::Err => format!("\x1b[0;{colour}m{slot} \x1b[31m|\x1b[0m "),
        }
    }
}

/// Writes until the queue is closed.
pub(super) fn write(
    queue: &Queue<StdoutOrder>,
    descriptor: &OwnedFd,
    mut style: Style,
    mut sink: Sink,
) {
    let (mut batch, mut text) = (Vec::new(), Vec::new());
    while queue.take(&mut batch) {
        for item in batch.drain(..) {
            match item {
                Item::Lines(chunk) => style.render(&chunk, &mut text),
                Item::Order(StdoutOrder::Say(line)) => {
                    text.extend_from_slice(line.as_bytes());
                    text.push(b'\n');
                }
                Item::Order(StdoutOrder::Change(new)) => style = new,
            }
        }
        sink.write(descriptor.as_fd(), &text);
        text.clear();
        say_drops(queue);
    }
    say_drops(queue);
}

fn say_drops(queue: &Queue<StdoutOrder>) {
    if let Some(lines) = queue.drops_to_say() {
        tracing::warn!(lines, "lines dropped: standard output is not read fast enough");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::seam::WorkerId;
    use crate::protocol::ids::{Generation, SlotId};
    use crate::supervisor::output::lines::{Origin, Text};

    #[test]
    fn prefix_and_colour_depend_on_the_terminal() {
        use Prefix::{Always, Auto, Never};
        use Style::{Coloured, Plain, Prefixed};
        for (prefix, [terminal, no_color, pipe]) in [
            (Auto, [Coloured, Prefixed, Plain]),
            (Always, [Coloured, Prefixed, Prefixed]),
            (Never, [Plain; 3]),
        ] {
            assert_eq!(Style::new(prefix, true, false), terminal);
            assert_eq!(Style::new(prefix, true, true), no_color);
            assert_eq!(Style::new(prefix, false, false), pipe);
        }
    }

    #[test]
    fn each_line_has_its_prefix() {
        let worker = WorkerId { slot: SlotId(13), generation: Generation(0) };
        let rendered = |style: Style, stream| {
            let origin = Origin { worker, pid: 1, stream };
            let text = Text { bytes: b"a\n\xff\n".to_vec(), partial: false };
            let chunk = Chunk { origin, time: jiff::Timestamp::UNIX_EPOCH, text };
            let mut text = Vec::new();
            style.render(&chunk, &mut text);
            text
        };
        assert_eq!(rendered(Style::Plain, Stream::Err), b"a\n\xff\n");
        assert_eq!(rendered(Style::Prefixed, Stream::Err), b"13 | a\n13 | \xff\n");
        assert_eq!(
            rendered(Style::Coloured, Stream::Out),
            b"\x1b[0;35m13 |\x1b[0m a\n\x1b[0;35m13 |\x1b[0m \xff\n"
        );
        assert!(rendered(Style::Coloured, Stream::Err).starts_with(b"\x1b[0;35m13 \x1b[31m|"));
    }
}
