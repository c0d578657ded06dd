//! `DeleteSnapshot`: forget a backup.

use kube::core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::{BackupDriverV1alpha1, kind};
use crate::{Condition, DeletePhase, Time, tolerant};

/// A request to delete a disk snapshot and its restore point. Lives in the Velero namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub struct DeleteSnapshot {
    /// Always the same text.
    #[serde(rename = "apiVersion", default)]
    pub api_version: BackupDriverV1alpha1,
    /// Name, namespace, labels.
    #[serde(deserialize_with = "crate::resource::metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "tolerant::or_default")]
    pub spec: DeleteSnapshotSpec,
    /// What has become of it.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub status: Option<DeleteSnapshotStatus>,
}

kind!(DeleteSnapshot, BackupDriverV1alpha1, "deletesnapshots", NamespaceResourceScope);

impl DeleteSnapshot {
    /// A new one, without namespace and labels.
    pub fn new(name: &str, spec: DeleteSnapshotSpec) -> Self {
        Self { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, spec, ..Self::default() }
    }

    /// Its phase; `None` when nobody has set one.
    pub fn phase(&self) -> Option<&DeletePhase> {
        self.status.as_ref()?.phase.as_ref()
    }
}

/// What a [`DeleteSnapshot`] asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeleteSnapshotSpec {
    /// The backup: `pvc:…` as in the Snapshot's `status.snapshotID`, or `ivd:<disk>:<disk snapshot>` of old backups.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    /// Name of the BackupRepository to delete from. Empty: only the disk snapshot is deleted. `without-backup-repository`: the
    /// storage location `default`.
    pub backup_repository: String,
}

/// What has become of a [`DeleteSnapshot`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeleteSnapshotStatus {
    /// Where it stands: New, Completed or Failed.
    #[serde(default, deserialize_with = "tolerant::word", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub phase: Option<DeletePhase>,
    /// What went wrong, and what helps.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it ended.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// Why it waits, failed or ended.
    #[serde(default, deserialize_with = "tolerant::conditions", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<Condition>>")]
    pub conditions: Vec<Condition>,
}
