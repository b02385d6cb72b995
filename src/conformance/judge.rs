//! The judgments of the checks: observations in, verdict out.
//!
//! Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustix::process::Signal;

use crate::conformance::check::{Stop, Verdict, fail};
use crate::conformance::client::End;
use crate::conformance::service::Service;
use crate::supervisor::process::Exit;

/// Connections of which each is to be acknowledged once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// All of them.
    pub sent: usize,
    /// Those that are not acknowledged.
    pub missing: usize,
    /// Of these, those that are refused.
    pub refused: usize,
}

/// The clients of a worker that is out of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// All of them.
    pub clients: usize,
    /// Those that it has acknowledged and not served.
    pub lost: usize,
    /// Those that it has refused.
    pub refused: usize,
    /// Those that it had neither acknowledged nor refused while it was out of descriptors.
    pub waiting: usize,
    /// Of these, those that it has received, and hasn't acknowledged with descriptors, either.
    pub stuck: usize,
    /// Whether it serves the next client, with descriptors.
    pub recovers: bool,
}

/// The end of a worker that was ordered to drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How, if it has ended.
    pub exit: Option<Exit>,
    /// The same with its reason.
    pub description: String,
    /// The signal that its primary sends at last, if it does.
    pub signal: Option<Signal>,
    /// The time since the order, in milliseconds.
    pub millis: u128,
}

/// Each is acknowledged, and a second acknowledgement would have ended the channel.
///
/// # Errors
///
/// If some are not acknowledged.
pub fn counted(Counted { sent, missing, refused }: Counted) -> Verdict {
    match (missing, refused) {
        (0, _) => Ok(format!("{sent} of {sent}, once each")),
        (missing, 0) => fail(format!("{missing} of {sent} are never acknowledged")),
        (_, refused) => fail(format!("{refused} of {sent} are refused")),
    }
}

/// A client without a descriptor in the worker is another worker's: it must not be acknowledged here.
///
/// # Errors
///
/// If a client is lost, or the worker doesn't recover.
pub fn crowd(crowd: Crowd) -> Verdict {
    let Crowd { clients, lost, refused, waiting, stuck, recovers } = crowd;
    if lost > 0 {
        return fail(format!("{lost} of {clients} are acknowledged and not served"));
    }
    if stuck > 0 {
        return fail(format!(
            "{stuck} of {clients} are neither acknowledged nor refused, with descriptors again, too"
        ));
    }
    if !recovers {
        return fail("serves no client any more after it was out of descriptors");
    }
    let taken = clients.saturating_sub(refused + waiting);
    Ok(format!("of {clients}, {taken} taken, {refused} refused, {waiting} left; serves again"))
}

/// The same for a worker that accepts its clients itself: those that it has no descriptor for wait in the queue, or are
/// closed.
///
/// # Errors
///
/// If a client gets nothing for ever, or the worker doesn't recover.
pub fn crowd_at_socket(crowd: Crowd) -> Verdict {
    let Crowd { clients, refused, waiting, stuck, recovers, .. } = crowd;
    if stuck > 0 {
        return fail(format!("{stuck} of {clients} get no answer, with descriptors again, too"));
    }
    if !recovers {
        return fail("serves no client any more after it was out of descriptors");
    }
    Ok(format!("of {clients}, {refused} closed, {waiting} waited; serves again"))
}

/// The answer has the address of the client, where it has one.
///
/// # Errors
///
/// If it has another one, by a name that is one of a client's address; or if it has none.
pub fn client_address(received: &[u8], client: Ipv4Addr) -> Verdict {
    /// So many characters before an address have its name.
    const NAME: usize = 24;
    let text = String::from_utf8_lossy(received).to_lowercase();
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':');
    let mut others = Vec::new();
    let mut start = 0;
    while let Some(begin) = text[start..].find(is_part).map(|at| start + at) {
        let end = text[begin..].find(|c| !is_part(c)).map_or(text.len(), |at| begin + at);
        if let Some(address) = address_in(&text[begin..end]) {
            if address.to_canonical() == client {
                return Ok(format!("its answer has the client's address, {client}"));
            }
            let before = text[..begin].char_indices().rev().nth(NAME - 1);
            let name = &text[before.map_or(0, |(at, _)| at)..begin];
            others.extend(names_client(name).then_some(address));
        }
        start = end;
    }
    match others.first() {
        Some(other) => fail(format!("says {other} where its client is {client}")),
        None => Err(Stop::NotApplicable("its answer to GET / has no client's address".to_owned())),
    }
}

/// An address, with or without a port, and with or without the end of its name and a colon before it.
fn address_in(word: &str) -> Option<IpAddr> {
    let parse =
        |word: &str| word.parse().ok().or_else(|| word.parse().ok().map(|it: SocketAddr| it.ip()));
    let word = word.trim_end_matches(['.', ':']);
    let rests = word.match_indices(':').filter_map(|(at, _)| word.get(at + 1..));
    parse(word).or_else(|| rests.into_iter().find_map(parse))
}

/// Whether it is usual before the address of a client.
fn names_client(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_alphanumeric());
    words.any(|word| {
        word == "ip" || ["remote", "client", "peer", "addr"].iter().any(|it| word.contains(it))
    })
}

/// One process accepts clients: so many do, of those that have the socket.
///
/// # Errors
///
/// If several do, or none does while it is alone.
pub fn acceptors(accepting: &[i32], holding: usize) -> Verdict {
    match accepting {
        [_] => Ok(format!("1 of {holding} processes that have the socket accepts")),
        [] => {
            Err(Stop::NotApplicable("no process accepts while the others are stopped".to_owned()))
        }
        several => fail(format!("{} processes accept: {several:?}", several.len())),
    }
}

/// The socket as the worker has left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// It listens.
    pub listens: bool,
    /// It is non-blocking.
    pub is_nonblocking: bool,
    /// It has `TCP_NODELAY`.
    pub is_nodelay: bool,
}

/// The socket listens when its worker has ended. Its options may be others: the primary sets them before each start.
///
/// # Errors
///
/// If it doesn't.
pub fn left_socket(left: Left) -> Verdict {
    if !left.listens {
        return fail("its listening socket is shut down when it has ended");
    }
    let mut seen = "its socket listens".to_owned();
    let changes = [
        (left.is_nonblocking, "it is blocking now"),
        (left.is_nodelay, "TCP_NODELAY is off now, which delays answers"),
    ];
    for (_, change) in changes.iter().filter(|(is_kept, _)| !is_kept) {
        seen = format!("{seen}; {change}");
    }
    Ok(seen)
}

/// A client sees the end of its connection, which the worker begins or answers.
///
/// # Errors
///
/// If it sees none, or a reset.
pub fn closed(end: Option<End>, by_itself: bool) -> Verdict {
    match end {
        Some(End::Closed) if by_itself => Ok("the client sees the end".to_owned()),
        Some(End::Closed) => Ok("the client sees the end, after its own".to_owned()),
        Some(End::Reset) => fail("the client sees a reset instead of an end"),
        None => fail("the client never sees the end, though it has sent its own"),
    }
}

/// A worker ends with exit code 0; one that gets no order may leave its end to the signal.
///
/// # Errors
///
/// If it hasn't ended, or otherwise.
pub fn ended(ended: &Ended) -> Verdict {
    match ended.exit {
        Some(Exit::Status(0)) => Ok(format!("exit code 0 after {} ms", ended.millis)),
        Some(Exit::Signal(signal)) if ended.signal.map(Signal::as_raw) == Some(signal) => {
            Ok("ended by the signal that a primary sends".to_owned())
        }
        Some(_) => fail(format!("the worker {}", ended.description)),
        None => fail(format!("has not ended {} ms after the order, without clients", ended.millis)),
    }
}

/// A client in the middle of something is finished.
///
/// # Errors
///
/// If it is cut off.
pub fn finished(service: Service, is_finished: bool, has_close_frame: bool) -> Verdict {
    match (service, is_finished) {
        (Service::WebSocket, false) => fail("an open WebSocket is reset"),
        (Service::WebSocket, _) if has_close_frame => {
            Ok("a WebSocket gets a close frame".to_owned())
        }
        (Service::WebSocket, _) => Ok("a WebSocket is not reset".to_owned()),
        (_, false) => fail("a request that had begun is cut off"),
        _ => Ok("a request that had begun is answered".to_owned()),
    }
}

/// No process is left.
///
/// # Errors
///
/// If one is.
pub fn left(processes: &[(i32, String)]) -> Verdict {
    let names: Vec<_> = processes.iter().map(|(pid, name)| format!("{name} ({pid})")).collect();
    match names.is_empty() {
        true => Ok("no process is left".to_owned()),
        false => fail(format!("left running: {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The failure, if it is one.
    fn failure(verdict: Verdict) -> Option<String> {
        match verdict {
            Err(Stop::Fail(seen, _)) => Some(seen),
            _ => None,
        }
    }

    #[test]
    fn all_are_acknowledged_or_it_is_said_how_many_are_not() {
        let judge = |missing, refused| failure(counted(Counted { sent: 200, missing, refused }));
        assert_eq!(judge(0, 0), None);
        assert_eq!(judge(4, 0).unwrap(), "4 of 200 are never acknowledged");
        assert_eq!(judge(4, 4).unwrap(), "4 of 200 are refused");
    }

    #[test]
    fn a_worker_out_of_descriptors_may_refuse_and_wait_but_not_lose() {
        let good =
            Crowd { clients: 24, lost: 0, refused: 10, waiting: 3, stuck: 0, recovers: true };
        assert_eq!(crowd(good).unwrap(), "of 24, 11 taken, 10 refused, 3 left; serves again");
        for bad in [
            Crowd { lost: 1, ..good },
            Crowd { stuck: 1, ..good },
            Crowd { recovers: false, ..good },
        ] {
            assert!(failure(crowd(bad)).is_some(), "{bad:?}");
        }
        // One before them was refused, too.
        assert!(crowd(Crowd { refused: 25, ..good }).is_ok());
    }

    #[test]
    fn clients_of_a_worker_that_accepts_may_wait_and_be_closed_but_not_hang() {
        let good = Crowd { clients: 24, lost: 0, refused: 2, waiting: 9, stuck: 0, recovers: true };
        assert_eq!(crowd_at_socket(good).unwrap(), "of 24, 2 closed, 9 waited; serves again");
        for bad in [Crowd { stuck: 1, ..good }, Crowd { recovers: false, ..good }] {
            assert!(failure(crowd_at_socket(bad)).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_in_an_answer_is_the_clients_or_by_its_name_a_wrong_one() {
        let client = Ipv4Addr::new(127, 83, 0, 7);
        let judge = |text: &str| client_address(text.as_bytes(), client);
        for good in [
            "{\"remote\": \"127.83.0.7\"}",
            "you are 127.83.0.7:4711.",
            "remote:127.83.0.7",
            "127.83.0.7",
            "<b>::ffff:127.83.0.7</b>",
            "remote 127.0.0.1, x-forwarded-for 127.83.0.7",
        ] {
            assert!(judge(good).is_ok(), "{good}");
        }
        for bad in ["{\"remote\": \"0.0.0.0\"}", "client: 2.0.197.4:80", "IP=::1"] {
            assert!(failure(judge(bad)).is_some(), "{bad}");
        }
        for none in [
            "",
            "hello",
            "version 1.2.3.4",
            "description 1.2.3.4",
            "\u{130} abc:def ff",
            "ip: none",
        ] {
            assert!(matches!(judge(none), Err(Stop::NotApplicable(_))), "{none}");
        }
    }

    #[test]
    fn one_process_accepts() {
        assert!(acceptors(&[7], 2).is_ok() && acceptors(&[7, 8], 3).is_err());
        assert!(matches!(acceptors(&[], 2), Err(Stop::NotApplicable(_))));
    }

    #[test]
    fn a_socket_may_be_changed_but_not_shut_down() {
        let good = Left { listens: true, is_nonblocking: true, is_nodelay: true };
        assert_eq!(left_socket(good).unwrap(), "its socket listens");
        let changed = Left { is_nonblocking: false, is_nodelay: false, ..good };
        assert!(left_socket(changed).unwrap().ends_with("answers"));
        assert!(left_socket(Left { listens: false, ..good }).is_err());
    }

    #[test]
    fn an_end_is_no_reset_and_not_nothing() {
        for (end, is_good) in [(Some(End::Closed), true), (Some(End::Reset), false), (None, false)]
        {
            assert_eq!(closed(end, false).is_ok(), is_good, "{end:?}");
        }
    }

    #[test]
    fn a_signal_is_an_end_where_it_is_the_primarys() {
        let judge = |exit, is_signalled: bool| {
            let (description, signal) = ("x".to_owned(), is_signalled.then_some(Signal::INT));
            ended(&Ended { exit, description, signal, millis: 1 }).is_ok()
        };
        let interrupted = Some(Exit::Signal(Signal::INT.as_raw()));
        for (exit, native, node) in [
            (Some(Exit::Status(0)), true, true),
            (Some(Exit::Status(1)), false, false),
            (interrupted, false, true),
            (Some(Exit::Signal(Signal::SEGV.as_raw())), false, false),
            (None, false, false),
        ] {
            assert_eq!((judge(exit, false), judge(exit, true)), (native, node), "{exit:?}");
        }
    }

    #[test]
    fn clients_are_finished_and_processes_ended() {
        assert!(finished(Service::Http, true, false).is_ok());
        assert!(finished(Service::Echo, false, false).is_err());
        assert!(finished(Service::WebSocket, true, true).unwrap().contains("close frame"));
        assert!(finished(Service::WebSocket, false, true).is_err());
        assert!(left(&[]).is_ok());
        let seen = failure(left(&[(7, "sleep".to_owned())])).unwrap();
        assert_eq!(seen, "left running: sleep (7)");
    }
}
