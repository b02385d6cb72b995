//! A primary's message, one datagram: descriptors to store, and lines for the service manager.
//! Lines of assignments, as of `sd_notify`. Pure.
//!
//! `FDPOLL` is ignored: a descriptor is stored until it is removed, even if its other side is closed.

/// A datagram, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// What to do with the descriptor store.
    pub(super) order: Order<'a>,
    /// The primary accepts connections.
    pub(super) ready: bool,
    /// The primary stops.
    pub(super) stopping: bool,
    /// The lines for the service manager; may be empty.
    pub(super) relayed: Vec<u8>,
}

/// An order to the descriptor store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order<'a> {
    /// None.
    #[default]
    Nothing,
    /// To store all descriptors of the message by this name.
    Store(&'a str),
    /// To remove the descriptors of that name.
    Remove(&'a str),
}

/// Bytes of the longest name, as in systemd.
const MAX_NAME: usize = 255;

/// Takes a datagram apart. The service manager supervises the process `own`, whichever the primary names.
pub(super) fn parse(bytes: &[u8], own: u32) -> Message<'_> {
    let mut message = Message::default();
    let (mut store, mut remove, mut name) = (false, false, None);
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let at = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
        let (variable, value) = (&line[..at], line.get(at + 1..).unwrap_or_default());
        match variable {
            b"FDSTORE" => store = value == b"1",
            b"FDSTOREREMOVE" => remove = value == b"1",
            b"FDNAME" => name = std::str::from_utf8(value).ok().filter(|name| is_name(name)),
            // The descriptor of a barrier is closed when all messages before it are handled: now.
            b"FDPOLL" | b"BARRIER" | b"MAINPIDFDID" => {}
            b"MAINPID" => push_line(&mut message.relayed, format!("MAINPID={own}").as_bytes()),
            _ => {
                message.ready |= line == b"READY=1";
                message.stopping |= line == b"STOPPING=1";
                push_line(&mut message.relayed, line);
            }
        }
    }
    message.order = match name {
        Some(name) if remove => Order::Remove(name),
        Some(name) if store => Order::Store(name),
        _ => Order::Nothing,
    };
    message
}

fn push_line(lines: &mut Vec<u8>, line: &[u8]) {
    lines.extend_from_slice(line);
    lines.push(b'\n');
}

/// Names travel separated by colons.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b':';
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_told_from_lines_for_the_manager() {
        let long = "x".repeat(256);
        let too_long = format!("FDSTORE=1\nFDNAME={long}");
        for (text, order, relayed) in [
            ("FDSTORE=1\nFDNAME=kept-a\nFDPOLL=0\n", Order::Store("kept-a"), ""),
            ("FDNAME=a b.c\nFDSTORE=1", Order::Store("a b.c"), ""),
            ("FDSTOREREMOVE=1\nFDNAME=kept-a\n", Order::Remove("kept-a"), ""),
            // As in systemd: removing goes before.
            ("FDSTOREREMOVE=1\nFDSTORE=1\nFDNAME=a\n", Order::Remove("a"), ""),
            ("BARRIER=1", Order::Nothing, ""),
            ("FDSTORE=1\n", Order::Nothing, ""),
            ("FDSTORE=0\nFDNAME=a\n", Order::Nothing, ""),
            ("FDSTORE=1\nFDNAME=a:b\n", Order::Nothing, ""),
            ("FDSTORE=1\nFDNAME=\n", Order::Nothing, ""),
            ("FDSTORE=1\nFDNAME=ä\n", Order::Nothing, ""),
            (&too_long, Order::Nothing, ""),
            ("READY=1\nMAINPID=7\n", Order::Nothing, "READY=1\nMAINPID=42\n"),
            ("MAINPID\n", Order::Nothing, "MAINPID=42\n"),
            ("MAINPIDFDID=9\nSTATUS=a=b", Order::Nothing, "STATUS=a=b\n"),
            ("READY=1\nFDSTORE=1\nFDNAME=a", Order::Store("a"), "READY=1\n"),
            ("nonsense", Order::Nothing, "nonsense\n"),
            ("\n\n=\n", Order::Nothing, "=\n"),
            ("", Order::Nothing, ""),
        ] {
            let ready = relayed.starts_with("READY=1");
            let expected = Message { order, ready, stopping: false, relayed: relayed.into() };
            assert_eq!(parse(text.as_bytes(), 42), expected, "{text:?}");
        }
        let strange = parse(b"FDSTORE=1\nFDNAME=\xff\nX=\xfe", 42);
        assert_eq!((strange.order, &strange.relayed[..]), (Order::Nothing, &b"X=\xfe\n"[..]));
    }

    #[test]
    fn the_stop_is_noted_and_relayed() {
        let message = parse(b"STOPPING=1\nSTATUS=bye\n", 42);
        assert!(message.stopping);
        assert_eq!(message.relayed, b"STOPPING=1\nSTATUS=bye\n");
        assert!(!parse(b"STOPPING=0\nSTATUS=STOPPING=1\n", 42).stopping);
    }
}
