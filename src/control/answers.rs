//! Carries out requests of the control socket and of the admin listener.
//!
//! Knows no sockets: items go into a bounded channel. If it is full, the client is too slow, and its
//! answer waits.

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::control::history::History;
use crate::control::links::Links;
use crate::control::protocol::{Code, Problem, Request};
use crate::control::snapshot::Snapshots;
use crate::supervisor::pool::handle::Refusal;

mod clients;
mod follow;
mod lines;
mod outcomes;
mod show;
mod steer;

/// The sources of all answers.
#[derive(Clone, Debug)]
pub struct Control {
    /// Handles of the parts.
    pub links: Links,
    /// The last events.
    pub history: History,
    /// The current status.
    pub snapshots: Snapshots,
}

/// Receives the items of an answer.
pub type Items = mpsc::Sender<Value>;

impl Control {
    /// Carries out a request.
    ///
    /// # Errors
    ///
    /// If the request is refused, or has failed.
    pub async fn answer(&self, request: Request, items: &Items) -> Result<Value, Problem> {
        let steers = request.steers();
        let answer = self.carry_out(request, items).await;
        if steers {
            // The client's next request sees the change.
            self.snapshots.expire().await;
        }
        answer
    }

    async fn carry_out(&self, request: Request, items: &Items) -> Result<Value, Problem> {
        match request {
            Request::Status {} => to_json(&self.snapshots.take().await?.status),
            Request::Workers {} => to_json(&self.snapshots.take().await?.workers),
            Request::Describe { slot } => to_json(&self.describe(slot).await?),
            Request::Where { address, key } => to_json(&self.explain_route(address, key).await?),
            Request::Conns { slot, address, limit } => {
                to_json(&self.connections(slot, address, limit).await?)
            }
            Request::Live {} => self.live(items).await,
            Request::Reload {} => self.reload(items).await,
            Request::Rollout { number } => self.rollout(number, items).await,
            Request::Upgrade {} => self.upgrade().await,
            Request::Scale { to } => to_json(&self.scale(&to).await?),
            Request::Drain { slot, wait } => self.drain(slot, wait).await,
            Request::Undrain { slot } => self.undrain(slot).await,
            Request::Restart { slot } => self.restart(slot).await,
            Request::Stop { now } => self.stop(now).await,
            Request::Kill { slot } => self.kill(slot).await,
            Request::Signal { slot, signal } => self.signal(slot, &signal).await,
            Request::Events { follow, last } => self.events(follow, last, items).await,
            Request::LogLevel { levels } => to_json(&self.log_level(levels)?),
            Request::Rebalance {} => to_json(&self.rebalance().await?),
            Request::Logs { follow, slot, err, lines } => {
                self.logs(follow, slot, err, lines, items).await
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NoSlot { .. } => Code::NotFound,
            _ => Code::Refused,
        };
        Self::new(code, refusal.to_string())
    }
}

fn to_json(value: &impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(value).map_err(|error| Problem::new(Code::Failed, error.to_string()))
}

/// Sends an item. Fails if the client has gone.
async fn item(items: &Items, value: &impl Serialize) -> Result<(), Problem> {
    let sent = items.send(to_json(value)?).await;
    sent.map_err(|_| Problem::new(Code::Failed, "the client has gone"))
}
