//! What a restore reads: a restore point of ours, or a disk in the original's layout. Cut into chunks either way, so that
//! zeroes, progress and checkpoints are the same for both.

use std::time::Duration;

use astrolabe::OldDisk;
use disk::ByteRange;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use repository::{CHUNK_SIZE, ChunkRef, ReadChunk, Reader, Unread};

use crate::limits::FETCH_BYTES;

/// One disk as it was, open for reading.
pub trait Source: Send + Sync {
    /// Size of the disk in bytes.
    fn size(&self) -> u64;

    /// Bytes of a chunk; the last one of the disk may be shorter.
    fn chunk_size(&self) -> u64;

    /// What tells its content from every other's.
    fn digest(&self) -> &str;

    /// Whether chunk `index` is known to be zeroes without being read.
    fn is_zero(&self, index: u64) -> bool;

    /// Whether a chunk of which that is not known may be zeroes all the same.
    fn has_unknown_zeroes(&self) -> bool;

    /// The contents of the chunks with these numbers, which rise, with up to `in_flight` requests of
    /// [`FETCH_BYTES`] at once; goes on behind what is damaged.
    fn read(&self, wanted: Vec<u64>, in_flight: usize) -> BoxStream<'static, Result<ReadChunk, Unread>>;

    /// How long chunks were read from the store, and opened, in all.
    fn spent(&self) -> (Duration, Duration);

    /// The bytes of the disk that chunk `index` holds.
    fn chunk_range(&self, index: u64) -> ByteRange {
        let offset = index * self.chunk_size();
        ByteRange::between(offset, (offset + self.chunk_size()).min(self.size()))
    }
}

impl Source for Reader {
    fn size(&self) -> u64 {
        Self::size(self)
    }

    fn chunk_size(&self) -> u64 {
        Self::chunk_size(self)
    }

    fn digest(&self) -> &str {
        Self::digest(self)
    }

    fn is_zero(&self, index: u64) -> bool {
        self.chunk(index) == ChunkRef::Zero
    }

    fn has_unknown_zeroes(&self) -> bool {
        false
    }

    fn read(&self, wanted: Vec<u64>, in_flight: usize) -> BoxStream<'static, Result<ReadChunk, Unread>> {
        self.examine(self.plan(wanted), in_flight).boxed()
    }

    fn spent(&self) -> (Duration, Duration) {
        Self::spent(self)
    }
}

impl Source for OldDisk {
    fn size(&self) -> u64 {
        Self::size(self)
    }

    fn chunk_size(&self) -> u64 {
        CHUNK_SIZE
    }

    fn digest(&self) -> &str {
        Self::digest(self)
    }

    fn is_zero(&self, _: u64) -> bool {
        false // the original wrote holes as zeroes
    }

    fn has_unknown_zeroes(&self) -> bool {
        true
    }

    fn read(&self, wanted: Vec<u64>, in_flight: usize) -> BoxStream<'static, Result<ReadChunk, Unread>> {
        let disk = self.clone();
        let runs = stream::iter(runs(&wanted, FETCH_BYTES / CHUNK_SIZE));
        runs.map(move |run| read_run(disk.clone(), run)).buffered(in_flight.max(1)).flat_map(stream::iter).boxed()
    }

    fn spent(&self) -> (Duration, Duration) {
        (Self::spent(self), Duration::ZERO)
    }
}

/// Chunks that lie side by side, at most `most` together.
fn runs(wanted: &[u64], most: u64) -> Vec<std::ops::Range<u64>> {
    let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
    for index in wanted {
        match runs.last_mut() {
            Some(run) if run.end == *index && run.end - run.start < most => run.end += 1,
            _ => runs.push(*index..index + 1),
        }
    }
    runs
}

/// One request, cut into its chunks.
async fn read_run(disk: OldDisk, run: std::ops::Range<u64>) -> Vec<Result<ReadChunk, Unread>> {
    let (first, last) = (disk.chunk_range(run.start), disk.chunk_range(run.end - 1));
    let read = disk.read(ByteRange::between(first.offset, last.end())).boxed().await;
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(source) => {
            let error = repository::Error::Store { act: "read a segment of the original".to_owned(), source };
            return vec![Err(Unread { at: run.collect(), error: Box::new(error) })];
        }
    };
    let chunk = |index| {
        let range = disk.chunk_range(index);
        let at = |offset: u64| usize::try_from(offset - first.offset).expect("a run is a few MiB");
        Ok(ReadChunk { at: vec![index], data: bytes.slice(at(range.offset)..at(range.end())) })
    };
    run.map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_side_by_side_are_read_together_and_no_others() {
        assert_eq!(runs(&[], 16), []);
        assert_eq!(runs(&[0, 1, 2, 5, 6, 9], 16), [0..3, 5..7, 9..10]);
        assert_eq!(runs(&[3, 4, 5, 6, 7], 2), [3..5, 5..7, 7..8]);
    }
}
