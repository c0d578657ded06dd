//! Velero's own kinds as a plugin gets them: of any release, with fields missing, null or odd.

#![allow(clippy::unwrap_used)] // a test may fail where it stands

use api::velero::{Backup, BackupStorageLocation, ExistingResourcePolicy, Restore};
use serde_json::json;

#[test]
fn a_backup_of_velero_1_18_is_understood() {
    let backup: Backup = serde_json::from_value(json!({
        "apiVersion": "velero.io/v1", "kind": "Backup",
        "metadata": {"name": "nightly", "namespace": "velero", "uid": "u-1", "labels": {"velero.io/storage-location": "default"}},
        "spec": {"csiSnapshotTimeout": "10m0s", "itemOperationTimeout": "4h0m0s", "ttl": "720h0m0s", "hooks": {},
            "snapshotVolumes": false, "defaultVolumesToFsBackup": true, "snapshotMoveData": true, "datamover": "ours",
            "storageLocation": "default", "resourcePolicy": {"apiGroup": null, "kind": "configmap", "name": "policies"}},
        "status": {"phase": "InProgress", "startTimestamp": "2026-01-02T12:00:00Z", "version": 1}
    }))
    .unwrap();
    assert_eq!((backup.name(), backup.uid()), ("nightly", "u-1"));
    assert_eq!(backup.spec.snapshot_volumes, Some(false));
    assert_eq!((backup.volumes_default_to_fs_backup(), backup.is_finalizing()), (true, false));
    assert_eq!((backup.csi_snapshot_timeout().as_mins(), backup.item_operation_timeout().as_hours()), (10, 4));
    let policy = backup.spec.resource_policy.unwrap();
    assert_eq!((policy.kind.as_str(), policy.name.as_str()), ("configmap", "policies"));
    assert_eq!(backup.spec.data_mover.as_deref(), Some("ours"));
    assert_eq!(backup.status.start_timestamp.unwrap().0.to_string(), "2026-01-02T12:00:00Z");
}

#[test]
fn one_odd_field_never_costs_the_others() {
    let odd = json!({
        "metadata": {"name": "nightly", "uid": "u-1", "labels": {"a": "b", "c": 3, "d": null}, "generation": "seven",
            "creationTimestamp": "yesterday"},
        "spec": {"snapshotVolumes": "yes", "defaultVolumesToFsBackup": null, "defaultVolumesToRestic": true,
            "itemOperationTimeout": 14400, "csiSnapshotTimeout": "soon", "resourcePolicy": "policies", "storageLocation": "default"},
        "status": null
    });
    let backup: Backup = serde_json::from_value(odd).unwrap();
    assert_eq!((backup.name(), backup.uid(), backup.status.phase.as_str()), ("nightly", "u-1", ""));
    let labels = backup.metadata.labels.clone().unwrap();
    assert_eq!((labels["a"].as_str(), labels["c"].as_str(), labels.contains_key("d")), ("b", "3", false));
    assert_eq!(backup.spec.snapshot_volumes, None);
    assert!(backup.volumes_default_to_fs_backup(), "the older name of the setting");
    assert_eq!((backup.item_operation_timeout().as_hours(), backup.csi_snapshot_timeout().as_mins()), (4, 10));
    assert_eq!(backup.spec.storage_location.as_deref(), Some("default"));
    for nothing in
        [json!({}), json!({"metadata": null, "spec": null}), json!({"metadata": [], "spec": 7, "status": "x"})]
    {
        assert_eq!(serde_json::from_value::<Backup>(nothing.clone()).unwrap(), Backup::default(), "{nothing}");
        assert_eq!(serde_json::from_value::<Restore>(nothing.clone()).unwrap(), Restore::default(), "{nothing}");
        let location: BackupStorageLocation = serde_json::from_value(nothing).unwrap();
        assert_eq!(location, BackupStorageLocation::default());
    }
}

#[test]
fn p12_both_finalizing_phases_are_recognised() {
    for (phase, want) in [("Finalizing", true), ("FinalizingPartiallyFailed", true), ("InProgress", false), ("", false)]
    {
        let backup: Backup = serde_json::from_value(json!({"status": {"phase": phase}})).unwrap();
        assert_eq!(backup.is_finalizing(), want, "{phase}");
    }
}

#[test]
fn a_restore_says_where_things_go() {
    let restore: Restore = serde_json::from_value(json!({
        "metadata": {"name": "again"},
        "spec": {"backupName": "nightly", "restorePVs": false, "namespaceMapping": {"shop": "shop-2", "empty": ""},
            "existingResourcePolicy": "update", "itemOperationTimeout": "0s", "resourceModifier": {"kind": "ConfigMap", "name": "m"}}
    }))
    .unwrap();
    assert_eq!(restore.target_namespace("shop"), "shop-2");
    assert_eq!((restore.target_namespace("other"), restore.target_namespace("empty")), ("other", "empty"));
    assert_eq!(restore.spec.restore_pvs, Some(false));
    assert_eq!(restore.spec.existing_resource_policy, Some(ExistingResourcePolicy::Update));
    assert_eq!(restore.item_operation_timeout().as_hours(), 4, "zero means Velero's default");
    assert_eq!(restore.spec.resource_modifier.unwrap().name, "m");
}

#[test]
fn a_storage_location_says_how_it_is_reached() {
    let location: BackupStorageLocation = serde_json::from_value(json!({
        "metadata": {"name": "second"},
        "spec": {"provider": "aws", "accessMode": "ReadWrite", "default": true, "config": {"region": "eu", "s3ForcePathStyle": true},
            "credential": {"name": "keys", "key": "cloud", "optional": null},
            "objectStorage": {"bucket": "b", "prefix": "a/b", "caCertRef": {"name": "ca", "key": "ca.crt"}, "caCert": null}}
    }))
    .unwrap();
    assert_eq!(location.spec.config["s3ForcePathStyle"], "true");
    assert_eq!(location.spec.credential.unwrap().to_string(), "keys/cloud");
    let storage = location.spec.object_storage;
    assert_eq!((storage.bucket.as_str(), storage.prefix.as_deref(), storage.ca_cert), ("b", Some("a/b"), None));
    assert_eq!(storage.ca_cert_ref.unwrap().to_string(), "ca/ca.crt");
}
