//! Routes of clients, and connections that workers hold.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::control::answers::Control;
use crate::control::answers::show::{availability, find};
use crate::control::connections::{Holder, Wanted, connections};
use crate::control::protocol::{Code, Problem};
use crate::control::report::{self, Connections, Ranked};
use crate::control::snapshot::placement_name;
use crate::frontend::query::{Client, FallbackReason, RouteExplanation};
use crate::link::seam::WorkerId;
use crate::protocol::ids::AffinityKey;
use crate::supervisor::pool::handle::Refusal;
use crate::supervisor::pool::status::PoolStatus;

/// The default limit of listed connections.
const DEFAULT_LIMIT: usize = 1_000;

impl Control {
    pub(super) async fn explain_route(
        &self,
        address: Option<IpAddr>,
        key: Option<String>,
    ) -> Result<report::RouteExplanation, Problem> {
        let client = client(address, key.as_deref())?;
        let found = self.links.frontend.explain(client).await.map_err(|_| Refusal::Gone)?;
        let pool = self.links.pool.status().await?;
        Ok(explanation(address, &found, &pool))
    }

    pub(super) async fn connections(
        &self,
        slot: Option<u16>,
        address: Option<IpNet>,
        limit: Option<usize>,
    ) -> Result<Connections, Problem> {
        let pool = self.links.pool.status().await?;
        if let Some(slot) = slot {
            find(&pool, slot)?;
        }
        let slots = pool.slots.iter().filter(|it| slot.is_none_or(|slot| it.slot.0 == slot));
        let holders = slots.flat_map(|slot| {
            slot.workers.iter().map(|worker| Holder {
                worker: WorkerId { slot: slot.slot, generation: worker.generation },
                pid: worker.pid,
            })
        });
        let holders = holders.collect::<Vec<_>>();
        let port = self.links.facts.address.port();
        let wanted = Wanted { port, clients: address, limit: limit.unwrap_or(DEFAULT_LIMIT) };
        // Reads thousands of links in /proc.
        let looked = tokio::task::spawn_blocking(move || connections(&holders, &wanted)).await;
        let failed = |text: String| Problem::new(Code::Failed, text);
        looked
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(format!("cannot list connections: {error}")))
    }
}

fn client(address: Option<IpAddr>, key: Option<&str>) -> Result<Client, Problem> {
    let bad = |text: String| Problem::new(Code::BadRequest, text);
    match (address, key) {
        (Some(address), None) => Ok(Client::Address(address)),
        (None, Some(key)) if key.len() == 16 => u64::from_str_radix(key, 16)
            .map(|key| Client::Key(AffinityKey(key)))
            .map_err(|_| bad(format!("key: expected 16 hexadecimal digits, found {key:?}"))),
        (None, Some(key)) => {
            Err(bad(format!("key: expected 16 hexadecimal digits, found {key:?}")))
        }
        _ => Err(bad("where: expected an address or a key".to_owned())),
    }
}

fn explanation(
    address: Option<IpAddr>,
    found: &RouteExplanation,
    pool: &PoolStatus,
) -> report::RouteExplanation {
    let ranking = found.ranking.iter().map(|ranked| {
        let slot = pool.slots.iter().find(|slot| slot.slot == ranked.slot);
        let serving = slot.and_then(|it| it.workers.iter().find(|it| it.phase == "serving"));
        Ranked {
            slot: ranked.slot.0,
            state: slot.map_or_else(|| "removed".to_owned(), |slot| slot.state.to_string()),
            availability: availability(ranked.availability).to_owned(),
            pid: serving.map(|worker| worker.pid),
            load: ranked.load,
            skip_reason: ranked.skip_reason.map(|reason| text(reason).to_owned()),
        }
    });
    report::RouteExplanation {
        address: address.map(|address| address.to_string()),
        prefix: found.counts.map(|prefix| prefix.to_string()),
        digest: found.digest.as_ref().map(|(name, digest)| ((*name).to_owned(), digest.clone())),
        key: format!("{:016x}", found.key.0),
        placement: placement_name(found.placement).to_owned(),
        ranking: ranking.collect(),
        remembered: found.remembered.map(|(slot, left)| (slot.0, left.as_secs_f64())),
        target: found.target.map(|slot| slot.0),
        why: found.why.map(|reason| text(reason).to_owned()),
    }
}

fn text(reason: FallbackReason) -> &'static str {
    match reason {
        FallbackReason::Remembered => "the client has a fallback slot",
        FallbackReason::NotServing => "no worker serves there",
        FallbackReason::Stalled => "its worker does not acknowledge",
        FallbackReason::Refusing => "its worker refuses connections",
        FallbackReason::QueueFull => "its queue is full",
        FallbackReason::OverBound => "it has more connections than load_bound allows",
        FallbackReason::Deaths => "two workers have crashed on this connection there",
    }
}
