//! `cnsdp.vmware.com/volume-backupper`: marks the volumes whose data is ours, so that a restore into a new cluster does not
//! bring back a volume without its disk (V-01). Velero backs a volume up before the claim that it is bound to.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolume;
use lifecycle::velero::backup::{self, VolumeDecision, VolumeFacts};
use serde_json::Value;

use super::reads::{self, Reads};
use super::{change, say};
use crate::Item;
use crate::protocol::kinds::{ActionError, BackedUp, BackupItemAction, Progress, Selector};

pub(super) struct VolumeBackup(pub(super) Arc<Reads>);

#[async_trait]
impl BackupItemAction for VolumeBackup {
    async fn selector(&self) -> Result<Selector, ActionError> {
        Ok(Selector::resources(["persistentvolumes"]))
    }

    async fn execute(&self, mut item: Item, backup: &Value) -> Result<BackedUp, ActionError> {
        let backup = reads::backup(backup)?;
        let volume: PersistentVolume = item.read()?;
        let bound_to = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let (claim, pods) = match bound_to.and_then(|claim| claim.namespace.as_deref().zip(claim.name.as_deref())) {
            Some((namespace, name)) => (self.0.claim(namespace, name).await?, self.0.claim_users(namespace).await?),
            None => (None, Arc::default()),
        };
        let facts = VolumeFacts {
            backup: &backup,
            volume: &volume,
            claim: claim.as_ref(),
            settings: self.0.settings().await?,
            policies: self.0.policies(&backup).await?,
            pods: &pods,
        };
        match backup::decide_volume(&facts) {
            VolumeDecision::Leave(note) => say(&note),
            VolumeDecision::Mark => {
                self.0.volume_is_backed_up(volume);
                let changed = backup::marked(item.tree());
                change::apply(&mut item, &changed)?;
            }
        }
        Ok(BackedUp::only(item))
    }

    async fn progress(&self, operation: &str, _backup: &Value) -> Result<Progress, ActionError> {
        Err(ActionError::new(format!("this action has no operations, so none with the id `{operation}`")))
    }

    async fn cancel(&self, operation: &str, _backup: &Value) -> Result<(), ActionError> {
        Err(ActionError::new(format!("this action has no operations, so none with the id `{operation}`")))
    }
}
