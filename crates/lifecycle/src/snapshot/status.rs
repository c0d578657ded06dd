//! What the status of a Snapshot says. An end is written once and stays; the rest follows the Upload and never goes back.

use api::conditions::{self, INCREMENTAL, READY, Status};
use api::metadata::Blob;
use api::{Reason, Snapshot, SnapshotPhase, SnapshotStatus, Time, Timestamp, Upload, UploadPhase, Weight};

use crate::Problem;

/// What the backup is called and what is needed to restore the claim; written together with the phase.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// `pvc:…`, what restores and deletes name.
    pub snapshot_id: String,
    /// The claim in protobuf, as read after the disk snapshot; `None` when it was deleted meanwhile.
    pub metadata: Option<Blob>,
}

/// Whether it was asked for and says nothing yet.
pub fn is_unheard(snapshot: &Snapshot) -> bool {
    let Some(status) = &snapshot.status else { return false };
    let asked = status.phase == Some(SnapshotPhase::New) && status.snapshot_id.is_none();
    asked && status.conditions.is_empty() && snapshot.metadata.deletion_timestamp.is_none()
}

/// It waits until others that were asked for have begun.
pub fn queued(before: &SnapshotStatus, now: Timestamp) -> SnapshotStatus {
    let mut status = before.clone();
    tell(&mut status, Status::False, Reason::Queued, "waiting for the driver: others are being begun", now);
    status
}

/// The disk snapshot is being taken. The phase stays what it is, and so does what it [waits](waiting) for: the next attempt
/// may end the same.
pub fn snapshotting(before: &SnapshotStatus, now: Timestamp) -> SnapshotStatus {
    let mut status = before.clone();
    status.phase.get_or_insert(SnapshotPhase::New);
    let reason = conditions::get(&before.conditions, READY).and_then(|c| Reason::from_word(&c.reason));
    if reason.is_some_and(|reason| reason.weight() == Weight::Trouble) {
        return status;
    }
    tell(&mut status, Status::False, Reason::Snapshotting, "opening the repository and taking the disk snapshot", now);
    status
}

/// It has not begun yet, and why; it is tried again.
pub fn waiting(before: &SnapshotStatus, problem: &Problem, now: Timestamp) -> SnapshotStatus {
    let mut status = before.clone();
    status.phase.get_or_insert(SnapshotPhase::New);
    tell(&mut status, Status::False, problem.reason, &problem.message(), now);
    status
}

/// Local mode: the disk snapshot exists, and that is all.
pub fn kept_in_vsphere(before: &SnapshotStatus, record: Record, now: Timestamp) -> SnapshotStatus {
    let mut status = recorded(before, record);
    status.phase = Some(SnapshotPhase::Snapshotted);
    tell(&mut status, Status::True, Reason::Snapshotted, "local mode: the disk snapshot stays in vSphere", now);
    status
}

/// Says what the Upload says. `record` fills in what is not there yet.
pub fn followed(before: &SnapshotStatus, upload: &Upload, record: Option<Record>, now: Timestamp) -> SnapshotStatus {
    let mut status = record.map_or_else(|| before.clone(), |r| recorded(before, r));
    let theirs = upload.status.clone().unwrap_or_default();
    let phase = mirrored(theirs.phase.as_ref()).unwrap_or_else(|| not_back(before.phase.as_ref()));
    let their_ready = conditions::get(&theirs.conditions, READY);
    let reason = their_ready.and_then(|c| Reason::ALL.iter().find(|r| r.as_str() == c.reason)).copied();
    let said = their_ready.map(|c| c.message.clone()).filter(|m| !m.is_empty()).or_else(|| theirs.message.clone());
    let said = said.unwrap_or_default();
    status.progress = theirs.progress;
    if let Some(incremental) = conditions::get(&theirs.conditions, INCREMENTAL) {
        status.conditions.retain(|c| c.type_ != INCREMENTAL);
        status.conditions.push(incremental.clone());
    }
    let (ready, reason) = match &phase {
        SnapshotPhase::Uploaded => (Status::True, Reason::Uploaded),
        SnapshotPhase::Canceled => (Status::False, Reason::Canceled),
        SnapshotPhase::Canceling => (Status::False, reason.unwrap_or(Reason::Canceling)),
        SnapshotPhase::Snapshotted => (Status::False, reason.unwrap_or(Reason::Snapshotted)),
        SnapshotPhase::Uploading => (Status::False, reason.unwrap_or(Reason::Uploading)),
        SnapshotPhase::CleanupAfterUploadFailed => (Status::False, reason.unwrap_or(Reason::SnapshotDeleteFailed)),
        _ => (Status::False, reason.unwrap_or(Reason::BackingOff)),
    };
    let failed = matches!(
        phase,
        SnapshotPhase::UploadFailed | SnapshotPhase::UploadFailedAfterRetry | SnapshotPhase::CleanupAfterUploadFailed
    );
    status.message = if failed { Some(said.clone()) } else { None };
    if phase.is_terminal() {
        status.completion_timestamp.get_or_insert(Time(now));
    }
    status.phase = Some(phase);
    tell(&mut status, ready, reason, &said, now);
    status
}

/// No disk snapshot, and nothing left behind.
pub fn failed(before: &SnapshotStatus, problem: &Problem, now: Timestamp) -> SnapshotStatus {
    ended(before, SnapshotPhase::SnapshotFailed, problem.reason, &problem.message(), now)
}

/// Cancelled before it began.
pub fn canceled(before: &SnapshotStatus, now: Timestamp) -> SnapshotStatus {
    ended(before, SnapshotPhase::Canceled, Reason::Canceled, "cancelled before it began", now)
}

/// Its Upload was deleted by somebody; the disk snapshot is gone too.
pub fn abandoned(before: &SnapshotStatus, now: Timestamp) -> SnapshotStatus {
    let problem = Problem::lasting(Reason::RequestDeleted, "somebody deleted the Upload before it had ended")
        .with_fix(Some("Make a new Snapshot.".to_owned()));
    ended(before, SnapshotPhase::UploadFailedAfterRetry, problem.reason, &problem.message(), now)
}

fn ended(
    before: &SnapshotStatus,
    phase: SnapshotPhase,
    reason: Reason,
    message: &str,
    now: Timestamp,
) -> SnapshotStatus {
    let mut status = before.clone();
    status.phase = Some(phase);
    status.message = Some(message.to_owned());
    status.completion_timestamp = Some(Time(now));
    tell(&mut status, Status::False, reason, message, now);
    status
}

fn recorded(before: &SnapshotStatus, record: Record) -> SnapshotStatus {
    SnapshotStatus { snapshot_id: Some(record.snapshot_id), metadata: record.metadata, ..before.clone() }
}

fn mirrored(upload: Option<&UploadPhase>) -> Option<SnapshotPhase> {
    match upload? {
        UploadPhase::New | UploadPhase::Other(_) => None,
        UploadPhase::InProgress => Some(SnapshotPhase::Uploading),
        UploadPhase::Completed => Some(SnapshotPhase::Uploaded),
        UploadPhase::UploadError => Some(SnapshotPhase::UploadFailed),
        UploadPhase::CleanupFailed => Some(SnapshotPhase::CleanupAfterUploadFailed),
        UploadPhase::Canceling => Some(SnapshotPhase::Canceling),
        UploadPhase::Canceled => Some(SnapshotPhase::Canceled),
        UploadPhase::UploadFailedAfterRetry => Some(SnapshotPhase::UploadFailedAfterRetry),
    }
}

/// The phase while the Upload has nothing to say: never back to `Snapshotted` from a later one.
fn not_back(present: Option<&SnapshotPhase>) -> SnapshotPhase {
    match present {
        None | Some(SnapshotPhase::New | SnapshotPhase::InProgress | SnapshotPhase::Other(_)) => {
            SnapshotPhase::Snapshotted
        }
        Some(later) => later.clone(),
    }
}

fn tell(status: &mut SnapshotStatus, ready: Status, reason: Reason, message: &str, now: Timestamp) {
    conditions::set(&mut status.conditions, READY, ready, reason, message, now);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::transfer;
    use api::{Progress, SnapshotSpec, UploadSpec, UploadStatus};

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn record() -> Option<Record> {
        Some(Record { snapshot_id: "pvc:shop/data-0:x".to_owned(), metadata: None })
    }

    fn upload(status: UploadStatus) -> Upload {
        Upload { status: Some(status), ..Upload::new("upload-s", UploadSpec::default()) }
    }

    #[test]
    fn a_snapshot_says_what_its_upload_says_and_never_goes_back() {
        let fresh = transfer::upload::new(noon());
        let running = transfer::upload::started(&fresh, "node-a", noon());
        let problem = Problem::passing(Reason::StoreUnreachable, "put a pack");
        let retries = crate::retry::UploadRetries::default();
        let transfer::upload::AfterFailure::TryAgain(failed) =
            transfer::upload::attempt_failed(&running, &problem, retries, noon())
        else {
            unreachable!("the first failure is tried again");
        };
        let done = transfer::upload::completed(&running, Progress::default(), noon());
        let steps = [
            (fresh.clone(), "Snapshotted", Reason::Queued),
            (running.clone(), "Uploading", Reason::Uploading),
            (fresh, "Uploading", Reason::Queued),
            (failed, "UploadFailed", Reason::StoreUnreachable),
            (running, "Uploading", Reason::Uploading),
            (done, "Uploaded", Reason::Uploaded),
        ];
        let mut status = SnapshotStatus::default();
        for (theirs, phase, reason) in steps {
            status = followed(&status, &upload(theirs), record(), noon());
            assert_eq!(status.phase.as_ref().unwrap().as_str(), phase);
            assert_eq!(conditions::get(&status.conditions, READY).unwrap().reason, reason.as_str());
            assert!(status.snapshot_id.is_some(), "id and phase come together");
            assert_eq!(status.completion_timestamp.is_some(), phase == "Uploaded");
        }
        assert_eq!(status.message, None, "no word of an old failure stays");
    }

    #[test]
    fn only_what_was_asked_for_and_says_nothing_is_told_to_wait() {
        let snapshot =
            |status: Option<SnapshotStatus>| Snapshot { status, ..Snapshot::new("s", SnapshotSpec::default()) };
        let new = SnapshotStatus { phase: Some(SnapshotPhase::New), ..SnapshotStatus::default() };
        let mut deleted = snapshot(Some(new.clone()));
        deleted.metadata.deletion_timestamp = Some(Time(noon()));
        let cases = [
            ("asked for", snapshot(Some(new.clone())), true),
            ("told once", snapshot(Some(queued(&new, noon()))), false),
            ("begun", snapshot(Some(snapshotting(&new, noon()))), false),
            ("without a phase, left to whoever makes it", snapshot(Some(SnapshotStatus::default())), false),
            ("without a status", snapshot(None), false),
            ("being deleted", deleted, false),
            (
                "failed by the original",
                snapshot(Some(SnapshotStatus { phase: Some(SnapshotPhase::SnapshotFailed), ..new })),
                false,
            ),
        ];
        for (situation, snapshot, wanted) in cases {
            assert_eq!(is_unheard(&snapshot), wanted, "{situation}");
        }
        let begun = snapshotting(&queued(&SnapshotStatus::default(), noon()), noon());
        assert_eq!(conditions::get(&begun.conditions, READY).unwrap().reason, Reason::Snapshotting.as_str());
    }

    #[test]
    fn every_end_carries_its_time() {
        let before = SnapshotStatus::default();
        let problem = Problem::lasting(Reason::BucketMissing, "open the repository");
        for status in [failed(&before, &problem, noon()), canceled(&before, noon()), abandoned(&before, noon())] {
            assert!(
                status.phase.as_ref().unwrap().is_terminal() && status.completion_timestamp.is_some(),
                "{:?}",
                status.phase
            );
            assert!(status.message.is_some());
        }
    }
}
