//! `velero.io/vsphere-pvc-deleter`: the data of a claim goes with the backup. The DeleteSnapshot carries the duty: Velero
//! drops the backup half a second later, whatever we answer (V-09).

use std::sync::Arc;
use std::time::Duration;

use api::{DeletePhase, DeleteSnapshot, Reason};
use async_trait::async_trait;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::velero::delete::{self, Decision, Delete};
use serde_json::Value;
use uuid::Uuid;

use super::reads::{self, Reads};
use super::waits::{self, Waited};
use super::{failed, refused, say};
use crate::Item;
use crate::protocol::kinds::{ActionError, DeleteItemAction, Selector};

/// How long Velero's deletion waits for ours. Whatever takes longer goes on by itself.
const WATCHED_FOR: Duration = Duration::from_secs(30);

/// How long the storage location's repository is looked for. The duty must be written down before Velero loses patience.
const LOOKED_FOR: Duration = Duration::from_secs(20);

pub(super) struct ClaimDelete(pub(super) Arc<Reads>);

#[async_trait]
impl DeleteItemAction for ClaimDelete {
    async fn selector(&self) -> Result<Selector, ActionError> {
        Ok(Selector::resources(["persistentvolumeclaims"]))
    }

    async fn execute(&self, item: Item, backup: &Value) -> Result<(), ActionError> {
        let backup = reads::backup(backup)?;
        let local_mode = self.0.settings().await?.local_mode;
        match delete::decide(&backup, item.tree(), local_mode) {
            Decision::Nothing(note) => {
                say(&note);
                Ok(())
            }
            Decision::Refuse(problem) => Err(refused(&problem)),
            Decision::Delete(wanted) => self.delete(&backup, &wanted).await,
        }
    }
}

impl ClaimDelete {
    /// The storage location's repository; the one that the backup was made with where that cannot be had now, as when the
    /// location was edited and nobody is there to make a repository of it. The driver finds out whether it will do.
    async fn repository(&self, backup: &api::velero::Backup, wanted: &Delete) -> Result<String, ActionError> {
        let looking = self.0.repository_at(backup.spec.storage_location.as_deref(), &wanted.source_namespace);
        let why = match tokio::time::timeout(LOOKED_FOR, looking).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error,
            Err(_) => {
                let cause = format!("find the repository of the backup: no answer within {} s", LOOKED_FOR.as_secs());
                refused(&Problem::passing(Reason::DriverSilent, cause))
            }
        };
        let Some(recorded) = wanted.recorded_repository.clone() else { return Err(why) };
        tracing::info!(
            repository = recorded,
            why = why.message(),
            "deleting from the repository of the backup's record"
        );
        Ok(recorded)
    }

    async fn delete(&self, backup: &api::velero::Backup, wanted: &Delete) -> Result<(), ActionError> {
        let repository = match wanted.local {
            true => String::new(),
            false => self.repository(backup, wanted).await?,
        };
        let name = api::names::delete_snapshot(Uuid::new_v4());
        let request = wanted.request(backup, self.0.velero(), &repository, &name);
        let deletes: Api<DeleteSnapshot> = Api::namespaced(self.0.client().await?, self.0.velero());
        let made = deletes.create(&PostParams::default(), &request).await;
        let name = made.map_err(failed("make a DeleteSnapshot for the claim"))?.name_any();
        let ended = |delete: Option<&DeleteSnapshot>| delete.is_none_or(|d| d.phase().is_some_and(|p| p.is_terminal()));
        match waits::until(deletes, &name, WATCHED_FOR, "watch the DeleteSnapshot", ended).await {
            Ok(Waited::Settled(Some(delete))) if delete.phase() == Some(&DeletePhase::Failed) => {
                let why = delete.status.and_then(|s| s.message).unwrap_or_default();
                Err(refused(&Problem::lasting(Reason::Internal, format!("delete {}: {why}", wanted.snapshot_id))))
            }
            Ok(Waited::Settled(_)) => Ok(()),
            Ok(Waited::TooLate) => {
                tracing::info!(delete = name, "it takes longer; the driver goes on with it");
                Ok(())
            }
            Err(error) => {
                tracing::info!(delete = name, error = error.message(), "not watched to its end; it goes on");
                Ok(())
            }
        }
    }
}
