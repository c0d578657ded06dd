//! Backups that run out of time.

use anyhow::{Result, ensure};
use api::SnapshotPhase;
use e2e::{Claim, World, nothing_left};

use super::filled;

crate::scenarios![a_backup_that_runs_out_of_time_leaves_nothing_behind];

async fn a_backup_that_runs_out_of_time_leaves_nothing_behind(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vlate").await?;
    let velero = world.velero_server();
    let name = shop.name();
    slow(&world, &claims).await?;
    velero.back_up(name, name, &["--item-operation-timeout", "10s"]).await?;
    let status = velero.backup_is(name, "PartiallyFailed").await?;
    ensure!(status.errors == 2, "an error a claim: {status:?}");
    let told = velero.describe(name).await?;
    ensure!(told.contains("wait 10 s"), "it does not say what ran out:\n{told}");
    for snapshot in world.snapshots_of(name).await? {
        snapshot.wait_for(SnapshotPhase::Canceled).await?;
    }
    nothing_left(&world, &shop, 0).await?;
    heal(&world, &claims).await?;
    velero.delete(name).await?;
    velero.is_gone(name).await?;
    nothing_left(&world, &shop, 0).await
}

pub(super) async fn slow(world: &World, claims: &[Claim]) -> Result<()> {
    for claim in claims {
        world.control().slow(claim.disk.as_str(), "Read").await?;
    }
    Ok(())
}

pub(super) async fn heal(world: &World, claims: &[Claim]) -> Result<()> {
    for claim in claims {
        world.control().heal(claim.disk.as_str()).await?;
    }
    Ok(())
}
