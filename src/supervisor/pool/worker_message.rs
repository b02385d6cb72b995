//! The messages of a worker to its primary.

use crate::handover::carry;
use crate::handover::pool::WorkerMessageSnapshot;
use crate::link::seam::SlotEventKind;

/// A message that changes something in the slot's life. That a worker is alive is of no interest to
/// a successor and no such message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerMessage {
    Hello,
    Ready,
    Leave,
    Violation,
}

carry!(enum WorkerMessage => WorkerMessageSnapshot { Hello, Ready, Leave, Violation });

impl WorkerMessage {
    pub(super) fn new(kind: &SlotEventKind) -> Option<Self> {
        match kind {
            SlotEventKind::Attached => Some(Self::Hello),
            SlotEventKind::Ready => Some(Self::Ready),
            SlotEventKind::ReplaceMe => Some(Self::Leave),
            SlotEventKind::Violation(_) => Some(Self::Violation),
            SlotEventKind::Pong { .. } | SlotEventKind::Speaks(_) | SlotEventKind::Note(_) => None,
        }
    }
}
