//! The driver dies right after each of its steps, as if by SIGKILL, and is started again: nothing doubled, nothing leaked.

use anyhow::{Context as _, Result, ensure};
use api::{ClonePhase, DeletePhase, DeleteSnapshot, DeleteSnapshotSpec, DownloadPhase, Reason, SnapshotPhase, Upload};
use e2e::{Claim, DEADLINE, Disks, Namespace, World, asked, nothing_left, put_right, wait_until};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::ListParams;
use uuid::Uuid;

use super::back_up;
use crate::original::{self, OldBackup};

crate::scenarios![
    a_repository_claim_survives_a_driver_killed_in_the_middle,
    a_backup_survives_a_driver_killed_after_any_step,
    a_restore_survives_a_driver_killed_after_any_step,
    a_failed_restore_is_cleaned_up_by_the_next_driver,
    a_deletion_survives_a_driver_killed_after_any_step,
    a_second_driver_waits_until_the_first_one_goes,
    a_restore_that_is_being_written_holds_up_no_other_of_a_driver_that_works_on_one_at_a_time,
    a_new_disk_for_an_old_backup_survives_a_driver_killed_in_the_middle,
];

const DRIVER: &str = "backup-driver";
/// MiB of a disk whose restore is slow.
const LARGE: u64 = 55;

/// Starts the driver so that it dies after that step.
async fn doomed(world: &World, step: &str) -> Result<()> {
    world.kill(DRIVER).await?;
    world.start_process_with(DRIVER, &[("BACKUP_DRIVER_DIE_AFTER", step)]).await
}

/// Waits until the driver died of that step, and starts it as it should be.
async fn revived(world: &World, step: &str) -> Result<()> {
    let died = world.ended(DRIVER).await;
    if died.is_err() {
        world.kill(DRIVER).await?; // the next scenario needs one that lives
    }
    world.start_process(DRIVER).await?;
    died.with_context(|| format!("the driver never came to step {step}"))
}

async fn a_repository_claim_survives_a_driver_killed_in_the_middle(world: World) -> Result<()> {
    doomed(&world, "RepositoryMade").await?;
    let making = {
        let world = world.clone();
        tokio::spawn(async move { world.namespace("kill-repo").await })
    };
    revived(&world, "RepositoryMade").await?;
    let shop = making.await??;
    let claim = shop.claim("data").mib(1).create().await?;
    back_up(&shop, &claim).await?;
    let all = Api::<api::BackupRepository>::all(world.client()).list(&ListParams::default()).await?;
    let ours = all.iter().filter(|r| r.allowed_namespaces.iter().any(|n| n == shop.name())).count();
    ensure!(ours == 1, "one claim has one repository, not {ours}");
    nothing_left(&world, &shop, 1).await
}

async fn a_backup_survives_a_driver_killed_after_any_step(world: World) -> Result<()> {
    for step in ["RepositoryOpened", "SnapshotTaken", "UploadMade", "SnapshotRecorded"] {
        backup_with(&world, step).await.with_context(|| format!("killed after {step}"))?;
    }
    Ok(())
}

async fn backup_with(world: &World, step: &str) -> Result<()> {
    let shop = world.namespace("kill-backup").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(91)?;
    doomed(world, step).await?;
    let asked = shop.snapshot(&claim).await?;
    revived(world, step).await?;
    asked.wait_for(SnapshotPhase::Uploaded).await?;
    let taken = world.control().calls(claim.disk.as_str(), "VslmCreateSnapshot_Task").await?;
    ensure!(taken == 1, "{taken} disk snapshots were taken for one backup");
    let uploads = Api::<Upload>::namespaced(world.client(), world.velero()).list(&ListParams::default()).await?;
    let reference = format!("{}/{}", shop.name(), asked.name);
    let ours = uploads.iter().filter(|u| u.spec.snapshot_reference.as_deref() == Some(&reference)).count();
    ensure!(ours == 1, "{ours} Uploads for one backup");
    world.restic(shop.name()).check().await?;
    nothing_left(world, &shop, 1).await
}

async fn a_restore_survives_a_driver_killed_after_any_step(world: World) -> Result<()> {
    let shop = world.namespace("kill-restore").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(92)?;
    let snapshot = back_up(&shop, &claim).await?;
    let steps = [
        "ScratchMade",
        "DownloadMade",
        "VolumeKept",
        "ScratchDropped",
        "ClaimMade",
        "VolumePointed",
        "ClaimBound",
        "VolumeSettled",
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let name = format!("back-{number}");
        doomed(&world, step).await?;
        let clone = shop.clone_as(&snapshot, &name).await?;
        revived(&world, step).await?;
        let restored = restored(&world, &shop, &clone, &claim, &name, number + 2);
        restored.await.with_context(|| format!("killed after {step}"))?;
    }
    Ok(())
}

/// The clone completes with the claim's bytes, and there are exactly that many volumes of the namespace.
async fn restored(
    world: &World,
    shop: &Namespace,
    clone: &e2e::Clone,
    claim: &Claim,
    name: &str,
    volumes: usize,
) -> Result<()> {
    clone.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(world, shop.name(), name).await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    nothing_left(world, shop, 1).await?;
    let all = Api::<PersistentVolume>::all(world.client()).list(&ListParams::default()).await?;
    let of_shop = |v: &&PersistentVolume| {
        v.spec.as_ref().and_then(|s| s.claim_ref.as_ref()?.namespace.as_deref()) == Some(shop.name())
    };
    let ours: Vec<_> = all.iter().filter(of_shop).collect();
    ensure!(ours.len() == volumes, "{} volumes where there should be {volumes}", ours.len());
    let policy = |v: &&&PersistentVolume| {
        v.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref()) != Some("Delete")
    };
    let kept: Vec<_> = ours.iter().filter(policy).map(|v| v.name_any()).collect();
    ensure!(kept.is_empty(), "volumes that would outlive their claims: {kept:?}");
    Ok(())
}

async fn a_failed_restore_is_cleaned_up_by_the_next_driver(world: World) -> Result<()> {
    let shop = world.namespace("kill-failed").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    let snapshot = back_up(&shop, &claim).await?;
    let mut nowhere = snapshot.clone();
    nowhere.spec.backup_repository = "br-nobody".to_owned();
    for step in ["EndNoted", "Cleaned"] {
        // without anything to remove `Cleaned` is no step: this restore is cancelled when its scratch claim is there
        let asked_to_stop = step == "Cleaned";
        let clone = if asked_to_stop {
            let clone = stopped_restore(&world, &shop, &snapshot, step).await?;
            clone.wait_for(ClonePhase::Canceled).await?;
            clone
        } else {
            doomed(&world, step).await?;
            let clone = shop.clone_as(&nowhere, "back").await?;
            revived(&world, step).await?;
            let seen = clone.wait_for(ClonePhase::Failed).await.with_context(|| format!("killed after {step}"))?;
            let conditions = seen.status.map(|s| s.conditions).unwrap_or_default();
            let reason = Reason::RepositoryUnknown;
            e2e::explained(&world, shop.name(), &clone.name, &conditions, reason, &[reason.fix()]).await?;
            clone
        };
        ensure!(shop.claims().get_opt("back").await?.is_none(), "{} made a claim", clone.name);
        nothing_left(&world, &shop, 1).await.with_context(|| format!("killed after {step}"))?;
    }
    Ok(())
}

/// A restore that is cancelled while its volume is written, with a driver that dies while it removes that.
async fn stopped_restore(world: &World, shop: &Namespace, snapshot: &api::Snapshot, step: &str) -> Result<e2e::Clone> {
    for name in super::DATA_MANAGERS {
        world.kill(name).await?; // nobody writes: the restore stays in the middle
    }
    let clone = shop.clone_as(snapshot, "back").await?;
    clone.disk().await?;
    doomed(world, step).await?;
    let stop = kube::api::Patch::Merge(serde_json::json!({"spec": {"cloneCancel": true}}));
    clone.api().patch(&clone.name, &kube::api::PatchParams::default(), &stop).await?;
    let outcome = revived(world, step).await;
    for name in super::DATA_MANAGERS {
        world.start_process(name).await?;
    }
    outcome.map(|()| clone)
}

async fn a_deletion_survives_a_driver_killed_after_any_step(world: World) -> Result<()> {
    for step in ["DiskSnapshotDeleted", "PointForgotten"] {
        let shop = world.namespace("kill-delete").await?;
        let claim = shop.claim("data").mib(1).create().await?;
        let snapshot = back_up(&shop, &claim).await?;
        deleted_with(&world, &shop, &snapshot, step).await?;
    }
    let shop = world.namespace("kill-stop").await?;
    let claim = shop.claim("data").mib(46).create().await?;
    claim.fill_random(93)?;
    world.control().slow(claim.disk.as_str(), "Read").await?;
    let asked = shop.snapshot(&claim).await?;
    asked.copying().await?;
    let running = asked.api().get(&asked.name).await?;
    let deleted = deleted_with(&world, &shop, &running, "UploadCancelled").await;
    world.control().heal(claim.disk.as_str()).await?;
    deleted
}

/// Deletes a backup with a driver that dies after that step.
async fn deleted_with(world: &World, shop: &Namespace, snapshot: &api::Snapshot, step: &str) -> Result<()> {
    let id = snapshot.status.as_ref().and_then(|s| s.snapshot_id.clone()).context("an id")?;
    let spec = DeleteSnapshotSpec { snapshot_id: id, backup_repository: shop.repository().to_owned() };
    let deletions: Api<DeleteSnapshot> = Api::namespaced(world.client(), world.velero());
    doomed(world, step).await?;
    let object = DeleteSnapshot::new(&api::names::delete_snapshot(Uuid::new_v4()), spec);
    let name = asked(&deletions, &object).await?;
    revived(world, step).await?;
    wait_until(&deletions, &name, DEADLINE, "is Completed", |seen| {
        seen.and_then(|s| s.status.as_ref()?.phase.clone()) == Some(DeletePhase::Completed)
    })
    .await?;
    nothing_left(world, shop, 0).await.with_context(|| format!("killed after {step}"))?;
    world.restic(shop.name()).check().await
}

async fn a_second_driver_waits_until_the_first_one_goes(world: World) -> Result<()> {
    let shop = world.namespace("two-drivers").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    let second = world.beside(DRIVER, &[("POD_NAME", "second"), ("METRICS_ADDRESS", "127.0.0.1:0")]).await?;
    let leases: Api<Lease> = Api::namespaced(world.client(), world.velero());
    let is_second = |lease: Option<&Lease>| {
        lease.and_then(|l| l.spec.as_ref()?.holder_identity.as_deref()).is_some_and(|holder| holder == "second")
    };
    back_up(&shop, &claim).await?;
    let taken = world.control().calls(claim.disk.as_str(), "VslmCreateSnapshot_Task").await?;
    ensure!(taken == 1, "{taken} disk snapshots by two drivers");
    let held = leases.get(api::names::DRIVER_LEASE).await?;
    ensure!(!is_second(Some(&held)), "the second took over from one that was active");

    world.terminate(DRIVER).await?;
    let goes_on = async {
        wait_until(&leases, api::names::DRIVER_LEASE, DEADLINE, "is the second one's", is_second).await?;
        back_up(&shop, &claim).await
    };
    let goes_on = goes_on.await;
    drop(second);
    world.start_process(DRIVER).await?;
    goes_on?;
    nothing_left(&world, &shop, 2).await
}

/// W-19: the driver looks at one restore at a time, and need not look at one that a node writes.
async fn a_restore_that_is_being_written_holds_up_no_other_of_a_driver_that_works_on_one_at_a_time(
    world: World,
) -> Result<()> {
    let shop = world.namespace("one-worker").await?;
    let (small, large) = (shop.claim("small").mib(1).create().await?, shop.claim("large").mib(LARGE).create().await?);
    large.fill_random(98)?;
    let (of_small, of_large) = (back_up(&shop, &small).await?, back_up(&shop, &large).await?);
    let env = [("POD_NAME", "second"), ("METRICS_ADDRESS", "127.0.0.1:0")];
    let second = world.beside_with(DRIVER, &["--backup-workers", "1"], &env).await?;
    let outcome = async {
        world.terminate(DRIVER).await?; // it gives its lease to the other
        world.control().slow(Disks::OfMib(LARGE), "Write").await?;
        let written = shop.clone_as(&of_large, "large-back").await?;
        written.copying().await?;
        shop.clone_as(&of_small, "small-back").await?.wait_for(ClonePhase::Completed).await?;
        let phase = written.download().await?.phase().cloned();
        ensure!(phase == Some(DownloadPhase::InProgress), "it was over before the other one, which shows nothing");
        world.control().heal(Disks::OfMib(LARGE)).await?;
        written.wait_for(ClonePhase::Completed).await.map(drop)
    };
    let outcome = outcome.await;
    drop(second);
    let acts = [world.control().heal(Disks::OfMib(LARGE)).await, world.start_process(DRIVER).await];
    put_right(outcome, acts)?;
    nothing_left(&world, &shop, 2).await
}

/// The disk exists and nobody has written down which it is.
async fn a_new_disk_for_an_old_backup_survives_a_driver_killed_in_the_middle(world: World) -> Result<()> {
    world.nodes_name_their_machines().await?;
    let shop = world.namespace("kill-disk").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(97)?;
    let old = OldBackup::of(&world, &shop, &claim, 1 << 20).await?;
    doomed(&world, "DiskMade").await?;
    let asked = old.in_a_new_disk(&world, &shop, None).await?;
    revived(&world, "DiskMade").await?;
    let written = original::ended(&world, &asked).await?;
    let status = written.status.clone().unwrap_or_default();
    ensure!(status.phase == Some(api::DownloadPhase::Completed), "it is {status:#?}");
    let name = format!("velero-restore-{}", written.uid().unwrap_or_default());
    let disks = world.control().disks().await?;
    let all = disks.as_array().or_else(|| disks["disks"].as_array()).context("the double lists its disks")?;
    let made: Vec<&str> =
        all.iter().filter(|disk| disk["name"] == name).filter_map(|disk| disk["id"].as_str()).collect();
    let [disk] = made[..] else { anyhow::bail!("one disk, not {made:?}") };
    ensure!(status.volume_id == Some(format!("ivd:{disk}")), "another disk was written: {status:#?}");
    ensure!(e2e::digest(&original::file_of(&world, disk).await?)? == claim.digest()?, "it is different");
    original::downloads(&world).delete(&asked, &kube::api::DeleteParams::default()).await?;
    world.control().remove_disk(disk).await?;
    nothing_left(&world, &shop, 0).await
}
