//! `velero.io/vsphere-pvc-backupper`: a claim's disk is snapshotted before Velero goes on, and uploaded while it waits.

use std::sync::Arc;
use std::time::Duration;

use api::velero::Backup;
use api::{Snapshot, names};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use lifecycle::velero::backup::{self, Decision, Destination, Facts, Waited};
use lifecycle::velero::progress::{self, Answer, Asked};
use lifecycle::velero::{item as view, operation};
use serde_json::{Value, json};
use uuid::Uuid;

use super::reads::{self, Reads};
use super::{change, failed, refused, say, waits};
use crate::Item;
use crate::protocol::kinds::{ActionError, BackedUp, BackupItemAction, Outcome, Progress, Selector};

pub(super) struct ClaimBackup(pub(super) Arc<Reads>);

#[async_trait]
impl BackupItemAction for ClaimBackup {
    async fn selector(&self) -> Result<Selector, ActionError> {
        let blocked = self.0.blocked().await?;
        Ok(Selector::resources(["persistentvolumeclaims"].into_iter().chain(blocked.entries())))
    }

    async fn execute(&self, mut item: Item, backup: &Value) -> Result<BackedUp, ActionError> {
        let backup = reads::backup(backup)?;
        let volume = self.volume_of(&item).await?;
        match self.decide(&item, &backup, volume.as_ref()).await? {
            Decision::Refuse(problem) => Err(refused(&problem)),
            Decision::Leave(note) => {
                say(&note);
                if let Some(changed) = view::without_our_marks(item.tree()) {
                    change::apply(&mut item, &changed)?;
                }
                Ok(BackedUp::only(item))
            }
            Decision::Take(destination) => self.take(item, volume.as_ref(), &backup, destination).await,
        }
    }

    async fn progress(&self, operation: &str, backup: &Value) -> Result<Progress, ActionError> {
        let backup = reads::backup(backup)?;
        let (snapshots, name) = self.snapshots(operation).await?;
        let found = snapshots.get_opt(&name).await.map_err(failed(&format!("read Snapshot {operation}")))?;
        let asked = Asked {
            settings: self.0.settings().await?,
            timeout: backup.item_operation_timeout(),
            now: Timestamp::now(),
        };
        let answer = progress::of_snapshot(operation, found.as_ref(), &asked);
        if answer.stop {
            stop(&snapshots, &name).await?; // Velero gives up without a word to anybody (V-10)
        }
        Ok(told(answer))
    }

    async fn cancel(&self, operation: &str, _backup: &Value) -> Result<(), ActionError> {
        let (snapshots, name) = self.snapshots(operation).await?;
        stop(&snapshots, &name).await
    }
}

impl ClaimBackup {
    /// The volume that a claim names.
    async fn volume_of(&self, item: &Item) -> Result<Option<PersistentVolume>, ActionError> {
        match item.tree()["spec"]["volumeName"].as_str().filter(|name| !name.is_empty()) {
            Some(name) => match self.0.backed_up_volume(name) {
                Some(volume) => Ok(Some(volume)),
                None => self.0.volume(name).await,
            },
            None => Ok(None),
        }
    }

    async fn decide(
        &self,
        item: &Item,
        backup: &Backup,
        volume: Option<&PersistentVolume>,
    ) -> Result<Decision, ActionError> {
        let blocked = self.0.blocked().await?;
        if let Some(early) = backup::before_reading(backup, item.tree(), blocked) {
            return Ok(early);
        }
        let pods = self.0.claim_users(item.namespace()).await?;
        let facts = Facts {
            backup,
            item: item.tree(),
            blocked,
            settings: self.0.settings().await?,
            policies: self.0.policies(backup).await?,
            volume,
            pods: &pods,
        };
        Ok(backup::decide(&facts))
    }

    /// Asks for the disk snapshot and waits until it is recorded; the upload goes on while Velero waits.
    async fn take(
        &self,
        mut item: Item,
        volume: Option<&PersistentVolume>,
        backup: &Backup,
        to: Destination,
    ) -> Result<BackedUp, ActionError> {
        let repository = match to {
            Destination::Repository => {
                self.0.repository_at(backup.spec.storage_location.as_deref(), item.namespace()).await?
            }
            Destination::Local => String::new(),
        };
        let wanted = backup::snapshot_for(backup, item.tree(), &repository, &names::snapshot(Uuid::new_v4()));
        let snapshots: Api<Snapshot> = Api::namespaced(self.0.client().await?, item.namespace());
        let made = snapshots.create(&PostParams::default(), &wanted).await;
        let made = made.map_err(failed("make a Snapshot for the claim"))?;
        let name = made.metadata.name.clone().unwrap_or_default();
        let taken = async {
            let recorded = recorded(&snapshots, &made, &name, backup).await?;
            let version = concat!("v", env!("CARGO_PKG_VERSION"));
            let changed = backup::recorded(item.tree(), volume, &recorded, version);
            change::apply(&mut item, &changed.map_err(|problem| refused(&problem))?)?;
            Ok::<_, ActionError>(())
        };
        match taken.await {
            Ok(()) => {}
            Err(problem) => {
                // nobody will look at it again: what it has begun must not be left behind
                if let Err(error) = stop(&snapshots, &name).await {
                    tracing::warn!(error = error.message(), snapshot = name, "it could not be cancelled");
                }
                return Err(problem);
            }
        }
        let operation = operation::id(item.namespace(), &name);
        tracing::info!(snapshot = name, "the disk snapshot exists; its upload goes on");
        Ok(BackedUp { operation: Some(operation), ..BackedUp::only(item) })
    }

    /// Where the Snapshot of an operation is, and its name.
    async fn snapshots(&self, id: &str) -> Result<(Api<Snapshot>, String), ActionError> {
        let (namespace, name) =
            operation::parse(id).ok_or_else(|| ActionError::new(format!("`{id}` is no operation of ours")))?;
        Ok((Api::namespaced(self.0.client().await?, namespace), name.to_owned()))
    }
}

/// Waits until the disk snapshot is recorded, at most as long as the backup lets CSI snapshots take.
async fn recorded(
    snapshots: &Api<Snapshot>,
    made: &Snapshot,
    name: &str,
    backup: &Backup,
) -> Result<Snapshot, ActionError> {
    let timeout = backup.csi_snapshot_timeout();
    let within = Duration::try_from(timeout).unwrap_or(Duration::ZERO);
    let settled = |snapshot: Option<&Snapshot>| backup::waited(snapshot) != Waited::NotYet;
    let act = format!("wait for the disk snapshot of Snapshot {name}");
    let seen = match waits::from_now(snapshots.clone(), made, within, &act, settled).await? {
        waits::Waited::Settled(seen) => seen,
        waits::Waited::TooLate => {
            let now = snapshots.get(name).await.map_err(failed(&act))?;
            return Err(refused(&backup::not_in_time(&now, timeout)));
        }
    };
    match (backup::waited(seen.as_ref()), seen) {
        (Waited::Ready, Some(snapshot)) => Ok(snapshot),
        (Waited::Failed(problem), _) => Err(refused(&problem)),
        (Waited::Ready | Waited::NotYet, _) => Err(ActionError::new(format!("{act}: it is gone"))),
    }
}

/// Asks a Snapshot to stop; one that is gone has stopped.
async fn stop(snapshots: &Api<Snapshot>, name: &str) -> Result<(), ActionError> {
    let patch = Patch::Merge(json!({ "spec": { "snapshotCancel": true } }));
    match snapshots.patch(name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed(&format!("cancel Snapshot {name}"))(error)),
    }
}

/// A decision's answer as the protocol says it.
pub(super) fn told(answer: Answer) -> Progress {
    let outcome = match (answer.completed, answer.error.is_empty()) {
        (false, _) => Outcome::Running,
        (true, true) => Outcome::Completed,
        (true, false) => Outcome::Failed(answer.error),
    };
    Progress {
        outcome,
        done: answer.done,
        total: answer.total,
        units: progress::UNITS,
        description: answer.description,
        started: answer.started,
        updated: answer.updated,
    }
}
