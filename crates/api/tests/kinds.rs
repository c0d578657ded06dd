//! Objects of the original and objects that make no sense, through our types.
#![allow(clippy::unwrap_used)] // a test may fail where it stands

use api::{
    BackupRepository, BackupRepositoryClaim, CloneFromSnapshot, DeleteSnapshot, Download, Snapshot, SnapshotPhase,
    Upload,
};
use kube::Resource;
use kube::core::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn sample(name: &str) -> Value {
    let path = format!("{}/testdata/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn there_and_back<K: Serialize + DeserializeOwned>(object: Value) -> Value {
    serde_json::to_value(serde_json::from_value::<K>(object).unwrap()).unwrap()
}

type ThereAndBack = fn(Value) -> Value;

#[test]
fn objects_of_the_original_come_back_unchanged() {
    let cases: [(&str, ThereAndBack); 7] = [
        ("snapshot", there_and_back::<Snapshot>),
        ("clone-from-snapshot", there_and_back::<CloneFromSnapshot>),
        ("delete-snapshot", there_and_back::<DeleteSnapshot>),
        ("backup-repository-claim", there_and_back::<BackupRepositoryClaim>),
        ("backup-repository", there_and_back::<BackupRepository>),
        ("upload", there_and_back::<Upload>),
        ("download", there_and_back::<Download>),
    ];
    for (name, back) in cases {
        let object = sample(name);
        assert_eq!(back(object.clone()), object, "{name}");
    }
}

/// It is most of an object, thousands of which are kept, and read by nobody.
#[test]
fn who_wrote_which_field_is_not_kept_in_memory() {
    fn managed<K: Resource<DynamicType = ()> + DeserializeOwned>(object: Value) -> ObjectMeta {
        serde_json::from_value::<K>(object).unwrap().meta().clone()
    }
    let metadata = json!({"name": "a", "uid": "u", "resourceVersion": "7", "labels": {"l": "1"}, "annotations": {"a": "2"},
        "finalizers": ["f"], "managedFields": [{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": {"f:phase": {}}}}]});
    let object = json!({"metadata": metadata, "spec": {"resourceHandle": {"kind": "PersistentVolumeClaim", "name": "data"}, "backupRepository": "r"}});
    let ours = [
        managed::<Snapshot>,
        managed::<CloneFromSnapshot>,
        managed::<DeleteSnapshot>,
        managed::<BackupRepositoryClaim>,
        managed::<BackupRepository>,
        managed::<Upload>,
        managed::<Download>,
        managed::<api::velero::Backup>,
    ];
    for read in ours {
        let kept = read(object.clone());
        assert_eq!(kept.managed_fields, None);
        assert_eq!(
            (kept.name.as_deref(), kept.resource_version.as_deref(), kept.uid.as_deref()),
            (Some("a"), Some("7"), Some("u"))
        );
        assert!(
            kept.labels.is_some() && kept.annotations.is_some() && kept.finalizers.is_some(),
            "what decisions are made by"
        );
    }
}

#[test]
fn a_new_object_is_written_as_the_original_writes_it() {
    let snapshot = Snapshot { status: Some(api::SnapshotStatus::default()), ..Snapshot::default() };
    let json = serde_json::to_value(snapshot).unwrap();
    assert_eq!(json["status"], serde_json::json!({"progress": {}, "svcSnapshotName": ""}));
    assert_eq!(json["spec"].get("snapshotCancel"), None, "left out while false");

    let clone = serde_json::to_value(CloneFromSnapshot::default()).unwrap();
    assert_eq!(clone["spec"]["cloneCancel"], false, "always written");
    assert_eq!(clone["spec"]["apiGroup"], "", "the core group is empty text, not absent");

    let upload = Upload { status: Some(api::UploadStatus::default()), ..Upload::default() };
    let json = serde_json::to_value(upload).unwrap();
    assert_eq!(json["status"], serde_json::json!({"progress": {}}));
    assert_eq!(json["spec"], serde_json::json!({}));
}

#[test]
fn one_odd_object_does_not_stop_a_watch() {
    let path = format!("{}/testdata/garbage.json", env!("CARGO_MANIFEST_DIR"));
    let objects: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for object in objects {
        let read = match object["kind"].as_str().unwrap() {
            "Snapshot" => there_and_back::<Snapshot>(object.clone()),
            "CloneFromSnapshot" => there_and_back::<CloneFromSnapshot>(object.clone()),
            "DeleteSnapshot" => there_and_back::<DeleteSnapshot>(object.clone()),
            "BackupRepositoryClaim" => there_and_back::<BackupRepositoryClaim>(object.clone()),
            "BackupRepository" => there_and_back::<BackupRepository>(object.clone()),
            "Upload" => there_and_back::<Upload>(object.clone()),
            "Download" => there_and_back::<Download>(object.clone()),
            other => panic!("no kind {other}"),
        };
        assert_eq!(read["metadata"]["name"], object["metadata"]["name"]);
    }
}

#[test]
fn what_makes_sense_beside_garbage_is_kept() {
    let object = serde_json::json!({
        "metadata": {"name": "s"},
        "spec": {"resourceHandle": {"kind": "PersistentVolumeClaim", "name": "data-0"}, "backupRepository": "br-1"},
        "status": {"phase": "Hibernating", "completionTimestamp": "odd", "progress": {"totalBytes": -1, "bytesDone": 5}},
    });
    let snapshot: Snapshot = serde_json::from_value(object).unwrap();
    assert_eq!(snapshot.spec.backup_repository, "br-1");
    assert_eq!(snapshot.phase(), Some(&SnapshotPhase::Other("Hibernating".to_owned())));
    let status = snapshot.status.unwrap();
    assert_eq!((status.progress.total_bytes, status.progress.bytes_done), (0, 5));
    assert_eq!(status.completion_timestamp, None);
}

#[test]
fn half_a_checkpoint_is_none() {
    let whole = serde_json::json!({
        "digest": "ab", "disk": "d", "wasBlank": true, "chunkSize": 524_288, "upTo": 1_048_576, "beyond": "02",
    });
    let read = |checkpoint: Value| {
        let object =
            serde_json::json!({"metadata": {"name": "d"}, "status": {"checkpoint": checkpoint, "retryCount": 2}});
        let status = serde_json::from_value::<Download>(object).unwrap().status.unwrap();
        assert_eq!(status.retry_count, 2, "what is beside it is kept");
        status.checkpoint
    };
    assert_eq!(serde_json::to_value(read(whole.clone())).unwrap(), whole, "comes back as it was written");
    for field in whole.as_object().unwrap().keys() {
        for odd in [Value::Null, serde_json::json!(-1), serde_json::json!({})] {
            let mut broken = whole.clone();
            broken[field] = odd.clone();
            assert_eq!(read(broken), None, "{field} is {odd}");
        }
        let mut lacking = whole.clone();
        lacking.as_object_mut().unwrap().remove(field);
        assert_eq!(read(lacking), None, "{field} is missing");
    }
    assert_eq!(read(serde_json::json!("much")), None);
}
