//! Bytes that travel between processes as memory that nobody can change on the way.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// Memory with these bytes that nobody can change any more.
///
/// # Errors
///
/// If the kernel has no memory or no descriptor left.
pub fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("sticky-lb sealed", flags)?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// Whether a descriptor is such memory.
#[must_use]
pub fn is_sealed(memory: impl AsFd) -> bool {
    fcntl_get_seals(memory).is_ok_and(|seals| seals.contains(SEALS))
}

/// Reads sealed memory of at most `limit` bytes. Its offset, which other processes share, is neither
/// used nor moved.
///
/// # Errors
///
/// If it is no sealed memory, or longer, or cannot be read.
pub fn read_sealed(memory: impl AsFd, limit: u64) -> io::Result<Vec<u8>> {
    if !is_sealed(&memory) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not sealed memory"));
    }
    let file = File::from(memory.as_fd().try_clone_to_owned()?);
    let length = file.metadata()?.len();
    if length > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn only_sealed_memory_is_read_and_its_offset_stays() {
        let memory = seal(b"content").unwrap();
        assert_eq!(read_sealed(&memory, 7).unwrap(), b"content");
        assert_eq!(read_sealed(&memory, 6).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let mut file = File::from(memory);
        assert!(file.write_all(b"x").is_err(), "sealed memory was written to");
        assert_eq!(file.read(&mut [0; 8]).unwrap(), 0, "the offset was moved");

        let unsealed = memfd_create("unsealed", MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(read_sealed(&unsealed, 7).is_err());
        let half = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&unsealed, half).unwrap();
        assert!(!is_sealed(&unsealed), "seals can still be added");
        for other in [File::open("/dev/null").unwrap(), File::open("/etc/passwd").unwrap()] {
            assert!(read_sealed(&other, 1 << 20).is_err());
        }
        let (pipe, _writer) = io::pipe().unwrap();
        assert!(read_sealed(&pipe, 7).is_err());
    }
}
