use proptest::prelude::*;
use rustix::fs::ftruncate;

use super::*;
use crate::kernel::{PAGE, SharedMemory};

/// A checkpoint of so many pages, its memory, and its reader.
fn checkpoint(pages: usize) -> (SharedMemory, Checkpoint) {
    let file = create().unwrap();
    ftruncate(&file, (pages * PAGE) as u64).unwrap();
    let memory = SharedMemory::map(file.as_fd(), 0, pages * PAGE).unwrap();
    (memory, Checkpoint::open(file).unwrap())
}

fn page(memory: &SharedMemory, page: usize) -> EntryWriter<'_> {
    const CELLS: usize = PAGE / 8;
    let place = (page * PAGE / UNIT) as u64;
    EntryWriter::new(&memory.cells()[page * CELLS..(page + 1) * CELLS], place)
}

/// Writes a state into its place in the page, and doesn't publish it.
fn prepare(writer: &EntryWriter<'_>, fixed: usize, state: &[u8]) -> Extent {
    let each = (writer.room_length() - fixed) / 16 * 8;
    let (cells, offset) = writer.room(fixed + writer.free_state() * each, each);
    copy_into(cells, state);
    Extent { offset, length: state.len() as u64 }
}

fn begin(writer: &EntryWriter<'_>, id: u64, fixed: &[u8]) -> usize {
    let room = fixed.len().next_multiple_of(8);
    let (cells, offset) = writer.room(0, room);
    copy_into(cells, fixed);
    writer.begin(ConnectionId(id), Extent { offset, length: fixed.len() as u64 });
    room
}

#[test]
fn an_entry_stands_where_the_documentation_says() {
    let (memory, checkpoint) = checkpoint(3);
    let writer = page(&memory, 2);
    let room = begin(&writer, 7, b"head");
    let state = prepare(&writer, room, b"state");
    writer.publish(TcpProgress::new(10, 20), state);
    let at = |offset: usize| {
        memory.cells()[(2 * PAGE + offset) / 8].load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!([at(0), at(8)], [7, 1]);
    assert_eq!([at(48), at(56), at(72)], [10, 20, 5]);
    assert_eq!([at(80), at(88)], [2 * PAGE as u64 + 96, 4]);
    assert_eq!(at(96).to_ne_bytes(), *b"head\0\0\0\0");
    let entry = checkpoint.entry(2 * (PAGE / UNIT) as u64, ConnectionId(7)).unwrap();
    assert_eq!((entry.usage, entry.version), (TcpProgress::new(10, 20), 1));
    assert_eq!(checkpoint.image(&entry).unwrap(), b"headstate");
}

#[test]
fn an_entry_of_nobody_of_somebody_else_or_unpublished_is_none() {
    let (memory, checkpoint) = checkpoint(1);
    let writer = page(&memory, 0);
    let id = ConnectionId(7);
    assert_eq!(checkpoint.entry(0, ConnectionId(0)), None, "an empty page");
    let room = begin(&writer, 7, b"head");
    assert_eq!(checkpoint.entry(0, id), None, "unpublished");
    writer.publish(TcpProgress::new(1, 2), prepare(&writer, room, b""));
    assert!(checkpoint.entry(0, id).is_some());
    assert_eq!(checkpoint.entry(0, ConnectionId(8)), None, "another session's");
    assert_eq!(checkpoint.entry((PAGE / UNIT) as u64, id), None, "behind the end");
    assert_eq!(checkpoint.entry(u64::MAX, id), None, "far behind the end");
    writer.clear();
    assert_eq!(checkpoint.entry(0, id), None, "cleared");
    begin(&writer, 7, b"head");
    assert_eq!(checkpoint.entry(0, id), None, "begun again");
}

#[test]
fn what_could_shrink_or_is_no_memory_is_no_ledger() {
    let unsealed = memfd_create("unsealed", MemfdFlags::ALLOW_SEALING).unwrap();
    assert!(Checkpoint::open(unsealed).is_none());
    assert!(Checkpoint::open(File::open("/dev/zero").unwrap().into()).is_none());
    assert!(Checkpoint::open(io::pipe().unwrap().0.into()).is_none());
    let file = create().unwrap();
    ftruncate(&file, PAGE as u64).unwrap();
    assert!(ftruncate(&file, 0).is_err());
}

proptest! {
    #[test]
    fn whenever_its_writer_is_killed_what_was_published_last_is_whole(
        fixed in prop::collection::vec(any::<u8>(), 0..300),
        states in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1_500), 1..8),
        cut in 0_usize..1_500,
    ) {
        let (memory, checkpoint) = checkpoint(1);
        let writer = page(&memory, 0);
        let room = begin(&writer, 7, &fixed);
        let mut last: Option<(u64, &[u8])> = None;
        for (count, state) in (1..).zip(&states) {
            // Killed while it writes: part of the state is there.
            prepare(&writer, room, &state[..cut.min(state.len())]);
            let entry = checkpoint.entry(0, ConnectionId(7));
            prop_assert_eq!(entry.map(|entry| entry.version), last.map(|(count, _)| count));
            if let (Some(entry), Some((count, state))) = (entry, last) {
                prop_assert_eq!(entry.usage, TcpProgress::new(count, 2 * count));
                prop_assert_eq!(checkpoint.image(&entry).unwrap(), [&fixed[..], state].concat());
            }
            writer.publish(TcpProgress::new(count, 2 * count), prepare(&writer, room, state));
            last = Some((count, state));
        }
    }

    #[test]
    fn no_lie_is_read_beyond_the_ledger(
        numbers in prop::collection::vec((0_usize..32, prop_oneof![any::<u64>(), 0_u64..20_000]), 0..40),
        version in 1_u64..4,
    ) {
        let (memory, checkpoint) = checkpoint(2);
        for (cell, number) in numbers {
            memory.cells()[cell].store(number, std::sync::atomic::Ordering::Relaxed);
        }
        memory.cells()[0].store(7, std::sync::atomic::Ordering::Relaxed);
        memory.cells()[1].store(version, std::sync::atomic::Ordering::Relaxed);
        if let Some(entry) = checkpoint.entry(0, ConnectionId(7)) {
            prop_assert!(checkpoint.image(&entry).unwrap().len() <= 4 * PAGE);
        }
    }
}
