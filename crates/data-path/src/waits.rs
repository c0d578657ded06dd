//! What a transfer waited for: the disk, the CPU or the store. Whoever wants it faster knows where to look.
//!
//! The network is in the share of whichever end lies behind it: from here a slow link and a slow server look the same.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// Shares of a transfer's time; they add up to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waits {
    /// The disk's server did not give, or take, bytes as fast as the rest could.
    pub disk: f64,
    /// Hashing, compressing and encrypting, or their reverse.
    pub cpu: f64,
    /// The store did not take, or give, packs as fast as the rest could.
    pub store: f64,
}

impl Waits {
    /// Each with its name, for metrics.
    pub fn shares(&self) -> [(&'static str, f64); 3] {
        [("disk", self.disk), ("cpu", self.cpu), ("store", self.store)]
    }

    /// Of `elapsed`, what was measured at either end; the CPU has the rest.
    pub(crate) fn of(elapsed: Duration, disk: Duration, store: Duration) -> Self {
        let elapsed = elapsed.as_secs_f64().max(f64::EPSILON);
        let disk = (disk.as_secs_f64() / elapsed).min(1.0);
        let store = (store.as_secs_f64() / elapsed).min(1.0 - disk);
        Self { disk, cpu: 1.0 - disk - store, store }
    }
}

impl std::fmt::Display for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |share: f64| share * 100.0;
        let (disk, cpu, store) = (percent(self.disk), percent(self.cpu), percent(self.store));
        write!(f, "waited {disk:.0} % for the disk, {cpu:.0} % for the CPU, {store:.0} % for the store")
    }
}

/// Time that somebody spent waiting; may be added to from many tasks.
#[derive(Debug, Default)]
pub(crate) struct Waited(AtomicU64);

impl Waited {
    /// Counts how long `work` takes.
    pub(crate) async fn on<T>(&self, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.await;
        self.add(began.elapsed());
        done
    }

    fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn total(&self) -> Duration {
        Duration::from_micros(self.0.load(Relaxed))
    }
}

/// How long all of `places` were taken at once: then whoever works on them is what the others wait for.
#[derive(Debug)]
pub(crate) struct Full {
    places: usize,
    taken: AtomicUsize,
    since: Mutex<Option<Instant>>,
    waited: Waited,
}

impl Full {
    pub(crate) fn new(places: usize) -> Self {
        Self { places, taken: AtomicUsize::new(0), since: Mutex::default(), waited: Waited::default() }
    }

    /// Does `work` on one of the places.
    pub(crate) async fn on<T>(&self, work: impl Future<Output = T>) -> T {
        if self.taken.fetch_add(1, Relaxed) + 1 == self.places {
            *self.since() = Some(Instant::now());
        }
        let done = work.await;
        if self.taken.fetch_sub(1, Relaxed) == self.places
            && let Some(since) = self.since().take()
        {
            self.waited.add(since.elapsed());
        }
        done
    }

    pub(crate) fn total(&self) -> Duration {
        self.waited.total()
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_add_up_whatever_was_measured() {
        let second = Duration::from_secs(1);
        for (disk, store) in [(0.0, 0.0), (0.3, 0.2), (2.0, 1.0), (0.9, 0.9)] {
            let waits = Waits::of(second, second.mul_f64(disk), second.mul_f64(store));
            let sum: f64 = waits.shares().iter().map(|(_, share)| share).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{waits:?}");
            assert!(waits.shares().iter().all(|(_, share)| (0.0..=1.0).contains(share)), "{waits:?}");
        }
        let waits = Waits::of(second, second.mul_f64(0.3), second.mul_f64(0.2));
        assert_eq!(waits.to_string(), "waited 30 % for the disk, 50 % for the CPU, 20 % for the store");
        assert!(Waits::of(Duration::ZERO, Duration::ZERO, Duration::ZERO).cpu > 0.99);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_time_in_which_all_places_are_taken_counts() {
        let full = Full::new(2);
        let work = |seconds| full.on(tokio::time::sleep(Duration::from_secs(seconds)));
        tokio::join!(work(1), work(3));
        assert_eq!(full.total().as_secs(), 1);
        work(5).await;
        assert_eq!(full.total().as_secs(), 1);
    }
}
