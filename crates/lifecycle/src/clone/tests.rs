//! The restore as a table: what exists, and what is done about it. With Velero as the claim's maker: `velero`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod velero;

use super::*;
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

/// M-1-5, M-1-8: what scripts and the original's plugin read of a restore.
#[test]
fn a_download_and_the_end_of_its_restore_are_as_the_originals() {
    let (source, disk) = (claims::source(&clone()).unwrap(), "6f2f7f4f".parse().unwrap());
    let made = claims::download(&clone(), &source, &disk, noon());
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
