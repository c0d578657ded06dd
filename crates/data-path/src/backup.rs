//! Disk to repository: reads what may hold data, in disk order and several reads ahead, and hands chunks to the writer.
//!
//! Any read error ends the backup; nothing is skipped. Without a commit there is no restore point.

use std::time::{Duration, Instant};

use bytes::Bytes;
use disk::{ByteRange, Ranges};
use futures::{StreamExt, stream};
use repository::{ChunkRef, Reader, RestorePoint, TakeOver, Writer, WriterStats, is_zero};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::content::Content;
use crate::disk_access::Disk;
use crate::error::Error;
use crate::limits::{READ_BYTES, READS_IN_FLIGHT, WAITING_BYTES, WINDOW_BYTES};
use crate::progress::{Counts, Progress};
use crate::select::{self, Piece};
use crate::waits::{Waited, Waits};

/// A stopped writer that does not stop is left to itself after this long: a cancel ends in seconds.
const ABANDON_DEADLINE: Duration = Duration::from_secs(2);

/// A commit that is cancelled may finish within this time, and then counts: it may be past the point of no return.
/// Later it is dropped, and the writer removes what it may have committed.
const COMMIT_GRACE: Duration = Duration::from_secs(2);

/// Chunks that vanish while we write (somebody prunes) are sent again this often.
const COMMIT_TRIES: usize = 3;

/// How a backup reads.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Reads under way at once.
    pub reads_in_flight: usize,
    /// What is read, and what is taken over unread.
    pub content: Content,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self { reads_in_flight: READS_IN_FLIGHT, content: Content::Allocated }
    }
}

/// A backup that is complete.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// What can be restored now.
    pub point: RestorePoint,
    /// The counters at the end.
    pub counts: Counts,
    /// What the repository did with it.
    pub stats: WriterStats,
    /// From the first question to the commit.
    pub elapsed: Duration,
    /// What that time went by with.
    pub waits: Waits,
}

/// Backs up all of `source` through `writer`; what an earlier attempt of the same transfer had done is not read again.
///
/// # Errors
/// After any error, and after `cancel`, there is no restore point; packs that nobody refers to wait for maintenance.
pub async fn backup(
    source: &Disk,
    writer: Writer,
    options: &BackupOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<BackupReport, Error> {
    let began = Instant::now();
    let (for_disk, for_commit) = (Waited::default(), Waited::default());
    let outcome = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        copied = copy(source, &writer, options, progress, &for_disk) => copied,
    };
    let outcome = match outcome {
        Ok(()) if cancel.is_cancelled() => Err(Error::Cancelled),
        Ok(()) => for_commit.on(commit(source, &writer, cancel)).await,
        Err(error) => Err(error),
    };
    let stats = writer.stats();
    progress.set_stored(stats.bytes_stored);
    match outcome {
        Ok(point) => {
            let elapsed = began.elapsed();
            let waits = Waits::of(elapsed, for_disk.total(), stats.waited_for_store + for_commit.total());
            Ok(BackupReport { point, counts: progress.counts(), stats, elapsed, waits })
        }
        Err(error) => {
            if tokio::time::timeout(ABANDON_DEADLINE, writer.abandon()).await.is_err() {
                tracing::warn!("the writer did not stop in time; what it still stores belongs to no restore point");
            }
            Err(error)
        }
    }
}

/// A part of the disk on its way to the writer.
enum Part {
    /// Read.
    Bytes(ByteRange, Bytes),
    /// Zeroes that were not read.
    Zero(ByteRange),
    /// As this base has it.
    Keep(ByteRange, Reader),
}

async fn copy(
    source: &Disk,
    writer: &Writer,
    options: &BackupOptions,
    progress: &Progress,
    for_disk: &Waited,
) -> Result<(), Error> {
    let (size, chunk) = (source.size(), writer.chunk_size());
    let point = writer.chunk_count().checked_sub(1).map_or(0, |last| writer.chunk_range(last).end());
    if point != size {
        return Err(Error::SizeChanged { disk: size, point });
    }
    options.content.expect_fit(writer, size)?;
    progress.begin(size);
    progress.resume(writer.resumed().bytes());
    progress.add_read(options.content.audit(source).await?);
    let waiting = usize::try_from(WAITING_BYTES / READ_BYTES).expect("a handful");
    let (parts, waiting_parts) = mpsc::channel(waiting);
    let reading = read_parts(source, chunk, options, writer.resumed(), parts);
    tokio::try_join!(reading, store_parts(source, writer, waiting_parts, progress, for_disk))?;
    Ok(())
}

async fn read_parts(
    source: &Disk,
    chunk: u64,
    options: &BackupOptions,
    done: &Ranges,
    parts: mpsc::Sender<Part>,
) -> Result<(), Error> {
    let in_flight = options.reads_in_flight.max(1);
    for window in select::open_windows(source.size(), WINDOW_BYTES.next_multiple_of(chunk), done) {
        let touched = options.content.touched(window, chunk);
        let data = Content::data(source, window, touched.as_ref()).await?;
        let pieces = select::pieces(window, touched.as_ref(), &data, chunk, READ_BYTES);
        let mut read =
            stream::iter(pieces).map(|piece| read_piece(source, piece, &options.content)).buffered(in_flight);
        while let Some(part) = read.next().await {
            if parts.send(part?).await.is_err() {
                return Ok(()); // the storing half ended, with the error that counts
            }
        }
    }
    Ok(())
}

async fn read_piece(source: &Disk, piece: Piece, content: &Content) -> Result<Part, Error> {
    match (piece, content.base()) {
        (Piece::Zero(range), _) => Ok(Part::Zero(range)),
        (Piece::Keep(range), Some(base)) => Ok(Part::Keep(range, base.clone())),
        // without a base there is nothing to keep
        (Piece::Read(range) | Piece::Keep(range), _) => source.read(range).await.map(|bytes| Part::Bytes(range, bytes)),
    }
}

async fn store_parts(
    source: &Disk,
    writer: &Writer,
    mut parts: mpsc::Receiver<Part>,
    progress: &Progress,
    for_disk: &Waited,
) -> Result<(), Error> {
    while let Some(part) = for_disk.on(parts.recv()).await {
        match part {
            Part::Zero(range) => {
                put_zero(writer, range).await?;
                progress.skip(range.length);
            }
            Part::Bytes(range, bytes) => {
                progress.add_read(range.length);
                store_chunks(writer, range, &bytes, progress).await?;
            }
            Part::Keep(range, base) => keep(source, writer, &base, range, progress).await?,
        }
        progress.set_stored(writer.stats().bytes_stored);
    }
    Ok(())
}

/// Takes over what the base has; reads what the repository has lost since.
async fn keep(
    source: &Disk,
    writer: &Writer,
    base: &Reader,
    range: ByteRange,
    progress: &Progress,
) -> Result<(), Error> {
    let chunks: Vec<u64> = select::chunks(range, writer.chunk_size()).collect();
    let is_zero = |index: &u64| base.chunk(*index) == ChunkRef::Zero;
    for alike in chunks.chunk_by(|a, b| is_zero(a) && is_zero(b)) {
        let covered =
            ByteRange::between(writer.chunk_range(alike[0]).offset, writer.chunk_range(alike[alike.len() - 1]).end());
        match base.chunk(alike[0]) {
            ChunkRef::Zero => {
                let taken = writer.take_over_zero(select::chunks(covered, writer.chunk_size())).await;
                taken.map_err(Error::repository("take over zeroes"))?;
                progress.skip(covered.length);
            }
            ChunkRef::Data(id) => {
                let taken = writer.take_over(alike[0], id).await;
                match taken.map_err(Error::repository("take over a chunk"))? {
                    TakeOver::Done => progress.settle(covered.length),
                    TakeOver::Unknown => read_again(source, writer, covered, progress).await?,
                }
            }
            ChunkRef::Unknown => read_again(source, writer, covered, progress).await?,
        }
    }
    Ok(())
}

async fn read_again(source: &Disk, writer: &Writer, range: ByteRange, progress: &Progress) -> Result<(), Error> {
    let bytes = source.read(range).await?;
    progress.add_read(range.length);
    store_chunks(writer, range, &bytes, progress).await
}

async fn store_chunks(writer: &Writer, range: ByteRange, bytes: &Bytes, progress: &Progress) -> Result<(), Error> {
    for index in select::chunks(range, writer.chunk_size()) {
        let chunk = writer.chunk_range(index);
        let start = usize::try_from(chunk.offset - range.offset).expect("within one read");
        let data = bytes.slice(start..start + usize::try_from(chunk.length).expect("within one read"));
        if is_zero(&data) {
            writer.put_zero_chunk(index).await.map_err(Error::repository("note zeroes"))?;
            progress.skip(chunk.length);
        } else {
            writer.put_chunk(index, data).await.map_err(Error::repository("store a chunk"))?;
            progress.settle(chunk.length);
        }
    }
    Ok(())
}

async fn put_zero(writer: &Writer, range: ByteRange) -> Result<(), Error> {
    let chunks = select::chunks(range, writer.chunk_size());
    writer.put_zero(chunks).await.map_err(Error::repository("note zeroes"))
}

async fn commit(source: &Disk, writer: &Writer, cancel: &CancellationToken) -> Result<RestorePoint, Error> {
    let mut tries = COMMIT_TRIES;
    loop {
        let committed = tokio::select! {
            biased;
            committed = writer.commit() => committed,
            () = late(cancel) => return Err(Error::Cancelled),
        };
        match committed {
            Ok(point) => return Ok(point),
            Err(repository::Error::SendAgain { chunks }) if tries > 1 => {
                tries -= 1;
                tracing::warn!(chunks = chunks.len(), "known chunks vanished from the repository, sending them again");
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Err(Error::Cancelled),
                    sent = send_again(source, writer, &chunks) => sent?,
                }
            }
            Err(error) => return Err(Error::repository("commit the restore point")(error)),
        }
    }
}

async fn late(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(COMMIT_GRACE).await;
}

async fn send_again(source: &Disk, writer: &Writer, chunks: &[u64]) -> Result<(), Error> {
    for index in chunks {
        let data = source.read(writer.chunk_range(*index)).await?;
        writer.put_chunk(*index, data).await.map_err(Error::repository("store a chunk again"))?;
    }
    Ok(())
}
