use std::thread;

use super::*;
use crate::protocol::ids::Generation;
use crate::supervisor::output::lines::{LONGEST, Text};

fn chunk(slot: u16, stream: Stream, bytes: &[u8]) -> Arc<Chunk> {
    let worker = WorkerId { slot: SlotId(slot), generation: Generation(2) };
    let origin = Origin { worker, pid: 4711, stream };
    let text = Text { bytes: bytes.to_vec(), partial: bytes.len() > LONGEST };
    Arc::new(Chunk { origin, time: jiff::Timestamp::UNIX_EPOCH, text })
}

fn tail(chunks: &[(u16, Stream, &str)]) -> Arc<Tail> {
    let tail = Arc::new(Tail::default());
    for (slot, stream, text) in chunks {
        tail.push(&chunk(*slot, *stream, text.as_bytes()));
    }
    tail
}

fn texts(printed: &Printed) -> Vec<String> {
    let lines = printed.lines();
    lines.map(|line| String::from_utf8_lossy(line.text).into_owned()).collect()
}

const ALL: LineFilter = LineFilter { slot: None, err: false };

#[test]
fn the_last_lines_are_those_that_match() {
    use Stream::{Err, Out};
    let tail = tail(&[(0, Out, "a\nb\nc\n"), (1, Out, "d\n"), (0, Err, "e\nf\n"), (1, Err, "\n")]);
    let (slot, err) = (|slot| Some(SlotId(slot)), true);
    for (filter, count, expected) in [
        (ALL, 100, &["a", "b", "c", "d", "e", "f", ""][..]),
        (ALL, 7, &["a", "b", "c", "d", "e", "f", ""]),
        (ALL, 5, &["c", "d", "e", "f", ""]),
        (ALL, 2, &["f", ""]),
        (ALL, 0, &[]),
        (LineFilter { slot: slot(0), err: false }, 4, &["b", "c", "e", "f"]),
        (LineFilter { slot: slot(0), err }, 1, &["f"]),
        (LineFilter { slot: None, err }, 9, &["e", "f", ""]),
        (LineFilter { slot: slot(7), err: false }, 9, &[]),
    ] {
        let printed = tail.recent(filter, count).printed;
        assert_eq!(texts(&printed), expected, "{filter:?} {count}");
    }
}

#[test]
fn a_line_says_where_it_comes_from() {
    let tail = tail(&[]);
    let piece = [vec![b'x'; LONGEST], b"\n".to_vec()].concat();
    tail.push(&chunk(3, Stream::Err, &piece));
    tail.push(&chunk(3, Stream::Err, b"rest\n"));
    let printed = tail.recent(ALL, 9).printed;
    let lines: Vec<_> = printed.lines().collect();
    let worker = WorkerId { slot: SlotId(3), generation: Generation(2) };
    let rest = PrintedLine {
        time: jiff::Timestamp::UNIX_EPOCH,
        worker,
        pid: 4711,
        stream: Stream::Err,
        text: b"rest",
        partial: false,
    };
    assert_eq!(lines, [PrintedLine { text: &piece[..LONGEST], partial: true, ..rest }, rest]);
}

#[test]
fn memory_is_bounded_for_long_lines_and_for_short_ones() {
    let held = |tail: &Tail| tail.lock().entries.iter().map(|entry| entry.chunk.size()).sum();
    let long = [vec![b'x'; LONGEST], b"\n".to_vec()].concat();
    for (bytes, count, least) in [(b"\n".to_vec(), 20_000, 8_000), (long, 50, 15)] {
        let tail = tail(&[]);
        for _ in 0..count {
            tail.push(&chunk(0, Stream::Out, &bytes));
        }
        let held: usize = held(&tail);
        assert!(held <= MOST_BYTES && tail.lock().bytes == held, "{held}");
        assert!(tail.lock().entries.len() >= least, "{}", tail.lock().entries.len());
    }
}

#[test]
fn room_that_a_chunk_does_not_use_counts() {
    let mut bytes = Vec::with_capacity(LONGEST);
    bytes.push(b'\n');
    let text = Text { bytes, partial: false };
    let origin = chunk(0, Stream::Out, b"").origin;
    let chunk = Arc::new(Chunk { origin, time: jiff::Timestamp::UNIX_EPOCH, text });
    assert!(chunk.size() > LONGEST);
}

#[tokio::test]
async fn a_follower_that_is_too_slow_learns_how_many_of_its_lines_it_has_missed() {
    let tail = tail(&[(0, Stream::Out, "before\n"), (1, Stream::Err, "before\n")]);
    let slot = |slot| LineFilter { slot: Some(SlotId(slot)), err: false };
    let mut followers =
        [ALL, slot(0), slot(1), slot(2)].map(|filter| tail.recent(filter, 1).follower);
    for _ in 0..3 {
        tail.push(&chunk(1, Stream::Out, b"gone\ngone\n"));
    }
    // Far more than is kept, and the last thousand of them are.
    for n in 0..20_000 {
        tail.push(&chunk(0, Stream::Out, format!("{n}\n").as_bytes()));
    }
    tail.push(&chunk(1, Stream::Out, b"last\n"));
    let mut counts = Vec::new();
    for follower in &mut followers[..3] {
        let printed = follower.next().await.unwrap();
        counts.push(printed.missed + printed.lines().count() as u64);
        assert_eq!(printed.missed > 0, texts(&printed)[0] != "0");
    }
    assert_eq!(counts, [20_007, 20_000, 7]);
    tail.close();
    for follower in &mut followers {
        assert!(follower.next().await.is_none(), "nothing that concerns it");
    }
}

/// One thread prints as fast as it can, and others begin to look in the midst of it.
#[test]
fn the_past_and_what_follows_meet_without_gap_or_doubling() {
    const COUNT: u64 = 50_000;
    let tail = tail(&[]);
    let look = |last: usize| {
        let Recent { mut printed, mut follower } = tail.recent(ALL, last);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut next = None;
        loop {
            next = next.map(|next: u64| next + printed.missed);
            for text in texts(&printed) {
                let number = text.parse().unwrap();
                assert_eq!(next.unwrap_or(number), number);
                next = Some(number + 1);
            }
            let Some(more) = runtime.block_on(follower.next()) else { break };
            printed = more;
        }
        assert_eq!(next.unwrap_or(COUNT), COUNT, "the last line was seen");
    };
    thread::scope(|scope| {
        for last in [0, 1, 10_000] {
            scope.spawn(move || (0..20).for_each(|_| look(last)));
        }
        for n in 0..COUNT {
            tail.push(&chunk(0, Stream::Out, format!("{n}\n").as_bytes()));
        }
        tail.close();
    });
}
