//! Operations that run out of time, or that Velero cancels.

use anyhow::{Result, ensure};
use api::{ClonePhase, Reason, SnapshotPhase};
use e2e::{Claim, Disks, World, nothing_left};

use super::filled;

crate::scenarios![a_backup_that_runs_out_of_time_leaves_nothing_behind, what_velero_cancels_stops_and_leaves_nothing,];

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

/// Velero calls `Cancel` for what is too late only, and we have ended that ourselves by then (V-10); so a host on its plugin
/// library calls it, on the shipped plugin.
async fn what_velero_cancels_stops_and_leaves_nothing(world: World) -> Result<()> {
    const MIB: u64 = 43;
    let host = world.plugin_host().await?;
    let shop = world.namespace("vcancel").await?;
    let claim = shop.claim("data").mib(MIB).create().await?;
    claim.fill_random(111)?;
    let claims = [claim];
    let velero = world.velero_server();
    let (name, target) = (shop.name(), format!("{}-copy", shop.name()));
    slow(&world, &claims).await?;
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "WaitingForPluginOperations").await?;
    for snapshot in world.snapshots_of(name).await? {
        let operation = format!("{name}.{}", snapshot.name);
        let question = ["velero.io/vsphere-pvc-backupper", &operation, "{}"];
        world.call_plugin(&host, "/v2.BackupItemAction/Cancel", &question).await?;
        snapshot.wait_for(SnapshotPhase::Canceled).await?;
        world.call_plugin(&host, "/v2.BackupItemAction/Cancel", &question).await?; // what has stopped can be stopped
    }
    heal(&world, &claims).await?;
    velero.backup_is(name, "PartiallyFailed").await?;
    let told = velero.describe(name).await?;
    ensure!(told.contains(Reason::Canceled.as_str()), "it does not say that it was cancelled:\n{told}");
    nothing_left(&world, &shop, 0).await?;

    let second = format!("{name}-second");
    velero.back_up(&second, name, &[]).await?;
    velero.backup_is(&second, "Completed").await?;
    world.control().slow(Disks::OfMib(MIB), "Write").await?;
    velero.restore(&target, &second, &["--namespace-mappings", &format!("{name}:{target}")]).await?;
    let copy = world.known_namespace(&target);
    let clone = copy.clone_of("data").await?;
    let disk = clone.disk().await?;
    let operation = format!("{target}.{}", clone.name);
    let question = ["velero.io/vsphere-pvc-restorer", &operation, "{}"];
    world.call_plugin(&host, "/v2.RestoreItemAction/Cancel", &question).await?;
    clone.wait_for(ClonePhase::Canceled).await?;
    world.control().heal(Disks::OfMib(MIB)).await?;
    velero.restore_is(&target, "PartiallyFailed").await?;
    let told = velero.describe_restore(&target).await?;
    ensure!(told.contains(Reason::Canceled.as_str()), "it does not say that it was cancelled:\n{told}");
    world.control().disk_goes(&disk).await?;
    let volume = copy.claims().get("data").await?.spec.and_then(|spec| spec.volume_name);
    ensure!(volume.is_none(), "the claim was given volume {volume:?}, whose data is not all there");
    nothing_left(&world, &copy, 0).await?;
    nothing_left(&world, &shop, 1).await
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
