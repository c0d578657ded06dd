//! `velero.io/vsphere`: the VolumeSnapshotter by which users of plugin 1.0.2 and older made snapshot locations. It takes no
//! volume, so that Velero never snapshots one through it; restoring their backups is not here yet.

use std::collections::HashMap;

use async_trait::async_trait;

use crate::Item;
use crate::protocol::kinds::{ActionError, VolumeInfo, VolumeSnapshotter};

pub(super) struct OldSnapshots;

/// The provider's word for our volumes.
const VOLUME_TYPE: &str = "ivd";

#[async_trait]
impl VolumeSnapshotter for OldSnapshots {
    async fn init(&self, _config: &HashMap<String, String>) -> Result<(), ActionError> {
        Ok(())
    }

    async fn create_volume(&self, snapshot: &str, _zone: &str, _info: &VolumeInfo) -> Result<String, ActionError> {
        Err(ActionError::new(format!(
            "restore {snapshot}: backups of plugin 1.0.2 and older cannot be restored by this version. \
             Restore it with the plugin that made it, then back up again"
        )))
    }

    async fn volume_info(&self, _volume: &str, _zone: &str) -> Result<VolumeInfo, ActionError> {
        Ok(VolumeInfo { volume_type: VOLUME_TYPE.to_owned(), iops: Some(100) })
    }

    async fn create_snapshot(
        &self,
        volume: &str,
        _zone: &str,
        _tags: &HashMap<String, String>,
    ) -> Result<String, ActionError> {
        Err(ActionError::new(format!(
            "snapshot {volume}: snapshots are taken by the claim's own action, not through a snapshot location"
        )))
    }

    async fn delete_snapshot(&self, snapshot: &str) -> Result<(), ActionError> {
        Err(ActionError::new(format!(
            "delete {snapshot}: backups of plugin 1.0.2 and older cannot be deleted by this version. \
             Delete it with the plugin that made it"
        )))
    }

    async fn volume_id(&self, _volume: &Item) -> Result<Option<String>, ActionError> {
        Ok(None) // "not mine": Velero leaves every volume to the claim's action
    }

    async fn set_volume_id(&self, mut volume: Item, id: &str) -> Result<Item, ActionError> {
        if volume.tree()["spec"]["csi"].is_null() {
            return Err(ActionError::new(format!("volume {}: it has no CSI source to name {id} in", volume.name())));
        }
        volume.set(&["spec", "csi", "volumeHandle"], id)?;
        Ok(volume)
    }
}
