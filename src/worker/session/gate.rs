//! stub for compiling
use crate::worker::connection::ConnectionGuard;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[derive(Debug)]
pub struct Gate;
#[derive(Clone, Debug)]
pub(crate) struct Handle;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Http,
    WebSocket,
    Closing,
    Unknown,
    Ended,
}
#[derive(Debug)]
pub(crate) struct Baggage {
    pub(crate) kind: Kind,
    pub(crate) head: Vec<u8>,
    pub(crate) unread: Vec<u8>,
}
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) stream: TcpStream,
    pub(crate) guard: Option<ConnectionGuard>,
    pub(crate) baggage: Baggage,
}
#[derive(Debug)]
pub(crate) struct Seized {
    pub(crate) stream: TcpStream,
    pub(crate) guard: Option<ConnectionGuard>,
    pub(crate) kind: Kind,
    pub(crate) at_frame_boundary: bool,
}
#[derive(Debug)]
pub(crate) struct InFlight;
impl Gate {
    pub(crate) fn fresh(_: TcpStream, _: Option<ConnectionGuard>) -> (Self, Handle) {
        todo!()
    }
    pub(crate) fn resumed(_: TcpStream, _: Option<ConnectionGuard>, _: Baggage) -> (Self, Handle) {
        todo!()
    }
}
impl Handle {
    pub(crate) fn kind(&self) -> Kind {
        todo!()
    }
    pub(crate) fn ask_to_stop(&self) {}
    pub(crate) fn go_on(&self) {}
    pub(crate) async fn drained(&self) {}
    pub(crate) fn hold(&self) -> bool {
        false
    }
    pub(crate) fn release(&self) {}
    pub(crate) fn take(&self) -> Option<Taken> {
        None
    }
    pub(crate) fn seize(&self) -> Option<Seized> {
        None
    }
    pub(crate) async fn ended(&self) {}
    pub(crate) fn request_started(&self) -> InFlight {
        InFlight
    }
}
impl AsyncRead for Gate {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        todo!()
    }
}
impl AsyncWrite for Gate {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        todo!()
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

#[derive(Debug)]
pub struct Owed<B> {
    body: B,
    guard: InFlight,
}
impl<B> Owed<B> {
    pub(crate) fn new(body: B, guard: InFlight) -> Self {
        Self { body, guard }
    }
}
impl<B: hyper::body::Body> hyper::body::Body for Owed<B> {
    type Data = B::Data;
    type Error = B::Error;
    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<B::Data>, B::Error>>> {
        todo!()
    }
}
