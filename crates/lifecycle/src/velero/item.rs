//! Items as JSON trees: what is read of them, and the marks of ours that come off.

use api::labels;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Problem;
use api::Reason;

/// Annotations of ours that a claim carries in a backup, or after a restore.
const MARKS: [&str; 5] =
    [labels::SNAPSHOT_BLOB, labels::PLUGIN_VERSION, labels::CLONE_UID, labels::RECLAIM_POLICY, labels::VOLUME_LABELS];

/// API group of an item; empty for the core group.
pub fn group(item: &Value) -> &str {
    let version = item["apiVersion"].as_str().unwrap_or_default();
    version.split_once('/').map_or("", |(group, _)| group)
}

/// Kind of an item.
pub fn kind(item: &Value) -> &str {
    item["kind"].as_str().unwrap_or_default()
}

/// Name of an item.
pub fn name(item: &Value) -> &str {
    item["metadata"]["name"].as_str().unwrap_or_default()
}

/// Namespace of an item; empty when it has none.
pub fn namespace(item: &Value) -> &str {
    item["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// An annotation of an item.
pub fn annotation<'i>(item: &'i Value, key: &str) -> Option<&'i str> {
    item["metadata"]["annotations"][key].as_str()
}

/// A label of an item.
pub fn label<'i>(item: &'i Value, key: &str) -> Option<&'i str> {
    item["metadata"]["labels"][key].as_str()
}

/// Whether it is a claim.
pub fn is_claim(item: &Value) -> bool {
    kind(item) == api::CLAIM_KIND && group(item).is_empty()
}

/// Whether it is a volume.
pub fn is_volume(item: &Value) -> bool {
    kind(item) == "PersistentVolume" && group(item).is_empty()
}

/// `claim shop/data-0`, for messages.
pub fn said(item: &Value) -> String {
    let kind = match kind(item) {
        api::CLAIM_KIND => "claim".to_owned(),
        "PersistentVolume" => "volume".to_owned(),
        other => other.to_owned(),
    };
    match namespace(item) {
        "" => format!("{kind} {}", name(item)),
        namespace => format!("{kind} {namespace}/{}", name(item)),
    }
}

/// An item as a typed object.
///
/// # Errors
/// `InvalidSpec` when it is not one.
pub fn typed<T: DeserializeOwned>(item: &Value) -> Result<T, Problem> {
    T::deserialize(item)
        .map_err(|e| Problem::lasting(Reason::InvalidSpec, format!("read {} as Velero gives it: {e}", said(item))))
}

/// An item as a claim.
///
/// # Errors
/// `InvalidSpec` when it is none.
pub fn claim(item: &Value) -> Result<PersistentVolumeClaim, Problem> {
    typed(item)
}

/// The claim without what an earlier backup or restore of ours left on it; `None` when nothing is there.
///
/// A restored claim that is backed up again must not carry the old blob: deleting the later backup would delete the
/// data of the older one (W-12). Nor the old selector: a restore without us would wait for a volume that never comes.
pub fn without_our_marks(item: &Value) -> Option<Value> {
    let mut changed = item.clone();
    remove_our_marks(&mut changed).then_some(changed)
}

/// The same in place; says whether anything was there.
pub(super) fn remove_our_marks(item: &mut Value) -> bool {
    let annotations = remove_annotations(item, &MARKS);
    let selector = remove_our_selector(item);
    annotations || selector
}

/// Removes annotations; says whether any was there.
pub(super) fn remove_annotations(item: &mut Value, keys: &[&str]) -> bool {
    let Some(annotations) = item.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return false;
    };
    let before = annotations.len();
    annotations.retain(|key, _| !keys.contains(&key.as_str()));
    annotations.len() < before
}

fn remove_our_selector(item: &mut Value) -> bool {
    let Some(spec) = item.get_mut("spec").and_then(Value::as_object_mut) else { return false };
    let Some(selector) = spec.get_mut("selector").and_then(Value::as_object_mut) else { return false };
    let Some(matched) = selector.get_mut("matchLabels").and_then(Value::as_object_mut) else { return false };
    if !matched.contains_key(labels::CLONE_SELECTOR) {
        return false;
    }
    matched.retain(|key, _| key != labels::CLONE_SELECTOR);
    if matched.is_empty() {
        selector.retain(|key, _| key != "matchLabels");
    }
    if selector.is_empty() {
        spec.retain(|key, _| key != "selector");
    }
    true
}

/// Sets an annotation.
pub(super) fn annotate(item: &mut Value, key: &str, value: &str) {
    let metadata = object(&mut item["metadata"]);
    let annotations = object(metadata.entry("annotations").or_insert(Value::Null));
    annotations.insert(key.to_owned(), Value::String(value.to_owned()));
}

/// The value as an object; anything else is replaced by an empty one.
pub(super) fn object(value: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(serde_json::Map::new());
    }
    value.as_object_mut().expect("it is an object by now")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_that_was_restored_once_loses_our_marks_and_nothing_else() {
        let restored = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "news": {"a": 1},
            "metadata": {"name": "data-0", "annotations": {
                "velero-plugin-for-vsphere/item-snapshot-blob": "e30=",
                "velero-plugin-for-vsphere/plugin-version": "v1.7.0",
                "velero-plugin-for-vsphere/clone-uid": "u",
                "team": "shop"}},
            "spec": {"selector": {"matchLabels": {"velero-plugin-for-vsphere/clone": "u"}}, "storageClassName": "gold"}
        });
        let clean = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "news": {"a": 1},
            "metadata": {"name": "data-0", "annotations": {"team": "shop"}},
            "spec": {"storageClassName": "gold"}
        });
        assert_eq!(without_our_marks(&restored), Some(clean.clone()));
        assert_eq!(without_our_marks(&clean), None, "unchanged items go back byte for byte");
    }

    #[test]
    fn a_selector_of_the_user_stays() {
        let mixed = json!({"spec": {"selector": {
            "matchLabels": {"velero-plugin-for-vsphere/clone": "u", "tier": "fast"},
            "matchExpressions": [{"key": "zone", "operator": "Exists"}]}}});
        let want = json!({"spec": {"selector": {
            "matchLabels": {"tier": "fast"}, "matchExpressions": [{"key": "zone", "operator": "Exists"}]}}});
        assert_eq!(without_our_marks(&mixed), Some(want));
    }
}
