#![allow(clippy::unwrap_used, reason = "tests")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;
use crate::velero::Level;

const ID: &str = "pvc:shop/data-0:aXZkOmRpc2s6c25hcA";
const BLOB: &str = "velero-plugin-for-vsphere/item-snapshot-blob";

fn record(status: Value, repository: Value) -> String {
    let snapshot = json!({
        "metadata": {"name": "snap-1", "labels": {"velero.io/backup-name": "nightly"}},
        "spec": {"backupRepository": repository, "resourceHandle": {"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "data-0"}},
        "status": status
    });
    STANDARD.encode(snapshot.to_string())
}

fn metadata_of(item: &Value) -> metadata::Blob {
    metadata::Blob::of(&item::claim(item).unwrap())
}

fn bare() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "news": 1,
        "metadata": {"name": "data-0", "namespace": "shop", "labels": {"app": "web"},
            "finalizers": ["kubernetes.io/pvc-protection"],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "old"}],
            "annotations": {"team": "shop", "volumehealth.storage.kubernetes.io/health": "accessible",
                "volumehealth.storage.kubernetes.io/health-timestamp": "Tue Mar  5 09:20:05 UTC 2024",
                "volume.kubernetes.io/selected-node": "old-node"}},
        "spec": {"volumeName": "pv-1", "accessModes": ["ReadWriteOnce"], "storageClassName": "gold",
            "resources": {"requests": {"storage": "3Gi"}},
            "dataSource": {"kind": "VolumeSnapshot", "name": "old", "apiGroup": "snapshot.storage.k8s.io"},
            "dataSourceRef": {"kind": "VolumeSnapshot", "name": "old", "apiGroup": "snapshot.storage.k8s.io"},
            "selector": {"matchLabels": {"old": "selector"}}}
    })
}

fn from_backup() -> Value {
    let mut item = bare();
    let blob = record(json!({"phase": "Snapshotted", "snapshotID": ID, "metadata": metadata_of(&item)}), json!("br-1"));
    item["metadata"]["annotations"][BLOB] = json!(blob);
    item["metadata"]["annotations"]["velero-plugin-for-vsphere/reclaim-policy"] = json!("Retain");
    item["status"] = json!({"phase": "Bound"});
    item
}

fn with_record(status: Value, repository: Value) -> Value {
    let mut item = from_backup();
    item["metadata"]["annotations"][BLOB] = json!(record(status, repository));
    item
}

fn class(name: &str, provisioner: &str, default: bool) -> StorageClass {
    serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": default.to_string()}},
        "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"
    }))
    .unwrap()
}

fn mapping(name: &str, pairs: &[(&str, &str)]) -> ConfigMap {
    let data: BTreeMap<&str, &str> = pairs.iter().copied().collect();
    serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).unwrap()
}

/// One situation; an ordinary restore unless it says otherwise.
struct Case {
    restore: Restore,
    item: Value,
    from_backup: Value,
    existing: Option<PersistentVolumeClaim>,
    mappings: Vec<ConfigMap>,
    classes: Vec<StorageClass>,
}

impl Case {
    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut case = Self {
            restore: restore(json!({"backupName": "nightly"})),
            item: bare(),
            from_backup: from_backup(),
            existing: None,
            mappings: Vec::new(),
            classes: vec![class("gold", labels::CSI_DRIVER, false)],
        };
        change(&mut case);
        case
    }

    fn decide(&self) -> Decision {
        decide(&Facts {
            restore: &self.restore,
            item: &self.item,
            item_from_backup: &self.from_backup,
            blocked: &Blocked::by_default(),
            existing: self.existing.as_ref(),
            mappings: &self.mappings,
            classes: &self.classes,
        })
    }

    fn take(&self) -> Take {
        match self.decide() {
            Decision::Take(take) => *take,
            other => panic!("not taken: {other:?}"),
        }
    }
}

fn restore(spec: Value) -> Restore {
    serde_json::from_value(json!({"metadata": {"name": "again"}, "spec": spec})).unwrap()
}

fn is(decision: &Decision, word: &str, says: &str) -> bool {
    match decision {
        Decision::Take(_) => word == "take",
        Decision::Leave(Note { level: Level::Info, text }) => word == "leave" && text.contains(says),
        Decision::Leave(Note { level: Level::Warning, text }) => word == "leave, warn" && text.contains(says),
        Decision::SkipRestore(note) => word == "skip" && note.text.contains(says),
        Decision::Refuse(problem) => word == "refuse" && problem.message().contains(says),
    }
}

#[test]
fn what_a_restore_brings_back_and_what_it_leaves_alone() {
    let kind = |version: &str, kind: &str| {
        let item = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x", "namespace": "shop"}});
        Case::with(move |c| c.from_backup = item)
    };
    let existing = |meta: Value| {
        let claim = json!({"metadata": meta});
        Case::with(move |c| c.existing = Some(serde_json::from_value(claim).unwrap()))
    };
    let no_data = json!({"snapshotID": ID});
    let cases = [
        ("an ordinary claim, whatever the binding mode", Case::with(|_| ()), "take", ""),
        ("no volumes", Case::with(|c| c.restore = restore(json!({"restorePVs": false}))), "leave", "restore-volumes"),
        ("no record", Case::with(|c| c.from_backup = bare()), "leave", "no data of ours"),
        (
            "P-13: the record is read where no action can have removed it",
            Case::with(|c| c.item["metadata"]["annotations"] = json!(null)),
            "take",
            "",
        ),
        (
            "a damaged record",
            Case::with(|c| c.from_backup["metadata"]["annotations"][BLOB] = json!("e30%")),
            "refuse",
            "not base64",
        ),
        (
            "W-06: a record without an id",
            Case::with(|c| c.from_backup = with_record(json!({}), json!("br"))),
            "refuse",
            "names no disk snapshot",
        ),
        (
            "W-06: a record without the claim",
            Case::with(|c| c.from_backup = with_record(no_data.clone(), json!("br"))),
            "take",
            "",
        ),
        (
            "an id that leads nowhere",
            Case::with(|c| c.from_backup = with_record(json!({"snapshotID": "pvc:x"}), json!("br"))),
            "refuse",
            "pvc:x",
        ),
        ("made in local mode", Case::with(|c| c.from_backup = with_record(no_data, json!(""))), "refuse", "local mode"),
        ("V-03: it exists", existing(json!({"name": "data-0"})), "leave, warn", "claim shop/data-0 is already there"),
        (
            "V-03: it is going",
            existing(json!({"name": "data-0", "deletionTimestamp": "2026-01-02T12:00:00Z"})),
            "leave, warn",
            "being deleted",
        ),
        ("V-06: a kind of ours", kind("backupdriver.cnsdp.vmware.com/v1alpha1", "Snapshot"), "skip", "a request"),
        ("V-06: a transfer", kind("datamover.cnsdp.vmware.com/v1alpha1", "Upload"), "skip", "a request"),
        ("made by the cluster", kind("imagecontroller.vmware.com/v1alpha1", "Image"), "skip", "made anew"),
        ("made by the cluster", kind("vmware.com/v1alpha1", "NSXLoadBalancerMonitor"), "skip", "made anew"),
        ("blocked", kind("cluster.x-k8s.io/v1beta1", "Cluster"), "refuse", "`clusters.cluster.x-k8s.io`"),
        ("a pod", kind("v1", "Pod"), "leave", "a pod"),
    ];
    for (situation, case, word, says) in cases {
        let decision = case.decide();
        assert!(is(&decision, word, says), "{situation}: {decision:?}");
    }
}

#[test]
fn a_restored_claim_cannot_be_bound_before_its_data_is_there() {
    let case = Case::with(|_| ());
    let given = taken(&case.item, &case.take(), "uid-7");
    let want = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "news": 1,
        "metadata": {"name": "data-0", "namespace": "shop", "labels": {"app": "web"},
            "finalizers": ["kubernetes.io/pvc-protection"],
            "annotations": {"team": "shop", "velero-plugin-for-vsphere/clone-uid": "uid-7"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "gold",
            "resources": {"requests": {"storage": "3Gi"}},
            "selector": {"matchLabels": {"velero-plugin-for-vsphere/clone": "uid-7"}}}
    });
    assert_eq!(given, want, "W-41: no owner, no source of data, no volume, no node of old");
}

#[test]
fn a_claim_that_is_left_to_velero_does_not_wait_for_us() {
    let mut item = bare();
    item["spec"]["selector"] = json!({"matchLabels": {"velero-plugin-for-vsphere/clone": "old"}});
    item["metadata"]["annotations"][BLOB] = json!("e30=");
    let given = left(&item).unwrap();
    assert_eq!(given["spec"]["selector"], Value::Null);
    assert_eq!(given["spec"]["volumeName"], "pv-1", "only what must change");
    let annotations = json!({"team": "shop", "volume.kubernetes.io/selected-node": "old-node"});
    assert_eq!(given["metadata"]["annotations"], annotations);
    assert_eq!(left(&given), None, "unchanged items go back byte for byte");
}

#[test]
fn the_clone_says_where_the_data_is_and_what_becomes_of_it() {
    let case = Case::with(|c| {
        c.restore = restore(json!({"backupName": "nightly", "namespaceMapping": {"shop": "shop-2"}}));
        c.mappings = vec![mapping("m", &[("gold", "silver")])];
        c.classes = vec![class("silver", labels::CSI_DRIVER, false)];
    });
    let take = case.take();
    assert_eq!((take.namespace.as_str(), take.source_namespace.as_str()), ("shop-2", "shop"));
    let clone = take.clone_from_snapshot(&case.restore, "br-9", "c-1");
    assert_eq!(clone.metadata.namespace.as_deref(), Some("shop-2"));
    assert_eq!(clone.metadata.annotations.unwrap()["velero-plugin-for-vsphere/reclaim-policy"], "Retain", "V-05");
    let marks = clone.metadata.labels.unwrap();
    assert_eq!(
        (marks["velero.io/restore-name"].as_str(), marks["velero.io/exclude-from-backup"].as_str()),
        ("again", "true")
    );
    assert_eq!((clone.spec.snapshot_id.as_str(), clone.spec.backup_repository.as_str()), (ID, "br-9"));
    assert_eq!(clone.spec.claim_creator, Some(ClaimCreator::Velero));
    let claim = clone.spec.metadata.unwrap().claim().unwrap();
    assert_eq!(claim.metadata.namespace.as_deref(), Some("shop-2"));
    assert_eq!(claim.spec.unwrap().storage_class_name.as_deref(), Some("silver"));
    assert_eq!(taken(&case.item, &take, "u")["spec"]["storageClassName"], "silver");
}

#[test]
fn which_storage_class_a_restored_claim_gets() {
    let ours = |name: &str| class(name, labels::CSI_DRIVER, false);
    let classless = |c: &mut Case| {
        for item in [&mut c.item, &mut c.from_backup] {
            item["spec"].as_object_mut().unwrap().remove("storageClassName");
        }
    };
    let takes: [(&str, Case, Option<&str>); 8] = [
        ("the same", Case::with(|_| ()), None),
        (
            "of the in-tree driver's time: the CSI driver serves it by now",
            Case::with(|c| c.classes = vec![class("gold", labels::IN_TREE_DRIVER, false)]),
            None,
        ),
        (
            "mapped",
            Case::with(|c| {
                c.mappings = vec![mapping("m", &[("gold", "silver")])];
                c.classes = vec![ours("silver")];
            }),
            Some("silver"),
        ),
        (
            "V-11: Velero mapped it before us; it is not mapped twice",
            Case::with(|c| {
                c.item["spec"]["storageClassName"] = json!("silver");
                c.mappings = vec![mapping("m", &[("gold", "silver"), ("silver", "bronze")])];
                c.classes = vec![ours("silver"), ours("bronze")];
            }),
            None,
        ),
        (
            "no class of its own, the literal of the original",
            Case::with(|c| {
                classless(c);
                c.mappings = vec![mapping("m", &[("com.vmware.cnsdp.emptystorageclass", "silver")])];
                c.classes = vec![ours("silver")];
            }),
            Some("silver"),
        ),
        (
            "no class of its own, the cluster has a default",
            Case::with(|c| {
                classless(c);
                c.classes = vec![ours("silver"), class("usual", labels::CSI_DRIVER, true)];
            }),
            None,
        ),
        (
            "V-11: a resource modifier may yet name another class",
            Case::with(|c| {
                c.restore = restore(json!({"resourceModifier": {"kind": "ConfigMap", "name": "m"}}));
                c.classes = Vec::new();
            }),
            None,
        ),
        ("a map of nothing to do with it", Case::with(|c| c.mappings = vec![mapping("m", &[("x", "y")])]), None),
    ];
    for (situation, case, want) in takes {
        assert_eq!(case.take().storage_class.as_deref(), want, "{situation}");
    }
    let refusals = [
        ("class is gone", Case::with(|c| c.classes = Vec::new()), "`gold` does not exist"),
        (
            "mapped to nowhere",
            Case::with(|c| c.mappings = vec![mapping("m", &[("gold", "silver")])]),
            "`silver` does not exist",
        ),
        ("no class, no default", Case::with(classless), "no storage class"),
        (
            "wants no class",
            Case::with(|c| {
                for item in [&mut c.item, &mut c.from_backup] {
                    item["spec"]["storageClassName"] = json!("");
                }
                c.classes = vec![class("usual", labels::CSI_DRIVER, true)];
            }),
            "com.vmware.cnsdp.emptystorageclass",
        ),
        (
            "of another driver",
            Case::with(|c| c.classes = vec![class("gold", "ebs.csi.aws.com", true)]),
            "ebs.csi.aws.com",
        ),
        (
            "two mappings",
            Case::with(|c| c.mappings = vec![mapping("first", &[]), mapping("second", &[])]),
            "first, second",
        ),
    ];
    for (situation, case, says) in refusals {
        let decision = case.decide();
        assert!(is(&decision, "refuse", says), "{situation}: {decision:?}");
    }
}

#[test]
fn v01_a_volume_whose_data_is_ours_does_not_come_back_by_itself() {
    let volume = |mark: &str| json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1", "annotations": {"velero-plugin-for-vsphere/data": mark}}});
    let normal = restore(json!({}));
    assert!(is(&decide_volume(&normal, &volume("repository")), "skip", "new volume"));
    assert!(is(&decide_volume(&normal, &volume("elsewhere")), "leave", "not ours"));
    assert!(is(&decide_volume(&restore(json!({"restorePVs": false})), &volume("repository")), "leave", ""));
}

#[test]
fn a_pod_of_a_supervisor_forgets_its_machine() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"x": 1}, "metadata": {
        "name": "web-0", "namespace": "shop", "uid": "u", "finalizers": ["f"], "labels": {"app": "web"},
        "annotations": {"vmware-system-vm-uuid": "1", "nsx.vmware.com/mac": "2", "mac": "3", "team": "shop"}}});
    let want = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"x": 1}, "metadata": {
        "name": "web-0", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"team": "shop"}}});
    assert_eq!(left(&pod), Some(want.clone()));
    assert_eq!(left(&want), None, "ordinary pods stay as they are");
}
