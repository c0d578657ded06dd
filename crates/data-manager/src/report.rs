//! What a transfer says about itself while it runs: its object as last written, and how far it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::{Reason, Timestamp};
use k8s_openapi::serde_json::{Value, json};
use kube::{Api, Client, ResourceExt as _};
use lifecycle::Problem;
use operator::{Guard, Note, Publisher, Reported};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Pause between two words on progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Pauses between tries to write a status while the API server does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a process that ends tries to say so.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(2);

/// The voice of one transfer. Only the holder of the lease may have one.
pub(crate) struct Report<K: Reported> {
    publisher: Publisher,
    objects: Api<K>,
    told: Mutex<Told<K>>,
    lease_lost: CancellationToken,
    was_refused: AtomicBool,
}

/// What the API server is known to have.
struct Told<K> {
    object: K,
    /// Statuses that were sent and whose answers are not known.
    sent: Vec<Value>,
}

/// What became of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// It is written.
    Taken,
    /// The object was deleted: nobody is left to hear it.
    Gone,
    /// The lease is lost: another node may speak by now, and nothing was written over its words.
    NotOurs,
    /// The API server refuses it, and would refuse it again: an event says why.
    Refused,
}

impl<K: Reported> Report<K> {
    pub(crate) fn new(publisher: Publisher, client: Client, object: K, lease_lost: CancellationToken) -> Self {
        let objects = Api::namespaced(client, &object.namespace().unwrap_or_default());
        let told = Mutex::new(Told { object, sent: Vec::new() });
        Self { publisher, objects, told, lease_lost, was_refused: AtomicBool::new(false) }
    }

    /// Whether the API server has refused the last word for good.
    pub(crate) fn was_refused(&self) -> bool {
        self.was_refused.load(Ordering::Relaxed)
    }

    /// The object as it was last read or written.
    pub(crate) async fn object(&self) -> K {
        self.told.lock().await.object.clone()
    }

    /// Whether another node may have the transfer by now: then nothing of it may be touched any more.
    pub(crate) fn is_silenced(&self) -> bool {
        self.lease_lost.is_cancelled()
    }

    /// Writes what `change` makes of the present status, until the API server takes it or refuses it for good, the object
    /// is gone, or the lease is lost.
    pub(crate) async fn say(&self, change: impl Fn(&K::Status, Timestamp) -> K::Status) -> Said {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.try_say(&change).await {
                Ok(said) => {
                    self.was_refused.store(false, Ordering::Relaxed);
                    return said;
                }
                Err(error) => error,
            };
            tracing::warn!(error = %Problem::chain(&error), "the status was not taken");
            if let Some((_, cause)) = error.answer().filter(|(code, _)| lifecycle::retry::is_final(*code)) {
                // repeating it for ever would keep lease and slot
                self.was_refused.store(true, Ordering::Relaxed);
                let problem = Problem::lasting(Reason::StatusRefused, cause);
                let note = Note { reason: problem.reason, message: problem.message(), warning: true };
                self.publisher.note(&self.object().await, &note).await;
                return Said::Refused;
            }
            tokio::select! {
                () = self.lease_lost.cancelled() => return Said::NotOurs,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// As [`Report::say`], for a word that is not worth a wait: the process is about to end.
    pub(crate) async fn say_shortly(&self, change: impl Fn(&K::Status, Timestamp) -> K::Status) {
        if tokio::time::timeout(LAST_WORD_WITHIN, self.say(change)).await.is_err() {
            tracing::info!("the API server does not answer; the last word is left out");
        }
    }

    async fn try_say(&self, change: impl Fn(&K::Status, Timestamp) -> K::Status) -> Result<Said, operator::Error> {
        let mut told = self.told.lock().await;
        tokio::select! {
            biased;
            () = self.lease_lost.cancelled() => Ok(Said::NotOurs),
            said = self.write(&mut told, change) => said,
        }
    }

    /// Writes only over what is known, so that a word that comes late cannot take the place of the new holder's.
    async fn write(
        &self,
        told: &mut Told<K>,
        change: impl Fn(&K::Status, Timestamp) -> K::Status,
    ) -> Result<Said, operator::Error> {
        loop {
            let status = change(&told.object.status().cloned().unwrap_or_default(), Timestamp::now());
            told.sent.push(json!(status));
            match self.publisher.publish(&told.object, &status, Guard::Unchanged).await {
                Ok(written) => {
                    told.object = written.unwrap_or_else(|| told.object.clone());
                    told.sent.clear();
                    return Ok(Said::Taken);
                }
                Err(error) if error.is_not_found() => return Ok(Said::Gone),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
            let name = told.object.name_any();
            let fresh = self.objects.get_opt(&name).await;
            let fresh = fresh.map_err(|e| operator::Error::api(format!("read {} {name}", K::kind(&())), e))?;
            let Some(fresh) = fresh.filter(|fresh| fresh.uid() == told.object.uid()) else { return Ok(Said::Gone) };
            let now = json!(fresh.status());
            if now != json!(told.object.status()) && !told.sent.contains(&now) {
                tracing::warn!(name, "somebody else writes this status: stopping");
                self.lease_lost.cancel();
                return Ok(Said::NotOurs);
            }
            told.object = fresh; // something else of it was changed, or our own word was taken and its answer lost
        }
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
                    let name = self.told.lock().await.object.name_any();
                    tracing::debug!(name, error = %Problem::chain(&error), "progress was not taken");
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
        let before = self.settled.max(counts.resumed);
        let rate = per_second(counts.settled.saturating_sub(before), self.at.elapsed());
        (self.at, self.settled) = (Instant::now(), counts.settled);
        told(&counts, rate)
    }
}

/// Progress at the end, with the rate over the whole transfer.
pub(crate) fn at_the_end(counts: &data_path::Counts, took: Duration) -> api::Progress {
    told(counts, per_second(counts.total.saturating_sub(counts.resumed), took))
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

#[cfg(test)]
mod tests;
