//! Files that are written past the page cache.
//!
//! Bytes that are written once and flushed anyway gain nothing from the cache and pay for it: a page is found, filled and written
//! back for each 4 KiB. On a virtual machine that gets its memory page by page that is ten times the CPU time of a direct write.
//!
//! A direct write (`O_DIRECT`, open(2)) asks that memory, offset and length are multiples of the device's logical block. What is
//! not, and what is small, goes through the cache as ever, and so does everything where direct writes are not known to be better and
//! to be flushed with the others: on a network, in a FUSE file system, in memory. Callers see no difference. Nothing here flushes.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use direct::DirectFile;
//!
//! let restored = DirectFile::new(tempfile::tempfile()?);
//! restored.write_all_at(&[7; 1 << 20], 4096)?;
//! restored.file().sync_all()?;
//! # Ok(())
//! # }
//! ```

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FsWord, OFlags};
use rustix::io::Errno;

/// Bytes to which direct writes are aligned: a multiple of the logical block of every device in use (512 or 4096).
const BLOCK: usize = 4096;
/// Bytes of one direct write at most, and of the memory of a thread that writes.
const PIECE: usize = 1 << 20;
/// Fewer bytes than this are better gathered by the cache.
const LEAST: usize = 64 << 10;
/// File systems of local disks, by the number that statfs(2) gives: ext2 to ext4, XFS. A flush there is for the file, whichever of
/// its descriptors was written through.
const LOCAL: [FsWord; 2] = [0xef53, 0x5846_5342];

thread_local! {
    /// Where bytes are aligned; kept, since new memory costs more than the copy.
    static ALIGNED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A file for writing at any offset.
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    /// The same file, open for direct writes since the first large one.
    past_cache: OnceLock<Option<File>>,
    /// It took the flag and refuses the writes.
    refused: AtomicBool,
}

impl DirectFile {
    /// Takes a file that is open for writing.
    pub fn new(file: File) -> Self {
        Self { file, past_cache: OnceLock::new(), refused: AtomicBool::new(false) }
    }

    /// The file: for everything but large writes, and for the flush. What was written either way is seen either way.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes all of `data` at `offset` (bytes). Blocks.
    ///
    /// # Errors
    /// What the system says; then any part of it may be written.
    pub fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let large = data.len() >= LEAST && offset.is_multiple_of(BLOCK as u64);
        let done = match if large { self.past_cache() } else { None } {
            Some(file) => self.write_past_cache(file, &data[..data.len() - data.len() % BLOCK], offset)?,
            None => 0,
        };
        self.file.write_all_at(&data[done..], offset + done as u64)
    }

    fn past_cache(&self) -> Option<&File> {
        let open = || {
            if !is_local(&self.file) {
                return None;
            }
            // by its descriptor, so that it is this file, whatever has its name by now
            let again = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            File::options().write(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(again).ok()
        };
        self.past_cache.get_or_init(open).as_ref()
    }

    /// Says how many bytes are written: fewer where the file system refuses.
    fn write_past_cache(&self, file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < data.len() && !self.refused.load(Ordering::Relaxed) {
            let piece = &data[done..data.len().min(done + PIECE)];
            match aligned(piece, |piece| file.write_at(piece, offset + done as u64)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) if written.is_multiple_of(BLOCK) => done += written,
                Ok(written) => return Ok(done + written),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) if Errno::from_io_error(&cause) == Some(Errno::INVAL) => {
                    self.refused.store(true, Ordering::Relaxed);
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(done)
    }
}

/// Whether it is a block device, or lies in a file system of a local disk.
fn is_local(file: &File) -> bool {
    let is_device = file.metadata().is_ok_and(|known| known.file_type().is_block_device());
    let kind = rustix::fs::fstatfs(file).map(|known| known.f_type);
    is_device || kind.is_ok_and(|kind| LOCAL.contains(&kind))
}

/// Hands on `bytes`, at most [`PIECE`], in memory that begins at a block.
fn aligned<T>(bytes: &[u8], write: impl FnOnce(&[u8]) -> T) -> T {
    if bytes.as_ptr().addr().is_multiple_of(BLOCK) {
        return write(bytes);
    }
    ALIGNED.with_borrow_mut(|memory| {
        memory.resize(PIECE + BLOCK, 0);
        let start = memory.as_ptr().align_offset(BLOCK);
        let place = &mut memory[start..start + bytes.len()];
        place.copy_from_slice(bytes);
        write(place)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Without a name, in the checkout: temporary folders may be in memory.
    fn on_disk() -> DirectFile {
        DirectFile::new(tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap())
    }

    fn content(file: &DirectFile) -> Vec<u8> {
        let mut found = vec![0; usize::try_from(file.file().metadata().unwrap().len()).unwrap()];
        file.file().read_exact_at(&mut found, 0).unwrap();
        found
    }

    #[test]
    fn a_large_write_goes_past_the_cache_and_a_small_one_does_not() {
        let file = on_disk();
        if !is_local(file.file()) {
            return eprintln!("not shown here: this checkout is on no local disk that is known");
        }
        file.write_all_at(&[1; LEAST - 1], 0).unwrap();
        assert!(file.past_cache.get().is_none());
        file.write_all_at(&[2; 3 * PIECE + 5], 0).unwrap();
        assert!(matches!(file.past_cache.get(), Some(Some(_))));
        assert!(!file.refused.load(Ordering::Relaxed));
        assert!(content(&file) == [2; 3 * PIECE + 5]);
    }

    #[test]
    fn what_a_file_system_refuses_goes_through_the_cache() {
        let file = on_disk();
        let Some(past_cache) = file.past_cache() else { return eprintln!("not shown here: no direct writes") };
        // an offset that no device takes, as a device with larger blocks would refuse one that we take for aligned
        assert_eq!(file.write_past_cache(past_cache, &[3; PIECE], 100).unwrap(), 0);
        assert!(file.refused.load(Ordering::Relaxed));
        file.write_all_at(&[4; PIECE], 0).unwrap();
        assert!(content(&file) == [4; PIECE]);
    }

    #[test]
    fn a_direct_write_that_fails_is_an_error() {
        let file = on_disk();
        let Some(past_cache) = file.past_cache() else { return eprintln!("not shown here: no direct writes") };
        // larger than any file of ext4 or XFS
        let beyond = (i64::MAX as u64) / BLOCK as u64 * BLOCK as u64 - PIECE as u64;
        assert!(file.write_past_cache(past_cache, &[5; PIECE], beyond).is_err());
    }

    #[test]
    fn files_in_memory_and_of_the_kernel_are_not_on_a_local_disk() {
        for place in ["/dev/shm", "/proc/self/status"] {
            assert!(!is_local(&File::open(place).unwrap()), "{place}");
        }
    }
}
