//! `Snapshot`: back up this claim.

use kube::core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metadata::Blob;
use crate::resource::{BackupDriverV1alpha1, kind};
use crate::{Condition, Progress, SnapshotPhase, Time, tolerant};

/// The only kind that can be snapshotted and restored.
pub const CLAIM_KIND: &str = "PersistentVolumeClaim";

/// A request to take a snapshot of a claim's disk and to upload it. Lives beside the claim.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub struct Snapshot {
    /// Always the same text.
    #[serde(rename = "apiVersion", default)]
    pub api_version: BackupDriverV1alpha1,
    /// Name, namespace, labels.
    #[serde(deserialize_with = "crate::resource::metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "tolerant::or_default")]
    pub spec: SnapshotSpec,
    /// What has become of it.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub status: Option<SnapshotStatus>,
}

kind!(Snapshot, BackupDriverV1alpha1, "snapshots", NamespaceResourceScope);

impl Snapshot {
    /// A new one, without namespace and labels.
    pub fn new(name: &str, spec: SnapshotSpec) -> Self {
        Self { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, spec, ..Self::default() }
    }

    /// Its phase; `None` when nobody has set one.
    pub fn phase(&self) -> Option<&SnapshotPhase> {
        self.status.as_ref()?.phase.as_ref()
    }
}

/// What a [`Snapshot`] asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSpec {
    /// What to snapshot: a claim in the same namespace.
    pub resource_handle: ResourceHandle,
    /// Name of the BackupRepository to upload to. Empty: local mode, keep the disk snapshot and upload nothing.
    pub backup_repository: String,
    /// Stop: a Snapshot that has not begun does not begin, an upload that runs is cancelled and leaves nothing.
    #[serde(default, deserialize_with = "tolerant::or_default", skip_serializing_if = "tolerant::is_false")]
    #[schemars(with = "Option<bool>")]
    pub snapshot_cancel: bool,
}

/// A reference to an object in the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceHandle {
    /// API group; empty for the core group.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// Kind; PersistentVolumeClaim is the only one supported.
    pub kind: String,
    /// Name of the object.
    pub name: String,
}

impl ResourceHandle {
    /// A claim.
    pub fn claim(name: &str) -> Self {
        Self { api_group: Some(String::new()), kind: CLAIM_KIND.to_owned(), name: name.to_owned() }
    }

    /// Whether it names a claim.
    pub fn is_claim(&self) -> bool {
        self.kind == CLAIM_KIND && self.api_group.as_deref().unwrap_or_default().is_empty()
    }
}

/// What has become of a [`Snapshot`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStatus {
    /// Where it stands: New, Snapshotted, SnapshotFailed, Uploading, Uploaded, UploadFailed, Canceling, Canceled,
    /// CleanupAfterUploadFailed or UploadFailedAfterRetry.
    #[serde(default, deserialize_with = "tolerant::word", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub phase: Option<SnapshotPhase>,
    /// What went wrong, and what helps.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How far the upload is.
    #[serde(default, deserialize_with = "tolerant::or_default")]
    #[schemars(with = "Option<Progress>")]
    pub progress: Progress,
    /// The backup: `pvc:<namespace>/<claim>:<disk and disk snapshot in base64>`.
    #[serde(
        rename = "snapshotID",
        default,
        deserialize_with = "tolerant::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub snapshot_id: Option<String>,
    /// Guest clusters: name of the Supervisor's Snapshot. Always written, as the original does.
    #[serde(default, deserialize_with = "tolerant::or_default")]
    #[schemars(with = "Option<String>")]
    pub svc_snapshot_name: String,
    /// The claim as it was, in protobuf.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Blob>,
    /// When it ended.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// Why it waits, failed or ended.
    #[serde(default, deserialize_with = "tolerant::conditions", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<Condition>>")]
    pub conditions: Vec<Condition>,
}
