//! What the status of a Snapshot says. An end is written once and stays; the rest follows the Upload and never goes back.

use api::conditions::{self, INCREMENTAL, PROCEEDS, READY, STORED, Status};
use api::metadata::Blob;
use api::{Reason, Snapshot, SnapshotPhase, SnapshotStatus, Time, Timestamp, Upload, UploadPhase, Weight};

use super::{BEGINNING, Undo};
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

/// It has not begun yet, and why; it is tried again. `begun` is when this was tried.
pub fn waiting(before: &SnapshotStatus, problem: &Problem, begun: Timestamp) -> SnapshotStatus {
    let mut status = before.clone();
    status.phase.get_or_insert(SnapshotPhase::New);
    BEGINNING.note(&mut status.conditions, problem, begun);
    tell(&mut status, Status::False, problem.reason, &problem.message(), begun);
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
    BEGINNING.over(&mut status.conditions);
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
    status.conditions.retain(|c| c.type_ != STORED);
    status.conditions.extend(conditions::get(&theirs.conditions, STORED).cloned());
    let (ready, reason) = match &phase {
        SnapshotPhase::Uploaded => (Status::True, Reason::Uploaded),
        // trouble: nobody can see to what may be left
        SnapshotPhase::Canceled => {
            (Status::False, reason.filter(|r| r.weight() == Weight::Trouble).unwrap_or(Reason::Canceled))
        }
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

/// Cancelled, and no Upload ran. `left` is why its disk snapshot may be there still: in local mode perhaps for good, else until it is swept.
pub fn canceled(
    before: &SnapshotStatus,
    undo: &Undo,
    left: Option<&Problem>,
    is_local: bool,
    now: Timestamp,
) -> SnapshotStatus {
    let (reason, message) = match (left, undo) {
        (Some(why), _) if is_local => {
            (why.reason, format!("asked to stop; its disk snapshot may be left in vSphere: {}", why.message()))
        }
        (Some(why), _) => {
            let until = "its disk snapshot may be there until a sweep deletes it, which looks at the disks of volumes";
            (Reason::Canceled, format!("asked to stop; {until}: {}", why.cause))
        }
        (None, Undo::Nothing) => (Reason::Canceled, "cancelled before we had begun it".to_owned()),
        (None, Undo::Marked) => (Reason::Canceled, "cancelled while the disk snapshot was being taken".to_owned()),
        (None, Undo::Recorded(taken)) => (Reason::Canceled, format!("asked to stop; disk snapshot {taken} is deleted")),
    };
    ended(before, SnapshotPhase::Canceled, reason, &message, now)
}

/// A [node](super::held()) keeps it from ending: why, and since when. The phase stays.
pub fn held(before: &SnapshotStatus, problem: &Problem, now: Timestamp) -> SnapshotStatus {
    let mut status = before.clone();
    conditions::set(&mut status.conditions, PROCEEDS, Status::False, problem.reason, &problem.message(), now);
    tell(&mut status, Status::False, problem.reason, &problem.message(), now);
    status
}

/// It cannot end yet, and why; it is tried again. The phase stays.
pub fn held_up(before: &SnapshotStatus, problem: &Problem, now: Timestamp) -> SnapshotStatus {
    let mut status = before.clone();
    BEGINNING.over(&mut status.conditions);
    tell(&mut status, Status::False, problem.reason, &problem.message(), now);
    status
}

/// Its Upload is gone, and the backup is there.
pub fn uploaded(before: &SnapshotStatus, now: Timestamp) -> SnapshotStatus {
    let message = "the Upload is gone; its backup was found in the store";
    let mut status = ended(before, SnapshotPhase::Uploaded, Reason::Uploaded, message, now);
    status.conditions.retain(|c| c.type_ != STORED);
    status.message = None;
    tell(&mut status, Status::True, Reason::Uploaded, message, now);
    status
}

/// Its Upload was deleted by somebody; the disk snapshot is gone too. `unknown` is why nobody can look whether the backup is there.
pub fn abandoned(before: &SnapshotStatus, unknown: Option<&Problem>, now: Timestamp) -> SnapshotStatus {
    let deleted = "somebody deleted the Upload before it had ended";
    let cause = match unknown {
        None => deleted.to_owned(),
        Some(why) => format!("{deleted}, as far as is known: {}", why.cause),
    };
    let problem = Problem::lasting(Reason::RequestDeleted, cause).with_fix(Some("Make a new Snapshot.".to_owned()));
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
    BEGINNING.over(&mut status.conditions);
    status.phase = Some(phase);
    status.message = Some(message.to_owned());
    status.completion_timestamp = Some(Time(now));
    tell(&mut status, Status::False, reason, message, now);
    status
}

/// It has begun.
fn recorded(before: &SnapshotStatus, record: Record) -> SnapshotStatus {
    let mut status =
        SnapshotStatus { snapshot_id: Some(record.snapshot_id), metadata: record.metadata, ..before.clone() };
    BEGINNING.over(&mut status.conditions);
    status
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
    fn an_end_that_nobody_can_be_sure_of_says_why() {
        let before = SnapshotStatus::default();
        let ready = |status: &SnapshotStatus| conditions::get(&status.conditions, READY).unwrap().clone();
        let unknown = Problem::lasting(Reason::RepositoryUnknown, "find BackupRepository br-1: there is none");
        let told = ready(&abandoned(&before, Some(&unknown), noon()));
        assert!(told.message.contains("as far as is known: find BackupRepository br-1"), "{}", told.message);
        let gone = Problem::lasting(Reason::ClaimNotFound, "claim shop/data-0 does not exist");
        let told = ready(&canceled(&before, &Undo::Marked, Some(&gone), true, noon()));
        assert_eq!(told.reason, Reason::ClaimNotFound.as_str());
        assert!(told.message.contains("may be left in vSphere: claim shop/data-0"), "{}", told.message);
        let told = ready(&canceled(&before, &Undo::Marked, Some(&gone), false, noon()));
        assert_eq!(told.reason, Reason::Canceled.as_str());
        assert!(told.message.contains("until a sweep deletes it"), "{}", told.message);
        let found = uploaded(&before, noon());
        assert_eq!((ready(&found).status.as_str(), ready(&found).reason.as_str()), ("True", "Uploaded"));
        assert_eq!((found.phase.clone(), found.message.clone()), (Some(SnapshotPhase::Uploaded), None));
        assert!(found.completion_timestamp.is_some());
    }

    #[test]
    fn a_snapshot_says_that_it_is_stored_while_its_disk_snapshot_is_stuck_and_no_longer() {
        let busy = Problem::passing(Reason::DiskBusy, "delete the disk snapshot");
        let running = transfer::upload::started(&transfer::upload::new(noon()), "node-a", noon());
        let stuck = transfer::upload::cleanup_failed(&transfer::upload::stored(&running, noon()), &busy, noon());
        let stored = |status: &SnapshotStatus| conditions::get(&status.conditions, STORED).map(|c| c.status.clone());
        let told = followed(&SnapshotStatus::default(), &upload(stuck.clone()), record(), noon());
        assert_eq!(stored(&told).as_deref(), Some("True"));
        let done = transfer::upload::cleaned(&stuck, Ok(true), false, noon());
        let told = followed(&told, &upload(done), None, noon());
        assert_eq!((told.phase.clone(), stored(&told)), (Some(SnapshotPhase::Uploaded), None));
    }

    #[test]
    fn every_end_carries_its_time() {
        let before = SnapshotStatus::default();
        let problem = Problem::lasting(Reason::BucketMissing, "open the repository");
        let all = [
            failed(&before, &problem, noon()),
            canceled(&before, &Undo::Marked, None, false, noon()),
            abandoned(&before, None, noon()),
        ];
        for status in all {
            assert!(
                status.phase.as_ref().unwrap().is_terminal() && status.completion_timestamp.is_some(),
                "{:?}",
                status.phase
            );
            assert!(status.message.is_some());
        }
    }
}
