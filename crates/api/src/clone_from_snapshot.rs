//! `CloneFromSnapshot`: bring a backup back as a new claim.

use kube::core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metadata::Blob;
use crate::resource::{BackupDriverV1alpha1, kind};
use crate::{ClonePhase, Condition, Progress, ResourceHandle, Time, tolerant};

/// A request to restore a backup into a new claim. Lives in the namespace the claim will be in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub struct CloneFromSnapshot {
    /// Always the same text.
    #[serde(rename = "apiVersion", default)]
    pub api_version: BackupDriverV1alpha1,
    /// Name, namespace, labels.
    #[serde(deserialize_with = "crate::resource::metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "tolerant::or_default")]
    pub spec: CloneFromSnapshotSpec,
    /// What has become of it.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub status: Option<CloneFromSnapshotStatus>,
}

kind!(CloneFromSnapshot, BackupDriverV1alpha1, "clonefromsnapshots", NamespaceResourceScope);

impl CloneFromSnapshot {
    /// A new one, without namespace and labels.
    pub fn new(name: &str, spec: CloneFromSnapshotSpec) -> Self {
        Self { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, spec, ..Self::default() }
    }

    /// Its phase; `None` when nobody has set one.
    pub fn phase(&self) -> Option<&ClonePhase> {
        self.status.as_ref()?.phase.as_ref()
    }
}

/// What a [`CloneFromSnapshot`] asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloneFromSnapshotSpec {
    /// The backup: the Snapshot's `status.snapshotID`.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    /// The claim to make, in protobuf: the Snapshot's `status.metadata`, renamed as wanted.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Blob>,
    /// API group of what is made: empty.
    pub api_group: String,
    /// Kind of what is made: PersistentVolumeClaim.
    pub kind: String,
    /// Name of the BackupRepository to read from.
    pub backup_repository: String,
    /// Do not start.
    pub clone_cancel: bool,
    /// Who makes the claim. Absent: the driver does, once the data is there. Velero: Velero makes it, and the driver
    /// gives it its volume once the data is there.
    #[serde(default, deserialize_with = "tolerant::word", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ClaimCreatorSchema>")]
    pub claim_creator: Option<ClaimCreator>,
}

/// Who makes the restored claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ClaimCreator {
    /// Velero's restore makes it; the driver waits for it.
    Velero,
    /// A word we do not know, to be refused.
    Other(String),
}

impl From<String> for ClaimCreator {
    fn from(word: String) -> Self {
        if word == "Velero" { Self::Velero } else { Self::Other(word) }
    }
}

impl From<ClaimCreator> for String {
    fn from(creator: ClaimCreator) -> String {
        match creator {
            ClaimCreator::Velero => "Velero".to_owned(),
            ClaimCreator::Other(word) => word,
        }
    }
}

/// The words of [`ClaimCreator`] that the API server lets in.
#[derive(JsonSchema)]
#[allow(dead_code)] // only its schema is used
enum ClaimCreatorSchema {
    Velero,
}

/// What has become of a [`CloneFromSnapshot`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloneFromSnapshotStatus {
    /// Where it stands: New, InProgress, Completed, Failed, Canceling or Canceled.
    #[serde(default, deserialize_with = "tolerant::word", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub phase: Option<ClonePhase>,
    /// What went wrong, and what helps.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The volume: its *name* is `ivd:<disk>`, as the original writes it. Not there where the Download that names the disk is gone.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub resource_handle: Option<ResourceHandle>,
    /// When it ended. Written by whoever asked, and by the driver where that is missing.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// How far the download is.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Why it waits, failed or ended.
    #[serde(default, deserialize_with = "tolerant::conditions", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<Condition>>")]
    pub conditions: Vec<Condition>,
}
