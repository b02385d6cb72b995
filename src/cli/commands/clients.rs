//! `where` and `conns`: the slots that clients go to, the workers that hold their connections.

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;

use crate::cli::client::ControlClient;
use crate::cli::failure::Failure;
use crate::cli::screen::{Look, Tone};
use crate::cli::table::{Column, Value, pairs, table};
use crate::cli::units::{NOTHING, clean, maybe, seconds};
use crate::control::protocol::{Request, address};
use crate::control::report::{Connections, RouteExplanation};

/// Hexadecimal digits of a key.
const KEY: usize = 16;

const RANKING: [Column; 7] = [
    Column::number("rank"),
    Column::number("slot"),
    Column::word("state"),
    Column::word("clients"),
    Column::number("pid").spare(1),
    Column::number("load").spare(2),
    Column::text("skip reason"),
];

const CONNECTIONS: [Column; 8] = [
    Column::word("client"),
    Column::word("local").spare(3),
    Column::number("slot"),
    Column::number("gen").spare(4),
    Column::number("pid"),
    Column::word("state"),
    Column::number("unread").spare(1),
    Column::number("unsent").spare(2),
];

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Where {
    /// Address of the client, or its affinity key of 16 hexadecimal digits.
    #[arg(value_name = "ADDRESS|KEY", value_parser = client)]
    client: Client,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Client {
    Address(IpAddr),
    Key(String),
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Conns {
    /// Show this slot only.
    #[arg(long, value_name = "N")]
    slot: Option<u16>,
    /// Show these clients only: an address, or a network such as 10.0.0.0/8.
    #[arg(long, value_name = "CIDR", value_parser = network)]
    addr: Option<IpNet>,
    /// Show so many at most.
    #[arg(long, value_name = "N", default_value = "100")]
    limit: usize,
}

/// Addresses may be pasted with their port.
fn client(text: &str) -> Result<Client, String> {
    if let Some(address) = address(text) {
        return Ok(Client::Address(address));
    }
    if text.len() == KEY && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Client::Key(text.to_ascii_lowercase()));
    }
    Err(format!("expected an address, or a key of {KEY} hexadecimal digits"))
}

fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().ok().or_else(|| address(text).map(IpNet::from));
    network.ok_or_else(|| "expected an address, or a network as 10.0.0.0/8".to_owned())
}

pub(super) fn route(client: &mut ControlClient, wanted: Where) -> Result<(), Failure> {
    let (address, key) = match wanted.client {
        Client::Address(address) => (Some(address), None),
        Client::Key(key) => (None, Some(key)),
    };
    client.show(&Request::Where { address, key }, route_text)
}

pub(super) fn connections(client: &mut ControlClient, wanted: &Conns) -> Result<(), Failure> {
    let Conns { slot, addr, limit } = *wanted;
    let request = Request::Conns { slot, address: addr, limit: Some(limit) };
    client.show(&request, connections_text)
}

fn route_text(route: &RouteExplanation, look: Look) -> String {
    let w = route;
    let counts = w.prefix.as_ref().filter(|counts| w.address.as_ref() != Some(counts));
    let counts = counts.map(|it| format!(", of which {} counts", clean(it))).unwrap_or_default();
    let digest = |(name, digest): &(String, String)| format!("{} {}", clean(name), clean(digest));
    let text = pairs(&[
        ("address", maybe(w.address.as_deref(), clean) + &counts),
        ("digest", maybe(w.digest.as_ref(), digest)),
        ("key", clean(&w.key)),
        ("placement", clean(&w.placement)),
        (
            "remembered",
            maybe(w.remembered, |(slot, left)| format!("slot {slot}, for {} more", seconds(left))),
        ),
        ("goes to", target(w, look)),
    ]);
    text + "\n" + &ranking_table(w, look)
}

fn target(route: &RouteExplanation, look: Look) -> String {
    let why = route.why.as_deref().map(|why| format!(": {}", clean(why))).unwrap_or_default();
    let Some(slot) = route.target else {
        return look.paint("no slot for now", Tone::Bad) + &why;
    };
    let first = route.ranking.first().map(|first| first.slot);
    let tone = if first == Some(slot) { Tone::Good } else { Tone::Warn };
    let instead = first.filter(|first| *first != slot);
    let instead = instead.map(|first| format!(", not to slot {first}")).unwrap_or_default();
    look.paint(format!("slot {slot}"), tone) + &instead + &why
}

fn ranking_table(route: &RouteExplanation, look: Look) -> String {
    let rows = route.ranking.iter().zip(1_u32..).map(|(ranked, rank)| {
        vec![
            rank.into(),
            ranked.slot.into(),
            Value::state(&ranked.state),
            Value::state(&ranked.availability),
            maybe(ranked.pid, |it| it.to_string()).into(),
            ranked.load.into(),
            match &ranked.skip_reason {
                Some(reason) => reason.into(),
                None if route.target == Some(ranked.slot) => Value::toned("goes here", Tone::Good),
                None => NOTHING.into(),
            },
        ]
    });
    table(&RANKING, rows.collect(), look)
}

fn connections_text(found: &Connections, look: Look) -> String {
    let rows = found.connections.iter().map(|it| {
        vec![
            (&it.client).into(),
            (&it.local).into(),
            it.slot.into(),
            it.generation.into(),
            it.pid.into(),
            (&it.state).into(),
            it.unread.into(),
            it.unsent.into(),
        ]
    });
    let text = table(&CONNECTIONS, rows.collect(), look);
    let shown = u64::try_from(found.connections.len()).unwrap_or(u64::MAX);
    match found.total.saturating_sub(shown) {
        0 => text,
        more => format!("{text}{more} more: --limit shows them, --slot and --addr pick some\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::report::{Connection, Ranked};

    #[test]
    fn clients_are_addresses_or_keys() {
        let address = |text: &str| Ok(Client::Address(text.parse().unwrap()));
        assert_eq!(client("10.0.0.1"), address("10.0.0.1"));
        assert_eq!(client("10.0.0.1:5000"), address("10.0.0.1"));
        assert_eq!(client("[2001:db8::1]:5000"), address("2001:db8::1"));
        assert_eq!(client("2001:db8::1"), address("2001:db8::1"));
        assert_eq!(client("fe80::1%eth0"), address("fe80::1"));
        assert_eq!(client("[fe80::1%2]:5000"), address("fe80::1"));
        assert_eq!(client("00112233AABBCCDD"), Ok(Client::Key("00112233aabbccdd".into())));
        for wrong in ["", "localhost", "10.0.0", "00112233aabbccd", "0x112233aabbccdd", "-1"] {
            assert!(client(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks_may_be_single_addresses() {
        assert_eq!(network("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(network("fe80::1%eth0").unwrap().to_string(), "fe80::1/128");
        assert_eq!(network("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert!(network("10.0.0.0/33").is_err());
    }

    fn elsewhere() -> RouteExplanation {
        let ranked = |slot, state: &str, skip_reason: Option<&str>| Ranked {
            slot,
            state: state.into(),
            availability: if state == "serving" { "open" } else { "closed" }.into(),
            skip_reason: skip_reason.map(str::to_owned),
            ..Ranked::default()
        };
        RouteExplanation {
            address: Some("10.0.0.1".into()),
            prefix: Some("10.0.0.0/24".into()),
            key: "00112233aabbccdd".into(),
            ranking: vec![ranked(2, "drained", Some("it is drained")), ranked(0, "serving", None)],
            remembered: Some((0, 299.0)),
            target: Some(0),
            why: Some("slot 2 is drained".into()),
            ..RouteExplanation::default()
        }
    }

    #[test]
    fn it_is_said_where_a_client_goes_and_why_not_to_its_first() {
        let text = route_text(&elsewhere(), Look::default());
        for expected in [
            "address:     10.0.0.1, of which 10.0.0.0/24 counts\n",
            "goes to:     slot 0, not to slot 2: slot 2 is drained\n",
            "remembered:  slot 0, for 4m 59s more\n",
            "   1     2  drained  closed     -     0  it is drained\n",
            "   2     0  serving  open       -     0  goes here\n",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let nowhere = RouteExplanation { target: None, why: None, ..elsewhere() };
        assert!(route_text(&nowhere, Look::default()).contains("no slot for now"));
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let one = Connection { client: "10.0.0.1:5000".into(), ..Connection::default() };
        let all = Connections { connections: vec![one], total: 1 };
        assert_eq!(connections_text(&all, Look::default()).lines().count(), 2);
        let some = Connections { total: 13, ..all };
        assert!(connections_text(&some, Look::default()).contains("\n12 more: --limit"));
    }
}
