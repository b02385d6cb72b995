//! The workers of the table: this test program, started again. Its channel is its standard input, and its
//! scoreboard its standard error.

use std::collections::VecDeque;
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;

use crate::protocol::ids::ConnectionId;
use crate::protocol::message::{
    HELLO, MAX_IDS, MAX_TO_WORKER, READY, ToWorker, decode_to_worker, encode_refuse,
};
use crate::protocol::scm_rights::{Received, receive, send};
use crate::protocol::scoreboard::{Counter, Scoreboard};

/// The variable that makes this program a worker.
pub(super) const ROLE: &str = "STICKY_LB_TEST_LINK_WORKER";

/// What a worker does when it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Acknowledges,
    RefusesOdd,
    NeverReceives,
    ReceivesAndDies,
    AcknowledgesThreeAndDies,
    ReadsAndDies,
    StopsAfterOne,
}

impl FromStr for Behaviour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [
            Self::Acknowledges,
            Self::RefusesOdd,
            Self::NeverReceives,
            Self::ReceivesAndDies,
            Self::AcknowledgesThreeAndDies,
            Self::ReadsAndDies,
            Self::StopsAfterOne,
        ];
        all.into_iter().find(|it| format!("{it:?}") == text).ok_or_else(|| text.to_owned())
    }
}

/// A worker's side of a link.
trait Worker {
    fn announce(&mut self);
    /// The next connection; none when it is to drain.
    fn next(&mut self) -> Option<(u64, OwnedFd)>;
    fn acknowledge(&mut self);
    fn refuse(&mut self, id: u64);
}

/// Does nothing unless the table has started this program.
#[test]
fn process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (kind, behaviour) = role.split_once(' ').unwrap();
    let behaviour = behaviour.parse().unwrap();
    let channel = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    if kind == "Native" {
        let scoreboard = Scoreboard::open(std::io::stderr().as_fd()).unwrap();
        behave(Native { channel, scoreboard, received: VecDeque::new() }, behaviour);
    } else {
        let (bytes, descriptors) = (Vec::new(), VecDeque::new());
        let by_message = kind == "NodeByMessage";
        behave(Node { channel, bytes, descriptors, by_message, seq: 0, arrived: 0 }, behaviour);
    }
}

fn behave(mut worker: impl Worker, behaviour: Behaviour) {
    worker.announce();
    let mut held = Vec::new();
    for number in 1.. {
        if behaviour == Behaviour::NeverReceives {
            loop {
                std::thread::park();
            }
        }
        let Some((id, socket)) = worker.next() else { return };
        match behaviour {
            Behaviour::RefusesOdd if id % 2 == 1 => {
                worker.refuse(id);
                continue;
            }
            Behaviour::ReceivesAndDies if number == 5 => return,
            Behaviour::ReceivesAndDies => {}
            Behaviour::AcknowledgesThreeAndDies if number > 3 => return,
            Behaviour::ReadsAndDies => {
                let mut stream = TcpStream::from(socket);
                stream.set_nonblocking(false).unwrap();
                stream.read_exact(&mut [0; 1]).unwrap();
                return;
            }
            Behaviour::StopsAfterOne if number == 1 => {
                println!("stops");
                let mut stream = TcpStream::from(socket.try_clone().unwrap());
                stream.set_nonblocking(false).unwrap();
                stream.read_exact(&mut [0; 1]).unwrap();
                worker.acknowledge();
            }
            _ => worker.acknowledge(),
        }
        held.push(socket);
    }
}

/// Waits until there is something to read.
fn wait(channel: &OwnedFd) {
    poll(&mut [PollFd::new(channel, PollFlags::IN)], None).unwrap();
}

struct Native {
    channel: OwnedFd,
    scoreboard: Scoreboard,
    received: VecDeque<(u64, OwnedFd)>,
}

impl Worker for Native {
    fn announce(&mut self) {
        send(&self.channel, &HELLO, &[]).unwrap();
        send(&self.channel, &READY, &[]).unwrap();
    }

    fn next(&mut self) -> Option<(u64, OwnedFd)> {
        let mut bytes = [0; MAX_TO_WORKER];
        while self.received.is_empty() {
            let mut sockets = Vec::new();
            match receive(&self.channel, &mut bytes, &mut sockets).unwrap() {
                Received::Empty => wait(&self.channel),
                Received::Closed => return None,
                Received::Message { length, .. } => {
                    let ToWorker::Connections(records) =
                        decode_to_worker(&bytes[..length]).unwrap()
                    else {
                        continue;
                    };
                    self.received.extend(records.iter().map(|it| it.id.0).zip(sockets));
                }
            }
        }
        self.received.pop_front()
    }

    fn acknowledge(&mut self) {
        self.scoreboard.increment(Counter::Completed);
    }

    fn refuse(&mut self, id: u64) {
        let mut buffer = [0; MAX_IDS];
        let refusal = encode_refuse(&mut buffer, [ConnectionId(id)].into_iter());
        send(&self.channel, refusal, &[]).unwrap();
        self.scoreboard.increment(Counter::Refused);
        self.scoreboard.increment(Counter::Completed);
    }
}

/// The front's port, as the worker asks for it.
pub(super) const PORT: u16 = 3000;

/// Bytes that are written at a time, and two more than are read.
const PIECE: usize = 7;

struct Node {
    channel: OwnedFd,
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    by_message: bool,
    /// The number of the message of the connection that came last, and how many have come.
    seq: u64,
    arrived: u64,
}

impl Node {
    /// In pieces, too.
    fn write(&self, line: &str) {
        for piece in format!("{line}\n").as_bytes().chunks(PIECE) {
            send(&self.channel, piece, &[]).unwrap();
        }
    }

    fn answer(&self, accepted: bool) {
        let seq = self.seq;
        match (self.by_message, accepted) {
            (true, true) => self.write(r#"{"cmd":"NODE_HANDLE_ACK"}"#),
            (true, false) => self.write(r#"{"cmd":"NODE_HANDLE_NACK"}"#),
            (false, _) => self.write(&format!(
                r#"{{"cmd":"NODE_CLUSTER","ack":{seq},"accepted":{accepted},"seq":9}}"#
            )),
        }
    }

    /// Reads a piece; false if there is none.
    fn read(&mut self) -> bool {
        let (mut piece, mut descriptors) = ([0; PIECE - 2], Vec::new());
        let received = receive(&self.channel, &mut piece, &mut descriptors).unwrap();
        self.descriptors.extend(descriptors);
        let Received::Message { length, .. } = received else { return false };
        self.bytes.extend(&piece[..length]);
        true
    }

    fn line(&mut self) -> Value {
        while !self.bytes.contains(&b'\n') {
            if !self.read() {
                wait(&self.channel);
            }
        }
        let end = self.bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let line: Vec<_> = self.bytes.drain(..=end).collect();
        serde_json::from_slice(&line).unwrap()
    }

    /// As [`Self::line`], and refuses connections to servers that it hasn't, as Node does.
    fn line_for_program(&mut self) -> Value {
        loop {
            let line = self.line();
            if line["msg"]["key"] != "ping" {
                return line;
            }
            drop(self.descriptors.pop_front().unwrap());
            let seq = &line["msg"]["seq"];
            self.write(r#"{"cmd":"NODE_HANDLE_ACK"}"#);
            self.write(&format!(
                r#"{{"cmd":"NODE_CLUSTER","ack":{seq},"accepted":false,"seq":9}}"#
            ));
        }
    }
}

impl Worker for Node {
    fn announce(&mut self) {
        self.write(r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#);
        if self.by_message {
            return self.write("\"ready\"");
        }
        let asked = format!(r#""port":{PORT},"addressType":4,"backlog":0,"seq":1"#);
        self.write(&format!(r#"{{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,{asked}}}"#));
        let reply = self.line_for_program();
        assert_eq!((&reply["ack"], &reply["sockname"]["port"]), (&1.into(), &PORT.into()));
        self.write(&format!(r#"{{"cmd":"NODE_CLUSTER","act":"listening","port":{PORT},"seq":2}}"#));
    }

    fn next(&mut self) -> Option<(u64, OwnedFd)> {
        let line = self.line_for_program();
        // It may begin to read the next line.
        self.read();
        if line == "shutdown" {
            return None;
        }
        if !self.by_message {
            self.write(r#"{"cmd":"NODE_HANDLE_ACK"}"#);
            self.seq = line["msg"]["seq"].as_u64().unwrap();
        }
        self.arrived += 1;
        Some((self.arrived, self.descriptors.pop_front().unwrap()))
    }

    fn acknowledge(&mut self) {
        self.answer(true);
    }

    fn refuse(&mut self, _: u64) {
        self.answer(false);
    }
}
