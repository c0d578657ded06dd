//! `VolumeSnapshotter`.

use std::collections::HashMap;

use async_trait::async_trait;

use super::ActionError;
use crate::Item;

/// What a provider says of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeInfo {
    /// The provider's word for the kind of volume.
    pub volume_type: String,
    /// Provisioned operations a second, when that is a property of the volume.
    pub iops: Option<i64>,
}

/// Snapshots of volumes as Velero's own snapshot locations mean them. `init` comes first, in every process.
#[async_trait]
pub trait VolumeSnapshotter: Send + Sync {
    /// The settings of the snapshot location.
    async fn init(&self, config: &HashMap<String, String>) -> Result<(), ActionError>;

    /// Makes a volume from a snapshot and returns its id.
    async fn create_volume(&self, snapshot: &str, zone: &str, info: &VolumeInfo) -> Result<String, ActionError>;

    /// What a later `create_volume` will need to know.
    async fn volume_info(&self, volume: &str, zone: &str) -> Result<VolumeInfo, ActionError>;

    /// Takes a snapshot and returns its id.
    async fn create_snapshot(
        &self,
        volume: &str,
        zone: &str,
        tags: &HashMap<String, String>,
    ) -> Result<String, ActionError>;

    /// Deletes a snapshot.
    async fn delete_snapshot(&self, snapshot: &str) -> Result<(), ActionError>;

    /// The id of the volume behind a PersistentVolume; `None` when it is not one of ours.
    async fn volume_id(&self, volume: &Item) -> Result<Option<String>, ActionError>;

    /// The PersistentVolume with another volume behind it.
    async fn set_volume_id(&self, volume: Item, id: &str) -> Result<Item, ActionError>;
}
