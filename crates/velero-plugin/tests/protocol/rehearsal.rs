//! Actions for tests: an item says in its annotation what is to be done to it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use velero_plugin::protocol::kinds::{
    ActionError, BackedUp, BackupItemAction, DeleteItemAction, ItemReference, Outcome, Progress, RestoreItemAction,
    Restored, Selector, VolumeInfo, VolumeSnapshotter, WaitForItems, is_finalizing,
};
use velero_plugin::{Action, Host, Item, Registry, RegistryError};

/// The name of all of them.
pub(crate) const NAME: &str = "example.io/rehearsal";
/// The annotation that says what is to be done.
pub(crate) const DO: &str = "example.io/do";
/// The folder that outlives a process, as the cluster does.
pub(crate) const STATE: &str = "REHEARSAL_STATE";

/// One action of each kind.
pub(crate) fn registry(host: &Host) -> Result<Registry, RegistryError> {
    tracing::debug!(target: "velero_plugin::rehearsal", csi = host.features.iter().any(|f| f == "EnableCSI"), host.namespace, "rehearsal");
    let rehearsal = Arc::new(Rehearsal);
    Registry::new([
        (NAME, Action::Backup(rehearsal.clone())),
        (NAME, Action::Restore(rehearsal.clone())),
        (NAME, Action::Delete(rehearsal.clone())),
        (NAME, Action::VolumeSnapshotter(rehearsal)),
    ])
}

struct Rehearsal;

#[async_trait]
impl BackupItemAction for Rehearsal {
    async fn selector(&self) -> Result<Selector, ActionError> {
        Ok(Selector { labels: "app=shop".to_owned(), ..Selector::resources(["configmaps", "things.example.io"]) })
    }

    async fn execute(&self, mut item: Item, backup: &Value) -> Result<BackedUp, ActionError> {
        match item.annotation(DO).unwrap_or_default() {
            "change" => item.set(&["metadata", "annotations", "example.io/done"], &"yes")?,
            "fail" => std::fs::read("/nowhere/disk").map(drop).map_err(Unreadable)?,
            "panic" => panic!("the action tripped over {}", item.name()),
            "abort" => std::process::abort(),
            "hang" => std::future::pending().await,
            "log" => say_everything(),
            "log long" => tracing::warn!(target: "velero_plugin::rehearsal", dump = "ü\u{1}".repeat(90_000), "long"),
            "log much" => say_much().await,
            "operate" if is_finalizing(backup) => {}
            "operate" => return operate(item),
            _ => {}
        }
        Ok(BackedUp::only(item))
    }

    async fn progress(&self, operation: &str, _: &Value) -> Result<Progress, ActionError> {
        progress(operation)
    }

    async fn cancel(&self, operation: &str, _: &Value) -> Result<(), ActionError> {
        Ok(std::fs::write(state(operation), "cancelled")?)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("read the disk")]
struct Unreadable(#[source] std::io::Error);

fn state(operation: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(STATE).expect("the test gives a folder")).join(operation)
}

fn operate(item: Item) -> Result<BackedUp, ActionError> {
    let operation = format!("{}.{}", item.namespace(), item.name());
    std::fs::write(state(&operation), "under way")?;
    let work = ItemReference {
        group: "example.io".to_owned(),
        resource: "works".to_owned(),
        namespace: "velero".to_owned(),
        name: operation.clone(),
    };
    Ok(BackedUp { operation: Some(operation), post_operation_items: vec![work], ..BackedUp::only(item) })
}

fn progress(operation: &str) -> Result<Progress, ActionError> {
    if operation == "panic" {
        panic!("no progress today");
    }
    let description = std::fs::read_to_string(state(operation))?; // what is not there cannot be known now
    let outcome = match description.as_str() {
        "cancelled" => Outcome::Failed("it was cancelled; start another backup".to_owned()),
        _ => Outcome::Running,
    };
    let started = Some("2026-11-21T08:00:00Z".parse()?);
    Ok(Progress { outcome, done: 7, total: 10_737_418_240, started, ..Progress::running(description) })
}

/// Every kind of value, every level, a name that is dangerous when it is no text, and a library that shouts.
fn say_everything() {
    tracing::info!(target: "velero_plugin::rehearsal", name = 7, namespace = true, resource = 1.5, nothing = ?None::<u8>, "numbers");
    tracing::warn!(target: "velero_plugin::rehearsal", level = 3, time = "now", error = &Unreadable(std::io::Error::other("no disk")) as &dyn std::error::Error, "coped");
    tracing::error!(target: "velero_plugin::rehearsal", "two\nlines");
    tracing::debug!(target: "velero_plugin::rehearsal", "quiet");
    tracing::error!(target: "kube_client::client::builder", "failed with status 503");
}

/// Many tasks that speak at once.
async fn say_much() {
    let tasks = (0..8).map(|task| {
        tokio::spawn(async move {
            for line in 0..50 {
                tracing::info!(target: "velero_plugin::rehearsal", task, line, filling = "x".repeat(6_000), "much");
                tokio::task::yield_now().await;
            }
        })
    });
    futures::future::join_all(tasks).await;
}

#[async_trait]
impl RestoreItemAction for Rehearsal {
    async fn selector(&self) -> Result<Selector, ActionError> {
        Ok(Selector::resources(["configmaps"]))
    }

    async fn execute(&self, mut item: Item, from_backup: &Item, _: &Value) -> Result<Restored, ActionError> {
        let done = match from_backup.annotation(DO).unwrap_or_default() {
            "skip" => Restored { operation: Some("app.skipped".to_owned()), ..Restored::skipped(item) },
            "wait" => {
                item.set(&["metadata", "annotations", "example.io/was"], from_backup.name())?;
                let before =
                    ItemReference { resource: "secrets".to_owned(), name: "key".to_owned(), ..Default::default() };
                let wait = WaitForItems::ReadyWithin(Duration::from_millis(90_500));
                Restored { additional_items: vec![before], wait, ..Restored::only(item) }
            }
            _ => Restored::only(item),
        };
        Ok(done)
    }

    async fn progress(&self, operation: &str, _: &Value) -> Result<Progress, ActionError> {
        progress(operation)
    }

    async fn are_additional_items_ready(&self, items: &[ItemReference], restore: &Value) -> Result<bool, ActionError> {
        Ok(items.iter().all(|i| i.name == "key") && restore["spec"]["backupName"] == "b1")
    }
}

#[async_trait]
impl DeleteItemAction for Rehearsal {
    async fn selector(&self) -> Result<Selector, ActionError> {
        Ok(Selector::resources(["configmaps"]))
    }

    async fn execute(&self, item: Item, _: &Value) -> Result<(), ActionError> {
        match item.annotation(DO) {
            Some("fail") => Err(ActionError::new("the duty could not be written down")),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl VolumeSnapshotter for Rehearsal {
    async fn init(&self, config: &HashMap<String, String>) -> Result<(), ActionError> {
        match config.get("region") {
            Some(_) => Ok(()),
            None => Err(ActionError::new("the location names no region")),
        }
    }

    async fn create_volume(&self, snapshot: &str, zone: &str, info: &VolumeInfo) -> Result<String, ActionError> {
        Ok(format!("{snapshot} {zone} {} {:?}", info.volume_type, info.iops))
    }

    async fn volume_info(&self, volume: &str, zone: &str) -> Result<VolumeInfo, ActionError> {
        Ok(VolumeInfo { volume_type: format!("{volume} {zone}"), iops: Some(100) })
    }

    async fn create_snapshot(
        &self,
        v: &str,
        zone: &str,
        tags: &HashMap<String, String>,
    ) -> Result<String, ActionError> {
        Ok(format!("{v} {zone} {}", tags["a"]))
    }

    async fn delete_snapshot(&self, snapshot: &str) -> Result<(), ActionError> {
        Err(ActionError::new(format!("snapshot {snapshot} is in use")))
    }

    async fn volume_id(&self, volume: &Item) -> Result<Option<String>, ActionError> {
        Ok(volume.tree()["spec"]["csi"]["volumeHandle"].as_str().map(str::to_owned))
    }

    async fn set_volume_id(&self, mut volume: Item, id: &str) -> Result<Item, ActionError> {
        volume.set(&["spec", "csi", "volumeHandle"], id)?;
        Ok(volume)
    }
}
