//! `Download`: a restore point on its way into a volume. No status subresource: made with its status in one POST.

use kube::core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::{DatamoverV1alpha1, kind};
use crate::{Condition, DownloadPhase, Progress, Time, tolerant};

/// One restore point to write into a volume. Lives in the Velero namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub struct Download {
    /// Always the same text.
    #[serde(rename = "apiVersion", default)]
    pub api_version: DatamoverV1alpha1,
    /// Name, namespace, labels.
    #[serde(deserialize_with = "crate::resource::metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "tolerant::or_default")]
    pub spec: DownloadSpec,
    /// What has become of it.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub status: Option<DownloadStatus>,
}

kind!(Download, DatamoverV1alpha1, "downloads", NamespaceResourceScope);

impl Download {
    /// A new one, without namespace, labels and status.
    pub fn new(name: &str, spec: DownloadSpec) -> Self {
        Self { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, spec, ..Self::default() }
    }

    /// Its phase; `None` when nobody has set one.
    pub fn phase(&self) -> Option<&DownloadPhase> {
        self.status.as_ref()?.phase.as_ref()
    }
}

/// What a [`Download`] asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownloadSpec {
    /// The backup: `ivd:<disk>:<disk snapshot>`.
    #[serde(
        rename = "snapshotID",
        default,
        deserialize_with = "tolerant::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub snapshot_id: Option<String>,
    /// When it was asked for.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub restore_timestamp: Option<Time>,
    /// The volume to write: `ivd:<disk>`. Absent: a new disk is made, for backups of versions up to 1.0.2.
    #[serde(
        rename = "protectedEntityID",
        default,
        deserialize_with = "tolerant::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub protected_entity_id: Option<String>,
    /// Name of the BackupRepository. Absent or `without-backup-repository`: the storage location `default`. The Upload's field has
    /// another name.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub backup_repository_name: Option<String>,
    /// `<namespace>/<name>` of the CloneFromSnapshot this is for. The spelling is the original's.
    #[serde(
        rename = "clonefromSnapshotReference",
        default,
        deserialize_with = "tolerant::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub clone_from_snapshot_reference: Option<String>,
    /// Namespace the claim was backed up from, which names the repository in the bucket.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<String>,
    /// Whether the driver lets it start. Absent: yes.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub admitted: Option<bool>,
}

/// What has become of a [`Download`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownloadStatus {
    /// Where it stands.
    #[serde(default, deserialize_with = "tolerant::word", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub phase: Option<DownloadPhase>,
    /// The volume that was written: `ivd:<disk>`.
    #[serde(
        rename = "volumeID",
        default,
        deserialize_with = "tolerant::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub volume_id: Option<String>,
    /// What went wrong, and what helps.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When a node first took it.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Time>,
    /// When it ended.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// How far it is.
    #[serde(default, deserialize_with = "tolerant::or_default")]
    #[schemars(with = "Option<Progress>")]
    pub progress: Progress,
    /// What of it is on the volume for good. Gone once it has ended; unknown to the original.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<DownloadCheckpoint>,
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
    /// Why it waits, failed or ended.
    #[serde(default, deserialize_with = "tolerant::conditions", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<Condition>>")]
    pub conditions: Vec<Condition>,
}

/// What of a restore is on the volume for good, so that whoever goes on does not write it again.
///
/// Read as a whole or not at all: half of it would name chunks that are not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownloadCheckpoint {
    /// What tells the backup that is being written: `digest` in the restore point's `/disk.json`, or where it lies in the
    /// original's layout, and its size. Empty until somebody writes.
    #[schemars(with = "Option<String>")]
    pub digest: String,
    /// The disk that is being written, by its id.
    #[schemars(with = "Option<String>")]
    pub disk: String,
    /// Whether nothing but this restore point was written to that disk since it was made.
    #[schemars(with = "Option<bool>")]
    pub was_blank: bool,
    /// Bytes of a chunk of the restore point.
    #[schemars(with = "Option<i64>")]
    pub chunk_size: u64,
    /// Bytes from the start of the disk that are all written.
    #[schemars(with = "Option<i64>")]
    pub up_to: u64,
    /// Which chunks from `upTo` on are written: a bit each, the lowest of a byte first, in hexadecimal.
    #[schemars(with = "Option<String>")]
    pub beyond: String,
}

impl DownloadCheckpoint {
    /// Nobody has written anything to any disk.
    pub fn untouched() -> Self {
        Self { was_blank: true, ..Self::default() }
    }

    /// Whether it says that nobody has written anything.
    pub fn is_untouched(&self) -> bool {
        self.digest.is_empty()
    }
}
