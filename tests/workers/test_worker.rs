//! Workers for tests: each role breaks, or stretches, one rule.
//!
//! Speaks the protocol by hand, from its documentation, where the library would not let it.

use std::error::Error;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Once;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_socket_send_buffer_size};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags,
    SocketType, sendmsg, shutdown, socketpair,
};
use sticky_lb::protocol::checkpoint;
use sticky_lb::protocol::ids::ConnectionId;
use sticky_lb::protocol::message::{
    BATCH, CHECKPOINT, ConnectionRecord, HELLO, MAX_IDS, MAX_TO_PRIMARY, MAX_TO_WORKER, PONG,
    READY, REPLACE_ME, SESSIONS, ToWorker, decode_to_worker, encode_close_request, encode_offer,
    encode_protect, encode_refuse, encode_session_list,
};
use sticky_lb::protocol::scm_rights::{Received, Sent, receive, send};
use sticky_lb::protocol::scoreboard::{Counter, Scoreboard};
use sticky_lb::worker::Inheritance;

/// Messages of a flood.
const FLOOD: usize = 20_000;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next().unwrap_or_default();
    if role == "exits" {
        return Ok(ExitCode::from(3));
    }
    if role == "never-attaches" {
        return wait_for_the_end();
    }
    let channel = Channel::attach()?;
    match role.as_str() {
        "hello-only" => channel.say(&HELLO)?,
        "garbage" => channel.say(b"this is not a message of the protocol")?,
        "truncated" => channel.say(&HELLO[..5])?,
        "too-long" => channel.say(&[HELLO.to_vec(), vec![0; MAX_TO_PRIMARY]].concat())?,
        "other-version" => channel.say(b"SL\x63\x81\0\0\0\0")?,
        "no-hello" => channel.say(&READY)?,
        "hello-twice" => {
            channel.say(&HELLO)?;
            channel.say(&HELLO)?;
        }
        "pongs" => {
            channel.say(&HELLO)?;
            channel.say(&PONG)?;
        }
        "surplus-descriptors" => {
            let gift = channel.socket.as_fd();
            send(&channel.socket, &HELLO, &[gift, gift])?;
        }
        "acknowledges-nobody" => {
            channel.get_ready()?;
            channel.acknowledge();
        }
        "refuses-nobody" => {
            channel.get_ready()?;
            channel.scoreboard.increment(Counter::Refused);
            channel.scoreboard.increment(Counter::Completed);
        }
        "refuses-somebody-else" => {
            channel.get_ready()?;
            channel.say(b"SL\x01\x83\x01\0\0\0\xff\xff\xff\xff\0\0\0\0")?;
        }
        "shuts-channel" => {
            channel.get_ready()?;
            shutdown(&channel.socket, Shutdown::Both)?;
        }
        "acknowledges-twice" => {
            return channel.serve(|channel, _, socket| {
                channel.acknowledge();
                channel.acknowledge();
                answer(socket, "mine")
            });
        }
        "lingers" => {
            return channel.serve(|channel, _, socket| {
                fill_and_linger(&socket)?;
                drop(socket);
                channel.acknowledge();
                Ok(())
            });
        }
        "counts-too-many" => {
            return channel.serve(|channel, _, socket| {
                channel.scoreboard.add(Counter::Connections, 100);
                channel.acknowledge();
                answer(socket, "counted")
            });
        }
        "answers-or-lingers" => return channel.answer_or_linger(),
        "sends-lingering" => return channel.serve(send_lingering),
        "offers-anothers-session" => {
            return channel.serve_with(
                |channel, record, socket| {
                    channel.acknowledge();
                    channel.offer(&ConnectionRecord { id: ConnectionId(1), ..*record }, &socket)
                },
                true,
            );
        }
        "offers-another-address" => {
            return channel.serve_with(
                |channel, record, socket| {
                    channel.acknowledge();
                    channel.offer(&ConnectionRecord { local: record.client, ..*record }, &socket)
                },
                true,
            );
        }
        "offers-another-socket" => {
            return channel.serve_with(
                |channel, record, _| {
                    channel.acknowledge();
                    let listener = TcpListener::bind("127.0.0.1:0")?;
                    let own = TcpStream::connect(listener.local_addr()?)?;
                    let (_open, _) = listener.accept()?;
                    channel.wait_for_drain()?;
                    channel.offer(record, &own.into())?;
                    // Until it is killed.
                    std::thread::park();
                    Ok(())
                },
                true,
            );
        }
        "protects-anothers-session" => {
            return channel.serve_with(
                |channel, record, socket| {
                    channel.acknowledge();
                    let checkpoint = checkpoint::create()?;
                    send(&channel.socket, &CHECKPOINT, &[checkpoint.as_fd()])?;
                    let another = ConnectionRecord { id: ConnectionId(1), ..*record };
                    let message = encode_protect(&another, 1);
                    send(&channel.socket, &message, &[socket.as_fd()])?;
                    Ok(())
                },
                true,
            );
        }
        "refuses-odd-slots" => return channel.serve(refuse_in_odd_slots),
        "dies-before-acknowledging" => {
            return channel.serve(|channel, _, socket| {
                // Slot 0 dies each time it is given something; the others serve.
                if slot() == 0 {
                    std::process::abort()
                }
                channel.acknowledge();
                answer(socket, "recovered")
            });
        }
        "never-acknowledges" => {
            return channel.serve(|_, _, socket| {
                std::mem::forget(socket);
                Ok(())
            });
        }
        "asks-for-closes" => {
            return channel.serve_with(
                |channel, _, socket| {
                    channel.acknowledge();
                    answer(socket, "flood")?;
                    for _ in 0..300 {
                        channel.say(&encode_close_request(1_000, Duration::ZERO))?;
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    Ok(())
                },
                true,
            );
        }
        "floods-requests" => return channel.flood_when_asked(&REPLACE_ME),
        "floods-ready" => return channel.flood_when_asked(&READY),
        "lies-about-sessions" => return channel.serve_with(lie_and_die, true),
        "dies-with-sessions" => return channel.serve_sessions(|_, _| std::process::abort()),
        "refuses-sessions" => return channel.serve_sessions(Channel::refuse),
        "refuses-sessions-late" => {
            return channel.serve_sessions(|channel, record| {
                LATE.call_once(|| std::thread::sleep(Duration::from_secs(1)));
                channel.refuse(record)
            });
        }
        "lets-sessions-wait" => return channel.serve_sessions(|_, _| Ok(())),
        "reads-and-dies" => {
            return channel.serve(|channel, _, socket| {
                if slot() == 0 {
                    rustix::io::read(&socket, &mut [0; 1])?;
                    std::process::abort()
                }
                channel.acknowledge();
                answer(socket, "not read by anybody else")
            });
        }
        other => return Err(format!("no such role: {other}").into()),
    }
    wait_for_the_end()
}

/// Done when it has been late once.
static LATE: Once = Once::new();

/// The worker's end of the channel.
struct Channel {
    socket: OwnedFd,
    scoreboard: Scoreboard,
}

impl Channel {
    fn attach() -> Result<Self, Box<dyn Error>> {
        let Inheritance { channel, scoreboard, .. } = Inheritance::take()?;
        Ok(Self { socket: channel, scoreboard })
    }

    fn get_ready(&self) -> Result<(), Box<dyn Error>> {
        self.say(&HELLO)?;
        self.say(&READY)
    }

    fn say(&self, message: &[u8]) -> Result<(), Box<dyn Error>> {
        send(&self.socket, message, &[])?;
        Ok(())
    }

    /// Serves, and with its first client begins to send this as fast as it goes.
    fn flood_when_asked(self, message: &[u8]) -> Result<ExitCode, Box<dyn Error>> {
        self.serve_with(
            |channel, _, socket| {
                channel.acknowledge();
                answer(socket, "flood")?;
                for _ in 0..FLOOD {
                    while send(&channel.socket, message, &[])? == Sent::Full {
                        wait_for_room(&channel.socket)?;
                    }
                }
                Ok(())
            },
            true,
        )
    }

    fn acknowledge(&self) {
        self.scoreboard.increment(Counter::Completed);
    }

    fn refuse(&self, record: &ConnectionRecord) -> Result<(), Box<dyn Error>> {
        let mut buffer = [0; MAX_IDS];
        self.say(encode_refuse(&mut buffer, [record.id].into_iter()))?;
        self.scoreboard.increment(Counter::Refused);
        self.scoreboard.increment(Counter::Completed);
        Ok(())
    }

    /// Nothing else may come before.
    fn wait_for_drain(&self) -> Result<(), Box<dyn Error>> {
        let (mut bytes, mut descriptors) = ([0; MAX_TO_WORKER], Vec::new());
        loop {
            wait_for(&self.socket)?;
            let Received::Message { length, .. } =
                receive(&self.socket, &mut bytes, &mut descriptors)?
            else {
                return Err("closed before an order to drain".into());
            };
            match decode_to_worker(&bytes[..length])? {
                ToWorker::Drain(_) => return Ok(()),
                ToWorker::Ping => self.say(&PONG)?,
                other => return Err(format!("unexpected: {other:?}").into()),
            }
        }
    }

    fn offer(&self, record: &ConnectionRecord, socket: &OwnedFd) -> Result<(), Box<dyn Error>> {
        let mut buffer = [0; MAX_TO_PRIMARY];
        let message = encode_offer(&mut buffer, record, b"image");
        send(&self.socket, message, &[socket.as_fd()])?;
        Ok(())
    }

    /// Takes part in the moving of sessions, in its way.
    fn serve_sessions(
        self,
        handle: impl Fn(&Self, &ConnectionRecord) -> Result<(), Box<dyn Error>>,
    ) -> Result<ExitCode, Box<dyn Error>> {
        self.say(&HELLO)?;
        self.say(&SESSIONS)?;
        self.say(&READY)?;
        let (mut bytes, mut descriptors) = ([0; MAX_TO_WORKER], Vec::with_capacity(BATCH));
        loop {
            wait_for(&self.socket)?;
            if let Received::Message { length, .. } =
                receive(&self.socket, &mut bytes, &mut descriptors)?
            {
                match decode_to_worker(&bytes[..length])? {
                    ToWorker::Session(record, _) => handle(&self, &record)?,
                    ToWorker::Drain(_) => return Ok(ExitCode::SUCCESS),
                    ToWorker::ListSessions => self.say(&encode_session_list(&[]))?,
                    ToWorker::Ping => self.say(&PONG)?,
                    other => return Err(format!("unexpected: {other:?}").into()),
                }
            } else {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    /// Answers its clients, but for those from 127.9.0.0/16, which don't read: the primary closes the last
    /// copy of their sockets, which linger.
    fn answer_or_linger(self) -> Result<ExitCode, Box<dyn Error>> {
        self.get_ready()?;
        let (mut bytes, mut descriptors) = ([0; MAX_TO_WORKER], Vec::with_capacity(BATCH));
        loop {
            wait_for(&self.socket)?;
            let Received::Message { length, .. } =
                receive(&self.socket, &mut bytes, &mut descriptors)?
            else {
                return Ok(ExitCode::SUCCESS);
            };
            match decode_to_worker(&bytes[..length])? {
                ToWorker::Connections(records) => {
                    for (record, socket) in records.iter().zip(descriptors.drain(..)) {
                        if matches!(record.client.ip(), IpAddr::V4(it) if it.octets()[1] == 9) {
                            fill_and_linger(&socket)?;
                            drop(socket);
                            self.acknowledge();
                        } else {
                            self.acknowledge();
                            // A client that goes is no concern of the others.
                            let _ = answer(socket, "answered");
                        }
                    }
                }
                ToWorker::Drain(_) => return Ok(ExitCode::SUCCESS),
                ToWorker::Ping => self.say(&PONG)?,
                other => return Err(format!("unexpected: {other:?}").into()),
            }
        }
    }

    fn serve(
        self,
        handle: impl Fn(&Self, &ConnectionRecord, OwnedFd) -> Result<(), Box<dyn Error>>,
    ) -> Result<ExitCode, Box<dyn Error>> {
        self.serve_with(handle, false)
    }

    fn serve_with(
        self,
        handle: impl Fn(&Self, &ConnectionRecord, OwnedFd) -> Result<(), Box<dyn Error>>,
        moves_sessions: bool,
    ) -> Result<ExitCode, Box<dyn Error>> {
        self.say(&HELLO)?;
        if moves_sessions {
            self.say(&SESSIONS)?;
        }
        self.say(&READY)?;
        let mut bytes = [0; MAX_TO_WORKER];
        let mut descriptors = Vec::with_capacity(BATCH);
        loop {
            wait_for(&self.socket)?;
            match receive(&self.socket, &mut bytes, &mut descriptors)? {
                Received::Closed => return Ok(ExitCode::SUCCESS),
                Received::Message { length, .. } => match decode_to_worker(&bytes[..length])? {
                    ToWorker::Connections(records) => {
                        for (record, socket) in records.iter().zip(descriptors.drain(..)) {
                            handle(&self, &record, socket)?;
                        }
                    }
                    ToWorker::CloseGrant(_) => {}
                    _ => self.say(&PONG)?,
                },
                Received::Empty => {}
            }
        }
    }
}

/// Has sockets of its own kept, as its client's session and as those of others, with a checkpoint in which
/// there is everything but what should be; and dies.
fn lie_and_die(
    channel: &Channel,
    record: &ConnectionRecord,
    socket: OwnedFd,
) -> Result<(), Box<dyn Error>> {
    channel.acknowledge();
    let (listener, file) = (TcpListener::bind("127.0.0.1:0")?, checkpoint::create()?);
    let foreign = TcpStream::connect(listener.local_addr()?)?;
    std::fs::File::from(file.try_clone()?).write_all(&[0xff; 20_000])?;
    let tell = |message: &[u8], descriptor: &dyn AsFd| {
        while send(&channel.socket, message, &[descriptor.as_fd()])? == Sent::Full {
            std::thread::yield_now();
        }
        Ok::<_, Box<dyn Error>>(())
    };
    tell(&CHECKPOINT, &file)?;
    for number in 0..2_000_u64 {
        // Of those that there were, over and over.
        let id = ConnectionId(1 + number % record.id.0);
        tell(&encode_protect(&ConnectionRecord { id, ..*record }, number % 7), &foreign)?;
    }
    tell(&encode_protect(record, u64::MAX / 4096), &socket)?;
    std::process::abort()
}

/// Whoever closes the last copy waits for the client, which doesn't read.
fn fill_and_linger(socket: &OwnedFd) -> Result<(), Box<dyn Error>> {
    set_socket_send_buffer_size(socket, 8_192)?;
    while rustix::io::write(socket, &[0; 8_192]).is_ok() {}
    set_socket_linger(socket, Some(Duration::from_secs(LINGER)))?;
    Ok(())
}

/// Seconds.
const LINGER: u64 = 60;

/// Leaves the last copy of a lingering socket to the primary, in the queue of another socket, behind as
/// many descriptors as it can.
fn send_lingering(
    channel: &Channel,
    _: &ConnectionRecord,
    socket: OwnedFd,
) -> Result<(), Box<dyn Error>> {
    channel.acknowledge();
    fill_and_linger(&socket)?;
    let kind = SocketType::SEQPACKET;
    let (near, far) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    send(&near, b"x", &[socket.as_fd()])?;
    let null = std::fs::File::open("/dev/null")?;
    let mut gifts = [null.as_fd(); 100];
    gifts[99] = far.as_fd();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&gifts));
    sendmsg(&channel.socket, &[IoSlice::new(&PONG)], &mut control, SendFlags::empty())?;
    Ok(())
}

fn refuse_in_odd_slots(
    channel: &Channel,
    record: &ConnectionRecord,
    socket: OwnedFd,
) -> Result<(), Box<dyn Error>> {
    if slot() % 2 == 1 {
        return channel.refuse(record);
    }
    channel.acknowledge();
    answer(socket, "taken")
}

fn answer(socket: OwnedFd, text: &str) -> Result<(), Box<dyn Error>> {
    let mut stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    let (pid, slot) = (std::process::id(), slot());
    let head = "HTTP/1.1 200 OK\r\nConnection: close";
    write!(stream, "{head}\r\nX-Worker-ID: {pid}\r\nX-Worker-Slot: {slot}\r\n\r\n{text}")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // Unread bytes would turn the end into a reset.
    std::io::copy(&mut stream, &mut std::io::sink())?;
    Ok(())
}

fn slot() -> u16 {
    std::env::var("STICKY_LB_SLOT").ok().and_then(|slot| slot.parse().ok()).unwrap_or(0)
}

fn wait_for(socket: &OwnedFd) -> Result<(), Box<dyn Error>> {
    let mut polled = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut polled, None)?;
    Ok(())
}

fn wait_for_room(socket: &OwnedFd) -> Result<(), Box<dyn Error>> {
    let mut polled = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::OUT)];
    rustix::event::poll(&mut polled, None)?;
    Ok(())
}

fn wait_for_the_end() -> Result<ExitCode, Box<dyn Error>> {
    loop {
        std::thread::park();
    }
}
