//! What a transfer says about itself while it runs: its object as last written, and how far it is.

use std::time::{Duration, Instant};

use api::Timestamp;
use kube::ResourceExt as _;
use operator::{Guard, Publisher, Reported};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Pause between two words on progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Pauses between tries to write a status while the API server does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The voice of one transfer. Only the holder of the lease may have one.
pub(crate) struct Report<K: Reported> {
    publisher: Publisher,
    object: Mutex<K>,
    lease_lost: CancellationToken,
}

impl<K: Reported> Report<K> {
    pub(crate) fn new(publisher: Publisher, object: K, lease_lost: CancellationToken) -> Self {
        Self { publisher, object: Mutex::new(object), lease_lost }
    }

    /// The object as it was last read or written.
    pub(crate) async fn object(&self) -> K {
        self.object.lock().await.clone()
    }

    /// Writes what `change` makes of the present status, until the API server takes it, the object is gone, or the
    /// lease is lost: from then on another node may speak. Says whether it was taken.
    pub(crate) async fn say(&self, change: impl Fn(&K::Status, Timestamp) -> K::Status) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_say(&change).await {
                Ok(()) => return true,
                Err(error) if error.is_not_found() => return false, // deleted: nobody is left to hear it
                Err(error) => tracing::warn!(error = %lifecycle::Problem::chain(&error), "the status was not taken"),
            }
            tokio::select! {
                () = self.lease_lost.cancelled() => return false,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    async fn try_say(&self, change: impl Fn(&K::Status, Timestamp) -> K::Status) -> Result<(), operator::Error> {
        if self.lease_lost.is_cancelled() {
            return Ok(());
        }
        let mut object = self.object.lock().await;
        let status = change(&object.status().cloned().unwrap_or_default(), Timestamp::now());
        if let Some(written) = self.publisher.publish(&*object, &status, Guard::Merge).await? {
            *object = written;
        }
        Ok(())
    }

    /// Tells how far `work` is every two seconds while it runs. A word that is not taken is skipped: the next one
    /// says more.
    pub(crate) async fn progress_while<T>(
        &self,
        work: impl Future<Output = T>,
        progress: &data_path::Progress,
        change: impl Fn(&K::Status, api::Progress) -> K::Status,
    ) -> T {
        let telling = async {
            let mut meter = Meter::new();
            loop {
                tokio::time::sleep(PROGRESS_EVERY).await;
                let so_far = meter.read(progress);
                if let Err(error) = self.try_say(|status, _| change(status, so_far)).await {
                    let name = self.object.lock().await.name_any();
                    tracing::debug!(name, error = %lifecycle::Problem::chain(&error), "progress was not taken");
                }
            }
        };
        tokio::select! {
            done = work => done,
            () = telling => unreachable!("it tells until the work is done"),
        }
    }
}

/// Turns counters into progress with a rate of the last interval.
struct Meter {
    at: Instant,
    settled: u64,
}

impl Meter {
    fn new() -> Self {
        Self { at: Instant::now(), settled: 0 }
    }

    fn read(&mut self, progress: &data_path::Progress) -> api::Progress {
        let counts = progress.counts();
        let rate = per_second(counts.settled.saturating_sub(self.settled), self.at.elapsed());
        (self.at, self.settled) = (Instant::now(), counts.settled);
        told(&counts, rate)
    }
}

/// Progress at the end, with the rate over the whole transfer.
pub(crate) fn at_the_end(counts: &data_path::Counts, took: Duration) -> api::Progress {
    told(counts, per_second(counts.total, took))
}

fn told(counts: &data_path::Counts, bytes_per_second: u64) -> api::Progress {
    api::Progress {
        total_bytes: counts.total,
        bytes_done: counts.settled,
        bytes_read: counts.read,
        bytes_stored: counts.stored,
        bytes_per_second,
    }
}

fn per_second(bytes: u64, took: Duration) -> u64 {
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / milliseconds
}
