//! A backup, as far as a plugin cares.

use k8s_openapi::jiff::SignedDuration;
use kube::core::ObjectMeta;
use serde::Deserialize;

use super::{Reference, reading, velero_kind};
use crate::{Time, tolerant};

/// Longest wait for an operation where the backup or restore says nothing; Velero's own default.
pub const DEFAULT_ITEM_OPERATION_TIMEOUT: SignedDuration = SignedDuration::from_hours(4);
/// Longest wait for a snapshot where the backup says nothing; Velero's own default.
pub const DEFAULT_CSI_SNAPSHOT_TIMEOUT: SignedDuration = SignedDuration::from_mins(10);

/// A Velero backup.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Backup {
    /// Name, namespace, labels.
    #[serde(deserialize_with = "reading::metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub spec: BackupSpec,
    /// What has become of it.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub status: BackupStatus,
}

velero_kind!(Backup, "backups");

impl Backup {
    /// Whether Velero only finishes it: items come once more, and no operation may be begun (trap P-12).
    pub fn is_finalizing(&self) -> bool {
        matches!(self.status.phase.as_str(), "Finalizing" | "FinalizingPartiallyFailed")
    }

    /// Whether pod volumes go to Velero's file-system backup unless they are opted out. The setting has two names.
    pub fn volumes_default_to_fs_backup(&self) -> bool {
        self.spec.default_volumes_to_fs_backup.or(self.spec.default_volumes_to_restic).unwrap_or(false)
    }

    /// How long an operation may take.
    pub fn item_operation_timeout(&self) -> SignedDuration {
        self.spec.item_operation_timeout.unwrap_or(DEFAULT_ITEM_OPERATION_TIMEOUT)
    }

    /// How long a snapshot may take.
    pub fn csi_snapshot_timeout(&self) -> SignedDuration {
        self.spec.csi_snapshot_timeout.unwrap_or(DEFAULT_CSI_SNAPSHOT_TIMEOUT)
    }
}

/// What a [`Backup`] asks for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackupSpec {
    /// Whether volumes are snapshotted; absent is yes.
    #[serde(deserialize_with = "tolerant::optional")]
    pub snapshot_volumes: Option<bool>,
    /// Whether pod volumes go to file-system backup unless opted out.
    #[serde(deserialize_with = "tolerant::optional")]
    pub default_volumes_to_fs_backup: Option<bool>,
    /// The older name of the same.
    #[serde(deserialize_with = "tolerant::optional")]
    pub default_volumes_to_restic: Option<bool>,
    /// Whether CSI snapshots are moved to the storage location.
    #[serde(deserialize_with = "tolerant::optional")]
    pub snapshot_move_data: Option<bool>,
    /// Who moves them; absent, empty or `velero` is Velero itself.
    #[serde(rename = "datamover", deserialize_with = "tolerant::optional")]
    pub data_mover: Option<String>,
    /// Name of the storage location.
    #[serde(deserialize_with = "tolerant::optional")]
    pub storage_location: Option<String>,
    /// ConfigMap with volume policies.
    #[serde(deserialize_with = "tolerant::optional")]
    pub resource_policy: Option<Reference>,
    /// How long a snapshot may take.
    #[serde(deserialize_with = "reading::duration")]
    pub csi_snapshot_timeout: Option<SignedDuration>,
    /// How long an operation may take.
    #[serde(deserialize_with = "reading::duration")]
    pub item_operation_timeout: Option<SignedDuration>,
}

/// What has become of a [`Backup`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackupStatus {
    /// Its phase, word for word; empty when none is set.
    #[serde(deserialize_with = "tolerant::or_default")]
    pub phase: String,
    /// When it began.
    #[serde(deserialize_with = "tolerant::optional")]
    pub start_timestamp: Option<Time>,
    /// When its objects may be deleted.
    #[serde(deserialize_with = "tolerant::optional")]
    pub expiration: Option<Time>,
}
