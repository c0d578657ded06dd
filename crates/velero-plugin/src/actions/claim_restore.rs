//! `velero.io/vsphere-pvc-restorer`: Velero creates the claim, bindable by nobody; the driver brings a written volume to it.

use std::sync::Arc;

use api::velero::{Backup, Restore};
use api::{CloneFromSnapshot, Reason};
use async_trait::async_trait;
use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use lifecycle::Problem;
use lifecycle::velero::progress::{self, Asked};
use lifecycle::velero::restore::{self, ALSO_APPLIES_TO, Decision, Facts, Take};
use lifecycle::velero::{item as view, operation};
use serde_json::{Value, json};
use uuid::Uuid;

use super::claim_backup::told;
use super::reads::{self, Reads};
use super::{change, failed, refused, say};
use crate::Item;
use crate::protocol::kinds::{ActionError, Progress, RestoreItemAction, Restored, Selector};

pub(super) struct ClaimRestore(pub(super) Arc<Reads>);

#[async_trait]
impl RestoreItemAction for ClaimRestore {
    async fn selector(&self) -> Result<Selector, ActionError> {
        let blocked = self.0.blocked().await?;
        let own = ["persistentvolumeclaims"].into_iter().chain(ALSO_APPLIES_TO);
        Ok(Selector::resources(own.chain(blocked.entries())))
    }

    async fn execute(&self, mut item: Item, from_backup: &Item, restore: &Value) -> Result<Restored, ActionError> {
        let restore = reads::restore(restore)?;
        match self.decide(&item, from_backup, &restore).await? {
            Decision::Refuse(problem) => Err(refused(&problem)),
            Decision::SkipRestore(note) => {
                say(&note);
                Ok(Restored::skipped(item))
            }
            Decision::Leave(note) => {
                say(&note);
                if let Some(changed) = restore::left(item.tree()) {
                    change::apply(&mut item, &changed)?;
                }
                Ok(Restored::only(item))
            }
            Decision::Take(take) => self.take(item, &restore, &take).await,
        }
    }

    async fn progress(&self, operation: &str, restore: &Value) -> Result<Progress, ActionError> {
        let restore = reads::restore(restore)?;
        let (clones, name) = self.clones(operation).await?;
        let found = clones.get_opt(&name).await.map_err(failed(&format!("read CloneFromSnapshot {operation}")))?;
        let asked = Asked {
            settings: self.0.settings().await?,
            timeout: restore.item_operation_timeout(),
            now: Timestamp::now(),
        };
        let answer = progress::of_clone(operation, found.as_ref(), &asked);
        if answer.stop {
            stop(&clones, &name).await?; // Velero gives up without a word to anybody (V-10)
        }
        Ok(told(answer))
    }

    async fn cancel(&self, operation: &str, _restore: &Value) -> Result<(), ActionError> {
        let (clones, name) = self.clones(operation).await?;
        stop(&clones, &name).await
    }
}

impl ClaimRestore {
    async fn decide(&self, item: &Item, from_backup: &Item, restore: &Restore) -> Result<Decision, ActionError> {
        let blocked = self.0.blocked().await?;
        if let Some(early) = restore::before_reading(restore, from_backup.tree(), blocked) {
            return Ok(early);
        }
        let namespace = restore.target_namespace(view::namespace(from_backup.tree()));
        let existing = self.0.claim(namespace, item.name()).await?;
        let (mappings, classes) = (self.0.class_mappings().await?, self.0.storage_classes().await?);
        let facts = Facts {
            restore,
            item: item.tree(),
            item_from_backup: from_backup.tree(),
            blocked,
            existing: existing.as_ref(),
            mappings: &mappings,
            classes: &classes,
        };
        Ok(restore::decide(&facts))
    }

    /// Asks for the data, and returns the claim so that only the driver can bind it.
    async fn take(&self, mut item: Item, restore: &Restore, take: &Take) -> Result<Restored, ActionError> {
        let location = self.location_of(restore).await?;
        let repository = self.0.repository_at(location.as_deref(), &take.source_namespace).await?;
        let wanted = take.clone_from_snapshot(restore, &repository, &Uuid::new_v4().to_string());
        let clones: Api<CloneFromSnapshot> = Api::namespaced(self.0.client().await?, &take.namespace);
        let made = clones.create(&PostParams::default(), &wanted).await;
        let made = made.map_err(failed("make a CloneFromSnapshot for the claim"))?;
        let (name, uid) = (made.metadata.name.unwrap_or_default(), made.metadata.uid.unwrap_or_default());
        let changed = restore::taken(item.tree(), take, &uid);
        if let Err(problem) = change::apply(&mut item, &changed) {
            // its claim will never come: what has begun must not be left behind
            if let Err(error) = stop(&clones, &name).await {
                tracing::warn!(error = error.message(), clone = name, "it could not be cancelled");
            }
            return Err(problem.into());
        }
        tracing::info!(clone = name, "its data is being brought back");
        Ok(Restored { operation: Some(operation::id(&take.namespace, &name)), ..Restored::only(item) })
    }

    /// The storage location of the backup that is restored.
    async fn location_of(&self, restore: &Restore) -> Result<Option<String>, ActionError> {
        let name = &restore.spec.backup_name;
        let backup: Option<Backup> = self.0.velero_object("backups", name).await?;
        let backup = backup.ok_or_else(|| {
            let cause = format!("find the storage location: there is no Backup {}/{name}", self.0.velero());
            refused(&Problem::lasting(Reason::StorageLocationMissing, cause))
        })?;
        Ok(backup.spec.storage_location)
    }

    /// Where the CloneFromSnapshot of an operation is, and its name.
    async fn clones(&self, id: &str) -> Result<(Api<CloneFromSnapshot>, String), ActionError> {
        let (namespace, name) =
            operation::parse(id).ok_or_else(|| ActionError::new(format!("`{id}` is no operation of ours")))?;
        Ok((Api::namespaced(self.0.client().await?, namespace), name.to_owned()))
    }
}

/// Asks a CloneFromSnapshot to stop; one that is gone has stopped.
async fn stop(clones: &Api<CloneFromSnapshot>, name: &str) -> Result<(), ActionError> {
    let patch = Patch::Merge(json!({ "spec": { "cloneCancel": true } }));
    match clones.patch(name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed(&format!("cancel CloneFromSnapshot {name}"))(error)),
    }
}
