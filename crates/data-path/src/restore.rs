//! Repository to disk, or the original's layout to disk: writes data, leaves holes, flushes. Any error from a write, the
//! flush or the goodbye is a failure.
//!
//! Where checkpoints are asked for, the disk is flushed over and over, and what was written before a flush that succeeded
//! is noted: so a checkpoint never names bytes that the disk may still lose.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use disk::{ByteRange, Ranges};
use futures::{StreamExt, TryStreamExt, stream};
use repository::{ChunkRef, ReadChunk, Reader, Unread, is_zero};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Checkpoint, Checkpoints, Written};
use crate::disk_access::Disk;
use crate::error::Error;
use crate::limits::{FETCHES_IN_FLIGHT, WINDOW_BYTES, WRITES_IN_FLIGHT, ZERO_BYTES};
use crate::progress::{Counts, Progress};
use crate::select;
use crate::source::Source;
use crate::waits::{Full, Waited, Waits};

/// How long the last checkpoint of a restore that ends early may take.
const LAST_CHECKPOINT: Duration = Duration::from_secs(1);

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
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// What the target holds where nothing of the restore point is written yet.
    pub target: TargetContent,
    /// Where it begins, and where it notes what is on the disk for good. `None`: it begins at the start, and flushes once,
    /// at the end.
    pub checkpoints: Option<Arc<Checkpoints>>,
    /// Go on behind what is damaged in the repository, and make it zeroes on the disk, instead of failing.
    pub skip_damaged: bool,
}

/// A restore that is complete.
#[derive(Debug, Clone)]
pub struct RestoreReport {
    /// The counters at the end.
    pub counts: Counts,
    /// Bytes of the target behind the end of the disk, left as they were.
    pub untouched_tail: u64,
    /// What was damaged in the repository, and is zeroes on the disk. Empty unless that was asked for.
    pub damaged: Ranges,
    /// From the first question to the goodbye.
    pub elapsed: Duration,
    /// What that time went by with.
    pub waits: Waits,
}

/// Writes the restore point onto `target`, which may be larger but not smaller, and closes it.
///
/// # Errors
/// [`Error::TargetTooSmall`] and [`Error::TargetReadOnly`] come before anything is written; after any other error, and
/// after `cancel`, nothing is known of the target but what the checkpoints say.
pub async fn restore(
    reader: &dyn Source,
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
    let restore = Restore::new(reader, &target, options, progress);
    let writing = unless_cancelled(cancel, restore.write());
    match options.checkpoints.as_deref() {
        Some(checkpoints) => restore.save_while(writing, checkpoints, cancel).await?,
        None => writing.await?,
    }
    let for_disk = restore.writes.total();
    let damaged = restore.damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
    let closing = Waited::default();
    closing.on(unless_cancelled(cancel, target.flush_and_close())).await?;
    let elapsed = began.elapsed();
    let waits = waits(elapsed, for_disk + closing.total(), reader);
    Ok(RestoreReport { counts: progress.counts(), untouched_tail: size - needed, damaged, elapsed, waits })
}

/// What is not the disk's is shared by store and CPU, as they took turns.
fn waits(elapsed: Duration, for_disk: Duration, reader: &dyn Source) -> Waits {
    let (reading, opening) = reader.spent();
    let both = (reading + opening).as_secs_f64().max(f64::EPSILON);
    let rest = elapsed.saturating_sub(for_disk);
    Waits::of(elapsed, for_disk, rest.mul_f64(reading.as_secs_f64() / both))
}

async fn unless_cancelled(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        done = work => done,
    }
}

/// A restore under way.
struct Restore<'r> {
    reader: &'r dyn Source,
    target: &'r Disk,
    content: TargetContent,
    written: Written,
    /// Otherwise damage ends the restore.
    skip_damaged: bool,
    damaged: Mutex<Ranges>,
    progress: &'r Progress,
    /// While all of them are under way, the disk is what the rest waits for.
    writes: Full,
}

impl<'r> Restore<'r> {
    fn new(reader: &'r dyn Source, target: &'r Disk, options: &RestoreOptions, progress: &'r Progress) -> Self {
        let checkpoints = options.checkpoints.as_deref();
        let noted = checkpoints.map(Checkpoints::latest).filter(|noted| noted.is_of(reader));
        let begin = noted.unwrap_or_else(|| Checkpoint::nothing(reader));
        if let Some(checkpoints) = checkpoints {
            checkpoints.save(begin.clone()); // one of something else must not outlive the first write
        }
        progress.begin(reader.size());
        progress.resume(begin.bytes());
        Self {
            reader,
            target,
            content: options.target,
            written: Written::new(begin),
            skip_damaged: options.skip_damaged,
            damaged: Mutex::default(),
            progress,
            writes: Full::new(WRITES_IN_FLIGHT),
        }
    }

    async fn write(&self) -> Result<(), Error> {
        for window in select::windows(self.reader.size(), WINDOW_BYTES.next_multiple_of(self.reader.chunk_size())) {
            self.write_window(window).await?;
        }
        Ok(())
    }

    async fn write_window(&self, window: ByteRange) -> Result<(), Error> {
        let missing = self.written.missing(select::chunks(window, self.reader.chunk_size()));
        let (zero, data): (Vec<u64>, Vec<u64>) = missing.into_iter().partition(|index| self.reader.is_zero(*index));
        self.settle_zeroes(window, zero.into_iter().map(|index| self.reader.chunk_range(index)).collect()).await?;

        let chunks = self.reader.read(data, FETCHES_IN_FLIGHT);
        let places = chunks.map(|chunk| {
            let (at, data) = self.content_of(chunk)?;
            Ok(stream::iter(at.into_iter().map(move |index| Ok::<_, Error>((index, data.clone())))))
        });
        let writes = places.try_flatten().map_ok(async |(index, data)| match data {
            Some(data) if self.reader.has_unknown_zeroes() && is_zero(&data) => {
                let range = self.reader.chunk_range(index);
                self.settle_zeroes(range, Ranges::from_iter([range])).await
            }
            Some(data) => self.write_chunk(index, data).await,
            None => self.write_damaged(index).await,
        });
        writes.try_buffer_unordered(WRITES_IN_FLIGHT).try_collect::<()>().await
    }

    /// What belongs to these chunks; `None` is damage that is skipped.
    fn content_of(&self, chunk: Result<ReadChunk, Unread>) -> Result<(Vec<u64>, Option<Bytes>), Error> {
        match chunk {
            Ok(ReadChunk { at, data }) => {
                self.progress.add_read(data.len() as u64);
                Ok((at, Some(data)))
            }
            Err(Unread { at, error }) if self.skip_damaged && error.kind() == repository::ErrorKind::Damaged => {
                let error: &(dyn std::error::Error + 'static) = &*error;
                tracing::warn!(error, chunks = at.len(), "damaged in the repository; zeroes take its place");
                Ok((at, None))
            }
            Err(Unread { at, error }) => {
                let places = at.iter().map(|index| self.reader.chunk_range(*index)).collect();
                Err(Error::Unread { places, source: error })
            }
        }
    }

    async fn write_chunk(&self, index: u64, data: Bytes) -> Result<(), Error> {
        let range = self.reader.chunk_range(index);
        self.writes.on(self.target.write(range.offset, data)).await?;
        self.written.insert(index);
        self.progress.add_stored(range.length);
        self.progress.settle(range.length);
        Ok(())
    }

    async fn write_damaged(&self, index: u64) -> Result<(), Error> {
        let range = self.reader.chunk_range(index);
        if self.content == TargetContent::Unknown {
            self.writes.on(self.target.zero(range)).await?; // whatever was there is not of this restore point
        }
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(range);
        self.written.insert(index);
        self.progress.settle(range.length);
        Ok(())
    }

    /// Sees to it that `zeroes`, whole chunks of `window`, read as zeroes.
    async fn settle_zeroes(&self, window: ByteRange, zeroes: Ranges) -> Result<(), Error> {
        let dirty = match self.content {
            TargetContent::Unknown if !zeroes.is_empty() => self.target.data_in(window).await?.intersection(&zeroes),
            TargetContent::Unknown | TargetContent::KnownZero => Ranges::new(),
        };
        let parts: Vec<ByteRange> = zeroes.iter().flat_map(|range| parts(range, ZERO_BYTES)).collect();
        let settled = stream::iter(parts).map(|part| self.settle_part(part, &dirty));
        settled.buffer_unordered(WRITES_IN_FLIGHT).try_collect::<()>().await
    }

    async fn settle_part(&self, part: ByteRange, dirty: &Ranges) -> Result<(), Error> {
        if dirty.touches(&part) {
            for range in dirty.intersection(&Ranges::from_iter([part])).iter() {
                self.target.zero(range).await?;
            }
        }
        select::chunks(part, self.reader.chunk_size()).for_each(|index| self.written.insert(index));
        self.progress.skip(part.length);
        Ok(())
    }

    /// Notes what is on the disk for good while `writing` goes on, and once more when it has ended, however it did. A flush
    /// that was begun is waited for: whoever misses its failure may believe the next one, which succeeds.
    async fn save_while(
        &self,
        writing: impl Future<Output = Result<(), Error>>,
        checkpoints: &Checkpoints,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let ended = CancellationToken::new();
        let mut saving = pin!(self.save_until(&ended, checkpoints));
        let outcome = tokio::select! {
            biased;
            failed = &mut saving => return failed,
            outcome = writing => outcome,
        };
        ended.cancel();
        match outcome {
            Ok(()) => unless_cancelled(cancel, saving).await,
            Err(error) => {
                if !matches!(tokio::time::timeout(LAST_CHECKPOINT, saving).await, Ok(Ok(()))) {
                    tracing::debug!("what was written since the last checkpoint will be written again");
                }
                Err(error)
            }
        }
    }

    async fn save_until(&self, ended: &CancellationToken, checkpoints: &Checkpoints) -> Result<(), Error> {
        loop {
            let is_last = tokio::time::timeout(checkpoints.every(), ended.cancelled()).await.is_ok();
            let written = self.written.now();
            if written != checkpoints.latest() {
                self.target.flush().await?;
                checkpoints.save(written);
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// `range` in parts of at most `most` bytes.
fn parts(range: ByteRange, most: u64) -> impl Iterator<Item = ByteRange> {
    select::windows(range.length, most).map(move |part| ByteRange::new(range.offset + part.offset, part.length))
}

/// The parts of `window` that are zero in the restore point.
pub(crate) fn zero_ranges(reader: &Reader, window: ByteRange) -> Ranges {
    let chunks = select::chunks(window, reader.chunk_size());
    chunks.filter(|index| reader.chunk(*index) == ChunkRef::Zero).map(|index| reader.chunk_range(index)).collect()
}
