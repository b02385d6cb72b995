//! A link as plain data, for a successor.

use crate::handover::descriptors::{Descriptors, RestoreError, WorkerPart};
use crate::handover::link::LinkSnapshot;
use crate::link::Link;
use crate::link::native::{self, snapshot as channel};
use crate::protocol::ids::WorkerId;

/// The descriptors of links, of all dialects that are carried over.
pub fn parts() -> impl Iterator<Item = WorkerPart> {
    native::PARTS.into_iter()
}

/// The workers that have a link among these descriptors, perhaps an incomplete one.
#[must_use]
pub fn workers(descriptors: &Descriptors) -> Vec<WorkerId> {
    descriptors.workers_with(native::PARTS[0])
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
        #[cfg(test)]
        Link::JsonLines(_) => None,
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
    }
}
