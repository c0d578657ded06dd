//! Reading that never fails, for what is Velero's: metadata field by field, texts out of maps, durations of Go.

use std::collections::BTreeMap;

use k8s_openapi::jiff::SignedDuration;
use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::go_duration;

/// Metadata, [but for `managedFields`](crate::resource::metadata); where it does not read as a whole, the parts of it that do.
pub(super) fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if let Ok(whole) = crate::resource::metadata(&value) {
        return Ok(whole);
    }
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    Ok(ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        labels: Some(texts(&value["labels"])).filter(|m| !m.is_empty()),
        annotations: Some(texts(&value["annotations"])).filter(|m| !m.is_empty()),
        creation_timestamp: serde_json::from_value(value["creationTimestamp"].clone()).ok().flatten(),
        deletion_timestamp: serde_json::from_value(value["deletionTimestamp"].clone()).ok().flatten(),
        ..ObjectMeta::default()
    })
}

/// A map of texts; entries of another type are left out, numbers and flags are read as they are written.
pub(super) fn text_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(texts(&Value::deserialize(deserializer)?))
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    let text = |v: &Value| match v {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    entries.filter_map(|(key, v)| Some((key.clone(), text(v)?))).collect()
}

/// A duration as Go writes it; zero counts as absent, as it does in Velero.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SignedDuration>, D::Error> {
    let text: Option<String> = crate::tolerant::optional(deserializer)?;
    Ok(text.as_deref().and_then(go_duration).filter(|d| d.is_positive()))
}
