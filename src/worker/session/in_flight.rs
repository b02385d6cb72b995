//! Tells a stream when the answer to a request is made: when its body has ended or is dropped.
//!
//! Never changes the body, nor its length.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::worker::session::request_guard::RequestGuard;

pin_project! {
    /// An answer's body, with which the answer ends.
    #[derive(Debug)]
    pub(crate) struct InFlightBody<B> {
        #[pin]
        body: B,
        in_flight: Option<RequestGuard>,
    }
}

impl<B> InFlightBody<B> {
    pub(crate) fn new(body: B, in_flight: RequestGuard) -> Self {
        Self { body, in_flight: Some(in_flight) }
    }
}

impl<B: Body> Body for InFlightBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if frame.is_none() {
            *this.in_flight = None;
        }
        Poll::Ready(frame)
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
    use std::convert::Infallible;

    use http_body_util::{BodyExt, Full, StreamBody};
    use hyper::HeaderMap;
    use hyper::body::Bytes;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::worker::SessionStream;
    use crate::worker::session::handle::Handle;

    async fn stream() -> (Handle, RequestGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let handle = SessionStream::standalone(stream).inner().handle.clone();
        let in_flight = handle.request_started(None);
        (handle, in_flight)
    }

    #[tokio::test]
    async fn a_body_is_what_it_was() {
        let (_handle, in_flight) = stream().await;
        let body = InFlightBody::new(Full::new(Bytes::from_static(b"hello")), in_flight);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(5), false));
        let (_handle, in_flight) = stream().await;
        let body = InFlightBody::new(Full::new(Bytes::new()), in_flight);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));

        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", 7.into());
        let frames = [Frame::data(Bytes::from_static(b"a")), Frame::trailers(trailers.clone())];
        let frames = frames.map(Ok::<_, Infallible>);
        let (_handle, in_flight) = stream().await;
        let body =
            InFlightBody::new(StreamBody::new(futures_util::stream::iter(frames)), in_flight);
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "a");
    }

    #[tokio::test]
    async fn an_answer_ends_with_its_body() {
        let (handle, in_flight) = stream().await;
        let finished = || handle.cell.lock().requests.finished();
        let mut body = InFlightBody::new(Full::new(Bytes::from_static(b"hello")), in_flight);
        assert!(body.frame().await.is_some());
        assert_eq!(finished(), 0);
        assert!(body.frame().await.is_none());
        assert_eq!(finished(), 1);
        drop(body);
        assert_eq!(finished(), 1, "twice");
    }
}
