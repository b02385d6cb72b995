//! The checkpoint of a worker that a test plays by hand.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::ftruncate;
use sticky_lb::internals::kernel::{PAGE, SharedMemory};
use sticky_lb::protocol::checkpoint::{EntryWriter, Extent, UNIT, copy_into, create};
use sticky_lb::protocol::message::{
    CHECKPOINT, ConnectionRecord, MAX_IDS, encode_protect, encode_unprotect,
};
use sticky_lb::protocol::tcp_progress::TcpProgress;

use super::fake_worker::FakeWorker;

/// Pages of the checkpoint.
const PAGES: usize = 128;

/// The checkpoint, of which the primary has heard.
#[derive(Debug)]
pub struct Keeper {
    memory: SharedMemory,
    taken: usize,
}

impl Keeper {
    /// Sends a new checkpoint to the primary.
    pub fn introduce(mover: &FakeWorker) -> Self {
        let file = create().expect("memory");
        ftruncate(&file, (PAGES * PAGE) as u64).expect("memory");
        let memory = SharedMemory::map(file.as_fd(), 0, PAGES * PAGE).expect("memory");
        mover.say_with(&CHECKPOINT, &[file.as_fd()]);
        Self { memory, taken: 0 }
    }

    /// The place of the next entry, which has a page of its own.
    pub fn place(&mut self) -> u64 {
        self.taken += 1;
        (self.taken * PAGE / UNIT) as u64
    }

    fn writer(&self, place: u64) -> EntryWriter<'_> {
        let start = usize::try_from(place).expect("few entries") * UNIT / 8;
        EntryWriter::new(&self.memory.cells()[start..start + PAGE / 8], place)
    }

    /// Writes a session down.
    pub fn write(&self, place: u64, record: &ConnectionRecord, usage: TcpProgress, image: &[u8]) {
        let writer = self.writer(place);
        let (fixed, offset) = writer.room(0, image.len().next_multiple_of(8));
        copy_into(fixed, image);
        writer.begin(record.id, Extent { offset, length: image.len() as u64 });
        writer.publish(usage, Extent { offset, length: 0 });
    }

    /// Writes a session down as it is, with this image, which may be that of others too, and has it kept.
    pub fn keep_with(
        &mut self,
        mover: &FakeWorker,
        record: &ConnectionRecord,
        socket: &OwnedFd,
        image: Extent,
    ) {
        let place = self.place();
        let usage = TcpProgress::of(socket).expect("the kernel tells").expect("a client");
        let writer = self.writer(place);
        writer.begin(record.id, image);
        writer.publish(usage, Extent { offset: image.offset, length: 0 });
        mover.say_with(&encode_protect(record, place), &[socket.as_fd()]);
    }

    /// Writes a session down as it is, and has it kept.
    pub fn keep(&mut self, mover: &FakeWorker, record: &ConnectionRecord, socket: &OwnedFd) {
        let place = self.place();
        let usage = TcpProgress::of(socket).expect("the kernel tells").expect("a client");
        self.write(place, record, usage, &record.id.0.to_le_bytes());
        mover.say_with(&encode_protect(record, place), &[socket.as_fd()]);
    }

    /// Has it forgotten.
    pub fn forget(&self, mover: &FakeWorker, record: &ConnectionRecord) {
        let mut buffer = [0; MAX_IDS];
        mover.say(encode_unprotect(&mut buffer, [record.id].into_iter()));
    }
}
