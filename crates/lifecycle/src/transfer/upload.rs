//! What the status of an Upload says after each step. The caller writes it; only what differs goes over the wire.

use api::conditions::{self, INCREMENTAL, READY, Status};
use api::{Progress, Reason, Time, Timestamp, UploadPhase, UploadStatus};

use super::Transport;
use crate::content::Source;
use crate::limits::Limit;
use crate::retry::{UploadRetries, upload_back_off_minutes, upload_due};
use crate::{Again, Problem};

const WAITS_FOR_A_NODE: &str = "waiting for a node to take it";

/// What follows a failed attempt.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "made once per failed attempt; a box would only make it harder to use")]
pub enum AfterFailure {
    /// Another attempt: write this status.
    TryAgain(UploadStatus),
    /// No more attempts: delete the disk snapshot first, then [`given_up`].
    GiveUp,
}

/// The status a new Upload is posted with. It carries `nextRetryTimestamp`: the original's programs crash without it.
pub fn new(now: Timestamp) -> UploadStatus {
    let mut status = UploadStatus {
        phase: Some(UploadPhase::New),
        next_retry_timestamp: Some(Time(now)),
        ..UploadStatus::default()
    };
    tell(&mut status, Status::False, Reason::Queued, WAITS_FOR_A_NODE, now);
    status
}

/// The driver does not let it start yet, for [`Reason::DatastoreBusy`] or [`Reason::HostBusy`].
pub fn held_back(before: &UploadStatus, reason: Reason, why: &str, now: Timestamp) -> UploadStatus {
    let mut status = before.clone();
    tell(&mut status, Status::False, reason, why, now);
    status
}

/// The driver lets it start; says nothing new of one that it never held back.
pub fn admitted(before: &UploadStatus, now: Timestamp) -> UploadStatus {
    let mut status = before.clone();
    let says = |reason: Reason| conditions::get(&before.conditions, READY).is_some_and(|c| c.reason == reason.as_str());
    if says(Reason::DatastoreBusy) || says(Reason::HostBusy) {
        tell(&mut status, Status::False, Reason::Queued, WAITS_FOR_A_NODE, now);
    }
    status
}

/// A node has the lease and starts to copy.
pub fn started(before: &UploadStatus, node: &str, now: Timestamp) -> UploadStatus {
    let mut status = before.clone();
    if matches!(status.phase, None | Some(UploadPhase::New)) {
        status.start_timestamp = Some(Time(now));
        status.retry_count = 0;
    }
    status.phase = Some(UploadPhase::InProgress);
    status.processing_node = Some(node.to_owned());
    status.next_retry_timestamp.get_or_insert(Time(now));
    let (reason, message) = match taken_over_from(before, node) {
        Some(other) => (Reason::TakenOver, format!("node {node} goes on where node {other} was copying the disk")),
        None => (Reason::Uploading, format!("node {node} is copying the disk")),
    };
    tell(&mut status, Status::False, reason, &message, now);
    status
}

/// The node that copies stops in order, as for an update: another one goes on.
pub fn given_back(before: &UploadStatus, node: &str, now: Timestamp) -> UploadStatus {
    waits(before, Reason::Queued, &format!("node {node} stops; waiting for a node that goes on"), now)
}

/// The other node that was at work on it until now. After a failed attempt any node may make the next one: that is no
/// take-over.
fn taken_over_from<'s>(before: &'s UploadStatus, node: &str) -> Option<&'s str> {
    let was_at_work = before.phase == Some(UploadPhase::InProgress);
    before.processing_node.as_deref().filter(|other| was_at_work && !other.is_empty() && *other != node)
}

/// How far the copy is.
pub fn progressed(before: &UploadStatus, progress: Progress) -> UploadStatus {
    UploadStatus { progress, ..before.clone() }
}

/// Whether the setting that limits the node holds the copy up.
pub fn paced(before: &UploadStatus, limit: Option<&Limit>, node: &str, now: Timestamp) -> UploadStatus {
    let mut status = before.clone();
    let was_limited =
        conditions::get(&status.conditions, READY).is_some_and(|c| c.reason == Reason::RateLimited.as_str());
    match limit {
        Some(limit) => tell(&mut status, Status::False, Reason::RateLimited, &limit.to_string(), now),
        None if was_limited => {
            tell(&mut status, Status::False, Reason::Uploading, &format!("node {node} is copying the disk"), now);
        }
        None => {}
    }
    status
}

/// How its content is found: only what changed, or all, and why.
pub fn found(before: &UploadStatus, source: &Source, now: Timestamp) -> UploadStatus {
    let mut status = before.clone();
    let (only_changes, reason) = match source {
        Source::ChangedAreas { .. } => (Status::True, Reason::ChangedAreas),
        Source::AllocatedAreas(_) => (Status::False, Reason::AllocatedAreas),
    };
    conditions::set(&mut status.conditions, INCREMENTAL, only_changes, reason, &source.to_string(), now);
    status
}

/// The disk is open.
pub fn opened(before: &UploadStatus, transport: &Transport, now: Timestamp) -> UploadStatus {
    let mut status = before.clone();
    transport.note(&mut status.conditions, now);
    status
}

/// The copy waits for something while it holds the lease, such as a lock.
pub fn waits(before: &UploadStatus, reason: Reason, why: &str, now: Timestamp) -> UploadStatus {
    let mut status = before.clone();
    tell(&mut status, Status::False, reason, why, now);
    status
}

/// The restore point was read back and the disk snapshot is gone.
pub fn completed(before: &UploadStatus, progress: Progress, now: Timestamp) -> UploadStatus {
    let mut status = ended(before, UploadPhase::Completed, now);
    status.progress = progress;
    status.message = Some("Upload completed".to_owned());
    let found = conditions::get(&status.conditions, INCREMENTAL).map(|c| format!("; what was read: {}", c.message));
    let message = format!("the restore point was checked in the store{}", found.unwrap_or_default());
    tell(&mut status, Status::True, Reason::Completed, &message, now);
    status
}

/// The restore point was read back; the disk snapshot could not be deleted. Tried again without end: the data is safe.
pub fn cleanup_failed(before: &UploadStatus, problem: &Problem, now: Timestamp) -> UploadStatus {
    retry(before, UploadPhase::CleanupFailed, problem, now)
}

/// An attempt failed.
pub fn attempt_failed(
    before: &UploadStatus,
    problem: &Problem,
    retries: UploadRetries,
    now: Timestamp,
) -> AfterFailure {
    if problem.again == Again::Never || !retries.allow_after(before.retry_count) {
        return AfterFailure::GiveUp;
    }
    AfterFailure::TryAgain(retry(before, UploadPhase::UploadError, problem, now))
}

/// The last attempt failed. `snapshot` says whether the disk snapshot could be deleted; while it could not, the Upload
/// stays `CleanupFailed` and [`cleaned`] decides by what the repository holds, so that a failed upload never ends
/// `Completed`.
pub fn given_up(
    before: &UploadStatus,
    problem: &Problem,
    snapshot: Result<(), &Problem>,
    now: Timestamp,
) -> UploadStatus {
    if let Err(stays) = snapshot {
        return retry(before, UploadPhase::CleanupFailed, stays, now);
    }
    let mut status = ended(before, UploadPhase::UploadFailedAfterRetry, now);
    status.retry_count = before.retry_count.saturating_add(1);
    status.message = Some(problem.message());
    tell(&mut status, Status::False, problem.reason, &problem.message(), now);
    status
}

/// The disk snapshot is gone at last. Whether the Upload is done is what the repository says, not what the phase was.
pub fn cleaned(before: &UploadStatus, restore_point_exists: bool, now: Timestamp) -> UploadStatus {
    if restore_point_exists {
        return completed(before, before.progress, now);
    }
    let problem = Problem::lasting(
        Reason::RestorePointMissing,
        "the upload had failed before its disk snapshot could be deleted",
    );
    let mut status = ended(before, UploadPhase::UploadFailedAfterRetry, now);
    status.message = Some(problem.message());
    tell(&mut status, Status::False, problem.reason, &problem.message(), now);
    status
}

/// It was asked to stop and this node is stopping.
pub fn cancelling(before: &UploadStatus, now: Timestamp) -> UploadStatus {
    let mut status = ended(before, UploadPhase::Canceling, now);
    status.next_retry_timestamp = Some(Time(now)); // a back-off of the copy is over
    status.message = Some("The upload is being cancelled".to_owned());
    tell(&mut status, Status::False, Reason::Canceling, "asked to stop", now);
    status
}

/// Cancelling could not delete everything yet; it is tried again. The phase stays `Canceling`.
pub fn cancel_waits(before: &UploadStatus, problem: &Problem, now: Timestamp) -> UploadStatus {
    retry(before, UploadPhase::Canceling, problem, now)
}

/// It was asked to stop; disk snapshot and half-made objects are gone.
pub fn canceled(before: &UploadStatus, now: Timestamp) -> UploadStatus {
    let mut status = ended(before, UploadPhase::Canceled, now);
    status.message = Some("The upload was cancelled".to_owned());
    tell(&mut status, Status::False, Reason::Canceled, "asked to stop; nothing is left behind", now);
    status
}

fn ended(before: &UploadStatus, phase: UploadPhase, now: Timestamp) -> UploadStatus {
    let mut status = before.clone();
    status.phase = Some(phase);
    status.completion_timestamp = Some(Time(now));
    status.next_retry_timestamp.get_or_insert(Time(now));
    status
}

fn retry(before: &UploadStatus, phase: UploadPhase, problem: &Problem, now: Timestamp) -> UploadStatus {
    let mut status = ended(before, phase, now);
    status.retry_count = before.retry_count.saturating_add(1);
    status.current_back_off = upload_back_off_minutes(status.retry_count);
    status.next_retry_timestamp = Some(Time(upload_due(status.retry_count, now)));
    status.message = Some(problem.message());
    tell(&mut status, Status::False, problem.reason, &problem.message(), now);
    status
}

fn tell(status: &mut UploadStatus, ready: Status, reason: Reason, message: &str, now: Timestamp) {
    conditions::set(&mut status.conditions, READY, ready, reason, message, now);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn offset(minutes: i64) -> Time {
        Time(noon() + k8s_openapi::jiff::SignedDuration::from_mins(minutes))
    }

    fn unreachable() -> Problem {
        Problem::passing(Reason::StoreUnreachable, "put a pack: connection refused")
    }

    #[test]
    fn the_retries_follow_the_numbers_users_know() {
        let mut status = started(&new(noon()), "node-a", noon());
        let mut minutes = Vec::new();
        while let AfterFailure::TryAgain(next) =
            attempt_failed(&status, &unreachable(), UploadRetries::default(), noon())
        {
            assert_eq!(next.phase, Some(UploadPhase::UploadError));
            assert_eq!(next.next_retry_timestamp, Some(offset(i64::from(next.current_back_off))));
            minutes.push(next.current_back_off);
            status = started(&next, "node-b", noon());
        }
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60], "one attempt and ten retries");
        let last = given_up(&status, &unreachable(), Ok(()), noon());
        assert_eq!((last.phase, last.retry_count), (Some(UploadPhase::UploadFailedAfterRetry), 11));
        assert!(last.completion_timestamp.is_some());
    }

    #[test]
    fn an_upload_that_another_node_continues_says_so() {
        let reason = |status: &UploadStatus| conditions::get(&status.conditions, READY).unwrap().reason.clone();
        let first = started(&new(noon()), "node-a", noon());
        assert_eq!(reason(&first), "Uploading");
        assert_eq!(reason(&started(&first, "node-a", noon())), "Uploading", "the same node after a restart");
        let second = started(&first, "node-b", noon());
        assert_eq!(reason(&second), "TakenOver");
        let message = &conditions::get(&second.conditions, READY).unwrap().message;
        assert!(message.contains("node-a") && message.contains("node-b"), "{message}");
        let failed = retry(&first, UploadPhase::UploadError, &unreachable(), noon());
        assert_eq!(reason(&started(&failed, "node-b", noon())), "Uploading", "the next attempt");
    }

    #[test]
    fn a_problem_that_stays_is_not_tried_again() {
        let gone = Problem::lasting(Reason::SnapshotMissing, "open the disk: no such snapshot");
        assert_eq!(attempt_failed(&new(noon()), &gone, UploadRetries::default(), noon()), AfterFailure::GiveUp);
    }

    #[test]
    fn a_failed_upload_never_ends_completed_because_its_clean_up_worked() {
        let stays = Problem::passing(Reason::SnapshotDeleteFailed, "delete the disk snapshot: busy");
        let waiting = given_up(&new(noon()), &unreachable(), Err(&stays), noon());
        assert_eq!(waiting.phase, Some(UploadPhase::CleanupFailed));
        assert_eq!(cleaned(&waiting, false, noon()).phase, Some(UploadPhase::UploadFailedAfterRetry));
        assert_eq!(cleaned(&waiting, true, noon()).phase, Some(UploadPhase::Completed));
    }

    #[test]
    fn every_status_carries_what_the_original_dereferences() {
        let fresh = UploadStatus::default();
        let now = noon();
        let all = [
            new(now),
            started(&fresh, "node-a", now),
            completed(&fresh, Progress::default(), now),
            cleanup_failed(&fresh, &unreachable(), now),
            given_up(&fresh, &unreachable(), Ok(()), now),
            cancelling(&fresh, now),
            canceled(&fresh, now),
        ];
        for status in all {
            let phase = status.phase.clone().unwrap();
            assert!(status.next_retry_timestamp.is_some(), "{phase}");
            let running = matches!(phase, UploadPhase::New | UploadPhase::InProgress);
            assert_eq!(status.completion_timestamp.is_some(), !running, "{phase}");
        }
    }

    #[test]
    fn the_first_start_is_remembered_over_retries() {
        let first = started(&new(noon()), "node-a", noon());
        let AfterFailure::TryAgain(failed) = attempt_failed(&first, &unreachable(), UploadRetries::default(), noon())
        else {
            unreachable!("the first failure is tried again");
        };
        let again = started(&failed, "node-b", offset(1).0);
        assert_eq!(again.start_timestamp, Some(Time(noon())));
        assert_eq!((again.retry_count, again.processing_node.as_deref()), (1, Some("node-b")));
    }
}
