//! A link as plain data, for a successor.

use std::io;
use std::os::fd::OwnedFd;

use crate::handover::descriptors::{Descriptors, RestoreError, WorkerPart};
use crate::handover::link::LinkSnapshot;
use crate::link::native::{self, snapshot as channel};
use crate::link::{GroupMember, Link};
use crate::link::{listen, node};
use crate::protocol::ids::WorkerId;

/// The descriptors of links, of all dialects that are carried over.
pub fn parts() -> impl Iterator<Item = WorkerPart> {
    let parts = native::PARTS.into_iter().chain(node::PARTS).chain(listen::PARTS);
    parts.chain([GroupMember::PART])
}

/// The workers that have a link among these descriptors, perhaps an incomplete one.
#[must_use]
pub fn workers(descriptors: &Descriptors) -> Vec<WorkerId> {
    descriptors.workers_with(native::PAGE)
}

/// As plain data; its descriptors go to `descriptors`. None if its dialect isn't carried over.
pub fn into_snapshot(
    link: Link,
    worker: WorkerId,
    descriptors: &mut Descriptors,
) -> Option<LinkSnapshot> {
    match link {
        Link::Native(link) => {
            let snapshot = channel::into_snapshot(link, worker, descriptors);
            Some(LinkSnapshot::Native(Box::new(snapshot)))
        }
        Link::Node(link) => {
            let snapshot = node::snapshot::into_snapshot(*link, worker, descriptors);
            Some(LinkSnapshot::Node(Box::new(snapshot)))
        }
        Link::Listen(link) => {
            let waits_for_word = link.waits_for_word();
            link.into_descriptors(worker, descriptors);
            Some(LinkSnapshot::Listen { waits_for_word })
        }
        Link::Undecided(mut link) => {
            let (native, node) = link.take()?;
            let native = channel::into_snapshot(native, worker, descriptors);
            let node = node::snapshot::into_snapshot(node, worker, descriptors);
            Some(LinkSnapshot::Undecided(Box::new(native), Box::new(node)))
        }
    }
}

/// As it was.
///
/// # Errors
///
/// If a descriptor is missing or unusable, or the snapshot is malformed.
pub fn restore(
    snapshot: LinkSnapshot,
    worker: WorkerId,
    descriptors: &mut Descriptors,
) -> Result<Link, RestoreError> {
    match snapshot {
        LinkSnapshot::Native(snapshot) => {
            channel::restore(*snapshot, worker, descriptors).map(Link::Native)
        }
        LinkSnapshot::Node(snapshot) => {
            node::snapshot::restore(*snapshot, worker, descriptors).map(Link::from)
        }
        LinkSnapshot::Listen { waits_for_word } => {
            listen::adopt(worker, descriptors, waits_for_word).map(Link::Listen)
        }
        LinkSnapshot::Undecided(native, node) => {
            let page = copy_of_page(worker, descriptors)?;
            let native = channel::restore(*native, worker, descriptors)?;
            descriptors.insert(native::PAGE.name(worker), page);
            let node = node::snapshot::restore(*node, worker, descriptors)?;
            Link::undecided(native, node).map_err(|source| unusable(worker, source))
        }
    }
}

/// Both channels of a worker that has said nothing yet have the same scoreboard.
pub(super) fn copy_of_page(
    worker: WorkerId,
    descriptors: &mut Descriptors,
) -> Result<OwnedFd, RestoreError> {
    let name = native::PAGE.name(worker);
    let page = descriptors.require(&name)?;
    let copy = page.try_clone().map_err(|source| unusable(worker, source));
    descriptors.insert(name, page);
    copy
}

pub(super) fn unusable(worker: WorkerId, source: io::Error) -> RestoreError {
    RestoreError::Unusable { name: native::PAGE.name(worker), source }
}
