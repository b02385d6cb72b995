//! Finds out the order of the kernel's group, which tells it to nobody.
//!
//! Each member announces a segment size of its own for a moment, and one connection for each index, pinned to it by the
//! program, sees which member answers. That needs no worker to accept and works while workers accept. Clients that come
//! in that moment get segments of a kilobyte or more, and nothing else happens to them; workers see connections that
//! end at once.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::frontend::listener_group::connect::Connection;
use crate::frontend::listener_group::{GroupError, ListenerGroup, Order, index_at};
use crate::frontend::steering::program::Pin;
use crate::kernel;
use crate::protocol::ids::Timestamp;

/// Indices that are found out at a time.
const MAX_AT_ONCE: usize = 16;

/// A member whose queue isn't full answers in less; the front waits so long, at most, for all of a time.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);

/// The segment size of the first member, and how much more the next one's is. Options of TCP take less than that away.
const BASE: u32 = 1024;
const STEP: u32 = 64;

/// Puts the members of a group in their order.
///
/// Those that don't answer, since their queues are full, get the places that are left. If they are several, the order
/// stays unknown; but while queues are full, nobody comes there anyway.
///
/// # Errors
///
/// If the kernel refuses. Nothing has changed then.
pub(super) fn locate(group: &mut ListenerGroup) -> Result<(), GroupError> {
    let marked = mark(group).and_then(|()| {
        let places = (0..group.members.len()).collect::<Vec<_>>();
        let mut found = Vec::with_capacity(places.len());
        for places in places.chunks(MAX_AT_ONCE) {
            found.extend(ask(group, places)?);
        }
        Ok(found)
    });
    for member in &group.members {
        // It was set before.
        let _ = kernel::set_segment_size(&member.listener, 0);
    }
    let found = marked?;
    let missing = found.iter().filter(|place| place.is_none()).count();
    let order = complete(found);
    let mut members: Vec<_> = group.members.drain(..).map(Some).collect();
    group.members = order.into_iter().filter_map(|place| members[place].take()).collect();
    if missing > 1 {
        tracing::warn!(missing, "order of listening sockets not found out since queues are full");
    } else {
        group.order = Order::Known;
    }
    group.store();
    Ok(())
}

fn mark(group: &ListenerGroup) -> Result<(), GroupError> {
    for (size, member) in (BASE..).step_by(STEP as usize).zip(&group.members) {
        kernel::set_segment_size(&member.listener, size)
            .map_err(|source| group.failed("mark a socket", source))?;
    }
    Ok(())
}

/// For each of these indices, the place of the member that is there.
fn ask(group: &mut ListenerGroup, places: &[usize]) -> Result<Vec<Option<usize>>, GroupError> {
    let connections = places.iter().map(|_| group.connection()).collect::<Result<Vec<_>, _>>()?;
    let pin = |(place, connection): (&usize, &Connection)| Pin {
        source: connection.source(),
        index: index_at(*place),
    };
    let pins: Vec<_> = places.iter().zip(&connections).map(pin).collect();
    group.attach(&pins)?;
    for connection in &connections {
        connection.connect().map_err(|source| group.failed("connect to a socket", source))?;
    }
    let begun = Timestamp::now();
    loop {
        let waiting: Vec<_> =
            connections.iter().filter(|connection| connection.segment_size().is_none()).collect();
        let left = ANSWER_TIMEOUT.saturating_sub(Timestamp::now().since(begun));
        if waiting.is_empty() || left.is_zero() {
            break;
        }
        let mut polled: Vec<_> =
            waiting.iter().map(|waiting| PollFd::new(*waiting, PollFlags::OUT)).collect();
        let timeout = Timespec::try_from(left).ok();
        // An error is a signal: it looks again.
        let _ = poll(&mut polled, timeout.as_ref());
    }
    Ok(connections.iter().map(|connection| place_of(connection.segment_size()?)).collect())
}

/// The place of the member that announces so much.
fn place_of(size: u32) -> Option<usize> {
    let steps = (size + STEP - 1).checked_sub(BASE)? / STEP;
    usize::try_from(steps).ok()
}

/// Places that aren't found are put where none is, in their order.
fn complete(found: Vec<Option<usize>>) -> Vec<usize> {
    let missing: Vec<_> = (0..found.len()).filter(|place| !found.contains(&Some(*place))).collect();
    let mut missing = missing.into_iter();
    found.into_iter().filter_map(|place| place.or_else(|| missing.next())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_sizes_name_places_whatever_options_take_away() {
        for place in 0..480_u32 {
            let size = BASE + STEP * place;
            for options in [0, 12, 40] {
                assert_eq!(place_of(size - options), Some(place as usize));
            }
            assert!(size <= 32_767, "the kernel takes no larger one");
        }
        assert_eq!(place_of(10), None);
    }

    #[test]
    fn those_that_do_not_answer_get_what_is_left() {
        assert_eq!(complete(vec![Some(1), Some(0), Some(2)]), [1, 0, 2]);
        assert_eq!(complete(vec![Some(1), None, Some(2)]), [1, 0, 2]);
        assert_eq!(complete(vec![None, Some(1), None]), [0, 1, 2]);
        assert_eq!(complete(vec![]), [0; 0]);
    }
}
