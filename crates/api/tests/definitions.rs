//! The custom resource definitions say what the tables of the original say.
#![allow(clippy::unwrap_used)] // a test may fail where it stands

use std::collections::BTreeMap;

use serde_json::{Value, json};

fn definitions() -> BTreeMap<String, Value> {
    api::crd::all().into_iter().map(|crd| (crd.spec.names.kind.clone(), serde_json::to_value(crd).unwrap())).collect()
}

fn version<'d>(definitions: &'d BTreeMap<String, Value>, kind: &str) -> &'d Value {
    &definitions[kind]["spec"]["versions"][0]
}

fn schema<'d>(definitions: &'d BTreeMap<String, Value>, kind: &str) -> &'d Value {
    &version(definitions, kind)["schema"]["openAPIV3Schema"]
}

#[test]
fn upload_and_download_are_written_with_their_status_in_one_post() {
    let all = definitions();
    let with_status: Vec<_> =
        all.keys().filter(|kind| version(&all, kind).get("subresources").is_some()).map(String::as_str).collect();
    assert_eq!(with_status, ["CloneFromSnapshot", "DeleteSnapshot", "Snapshot"]);
}

#[test]
fn required_fields_are_exactly_those_of_the_original() {
    let all = definitions();
    let cases = [
        ("Snapshot", "/properties/spec", json!(["backupRepository", "resourceHandle"])),
        ("Snapshot", "/properties/spec/properties/resourceHandle", json!(["kind", "name"])),
        (
            "CloneFromSnapshot",
            "/properties/spec",
            json!(["apiGroup", "backupRepository", "cloneCancel", "kind", "snapshotID"]),
        ),
        ("DeleteSnapshot", "/properties/spec", json!(["backupRepository", "snapshotID"])),
        ("BackupRepositoryClaim", "", json!(["repopsitoryParameters", "repositoryDriver"])),
        (
            "BackupRepository",
            "",
            json!(["allowedNamespaces", "backupRepositoryClaim", "repopsitoryParameters", "repositoryDriver"]),
        ),
        ("Upload", "/properties/spec", Value::Null),
        ("Download", "/properties/spec", Value::Null),
        ("Upload", "", Value::Null),
    ];
    for (kind, path, wanted) in cases {
        let at = schema(&all, kind).pointer(path).unwrap();
        let mut required = at.get("required").cloned().unwrap_or_default();
        if let Some(list) = required.as_array_mut() {
            list.sort_by_key(|v| v.as_str().unwrap().to_owned());
        }
        assert_eq!(required, wanted, "{kind}{path}");
    }
    for kind in all.keys() {
        let status = schema(&all, kind).pointer("/properties/status").unwrap();
        assert_eq!(status.get("required"), None, "{kind}: status is output, nothing in it may be demanded");
    }
}

#[test]
fn formats_and_nullable_dates_are_those_of_the_original() {
    let all = definitions();
    let status = schema(&all, "Upload").pointer("/properties/status/properties").unwrap();
    assert_eq!(status["retryCount"]["format"], "int32");
    assert_eq!(status["currentBackOff"]["format"], "int32");
    assert_eq!(status["progress"]["properties"]["bytesDone"]["format"], "int64");
    for date in ["startTimestamp", "completionTimestamp", "nextRetryTimestamp"] {
        assert_eq!(status[date]["format"], "date-time", "{date}");
        assert_eq!(status[date]["nullable"], true, "{date}");
    }
    assert_eq!(status["message"].get("nullable"), None);
    let metadata = schema(&all, "Snapshot").pointer("/properties/status/properties/metadata").unwrap();
    assert_eq!((&metadata["type"], &metadata["format"]), (&json!("string"), &json!("byte")));
}

#[test]
fn phases_are_listed_for_transfers_and_free_elsewhere() {
    let all = definitions();
    let phase = |kind| schema(&all, kind).pointer("/properties/status/properties/phase/enum").cloned();
    assert_eq!(
        phase("Upload").unwrap(),
        json!([
            "New",
            "InProgress",
            "Completed",
            "UploadError",
            "CleanupFailed",
            "Canceled",
            "Canceling",
            "UploadFailedAfterRetry"
        ])
    );
    assert_eq!(phase("Download").unwrap(), json!(["New", "InProgress", "Completed", "Retry", "Failed"]));
    assert_eq!(phase("Snapshot"), None);
    assert_eq!(phase("CloneFromSnapshot"), None);
}

#[test]
fn schemas_are_structural_without_defaults() {
    fn walk(at: &str, value: &Value) {
        if let Value::Object(object) = value {
            for word in ["$ref", "anyOf", "oneOf", "allOf", "default", "$schema"] {
                assert!(!object.contains_key(word) || at.ends_with("/properties"), "{at} has {word}");
            }
            for (name, inner) in object {
                walk(&format!("{at}/{name}"), inner);
            }
        }
    }
    let all = definitions();
    for kind in all.keys() {
        walk(kind, schema(&all, kind));
        assert_eq!(schema(&all, kind)["type"], "object");
    }
}

#[test]
fn the_definitions_answer_to_the_originals_names() {
    let all = definitions();
    let names: Vec<_> = all.values().map(|d| d["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "backuprepositories.backupdriver.cnsdp.vmware.com",
            "backuprepositoryclaims.backupdriver.cnsdp.vmware.com",
            "clonefromsnapshots.backupdriver.cnsdp.vmware.com",
            "deletesnapshots.backupdriver.cnsdp.vmware.com",
            "downloads.datamover.cnsdp.vmware.com",
            "snapshots.backupdriver.cnsdp.vmware.com",
            "uploads.datamover.cnsdp.vmware.com",
        ]
    );
    for (kind, definition) in &all {
        assert_eq!(definition["metadata"]["labels"], json!({"component": "velero"}));
        let scope = if kind == "BackupRepository" { "Cluster" } else { "Namespaced" };
        assert_eq!(definition["spec"]["scope"], scope);
        assert_eq!(definition["spec"]["names"]["singular"], kind.to_lowercase());
    }
}
