//! Repository to disk: writes data, leaves holes, flushes. Any error from a write, the flush or the goodbye is a failure.

use std::time::{Duration, Instant};

use bytes::Bytes;
use disk::{ByteRange, Ranges};
use futures::{StreamExt, TryStreamExt, stream};
use repository::{ChunkRef, Reader};
use tokio_util::sync::CancellationToken;

use crate::disk_access::Disk;
use crate::error::Error;
use crate::limits::{FETCHES_IN_FLIGHT, WINDOW_BYTES, WRITES_IN_FLIGHT, ZERO_BYTES};
use crate::progress::{Counts, Progress};
use crate::select;

/// What is known of the target before anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetContent {
    /// It reads as zeroes everywhere, because it was just made: zeroes need not be written.
    KnownZero,
    /// Ask its server; where that does not know, write zeroes where the disk had zeroes.
    #[default]
    Unknown,
}

/// How a restore writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct RestoreOptions {
    /// What the target holds.
    pub target: TargetContent,
}

/// A restore that is complete.
#[derive(Debug, Clone)]
pub struct RestoreReport {
    /// The counters at the end.
    pub counts: Counts,
    /// Bytes of the target behind the end of the disk, left as they were.
    pub untouched_tail: u64,
    /// From the first question to the goodbye.
    pub elapsed: Duration,
}

/// Writes the restore point onto `target`, which may be larger but not smaller, and closes it.
///
/// # Errors
/// [`Error::TargetTooSmall`] and [`Error::TargetReadOnly`] come before anything is written; after any other error, and
/// after `cancel`, the target's content is undefined.
pub async fn restore(
    reader: &Reader,
    target: Disk,
    options: &RestoreOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<RestoreReport, Error> {
    let began = Instant::now();
    let (needed, size) = (reader.size(), target.size());
    if size < needed {
        return Err(Error::TargetTooSmall { needed, target: size });
    }
    if target.read_only() {
        return Err(Error::TargetReadOnly);
    }
    if size > needed {
        tracing::info!(disk = needed, target = size, "the target is larger than the disk; its end stays as it is");
    }
    progress.begin(needed);
    let writing = async {
        for window in select::windows(needed, WINDOW_BYTES.next_multiple_of(reader.chunk_size())) {
            write_window(reader, &target, options.target, window, progress).await?;
        }
        target.flush_and_close().await
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::Cancelled),
        written = writing => written?,
    }
    Ok(RestoreReport { counts: progress.counts(), untouched_tail: size - needed, elapsed: began.elapsed() })
}

async fn write_window(
    reader: &Reader,
    target: &Disk,
    content: TargetContent,
    window: ByteRange,
    progress: &Progress,
) -> Result<(), Error> {
    let zeroes = zero_ranges(reader, window);
    if content == TargetContent::Unknown && !zeroes.is_empty() {
        let dirty = target.data_in(window).await?.intersection(&zeroes);
        write_zeroes(target, &dirty).await?;
    }
    progress.skip(zeroes.bytes());

    let wanted = select::chunks(window, reader.chunk_size()).filter(|index| reader.chunk(*index) != ChunkRef::Zero);
    let chunks = reader.read(reader.plan(wanted), FETCHES_IN_FLIGHT).map_err(Error::repository("read chunks"));
    let places = chunks.map_ok(|chunk| {
        progress.add_read(chunk.data.len() as u64);
        stream::iter(chunk.at.into_iter().map(move |index| Ok::<_, Error>((index, chunk.data.clone()))))
    });
    let writes = places.try_flatten().map_ok(|(index, data)| write_chunk(reader, target, index, data, progress));
    writes.try_buffer_unordered(WRITES_IN_FLIGHT).try_collect::<()>().await
}

async fn write_chunk(
    reader: &Reader,
    target: &Disk,
    index: u64,
    data: Bytes,
    progress: &Progress,
) -> Result<(), Error> {
    let range = reader.chunk_range(index);
    target.write(range.offset, data).await?;
    progress.add_stored(range.length);
    progress.settle(range.length);
    Ok(())
}

async fn write_zeroes(target: &Disk, ranges: &Ranges) -> Result<(), Error> {
    let parts = ranges.iter().flat_map(|range| {
        let parts = select::windows(range.length, ZERO_BYTES);
        parts.map(move |part| ByteRange::new(range.offset + part.offset, part.length))
    });
    let parts: Vec<_> = parts.collect();
    let writes = stream::iter(parts).map(|part| target.zero(part));
    writes.buffer_unordered(WRITES_IN_FLIGHT).try_collect::<()>().await
}

/// The parts of `window` that are zero in the restore point.
pub(crate) fn zero_ranges(reader: &Reader, window: ByteRange) -> Ranges {
    let chunks = select::chunks(window, reader.chunk_size());
    chunks.filter(|index| reader.chunk(*index) == ChunkRef::Zero).map(|index| reader.chunk_range(index)).collect()
}
