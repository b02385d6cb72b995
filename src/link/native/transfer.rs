//! Offers of sessions: whether the message is one and its descriptors are what they should be.
//!
//! Never looks into the bytes that a session travels with.

use std::os::fd::AsFd;

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use crate::link::connection::{Content, Offer, is_of};
use crate::link::error::ChannelError;
use crate::link::native::transport::ReceivedFds;
use crate::protocol::message::{ConnectionRecord, MAX_IMAGE};
use crate::protocol::tcp_progress::TcpProgress;

/// Checks an offer. None if the session cannot migrate now: a descriptor has not arrived, its image is too
/// long, or its client is gone.
pub(super) fn open(
    record: ConnectionRecord,
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
    match is_of(&socket, record.client) {
        Some(true) => {}
        Some(false) => return Err(fault("a socket of another client")),
        None => return Ok(None),
    }
    let content = match descriptors.next() {
        None => Content::Inline(inline.to_vec()),
        Some(_) if !inline.is_empty() => return Err(fault("two images")),
        Some(memory) if !is_sealed(&memory) => return Err(fault("an image that is not sealed")),
        Some(memory) if !is_short(&memory) => return Ok(None),
        Some(memory) => Content::Memory(memory),
    };
    // Its next worker must not wait for it, whatever this one has set.
    let _ = rustix::io::ioctl_fionbio(&socket, true);
    let usage = TcpProgress::of(&socket).ok().flatten();
    Ok(usage.map(|usage| Offer::new(record, socket.into(), content, usage)))
}

pub(super) fn is_tcp(socket: impl AsFd + Copy) -> bool {
    let internet = [AddressFamily::INET, AddressFamily::INET6];
    sockopt::socket_type(socket) == Ok(SocketType::STREAM)
        && sockopt::socket_domain(socket).is_ok_and(|domain| internet.contains(&domain))
        && sockopt::socket_protocol(socket) == Ok(Some(ipproto::TCP))
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
