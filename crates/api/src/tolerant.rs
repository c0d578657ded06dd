//! Reading that never fails: what makes no sense reads as absent.
//!
//! The API server's schema guards types and formats of objects written through *our* CRDs; objects written while the
//! original's older CRDs were installed, and dates that its pattern lets through, are guarded here.
//! A watch decodes whole pages, so one bad field would otherwise blind a controller to every object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A value, or `None` when it is absent, `null`, or not a `T`.
pub(crate) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value::<Option<T>>(value).ok().flatten())
}

/// A value, or the default when it is absent, `null`, or not a `T`.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    Ok(optional(deserializer)?.unwrap_or_default())
}

/// A word of a list that may grow; an empty word counts as absent.
pub(crate) fn word<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: From<String>,
{
    let text: Option<String> = optional(deserializer)?;
    Ok(text.filter(|t| !t.is_empty()).map(T::from))
}

/// The conditions that read as conditions.
pub(crate) fn conditions<'de, D>(deserializer: D) -> Result<Vec<Condition>, D::Error>
where
    D: Deserializer<'de>,
{
    let values: Vec<Value> = or_default(deserializer)?;
    Ok(values.into_iter().filter_map(|v| serde_json::from_value(v).ok()).collect())
}

/// Whether a count is zero, and so left out as the original does.
#[allow(clippy::trivially_copy_pass_by_ref)] // the signature is serde's
pub(crate) fn is_zero<T: Default + PartialEq>(count: &T) -> bool {
    *count == T::default()
}

/// Whether a flag is unset, and so left out as the original does.
#[allow(clippy::trivially_copy_pass_by_ref)] // the signature is serde's
pub(crate) fn is_false(flag: &bool) -> bool {
    !*flag
}
