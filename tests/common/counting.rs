//! WebSockets that count, so that nothing is lost, doubled or forgotten unseen: clients of the worker
//! `library_worker sessions`.

use std::net::TcpStream;

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Error, Message, WebSocket};

use super::Primary;
use super::client::{connect_from, nth};

/// A client of `/count`, which is told how many messages it has sent and how many workers have served
/// it so far.
#[derive(Debug)]
pub struct Client {
    /// Its connection.
    pub socket: WebSocket<TcpStream>,
    sent: u64,
}

impl Client {
    /// Opens one.
    pub fn open(client: u16, primary: &Primary, path: &str) -> Self {
        let stream = connect_from(nth(client), primary.address()).expect("the session goes on");
        let url = format!("ws://test{path}");
        Self { socket: tungstenite::client(url, stream).expect("the session goes on").0, sent: 0 }
    }

    /// Sends a message, and says how many workers there were.
    pub fn ask(&mut self) -> u64 {
        self.sent += 1;
        self.socket.send(Message::text("next")).expect("the session goes on");
        let answer = match self.socket.read() {
            Ok(Message::Text(answer)) => answer,
            other => panic!("the session doesn't go on: {other:?}"),
        };
        let (count, workers) = answer.split_once(' ').expect("two numbers");
        assert_eq!(count.parse(), Ok(self.sent), "a message was lost or doubled");
        workers.parse().expect("the session goes on")
    }

    /// Waits for the close frame with which it is sent away.
    pub fn close_code(mut self) -> CloseCode {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => {
                    let code = frame.expect("a code").code;
                    // Answered by reading on, which then finds the end and no reset.
                    let end = self.socket.read();
                    assert!(matches!(end, Err(Error::ConnectionClosed)), "{end:?}");
                    return code;
                }
                Ok(_) => {}
                Err(error) => panic!("ended without a close frame: {error}"),
            }
        }
    }
}
