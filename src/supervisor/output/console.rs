//! The threads that write workers' lines to standard output and to standard error.
//!
//! A reader that doesn't read stops them; nothing else waits for them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{Stat, fstat};

use crate::supervisor::output::lines::{Chunk, Stream};
use crate::supervisor::output::queue::{Item, Queue};
use crate::supervisor::output::settings::Prefix;
use crate::supervisor::output::sink::Sink;

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

/// One of this process's two standard streams.
#[derive(Debug)]
pub(super) struct Console {
    stream: Stream,
    descriptor: OwnedFd,
    style: Style,
    sink: Sink,
}

impl Console {
    /// Lines look like `style` at first.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a descriptor.
    pub(super) fn new(stream: Stream, style: Style, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        let descriptor = match stream {
            Stream::Out => io::stdout().as_fd().try_clone_to_owned(),
            Stream::Err => io::stderr().as_fd().try_clone_to_owned(),
        };
        let sink = Sink::new(name(stream).to_owned(), dropped);
        Ok(Self { stream, descriptor: descriptor?, style, sink })
    }

    /// Writes lines until the queue is closed; a style in between changes what the next ones look like.
    pub(super) fn write(mut self, queue: &Queue<Style>) {
        let (mut batch, mut text) = (Vec::new(), Vec::new());
        while queue.take(&mut batch) {
            for item in batch.drain(..) {
                match item {
                    Item::Lines(chunk) => self.style.render(&chunk, &mut text),
                    Item::Order(style) => self.style = style,
                }
            }
            self.write_text(&text);
            text.clear();
            self.log_drops(queue);
        }
        self.log_drops(queue);
    }

    /// The log writes to standard error too: no line of one is inside a line of the other.
    fn write_text(&mut self, text: &[u8]) {
        let _lock = (self.stream == Stream::Err).then(|| io::stderr().lock());
        self.sink.write(self.descriptor.as_fd(), text);
    }

    fn log_drops(&self, queue: &Queue<Style>) {
        if let Some(lines) = queue.drops_to_say() {
            tracing::warn!(
                lines,
                to = name(self.stream),
                "lines dropped: output is not read fast enough"
            );
        }
    }
}

fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Out => "standard output",
        Stream::Err => "standard error",
    }
}

/// Whether a path leads to where a stream's lines go anyway, as `/dev/stdout` does.
pub(super) fn is_at(path: &Path, stream: Stream) -> bool {
    let found = match stream {
        Stream::Out => fstat(io::stdout()),
        Stream::Err => fstat(io::stderr()),
    };
    let same = |stat: &Stat| {
        path.metadata().is_ok_and(|it| (it.dev(), it.ino()) == (stat.st_dev, stat.st_ino))
    };
    found.is_ok_and(|stat| same(&stat))
}

/// Whether both standard streams are the same terminal, pipe or file. One thread writes to it then, so
/// that lines of both stay in their order.
pub(super) fn is_shared() -> bool {
    let file =
        |descriptor: &dyn AsFd| fstat(descriptor.as_fd()).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((file(&io::stdout()), file(&io::stderr())), (Ok(out), Ok(err)) if out == err)
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
