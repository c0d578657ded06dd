//! An Upload that the original cancelled. It calls one `Canceled` once nothing of it is in the bucket any more and leaves the disk
//! snapshot (W-05): the volume cannot be expanded as long as that is there, and nothing but this Upload names it.

use api::conditions::{self, READY, Status};
use api::entity::EntityId;
use api::{Snapshot, Timestamp, Upload, UploadPhase, UploadStatus, labels};
use disk::DiskSnapshot;

use super::upload::{self, CANCELLED};
use crate::Problem;
use crate::snapshot::is_local;

/// Whether an Upload is `Canceled` by the original's word alone. One that we have cancelled says more, and its disk snapshot is gone; the
/// disk snapshots of ours are marked, so that the sweep finds them.
pub fn is_half(upload: &Upload) -> bool {
    let ours = upload.metadata.labels.as_ref().is_some_and(|all| all.contains_key(labels::SNAPSHOT_UID));
    let by_us = |status: &UploadStatus| {
        status.message.as_deref() == Some(CANCELLED) && conditions::get(&status.conditions, READY).is_some()
    };
    upload.phase() == Some(&UploadPhase::Canceled) && !ours && !upload.status.as_ref().is_some_and(by_us)
}

/// The disk snapshot that such an Upload has left. `of` is the Snapshot that it names: in local mode its disk snapshot is the backup.
pub fn left(upload: &Upload, of: Option<&Snapshot>) -> Option<DiskSnapshot> {
    let named = |id: Option<&String>| id?.parse::<EntityId>().ok()?.disk_snapshot().ok();
    let taken = named(upload.spec.snapshot_id.as_ref())?;
    let of_snapshot = |s: &Snapshot| named(s.status.as_ref().and_then(|status| status.snapshot_id.as_ref()));
    let is_a_backup = of.is_some_and(|s| is_local(s) && of_snapshot(s).as_ref() == Some(&taken));
    (!is_a_backup).then_some(taken)
}

/// Its disk snapshot is gone too. When it ended stays as the original has said it.
pub fn finished(before: &UploadStatus, now: Timestamp) -> UploadStatus {
    let mut status = upload::canceled(before, None, now);
    status.completion_timestamp = before.completion_timestamp.clone().or(status.completion_timestamp);
    status
}

/// Its disk snapshot could not be deleted yet. The first words of a reason stay, so that it makes one event.
pub fn stays(before: &UploadStatus, problem: &Problem, now: Timestamp) -> UploadStatus {
    let mut status = before.clone();
    let told = conditions::get(&before.conditions, READY).is_some_and(|says| says.reason == problem.reason.as_str());
    if !told {
        status.message = Some(problem.message());
        conditions::set(&mut status.conditions, READY, Status::False, problem.reason, &problem.message(), now);
    }
    status
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::{Reason, SnapshotSpec, SnapshotStatus, Time, UploadSpec};

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    /// As the original leaves it.
    fn upload_in(phase: &str) -> Upload {
        let spec = UploadSpec { snapshot_id: Some("ivd:disk:snap".to_owned()), ..UploadSpec::default() };
        let mut upload = Upload::new("upload-snap", spec);
        upload.metadata.labels = Some(labels::ours());
        upload.status.get_or_insert_default().phase = Some(phase.into());
        upload
    }

    fn saying(status: UploadStatus) -> Upload {
        Upload { status: Some(status), ..upload_in("Canceled") }
    }

    fn status() -> UploadStatus {
        upload_in("Canceled").status.unwrap()
    }

    fn away() -> Problem {
        Problem::passing(Reason::VCenterUnreachable, "delete the disk snapshot: connect: refused")
    }

    #[test]
    fn only_what_the_original_cancelled_has_left_its_disk_snapshot() {
        let mut of_ours = upload_in("Canceled");
        of_ours.metadata.labels.get_or_insert_default().insert(labels::SNAPSHOT_UID.to_owned(), "u-1".to_owned());
        let begun_by_us = upload::cancelling(&upload::new(noon()), noon());
        let begun_by_us = UploadStatus { phase: Some(UploadPhase::Canceled), ..begun_by_us };
        let without_conditions = UploadStatus { conditions: Vec::new(), ..upload::canceled(&status(), None, noon()) };
        let mut cases = vec![
            ("cancelled by the original", upload_in("Canceled"), true),
            ("we could not delete it yet", saying(stays(&status(), &away(), noon())), true),
            ("we had begun to cancel, the original ended it", saying(begun_by_us), true),
            ("it is gone", saying(finished(&status(), noon())), false),
            ("cancelled by one of our nodes", saying(upload::canceled(&status(), None, noon())), false),
            (
                "the same, and nobody can look into its store",
                saying(upload::canceled(&status(), Some(&away()), noon())),
                false,
            ),
            ("ours, by the original's definition, which drops conditions", saying(without_conditions), true),
            ("of our driver, whose sweep finds its disk snapshot by the mark", of_ours, false),
        ];
        let phases =
            ["New", "InProgress", "Completed", "UploadError", "CleanupFailed", "Canceling", "UploadFailedAfterRetry"];
        cases.extend(phases.map(|phase| (phase, upload_in(phase), false)));
        for (situation, upload, want) in cases {
            assert_eq!(is_half(&upload), want, "{situation}");
        }
    }

    #[test]
    fn a_disk_snapshot_that_is_a_backup_is_never_deleted_with_a_cancelled_upload() {
        let id = |snapshot: &str| format!("pvc:shop/data-0:{snapshot}");
        let snapshot = |repository: &str, id: Option<String>| {
            let spec = SnapshotSpec { backup_repository: repository.to_owned(), ..SnapshotSpec::default() };
            let status = SnapshotStatus { snapshot_id: id, ..SnapshotStatus::default() };
            Snapshot { status: Some(status), ..Snapshot::new("s", spec) }
        };
        // ivd:disk:snap and ivd:disk:other
        let (same, other) = (id("aXZkOmRpc2s6c25hcA"), id("aXZkOmRpc2s6b3RoZXI"));
        let goes = Some("disk:snap".parse::<DiskSnapshot>().unwrap());
        let cases = [
            ("its Snapshot is gone", None, goes.clone()),
            ("its Snapshot was to be uploaded", Some(snapshot("br-1", Some(same.clone()))), goes.clone()),
            ("its Snapshot is in local mode", Some(snapshot("", Some(same))), None),
            ("a later Snapshot of the name is in local mode", Some(snapshot("", Some(other))), goes.clone()),
            ("… and has no disk snapshot", Some(snapshot("", None)), goes),
        ];
        for (situation, of, want) in cases {
            assert_eq!(left(&upload_in("Canceled"), of.as_ref()), want, "{situation}");
        }
        for id in [None, Some("ivd:disk".to_owned()), Some("nonsense".to_owned())] {
            let mut upload = upload_in("Canceled");
            upload.spec.snapshot_id = id;
            assert_eq!(left(&upload, None), None, "it names no disk snapshot: {:?}", upload.spec.snapshot_id);
        }
    }

    #[test]
    fn a_cancelled_upload_ended_when_the_original_said_and_tells_each_reason_once() {
        let mut ended = status();
        let then = Time("2026-01-01T09:20:02Z".parse().unwrap());
        ended.completion_timestamp = Some(then.clone());
        let waits = stays(&ended, &away(), noon());
        assert_eq!((&waits.phase, &waits.completion_timestamp), (&ended.phase, &ended.completion_timestamp));
        let again = Problem::passing(Reason::VCenterUnreachable, "delete the disk snapshot: connect: timed out");
        assert_eq!(stays(&waits, &again, noon()), waits, "the same reason in other words makes no second event");
        let denied = Problem::lasting(Reason::VCenterPermission, "delete the disk snapshot");
        assert_ne!(stays(&waits, &denied, noon()), waits);
        let gone = finished(&waits, noon());
        assert_eq!((gone.phase, gone.completion_timestamp), (Some(UploadPhase::Canceled), Some(then)));
        assert_eq!(finished(&status(), noon()).completion_timestamp, Some(Time(noon())), "no end is without its time");
    }
}
