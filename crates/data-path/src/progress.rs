//! How far a transfer is: counters that the engine advances and anyone may read meanwhile.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// Counters of one transfer, all in bytes of the disk unless said otherwise. Share it by `Arc`.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    settled: AtomicU64,
    read: AtomicU64,
    stored: AtomicU64,
    skipped: AtomicU64,
    resumed: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Size of the disk.
    pub total: u64,
    /// Bytes of the disk that need no more work; equal to `total` when the transfer is complete.
    pub settled: u64,
    /// Bytes read: from the disk in a backup, of plaintext out of the repository in a restore or verify.
    pub read: u64,
    /// Bytes put: into the store in a backup (after compression), onto the target in a restore.
    pub stored: u64,
    /// Bytes that were not moved because they are zero.
    pub skipped: u64,
    /// Bytes that an earlier attempt had settled.
    pub resumed: u64,
}

impl Progress {
    /// All counters at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters now.
    pub fn counts(&self) -> Counts {
        Counts {
            total: self.total.load(Relaxed),
            settled: self.settled.load(Relaxed),
            read: self.read.load(Relaxed),
            stored: self.stored.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            resumed: self.resumed.load(Relaxed),
        }
    }

    pub(crate) fn begin(&self, total: u64) {
        for counter in [&self.settled, &self.read, &self.stored, &self.skipped, &self.resumed] {
            counter.store(0, Relaxed);
        }
        self.total.store(total, Relaxed);
    }

    pub(crate) fn settle(&self, bytes: u64) {
        self.settled.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn skip(&self, bytes: u64) {
        self.skipped.fetch_add(bytes, Relaxed);
        self.settle(bytes);
    }

    /// Counts what an earlier attempt has settled.
    pub(crate) fn resume(&self, bytes: u64) {
        self.resumed.fetch_add(bytes, Relaxed);
        self.settle(bytes);
    }

    pub(crate) fn add_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn add_stored(&self, bytes: u64) {
        self.stored.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn set_stored(&self, bytes: u64) {
        self.stored.store(bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_begins_again_at_zero() {
        let progress = Progress::new();
        progress.begin(100);
        progress.resume(20);
        progress.skip(60);
        progress.add_read(40);
        progress.set_stored(7);
        let want = Counts { total: 100, settled: 80, read: 40, stored: 7, skipped: 60, resumed: 20 };
        assert_eq!(progress.counts(), want);
        progress.begin(200);
        assert_eq!(progress.counts(), Counts { total: 200, ..Counts::default() });
    }
}
