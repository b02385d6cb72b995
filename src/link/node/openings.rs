//! Answers that a shared socket goes with, until the worker has it.

use std::os::fd::AsFd;

use crate::link::error::ChannelError;
use crate::link::node::handed::Handed;
use crate::link::node::ports::SharedSocket;
use crate::link::node::transport::Transport;

/// Answers, the oldest first. There are as many as the program has servers, at most.
#[derive(Debug, Default)]
pub(super) struct Openings {
    all: Vec<Opening>,
    /// The worker's own listening socket on the front's port, where the kernel sends it its clients.
    front: Option<SharedSocket>,
}

#[derive(Debug)]
struct Opening {
    /// The number of the query.
    query: u64,
    line: Vec<u8>,
    socket: SharedSocket,
    is_sent: bool,
}

impl Openings {
    /// The worker accepts its clients itself, by this socket.
    pub(super) fn set_front(&mut self, socket: SharedSocket) {
        self.front = Some(socket);
    }

    /// Whether it does.
    pub(super) fn has_front(&self) -> bool {
        self.front.is_some()
    }

    /// That socket.
    pub(super) fn front(&self) -> Option<SharedSocket> {
        self.front.clone()
    }

    /// Adds the answer to a query, with the end of its line.
    pub(super) fn add(&mut self, query: u64, mut line: Vec<u8>, socket: SharedSocket) {
        line.push(b'\n');
        self.all.push(Opening { query, line, socket, is_sent: false });
    }

    /// Whether one waits to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.all.iter().any(|one| !one.is_sent)
    }

    /// Sends those that wait, as far as there is room.
    ///
    /// # Errors
    ///
    /// If the worker has closed its end or the kernel failed.
    pub(super) fn send(
        &mut self,
        transport: &mut Transport,
        handed: &mut Handed,
    ) -> Result<(), ChannelError> {
        for one in self.all.iter_mut().filter(|one| !one.is_sent) {
            if !transport.send_with(&one.line, one.socket.as_fd())? {
                break;
            }
            one.is_sent = true;
            handed.shared_sent(one.query);
        }
        Ok(())
    }

    /// The worker has it, or never will.
    pub(super) fn remove(&mut self, query: u64) {
        self.all.retain(|one| one.query != query);
    }

    /// It was taken back and is sent again; false if it is not known any more.
    pub(super) fn send_again(&mut self, query: u64) -> bool {
        let found = self.all.iter_mut().find(|one| one.query == query);
        found.map(|one| one.is_sent = false).is_some()
    }

    /// The queries whose answers were not sent.
    pub(super) fn unsent(&self) -> Vec<u64> {
        self.all.iter().filter(|one| !one.is_sent).map(|one| one.query).collect()
    }
}
