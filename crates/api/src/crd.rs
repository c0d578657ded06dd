//! The custom resource definitions, made from the types. `cargo xtask generate` writes them to `deploy/crds`.
//!
//! kube's derive would add a status subresource to Upload and Download and a spec to claims and repositories, which
//! the original's clients could not write; so the definitions are put together here.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Resource;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::resource::{BackupDriverV1alpha1, DatamoverV1alpha1};
use crate::{
    BackupRepository, BackupRepositoryClaim, CloneFromSnapshot, CloneFromSnapshotSpec, CloneFromSnapshotStatus,
    DeleteSnapshot, DeleteSnapshotSpec, DeleteSnapshotStatus, Download, DownloadPhase, DownloadSpec, DownloadStatus,
    Snapshot, SnapshotSpec, SnapshotStatus, Upload, UploadPhase, UploadSpec, UploadStatus,
};

/// `kubectl get velero-vsphere` lists all seven kinds.
pub const CATEGORY: &str = "velero-vsphere";

const REASON: (&str, &str) = ("Reason", r#".status.conditions[?(@.type=="Ready")].reason"#);
const PHASE: (&str, &str) = ("Phase", ".status.phase");
const DONE: (&str, &str) = ("Bytes Done", ".status.progress.bytesDone");
const TOTAL: (&str, &str) = ("Bytes Total", ".status.progress.totalBytes");
const SPEED: (&str, &str) = ("Bytes/s", ".status.progress.bytesPerSecond");
const NODE: (&str, &str) = ("Node", ".status.processingNode");

/// The definitions of all seven kinds, in the order of their names.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        backup_repositories(),
        backup_repository_claims(),
        clones_from_snapshots(),
        delete_snapshots(),
        downloads(),
        snapshots(),
        uploads(),
    ]
}

fn snapshots() -> CustomResourceDefinition {
    let columns = [("Claim", ".spec.resourceHandle.name"), PHASE, DONE, TOTAL, REASON];
    let schema = job("A request to back up a claim.", schema::<SnapshotSpec>(), schema::<SnapshotStatus>());
    definition::<Snapshot>(BackupDriverV1alpha1::GROUP, "vsnap", "Namespaced", true, &columns, schema)
}

fn clones_from_snapshots() -> CustomResourceDefinition {
    let columns = [PHASE, ("Volume", ".status.resourceHandle.name"), DONE, TOTAL, REASON];
    let schema = job(
        "A request to restore a backup into a new claim.",
        schema::<CloneFromSnapshotSpec>(),
        schema::<CloneFromSnapshotStatus>(),
    );
    definition::<CloneFromSnapshot>(BackupDriverV1alpha1::GROUP, "vclone", "Namespaced", true, &columns, schema)
}

fn delete_snapshots() -> CustomResourceDefinition {
    let schema = job("A request to delete a backup.", schema::<DeleteSnapshotSpec>(), schema::<DeleteSnapshotStatus>());
    let columns = [PHASE, REASON];
    definition::<DeleteSnapshot>(BackupDriverV1alpha1::GROUP, "vdel", "Namespaced", true, &columns, schema)
}

fn backup_repository_claims() -> CustomResourceDefinition {
    let columns = [
        ("Bucket", ".repopsitoryParameters.bucket"),
        ("Namespaces", ".allowedNamespaces"),
        ("Repository", ".backupRepository"),
        REASON,
    ];
    let mut schema = schema::<BackupRepositoryClaim>();
    schema["required"] = json!(["repositoryDriver", "repopsitoryParameters"]);
    definition::<BackupRepositoryClaim>(BackupDriverV1alpha1::GROUP, "vbrc", "Namespaced", false, &columns, schema)
}

fn backup_repositories() -> CustomResourceDefinition {
    let columns = [
        ("Bucket", ".repopsitoryParameters.bucket"),
        ("Namespaces", ".allowedNamespaces"),
        ("Claim", ".backupRepositoryClaim"),
        REASON,
    ];
    let mut schema = schema::<BackupRepository>();
    schema["required"] =
        json!(["repositoryDriver", "repopsitoryParameters", "allowedNamespaces", "backupRepositoryClaim"]);
    definition::<BackupRepository>(BackupDriverV1alpha1::GROUP, "vbr", "Cluster", false, &columns, schema)
}

fn uploads() -> CustomResourceDefinition {
    let mut schema =
        job("A disk snapshot on its way into the repository.", schema::<UploadSpec>(), schema::<UploadStatus>());
    schema["properties"]["status"]["properties"]["phase"]["enum"] = json!(UploadPhase::WORDS);
    let columns = [PHASE, DONE, TOTAL, SPEED, NODE, REASON];
    definition::<Upload>(DatamoverV1alpha1::GROUP, "vup", "Namespaced", false, &columns, schema)
}

fn downloads() -> CustomResourceDefinition {
    let mut schema =
        job("A restore point on its way into a volume.", schema::<DownloadSpec>(), schema::<DownloadStatus>());
    schema["properties"]["status"]["properties"]["phase"]["enum"] = json!(DownloadPhase::WORDS);
    let columns = [PHASE, DONE, TOTAL, SPEED, NODE, REASON];
    definition::<Download>(DatamoverV1alpha1::GROUP, "vdown", "Namespaced", false, &columns, schema)
}

/// The schema of an object with spec and status.
fn job(description: &str, spec: Value, status: Value) -> Value {
    json!({"type": "object", "description": description, "properties": {"spec": spec, "status": status}})
}

fn definition<K: Resource<DynamicType = ()>>(
    group: &str,
    short_name: &str,
    scope: &str,
    has_status_subresource: bool,
    columns: &[(&str, &str)],
    mut schema: Value,
) -> CustomResourceDefinition {
    let (kind, plural) = (K::kind(&()), K::plural(&()));
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    schema["properties"]["metadata"] = json!({"type": "object"});
    let mut version = json!({
        "name": K::version(&()), "served": true, "storage": true,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": printer_columns(columns),
    });
    if has_status_subresource {
        version["subresources"] = json!({"status": {}});
    }
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "labels": {"component": "velero"},
            // the objects are backups: removing the chart must not remove them
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": group,
            "scope": scope,
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural,
                "singular": kind.to_lowercase(), "shortNames": [short_name], "categories": [CATEGORY],
            },
            "versions": [version],
        },
    });
    serde_json::from_value(definition).expect("a definition has the fields of its type")
}

fn printer_columns(columns: &[(&str, &str)]) -> Vec<Value> {
    let column = |(name, path): &(&str, &str)| {
        let bytes = name.starts_with("Bytes");
        let kind = if bytes { json!({"type": "integer", "format": "int64"}) } else { json!({"type": "string"}) };
        let mut column = json!({"name": name, "jsonPath": path});
        merge(&mut column, kind);
        column
    };
    let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
    columns.iter().map(column).chain([age]).collect()
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// The schema of a type, as the API server wants it: structural, without references.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    make_structural(&mut schema);
    schema
}

/// Takes out what only describes Rust: titles, defaults, and "or null", which the original's definitions allow for
/// dates alone.
fn make_structural(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    for word in ["title", "default", "$schema", "components", "definitions"] {
        object.remove(word);
    }
    unwrap_optional(object);
    if object.get("format").and_then(Value::as_str) == Some("date-time") {
        object.insert("nullable".to_owned(), json!(true));
    } else {
        object.remove("nullable");
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.replace("[`", "").replace("`]", "").replace('\n', " ");
    }
    for (name, property) in object.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        make_structural(property);
        if name == "conditions" {
            make_conditions(property);
        }
    }
    for word in ["items", "additionalProperties"] {
        object.get_mut(word).into_iter().for_each(make_structural);
    }
}

/// `anyOf: [T, null]` is how the generator says "a T, or nothing".
fn unwrap_optional(object: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = object.remove("anyOf") else { return };
    let of_values = choices.into_iter().find(|c| c.get("enum") != Some(&json!([null])));
    for (word, value) in of_values.as_ref().and_then(Value::as_object).into_iter().flatten() {
        object.entry(word.clone()).or_insert_with(|| value.clone());
    }
}

/// Conditions are a map by type, so that two writers can each patch their own.
fn make_conditions(property: &mut Value) {
    merge(property, json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}));
    let fields = property.pointer_mut("/items/properties").and_then(Value::as_object_mut);
    for field in fields.into_iter().flatten().map(|(_, field)| field) {
        field.as_object_mut().map(|f| f.remove("description"));
        field.as_object_mut().map(|f| f.remove("nullable"));
    }
}
