//! Decides about a `DeleteSnapshot`: stop an Upload that still runs, then erase disk snapshot and restore point.
//! Every step may be repeated: what is gone already counts as deleted.

use api::conditions::{self, READY, Status};
use api::entity::EntityId;
use api::{DeletePhase, DeleteSnapshot, DeleteSnapshotStatus, Reason, Time, Timestamp, Upload, UploadPhase};
use disk::DiskSnapshot;
use k8s_openapi::jiff::SignedDuration;

use crate::age::{self, Finished};
use crate::{Again, Problem};

/// How long deleting is tried before it counts as failed.
pub const DEADLINE: SignedDuration = SignedDuration::from_hours(1);

/// What is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The disk snapshot, which is also the identity of the restore point.
    pub disk_snapshot: DiskSnapshot,
    /// Namespace the claim was backed up from; `None` for backups of versions up to 1.0.2.
    pub namespace: Option<String>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing, until something changes.
    Rest,
    /// Nothing until then.
    WakeAt(Timestamp),
    /// It has been finished for a day: delete it.
    Remove,
    /// It cannot be done.
    Fail(Problem),
    /// Ask the Upload that still runs to stop.
    CancelUpload,
    /// Wait until the Upload has stopped; nobody may pull its disk snapshot away.
    AwaitUpload,
    /// Delete the disk snapshot, then the restore point.
    Erase,
}

/// Reads what is to be deleted.
pub fn target(delete: &DeleteSnapshot) -> Result<Target, Problem> {
    let invalid = |e: &dyn std::fmt::Display| {
        Problem::lasting(Reason::InvalidSpec, format!("read spec.snapshotID `{}`: {e}", delete.spec.snapshot_id))
    };
    let id: EntityId = delete.spec.snapshot_id.parse().map_err(|e| invalid(&e))?;
    let disk_snapshot = id.disk_snapshot().map_err(|e| invalid(&e))?;
    let namespace = match id {
        EntityId::Claim { namespace, .. } => Some(namespace),
        EntityId::Disk(_) | EntityId::GuestVolume { .. } => None,
    };
    Ok(Target { disk_snapshot, namespace })
}

/// Decides. `upload` is the Upload of the disk snapshot, if there is one.
pub fn plan(delete: &DeleteSnapshot, upload: Option<&Upload>, now: Timestamp) -> Plan {
    if delete.metadata.deletion_timestamp.is_some() {
        return Plan::Rest;
    }
    let status = delete.status.clone().unwrap_or_default();
    if status.phase.as_ref().is_some_and(DeletePhase::is_terminal) {
        return match age::finished(status.completion_timestamp.as_ref(), now) {
            Finished::Keep => Plan::Rest,
            Finished::KeepUntil(at) => Plan::WakeAt(at),
            Finished::Remove => Plan::Remove,
        };
    }
    if status.phase.is_none()
        && let Some(at) = age::settles_at(delete.metadata.creation_timestamp.as_ref(), now)
    {
        return Plan::WakeAt(at);
    }
    if let Err(problem) = target(delete) {
        return Plan::Fail(problem);
    }
    match upload.filter(|u| is_in_flight(u)) {
        None => Plan::Erase,
        Some(upload) if !upload.spec.upload_cancel => Plan::CancelUpload,
        Some(upload) if is_over(delete, now) => Plan::Fail(not_stopping(upload)),
        Some(_) => Plan::AwaitUpload,
    }
}

/// Whether deleting has taken too long.
fn is_over(delete: &DeleteSnapshot, now: Timestamp) -> bool {
    delete.metadata.creation_timestamp.as_ref().is_some_and(|t| now.duration_since(t.0) > DEADLINE)
}

fn not_stopping(upload: &Upload) -> Problem {
    let name = upload.metadata.name.as_deref().unwrap_or_default();
    Problem::lasting(Reason::Canceling, format!("Upload {name} was asked to stop and has not stopped in an hour"))
        .with_fix(Some("See whether the data-managers run, then delete again.".to_owned()))
}

/// Whether somebody may still read the disk snapshot.
fn is_in_flight(upload: &Upload) -> bool {
    let phase = upload.phase();
    upload.metadata.deletion_timestamp.is_none()
        && !phase.is_some_and(|p| p.is_terminal() || *p == UploadPhase::CleanupFailed)
}

/// Its Upload is being stopped.
pub fn waiting(before: &DeleteSnapshotStatus, now: Timestamp) -> DeleteSnapshotStatus {
    working(before, Reason::Canceling, "waiting until the upload has stopped", now)
}

/// Disk snapshot and restore point are being deleted.
pub fn erasing(before: &DeleteSnapshotStatus, now: Timestamp) -> DeleteSnapshotStatus {
    working(before, Reason::Deleting, "deleting the disk snapshot and the restore point", now)
}

/// Both are gone.
pub fn completed(before: &DeleteSnapshotStatus, now: Timestamp) -> DeleteSnapshotStatus {
    let message = "DeleteSnapshot Successfully processed.";
    let mut status = ended(before, DeletePhase::Completed, message, now);
    conditions::set(&mut status.conditions, READY, Status::True, Reason::Completed, message, now);
    status
}

/// A step failed: it is tried again with growing pauses, up to [`DEADLINE`].
pub fn step_failed(delete: &DeleteSnapshot, problem: &Problem, now: Timestamp) -> DeleteSnapshotStatus {
    let before = delete.status.clone().unwrap_or_default();
    if problem.again == Again::Never || is_over(delete, now) {
        return failed(&before, problem, now);
    }
    let mut status = working(&before, problem.reason, &problem.message(), now);
    status.message = Some(problem.message());
    status
}

/// It cannot be done.
pub fn failed(before: &DeleteSnapshotStatus, problem: &Problem, now: Timestamp) -> DeleteSnapshotStatus {
    let mut status = ended(before, DeletePhase::Failed, &problem.message(), now);
    conditions::set(&mut status.conditions, READY, Status::False, problem.reason, &problem.message(), now);
    status
}

fn working(before: &DeleteSnapshotStatus, reason: Reason, message: &str, now: Timestamp) -> DeleteSnapshotStatus {
    let mut status = before.clone();
    status.phase.get_or_insert(DeletePhase::New);
    conditions::set(&mut status.conditions, READY, Status::False, reason, message, now);
    status
}

fn ended(before: &DeleteSnapshotStatus, phase: DeletePhase, message: &str, now: Timestamp) -> DeleteSnapshotStatus {
    DeleteSnapshotStatus {
        phase: Some(phase),
        message: Some(message.to_owned()),
        completion_timestamp: Some(Time(now)),
        conditions: before.conditions.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::{DeleteSnapshotSpec, UploadSpec, UploadStatus};

    const ID: &str = "pvc:shop/data-0:aXZkOmRpc2s6c25hcA";

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn delete(id: &str, minutes_ago: i64) -> DeleteSnapshot {
        let spec = DeleteSnapshotSpec { snapshot_id: id.to_owned(), backup_repository: "br-1".to_owned() };
        let mut delete = DeleteSnapshot::new("delete-1", spec);
        delete.metadata.creation_timestamp = Some(Time(noon() - SignedDuration::from_mins(minutes_ago)));
        delete
    }

    fn upload(phase: &str, cancel: bool) -> Option<Upload> {
        let mut upload = Upload::new("upload-snap", UploadSpec { upload_cancel: cancel, ..UploadSpec::default() });
        upload.status = Some(UploadStatus { phase: Some(phase.into()), ..UploadStatus::default() });
        Some(upload)
    }

    #[test]
    fn what_the_driver_does_with_a_deletion() {
        let stuck = upload("InProgress", true);
        let cases = [
            ("nothing runs", delete(ID, 1), None, Plan::Erase),
            ("of a version up to 1.0.2", delete("ivd:disk:snap", 1), None, Plan::Erase),
            ("young, without a phase", delete(ID, 0), None, Plan::WakeAt(noon() + age::SETTLING)),
            ("uploaded", delete(ID, 1), upload("Completed", false), Plan::Erase),
            ("stored, disk snapshot stays", delete(ID, 1), upload("CleanupFailed", false), Plan::Erase),
            ("waiting for a node", delete(ID, 1), upload("New", false), Plan::CancelUpload),
            ("in back-off", delete(ID, 1), upload("UploadError", false), Plan::CancelUpload),
            ("stopping", delete(ID, 1), upload("Canceling", true), Plan::AwaitUpload),
            ("does not stop", delete(ID, 61), stuck.clone(), Plan::Fail(not_stopping(stuck.as_ref().unwrap()))),
            ("stopped", delete(ID, 61), upload("Canceled", true), Plan::Erase),
        ];
        for (situation, delete, upload, want) in cases {
            assert_eq!(plan(&delete, upload.as_ref(), noon()), want, "{situation}");
        }
        let Plan::Fail(problem) = plan(&delete("nonsense", 1), None, noon()) else { unreachable!("no id") };
        assert_eq!(problem.reason, Reason::InvalidSpec);
    }

    #[test]
    fn a_failing_step_is_repeated_for_an_hour() {
        let problem = Problem::passing(Reason::VCenterUnreachable, "delete the disk snapshot");
        let phase = |minutes| step_failed(&delete(ID, minutes), &problem, noon()).phase.unwrap();
        assert_eq!(phase(59), DeletePhase::New);
        assert_eq!(phase(61), DeletePhase::Failed);
        let lasting = Problem::lasting(Reason::RepositoryUnknown, "read BackupRepository br-1");
        let status = step_failed(&delete(ID, 1), &lasting, noon());
        assert!(status.phase == Some(DeletePhase::Failed) && status.completion_timestamp.is_some());
    }
}
