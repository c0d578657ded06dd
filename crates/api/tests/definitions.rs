//! The custom resource definitions say what the tables of the original say.
#![allow(clippy::unwrap_used)] // a test may fail where it stands

use std::collections::BTreeMap;

use serde::Deserialize as _;
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

/// What an API server with this schema finds wrong with an object, as far as `kubectl apply` of an example goes.
fn refusals(at: &str, schema: &Value, value: &Value, found: &mut Vec<String>) {
    let fits = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    };
    if !fits {
        found.push(format!("{at}: is no {}", schema["type"]));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            found.push(format!("{at}.{name}: Required value"));
        }
    }
    let inner = value.as_array().into_iter().flatten();
    inner.for_each(|inner| refusals(&format!("{at}[]"), &schema["items"], inner, found));
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, inner) in value.as_object().into_iter().flatten() {
        match properties.get(name) {
            Some(schema) => refusals(&format!("{at}.{name}"), schema, inner, found),
            None => found.push(format!("{at}.{name}: unknown field")),
        }
    }
}

#[test]
fn what_the_page_about_work_by_hand_shows_is_taken_by_kubectl_apply() {
    let all = definitions();
    let page = include_str!("../../../docs/by-hand.md");
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let documents = blocks.flat_map(serde_yaml_ng::Deserializer::from_str);
    let mut shown = Vec::new();
    for document in documents {
        let object = Value::deserialize(document).unwrap();
        let kind = object["kind"].as_str().unwrap().to_owned();
        if !all.contains_key(&kind) {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (group, version) = (text(&all[&kind]["spec"]["group"]), text(&version(&all, &kind)["name"]));
        assert_eq!(object["apiVersion"], format!("{group}/{version}"), "{kind}");
        let mut found = Vec::new();
        refusals(&kind, schema(&all, &kind), &object, &mut found);
        assert!(found.is_empty(), "{found:#?}");
        shown.push(kind);
    }
    for kind in ["BackupRepositoryClaim", "Snapshot", "CloneFromSnapshot", "DeleteSnapshot"] {
        assert!(shown.iter().any(|shown| shown == kind), "{kind}: {shown:?}");
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
