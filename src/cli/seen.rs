//! Items of a stream that was begun again, at a successor that has the past: those that were there before are
//! passed over. Pure.

use serde_json::Value;

/// How far a stream of items with times was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The time of the last item.
    time_ms: i64,
    /// Items with that time.
    count: u64,
    /// Of these, how many have come again; `None` unless the stream was begun again and has nothing new yet.
    again: Option<u64>,
}

impl Seen {
    /// The stream begins again.
    pub(super) fn begin_again(&mut self) {
        self.again = Some(0);
    }

    /// Whether an item is new.
    pub(super) fn is_new(&mut self, item: &Value) -> bool {
        let time_ms = item["time_ms"].as_i64().unwrap_or(i64::MAX);
        if let Some(again) = &mut self.again {
            if time_ms < self.time_ms {
                return false;
            }
            if time_ms == self.time_ms && *again < self.count {
                *again += 1;
                return false;
            }
            self.again = None;
        }
        if time_ms != self.time_ms {
            (self.time_ms, self.count) = (time_ms, 0);
        }
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_there_before_is_passed_over_once() {
        let mut seen = Seen::default();
        let mut new = |times: &[i64]| -> Vec<bool> {
            seen.begin_again();
            times.iter().map(|time| seen.is_new(&json!({"time_ms": time}))).collect()
        };
        assert_eq!(new(&[1, 1, 2, 3, 3]), [true; 5]);
        assert_eq!(new(&[1, 1, 2, 3, 3, 3, 4]), [false, false, false, false, false, true, true]);
        // The successor has lost the past, or the part of it that was seen.
        assert_eq!(new(&[5, 5]), [true; 2]);
        assert_eq!(new(&[4, 5, 6]), [false, false, true]);
        assert_eq!(new(&[]), [false; 0]);
        assert_eq!(new(&[6, 7]), [false, true]);
    }
}
