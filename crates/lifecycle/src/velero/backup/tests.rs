#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use api::conditions::{self, Status};
use api::{Reason, SnapshotStatus, Timestamp};
use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::velero::{Level, blob};

fn backup(spec: Value) -> Backup {
    serde_json::from_value(json!({"metadata": {"name": "nightly", "uid": "b-1"}, "spec": spec})).unwrap()
}

fn claim() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-0", "namespace": "shop", "annotations": {
            "team": "shop", "volumehealth.storage.kubernetes.io/health": "accessible",
            "volumehealth.storage.kubernetes.io/health-timestamp": "Tue Mar  5 09:20:05 UTC 2024"}},
        "spec": {"volumeName": "pv-1", "accessModes": ["ReadWriteMany"], "volumeMode": "Block"},
        "status": {"phase": "Bound"}
    })
}

fn volume(spec: Value) -> PersistentVolume {
    let mut spec = spec;
    spec["persistentVolumeReclaimPolicy"] = json!("Retain");
    spec["storageClassName"] = json!("gold");
    serde_json::from_value(json!({"metadata": {"name": "pv-1", "labels": {"tier": "fast"}}, "spec": spec})).unwrap()
}

fn ours() -> PersistentVolume {
    volume(json!({"csi": {"driver": labels::CSI_DRIVER, "volumeHandle": "2b6d"}}))
}

fn pod(annotation: &str, volumes: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web-0", "namespace": "shop", "annotations": {annotation: volumes}},
        "spec": {"containers": [], "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "data-0"}},
            {"name": "scratch", "emptyDir": {}}]},
        "status": {"phase": "Running"}
    }))
    .unwrap()
}

fn policies(action: &str) -> Policies {
    let yaml =
        format!("version: v1\nvolumePolicies:\n- conditions: {{storageClass: [gold]}}\n  action: {{type: {action}}}\n");
    Policies::read("velero/policy", Some(&BTreeMap::from([("p".to_owned(), yaml)]))).unwrap()
}

/// One situation, an ordinary claim of ours unless it says otherwise.
struct Case {
    backup: Backup,
    item: Value,
    volume: Option<PersistentVolume>,
    pods: Vec<Pod>,
    policies: Option<Policies>,
    settings: Settings,
}

impl Case {
    fn ordinary() -> Self {
        Self {
            backup: backup(json!({})),
            item: claim(),
            volume: Some(ours()),
            pods: Vec::new(),
            policies: None,
            settings: Settings::default(),
        }
    }

    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut case = Self::ordinary();
        change(&mut case);
        case
    }

    fn decide(&self) -> Decision {
        decide(&Facts {
            backup: &self.backup,
            item: &self.item,
            blocked: &Blocked::by_default(),
            settings: self.settings,
            policies: self.policies.as_ref(),
            volume: self.volume.as_ref(),
            pods: &self.pods,
        })
    }

    fn decide_volume(&self) -> VolumeDecision {
        let claim = item::claim(&self.item).unwrap();
        decide_volume(&VolumeFacts {
            backup: &self.backup,
            volume: self.volume.as_ref().unwrap(),
            claim: Some(&claim),
            settings: self.settings,
            policies: self.policies.as_ref(),
            pods: &self.pods,
        })
    }
}

/// A decision in one word, and a piece of what it says.
fn is(decision: &Decision, word: &str, says: &str) -> bool {
    match decision {
        Decision::Take(Destination::Repository) => word == "take",
        Decision::Take(Destination::Local) => word == "take locally",
        Decision::Leave(Note { level: Level::Info, text }) => word == "leave" && text.contains(says),
        Decision::Leave(Note { level: Level::Warning, text }) => word == "leave, warn" && text.contains(says),
        Decision::Refuse(problem) => word == "refuse" && problem.message().contains(says),
    }
}

#[test]
fn what_a_backup_takes_and_what_it_leaves_alone() {
    let spec = |spec: Value| move |case: &mut Case| case.backup = backup(spec);
    let other = json!({"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}});
    let share = json!({"csi": {"driver": labels::CSI_DRIVER, "volumeHandle": "file:1"}});
    let in_tree = || volume(json!({"vsphereVolume": {"volumePath": "[ds] a.vmdk"}}));
    let migrated = |switch: bool| {
        move |case: &mut Case| {
            let mark = [(labels::MIGRATED_TO.to_owned(), labels::CSI_DRIVER.to_owned())];
            case.volume.insert(in_tree()).metadata.annotations = Some(mark.into());
            case.settings.migrated_volumes = switch;
        }
    };
    let cases = [
        ("an ordinary claim, any access and volume mode", Case::ordinary(), "take", ""),
        ("local mode", Case::with(|c| c.settings.local_mode = true), "take locally", ""),
        ("snapshots wanted", Case::with(spec(json!({"snapshotVolumes": true}))), "take", ""),
        ("no snapshots", Case::with(spec(json!({"snapshotVolumes": false}))), "leave", "--snapshot-volumes=false"),
        (
            "P-12: the backup is finalizing",
            Case::with(|c| c.backup.status.phase = "FinalizingPartiallyFailed".to_owned()),
            "leave",
            "finalizing",
        ),
        (
            "a blocked kind",
            Case::with(|c| c.item = json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer"})),
            "refuse",
            "`issuers.cert-manager.io`",
        ),
        (
            "blocked, but without snapshots nothing is asked",
            Case::with(|c| {
                c.item = json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer"});
                c.backup = backup(json!({"snapshotVolumes": false}));
            }),
            "leave",
            "",
        ),
        (
            "W-35: another kind is never taken for a claim without a volume",
            Case::with(|c| c.item = json!({"apiVersion": "shop.example/v1", "kind": "PersistentVolumeClaim"})),
            "leave",
            "no claim",
        ),
        (
            "W-44: not bound yet",
            Case::with(|c| {
                c.item["status"]["phase"] = json!("Pending");
                c.item["spec"]["volumeName"] = json!(null);
                c.volume = None;
            }),
            "leave, warn",
            "backed up without data",
        ),
        ("lost its volume", Case::with(|c| c.item["status"]["phase"] = json!("Lost")), "refuse", "lost its volume"),
        ("its volume is gone", Case::with(|c| c.volume = None), "refuse", "does not exist"),
        ("another driver", Case::with(|c| c.volume = Some(volume(other))), "leave", "ebs.csi.aws.com"),
        ("a file share", Case::with(|c| c.volume = Some(volume(share))), "leave, warn", "not a disk"),
        ("in-tree and migrated", Case::with(migrated(true)), "take", ""),
        ("the same, not switched on", Case::with(migrated(false)), "leave, warn", "csi-migrated-volume-support"),
        (
            "W-34: in-tree, never migrated",
            Case::with(|c| {
                c.settings.migrated_volumes = true;
                c.volume = Some(in_tree());
            }),
            "leave, warn",
            "not migrated",
        ),
        ("P-17: policy skip", Case::with(|c| c.policies = Some(policies("skip"))), "leave", "says skip"),
        ("P-17: policy fs-backup", Case::with(|c| c.policies = Some(policies("fs-backup"))), "leave", "file-system"),
        ("policy custom", Case::with(|c| c.policies = Some(policies("custom"))), "leave", "custom"),
        ("a policy newer than we are", Case::with(|c| c.policies = Some(policies("melt"))), "leave, warn", "`melt`"),
        ("policy snapshot", Case::with(|c| c.policies = Some(policies("snapshot"))), "take", ""),
        (
            "fs-backup opted in",
            Case::with(|c| c.pods = vec![pod(fs_backup::INCLUDED, "data")]),
            "leave",
            "as volume data of pod web-0",
        ),
        (
            "a policy beats the annotation",
            Case::with(|c| {
                c.pods = vec![pod(fs_backup::INCLUDED, "data")];
                c.policies = Some(policies("snapshot"));
            }),
            "take",
            "",
        ),
        (
            "fs-backup of all, this one opted out",
            Case::with(|c| {
                c.backup = backup(json!({"defaultVolumesToFsBackup": true}));
                c.pods = vec![pod(fs_backup::EXCLUDED, "data")];
            }),
            "take",
            "",
        ),
    ];
    for (situation, case, word, says) in cases {
        let decision = case.decide();
        assert!(is(&decision, word, says), "{situation}: {decision:?}");
    }
}

#[test]
fn our_action_stands_aside_where_velero_has_taken_a_csi_snapshot() {
    let taken = |label: &str, spec: Value| {
        Case::with(|c| {
            c.item["metadata"]["annotations"]["velero.io/volume-snapshot-name"] = json!("vs-1");
            c.item["metadata"]["labels"] = json!({"velero.io/backup-name": label});
            c.backup = backup(spec);
        })
        .decide()
    };
    assert!(is(&taken("nightly", json!({})), "leave", "EnableCSI"));
    assert!(is(&taken("nightly", json!({"snapshotMoveData": true})), "leave", "--snapshot-move-data"));
    assert!(is(&taken("last-week", json!({})), "take", ""), "an annotation of an older backup takes nothing");
}

#[test]
fn a_backup_is_recognised_by_its_label_however_long_its_name_is() {
    let long = "a".repeat(100) + ".b";
    let hashed = format!("{}c0ffee", "a".repeat(57));
    for (label, name, want) in [
        ("nightly", "nightly", true),
        ("nightly", "nightly-2", false),
        (hashed.as_str(), long.as_str(), true),
        (&labels::backup_name(&long), long.as_str(), true),
        (hashed.as_str(), "nightly", false),
    ] {
        assert_eq!(is_label_of(label, name), want, "{label} {name}");
    }
}

#[test]
fn v01_a_volume_is_marked_exactly_when_its_claim_is_taken_into_the_repository() {
    let excluded = json!({"velero.io/exclude-from-backup": "true"});
    let cases = [
        ("ordinary", Case::ordinary(), true),
        ("local mode", Case::with(|c| c.settings.local_mode = true), false),
        ("finalizing", Case::with(|c| c.backup.status.phase = "Finalizing".to_owned()), false),
        ("no snapshots", Case::with(|c| c.backup = backup(json!({"snapshotVolumes": false}))), false),
        ("policy skip", Case::with(|c| c.policies = Some(policies("skip"))), false),
        ("fs-backup", Case::with(|c| c.pods = vec![pod(fs_backup::INCLUDED, "data")]), false),
        ("its claim is excluded", Case::with(|c| c.item["metadata"]["labels"] = excluded), false),
        ("its claim has another volume", Case::with(|c| c.item["spec"]["volumeName"] = json!("pv-2")), false),
        (
            "another driver",
            Case::with(|c| c.volume = Some(volume(json!({"csi": {"driver": "x", "volumeHandle": "y"}})))),
            false,
        ),
    ];
    for (situation, case, want) in cases {
        assert_eq!(case.decide_volume() == VolumeDecision::Mark, want, "{situation}: {:?}", case.decide_volume());
    }
    let item = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1"}, "news": 1});
    let marked = marked(&item);
    assert_eq!(marked["metadata"]["annotations"]["velero-plugin-for-vsphere/data"], "repository");
    assert_eq!(marked["news"], 1);
}

fn snapshot(phase: &str, id: Option<&str>) -> api::Snapshot {
    let mut snapshot = snapshot_for(&backup(json!({})), &claim(), "br-1", "snap-1");
    snapshot.status = Some(SnapshotStatus {
        phase: Some(phase.into()),
        snapshot_id: id.map(str::to_owned),
        message: Some("open the repository: the bucket is gone".to_owned()),
        ..SnapshotStatus::default()
    });
    snapshot
}

const ID: &str = "pvc:shop/data-0:aXZkOmRpc2s6c25hcA";

#[test]
fn w06_execute_returns_when_the_disk_snapshot_is_recorded_and_not_before() {
    for phase in ["New", "Snapshotted", "Uploading", "Uploaded", "UploadFailed", "Canceling"] {
        assert_eq!(waited(Some(&snapshot(phase, None))), Waited::NotYet, "{phase}");
        assert_eq!(waited(Some(&snapshot(phase, Some(ID)))), Waited::Ready, "{phase}");
    }
    for phase in ["SnapshotFailed", "Canceled", "UploadFailedAfterRetry"] {
        let Waited::Failed(problem) = waited(Some(&snapshot(phase, Some(ID)))) else { panic!("{phase} is an end") };
        assert!(problem.message().contains("the bucket is gone"), "{phase}: {}", problem.message());
    }
    assert!(matches!(waited(None), Waited::Failed(p) if p.reason == Reason::RequestDeleted));
}

#[test]
fn w24_a_wait_that_ends_says_what_it_waited_for() {
    let ten = SignedDuration::from_mins(10);
    let silent = not_in_time(&snapshot("New", None), ten);
    assert_eq!(silent.reason, Reason::DriverSilent);
    assert!(silent.message().contains("within 10 min") && silent.message().contains("backup-driver"));
    let mut busy = snapshot("New", None);
    let status = busy.status.as_mut().unwrap();
    let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
    let (reason, message) = (Reason::VCenterUnreachable, "take snapshot: no route");
    conditions::set(&mut status.conditions, conditions::READY, Status::False, reason, message, now);
    let problem = not_in_time(&busy, ten);
    assert_eq!(problem.reason, Reason::VCenterUnreachable);
    assert!(problem.message().contains("no route"), "{}", problem.message());
}

#[test]
fn w38_a_backup_with_a_name_of_200_characters_can_be_snapshotted() {
    let mut long = backup(json!({}));
    long.metadata.name = Some("weekly.".repeat(28) + "last");
    let snapshot = snapshot_for(&long, &claim(), "br-1", "snap-1");
    let labels = snapshot.metadata.labels.unwrap();
    assert!(labels["velero.io/backup-name"].len() <= 63);
    assert_eq!(labels["velero.io/backup-uid"], "b-1");
    assert_eq!(labels["velero.io/exclude-from-backup"], "true");
    assert_eq!(snapshot.metadata.namespace.as_deref(), Some("shop"));
    assert!(is_label_of(&labels["velero.io/backup-name"], long.name()), "found again when the backup is deleted");
}

#[test]
fn the_claim_in_the_backup_carries_all_that_a_restore_needs() {
    let mut before = claim();
    before["metadata"]["annotations"]["velero-plugin-for-vsphere/item-snapshot-blob"] = json!("b2xk");
    before["spec"]["selector"] = json!({"matchLabels": {"velero-plugin-for-vsphere/clone": "u"}});
    before["news"] = json!({"kept": true});
    let given = recorded(&before, Some(&ours()), &snapshot("Snapshotted", Some(ID)), "v1.0.0").unwrap();
    let annotations = given["metadata"]["annotations"].as_object().unwrap();
    let keys: Vec<&str> = annotations.keys().map(String::as_str).collect();
    let mut want = vec![
        "team",
        "velero-plugin-for-vsphere/item-snapshot-blob",
        "velero-plugin-for-vsphere/plugin-version",
        "velero-plugin-for-vsphere/reclaim-policy",
        "velero-plugin-for-vsphere/volume-labels",
    ];
    want.sort_unstable();
    let mut have = keys.clone();
    have.sort_unstable();
    assert_eq!(have, want);
    assert_eq!(annotations["velero-plugin-for-vsphere/reclaim-policy"], "Retain");
    assert_eq!(annotations["velero-plugin-for-vsphere/volume-labels"], r#"{"tier":"fast"}"#);
    assert_eq!((&given["news"], &given["spec"]["selector"]), (&before["news"], &Value::Null));
    let record = blob::read(&given).unwrap().unwrap();
    assert_eq!(record.snapshot_id, ID);
    assert_eq!(record.metadata.unwrap().claim().unwrap().metadata.name.as_deref(), Some("data-0"));
    assert_eq!((record.kind.as_str(), record.api_group.as_str()), ("PersistentVolumeClaim", ""));
    assert_eq!((record.repository.as_deref(), record.backup_name.as_deref()), (Some("br-1"), Some("nightly")));
}
