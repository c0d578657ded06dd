//! Files that are written past the page cache.
//!
//! Bytes that are written once and flushed anyway gain nothing from the cache and pay for it: a page is found, filled and written
//! back for each 4 KiB. On a virtual machine that gets its memory page by page that is ten times the CPU time of a direct write.
//!
//! A direct write (`O_DIRECT`, open(2)) asks that memory, offset and length are multiples of the device's logical block. What is
//! not, what is small, and all of it on file systems that know no direct writes, goes through the cache as ever: callers see
//! no difference. Nothing here flushes.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Bytes to which direct writes are aligned: a multiple of the logical block of every device in use (512 or 4096).
const BLOCK: usize = 4096;
/// Bytes of one direct write at most, and of the memory of a thread that writes.
const PIECE: usize = 1 << 20;
/// Fewer bytes than this are better gathered by the cache.
const LEAST: usize = 64 << 10;

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

    /// The file: for everything but large writes. What was written either way is seen either way, and one flush is for both.
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
