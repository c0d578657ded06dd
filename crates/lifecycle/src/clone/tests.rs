//! The restore as a table: what exists, and what is done about it. With Velero as the claim's maker: `velero`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod velero;

use super::*;
use crate::transfer::of_the_original::is_of_the_original;
use api::metadata::Blob;
use api::{CloneFromSnapshotSpec, CloneFromSnapshotStatus, DownloadSpec, DownloadStatus, Time, labels};
use serde_json::json;

fn noon() -> Timestamp {
    "2026-01-02T12:00:00Z".parse().unwrap()
}

fn ago(minutes: i64) -> Time {
    Time(noon() - SignedDuration::from_mins(minutes))
}

fn backed_up() -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {"name": "data-0", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"a": "b"}, "uid": "old", "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x"}]},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "gold", "volumeName": "pv-old", "resources": {"requests": {"storage": "1Gi"}}}
    }))
    .unwrap()
}

fn clone() -> CloneFromSnapshot {
    let spec = CloneFromSnapshotSpec {
        snapshot_id: "pvc:shop/data-0:aXZkOmRpc2s6c25hcA".to_owned(),
        metadata: Some(Blob::of(&backed_up())),
        kind: api::CLAIM_KIND.to_owned(),
        backup_repository: "br-1".to_owned(),
        ..CloneFromSnapshotSpec::default()
    };
    let mut clone = CloneFromSnapshot::new("c-1", spec);
    clone.metadata.namespace = Some("restored".to_owned());
    clone.metadata.uid = Some("u-1".to_owned());
    clone.metadata.creation_timestamp = Some(ago(2));
    clone
}

fn with(status: CloneFromSnapshotStatus) -> CloneFromSnapshot {
    CloneFromSnapshot { status: Some(status), ..clone() }
}

fn claim(phase: &str, uid: &str, mark: Option<&str>, minutes_ago: i64) -> Option<PersistentVolumeClaim> {
    let mut claim: PersistentVolumeClaim =
        serde_json::from_value(json!({"metadata": {"name": "x", "uid": uid}, "status": {"phase": phase}})).unwrap();
    claim.metadata.creation_timestamp = Some(ago(minutes_ago));
    claim.metadata.annotations = mark.map(|m| [(labels::CLONE_UID.to_owned(), m.to_owned())].into());
    Some(claim)
}

/// As [`claim`], naming a volume.
fn naming(claim: Option<PersistentVolumeClaim>, volume: &str) -> Option<PersistentVolumeClaim> {
    claim.map(|mut claim| {
        claim.spec.get_or_insert_default().volume_name = Some(volume.to_owned());
        claim
    })
}

fn volume(marked: bool, points_at: &str) -> Option<PersistentVolume> {
    let mut volume: PersistentVolume = serde_json::from_value(
        json!({"metadata": {"name": "pv-1"}, "spec": {"claimRef": {"uid": points_at}, "capacity": {"storage": "1Gi"}}}),
    )
    .unwrap();
    volume.metadata.labels = marked.then(|| [(labels::SCRATCH_FOR.to_owned(), "u-1".to_owned())].into());
    Some(volume)
}

/// The volume as it is once it is settled.
fn settled(uid: &str) -> Option<PersistentVolume> {
    volume(false, "real").map(|mut volume| {
        volume.metadata.annotations = Some([(labels::CLONE_UID.to_owned(), uid.to_owned())].into());
        volume
    })
}

fn download(phase: &str) -> Option<Download> {
    let mut download = Download::new("download-snap-u-1", DownloadSpec::default());
    download.metadata.creation_timestamp = Some(ago(1));
    download.status = Some(DownloadStatus { phase: Some(phase.into()), ..DownloadStatus::default() });
    Some(download)
}

fn scratch(phase: &str) -> Option<PersistentVolumeClaim> {
    claim(phase, "scratch", None, 1)
}

fn nothing() -> Seen {
    Seen::default()
}

#[test]
fn a_restore_step_by_step() {
    let bound = || Seen { scratch: scratch("Bound"), volume: volume(false, "scratch"), ..nothing() };
    let written = || Seen { download: download("Completed"), ..bound() };
    let kept = || Seen { volume: volume(true, "scratch"), ..written() };
    let alone = || Seen { scratch: None, ..kept() };
    let ours = |phase| naming(claim(phase, "real", Some("u-1"), 0), "pv-1");
    let cases = [
        ("nothing yet", nothing(), Plan::Provision),
        (
            "the volume is being made",
            Seen { scratch: scratch("Pending"), ..nothing() },
            Plan::AwaitVolume(noon() + SignedDuration::from_mins(4)),
        ),
        ("the volume is there", bound(), Plan::Download),
        (
            "waiting for a node",
            Seen { download: download("New"), ..bound() },
            Plan::Follow(Some(noon() + SignedDuration::from_mins(59))),
        ),
        ("being written", Seen { download: download("InProgress"), ..bound() }, Plan::Follow(None)),
        ("written", written(), Plan::Hand(Hand::Keep)),
        ("kept", kept(), Plan::Hand(Hand::DropScratch)),
        ("on its own", alone(), Plan::Hand(Hand::CreateClaim)),
        (
            "the Download was deleted, the volume is written",
            Seen { download: None, ..alone() },
            Plan::Hand(Hand::CreateClaim),
        ),
        ("the claim is there", Seen { target: ours("Pending"), ..alone() }, Plan::Hand(Hand::Point)),
        (
            "they point at each other",
            Seen { target: ours("Pending"), volume: volume(true, "real"), ..alone() },
            Plan::Hand(Hand::AwaitBound),
        ),
        ("bound", Seen { target: ours("Bound"), volume: volume(true, "real"), ..alone() }, Plan::Hand(Hand::Settle)),
        ("settled", Seen { target: ours("Bound"), target_volume: settled("u-1"), ..nothing() }, Plan::Complete),
    ];
    for (situation, seen, want) in cases {
        assert_eq!(plan(&clone(), &seen, noon()), want, "{situation}");
    }
}

#[test]
fn what_ends_a_restore_is_noted_before_anything_is_removed() {
    let reason = |clone: &CloneFromSnapshot, seen: &Seen| match plan(clone, seen, noon()) {
        Plan::GiveUp(problem) => problem.reason,
        other => unreachable!("it should give up, not {other:?}"),
    };
    let without = |change: fn(&mut CloneFromSnapshotSpec)| {
        let mut clone = clone();
        change(&mut clone.spec);
        clone
    };
    let theirs = Seen { target: claim("Pending", "theirs", None, 5), ..nothing() };
    let late = Seen { scratch: claim("Pending", "s", None, 6), ..nothing() };
    assert_eq!(reason(&clone(), &theirs), Reason::ClaimExists, "never overwritten");
    assert_eq!(reason(&clone(), &late), Reason::ClaimBindTimeout);
    assert_eq!(reason(&clone(), &Seen { download: download("Failed"), ..nothing() }), Reason::Internal);
    assert_eq!(reason(&without(|s| s.metadata = None), &nothing()), Reason::InvalidSpec);
    assert_eq!(reason(&without(|s| s.snapshot_id = "x".to_owned()), &nothing()), Reason::InvalidSpec);
    assert_eq!(reason(&without(|s| s.backup_repository.clear()), &nothing()), Reason::InvalidSpec);
    assert_eq!(reason(&without(|s| s.kind = "Secret".to_owned()), &nothing()), Reason::UnsupportedKind);

    let problem = Problem::lasting(Reason::RestorePointMissing, "find the restore point");
    let noted = with(status::giving_up(&CloneFromSnapshotStatus::default(), &problem, noon()));
    assert_eq!(noted.phase(), Some(&ClonePhase::InProgress), "not Failed while anything is left");
    assert_eq!(plan(&noted, &Seen { scratch: scratch("Bound"), ..nothing() }, noon()), Plan::Clean);
    assert_eq!(plan(&noted, &theirs, noon()), Plan::End, "somebody else's claim is not ours to remove");
    let ended = with(status::ended(noted.status.as_ref().unwrap(), noon()));
    assert_eq!(ended.phase(), Some(&ClonePhase::Failed));
    assert!(ended.status.as_ref().unwrap().message.as_ref().unwrap().contains("find the restore point"));
    assert_eq!(
        plan(&ended, &nothing(), noon()),
        Plan::WakeAt(noon() + age::KEPT),
        "a failed restore is never run again"
    );
}

#[test]
fn a_restore_that_the_original_ended_without_a_time_is_told_one_and_never_run_again() {
    for phase in [ClonePhase::Completed, ClonePhase::Failed, ClonePhase::Canceled] {
        let status = CloneFromSnapshotStatus { phase: Some(phase.clone()), ..CloneFromSnapshotStatus::default() };
        let ended = with(status);
        assert_eq!(plan(&ended, &nothing(), noon()), Plan::SayWhen, "{phase}");
        let told = with(age::said_when(ended.status.as_ref().unwrap(), noon()));
        assert_eq!(told.phase(), Some(&phase), "its end stays");
        assert_eq!(plan(&told, &nothing(), noon()), Plan::WakeAt(noon() + age::KEPT), "{phase}");
    }
}

#[test]
fn a_restore_that_is_asked_to_stop_removes_what_it_made() {
    let mut clone = clone();
    clone.spec.clone_cancel = true;
    assert_eq!(plan(&clone, &nothing(), noon()), Plan::StopNow);
    clone.status = Some(status::stopping(&CloneFromSnapshotStatus::default(), noon()));
    assert_eq!(plan(&clone, &Seen { download: download("InProgress"), ..nothing() }, noon()), Plan::Clean);
    let writing = Seen { download: download("InProgress"), writing: true, ..nothing() };
    assert_eq!(plan(&clone, &writing, noon()), Plan::StopWriting, "no volume goes while it is written");
    assert_eq!(plan(&clone, &Seen { writing: true, ..nothing() }, noon()), Plan::StopWriting, "the Download is gone");
    assert_eq!(plan(&clone, &nothing(), noon()), Plan::End);
    assert_eq!(status::ended(clone.status.as_ref().unwrap(), noon()).phase, Some(ClonePhase::Canceled));
}

/// W-02: the original makes the claim first, and writes its disk after that.
#[test]
fn a_claim_that_the_original_may_have_written_to_the_half_is_not_called_whole() {
    let told = |minutes_ago| {
        let seen = Seen { target: claim("Bound", "c", None, minutes_ago), ..nothing() };
        match plan(&clone(), &seen, noon()) {
            Plan::GiveUp(problem) => problem.message(),
            other => unreachable!("it should give up, not {other:?}"),
        }
    };
    let (older, younger) = (told(5), told(1));
    assert!(older.ends_with(Reason::ClaimExists.fix()) && !older.contains("a part of the backup"), "{older}");
    assert!(younger.contains("a part of the backup only: delete it and restore again"), "{younger}");
}

/// M-1-5, M-1-8: what scripts and the original's plugin read of a restore.
#[test]
fn a_download_and_the_end_of_its_restore_are_as_the_originals() {
    let (source, disk) = (claims::source(&clone()).unwrap(), "6f2f7f4f".parse().unwrap());
    let made = claims::download(&clone(), &source, &disk, noon());
    assert!(!is_of_the_original(&made), "it would be ended");
    assert_eq!(made.metadata.labels.unwrap()["velero.io/exclude-from-backup"], "true");
    assert_eq!(made.metadata.name.as_deref(), Some("download-snap-u-1"));
    assert_eq!(made.spec.protected_entity_id.as_deref(), Some("ivd:6f2f7f4f"));
    assert_eq!(made.spec.clone_from_snapshot_reference.as_deref(), Some("restored/c-1"));

    let ended = status::completed(&CloneFromSnapshotStatus::default(), Some(&disk), noon());
    let written = serde_json::to_value(&ended).unwrap();
    let want = json!({"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "ivd:6f2f7f4f"});
    assert_eq!((&written["phase"], &written["message"]), (&json!("Completed"), &json!("Download completed")));
    assert_eq!(written["resourceHandle"], want, "the name is the disk's, not the claim's");
    assert_eq!(written["completionTimestamp"], "2026-01-02T12:00:00Z");
}

#[test]
fn a_restored_claim_keeps_what_is_its_users_and_drops_what_was_the_old_ones() {
    let made = claims::real(&clone(), &backed_up(), &volume(true, "").unwrap());
    assert_eq!(made.metadata.namespace.as_deref(), Some("restored"));
    assert_eq!(made.metadata.labels, backed_up().metadata.labels);
    assert_eq!(made.metadata.owner_references, None, "a foreign owner would have it collected at once");
    assert_eq!(made.metadata.annotations.unwrap().len(), 1);
    let spec = made.spec.unwrap();
    assert_eq!(spec.volume_name.as_deref(), Some("pv-1"));
    assert_eq!(spec.resources, backed_up().spec.unwrap().resources);
}

#[test]
fn a_store_that_is_away_ends_a_restore_after_ten_minutes_in_which_it_was_asked_however_old_the_restore_is() {
    let away = Problem::passing(Reason::StoreUnreachable, "read snapshots/: timed out");
    let said = |minutes| with(status::hindered(&CloneFromSnapshotStatus::default(), BEGINNING, &away, ago(minutes).0));
    let cases = [
        ("it waited an hour for its claim", clone(), &away, Some(10)),
        ("it has failed for three minutes", said(3), &away, Some(7)),
        ("it has failed for ten", said(10), &away, None),
        ("nobody can pass it", clone(), &Problem::lasting(Reason::RestorePointMissing, "none"), None),
        ("keys that are refused need somebody", clone(), &Problem::passing(Reason::StoreAccessDenied, "403"), None),
    ];
    for (situation, clone, problem, left) in cases {
        let until = begins_until(&clone, problem, Some(noon()), noon());
        assert_eq!(until.map(|at| at.duration_since(noon()).as_mins()), left, "{situation}");
    }
}

#[test]
fn a_quota_that_keeps_the_claim_from_being_made_does_not_cost_the_data_that_is_written() {
    let quota = Problem::passing(Reason::ClusterForbidden, "make claim data-0: exceeded quota: storage");
    let before = status::hindered(&CloneFromSnapshotStatus::default(), HANDING, &quota, ago(59).0);
    assert!(hands_until(&with(before.clone()), &quota, Some(noon()), noon()).is_some());
    assert!(hands_until(&with(before), &quota, Some(noon()), noon() + SignedDuration::from_mins(1)).is_none());
}

/// Each attempt would be two events, and what it writes would bring the next attempt at once.
#[test]
fn an_attempt_says_nothing_new_while_the_last_trouble_may_still_be_there() {
    let away = Problem::passing(Reason::StoreUnreachable, "read snapshots/: timed out");
    let fresh = CloneFromSnapshotStatus::default();
    let told = status::hindered(&fresh, BEGINNING, &away, noon());
    assert_eq!(status::provisioning(&told, noon()), told);
    let reason = |status: &CloneFromSnapshotStatus| {
        conditions::get(&status.conditions, conditions::READY).unwrap().reason.clone()
    };
    let made = status::provisioned(&told, noon());
    assert_eq!((reason(&made), made.conditions.len()), ("Provisioning".to_owned(), 1));
    let begun = status::provisioning(&fresh, noon());
    assert_eq!(status::provisioned(&begun, noon()), begun, "no write where nothing was wrong");
    let ended = status::ended(&status::giving_up(&told, &away, noon()), noon());
    assert_eq!((reason(&ended), ended.conditions.len()), ("StoreUnreachable".to_owned(), 1));
}

/// One unreadable snapshot file must not hide a whole backup that lies elsewhere.
#[test]
fn a_damaged_repository_is_no_reason_not_to_look_where_an_old_backup_lies() {
    for (reason, elsewhere) in [
        (Reason::RepositoryDamaged, true),
        (Reason::RepositoryMissing, true),
        (Reason::RestorePointMissing, true),
        (Reason::RestorePointDamaged, false),
        (Reason::StoreUnreachable, false),
    ] {
        assert_eq!(may_be_of_the_original(&Problem::passing(reason, "x")), elsewhere, "{reason}");
    }
}
