//! Lines of workers' output.

use serde_json::{Value, json};

use crate::control::answers::show::find;
use crate::control::answers::{Control, Items, item};
use crate::control::protocol::Problem;
use crate::control::report::LogLine;
use crate::protocol::ids::SlotId;
use crate::supervisor::output::{LineFilter, Printed, Recent, Stream};

impl Control {
    pub(super) async fn logs(
        &self,
        follow: bool,
        slot: Option<u16>,
        err: bool,
        lines: usize,
        items: &Items,
    ) -> Result<Value, Problem> {
        if let Some(slot) = slot {
            find(&self.links.pool.status().await?, slot)?;
        }
        let filter = LineFilter { slot: slot.map(SlotId), err };
        let Recent { printed, mut follower } = self.links.output.recent(filter, lines);
        send(&printed, items).await?;
        if follow {
            while let Some(printed) = follower.next().await {
                send(&printed, items).await?;
            }
        }
        Ok(json!({}))
    }
}

async fn send(printed: &Printed, items: &Items) -> Result<(), Problem> {
    let mut missed = printed.missed;
    for line in printed.lines() {
        let line = LogLine {
            time_ms: line.time.as_millisecond(),
            slot: line.worker.slot.0,
            generation: line.worker.generation.0,
            pid: line.pid,
            err: line.stream == Stream::Err,
            text: String::from_utf8_lossy(line.text).into_owned(),
            missed: std::mem::take(&mut missed),
        };
        item(items, &line).await?;
    }
    Ok(())
}
