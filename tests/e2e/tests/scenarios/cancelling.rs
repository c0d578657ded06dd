//! Transfers that are cancelled in the middle: they end at once and leave nothing behind.

use anyhow::{Result, ensure};
use api::SnapshotPhase;
use e2e::{Disks, World, nothing_left};
use kube::api::DeleteParams;

crate::scenarios![
    an_upload_cancelled_in_the_middle_leaves_nothing,
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
