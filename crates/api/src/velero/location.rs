//! Locations: where Velero keeps backups, and how it is reached; and where its old snapshots are.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer};

use super::{reading, velero_kind};
use crate::parameters::SecretKey;
use crate::tolerant;

/// A Velero storage location.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BackupStorageLocation {
    /// Name, namespace, labels.
    #[serde(deserialize_with = "reading::metadata")]
    pub metadata: ObjectMeta,
    /// Where it is.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub spec: BackupStorageLocationSpec,
}

velero_kind!(BackupStorageLocation, "backupstoragelocations");

/// Where a [`BackupStorageLocation`] is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackupStorageLocationSpec {
    /// Velero's plugin for it; `aws` and `velero.io/aws` are S3.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub provider: String,
    /// Settings of that plugin.
    #[serde(deserialize_with = "reading::text_map")]
    pub config: BTreeMap<String, String>,
    /// Secret with its keys; absent is Velero's `cloud-credentials`.
    #[serde(deserialize_with = "tolerant::optional")]
    pub credential: Option<SecretKey>,
    /// The bucket.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub object_storage: ObjectStorage,
    /// `ReadOnly` or `ReadWrite`; absent is the latter.
    #[serde(deserialize_with = "tolerant::optional")]
    pub access_mode: Option<String>,
    /// Whether backups go here that name no location.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub default: bool,
}

/// The bucket of a [`BackupStorageLocation`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectStorage {
    /// Its name.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub bucket: String,
    /// Folder in it.
    #[serde(deserialize_with = "tolerant::optional")]
    pub prefix: Option<String>,
    /// Certificate authorities to trust, in PEM; lies in the object as base64.
    #[serde(rename = "caCert", deserialize_with = "pem")]
    pub ca_cert: Option<String>,
    /// Secret with the certificate authorities to trust.
    #[serde(rename = "caCertRef", deserialize_with = "tolerant::optional")]
    pub ca_cert_ref: Option<SecretKey>,
}

/// A Velero snapshot location. Backups of plugin 1.0.2 and older are restored and deleted through one; its settings may name the bucket
/// that they lie in.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeSnapshotLocation {
    /// Name, namespace, labels.
    #[serde(deserialize_with = "reading::metadata")]
    pub metadata: ObjectMeta,
    /// What its plugin is told.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub spec: VolumeSnapshotLocationSpec,
}

velero_kind!(VolumeSnapshotLocation, "volumesnapshotlocations");

/// What the plugin of a [`VolumeSnapshotLocation`] is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeSnapshotLocationSpec {
    /// Velero's plugin for it.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub provider: String,
    /// Settings of that plugin.
    #[serde(deserialize_with = "reading::text_map")]
    pub config: BTreeMap<String, String>,
}

/// PEM text from base64; text that is PEM already stays as it is.
fn pem<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text: Option<String> = tolerant::optional(deserializer)?;
    let text = text.filter(|t| !t.is_empty());
    Ok(text.map(|written| {
        let lines: String = written.split_ascii_whitespace().collect();
        let decoded = STANDARD.decode(lines).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        decoded.unwrap_or(written)
    }))
}
