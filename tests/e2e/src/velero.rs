//! Velero's command line and its objects, as a user meets them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, CustomResource};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{World, wait_until};

/// How long a backup or restore of a few small disks may take on a busy machine.
pub const VELERO_DEADLINE: Duration = Duration::from_secs(300);

/// The spec of a Backup, as it is.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug)]
#[kube(group = "velero.io", version = "v1", kind = "Backup", namespaced, status = "Status", schema = "disabled")]
pub struct BackupSpec {
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The spec of a Restore, as it is.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug)]
#[kube(group = "velero.io", version = "v1", kind = "Restore", namespaced, status = "Status", schema = "disabled")]
pub struct RestoreSpec {
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The part of a status that scenarios look at.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Such as `WaitingForPluginOperations`.
    pub phase: String,
    /// Errors counted so far.
    pub errors: u64,
    /// Warnings counted so far.
    pub warnings: u64,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Status {
    /// Whether nothing follows any more.
    pub fn has_ended(&self) -> bool {
        has_ended(&self.phase)
    }

    /// Why it failed as a whole, where it did; what fails in part is in the log.
    pub fn reasons(&self) -> Vec<String> {
        let texts = |value: &Value| value.as_str().map(str::to_owned);
        let of_validation = self.rest.get("validationErrors").and_then(Value::as_array).into_iter().flatten();
        let all = self.rest.get("failureReason").into_iter().chain(of_validation).filter_map(texts);
        all.filter(|reason| !reason.is_empty()).collect()
    }
}

/// Whether nothing follows any more.
fn has_ended(phase: &str) -> bool {
    ["Completed", "PartiallyFailed", "Failed", "FailedValidation"].contains(&phase)
}

/// Velero in a lab.
#[derive(Clone)]
pub struct Velero {
    world: World,
}

impl World {
    /// Velero's command line and objects.
    pub fn velero_server(&self) -> Velero {
        Velero { world: self.clone() }
    }
}

impl Velero {
    /// Runs `velero` with these words.
    ///
    /// # Errors
    /// When it ends with another code than 0.
    pub async fn run(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", self.world.velero()];
        all.extend(words);
        self.world.run("velero", &all).await
    }

    /// All Backups.
    pub fn backups(&self) -> Api<Backup> {
        Api::namespaced(self.world.client(), self.world.velero())
    }

    /// All Restores.
    pub fn restores(&self) -> Api<Restore> {
        Api::namespaced(self.world.client(), self.world.velero())
    }

    /// `velero backup create NAME --include-namespaces NAMESPACE …`.
    ///
    /// # Errors
    /// When Velero refuses.
    pub async fn back_up(&self, name: &str, namespace: &str, more: &[&str]) -> Result<()> {
        let mut words = vec!["backup", "create", name, "--include-namespaces", namespace];
        words.extend(more);
        self.run(&words).await.map(drop)
    }

    /// Waits until a Backup is in that phase; another end is an error with everything that Velero knows about it.
    ///
    /// # Errors
    /// When it ends otherwise, or not in time.
    pub async fn backup_is(&self, name: &str, phase: &str) -> Result<Status> {
        let seen = wait_until(&self.backups(), name, VELERO_DEADLINE, &format!("is {phase}"), |b| {
            b.and_then(|b| b.status.as_ref()).is_some_and(|s| s.phase == phase || has_ended(&s.phase))
        })
        .await?;
        let status = seen.and_then(|b| b.status).context("a Backup with a status")?;
        if status.phase != phase {
            let told = self.run(&["backup", "describe", name, "--details"]).await?;
            let log = self.run(&["backup", "logs", name]).await.unwrap_or_default();
            let log: Vec<&str> =
                log.lines().filter(|l| l.contains("level=error") || l.contains("level=warn")).collect();
            ensure!(false, "backup {name} should be {phase}; it is\n{told}\n{}", log.join("\n"));
        }
        Ok(status)
    }

    /// `velero restore create NAME --from-backup BACKUP …`.
    ///
    /// # Errors
    /// When Velero refuses.
    pub async fn restore(&self, name: &str, backup: &str, more: &[&str]) -> Result<()> {
        let mut words = vec!["restore", "create", name, "--from-backup", backup];
        words.extend(more);
        self.run(&words).await.map(drop)
    }

    /// Waits until a Restore is in that phase; another end is an error with everything that Velero knows about it.
    ///
    /// # Errors
    /// When it ends otherwise, or not in time.
    pub async fn restore_is(&self, name: &str, phase: &str) -> Result<Status> {
        let seen = wait_until(&self.restores(), name, VELERO_DEADLINE, &format!("is {phase}"), |r| {
            r.and_then(|r| r.status.as_ref()).is_some_and(|s| s.phase == phase || has_ended(&s.phase))
        })
        .await?;
        let status = seen.and_then(|r| r.status).context("a Restore with a status")?;
        if status.phase != phase {
            let told = self.run(&["restore", "describe", name, "--details"]).await?;
            ensure!(false, "restore {name} should be {phase}; it is\n{told}");
        }
        Ok(status)
    }

    /// What `velero backup describe NAME --details` prints.
    ///
    /// # Errors
    /// When there is no such backup.
    pub async fn describe(&self, name: &str) -> Result<String> {
        self.run(&["backup", "describe", name, "--details"]).await
    }

    /// What `velero restore describe NAME --details` prints.
    ///
    /// # Errors
    /// When there is no such restore.
    pub async fn describe_restore(&self, name: &str) -> Result<String> {
        self.run(&["restore", "describe", name, "--details"]).await
    }

    /// A ConfigMap in Velero's namespace, as settings of backups and restores are given.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn config_map(&self, name: &str, labels: &[(&str, &str)], data: &[(&str, &str)]) -> Result<()> {
        let map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels.iter().copied().collect::<BTreeMap<_, _>>()},
            "data": data.iter().copied().collect::<BTreeMap<_, _>>(),
        }))?;
        self.config_maps().create(&PostParams::default(), &map).await?;
        Ok(())
    }

    /// The objects of another kind of Velero.
    pub(crate) fn of_kind(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("velero.io", "v1", kind));
        Api::namespaced_with(self.world.client(), self.world.velero(), &resource)
    }

    /// The ConfigMaps in Velero's namespace.
    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.world.client(), self.world.velero())
    }
}

/// The counts of every `Progress: N of M complete (Bytes)` in what `describe --details` prints.
pub fn bytes_done_and_total(told: &str) -> Vec<(u64, u64)> {
    let counts = told.lines().filter_map(|line| {
        let (done, rest) = line.trim().strip_prefix("Progress:")?.trim().split_once(" of ")?;
        Some((done.parse().ok()?, rest.split(' ').next()?.parse().ok()?))
    });
    counts.collect()
}
