//! Holds several disks together to so many bytes a second. Who takes bytes waits until they are due; a change counts at once,
//! also for who waits.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Bytes that may come at once after a pause, as time at the full rate: enough to keep several reads under way.
const AHEAD: Duration = Duration::from_millis(100);

/// A rate for all who share it.
#[derive(Debug)]
pub struct Throttle {
    rate: watch::Sender<Option<NonZeroU64>>,
    /// When the bytes that were promised so far are due.
    promised: Mutex<Option<Instant>>,
    waiting: AtomicUsize,
    waited_ms: AtomicU64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            rate: watch::Sender::new(None),
            promised: Mutex::default(),
            waiting: AtomicUsize::new(0),
            waited_ms: AtomicU64::new(0),
        }
    }
}

impl Throttle {
    /// Sets the rate in bytes a second; `None` lets everything through.
    pub fn set(&self, rate: Option<NonZeroU64>) {
        self.rate.send_if_modified(|now| {
            let changed = *now != rate;
            if changed {
                *now = rate;
                *self.promised() = None;
            }
            changed
        });
    }

    /// Whether somebody waits right now.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// How long all who took bytes have waited for them so far, added up; who still waits is not in it.
    pub fn waited(&self) -> Duration {
        Duration::from_millis(self.waited_ms.load(Relaxed))
    }

    /// Waits until so many bytes are due. Who is dropped meanwhile gives them back.
    pub async fn take(&self, bytes: u64) {
        let began = Instant::now();
        let mut changes = self.rate.subscribe();
        loop {
            let rate = *changes.borrow_and_update();
            let Some(promise) = rate.and_then(|rate| self.promise(rate, bytes)) else { break };
            tokio::select! {
                biased;
                () = sleep_until(promise.due) => {
                    promise.keep();
                    break;
                }
                changed = changes.changed() => {
                    promise.keep(); // a new rate has forgotten all promises
                    if changed.is_err() {
                        break;
                    }
                }
            }
        }
        let waited = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.waited_ms.fetch_add(waited, Relaxed);
    }

    /// When these bytes may go; `None` is now.
    fn promise(&self, rate: NonZeroU64, bytes: u64) -> Option<Promise<'_>> {
        let takes = Duration::from_secs_f64(to_f64(bytes) / to_f64(rate.get()));
        let now = Instant::now();
        let mut promised = self.promised();
        let earliest = now.checked_sub(AHEAD).unwrap_or(now);
        let due = promised.map_or(earliest, |at| at.max(earliest));
        *promised = due.checked_add(takes);
        (due > now).then(|| {
            self.waiting.fetch_add(1, Relaxed);
            Promise { throttle: self, due, takes: Some(takes) }
        })
    }

    fn promised(&self) -> MutexGuard<'_, Option<Instant>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that somebody waits for; dropped, they go to whoever comes next.
struct Promise<'t> {
    throttle: &'t Throttle,
    due: Instant,
    takes: Option<Duration>,
}

impl Promise<'_> {
    /// They were taken.
    fn keep(mut self) {
        self.takes = None;
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.throttle.waiting.fetch_sub(1, Relaxed);
        if let Some(takes) = self.takes {
            let mut promised = self.throttle.promised();
            *promised = promised.and_then(|at| at.checked_sub(takes));
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate need not be exact to the byte")]
fn to_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;
    use std::sync::Arc;

    const MIB: u64 = 1 << 20;

    async fn seconds_for(throttle: &Arc<Throttle>, tasks: u64, pieces: u64) -> f64 {
        let began = Instant::now();
        let take = |_| {
            let throttle = throttle.clone();
            tokio::spawn(async move {
                for _ in 0..pieces {
                    throttle.take(MIB).await;
                }
            })
        };
        for task in (0..tasks).map(take).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        began.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_share_a_throttle_share_its_rate() {
        let throttle = Arc::new(Throttle::default());
        assert!(seconds_for(&throttle, 4, 100).await < 0.01, "nothing is limited");
        throttle.set(NonZeroU64::new(10 * MIB));
        for tasks in [1, 4] {
            let took = seconds_for(&throttle, tasks, 100 / tasks).await;
            assert!((9.0..10.5).contains(&took), "{tasks} took {took} s for 100 MiB at 10 MiB/s");
        }
        assert!(throttle.waited() > Duration::from_secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_counts_for_who_waits_already() {
        let throttle = Arc::new(Throttle::default());
        throttle.set(NonZeroU64::new(1));
        let waiting = throttle.clone();
        let waiting = tokio::spawn(async move {
            waiting.take(MIB).await; // goes at once, and is paid for by the next
            waiting.take(MIB).await;
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        throttle.set(None);
        tokio::time::timeout(Duration::from_secs(1), waiting).await.expect("it is free").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_is_not_waited_for_by_others() {
        let throttle = Arc::new(Throttle::default());
        throttle.set(NonZeroU64::new(MIB / 10));
        throttle.take(MIB).await;
        let leaving: Vec<_> = (0..8)
            .map(|_| {
                let throttle = throttle.clone();
                tokio::spawn(async move { throttle.take(MIB).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(throttle.is_waited_for());
        for task in &leaving {
            task.abort();
        }
        for task in leaving {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert!(!throttle.is_waited_for());
        let began = Instant::now();
        throttle.take(MIB).await;
        assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_not_made_up_for() {
        let throttle = Arc::new(Throttle::default());
        throttle.set(NonZeroU64::new(10 * MIB));
        seconds_for(&throttle, 1, 10).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let took = seconds_for(&throttle, 1, 50).await;
        assert!(took > 4.5, "50 MiB took {took} s at 10 MiB/s");
    }
}
