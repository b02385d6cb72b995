//! A connection taken apart: its socket, what travels with it, and what must outlive it here.
//!
//! Holds data and decides nothing.

use tokio::net::TcpStream;

use crate::worker::guard::ConnectionGuard;
use crate::worker::session::checkpoint::Checkpoint;
use crate::worker::session::image::ConnectionState;

/// A socket that nothing in this process reads or writes any more.
#[derive(Debug)]
pub(crate) struct Detached {
    pub(crate) stream: TcpStream,
    /// Must live as long as the socket is open here.
    pub(crate) guard: Option<ConnectionGuard>,
    pub(crate) connection: ConnectionState,
    /// Its checkpoint, if it is protected.
    pub(crate) checkpoint: Option<Box<Checkpoint>>,
}

/// A socket that was taken in the middle of something.
#[derive(Debug)]
pub(crate) struct ForceDetached {
    pub(crate) stream: TcpStream,
    /// Must live as long as the socket is open here.
    pub(crate) guard: Option<ConnectionGuard>,
    /// It is a WebSocket, nothing is half written and no close frame was sent: one may be.
    pub(crate) at_frame_boundary: bool,
    /// To be dropped when the socket is closed.
    pub(crate) checkpoint: Option<Box<Checkpoint>>,
}

/// A connection whose library has ended.
pub(crate) struct Finished {
    pub(crate) stream: TcpStream,
    pub(crate) guard: Option<ConnectionGuard>,
    pub(crate) checkpoint: Option<Box<Checkpoint>>,
}
