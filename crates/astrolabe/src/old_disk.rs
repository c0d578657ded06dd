//! A backup in the original's layout, open for reading: every byte of its disk, known to be there before the first is read.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use disk::ByteRange;
use futures::future;
use repository::store::{self, S3Store, Store as _};

use crate::segments::Segments;

/// One disk of the original. Clones share everything.
#[derive(Clone)]
pub struct OldDisk {
    shared: Arc<Shared>,
}

struct Shared {
    bucket: S3Store,
    segments: Segments,
    digest: String,
    /// Microseconds of all reads, one after the other.
    reading: AtomicU64,
}

impl fmt::Debug for OldDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldDisk").field("stream", &self.shared.segments.stream()).finish_non_exhaustive()
    }
}

impl OldDisk {
    /// `segments` are all of the disk.
    pub(crate) fn new(bucket: S3Store, segments: Segments) -> Self {
        let digest = format!("{} {}", segments.stream(), segments.bytes());
        Self { shared: Arc::new(Shared { bucket, segments, digest, reading: AtomicU64::new(0) }) }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.shared.segments.bytes()
    }

    /// What tells its content from others': the original keeps no checksum, and never writes a stream anew that is whole, so
    /// it is where the stream lies, and how long it is.
    pub fn digest(&self) -> &str {
        &self.shared.digest
    }

    /// The objects it consists of.
    pub fn segments(&self) -> &Segments {
        &self.shared.segments
    }

    /// How long was read, in all; what goes on at the same time counts as often.
    pub fn spent(&self) -> Duration {
        Duration::from_micros(self.shared.reading.load(Relaxed))
    }

    /// The bytes of `range`, which lies within the disk: one request for each segment it touches.
    ///
    /// # Errors
    /// As the store says; also when an object is shorter than it was.
    pub async fn read(&self, range: ByteRange) -> Result<Bytes, store::Error> {
        let began = Instant::now();
        let parts = self.shared.segments.parts(range);
        let reads = parts.map(|(key, part)| self.shared.bucket.get_range(key, part.offset, part.length));
        let mut read = future::try_join_all(reads).await?;
        self.shared.reading.fetch_add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
        Ok(match read.len() {
            1 => read.remove(0),
            _ => read.into_iter().flatten().collect::<BytesMut>().freeze(),
        })
    }
}
