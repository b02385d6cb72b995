//! A line of the log as a JSON object: timestamp, level, part, message and the event's fields.

use std::fmt;

use jiff::Timestamp;
use serde::ser::{SerializeMap, Serializer};
use tracing::{Event, Subscriber};
use tracing_serde::SerdeMapVisitor;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::levels::part;

/// Formats such lines. Spans are left out: this crate opens none.
#[derive(Debug)]
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Vec::with_capacity(256);
        write(event, &mut line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{}", String::from_utf8_lossy(&line))
    }
}

fn write(event: &Event<'_>, line: &mut Vec<u8>) -> serde_json::Result<()> {
    let mut serializer = serde_json::Serializer::new(line);
    let mut object = serializer.serialize_map(None)?;
    object.serialize_entry("timestamp", &format!("{:.6}", Timestamp::now()))?;
    object.serialize_entry("level", &event.metadata().level().as_str().to_ascii_lowercase())?;
    object.serialize_entry("part", part(event.metadata().target()))?;
    let mut fields = SerdeMapVisitor::new(object);
    event.record(&mut fields);
    SerializeMap::end(fields.take_serializer()?)
}
