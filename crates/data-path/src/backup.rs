//! Disk to repository: reads what may hold data, in disk order and several reads ahead, and hands chunks to the writer.
//!
//! Any read error ends the backup; nothing is skipped. Without a commit there is no restore point.

use std::time::{Duration, Instant};

use bytes::Bytes;
use disk::ByteRange;
use futures::{StreamExt, stream};
use repository::{RestorePoint, Writer, WriterStats, is_zero};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::disk_access::Disk;
use crate::error::Error;
use crate::limits::{READ_BYTES, READS_IN_FLIGHT, WAITING_BYTES, WINDOW_BYTES};
use crate::progress::{Counts, Progress};
use crate::select::{self, Piece};

/// A stopped writer that does not stop is left to itself after this long: a cancel ends in seconds.
const ABANDON_DEADLINE: Duration = Duration::from_secs(2);

/// A commit that is cancelled may finish within this time, and then counts: it may be past the point of no return.
/// Later it is dropped, and the writer removes what it may have committed.
const COMMIT_GRACE: Duration = Duration::from_secs(2);

/// Chunks that vanish while we write (somebody prunes) are sent again this often.
const COMMIT_TRIES: usize = 3;

/// How a backup reads.
#[derive(Debug, Clone, Copy)]
pub struct BackupOptions {
    /// Reads under way at once.
    pub reads_in_flight: usize,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self { reads_in_flight: READS_IN_FLIGHT }
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
}

/// Backs up all of `source` through `writer`.
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
    let outcome = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        copied = copy(source, &writer, options, progress) => copied,
    };
    let outcome = match outcome {
        Ok(()) if cancel.is_cancelled() => Err(Error::Cancelled),
        Ok(()) => commit(source, &writer, cancel).await,
        Err(error) => Err(error),
    };
    let stats = writer.stats();
    progress.set_stored(stats.bytes_stored);
    match outcome {
        Ok(point) => Ok(BackupReport { point, counts: progress.counts(), stats, elapsed: began.elapsed() }),
        Err(error) => {
            if tokio::time::timeout(ABANDON_DEADLINE, writer.abandon()).await.is_err() {
                tracing::warn!("the writer did not stop in time; what it still stores belongs to no restore point");
            }
            Err(error)
        }
    }
}

/// Bytes of the disk on their way to the writer; `None`: zeroes that were not read.
type Part = (ByteRange, Option<Bytes>);

async fn copy(source: &Disk, writer: &Writer, options: &BackupOptions, progress: &Progress) -> Result<(), Error> {
    let (size, chunk) = (source.size(), writer.chunk_size());
    let point = writer.chunk_count().checked_sub(1).map_or(0, |last| writer.chunk_range(last).end());
    if point != size {
        return Err(Error::SizeChanged { disk: size, point });
    }
    progress.begin(size);
    let waiting = usize::try_from(WAITING_BYTES / READ_BYTES).expect("a handful");
    let (parts, waiting_parts) = mpsc::channel(waiting);
    let reading = read_parts(source, chunk, options.reads_in_flight.max(1), parts);
    tokio::try_join!(reading, store_parts(writer, waiting_parts, progress))?;
    Ok(())
}

async fn read_parts(source: &Disk, chunk: u64, in_flight: usize, parts: mpsc::Sender<Part>) -> Result<(), Error> {
    for window in select::windows(source.size(), WINDOW_BYTES.next_multiple_of(chunk)) {
        let data = source.data_in(window).await?;
        let pieces = select::pieces(window, &data, chunk, READ_BYTES);
        let mut read = stream::iter(pieces).map(|piece| read_piece(source, piece)).buffered(in_flight);
        while let Some(part) = read.next().await {
            if parts.send(part?).await.is_err() {
                return Ok(()); // the storing half ended, with the error that counts
            }
        }
    }
    Ok(())
}

async fn read_piece(source: &Disk, piece: Piece) -> Result<Part, Error> {
    match piece {
        Piece::Zero(range) => Ok((range, None)),
        Piece::Read(range) => source.read(range).await.map(|bytes| (range, Some(bytes))),
    }
}

async fn store_parts(writer: &Writer, mut parts: mpsc::Receiver<Part>, progress: &Progress) -> Result<(), Error> {
    while let Some((range, bytes)) = parts.recv().await {
        match bytes {
            None => {
                put_zero(writer, range).await?;
                progress.skip(range.length);
            }
            Some(bytes) => {
                progress.add_read(range.length);
                store_chunks(writer, range, &bytes, progress).await?;
            }
        }
        progress.set_stored(writer.stats().bytes_stored);
    }
    Ok(())
}

async fn store_chunks(writer: &Writer, range: ByteRange, bytes: &Bytes, progress: &Progress) -> Result<(), Error> {
    for index in select::chunks(range, writer.chunk_size()) {
        let chunk = writer.chunk_range(index);
        let start = usize::try_from(chunk.offset - range.offset).expect("within one read");
        let data = bytes.slice(start..start + usize::try_from(chunk.length).expect("within one read"));
        if is_zero(&data) {
            put_zero(writer, chunk).await?;
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
