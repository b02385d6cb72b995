//! Why a connection goes elsewhere than to the slot where its client belongs: words that routing,
//! counting and explaining share. Decides nothing.

/// Why a connection goes elsewhere than to the first slot of its ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FallbackReason {
    /// Its client went there before and is remembered.
    Remembered,
    /// No worker serves there, and none is expected soon.
    NotServing,
    /// Its worker doesn't acknowledge.
    Stalled,
    /// Its worker refuses: it has no descriptors left, or its server is closed.
    Refusing,
    /// As many wait for it as may.
    QueueFull,
    /// It has more connections than the load bound allows.
    OverBound,
    /// Two workers have died on this connection there.
    Deaths,
}

impl FallbackReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Remembered,
        Self::NotServing,
        Self::Stalled,
        Self::Refusing,
        Self::QueueFull,
        Self::OverBound,
        Self::Deaths,
    ];

    /// A word for it, as metrics and JSON have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Remembered => "remembered",
            Self::NotServing => "not-serving",
            Self::Stalled => "stalled",
            Self::Refusing => "refusing",
            Self::QueueFull => "queue-full",
            Self::OverBound => "over-bound",
            Self::Deaths => "crashes",
        }
    }
}
