//! Transfers that are disturbed in the middle: a slow disk, and a wait until the copy has begun.

use anyhow::{Context as _, Result, bail};
use api::{ClonePhase, Download, DownloadPhase, SnapshotPhase, Upload, UploadPhase};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::{Clone, Control, DEADLINE, DiskFault, Disks, Snapshot, wait_until};

impl Control {
    /// Makes calls of `function` on these disks take so long that a scenario can strike in the middle of a transfer.
    ///
    /// # Errors
    /// When the double does not answer.
    pub async fn slow(&self, disks: impl Into<Disks>, function: &'static str) -> Result<()> {
        self.disk_fault(&DiskFault { delay_ms: 1500, ..DiskFault::new(disks, function, "slow") }).await
    }
}

impl Snapshot {
    /// Its Upload, as soon as there is one.
    ///
    /// # Errors
    /// When none is made in time.
    pub async fn upload_when_made(&self) -> Result<Upload> {
        let seen = wait_until(&self.api(), &self.name, DEADLINE, "has an Upload", |seen| {
            let status = seen.and_then(|s| s.status.as_ref());
            status.is_some_and(|s| s.snapshot_id.is_some() || s.phase.as_ref().is_some_and(SnapshotPhase::is_terminal))
        })
        .await?;
        self.upload().await.with_context(|| format!("the Snapshot is {:#?}", seen.and_then(|s| s.status)))
    }

    /// Waits until a node is in the middle of the upload; returns the process of that node.
    ///
    /// # Errors
    /// When the upload does not begin in time, or is over before it can be disturbed.
    pub async fn copying(&self) -> Result<String> {
        let name = self.upload_when_made().await?.name_any();
        let seen = wait_until(&self.uploads(), &name, DEADLINE, "has begun", |u| {
            let status = u.and_then(|u| u.status.as_ref());
            let begun = status.is_some_and(|s| s.phase == Some(UploadPhase::InProgress) && s.progress.total_bytes > 0);
            begun || u.and_then(Upload::phase).is_some_and(UploadPhase::is_terminal)
        })
        .await?;
        let status = seen.and_then(|u| u.status).context("status")?;
        if status.phase != Some(UploadPhase::InProgress) {
            bail!("the upload was over before it could be disturbed: {status:#?}");
        }
        Ok(format!("data-manager-{}", status.processing_node.context("a node")?))
    }

    /// Waits until so many bytes of the disk are said to be done; returns how many are.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn copied(&self, bytes: u64) -> Result<u64> {
        let name = self.upload_when_made().await?.name_any();
        let done =
            |u: Option<&Upload>| u.and_then(|u| u.status.as_ref()).map_or(0, |status| status.progress.bytes_done);
        let seen = wait_until(&self.uploads(), &name, DEADLINE, "has come so far", |u| done(u) >= bytes).await?;
        Ok(done(seen.as_ref()))
    }

    /// Lets the back-off of its Upload be over: what is tried again is tried now.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn back_off_is_over(&self) -> Result<()> {
        let name = self.upload().await?.name_any();
        let due = Patch::Merge(json!({"status": {"nextRetryTimestamp": "2026-01-01T00:00:00Z"}}));
        self.uploads().patch(&name, &PatchParams::default(), &due).await?; // its status is a part of the object
        Ok(())
    }

    /// Cancels it as Velero's plugin does, and waits until it says so.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn cancel_as_the_plugin(&self) -> Result<()> {
        let stop = Patch::Merge(json!({"spec": {"snapshotCancel": true}}));
        self.api().patch(&self.name, &PatchParams::default(), &stop).await?;
        self.wait_for(SnapshotPhase::Canceled).await.map(drop)
    }

    /// Asks the Upload to stop and waits until both objects say so.
    ///
    /// # Errors
    /// When one of them does not in time.
    pub async fn cancel(&self) -> Result<()> {
        let name = self.upload().await?.name_any();
        let stop = Patch::Merge(json!({"spec": {"uploadCancel": true}}));
        self.uploads().patch(&name, &PatchParams::default(), &stop).await?;
        wait_until(&self.uploads(), &name, DEADLINE, "is Canceled", |u| {
            u.and_then(Upload::phase) == Some(&UploadPhase::Canceled)
        })
        .await?;
        self.wait_for(SnapshotPhase::Canceled).await.map(drop)
    }
}

impl Clone {
    /// Asks it to stop and waits until it says so.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn cancel(&self) -> Result<()> {
        let stop = Patch::Merge(json!({"spec": {"cloneCancel": true}}));
        self.api().patch(&self.name, &PatchParams::default(), &stop).await?;
        self.wait_for(ClonePhase::Canceled).await.map(drop)
    }

    /// Waits until a node is in the middle of writing; returns the process of that node.
    ///
    /// # Errors
    /// When the restore does not begin in time, or is over before it can be disturbed.
    pub async fn copying(&self) -> Result<String> {
        wait_until(&self.api(), &self.name, DEADLINE, "is being written", |seen| {
            let status = seen.and_then(|c| c.status.as_ref());
            let ready = status.and_then(|s| api::conditions::get(&s.conditions, api::conditions::READY));
            let begun = ready.is_some_and(|c| c.reason == "Downloading");
            begun || seen.and_then(api::CloneFromSnapshot::phase).is_some_and(ClonePhase::is_terminal)
        })
        .await?;
        let name = self.download().await?.name_any();
        let downloads: Api<Download> = self.downloads();
        let seen = wait_until(&downloads, &name, DEADLINE, "has begun", |d| {
            let status = d.and_then(|d| d.status.as_ref());
            let begun =
                status.is_some_and(|s| s.phase == Some(DownloadPhase::InProgress) && s.progress.total_bytes > 0);
            begun || d.and_then(Download::phase).is_some_and(DownloadPhase::is_terminal)
        })
        .await?;
        let status = seen.and_then(|d| d.status).context("status")?;
        if status.phase != Some(DownloadPhase::InProgress) {
            bail!("the restore was over before it could be disturbed: {status:#?}");
        }
        Ok(format!("data-manager-{}", status.processing_node.context("a node")?))
    }

    /// Waits until part of it is on the volume for good; returns the process of the node that writes.
    ///
    /// # Errors
    /// When that does not come in time, or the restore is over before it can be disturbed.
    pub async fn checkpointed(&self) -> Result<String> {
        let process = self.copying().await?;
        let name = self.download().await?.name_any();
        let downloads = self.downloads();
        let seen = wait_until(&downloads, &name, DEADLINE, "has a checkpoint", |download| {
            download.is_some_and(|d| written_for_good(d) > 0)
                || download.and_then(Download::phase).is_some_and(DownloadPhase::is_terminal)
        });
        match seen.await? {
            Some(download) if written_for_good(&download) > 0 => Ok(process),
            seen => bail!("the restore was over before it could be disturbed: {:#?}", seen.and_then(|d| d.status)),
        }
    }
}

/// Bytes that the checkpoint of a Download names.
pub fn written_for_good(download: &Download) -> u64 {
    let Some(checkpoint) = download.status.as_ref().and_then(|s| s.checkpoint.as_ref()) else { return 0 };
    let beyond =
        checkpoint.beyond.chars().filter_map(|digit| digit.to_digit(16)).map(|bits| u64::from(bits.count_ones()));
    checkpoint.up_to + beyond.sum::<u64>() * checkpoint.chunk_size
}
