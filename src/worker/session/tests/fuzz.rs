//! Random conversations, valid and not, cut at random places: the library sees through a stream that
//! migrates again and again what it sees on a plain socket, and so does the client.
//!
//! A failure prints its seed; `scripts/prove-fuzz` runs it at length.

mod conversation;
mod servers;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::protocol::ids::Timestamp;
use crate::protocol::random::{self, Random};
use crate::worker::session::handle::Handle;
use crate::worker::session::image::{ConnectionState, SessionImage};
use crate::worker::session::parts::Detached;
use crate::worker::session::tests::migration::{fresh, resumed};

use conversation::{Conversation, shown};
use servers::{App, Plain};

/// No conversation takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// No answer takes nearly as long.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// What a library does with an invalid request may depend on how it was cut, and on what else was under way
/// at that moment: so often it is tried whether it does the same on a plain socket.
const RETRIES: usize = 30;

/// Everything that was seen of one conversation.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// By the library.
    events: Vec<String>,
    /// By the client.
    output: Vec<u8>,
}

#[test]
fn a_library_sees_what_it_would_see_on_a_plain_socket() {
    let (time, first) = (random::time(), random::seed());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (start, mut seed, mut moves) = (Instant::now(), first, 0);
    while start.elapsed() < time {
        moves += runtime.block_on(compare(seed));
        seed += 1;
    }
    let count = seed - first;
    println!("{count} conversations from seed {first} on, {moves} migrations in between");
    assert!(moves > count / 10, "hardly any has migrated: {moves} of {count}");
}

/// Returns how often it has migrated.
async fn compare(seed: u64) -> u64 {
    let conversation = Conversation::new(&mut Random::new(seed));
    let hint = || format!("STICKY_LB_FUZZ_SEED={seed}: {conversation:?}");
    let mut random = Random::new(!seed);
    let followed = timeout(PATIENCE, followed(&conversation, &mut random)).await;
    let (followed, moves) = followed.unwrap_or_else(|_| panic!("stuck, {}", hint()));
    let mut plain = on_plain_socket(&conversation, seed).await;
    for _ in 0..RETRIES {
        if plain == followed {
            return moves;
        }
        plain = on_plain_socket(&conversation.cut_again(&mut random), seed).await;
    }
    let (output, expected) = (shown(&followed.output), shown(&plain.output));
    assert_eq!(followed.events, plain.events, "{}", hint());
    panic!("{output}\nin place of\n{expected}\n{}", hint());
}

async fn on_plain_socket(conversation: &Conversation, seed: u64) -> Seen {
    let seen = timeout(PATIENCE, try_on_plain_socket(conversation)).await;
    let hint = || format!("STICKY_LB_FUZZ_SEED={seed}: {conversation:?}");
    seen.unwrap_or_else(|_| panic!("stuck on a plain socket, {}", hint()))
}

async fn try_on_plain_socket(conversation: &Conversation) -> Seen {
    let (client, server, copy) = pair().await;
    let ended = Arc::new(Notify::new());
    let app = App::new(conversation, None);
    app.serve(Plain::new(server, &ended));
    let talking = tokio::spawn(talk(client, conversation.clone()));
    ended.notified().await;
    let output = finish(copy, talking).await;
    Seen { events: app.events().await, output }
}

async fn followed(conversation: &Conversation, random: &mut Random) -> (Seen, u64) {
    let (client, server, copy) = pair().await;
    let talking = tokio::spawn(talk(client, conversation.clone()));
    let (mut stream, mut handle) = fresh(server);
    let mut app = App::new(conversation, Some(handle.clone()));
    let mut moves = 0;
    loop {
        app.serve(stream);
        let taken = tokio::select! {
            biased;
            taken = disturb(&handle, random) => taken,
            () = handle.ended() => break,
        };
        moves += 1;
        let socket = TcpStream::from_std(taken.stream.into_std().unwrap()).unwrap();
        (stream, handle) = resumed(socket, travelled(taken.connection));
        app = app.next(handle.clone());
    }
    // Rejected, it lingers.
    drop(handle.force_detach());
    let output = finish(copy, talking).await;
    (Seen { events: app.events().await, output }, moves)
}

/// As it arrives in another worker.
fn travelled(connection: ConnectionState) -> ConnectionState {
    let (state, left_at) = (Some(Vec::new()), Timestamp(1));
    let image = SessionImage { connection, state, left_at, protect: false }.encode();
    SessionImage::decode(&image).unwrap().connection
}

/// Asks it to stop again and again, until it has.
async fn disturb(handle: &Handle, random: &mut Random) -> Detached {
    loop {
        pause(random).await;
        handle.ask_to_stop();
        tokio::select! {
            biased;
            () = handle.drained() => {}
            () = pause(random) => {
                handle.go_on();
                continue;
            }
        }
        if random.one_in(4) {
            yield_now().await;
        }
        if !handle.hold() {
            handle.go_on();
            continue;
        }
        if random.one_in(4) {
            pause(random).await;
        }
        if random.one_in(3) {
            handle.release();
        } else if let Some(taken) = handle.detach() {
            return taken;
        }
        if random.one_in(2) {
            handle.go_on();
        }
    }
}

async fn pause(random: &mut Random) {
    if random.one_in(20) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..random.below(30) {
        yield_now().await;
    }
}

/// A client, a server, and a copy of the server's socket, so that its end resets nothing.
async fn pair() -> (TcpStream, TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let server = listener.accept().await.unwrap().0.into_std().unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let copy = server.try_clone().unwrap();
    (client, TcpStream::from_std(server).unwrap(), copy)
}

/// Sends all, ends, and reads to the end.
async fn talk(client: TcpStream, conversation: Conversation) -> Vec<u8> {
    let (mut reader, writer) = client.into_split();
    let mut output = Vec::new();
    let Conversation { head, rest, pace, .. } = conversation;
    let writer = send(writer, head, pace).await;
    if !rest.is_empty() {
        // Not every server takes what comes before its answer. But it may wait for more of a head that is
        // invalid.
        while !output.ends_with(b"\r\n\r\n") {
            match timeout(ANSWER_TIMEOUT, reader.read_u8()).await {
                Ok(Ok(byte)) => output.push(byte),
                Ok(Err(_)) | Err(_) => break,
            }
        }
    }
    let sending = tokio::spawn(async move {
        let mut writer = send(writer, rest, pace).await;
        let _ = writer.shutdown().await;
        writer
    });
    let _ = reader.read_to_end(&mut output).await;
    sending.abort();
    output
}

async fn send(mut writer: OwnedWriteHalf, pieces: Vec<Vec<u8>>, pace: u64) -> OwnedWriteHalf {
    for piece in pieces {
        // A server that has ended says so by its end.
        let _ = writer.write_all(&piece).await;
        for _ in 0..pace {
            yield_now().await;
        }
    }
    writer
}

/// The library has ended.
async fn finish(copy: std::net::TcpStream, talking: tokio::task::JoinHandle<Vec<u8>>) -> Vec<u8> {
    // Not the other direction: what comes then would reset it.
    let _ = copy.shutdown(std::net::Shutdown::Write);
    talking.await.unwrap()
}
