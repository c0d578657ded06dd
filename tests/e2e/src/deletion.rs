//! Backups that are deleted through Velero, their logs, and the settings that a scenario changes for a while.

use anyhow::{Context as _, Result, bail};
use api::{BackupRepository, DeletePhase, DeleteSnapshot, labels};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::velero::Velero;
use crate::world::LOOK;
use crate::{DEADLINE, VELERO_DEADLINE, World, wait_until};

impl Velero {
    /// What `velero backup logs` prints: the lines of our plugin are among them.
    ///
    /// # Errors
    /// When the backup has no log yet.
    pub async fn log(&self, backup: &str) -> Result<String> {
        self.run(&["backup", "logs", backup]).await
    }

    /// `velero backup delete`; returns when it is asked for.
    ///
    /// # Errors
    /// When Velero refuses.
    pub async fn delete(&self, backup: &str) -> Result<()> {
        self.run(&["backup", "delete", backup, "--confirm"]).await.map(drop)
    }

    /// Waits until a backup is gone.
    ///
    /// # Errors
    /// When it is there at the deadline; the message says what Velero answered.
    pub async fn is_gone(&self, backup: &str) -> Result<()> {
        match wait_until(&self.backups(), backup, VELERO_DEADLINE, "is gone", |b| b.is_none()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(self.answers_to_deletions(backup).await?)),
        }
    }

    /// What became of the requests to delete a backup that are still there: Velero keeps those that it refused.
    async fn answers_to_deletions(&self, backup: &str) -> Result<String> {
        let requests = self.of_kind("DeleteBackupRequest");
        let all = requests.list(&ListParams::default()).await?;
        let of_backup = all.items.iter().filter(|request| request.data["spec"]["backupName"] == backup);
        let told: Vec<String> = of_backup.map(|request| request.data["status"].to_string()).collect();
        Ok(format!("Velero's answers to the requests to delete {backup}: {told:?}"))
    }
}

impl World {
    /// The DeleteSnapshots of a backup, deleted by now or not.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn deletions_of(&self, backup: &str) -> Result<Vec<DeleteSnapshot>> {
        let deletions: Api<DeleteSnapshot> = Api::namespaced(self.client(), self.velero());
        let of_backup = format!("{}={}", labels::BACKUP_NAME, labels::backup_name(backup));
        Ok(deletions.list(&ListParams::default().labels(&of_backup)).await?.items)
    }

    /// Waits until there are that many DeleteSnapshots of a backup and `is_so` holds for each.
    ///
    /// # Errors
    /// When that does not come in time; the message shows them.
    pub async fn deletions_are(
        &self,
        backup: &str,
        count: usize,
        what: &str,
        is_so: impl Fn(&DeleteSnapshot) -> bool,
    ) -> Result<Vec<DeleteSnapshot>> {
        let due = tokio::time::Instant::now() + DEADLINE;
        loop {
            let all = self.deletions_of(backup).await?;
            if all.len() == count && all.iter().all(&is_so) {
                return Ok(all);
            }
            if tokio::time::Instant::now() > due {
                bail!("{count} DeleteSnapshots of {backup} should be {what}; they are {all:#?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the DeleteSnapshots of a backup are all done.
    ///
    /// # Errors
    /// As [`World::deletions_are`].
    pub async fn deletions_complete(&self, backup: &str, count: usize) -> Result<Vec<DeleteSnapshot>> {
        self.deletions_are(backup, count, "Completed", |d| d.phase() == Some(&DeletePhase::Completed)).await
    }

    /// Asks for a maintenance run of a BackupRepository, and waits until it has ended.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn maintain(&self, repository: &str, word: &str) -> Result<()> {
        let repositories: Api<BackupRepository> = Api::all(self.client());
        let asked = Patch::Merge(json!({"metadata": {"annotations": {labels::MAINTAIN: word}}}));
        repositories.patch(repository, &PatchParams::default(), &asked).await?;
        let done = wait_until(&repositories, repository, DEADLINE, "was maintained", |r| {
            r.is_some_and(|r| r.metadata.annotations.as_ref().is_none_or(|a| !a.contains_key(labels::MAINTAIN)))
        });
        done.await.map(drop)
    }

    /// Writes keys of a ConfigMap with settings in the Velero namespace; `null` takes one away. The ConfigMap is made
    /// when it is not there.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn set(&self, map: &str, keys: &Value) -> Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client(), self.velero());
        if maps.get_opt(map).await?.is_none() {
            let empty = serde_json::from_value(json!({"metadata": {"name": map}}))?;
            match maps.create(&kube::api::PostParams::default(), &empty).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {} // another scenario was faster
                made => drop(made?),
            }
        }
        let patch = Patch::Merge(json!({ "data": keys }));
        maps.patch(map, &PatchParams::default(), &patch).await.map(drop).context("write settings")
    }

    /// Waits until Velero can use its storage locations: it looks once a minute, and takes no backup until then.
    ///
    /// # Errors
    /// When one stays unavailable.
    pub async fn locations_are_available(&self) -> Result<()> {
        let locations = self.velero_server().of_kind("BackupStorageLocation");
        let due = tokio::time::Instant::now() + DEADLINE;
        loop {
            let all = locations.list(&ListParams::default()).await?.items;
            if all.iter().all(|location| location.data["status"]["phase"] == "Available") {
                return Ok(());
            }
            if tokio::time::Instant::now() > due {
                bail!("a storage location of Velero is not available: {all:#?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
