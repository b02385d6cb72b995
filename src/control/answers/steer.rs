//! What operators order.

use serde_json::{Value, json};

use crate::control::answers::{Control, Items};
use crate::control::protocol::{Code, Problem};
use crate::control::report::{Levels, Rebalanced, Scaled};
use crate::handoff::ids::SlotId;
use crate::supervisor::pool::handle::{Refusal, Scale, SlotOrder};

impl Control {
    pub(super) async fn scale(&self, to: &str) -> Result<Scaled, Problem> {
        let bad =
            || Problem::new(Code::BadRequest, format!("scale: expected N, +N or -N, found {to:?}"));
        let scale = if to.starts_with(['+', '-']) {
            Scale::By(to.parse().map_err(|_| bad())?)
        } else {
            Scale::To(to.parse().map_err(|_| bad())?)
        };
        let scaled = self.links.pool.scale(scale).await?;
        Ok(Scaled { from: scaled.from, to: scaled.to, deferred: scaled.deferred })
    }

    pub(super) async fn reload(&self, _items: &Items) -> Result<Value, Problem> {
        let number = self.links.reloader.reload().await?;
        Ok(json!({ "number": number }))
    }

    pub(super) async fn drain(&self, slot: u16, _wait: bool) -> Result<Value, Problem> {
        self.order(slot, SlotOrder::Drain).await
    }

    pub(super) async fn undrain(&self, slot: u16) -> Result<Value, Problem> {
        self.order(slot, SlotOrder::Undrain).await
    }

    pub(super) async fn restart(&self, slot: u16) -> Result<Value, Problem> {
        self.order(slot, SlotOrder::Restart).await
    }

    pub(super) async fn kill(&self, slot: u16) -> Result<Value, Problem> {
        self.order(slot, SlotOrder::Kill).await
    }

    pub(super) async fn send(&self, _slot: u16, _signal: &str) -> Result<Value, Problem> {
        Err(Refusal::Gone.into())
    }

    pub(super) async fn stop(&self, now: bool) -> Result<Value, Problem> {
        self.links.pool.stop(now).await;
        Ok(json!({}))
    }

    pub(super) async fn rebalance(&self) -> Result<Rebalanced, Problem> {
        let clients = self.links.frontend.forget().await.map_err(|_| Refusal::Gone)?;
        Ok(Rebalanced { clients })
    }

    pub(super) fn log_level(&self, levels: Option<String>) -> Result<Levels, Problem> {
        let bad = |error| Problem::new(Code::BadRequest, format!("log level: {error}"));
        if let Some(levels) = levels {
            self.links.log.change(&levels.parse().map_err(bad)?);
        }
        Ok(Levels { levels: self.links.log.levels().to_string() })
    }

    async fn order(&self, slot: u16, order: SlotOrder) -> Result<Value, Problem> {
        self.links.pool.slot(SlotId(slot), order).await?;
        Ok(json!({}))
    }
}
