//! Decides about a `Snapshot`: begin, follow its Upload, wait or go. What its status says is in [`status`].
//!
//! The order of work is fixed (design D5b): repository, disk snapshot, Upload, then one status write with everything.
//! So whatever a killed driver left is found again: the disk snapshot by its token, the Upload by its label.

mod held;
mod migrated;
mod source;
pub mod status;

use api::conditions::{self, PROCEEDS, READY};
use api::entity::EntityId;
use api::{Reason, Snapshot, SnapshotPhase, SnapshotStatus, Timestamp, Upload, UploadPhase, labels, names};
use disk::DiskSnapshot;
use k8s_openapi::jiff::SignedDuration;

pub use held::{Held, held};
pub use migrated::{Backing, Migrated, Migration};
pub use source::{Source, backing, disk_of, source};

use crate::admission::Turn;
use crate::age::{self, Finished};
use crate::patience::Patience;
use crate::{Again, Problem, Unanswered};

/// How long what a Snapshot begins with may be away.
pub const BEGINNING: Patience = Patience { condition: PROCEEDS, within: SignedDuration::from_mins(10) };

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing, until something changes.
    Rest,
    /// Nothing until then.
    WakeAt(Timestamp),
    /// It has ended and does not say when, as the original leaves it: write that.
    SayWhen,
    /// It has been finished for a day: delete it.
    Remove,
    /// Check, take the disk snapshot, make the Upload.
    Begin,
    /// It was cancelled, and no Upload runs: what it has left goes first.
    Cancel(Undo),
    /// It was cancelled while its Upload runs: ask that to stop, and follow it to its end.
    StopUpload,
    /// Its Upload exists: say what the Upload says.
    Follow,
    /// Its Upload is gone and had not ended: delete the disk snapshot, look whether the backup is there, and end by [`without_upload`].
    Abandon,
}

/// What a Snapshot that was cancelled may have left in vSphere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// Nothing: nobody has begun it.
    Nothing,
    /// A disk snapshot of its claim's disk that carries its mark: nobody has recorded it.
    Marked,
    /// In local mode: the disk snapshot that is recorded.
    Recorded(DiskSnapshot),
}

/// How a Snapshot goes on whose Upload is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WithoutUpload {
    /// The backup is there: the original removes an Upload a day after it ended well, and no driver may have heard of that.
    Uploaded,
    /// There is none, or nobody can say for the reason that is given.
    Abandoned(Option<Problem>),
    /// It is looked for again.
    LookAgain(Problem),
}

/// Decides. `upload` is the Upload made for this Snapshot, if there is one.
pub fn plan(snapshot: &Snapshot, upload: Option<&Upload>, now: Timestamp) -> Plan {
    if snapshot.metadata.deletion_timestamp.is_some() {
        return Plan::Rest;
    }
    let status = snapshot.status.clone().unwrap_or_default();
    let phase = status.phase.as_ref();
    if phase.is_some_and(SnapshotPhase::is_terminal) {
        return match age::finished(status.completion_timestamp.as_ref(), now) {
            Finished::Untold => Plan::SayWhen,
            Finished::KeepUntil(at) => Plan::WakeAt(at),
            Finished::Remove => Plan::Remove,
        };
    }
    if let Some(upload) = upload {
        return if snapshot.spec.snapshot_cancel && may_stop(upload) { Plan::StopUpload } else { Plan::Follow };
    }
    if phase.is_none()
        && let Some(at) = age::begins_at(&snapshot.metadata, now)
    {
        return Plan::WakeAt(at);
    }
    let begun = status.snapshot_id.is_some();
    match phase {
        _ if begun && !is_local(snapshot) => Plan::Abandon,
        // in local mode the disk snapshot is all there is; a late `New` finds it again by its token
        Some(SnapshotPhase::Snapshotted) if is_undone(snapshot) => Plan::Cancel(undo(&status)),
        None | Some(SnapshotPhase::New | SnapshotPhase::InProgress | SnapshotPhase::Other(_)) => {
            if snapshot.spec.snapshot_cancel { Plan::Cancel(undo(&status)) } else { Plan::Begin }
        }
        Some(_) => Plan::Rest,
    }
}

/// Whether the disk snapshot of a backup in local mode goes since it was cancelled: nobody may call that backup completed any more.
pub fn is_undone(snapshot: &Snapshot) -> bool {
    let recorded = |status: &SnapshotStatus| status.snapshot_id.is_some() && is_of_ours(status);
    is_local(snapshot) && snapshot.spec.snapshot_cancel && snapshot.status.as_ref().is_some_and(recorded)
}

/// Whether we wrote a status. The original leaves a backup in local mode alone that was cancelled too late, and so do we.
fn is_of_ours(status: &SnapshotStatus) -> bool {
    conditions::get(&status.conditions, READY).is_some()
}

fn undo(status: &SnapshotStatus) -> Undo {
    let recorded = status.snapshot_id.as_deref().and_then(|id| id.parse::<EntityId>().ok()?.disk_snapshot().ok());
    match recorded {
        Some(taken) => Undo::Recorded(taken),
        None if was_begun(status) => Undo::Marked,
        None => Undo::Nothing,
    }
}

/// Whether a cancelled Snapshot waits until what it has left can be deleted. What was taken for an Upload goes in the sweep as well. So does
/// what local mode has left, but only for the day in which the Snapshot is there: so a Snapshot of local mode ends only where no later look can find it.
pub fn is_undone_later(snapshot: &Snapshot, problem: &Problem) -> bool {
    is_local(snapshot) && problem.again == Again::Later
}

/// Decides what becomes of a Snapshot whose Upload is gone, by what a look into the store has found. Who cancels it waits for no store.
pub fn without_upload(snapshot: &Snapshot, found: Result<bool, Problem>) -> WithoutUpload {
    match found {
        Ok(true) => WithoutUpload::Uploaded,
        Ok(false) => WithoutUpload::Abandoned(None),
        Err(problem) if problem.again == Again::Later && !snapshot.spec.snapshot_cancel => {
            WithoutUpload::LookAgain(problem)
        }
        Err(problem) => WithoutUpload::Abandoned(Some(problem)),
    }
}

/// Until when a Snapshot is tried again that met `problem` before it had begun; `None`: it ends. Nothing is there yet, so every problem is
/// the end, but for those of the API server. `due` as in [`Patience::until`].
pub fn begins_until(
    snapshot: &Snapshot,
    problem: &Problem,
    due: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let passes = problem.unanswered() == Some(Unanswered::Cluster);
    hindered_until(snapshot, problem, due, now).filter(|_| passes)
}

/// The same where none of several vCenters says that it has the disk: one that is silent is waited for as a single one is, and so is one
/// that answers with a failure of its own, since it may have the disk as well.
pub fn disk_looked_for_until(
    snapshot: &Snapshot,
    problem: &Problem,
    due: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let is_silent = matches!(problem.reason, Reason::VCenterUnreachable | Reason::VCenterFailed);
    hindered_until(snapshot, problem, due, now).filter(|_| is_silent)
}

fn hindered_until(snapshot: &Snapshot, problem: &Problem, due: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let said = snapshot.status.as_ref().map_or(&[][..], |status| &status.conditions);
    BEGINNING.until(said, due, now).filter(|_| problem.again == Again::Later)
}

/// Whether nobody has asked an Upload to stop that still could. One that only deletes its disk snapshot goes on with that, and waits for no
/// store after it.
fn may_stop(upload: &Upload) -> bool {
    let ended = upload.phase().is_some_and(UploadPhase::is_terminal);
    !ended && !upload.spec.upload_cancel && upload.metadata.deletion_timestamp.is_none()
}

/// Whether nothing is uploaded.
pub fn is_local(snapshot: &Snapshot) -> bool {
    snapshot.spec.backup_repository.is_empty()
}

/// Whether anything was ever done for a Snapshot, or is to be undone: before the first step its condition says so. One that says no
/// more than that it waits for its turn is not begun.
pub fn has_begun(snapshot: &Snapshot) -> bool {
    snapshot.spec.snapshot_cancel || snapshot.status.as_ref().is_some_and(was_begun)
}

fn was_begun(status: &SnapshotStatus) -> bool {
    let waits = match conditions::get(&status.conditions, READY) {
        Some(ready) => ready.reason == Reason::Queued.as_str(),
        None => status.conditions.is_empty(),
    };
    status.snapshot_id.is_some() || !waits
}

/// Whether an Upload was made for this very Snapshot: by its label, or by reference where the original made it. A name
/// may come back after its Snapshot was deleted, so an older Upload of the same reference does not count.
pub fn is_upload_of(upload: &Upload, snapshot: &Snapshot) -> bool {
    let label = upload.metadata.labels.as_ref().and_then(|l| l.get(labels::SNAPSHOT_UID));
    if let Some(uid) = label {
        return Some(uid) == snapshot.metadata.uid.as_ref();
    }
    let not_older = upload.metadata.creation_timestamp >= snapshot.metadata.creation_timestamp;
    not_older && upload.spec.snapshot_reference.as_deref() == Some(reference(snapshot).as_str())
}

/// Whether an Upload may be without a repository: ours are made after it was opened, those that the original has left are not.
pub fn needs_repository(upload: &Upload) -> bool {
    let ours = upload.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(labels::SNAPSHOT_UID));
    let to_copy = match upload.phase() {
        None | Some(UploadPhase::New | UploadPhase::UploadError) => true,
        // the original says nothing of its progress; what one of our nodes copies has its repository
        Some(UploadPhase::InProgress) => upload.status.as_ref().is_none_or(|status| status.progress.total_bytes == 0),
        Some(_) => false,
    };
    !ours && to_copy && !upload.spec.upload_cancel
}

/// `<namespace>/<name>`.
pub fn reference(snapshot: &Snapshot) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", text(&snapshot.metadata.namespace), text(&snapshot.metadata.name))
}

/// The Upload for a disk snapshot, with its status: it is made in one POST.
pub fn upload(
    snapshot: &Snapshot,
    taken: &DiskSnapshot,
    source: &Source,
    turn: Turn,
    cluster: &str,
    now: Timestamp,
) -> Upload {
    let (admitted, datastore) = match turn {
        Turn::AtOnce => (None, None),
        Turn::WhenAdmitted { datastore } => (Some(false), datastore),
    };
    let label = |key: &str| snapshot.metadata.labels.as_ref().and_then(|l| l.get(key)).cloned();
    let spec = api::UploadSpec {
        snapshot_id: Some(format!("ivd:{taken}")),
        backup_timestamp: Some(api::Time(now)),
        backup_repository: Some(snapshot.spec.backup_repository.clone()),
        snapshot_reference: Some(reference(snapshot)),
        source_namespace: Some(source.namespace.clone()),
        source_claim: Some(source.claim.clone()),
        cluster_id: Some(cluster.to_owned()),
        backup_name: label(labels::BACKUP_NAME),
        backup_uid: label(labels::BACKUP_UID),
        admitted,
        datastore,
        ..api::UploadSpec::default()
    };
    let mut upload = Upload::new(&names::upload(&taken.snapshot), spec);
    let mut marks = labels::ours();
    marks.insert(labels::SNAPSHOT_UID.to_owned(), snapshot.metadata.uid.clone().unwrap_or_default());
    upload.metadata.labels = Some(marks);
    upload.status = Some(crate::transfer::upload::new(now));
    upload
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::{ResourceHandle, SnapshotSpec, Time};
    use k8s_openapi::jiff::SignedDuration;

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn fresh() -> Snapshot {
        let spec = SnapshotSpec {
            resource_handle: ResourceHandle::claim("data-0"),
            backup_repository: "br-1".to_owned(),
            ..SnapshotSpec::default()
        };
        let mut snapshot = Snapshot::new("snap-1", spec);
        snapshot.metadata.namespace = Some("shop".to_owned());
        snapshot.metadata.uid = Some("u-1".to_owned());
        snapshot.metadata.creation_timestamp = Some(Time(noon() - SignedDuration::from_mins(1)));
        snapshot
    }

    fn at(phase: &str) -> Snapshot {
        Snapshot { status: Some(SnapshotStatus { phase: Some(phase.into()), ..SnapshotStatus::default() }), ..fresh() }
    }

    fn with_id(mut snapshot: Snapshot) -> Snapshot {
        snapshot.status.get_or_insert_default().snapshot_id = Some("pvc:shop/data-0:aXZkOmQ6cw".to_owned());
        snapshot
    }

    fn local(mut snapshot: Snapshot) -> Snapshot {
        snapshot.spec.backup_repository = String::new();
        snapshot
    }

    fn cancelled(mut snapshot: Snapshot) -> Snapshot {
        snapshot.spec.snapshot_cancel = true;
        snapshot
    }

    fn saying(mut snapshot: Snapshot, reason: Reason) -> Snapshot {
        let status = snapshot.status.get_or_insert_default();
        conditions::set(&mut status.conditions, READY, conditions::Status::False, reason, "", noon());
        snapshot
    }

    fn young(mut snapshot: Snapshot) -> Snapshot {
        snapshot.metadata.creation_timestamp = Some(Time(noon()));
        snapshot
    }

    fn ended(phase: &str, hours_ago: i32) -> Snapshot {
        let mut snapshot = at(phase);
        let at = noon() - SignedDuration::from_hours(1) * hours_ago;
        snapshot.status.get_or_insert_default().completion_timestamp = Some(Time(at));
        snapshot
    }

    #[test]
    fn what_the_driver_does_with_a_snapshot() {
        let settles = Plan::WakeAt(noon() + age::SETTLING);
        let upload = Upload::new("upload-s", api::UploadSpec::default());
        let stopping = Upload::new("upload-s", api::UploadSpec { upload_cancel: true, ..api::UploadSpec::default() });
        let mut uploaded = upload.clone();
        uploaded.status.get_or_insert_default().phase = Some(UploadPhase::Completed);
        let mut cleaning = upload.clone();
        cleaning.status.get_or_insert_default().phase = Some(UploadPhase::CleanupFailed);
        let taken = || Plan::Cancel(Undo::Recorded("d:s".parse().unwrap()));
        let cases = [
            ("asked for", at("New"), None, Plan::Begin),
            ("applied by hand, young", young(fresh()), None, settles),
            ("applied by hand", fresh(), None, Plan::Begin),
            ("a phase nobody knows", at("Paused"), None, Plan::Begin),
            ("cancelled before it began", cancelled(at("New")), None, Plan::Cancel(Undo::Nothing)),
            ("cancelled in its turn", cancelled(saying(at("New"), Reason::Queued)), None, Plan::Cancel(Undo::Nothing)),
            (
                "cancelled while the disk snapshot is taken",
                cancelled(saying(at("New"), Reason::Snapshotting)),
                None,
                Plan::Cancel(Undo::Marked),
            ),
            (
                "the same in local mode",
                local(cancelled(saying(at("New"), Reason::Snapshotting))),
                None,
                Plan::Cancel(Undo::Marked),
            ),
            (
                "local mode, cancelled when it was done",
                local(cancelled(saying(with_id(at("Snapshotted")), Reason::Snapshotted))),
                None,
                taken(),
            ),
            ("local mode, cancelled, a late New", local(cancelled(with_id(at("New")))), None, taken()),
            (
                "local mode, cancelled too late for the original",
                local(cancelled(with_id(at("Snapshotted")))),
                None,
                Plan::Rest,
            ),
            ("killed after the Upload was made", at("New"), Some(&upload), Plan::Follow),
            ("cancelled after it began", cancelled(at("New")), Some(&upload), Plan::StopUpload),
            ("cancelled while it uploads", cancelled(with_id(at("Uploading"))), Some(&upload), Plan::StopUpload),
            ("its Upload is being stopped", cancelled(with_id(at("Uploading"))), Some(&stopping), Plan::Follow),
            ("cancelled too late", cancelled(with_id(at("Uploading"))), Some(&uploaded), Plan::Follow),
            (
                "cancelled when only its disk snapshot is left: its node goes on with that, and waits for no store",
                cancelled(with_id(at("CleanupAfterUploadFailed"))),
                Some(&cleaning),
                Plan::StopUpload,
            ),
            ("a late New", with_id(at("New")), Some(&upload), Plan::Follow),
            ("a late New in local mode", local(with_id(at("New"))), None, Plan::Begin),
            ("local mode, done", local(with_id(at("Snapshotted"))), None, Plan::Rest),
            ("uploading", with_id(at("Uploading")), Some(&upload), Plan::Follow),
            ("its Upload was deleted", with_id(at("Uploading")), None, Plan::Abandon),
            (
                "uploaded, an old Upload says New",
                with_id(ended("Uploaded", 1)),
                Some(&upload),
                Plan::WakeAt(noon() + SignedDuration::from_hours(23)),
            ),
            ("failed by the original, without a time", at("SnapshotFailed"), None, Plan::SayWhen),
            ("cancelled by the original", with_id(at("Canceled")), Some(&upload), Plan::SayWhen),
            ("given up by the original", with_id(at("UploadFailedAfterRetry")), None, Plan::SayWhen),
            ("uploaded a day ago", ended("Uploaded", 24), None, Plan::Remove),
        ];
        for (situation, snapshot, upload, want) in cases {
            assert_eq!(plan(&snapshot, upload, noon()), want, "{situation}");
        }
    }

    #[test]
    fn a_backup_whose_upload_is_gone_is_called_failed_only_where_it_is_not_there() {
        let away = || Problem::passing(Reason::StoreUnreachable, "look for the backup");
        let unknown = || Problem::lasting(Reason::RepositoryUnknown, "find BackupRepository br-1");
        let (running, stopped) = (with_id(at("Uploading")), cancelled(with_id(at("Uploading"))));
        let cases = [
            ("the original had removed it", &running, Ok(true), WithoutUpload::Uploaded),
            ("cancelled, and there", &stopped, Ok(true), WithoutUpload::Uploaded),
            ("deleted in the middle", &running, Ok(false), WithoutUpload::Abandoned(None)),
            ("the store is away", &running, Err(away()), WithoutUpload::LookAgain(away())),
            ("cancelled, the store is away", &stopped, Err(away()), WithoutUpload::Abandoned(Some(away()))),
            ("nobody can look", &running, Err(unknown()), WithoutUpload::Abandoned(Some(unknown()))),
        ];
        for (situation, snapshot, found, want) in cases {
            assert_eq!(without_upload(snapshot, found), want, "{situation}");
        }
    }

    #[test]
    fn a_cancelled_backup_in_local_mode_waits_for_vcenter_before_it_says_that_nothing_is_left() {
        let away = Problem::passing(Reason::VCenterUnreachable, "list the snapshots of the disk");
        let unknown = Problem::lasting(Reason::ClaimNotFound, "claim shop/data-0 does not exist");
        assert!(is_undone_later(&local(at("New")), &away));
        assert!(!is_undone_later(&local(at("New")), &unknown), "no later look will find the disk");
        assert!(!is_undone_later(&at("New"), &away), "the sweep finds it");
    }

    #[test]
    fn a_snapshot_that_waits_for_its_turn_is_not_looked_up_and_one_that_was_begun_always_is() {
        let saying = |reason: Reason| saying(at("New"), reason);
        let cases = [
            ("nobody has seen it", fresh(), false),
            ("asked for", at("New"), false),
            ("it waits for its turn", saying(Reason::Queued), false),
            ("a driver may have been killed in the middle", saying(Reason::Snapshotting), true),
            ("it failed and is tried again", saying(Reason::StoreUnreachable), true),
            ("its Upload waits for a node", with_id(saying(Reason::Queued)), true),
            ("it is to be undone", cancelled(at("New")), true),
        ];
        for (situation, snapshot, want) in cases {
            assert_eq!(has_begun(&snapshot), want, "{situation}");
        }
    }

    #[test]
    fn only_an_upload_of_the_original_that_is_to_be_copied_needs_a_repository() {
        let upload = |phase: &str, ours: bool, cancelled: bool| {
            let mut upload =
                Upload::new("upload-s", api::UploadSpec { upload_cancel: cancelled, ..api::UploadSpec::default() });
            upload.status.get_or_insert_default().phase = Some(phase.into());
            let label = (labels::SNAPSHOT_UID.to_owned(), "u-1".to_owned());
            upload.metadata.labels = ours.then(|| [label].into());
            upload
        };
        for phase in ["New", "InProgress", "UploadError"] {
            assert!(needs_repository(&upload(phase, false, false)), "{phase}");
            assert!(!needs_repository(&upload(phase, true, false)), "ours, {phase}");
            assert!(!needs_repository(&upload(phase, false, true)), "cancelled, {phase}");
        }
        for phase in ["Completed", "Canceling", "Canceled", "CleanupFailed", "UploadFailedAfterRetry"] {
            assert!(!needs_repository(&upload(phase, false, false)), "{phase}");
        }
    }

    #[test]
    fn a_snapshot_that_reuses_a_name_does_not_follow_the_old_ones_upload() {
        let source = Source {
            backing: Backing::Disk("d".parse().unwrap()),
            namespace: "shop".to_owned(),
            claim: "data-0".to_owned(),
        };
        let made = upload(&fresh(), &"d:s".parse().unwrap(), &source, Turn::AtOnce, "c", noon());
        assert!(is_upload_of(&made, &fresh()));
        let mut again = fresh();
        again.metadata.uid = Some("u-2".to_owned());
        assert!(!is_upload_of(&made, &again));
        let mut originals = made;
        originals.metadata.labels = None;
        originals.metadata.creation_timestamp = Some(Time(noon()));
        assert!(is_upload_of(&originals, &fresh()), "the original sets no label");
        again.metadata.creation_timestamp = Some(Time(noon() + SignedDuration::from_secs(1)));
        assert!(!is_upload_of(&originals, &again));
    }

    #[test]
    fn an_upload_carries_what_repository_and_original_need() {
        let source = Source {
            backing: Backing::Disk("d".parse().unwrap()),
            namespace: "shop".to_owned(),
            claim: "data-0".to_owned(),
        };
        let mut asked = fresh();
        let marks = [(labels::BACKUP_NAME, "nightly"), (labels::BACKUP_UID, "u-1")];
        asked.metadata.labels = Some(marks.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let made = upload(&asked, &"d:s".parse().unwrap(), &source, Turn::AtOnce, "cluster", noon());
        assert_eq!((made.spec.backup_name.as_deref(), made.spec.backup_uid.as_deref()), (Some("nightly"), Some("u-1")));
        assert_eq!(made.metadata.name.as_deref(), Some("upload-s"));
        assert_eq!(made.spec.snapshot_id.as_deref(), Some("ivd:d:s"));
        assert_eq!(made.spec.snapshot_reference.as_deref(), Some("shop/snap-1"));
        assert_eq!(made.spec.source_namespace.as_deref(), Some("shop"));
        let marks = made.metadata.labels.as_ref().unwrap();
        assert_eq!(marks["velero.io/exclude-from-backup"], "true", "Velero backs up no request of ours");
        assert!(made.status.unwrap().next_retry_timestamp.is_some(), "the original crashes without it");
        assert_eq!((made.spec.admitted, made.spec.datastore), (None, None), "it may start at once");
        let datastore = Some("datastore-39".to_owned());
        let turn = Turn::WhenAdmitted { datastore: datastore.clone() };
        let bounded = upload(&fresh(), &"d:s".parse().unwrap(), &source, turn, "cluster", noon());
        assert_eq!(
            (bounded.spec.admitted, bounded.spec.datastore),
            (Some(false), datastore),
            "it waits to be admitted"
        );
    }
}
