//! `Upload`: a disk snapshot on its way into the repository. No status subresource: made with its status in one POST.

use kube::core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::{DatamoverV1alpha1, kind};
use crate::{Condition, Progress, Time, UploadPhase, tolerant};

/// Name of no repository: the storage location `default` is looked up when the transfer runs.
pub const WITHOUT_BACKUP_REPOSITORY: &str = "without-backup-repository";

/// One disk snapshot to copy into the repository. Lives in the Velero namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub struct Upload {
    /// Always the same text.
    #[serde(rename = "apiVersion", default)]
    pub api_version: DatamoverV1alpha1,
    /// Name, namespace, labels.
    #[serde(deserialize_with = "crate::resource::metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "tolerant::or_default")]
    pub spec: UploadSpec,
    /// What has become of it.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub status: Option<UploadStatus>,
}

kind!(Upload, DatamoverV1alpha1, "uploads", NamespaceResourceScope);

impl Upload {
    /// A new one, without namespace, labels and status.
    pub fn new(name: &str, spec: UploadSpec) -> Self {
        Self { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, spec, ..Self::default() }
    }

    /// Its phase; `None` when nobody has set one.
    pub fn phase(&self) -> Option<&UploadPhase> {
        self.status.as_ref()?.phase.as_ref()
    }
}

/// What an [`Upload`] asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadSpec {
    /// The disk snapshot: `ivd:<disk>:<disk snapshot>`.
    #[serde(
        rename = "snapshotID",
        default,
        deserialize_with = "tolerant::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub snapshot_id: Option<String>,
    /// When it was asked for.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub backup_timestamp: Option<Time>,
    /// Name of the BackupRepository. Absent or `without-backup-repository`: the storage location `default`.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub backup_repository: Option<String>,
    /// Stop, and leave nothing behind.
    #[serde(default, deserialize_with = "tolerant::or_default", skip_serializing_if = "tolerant::is_false")]
    #[schemars(with = "Option<bool>")]
    pub upload_cancel: bool,
    /// `<namespace>/<name>` of the Snapshot this is for.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub snapshot_reference: Option<String>,
    /// Namespace of the claim, which names the repository in the bucket.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<String>,
    /// Name of the claim.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub source_claim: Option<String>,
    /// The cluster: uid of namespace kube-system.
    #[serde(
        rename = "clusterID",
        default,
        deserialize_with = "tolerant::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub cluster_id: Option<String>,
    /// Name of the Velero backup, if one asked for it.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub backup_name: Option<String>,
    /// Uid of that backup.
    #[serde(
        rename = "backupUID",
        default,
        deserialize_with = "tolerant::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub backup_uid: Option<String>,
    /// Managed object id of the datastore that it reads from, where `uploads-per-datastore` is set; with its vCenter where there are
    /// several.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// Whether the driver lets it start. Absent: yes.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub admitted: Option<bool>,
}

/// What has become of an [`Upload`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadStatus {
    /// Where it stands.
    #[serde(default, deserialize_with = "tolerant::word", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub phase: Option<UploadPhase>,
    /// What went wrong, and what helps.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When a node first took it.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Time>,
    /// When the last attempt ended.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// How far it is.
    #[serde(default, deserialize_with = "tolerant::or_default")]
    #[schemars(with = "Option<Progress>")]
    pub progress: Progress,
    /// The node that copies, or copied last.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub processing_node: Option<String>,
    /// Failures so far.
    #[serde(default, deserialize_with = "tolerant::or_default", skip_serializing_if = "tolerant::is_zero")]
    #[schemars(with = "Option<i32>")]
    pub retry_count: u32,
    /// Earliest next attempt. Never left out: the original's programs crash without it.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub next_retry_timestamp: Option<Time>,
    /// Minutes between the last failure and the next attempt.
    #[serde(default, deserialize_with = "tolerant::or_default", skip_serializing_if = "tolerant::is_zero")]
    #[schemars(with = "Option<i32>")]
    pub current_back_off: u32,
    /// Why it waits, failed or ended.
    #[serde(default, deserialize_with = "tolerant::conditions", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<Condition>>")]
    pub conditions: Vec<Condition>,
}
