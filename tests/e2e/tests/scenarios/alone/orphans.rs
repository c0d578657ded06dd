//! What belongs to objects that are gone: disk snapshots and half-restored volumes go, and nothing else does.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use api::{Reason, SnapshotPhase, Upload, UploadPhase, names};
use e2e::{Claim, DEADLINE, Disks, World, nothing_left, wait_until, warned};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::back_up;

crate::scenarios![
    a_disk_snapshot_whose_backup_was_deleted_while_the_driver_was_dead_goes,
    a_deleted_restore_stops_at_once,
    a_node_that_does_not_stop_holds_up_no_other_deleted_restore,
];

const DRIVER: &str = "backup-driver";
/// The driver dies after the disk snapshot, once while the mark of it is there.
pub(super) const DIES: (&str, &str) = ("BACKUP_DRIVER_DIE_AFTER", "SnapshotTaken");
/// Pause between two looks at what is not watched.
const LOOK: Duration = Duration::from_millis(300);

pub(super) async fn restart_driver(world: &World, env: &[(&str, &str)]) -> Result<()> {
    world.kill(DRIVER).await?;
    world.start_process_with(DRIVER, env).await
}

/// Forgets that a driver has died of that step: the next one shall.
pub(super) fn may_die_again(world: &World) {
    let _ = std::fs::remove_file(world.folder().join(format!("pods/{DRIVER}/scratch/died-after-{}", DIES.1)));
}

/// Waits until `is_so`.
pub(super) async fn until<F: Future<Output = Result<bool>>>(what: &str, mut is_so: impl FnMut() -> F) -> Result<()> {
    let due = tokio::time::Instant::now() + DEADLINE;
    while !is_so().await? {
        if tokio::time::Instant::now() > due {
            bail!("waited {} s until {what}", DEADLINE.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn a_disk_snapshot_whose_backup_was_deleted_while_the_driver_was_dead_goes(world: World) -> Result<()> {
    let shop = world.namespace("orphan").await?;
    let (lost, kept, copied) = (
        shop.claim("lost").mib(2).create().await?,
        shop.claim("kept").mib(2).create().await?,
        shop.claim("copied").mib(52).create().await?,
    );
    // in local mode the disk snapshot is the backup, and outlives its Snapshot
    let local = shop.snapshot_of(&kept.name, "").await?;
    local.wait_for(SnapshotPhase::Snapshotted).await?;
    local.api().delete(&local.name, &DeleteParams::default()).await?;

    may_die_again(&world);
    restart_driver(&world, &[DIES]).await?;
    let asked = shop.snapshot(&lost).await?;
    let died = world.ended(DRIVER).await;
    may_die_again(&world);
    asked.api().delete(&asked.name, &DeleteParams::default()).await?;
    world.start_process_with(DRIVER, &[("ORPHAN_GRACE_SECONDS", "1")]).await?;
    died.context("the driver never took the disk snapshot")?;

    // an Upload that runs deletes its disk snapshot itself
    copied.fill_random(94)?;
    world.control().slow(copied.disk.as_str(), "Read").await?;
    let running = shop.snapshot(&copied).await?;
    let upload = running.upload_when_made().await?.name_any();
    running.api().delete(&running.name, &DeleteParams::default()).await?;

    until("the disk snapshot that nobody owns is gone", || async { Ok(lost.disk_snapshots().await?.is_empty()) })
        .await?;
    let volume = shop.claims().get("lost").await?.spec.and_then(|s| s.volume_name).context("a volume")?;
    let events: Api<Event> = Api::namespaced(world.client(), "default"); // where those of volumes lie
    let of_volume = ListParams::default().fields(&format!("involvedObject.name={volume}"));
    until("an event says so", || async {
        let told = events.list(&of_volume).await?;
        Ok(told.iter().any(|event| event.reason.as_deref() == Some(Reason::SnapshotSwept.as_str())))
    })
    .await?;
    ensure!(kept.disk_snapshots().await?.len() == 1, "a backup in local mode was deleted");
    world.control().heal(copied.disk.as_str()).await?;
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let ended = wait_until(&uploads, &upload, DEADLINE, "has ended", |u| {
        u.and_then(Upload::phase).is_some_and(UploadPhase::is_terminal)
    })
    .await?;
    let status = ended.and_then(|u| u.status).context("status")?;
    ensure!(status.phase == Some(UploadPhase::Completed), "its disk snapshot was taken away: {status:#?}");
    for left in kept.disk_snapshots().await? {
        let id = left.split_whitespace().next().context("an id")?;
        world.control().remove_snapshot(kept.disk.as_str(), id).await?;
    }
    restart_driver(&world, &[]).await?;
    nothing_left(&world, &shop, 1).await
}

async fn a_deleted_restore_stops_at_once(world: World) -> Result<()> {
    let shop = world.namespace("deleted").await?;
    let claim = shop.claim("data").mib(53).create().await?;
    claim.fill_random(95)?;
    let snapshot = back_up(&shop, &claim).await?;
    restart_driver(&world, &[("SWEEP_SECONDS", "86400")]).await?; // no sweep will find it
    world.control().slow(Disks::OfMib(53), "Write").await?;
    let clone = shop.clone_as(&snapshot, "back").await?;
    let target = clone.disk().await?;
    clone.copying().await?;
    clone.api().delete(&clone.name, &DeleteParams::default()).await?;
    world.lets_go_of(&target).await?;
    world.control().disk_goes(&target).await?;
    world.control().heal(Disks::OfMib(53)).await?;
    restart_driver(&world, &[]).await?;
    ensure!(shop.claims().get_opt("back").await?.is_none(), "a claim was made without its data");
    nothing_left(&world, &shop, 1).await
}

async fn a_node_that_does_not_stop_holds_up_no_other_deleted_restore(world: World) -> Result<()> {
    let shop = world.namespace("stuck").await?;
    let claim: Claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(96)?;
    let snapshot = back_up(&shop, &claim).await?;
    for name in super::DATA_MANAGERS {
        world.kill(name).await?; // nobody writes but the one that we play
    }
    restart_driver(&world, &[("SWEEP_SECONDS", "2")]).await?;
    let (stuck, other) = (shop.clone_as(&snapshot, "stuck").await?, shop.clone_as(&snapshot, "other").await?);
    let (stuck_disk, other_disk) = (stuck.disk().await?, other.disk().await?);
    let uid = stuck.api().get(&stuck.name).await?.uid().context("a uid")?;
    until("its Download is made", || async { Ok(stuck.download().await.is_ok()) }).await?;
    let leases: Api<Lease> = Api::namespaced(world.client(), world.velero());
    let name = names::download_lease(&stuck.download().await?.name_any());
    let held = json!({
        "metadata": {"name": name},
        "spec": {"holderIdentity": "node-stuck", "leaseDurationSeconds": 3600},
    });
    leases.create(&PostParams::default(), &serde_json::from_value(held)?).await?;

    stuck.api().delete(&stuck.name, &DeleteParams::default()).await?;
    until("its Download is deleted", || async { Ok(stuck.download().await.is_err()) }).await?;
    other.api().delete(&other.name, &DeleteParams::default()).await?;
    world.control().disk_goes(&other_disk).await?;
    ensure!(world.control().disk(&stuck_disk).await.is_ok(), "a disk was deleted while a node held it");
    let words = ["node-stuck", Reason::NotStopping.fix()];
    until("somebody is told of the node", || async {
        Ok(warned(&world, world.velero(), &format!("restore-{uid}"), Reason::NotStopping, &words).await.is_ok())
    })
    .await?;
    ensure!(world.control().disk(&stuck_disk).await.is_ok(), "a disk was deleted while a node held it");
    leases.delete(&name, &DeleteParams::default()).await?;
    world.control().disk_goes(&stuck_disk).await?;
    restart_driver(&world, &[]).await?;
    for name in super::DATA_MANAGERS {
        world.start_process(name).await?;
    }
    nothing_left(&world, &shop, 1).await
}
