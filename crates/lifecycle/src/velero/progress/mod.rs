//! What Velero hears about an operation. Every answer is a fact about an object at one moment; an answer that says
//! *failed* is final for Velero (trap P-15), so only what cannot change any more does.

use api::conditions::{self, READY};
use api::{CloneFromSnapshot, ClonePhase, Condition, Progress, Reason, Snapshot, SnapshotPhase, Time, Timestamp};
use k8s_openapi::jiff::SignedDuration;

use super::Settings;
use crate::stored::was_stored;
use crate::{Again, Problem};

/// Unit of the counts.
pub const UNITS: &str = "Bytes";
/// Velero gives up a little later than we do, so that our words are the ones that are kept.
const AHEAD: SignedDuration = SignedDuration::from_secs(5);

/// What Velero hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Nothing follows.
    pub completed: bool,
    /// Why it failed, and what helps; empty while it runs and when it went well.
    pub error: String,
    /// Bytes that are settled.
    pub done: u64,
    /// Bytes in all; zero while nobody knows.
    pub total: u64,
    /// Where it stands, for people.
    pub description: String,
    /// When it began; `None` until the driver has begun, which goes on the wire as Go's zero time.
    pub started: Option<Timestamp>,
    /// When the counts were true.
    pub updated: Option<Timestamp>,
    /// Velero will not wait any longer: the work has to be stopped, since Velero does not do it (trap V-10).
    pub stop: bool,
}

/// What is known when Velero asks.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The user's settings.
    pub settings: Settings,
    /// How long the operation may take, as the backup or restore says.
    pub timeout: SignedDuration,
    /// Now.
    pub now: Timestamp,
}

/// How a backup's operation stands. `None`: there is no such Snapshot.
pub fn of_snapshot(id: &str, snapshot: Option<&Snapshot>, asked: &Asked) -> Answer {
    let Some(snapshot) = snapshot else { return gone(id, "Snapshot", asked) };
    let status = snapshot.status.clone().unwrap_or_default();
    let seen = Seen {
        created: snapshot.metadata.creation_timestamp.as_ref(),
        ended: status.completion_timestamp.as_ref(),
        begun: status.phase.as_ref().is_some_and(|p| *p != SnapshotPhase::New),
        progress: status.progress,
        conditions: &status.conditions,
    };
    let recorded = status.snapshot_id.as_deref().is_some_and(|id| !id.is_empty());
    let local = snapshot.spec.backup_repository.is_empty();
    match status.phase {
        Some(SnapshotPhase::SnapshotFailed | SnapshotPhase::Canceled | SnapshotPhase::UploadFailedAfterRetry) => {
            seen.failed(told(&status.conditions, status.message.as_deref()), asked)
        }
        Some(SnapshotPhase::Uploaded) => seen.well("the data is in the repository", asked),
        Some(SnapshotPhase::CleanupAfterUploadFailed) if seen.is_over(asked) && was_stored(&status.conditions) => {
            seen.well("the data is in the repository; the disk snapshot could not be deleted in vSphere yet", asked)
        }
        Some(_) if recorded && local && !crate::snapshot::is_undone(snapshot) => {
            seen.well("local mode: the disk snapshot stays in vSphere", asked)
        }
        Some(_) if recorded && !local && asked.settings.complete_after_snapshot => {
            seen.well("the disk snapshot exists; the upload goes on", asked)
        }
        _ => seen.running(asked),
    }
}

/// How a restore's operation stands. `None`: there is no such CloneFromSnapshot.
pub fn of_clone(id: &str, clone: Option<&CloneFromSnapshot>, asked: &Asked) -> Answer {
    let Some(clone) = clone else { return gone(id, "CloneFromSnapshot", asked) };
    let status = clone.status.clone().unwrap_or_default();
    let seen = Seen {
        created: clone.metadata.creation_timestamp.as_ref(),
        ended: status.completion_timestamp.as_ref(),
        begun: status.phase.as_ref().is_some_and(|p| *p != ClonePhase::New),
        progress: status.progress.unwrap_or_default(),
        conditions: &status.conditions,
    };
    match status.phase {
        Some(ClonePhase::Completed) => seen.well("the claim is bound and holds the data", asked),
        Some(ClonePhase::Failed | ClonePhase::Canceled) => {
            seen.failed(told(&status.conditions, status.message.as_deref()), asked)
        }
        _ => seen.running(asked),
    }
}

/// Nobody will ever know more. A finished object is kept for a day, and Velero waits four hours.
fn gone(id: &str, kind: &str, asked: &Asked) -> Answer {
    let problem = Problem::lasting(Reason::RequestDeleted, format!("follow {kind} {id}: it was deleted"));
    Answer {
        completed: true,
        error: problem.in_one_line(),
        done: 0,
        total: 0,
        description: Reason::RequestDeleted.meaning().to_owned(),
        started: None,
        updated: Some(asked.now),
        stop: false,
    }
}

/// The same of both kinds.
struct Seen<'a> {
    created: Option<&'a Time>,
    ended: Option<&'a Time>,
    begun: bool,
    progress: Progress,
    conditions: &'a [Condition],
}

impl Seen<'_> {
    fn answer(&self, asked: &Asked, description: String) -> Answer {
        let begun = self.begun || self.progress.bytes_done > 0;
        Answer {
            completed: false,
            error: String::new(),
            done: self.progress.bytes_done.min(self.progress.total_bytes),
            total: self.progress.total_bytes,
            description,
            started: self.created.filter(|_| begun).map(|t| t.0),
            updated: begun.then(|| self.ended.map_or(asked.now, |t| t.0)),
            stop: false,
        }
    }

    fn well(&self, what: &str, asked: &Asked) -> Answer {
        let answer = self.answer(asked, what.to_owned());
        Answer { completed: true, ..answer }
    }

    fn failed(&self, problem: Problem, asked: &Asked) -> Answer {
        let answer = self.answer(asked, problem.reason.meaning().to_owned());
        Answer { completed: true, error: problem.in_one_line(), ..answer }
    }

    fn running(&self, asked: &Asked) -> Answer {
        let ready = conditions::get(self.conditions, READY);
        let reason = ready.and_then(|c| Reason::from_word(&c.reason));
        let description = match reason {
            None => "waiting for the driver".to_owned(),
            Some(reason) => described(reason, ready.map(|c| c.message.as_str()).unwrap_or_default(), &self.progress),
        };
        let answer = self.answer(asked, description);
        if !self.is_over(asked) {
            return answer;
        }
        let waited = match asked.timeout.as_secs() {
            seconds @ ..120 => format!("{seconds} s"),
            seconds => format!("{} min", seconds / 60),
        };
        let cause = format!("wait {waited}: {}", answer.description);
        let problem = match reason {
            Some(reason) => Problem { reason, cause, fix: None, again: Again::Never },
            None => Problem::lasting(Reason::DriverSilent, cause),
        };
        Answer { completed: true, error: problem.in_one_line(), stop: true, ..answer }
    }

    fn is_over(&self, asked: &Asked) -> bool {
        let timeout = asked.timeout.saturating_sub(AHEAD);
        self.created.is_some_and(|created| asked.now.duration_since(created.0) >= timeout)
    }
}

/// A phase in words: what it is doing, how fast, and what the driver says beyond that.
fn described(reason: Reason, message: &str, progress: &Progress) -> String {
    let mut text = reason.meaning().trim_end_matches('.').to_owned();
    if !text.chars().nth(1).is_some_and(char::is_uppercase) {
        text = text[..1].to_lowercase() + &text[1..];
    }
    if progress.bytes_per_second > 0 && matches!(reason, Reason::Uploading | Reason::Downloading) {
        text.push_str(&format!(", {} MiB/s", progress.bytes_per_second.div_ceil(1 << 20)));
    }
    if !message.is_empty() && !matches!(reason, Reason::Queued | Reason::Uploading | Reason::Downloading) {
        text.push_str(": ");
        text.push_str(message);
    }
    text
}

/// Why an object of ours failed, as its status tells it.
pub(super) fn told(conditions_: &[Condition], message: Option<&str>) -> Problem {
    let ready = conditions::get(conditions_, READY);
    let reason = ready.and_then(|c| Reason::from_word(&c.reason)).unwrap_or(Reason::Internal);
    let said = message.or(ready.map(|c| c.message.as_str())).filter(|m| !m.is_empty());
    let cause = said.unwrap_or("it failed and did not say why");
    // the message already ends with what helps
    let cause = cause.trim_end_matches(reason.fix()).trim_end().to_owned();
    Problem { reason, cause, fix: None, again: Again::Never }
}

#[cfg(test)]
mod tests;
