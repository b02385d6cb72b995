//! The followers of frames, with whatever a proptest thinks of.

use proptest::prelude::*;

use crate::worker::session::follow::frames::Frames;

/// First byte, masked, length.
fn header(first: u8, masked: bool, length: usize, widest: bool) -> Vec<u8> {
    let mut bytes = vec![first];
    let mask = if masked { 0x80 } else { 0 };
    match length {
        ..126 if !widest => bytes.push(mask | u8::try_from(length).unwrap()),
        ..65_536 if !widest => {
            bytes.push(mask | 126);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    if masked {
        bytes.extend([0xff, 0x88, 0, 1]);
    }
    bytes
}

#[derive(Clone, Debug)]
struct Message {
    fragments: Vec<usize>,
    /// Between them, and behind the last.
    pings: Vec<bool>,
    masked: bool,
    widest: bool,
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let length = prop_oneof![0usize..4, 120usize..130, 65_530usize..65_540];
    let fragments = proptest::collection::vec((length, any::<bool>()), 1..4);
    let message = (fragments, any::<bool>(), any::<bool>()).prop_map(|(pieces, masked, widest)| {
        let (fragments, pings) = pieces.into_iter().unzip();
        Message { fragments, pings, masked, widest }
    });
    proptest::collection::vec(message, 1..5)
}

/// The bytes, where frames end and where messages do.
fn write(messages: &[Message]) -> (Vec<u8>, Vec<usize>, Vec<usize>) {
    let (mut bytes, mut frames, mut ends) = (Vec::new(), vec![0], vec![0]);
    for Message { fragments, pings, masked, widest } in messages {
        for (index, (length, ping)) in fragments.iter().zip(pings).enumerate() {
            let last = index + 1 == fragments.len();
            let first = if index == 0 { 1 } else { 0 } | if last { 0x80 } else { 0 };
            bytes.extend(header(first, *masked, *length, *widest));
            bytes.extend(vec![0x88; *length]);
            frames.push(bytes.len());
            if last {
                ends.push(bytes.len());
            }
            if *ping {
                bytes.extend(header(0x89, *masked, 5, false));
                bytes.extend([0x88; 5]);
                frames.push(bytes.len());
                if last {
                    ends.push(bytes.len());
                }
            }
        }
    }
    (bytes, frames, ends)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn boundaries_are_where_they_are_however_the_bytes_are_cut(
        messages in messages(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..40),
    ) {
        let (bytes, frames, ends) = write(&messages);
        // Everywhere near an end, and anywhere.
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend(frames.iter().flat_map(|end| end.saturating_sub(2)..(end + 16).min(bytes.len())));
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let (mut followed, mut position) = (Frames::default(), 0);
        for cut in cuts {
            followed.follow(&bytes[position..cut]);
            position = cut;
            prop_assert_eq!(followed.between_frames(), frames.contains(&cut), "at {}", cut);
            prop_assert_eq!(followed.between_messages(), ends.contains(&cut), "at {}", cut);
            prop_assert_eq!(followed.certain() == 0, ends.contains(&cut), "at {}", cut);
        }
        prop_assert!(!followed.closing());
    }

    #[test]
    fn who_reads_what_is_certain_reads_to_the_end_of_a_message_and_no_further(
        messages in messages(), start in any::<proptest::sample::Index>(),
    ) {
        let (bytes, _, ends) = write(&messages);
        let mut position = start.index(bytes.len());
        let mut followed = Frames::default();
        followed.follow(&bytes[..position]);
        let end = *ends.iter().find(|end| **end >= position).unwrap();
        while followed.certain() > 0 {
            let next = position + usize::try_from(followed.certain()).unwrap();
            followed.follow(&bytes[position..next]);
            position = next;
        }
        prop_assert_eq!(position, end);
    }

    #[test]
    fn nothing_makes_it_panic(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..9)) {
        let mut followed = Frames::default();
        for piece in pieces {
            followed.follow(&piece);
            let _ = followed.certain();
        }
    }
}

#[test]
fn a_close_frame_is_seen_and_a_length_beyond_all_memory_is_followed() {
    let mut followed = Frames::default();
    followed.follow(&[0x88, 0x80, 1, 2]);
    assert!(!followed.closing() && !followed.between_frames());
    followed.follow(&[3, 4]);
    assert!(followed.closing() && followed.between_messages());
    followed.follow(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    assert_eq!(followed.certain(), u64::MAX - 1);
}
