//! A restore, as far as a plugin cares.

use std::collections::BTreeMap;

use k8s_openapi::jiff::SignedDuration;
use kube::core::ObjectMeta;
use serde::Deserialize;

use super::{DEFAULT_ITEM_OPERATION_TIMEOUT, Reference, reading, velero_kind};
use crate::tolerant;

/// A Velero restore.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Restore {
    /// Name, namespace, labels.
    #[serde(deserialize_with = "reading::metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub spec: RestoreSpec,
    /// What has become of it.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub status: RestoreStatus,
}

velero_kind!(Restore, "restores");

impl Restore {
    /// The namespace that things from `namespace` are restored into.
    pub fn target_namespace<'n>(&'n self, namespace: &'n str) -> &'n str {
        let mapped = self.spec.namespace_mapping.get(namespace).map(String::as_str);
        mapped.filter(|n| !n.is_empty()).unwrap_or(namespace)
    }

    /// How long an operation may take.
    pub fn item_operation_timeout(&self) -> SignedDuration {
        self.spec.item_operation_timeout.unwrap_or(DEFAULT_ITEM_OPERATION_TIMEOUT)
    }
}

/// What a [`Restore`] asks for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RestoreSpec {
    /// Name of the backup; Velero fills it in where a schedule was named.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub backup_name: String,
    /// Name of the schedule whose latest backup is restored.
    #[serde(deserialize_with = "tolerant::optional")]
    pub schedule_name: Option<String>,
    /// From namespace to namespace.
    #[serde(deserialize_with = "reading::text_map")]
    pub namespace_mapping: BTreeMap<String, String>,
    /// Whether volumes are restored; absent is yes.
    #[serde(rename = "restorePVs", deserialize_with = "tolerant::optional")]
    pub restore_pvs: Option<bool>,
    /// What happens to objects that are already there.
    #[serde(deserialize_with = "tolerant::word")]
    pub existing_resource_policy: Option<ExistingResourcePolicy>,
    /// How long an operation may take.
    #[serde(deserialize_with = "reading::duration")]
    pub item_operation_timeout: Option<SignedDuration>,
    /// ConfigMap with changes that Velero makes after every restore action (trap V-11).
    #[serde(deserialize_with = "tolerant::optional")]
    pub resource_modifier: Option<Reference>,
}

/// What happens to objects that are already there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExistingResourcePolicy {
    /// They stay as they are.
    None,
    /// Velero changes them to what the backup has.
    Update,
    /// A word that is newer than we are.
    Other(String),
}

impl From<String> for ExistingResourcePolicy {
    fn from(word: String) -> Self {
        match word.as_str() {
            "none" => Self::None,
            "update" => Self::Update,
            _ => Self::Other(word),
        }
    }
}

/// What has become of a [`Restore`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RestoreStatus {
    /// Its phase, word for word; empty when none is set.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub phase: String,
}
