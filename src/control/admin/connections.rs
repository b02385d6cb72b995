//! The connections of the admin listener: which of them have a place.
//!
//! There is always one for a health check. Where all places are taken, the connection goes that has been
//! idle for longest, those without the token first; where all of them are in a request, a new one gets a
//! reserved place, where health checks alone are answered. Decides by numbers and times; closes nothing
//! itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::oneshot;

use crate::protocol::ids::Timestamp;

/// The largest number of connections, reserved ones included.
pub const MAX_CONNECTIONS: usize = MAX_OPEN + RESERVED;

/// The largest number of connections that are answered everything.
const MAX_OPEN: usize = 224;
/// The largest number of these from one address.
pub(super) const MAX_OF_ADDRESS: usize = MAX_OPEN / 2;
/// Places for health checks where there is no other place.
const RESERVED: usize = 32;

/// All connections of a listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Mutex<Table>>);

/// A connection's place, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) kind: PlaceKind,
    /// Ends when the place is given to another connection.
    pub(super) taken: oneshot::Receiver<()>,
    pub(super) handle: PlaceHandle,
}

/// What a connection is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlaceKind {
    /// Everything.
    Open,
    /// Health checks.
    Reserved,
}

/// Says what a connection does.
#[derive(Clone, Debug)]
pub(super) struct PlaceHandle {
    connections: Connections,
    number: u64,
}

/// A request that is answered: its connection is not idle until this is dropped.
#[derive(Debug)]
pub(super) struct Busy(PlaceHandle);

#[derive(Debug, Default)]
struct Table {
    places: BTreeMap<u64, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    kind: PlaceKind,
    network: IpAddr,
    requests: usize,
    has_token: bool,
    idle_since: Timestamp,
    /// Dropped to end the connection.
    _end: oneshot::Sender<()>,
}

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    /// It gets a place, perhaps that of another one.
    Place(PlaceKind, Option<u64>),
    Refused,
}

impl Connections {
    /// A place for a new connection; `None` if there is none, and no other one is idle.
    pub(super) fn admit(&self, peer: SocketAddr) -> Option<Place> {
        let (network, mut table) = (network(peer.ip()), self.lock());
        let Admission::Place(kind, replaced) = table.decide(network) else { return None };
        if let Some(number) = replaced {
            table.places.remove(&number);
        }
        let (number, (end, taken)) = (table.next, oneshot::channel());
        table.next += 1;
        table.places.insert(number, Entry::new(kind, network, end));
        let handle = PlaceHandle { connections: self.clone(), number };
        Some(Place { kind, taken, handle })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let PlaceHandle { connections, number } = &self.handle;
        connections.lock().places.remove(number);
    }
}

impl PlaceHandle {
    /// A request has come.
    pub(super) fn begin(&self) -> Busy {
        self.change(|entry| entry.requests += 1);
        Busy(self.clone())
    }

    /// Its client has the token.
    pub(super) fn prove(&self) {
        self.change(|entry| entry.has_token = true);
    }

    /// Nothing, if the place is another's already.
    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.connections.lock().places.get_mut(&self.number) {
            change(entry);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|entry| {
            entry.requests -= 1;
            entry.idle_since = Timestamp::now();
        });
    }
}

impl Table {
    fn decide(&self, network: IpAddr) -> Admission {
        let open = |entry: &Entry| entry.kind == PlaceKind::Open;
        let own = |entry: &Entry| open(entry) && entry.network == network;
        let place = |replaced| Admission::Place(PlaceKind::Open, replaced);
        if self.count(own) >= MAX_OF_ADDRESS {
            return self.idlest(own).map_or_else(|| self.reserve(), |idle| place(Some(idle)));
        }
        if self.count(open) >= MAX_OPEN {
            return self.idlest(open).map_or_else(|| self.reserve(), |idle| place(Some(idle)));
        }
        place(None)
    }

    fn reserve(&self) -> Admission {
        let reserved = |entry: &Entry| entry.kind == PlaceKind::Reserved;
        if self.count(reserved) < RESERVED {
            return Admission::Place(PlaceKind::Reserved, None);
        }
        let idle = self.idlest(reserved);
        idle.map_or(Admission::Refused, |idle| Admission::Place(PlaceKind::Reserved, Some(idle)))
    }

    fn count(&self, which: impl Fn(&Entry) -> bool) -> usize {
        self.places.values().filter(|entry| which(entry)).count()
    }

    fn idlest(&self, which: impl Fn(&Entry) -> bool) -> Option<u64> {
        let idle = self.places.iter().filter(|(_, entry)| which(entry) && entry.requests == 0);
        let idlest = idle.min_by_key(|(_, entry)| (entry.has_token, entry.idle_since));
        idlest.map(|(number, _)| *number)
    }
}

impl Entry {
    fn new(kind: PlaceKind, network: IpAddr, end: oneshot::Sender<()>) -> Self {
        let idle_since = Timestamp::now();
        Self { kind, network, requests: 0, has_token: false, idle_since, _end: end }
    }
}

/// What counts as one address: this machine, or all that one client has of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        loopback if loopback.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
        address => address,
    }
}

/// A response's body, with which its request ends.
pub(super) struct BusyBody {
    body: Body,
    _busy: Busy,
}

impl BusyBody {
    pub(super) fn new(body: Body, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl HttpBody for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: usize) -> SocketAddr {
        SocketAddr::from((
            [10, 0, u8::try_from(n / 250).unwrap(), u8::try_from(n % 250).unwrap()],
            1,
        ))
    }

    fn is_gone(place: &mut Place) -> bool {
        place.taken.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    fn open(connections: &Connections, count: usize) -> Vec<Place> {
        (0..count).map(|n| connections.admit(peer(n)).unwrap()).collect()
    }

    #[test]
    fn the_idlest_without_the_token_goes_first() {
        let connections = Connections::default();
        let mut places = open(&connections, MAX_OPEN);
        assert!(places.iter().all(|place| place.kind == PlaceKind::Open));
        places[0].handle.prove();
        let busy = places[1].handle.begin();
        let next = connections.admit(peer(0)).unwrap();
        assert_eq!(next.kind, PlaceKind::Open);
        let gone: Vec<_> = places.iter_mut().map(is_gone).collect();
        assert_eq!(gone.iter().position(|gone| *gone), Some(2));
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
        // What has just been answered has been idle for the shortest time.
        drop(busy);
        let more: Vec<_> = (3..MAX_OPEN).map(|_| connections.admit(peer(0))).collect();
        assert!(!is_gone(&mut places[0]) && !is_gone(&mut places[1]), "{}", more.len());
    }

    #[test]
    fn there_is_a_place_for_health_checks_while_all_others_are_busy() {
        let connections = Connections::default();
        let places = open(&connections, MAX_OPEN);
        let busy: Vec<_> = places.iter().map(|place| place.handle.begin()).collect();
        let mut reserved: Vec<_> =
            (0..RESERVED).map(|_| connections.admit(peer(0)).unwrap()).collect();
        assert!(reserved.iter().all(|place| place.kind == PlaceKind::Reserved));
        let next = connections.admit(peer(1)).unwrap();
        assert_eq!((next.kind, is_gone(&mut reserved[0])), (PlaceKind::Reserved, true));
        let all: Vec<_> = reserved[1..].iter().chain([&next]).map(|it| it.handle.begin()).collect();
        assert!(connections.admit(peer(2)).is_none());
        drop((busy, all, places, reserved, next));
        assert!(connections.lock().places.is_empty());
    }

    #[test]
    fn an_address_has_half_of_the_places() {
        let connections = Connections::default();
        let own = |n: u8| SocketAddr::from(([127, 0, 0, n], 1));
        let mut places: Vec<_> =
            (0..MAX_OF_ADDRESS).map(|_| connections.admit(own(1)).unwrap()).collect();
        let next = connections.admit(own(9)).unwrap();
        assert!(is_gone(&mut places[0]) && next.kind == PlaceKind::Open);
        let other = connections.admit(peer(0)).unwrap();
        assert!(!is_gone(&mut places[1]) && other.kind == PlaceKind::Open);
        for (address, expected) in [
            ("::1", "127.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(network(address.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
        }
    }
}
