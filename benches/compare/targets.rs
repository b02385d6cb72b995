//! What sticky-lb promises beside the other rows, and whether this run shows it.

use crate::options::FrontName;
use crate::rounds::{Idle, Row};
use crate::statistics::Samples;

/// Less than a pointer: what the front keeps is not kept per connection.
const NOTHING_BYTES: f64 = 8.0;
/// Less than a descriptor for a thousand connections.
const NOTHING_DESCRIPTORS: f64 = 0.001;

/// One promise.
pub(crate) struct Target {
    pub(crate) promise: &'static str,
    /// What was measured and whether that keeps it; None if it wasn't.
    pub(crate) result: Option<(f64, bool)>,
    /// What the bare hand-off comes to in this run, for comparison: how much a
    /// hand-off costs at all depends on what else a connection costs here.
    pub(crate) limit: Option<f64>,
}

pub(crate) fn check(rows: &[Row]) -> Vec<Target> {
    let row = |name| rows.iter().find(|row: &&Row| row.name == name);
    let product = row(FrontName::StickyLb);
    let idle = product.and_then(|product| product.idle);
    let at_most = |limit: f64| move |value: f64| (value, value <= limit);
    let at_least = |limit: f64| move |value: f64| (value, value >= limit);
    let share =
        |of: FrontName, figure: fn(&Row) -> &Samples| figure(product?).share_of(figure(row(of)?));
    let watched =
        |figure: fn(&Row) -> &Samples| figure(row(FrontName::Watched)?).share_of(figure(product?));
    let limit = |figure: fn(&Row) -> &Samples| {
        figure(row(FrontName::Bare)?).share_of(figure(row(FrontName::Direct)?))
    };
    vec![
        Target {
            promise: "front CPU per connection at most 0.8 x bare hand-off",
            result: share(FrontName::Bare, |row| &row.cpu).map(at_most(0.8)),
            limit: None,
        },
        Target {
            promise: "CPU of all processes per connection at most 1.10 x direct's",
            result: share(FrontName::Direct, |row| &row.all_cpu).map(at_most(1.10)),
            limit: limit(|row| &row.all_cpu),
        },
        Target {
            promise: "connections/s at least 0.90 of direct",
            result: share(FrontName::Direct, |row| &row.connections).map(at_least(0.90)),
            limit: limit(|row| &row.connections),
        },
        Target {
            promise: "WebSocket round trips/s at least 0.97 of direct",
            result: share(FrontName::Direct, |row| &row.echoes).map(at_least(0.97)),
            limit: limit(|row| &row.echoes),
        },
        Target {
            promise: "watched: connections/s at least 0.98 of unwatched",
            result: watched(|row| &row.connections).map(at_least(0.98)),
            limit: None,
        },
        Target {
            promise: "watched: front CPU per connection at most 1.02 x unwatched",
            result: watched(|row| &row.cpu).map(at_most(1.02)),
            limit: None,
        },
        nothing_per_connection("0 bytes per idle connection", idle, |idle| {
            (idle.bytes, idle.bytes < NOTHING_BYTES)
        }),
        nothing_per_connection("0 descriptors per idle connection", idle, |idle| {
            (idle.descriptors, idle.descriptors < NOTHING_DESCRIPTORS)
        }),
    ]
}

fn nothing_per_connection(
    promise: &'static str,
    idle: Option<Idle>,
    judge: impl FnOnce(Idle) -> (f64, bool),
) -> Target {
    Target { promise, result: idle.map(judge), limit: None }
}
