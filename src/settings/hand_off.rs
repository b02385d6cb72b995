//! How patient slots are with their workers.

use std::time::Duration;

use clap::Args;

use crate::frontend::slot_table::SlotSettings;
use crate::settings::units::{duration, within};

/// How long connections wait, and how many.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Hand-off")]
pub struct HandOff {
    /// How long a slot's new clients wait for the successor of a worker that died.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub slot_wait: Duration,
    /// A worker that doesn't acknowledge for so long is stalled, and its clients go elsewhere.
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = duration)]
    pub ack_timeout: Duration,
    /// Connections that may be on their way to a worker, unacknowledged.
    #[arg(long, value_name = "N", default_value = "64", value_parser = within(1..=256_u16))]
    pub credits: u16,
    /// Connections that may wait for a slot.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = within(1..=u16::MAX))]
    pub slot_queue: u16,
}

impl HandOff {
    pub(super) fn slots(&self) -> SlotSettings {
        SlotSettings {
            ack_timeout: self.ack_timeout,
            slot_wait: self.slot_wait,
            queue: usize::from(self.slot_queue),
        }
    }
}
