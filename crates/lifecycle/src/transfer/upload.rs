//! What the status of an Upload says after each step. The caller writes it; only what differs goes over the wire.

use api::conditions::{self, INCREMENTAL, READY, STORED, Status, TRANSPORT};
use api::{Progress, Reason, Time, Timestamp, Upload, UploadPhase, UploadStatus, labels};

use super::Transport;
use crate::content::Source;
use crate::limits::Limit;
use crate::retry::{UploadRetries, upload_back_off_minutes, upload_due};
use crate::{Again, Problem};

/// What `message` says of one that we have cancelled.
pub(super) const CANCELLED: &str = "The upload was cancelled";

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
    status.conditions.retain(|condition| condition.type_ != STORED);
    status.progress = progress;
    status.message = Some("Upload completed".to_owned());
    let found = conditions::get(&status.conditions, INCREMENTAL).map(|c| format!("; what was read: {}", c.message));
    let message = format!("the restore point was checked in the store{}", found.unwrap_or_default());
    tell(&mut status, Status::True, Reason::Completed, &message, now);
    status
}

/// The restore point was read back; the disk snapshot is still to be deleted.
pub fn stored(before: &UploadStatus, now: Timestamp) -> UploadStatus {
    let mut status = before.clone();
    conditions::set(&mut status.conditions, STORED, Status::True, Reason::Uploaded, Reason::Uploaded.meaning(), now);
    status
}

/// The copy has ended; the disk snapshot could not be deleted. Tried again without end: what is stored is safe.
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
/// `Completed`. Why it failed stays said besides what keeps the disk snapshot.
pub fn given_up(
    before: &UploadStatus,
    problem: &Problem,
    snapshot: Result<(), &Problem>,
    now: Timestamp,
) -> UploadStatus {
    if let Err(stays) = snapshot {
        let mut status = retry(before, UploadPhase::CleanupFailed, stays, now);
        conditions::set(&mut status.conditions, STORED, Status::False, problem.reason, &problem.message(), now);
        return status;
    }
    let mut status = ended(before, UploadPhase::UploadFailedAfterRetry, now);
    status.retry_count = before.retry_count.saturating_add(1);
    status.message = Some(problem.message());
    tell(&mut status, Status::False, problem.reason, &problem.message(), now);
    status
}

/// The disk snapshot is gone at last. Whether the Upload is done is what the repository says, not what the phase was: `found` is what a look
/// there has found. One that could not look is repeated, but for a repository of which nobody knows any more (W-27), and for one that is
/// cancelled, which waits for no store: then what was said when the copy ended decides. The original says nothing, so its own waits. A
/// bucket that is missing says that the backup is not there, [unless it was read back once](crate::stored::failed_look).
pub fn cleaned(
    before: &UploadStatus,
    found: Result<bool, &Problem>,
    is_cancelled: bool,
    now: Timestamp,
) -> UploadStatus {
    let said = conditions::get(&before.conditions, STORED);
    let was_stored = crate::stored::was_stored(&before.conditions);
    let why = match found {
        Ok(true) => return completed(before, before.progress, now),
        Err(problem) if !(is_cancelled && said.is_some() || is_unknown_for_good(problem)) => {
            return cleanup_failed(before, problem, now);
        }
        Err(_) if was_stored => return completed(before, before.progress, now),
        Err(problem) => problem.clone(),
        Ok(false) if was_stored => Problem::lasting(
            Reason::RestorePointMissing,
            "the restore point was checked when it was written, and was gone before the disk snapshot could be deleted",
        ),
        Ok(false) => Problem::lasting(
            Reason::RestorePointMissing,
            "the upload had failed before its disk snapshot could be deleted",
        ),
    };
    let first = said.filter(|said| !was_stored && Reason::from_word(&said.reason).is_some());
    let (reason, message) = match first {
        Some(said) => (Reason::from_word(&said.reason).unwrap_or(why.reason), said.message.clone()),
        None => (why.reason, why.message()),
    };
    let mut status = ended(before, UploadPhase::UploadFailedAfterRetry, now);
    status.conditions.retain(|condition| condition.type_ != STORED);
    status.message = Some(message.clone());
    tell(&mut status, Status::False, reason, &message, now);
    status
}

/// A problem with the disk that an Upload names, with what helps: where no Snapshot of ours has made the Upload, the id may be mistyped.
#[must_use]
pub fn with_its_disk(upload: &Upload, problem: Problem) -> Problem {
    let ours = upload.metadata.labels.as_ref().is_some_and(|all| all.contains_key(labels::SNAPSHOT_UID));
    if ours || problem.reason != Reason::DiskMissing {
        return problem;
    }
    problem.with_fix(Some(
        "spec.snapshotID of the Upload names a disk that no vCenter has: check it, and that the vCenter Secret has a [VirtualCenter] section \
         for each vCenter."
            .to_owned(),
    ))
}

/// Whether nobody can say any more where a restore point would be.
fn is_unknown_for_good(problem: &Problem) -> bool {
    matches!(problem.reason, Reason::RepositoryUnknown | Reason::InvalidSpec)
}

/// It was asked to stop and this node is stopping. A copy that was under way, here or on a node that died, may have written before its first
/// word about the disk: that is noted, since [`leftover`](super::leftover()) goes by it however often this is tried.
pub fn cancelling(before: &UploadStatus, now: Timestamp) -> UploadStatus {
    let mut status = ended(before, UploadPhase::Canceling, now);
    let said = |type_| conditions::get(&before.conditions, type_).is_some();
    // the original says no `Ready`; what it may have written is known by that
    if before.phase == Some(UploadPhase::InProgress) && said(READY) && !said(TRANSPORT) {
        let message = "the copy was stopped before it said how the disk is read";
        conditions::set(&mut status.conditions, TRANSPORT, Status::Unknown, Reason::Canceling, message, now);
    }
    status.next_retry_timestamp = Some(Time(now)); // a back-off of the copy is over
    status.message = Some("The upload is being cancelled".to_owned());
    tell(&mut status, Status::False, Reason::Canceling, "asked to stop", now);
    status
}

/// Cancelling could not delete everything yet; it is tried again. The phase stays `Canceling`.
pub fn cancel_waits(before: &UploadStatus, problem: &Problem, now: Timestamp) -> UploadStatus {
    retry(before, UploadPhase::Canceling, problem, now)
}

/// It was asked to stop; disk snapshot and half-made objects are gone. `left` is why nobody can see to what may be left in the store.
pub fn canceled(before: &UploadStatus, left: Option<&Problem>, now: Timestamp) -> UploadStatus {
    let mut status = ended(before, UploadPhase::Canceled, now);
    status.message = Some(CANCELLED.to_owned());
    let (reason, message) = match left {
        None => (Reason::Canceled, "asked to stop; nothing is left behind".to_owned()),
        Some(why) => {
            (why.reason, format!("asked to stop; what was stored may be left in the bucket: {}", why.message()))
        }
    };
    tell(&mut status, Status::False, reason, &message, now);
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
    fn who_has_mistyped_a_disk_is_not_sent_to_a_volume_that_there_may_not_be() {
        let by_hand = Upload::new("upload-snap", api::UploadSpec::default());
        let mut of_a_snapshot = by_hand.clone();
        of_a_snapshot.metadata.labels = Some([(labels::SNAPSHOT_UID.to_owned(), "u-1".to_owned())].into());
        let missing = Problem::lasting(Reason::DiskMissing, "look for disk snapshot disk:snap: there is no such disk");
        let cases = [
            ("by hand", &by_hand, missing.clone(), true),
            ("of a Snapshot", &of_a_snapshot, missing, false),
            ("the disk is there", &by_hand, Problem::lasting(Reason::SnapshotMissing, "look for it"), false),
        ];
        for (situation, upload, problem, want) in cases {
            let told = with_its_disk(upload, problem.clone());
            assert_eq!((told.reason, &told.cause), (problem.reason, &problem.cause), "{situation}");
            assert_eq!(told.message().contains("spec.snapshotID"), want, "{situation}: {}", told.message());
        }
    }

    #[test]
    fn a_failed_upload_never_ends_completed_because_its_clean_up_worked() {
        let stays = Problem::passing(Reason::SnapshotDeleteFailed, "delete the disk snapshot: busy");
        let waiting = given_up(&new(noon()), &unreachable(), Err(&stays), noon());
        assert_eq!(waiting.phase, Some(UploadPhase::CleanupFailed));
        assert_eq!(cleaned(&waiting, Ok(false), false, noon()).phase, Some(UploadPhase::UploadFailedAfterRetry));
        assert_eq!(cleaned(&waiting, Ok(true), false, noon()).phase, Some(UploadPhase::Completed));
    }

    #[test]
    fn w27_an_upload_whose_disk_snapshot_was_stuck_ends_by_what_is_stored_and_says_why_it_failed_first() {
        let stays = Problem::passing(Reason::SnapshotDeleteFailed, "delete the disk snapshot: busy");
        let silent = Problem::passing(Reason::StoreUnreachable, "look for the restore point: no answer");
        let unknown = Problem::lasting(Reason::RepositoryUnknown, "find BackupRepository br-1: there is none");
        let begun = started(&new(noon()), "node-a", noon());
        let hung = Problem::passing(Reason::VddkHung, "back up the disk: the library does not answer");
        let failed = cleanup_failed(&given_up(&begun, &hung, Err(&stays), noon()), &stays, noon());
        let good = cleanup_failed(&stored(&begun, noon()), &stays, noon());
        let originals = cleanup_failed(&begun, &stays, noon());
        let done = (UploadPhase::Completed, Reason::Completed);
        let ended = |reason| (UploadPhase::UploadFailedAfterRetry, reason);
        let again = (UploadPhase::CleanupFailed, Reason::StoreUnreachable);
        let no_bucket = Problem::passing(Reason::BucketMissing, "look for the backup: there is no bucket `backups`");
        let without_bucket = (UploadPhase::CleanupFailed, Reason::BucketMissing);
        let cases = [
            ("stored, and there", &good, Ok(true), done.clone()),
            ("stored, and its repository is known to nobody", &good, Err(&unknown), done.clone()),
            ("stored, and removed since", &good, Ok(false), ended(Reason::RestorePointMissing)),
            ("stored, and the store is away", &good, Err(&silent), again.clone()),
            ("stored, and the bucket is missing for a while", &good, Err(&no_bucket), without_bucket),
            ("given up", &failed, Ok(false), ended(Reason::VddkHung)),
            ("given up, and there all the same", &failed, Ok(true), done.clone()),
            ("given up, and its repository is known to nobody", &failed, Err(&unknown), ended(Reason::VddkHung)),
            ("given up, and the store is away", &failed, Err(&silent), again),
            ("the original says nothing, and it is there", &originals, Ok(true), done),
            ("the original says nothing, and it is not", &originals, Ok(false), ended(Reason::RestorePointMissing)),
            ("the original says nothing, nobody knows", &originals, Err(&unknown), ended(Reason::RepositoryUnknown)),
        ];
        for (situation, before, found, want) in cases {
            let status = cleaned(before, found, false, noon());
            let ready = conditions::get(&status.conditions, READY).unwrap();
            let got = (status.phase.clone().unwrap(), Reason::from_word(&ready.reason).unwrap());
            assert_eq!(got, want, "{situation}");
            let goes_on = status.phase == Some(UploadPhase::CleanupFailed);
            assert!(goes_on || conditions::get(&status.conditions, STORED).is_none(), "{situation}");
        }
        let cancelled = |before| cleaned(before, Err(&silent), true, noon()).phase.unwrap();
        assert_eq!(cancelled(&good), UploadPhase::Completed, "who cancels it waits for no store, and loses no backup");
        let no_bucket = cleaned(&good, Err(&no_bucket), true, noon()).phase;
        assert_eq!(no_bucket, Some(UploadPhase::Completed), "a cancellation ends what waits for its bucket");
        assert_eq!(cancelled(&failed), UploadPhase::UploadFailedAfterRetry);
        assert_eq!(cancelled(&originals), UploadPhase::CleanupFailed, "it may be stored");
        let told = cleaned(&failed, Ok(false), false, noon()).message.unwrap();
        assert!(told.contains("the library does not answer"), "{told}");
    }

    #[test]
    fn a_cancelled_upload_does_not_call_the_store_empty_where_nobody_can_look() {
        let unknown = Problem::lasting(Reason::RepositoryUnknown, "find BackupRepository br-1: there is none");
        let begun = started(&new(noon()), "node-a", noon());
        for (left, reason, words) in [
            (None, Reason::Canceled, "nothing is left behind"),
            (Some(&unknown), Reason::RepositoryUnknown, "may be left in the bucket: find BackupRepository br-1"),
        ] {
            let status = canceled(&begun, left, noon());
            let ready = conditions::get(&status.conditions, READY).unwrap();
            assert_eq!((status.phase, ready.reason.as_str()), (Some(UploadPhase::Canceled), reason.as_str()));
            assert!(ready.message.contains(words), "{}", ready.message);
        }
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
            canceled(&fresh, None, now),
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
