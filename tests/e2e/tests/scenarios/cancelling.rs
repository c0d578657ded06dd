//! Transfers that are cancelled in the middle: they end at once and leave nothing behind.

use anyhow::{Context as _, Result, ensure};
use api::entity::{DiskEntity, PvcSnapshotId};
use api::{ClonePhase, SnapshotPhase, Upload, UploadPhase, UploadSpec};
use e2e::{DEADLINE, Disks, World, nothing_left, wait_until};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use uuid::Uuid;

crate::scenarios![
    an_upload_cancelled_in_the_middle_leaves_nothing,
    an_upload_is_cancelled_though_its_bucket_is_gone,
    cancelling_one_upload_keeps_the_restore_point_of_another,
    a_cancelled_backup_in_local_mode_leaves_no_disk_snapshot_and_takes_no_other_ones,
    a_restore_cancelled_in_the_middle_leaves_no_volume,
    a_restore_deleted_in_the_middle_leaves_no_volume,
];

async fn an_upload_cancelled_in_the_middle_leaves_nothing(world: World) -> Result<()> {
    let shop = world.namespace("cancelup").await?;
    let claim = shop.claim("data").mib(48).create().await?;
    claim.fill_random(91)?;
    world.control().slow(claim.disk.as_str(), "Read").await?;
    let asked = shop.snapshot(&claim).await?;
    asked.copying().await?;
    asked.cancel().await?;
    world.lets_go_of(claim.disk.as_str()).await?;
    ensure!(claim.disk_snapshots().await?.is_empty(), "Canceled says that the disk snapshot is gone");
    world.restic(shop.name()).check().await?;
    nothing_left(&world, &shop, 0).await?;
    world.control().heal(claim.disk.as_str()).await?;
    shop.snapshot(&claim).await?.wait_for(SnapshotPhase::Uploaded).await?;
    nothing_left(&world, &shop, 1).await
}

async fn an_upload_is_cancelled_though_its_bucket_is_gone(world: World) -> Result<()> {
    let shop = world.namespace("cancelgone").await?;
    let claim = shop.claim("data").mib(48).create().await?;
    claim.fill_random(93)?;
    let bucket = world.bucket("cancelgone").await?;
    let repository = shop.repository_with(&[("bucket", bucket.name())]).await?;
    world.control().slow(claim.disk.as_str(), "Read").await?;
    let asked = shop.snapshot_of(&claim.name, &repository).await?;
    asked.copying().await?;
    bucket.remove()?;
    asked.cancel().await?;
    world.lets_go_of(claim.disk.as_str()).await?;
    ensure!(claim.disk_snapshots().await?.is_empty(), "the disk snapshot waits for a bucket that does not come back");
    nothing_left(&world, &shop, 0).await?;
    world.control().heal(claim.disk.as_str()).await
}

async fn cancelling_one_upload_keeps_the_restore_point_of_another(world: World) -> Result<()> {
    let shop = world.namespace("canceltwo").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(94)?;
    let snapshot = shop.snapshot(&claim).await?.wait_for(SnapshotPhase::Uploaded).await?;
    let id = snapshot.status.as_ref().and_then(|s| s.snapshot_id.as_ref()).context("a snapshot id")?;
    let spec = UploadSpec {
        snapshot_id: Some(DiskEntity::from(id.parse::<PvcSnapshotId>()?.disk_snapshot).to_string()),
        backup_repository: Some(shop.repository().to_owned()),
        source_namespace: Some(shop.name().to_owned()),
        upload_cancel: true,
        ..UploadSpec::default()
    };
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let name = format!("upload-again-{}", Uuid::new_v4());
    uploads.create(&PostParams::default(), &Upload::new(&name, spec)).await?;
    wait_until(&uploads, &name, DEADLINE, "is Canceled", |u| u.and_then(Upload::phase) == Some(&UploadPhase::Canceled))
        .await?;
    nothing_left(&world, &shop, 1).await?;
    shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await.map(drop)
}

async fn a_cancelled_backup_in_local_mode_leaves_no_disk_snapshot_and_takes_no_other_ones(world: World) -> Result<()> {
    let shop = world.namespace("cancellocal").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    let kept = shop.snapshot_of(&claim.name, "").await?;
    kept.wait_for(SnapshotPhase::Snapshotted).await?;
    let before = claim.disk_snapshots().await?;
    let asked = shop.snapshot_of(&claim.name, "").await?;
    asked.wait_for(SnapshotPhase::Snapshotted).await?;
    ensure!(claim.disk_snapshots().await?.len() == 2, "each backup has its disk snapshot");
    asked.cancel_as_the_plugin().await?;
    ensure!(claim.disk_snapshots().await? == before, "nobody else would ever delete it, nor may the other one go");
    kept.cancel_as_the_plugin().await?;
    nothing_left(&world, &shop, 0).await
}

/// How a restore is stopped.
enum Stop {
    Cancelled,
    Deleted,
}

async fn restore_stopped(world: &World, prefix: &str, mib: u64, how: Stop) -> Result<()> {
    let shop = world.namespace(prefix).await?;
    let claim = shop.claim("data").mib(mib).create().await?;
    claim.fill_random(92)?;
    let snapshot = shop.snapshot(&claim).await?.wait_for(SnapshotPhase::Uploaded).await?;
    world.control().slow(Disks::OfMib(mib), "Write").await?;
    let clone = shop.clone_as(&snapshot, "back").await?;
    let target = clone.disk().await?;
    clone.copying().await?;
    match how {
        Stop::Cancelled => clone.cancel().await?,
        Stop::Deleted => clone.api().delete(&clone.name, &DeleteParams::default()).await.map(drop)?,
    }
    world.lets_go_of(&target).await?;
    world.control().disk_goes(&target).await?;
    nothing_left(world, &shop, 1).await?;
    ensure!(shop.claims().get_opt("back").await?.is_none(), "a claim was made without its data");
    world.control().heal(Disks::OfMib(mib)).await
}

async fn a_restore_cancelled_in_the_middle_leaves_no_volume(world: World) -> Result<()> {
    restore_stopped(&world, "canceldown", 49, Stop::Cancelled).await
}

async fn a_restore_deleted_in_the_middle_leaves_no_volume(world: World) -> Result<()> {
    restore_stopped(&world, "deletedown", 50, Stop::Deleted).await
}
