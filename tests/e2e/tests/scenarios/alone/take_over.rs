//! A cluster where the original ran until a moment ago: what it has left in the middle is finished or ended, and what it has
//! ended stays as it is.

pub(super) mod restores;

use anyhow::{Context as _, Result, ensure};
use api::conditions::{self, READY};
use api::{
    ClonePhase, DeletePhase, DeleteSnapshot, DeleteSnapshotSpec, Reason, Snapshot, SnapshotPhase, Upload, UploadPhase,
};
use disk::DiskSnapshot;
use e2e::{Claim, DEADLINE, Namespace, World, asked, insist, nothing_left, wait_until};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{DATA_MANAGERS, back_up};

crate::scenarios![
    what_the_original_has_left_in_the_middle_is_finished_or_ended,
    what_the_original_cancelled_keeps_no_disk_snapshot_and_each_of_its_ends_gets_a_time,
];

const DRIVER: &str = "backup-driver";
/// Long ago, so that what waits for a time is due.
const LONG_AGO: &str = "2026-01-05T09:20:02Z";

/// What the original has left of one backup: phases of Snapshot and Upload, and how they have to end.
struct Left {
    claim: &'static str,
    snapshot: &'static str,
    upload: &'static str,
    ends: SnapshotPhase,
}

const LEFT: [Left; 5] = [
    Left { claim: "taken", snapshot: "Snapshotted", upload: "New", ends: SnapshotPhase::Uploaded },
    Left { claim: "copying", snapshot: "Uploading", upload: "InProgress", ends: SnapshotPhase::Uploaded },
    Left { claim: "waiting", snapshot: "UploadFailed", upload: "UploadError", ends: SnapshotPhase::Uploaded },
    Left { claim: "stopping", snapshot: "Canceling", upload: "Canceling", ends: SnapshotPhase::Canceled },
    // whose copy had failed before, as the original does not say (W-03); no repository has it
    Left {
        claim: "cleaning",
        snapshot: "CleanupAfterUploadFailed",
        upload: "CleanupFailed",
        ends: SnapshotPhase::UploadFailedAfterRetry,
    },
];

async fn what_the_original_has_left_in_the_middle_is_finished_or_ended(world: World) -> Result<()> {
    let shop = world.namespace("left").await?;
    let mut disks = Vec::new();
    for (number, left) in LEFT.iter().enumerate() {
        let claim = shop.claim(left.claim).mib(2).create().await?;
        claim.fill_random(600 + number as u64)?;
        disks.push(taken(&shop, &claim).await?);
    }
    let other = world.namespace("left-kept").await?;
    let kept = other.claim("kept").mib(2).create().await?;
    kept.fill_random(610)?;
    let old = back_up(&other, &kept).await?;
    let new = other.claim("new").mib(2).create().await?;
    new.fill_random(611)?;

    for process in DATA_MANAGERS.into_iter().chain([DRIVER]) {
        world.kill(process).await?;
    }
    for (left, disk) in LEFT.iter().zip(&disks) {
        left.put(&world, &shop, disk).await?;
    }
    let asked_new = other.snapshot(&new).await?;
    let failed = other.clone_as(&old, "never").await?;
    let ended = Patch::Merge(json!({"status": {"phase": "Failed", "message": "Timed out"}}));
    failed.api().patch_status(&failed.name, &PatchParams::default(), &ended).await?;
    let waiting = other.clone_as(&old, "back").await?;
    world.start_process(DRIVER).await?;
    // the original makes no restic repository; a node that comes before it is there tries again a minute later
    let repository = world.repository_folder(shop.name()).join("config");
    insist("find the repository of what is taken over", || async {
        ensure!(repository.is_file(), "there is no {}", repository.display());
        Ok(())
    })
    .await?;
    for process in DATA_MANAGERS {
        world.start_process(process).await?;
    }

    for (left, disk) in LEFT.iter().zip(&disks) {
        left.has_ended(&world, &shop, disk).await.with_context(|| format!("what was left of claim {}", left.claim))?;
    }
    asked_new.wait_for(SnapshotPhase::Uploaded).await?;
    waiting.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(&world, other.name(), "back").await?;
    ensure!(back.digest()? == kept.digest()?, "came back different");
    deleted(&world, &other, &old).await?;
    let never = failed.api().get(&failed.name).await?;
    ensure!(never.phase() == Some(&ClonePhase::Failed), "a restore that the original gave up is {:?}", never.status);
    ensure!(other.claims().get_opt("never").await?.is_none(), "a restore that the original gave up was run again");
    world.restic(shop.name()).check().await?;
    nothing_left(&world, &other, 1).await?;
    nothing_left(&world, &shop, 3).await
}

async fn what_the_original_cancelled_keeps_no_disk_snapshot_and_each_of_its_ends_gets_a_time(
    world: World,
) -> Result<()> {
    let shop = world.namespace("left-ended").await?;
    let claim = shop.claim("stopped").mib(2).create().await?;
    claim.fill_random(620)?;
    let disk = taken(&shop, &claim).await?;
    world.kill(DRIVER).await?;
    let left = Left { claim: "stopped", snapshot: "Canceled", upload: "Canceled", ends: SnapshotPhase::Canceled };
    left.put(&world, &shop, &disk).await?;
    let (id, wanted) = (disk_id(&shop, &disk), shop.claims().get(&claim.name).await?);
    let clone = shop.clone_with(&id, &wanted, shop.repository()).await?;
    let done = Patch::Merge(json!({"status": {"phase": "Completed", "message": "Download completed"}}));
    clone.api().patch_status(&clone.name, &PatchParams::default(), &done).await?;
    let deletions: Api<DeleteSnapshot> = Api::namespaced(world.client(), world.velero());
    let spec = DeleteSnapshotSpec { snapshot_id: id, backup_repository: shop.repository().to_owned() };
    let name = api::names::delete_snapshot(Uuid::new_v4());
    deletions.create(&PostParams::default(), &DeleteSnapshot::new(&name, spec)).await?;
    let failed = Patch::Merge(json!({"status": {"phase": "Failed", "message": "peinfo not found"}}));
    deletions.patch_status(&name, &PatchParams::default(), &failed).await?;
    let refused = json!({"method": "VslmDeleteSnapshot_Task", "disk": disk.disk.as_str(), "fault": "NoPermission",
        "fields": {"privilegeId": "Datastore.FileManagement"}});
    let refused = world.control().fault(&refused).await?;
    world.start_process(DRIVER).await?;

    // it ended long ago; as long as its disk snapshot is there nothing else tells of that
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let upload = api::names::upload(&disk.snapshot);
    let told = wait_until(&uploads, &upload, DEADLINE, "says why it stays", |seen| {
        let says = seen.and_then(|u| conditions::get(&u.status.as_ref()?.conditions, READY));
        says.is_some_and(|says| says.reason == Reason::VCenterPermission.as_str())
    });
    let told = told.await.map(drop);
    world.control().fault_is_over(&refused).await?;
    told?;
    wait_until(&uploads, &upload, DEADLINE, "is removed", |seen| seen.is_none()).await?;
    let kept = world.control().disk(disk.disk.as_str()).await?;
    ensure!(!kept.to_string().contains(disk.snapshot.as_str()), "it went before its disk snapshot: {kept}");

    let snapshots: Api<Snapshot> = Api::namespaced(world.client(), shop.name());
    let (of_claim, clones) = (left.name(), clone.api());
    let snapshot = wait_until(&snapshots, &of_claim, DEADLINE, "says when it ended", |seen| {
        seen.and_then(|s| s.status.as_ref()).is_some_and(|status| status.completion_timestamp.is_some())
    });
    let snapshot = snapshot.await?.context("it is there")?;
    ensure!(snapshot.phase() == Some(&left.ends), "its end is another one: {:#?}", snapshot.status);
    let restored = wait_until(&clones, &clone.name, DEADLINE, "says when it ended", |seen| {
        seen.and_then(|c| c.status.as_ref()).is_some_and(|status| status.completion_timestamp.is_some())
    });
    let restored = restored.await?.context("it is there")?;
    ensure!(restored.phase() == Some(&ClonePhase::Completed), "a good end is another one: {:#?}", restored.status);
    let deleted = wait_until(&deletions, &name, DEADLINE, "says when it ended", |seen| {
        seen.and_then(|d| d.status.as_ref()).is_some_and(|status| status.completion_timestamp.is_some())
    });
    let deleted = deleted.await?.context("it is there")?;
    ensure!(deleted.phase() == Some(&DeletePhase::Failed), "it was tried again: {:#?}", deleted.status);
    nothing_left(&world, &shop, 0).await
}

/// As the status of a Snapshot says it.
fn disk_id(shop: &Namespace, disk: &DiskSnapshot) -> String {
    let claim = "stopped".to_owned();
    api::entity::PvcSnapshotId { namespace: shop.name().to_owned(), claim, disk_snapshot: disk.clone() }.to_string()
}

/// A disk snapshot that no object owns.
async fn taken(shop: &Namespace, claim: &Claim) -> Result<DiskSnapshot> {
    let local = shop.snapshot_of(&claim.name, "").await?;
    let taken = local.wait_for(SnapshotPhase::Snapshotted).await?;
    local.api().delete(&local.name, &DeleteParams::default()).await?;
    let id = taken.status.and_then(|s| s.snapshot_id).context("an id")?;
    Ok(id.parse::<api::entity::EntityId>()?.disk_snapshot()?)
}

impl Left {
    /// Writes both objects as the original does: without a label that leads from one to the other, without anything that we add.
    async fn put(&self, world: &World, shop: &Namespace, disk: &DiskSnapshot) -> Result<()> {
        let claim = shop.claims().get(self.claim).await?;
        let id = api::entity::PvcSnapshotId {
            namespace: shop.name().to_owned(),
            claim: self.claim.to_owned(),
            disk_snapshot: disk.clone(),
        };
        let marks = json!({"velero.io/exclude-from-backup": "true"});
        let snapshots: Api<Snapshot> = Api::namespaced(world.client(), shop.name());
        let snapshot: Snapshot = serde_json::from_value(json!({
            "apiVersion": "backupdriver.cnsdp.vmware.com/v1alpha1", "kind": "Snapshot",
            "metadata": {"name": self.name(), "labels": marks},
            "spec": {
                "resourceHandle": {"apiGroup": "", "kind": "PersistentVolumeClaim", "name": self.claim},
                "backupRepository": shop.repository(),
            },
        }))?;
        snapshots.create(&PostParams::default(), &snapshot).await?;
        let status = json!({"status": {
            "phase": self.snapshot, "progress": {}, "svcSnapshotName": "", "snapshotID": id.to_string(),
            "metadata": api::metadata::Blob::of(&claim),
        }});
        snapshots.patch_status(&self.name(), &PatchParams::default(), &Patch::Merge(status)).await?;
        let begun = self.upload != "New";
        let failed = ["UploadError", "CleanupFailed"].contains(&self.upload);
        let cancelled = ["Canceling", "Canceled"].contains(&self.upload);
        let upload: Upload = serde_json::from_value(json!({
            "apiVersion": "datamover.cnsdp.vmware.com/v1alpha1", "kind": "Upload",
            "metadata": {"name": api::names::upload(&disk.snapshot), "labels": marks},
            "spec": {
                "snapshotID": format!("ivd:{disk}"), "backupTimestamp": LONG_AGO, "backupRepository": shop.repository(),
                "snapshotReference": format!("{}/{}", shop.name(), self.name()),
                "uploadCancel": cancelled,
            },
            "status": without_nulls(&json!({
                "phase": self.upload, "progress": {}, "nextRetryTimestamp": LONG_AGO,
                "startTimestamp": begun.then_some(LONG_AGO), "processingNode": begun.then_some("a-node-that-is-gone"),
                "completionTimestamp": (failed || cancelled).then_some(LONG_AGO),
                "retryCount": failed.then_some(2), "currentBackOff": failed.then_some(2),
                "message": failed.then_some("Failed to upload snapshot"),
            })),
        }))?;
        Api::<Upload>::namespaced(world.client(), world.velero()).create(&PostParams::default(), &upload).await?;
        Ok(())
    }

    fn name(&self) -> String {
        format!("snap-{}", self.claim)
    }

    async fn has_ended(&self, world: &World, shop: &Namespace, disk: &DiskSnapshot) -> Result<()> {
        let snapshots: Api<Snapshot> = Api::namespaced(world.client(), shop.name());
        let name = self.name();
        let ended = wait_until(&snapshots, &name, DEADLINE, "has ended", |seen| {
            seen.and_then(Snapshot::phase).is_some_and(SnapshotPhase::is_terminal)
        });
        let status = ended.await?.and_then(|s| s.status).context("a status")?;
        ensure!(status.phase.as_ref() == Some(&self.ends), "the Snapshot is {status:#?}");
        let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
        let upload = uploads.get(&api::names::upload(&disk.snapshot)).await?;
        ensure!(upload.phase().is_some_and(UploadPhase::is_terminal), "the Upload is {:#?}", upload.status);
        let told = upload.status.context("a status")?;
        ensure!(told.completion_timestamp.is_some(), "the original dies of an end without a time: {told:#?}");
        Ok(())
    }
}

/// Absent, not null: the definitions take no null for a number.
fn without_nulls(object: &Value) -> Value {
    let fields = object.as_object().into_iter().flatten();
    fields.filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A DeleteSnapshot as the original's plugin makes it.
async fn deleted(world: &World, shop: &Namespace, old: &Snapshot) -> Result<()> {
    let id = old.status.as_ref().and_then(|s| s.snapshot_id.clone()).context("an id")?;
    let spec = DeleteSnapshotSpec { snapshot_id: id, backup_repository: shop.repository().to_owned() };
    let deletions: Api<DeleteSnapshot> = Api::namespaced(world.client(), world.velero());
    let name = asked(&deletions, &DeleteSnapshot::new(&api::names::delete_snapshot(Uuid::new_v4()), spec)).await?;
    let done = wait_until(&deletions, &name, DEADLINE, "is Completed", |seen| {
        seen.and_then(DeleteSnapshot::phase) == Some(&DeletePhase::Completed)
    });
    done.await.map(drop)
}
