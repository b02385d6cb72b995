//! Offers of sessions: whether the message is one and its descriptors are what they should be.
//!
//! Never looks into the bytes that a session travels with.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};
use rustix::time::Timespec;

use crate::link::connection::{Content, Offer};
use crate::link::error::ChannelError;
use crate::link::native::transport::ReceivedFds;
use crate::protocol::message::{ConnectionRecord, MAX_IMAGE};
use crate::protocol::tcp_progress::TcpProgress;

/// Checks an offer, by questions that no lock of the socket holds up: that it is its client's, its taker looks.
/// None if the session cannot migrate now: a descriptor has not arrived, its image is too
/// long, or its client is gone.
pub(super) fn open(
    record: ConnectionRecord,
    usage: Option<TcpProgress>,
    inline: &[u8],
    fds: ReceivedFds,
) -> Result<Option<Offer>, ChannelError> {
    let fault = |what| ChannelError::Session(record.id, what);
    let ReceivedFds { descriptors, lost } = fds;
    if descriptors.len() > 2 {
        return Err(fault("more than a socket and an image"));
    }
    if lost {
        return Ok(None);
    }
    let mut descriptors = descriptors.into_iter();
    let Some(socket) = descriptors.next() else { return Err(fault("no socket")) };
    if !is_tcp(&socket) {
        return Err(fault("a socket that is not TCP"));
    }
    let content = match descriptors.next() {
        None => Content::Inline(inline.to_vec()),
        Some(_) if !inline.is_empty() => return Err(fault("two images")),
        Some(memory) if !is_sealed(&memory) => return Err(fault("an image that is not sealed")),
        Some(memory) if !is_short(&memory) => return Ok(None),
        Some(memory) => Content::Memory(memory),
    };
    if is_gone(&socket) {
        return Ok(None);
    }
    // Its next worker must not wait for it, whatever this one has set.
    let _ = rustix::io::ioctl_fionbio(&socket, true);
    Ok(Some(Offer::new(record, socket.into(), content, usage)))
}

pub(super) fn is_tcp(socket: impl AsFd + Copy) -> bool {
    let internet = [AddressFamily::INET, AddressFamily::INET6];
    sockopt::socket_type(socket) == Ok(SocketType::STREAM)
        && sockopt::socket_domain(socket).is_ok_and(|domain| internet.contains(&domain))
        && sockopt::socket_protocol(socket) == Ok(Some(ipproto::TCP))
}

/// Whether it has no client, or none any more.
fn is_gone(socket: impl AsFd) -> bool {
    if sockopt::socket_acceptconn(&socket) != Ok(false) {
        return true;
    }
    let mut look = [PollFd::new(&socket, PollFlags::empty())];
    let looked = poll(&mut look, Some(&Timespec::default()));
    let [look] = look;
    looked.is_err() || look.revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Its reader can rely on its length and content.
fn is_sealed(memory: impl AsFd) -> bool {
    let needed = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_get_seals(memory).is_ok_and(|seals| seals.contains(needed))
}

fn is_short(memory: impl AsFd) -> bool {
    let size = fstat(memory).map(|stat| u64::try_from(stat.st_size));
    matches!(size, Ok(Ok(size)) if size <= MAX_IMAGE)
}
