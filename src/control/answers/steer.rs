//! Orders of operators: passed on and, if they take time, followed to the end.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::control::answers::{Control, to_json};
use crate::control::protocol::{Code, Problem};
use crate::control::report::{Levels, Rebalanced, Scaled};
use crate::protocol::ids::SlotId;
use crate::supervisor::pool::handle::{Refusal, Scale, SlotOrder};

impl Control {
    pub(super) async fn scale(&self, to: &str) -> Result<Scaled, Problem> {
        let scale = scale(to).ok_or_else(|| {
            Problem::new(Code::BadRequest, format!("scale: expected N, +N or -N, found {to:?}"))
        })?;
        let scaled = self.links.pool.scale(scale).await?;
        Ok(Scaled { from: scaled.from, to: scaled.to, deferred: scaled.deferred })
    }

    pub(super) async fn drain(&self, slot: u16, wait: bool) -> Result<Value, Problem> {
        let follow = self.follow();
        let already = already(self.order(slot, SlotOrder::Drain).await)?;
        if wait {
            self.until_drained(follow, SlotId(slot)).await?;
        }
        Ok(done(already))
    }

    pub(super) async fn undrain(&self, slot: u16) -> Result<Value, Problem> {
        let follow = self.follow();
        let already = already(self.order(slot, SlotOrder::Undrain).await)?;
        if !already {
            self.until_serving(follow, SlotId(slot)).await?;
        }
        Ok(done(already))
    }

    pub(super) async fn restart(&self, slot: u16) -> Result<Value, Problem> {
        let follow = self.follow();
        self.order(slot, SlotOrder::Restart).await?;
        follow.until_replaced(SlotId(slot)).await?;
        Ok(json!({}))
    }

    pub(super) async fn kill(&self, slot: u16) -> Result<Value, Problem> {
        self.order(slot, SlotOrder::Kill).await?;
        Ok(json!({}))
    }

    pub(super) async fn signal(&self, slot: u16, name: &str) -> Result<Value, Problem> {
        let signal = signal(name).ok_or_else(|| {
            let text = format!("expected a signal such as USR2, SIGUSR2 or 12, found {name:?}");
            Problem::new(Code::BadRequest, text)
        })?;
        self.order(slot, SlotOrder::Signal(signal)).await?;
        Ok(json!({}))
    }

    pub(super) async fn stop(&self, now: bool) -> Result<Value, Problem> {
        self.links.pool.stop(now).await;
        // The connection ends with the process: clients wait for that.
        std::future::pending().await
    }

    pub(super) async fn upgrade(&self) -> Result<Value, Problem> {
        to_json(&self.links.primary.upgrade().await?)
    }

    pub(super) async fn rebalance(&self) -> Result<Rebalanced, Problem> {
        let rebalanced = self.links.frontend.rebalance().await.map_err(|_| Refusal::Gone)?;
        Ok(Rebalanced { clients: rebalanced.forgotten, sessions: rebalanced.sessions })
    }

    pub(super) fn log_level(&self, levels: Option<String>) -> Result<Levels, Problem> {
        let bad = |error| Problem::new(Code::BadRequest, format!("log level: {error}"));
        let log = &self.links.log;
        match levels.as_deref() {
            None => {}
            Some("configured") => log.change(&log.configured()),
            Some(levels) => log.change(&levels.parse().map_err(bad)?),
        }
        Ok(Levels { levels: self.links.log.levels().to_string() })
    }

    async fn order(&self, slot: u16, order: SlotOrder) -> Result<(), Refusal> {
        self.links.pool.slot(SlotId(slot), order).await
    }
}

/// Whether a slot has been before what was ordered, which is no failure: a script may say it twice.
fn already(result: Result<(), Refusal>) -> Result<bool, Refusal> {
    match result {
        Ok(()) => Ok(false),
        Err(Refusal::Already(..)) => Ok(true),
        Err(refusal) => Err(refusal),
    }
}

fn done(already: bool) -> Value {
    if already { json!({"already": true}) } else { json!({}) }
}

fn scale(text: &str) -> Option<Scale> {
    if text.starts_with(['+', '-']) {
        text.parse().ok().map(Scale::By)
    } else {
        text.parse().ok().map(Scale::To)
    }
}

/// A signal by number, or by name with or without `SIG`.
fn signal(text: &str) -> Option<Signal> {
    let number = text.parse().ok().or_else(|| {
        let name = text.to_uppercase();
        let name = format!("SIG{}", name.strip_prefix("SIG").unwrap_or(&name));
        name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
    })?;
    Signal::from_named_raw(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["USR2", "usr2", "SIGUSR2", "sigusr2", "12"] {
            assert_eq!(signal(text), Some(Signal::USR2), "{text}");
        }
        for wrong in ["", "SIG", "USR3", "-1", "0", "99999999999", "SIG12", "US R2"] {
            assert_eq!(signal(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_sign_means_a_relative_number() {
        assert_eq!(scale("4"), Some(Scale::To(4)));
        assert_eq!(scale("+2"), Some(Scale::By(2)));
        assert_eq!(scale("-2"), Some(Scale::By(-2)));
        for wrong in ["", "+", "-", "four", "70000", "1.5", "--1", "+99999999999"] {
            assert_eq!(scale(wrong), None, "{wrong}");
        }
    }
}
