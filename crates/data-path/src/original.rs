//! Disk to the original's layout: every byte of it, holes as zeroes, in parts of which several are under way.
//!
//! What is a hole is not read from the disk, but sent all the same: the layout has no other word for it.

use std::time::{Duration, Instant};

use astrolabe::{OpenSegment, Writer};
use bytes::{Bytes, BytesMut};
use disk::ByteRange;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use crate::disk_access::Disk;
use crate::error::Error;
use crate::limits::{PARTS_IN_FLIGHT, READ_BYTES, READS_IN_FLIGHT};
use crate::progress::{Counts, Progress};
use crate::select;
use crate::waits::{Full, Waited, Waits};

/// A copy whose bytes are all in the bucket. It is no backup before [`Writer::commit`].
#[derive(Debug, Clone)]
pub struct OriginalReport {
    /// The counters at the end.
    pub counts: Counts,
    /// From the first question to the last answer.
    pub elapsed: Duration,
    /// What that time went by with.
    pub waits: Waits,
}

/// Copies all of `source` through `writer`, but for what an earlier attempt has stored.
///
/// # Errors
/// After any error, and after `cancel`, there is no backup; what was stored is gone on with by the next attempt.
pub async fn back_up_as_original(
    source: &Disk,
    writer: &Writer,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<OriginalReport, Error> {
    let began = Instant::now();
    let (size, point) = (source.size(), writer.size());
    if size != point {
        return Err(Error::SizeChanged { disk: size, point });
    }
    progress.begin(size);
    progress.resume(writer.whole());
    let copy = Copy { source, progress, reading: Waited::default(), sending: Full::new(PARTS_IN_FLIGHT) };
    tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::Cancelled),
        copied = copy.segments(writer) => copied?,
    }
    let elapsed = began.elapsed();
    let waits = Waits::of(elapsed, copy.reading.total().min(elapsed), copy.sending.total());
    Ok(OriginalReport { counts: progress.counts(), elapsed, waits })
}

struct Copy<'c> {
    source: &'c Disk,
    progress: &'c Progress,
    reading: Waited,
    /// While all of them are under way, the store is what the rest waits for.
    sending: Full,
}

impl Copy<'_> {
    async fn segments(&self, writer: &Writer) -> Result<(), Error> {
        let mut done = 0;
        while let Some(segment) = writer.open(done).await.map_err(store)? {
            self.segment(segment).await?;
            done += 1;
        }
        Ok(())
    }

    async fn segment(&self, segment: OpenSegment<'_>) -> Result<(), Error> {
        let missing = segment.missing();
        let there = segment.range().length - missing.iter().map(|(_, range)| range.length).sum::<u64>();
        self.progress.resume(there);
        let parts = stream::iter(missing).map(|(number, range)| self.part(&segment, number, range));
        parts.buffer_unordered(PARTS_IN_FLIGHT).try_collect::<()>().await?;
        segment.finish().await.map_err(store)
    }

    async fn part(&self, segment: &OpenSegment<'_>, number: i32, range: ByteRange) -> Result<(), Error> {
        let bytes = self.reading.on(self.read(range)).await?;
        self.sending.on(segment.put(number, bytes)).await.map_err(store)?;
        self.progress.add_stored(range.length);
        self.progress.settle(range.length);
        Ok(())
    }

    /// The bytes of `range`, of which only what may hold data is read.
    async fn read(&self, range: ByteRange) -> Result<Bytes, Error> {
        let data = self.source.data_in(range).await?;
        let within = |part: ByteRange, outer: ByteRange| ByteRange::new(outer.offset + part.offset, part.length);
        let wanted: Vec<ByteRange> = data
            .iter()
            .flat_map(|held| {
                let held = held.intersection(&range);
                select::windows(held.length, READ_BYTES).map(move |part| within(part, held))
            })
            .collect();
        let mut bytes = BytesMut::zeroed(usize::try_from(range.length).expect("a part is a few MiB"));
        let mut reads = stream::iter(wanted)
            .map(async |part| Ok::<_, Error>((part, self.source.read(part).await?)))
            .buffer_unordered((READS_IN_FLIGHT / PARTS_IN_FLIGHT).max(1));
        while let Some(read) = reads.next().await {
            let (part, read) = read?;
            let at = usize::try_from(part.offset - range.offset).expect("within the part");
            bytes[at..at + read.len()].copy_from_slice(&read);
            self.progress.add_read(part.length);
        }
        Ok(bytes.freeze())
    }
}

/// The store's word, as an error of a repository.
fn store(error: astrolabe::Error) -> Error {
    let source = match error {
        astrolabe::Error::Store { act, source } => repository::Error::Store { act: act.to_owned(), source },
        astrolabe::Error::Broken { act, source } => {
            let damage = repository::Damage::Malformed { object: String::new(), cause: source.to_string() };
            repository::Error::Damaged { act: act.to_owned(), source: damage }
        }
    };
    Error::Repository { act: "store the disk", source: Box::new(source) }
}
