//! Restore actions that only keep things from coming back: volumes whose data is ours, and our own custom resources.

use async_trait::async_trait;
use lifecycle::velero::restore::{self, Decision};
use serde_json::Value;

use super::{reads, refused, say};
use crate::Item;
use crate::protocol::kinds::{ActionError, RestoreItemAction, Restored, Selector};

/// `cnsdp.vmware.com/volume-restorer`: a marked volume would bind the restored claim to a disk that need not exist (V-01).
pub(super) struct Volumes;

/// `cnsdp.vmware.com/own-kinds-restorer`: requests of the past are no objects of the present (V-06).
pub(super) struct OwnKinds;

#[async_trait]
impl RestoreItemAction for Volumes {
    async fn selector(&self) -> Result<Selector, ActionError> {
        Ok(Selector::resources(["persistentvolumes"]))
    }

    async fn execute(&self, item: Item, from_backup: &Item, restore: &Value) -> Result<Restored, ActionError> {
        restored(item, restore::decide_volume(&reads::restore(restore)?, from_backup.tree()))
    }
}

#[async_trait]
impl RestoreItemAction for OwnKinds {
    async fn selector(&self) -> Result<Selector, ActionError> {
        Ok(Selector::resources([
            "snapshots.backupdriver.cnsdp.vmware.com",
            "clonefromsnapshots.backupdriver.cnsdp.vmware.com",
            "deletesnapshots.backupdriver.cnsdp.vmware.com",
            "backuprepositoryclaims.backupdriver.cnsdp.vmware.com",
            "backuprepositories.backupdriver.cnsdp.vmware.com",
            "uploads.datamover.cnsdp.vmware.com",
            "downloads.datamover.cnsdp.vmware.com",
        ]))
    }

    async fn execute(&self, item: Item, from_backup: &Item, _restore: &Value) -> Result<Restored, ActionError> {
        restored(item, restore::decide_own_kind(from_backup.tree()))
    }
}

fn restored(item: Item, decision: Decision) -> Result<Restored, ActionError> {
    match decision {
        Decision::SkipRestore(note) => {
            say(&note);
            Ok(Restored::skipped(item))
        }
        Decision::Refuse(problem) => Err(refused(&problem)),
        Decision::Leave(note) => {
            say(&note);
            Ok(Restored::only(item))
        }
        Decision::Take(_) => Ok(Restored::only(item)), // only claims are taken
    }
}
