//! Backups during which a program goes away that the others need.

use std::time::Duration;

use anyhow::{Result, ensure};
use api::SnapshotPhase;
use e2e::{Claim, Namespace, VELERO_DEADLINE, World, nothing_left, wait_until};

use super::backup_late::{heal, slow};
use super::{digests, filled, lose, same};

crate::scenarios![
    a_backup_completes_although_velero_was_killed_while_it_waited,
    a_plugin_killed_in_the_middle_loses_no_claim_in_silence_and_no_later_backup,
    a_backup_completes_although_the_api_server_was_away,
    a_backup_completes_although_the_driver_was_away,
];

/// How long the API server is away: longer than the driver's lease (15 s) and than a request of the plugin may take (10 s to
/// connect, 20 s in all), so that each of them gives up at least once.
const API_AWAY: Duration = Duration::from_secs(30);
/// How long the driver is away.
const DRIVER_AWAY: Duration = Duration::from_secs(60);

async fn a_backup_completes_although_velero_was_killed_while_it_waited(world: World) -> Result<()> {
    let (shop, claims) = begun(&world, "vkilled").await?;
    world.kill("velero").await?;
    heal(&world, &claims).await?;
    world.start_process("velero").await?;
    comes_back(&world, &shop, &claims, 2).await
}

/// A backup whose disks are so slow that it waits for them.
async fn begun(world: &World, prefix: &str) -> Result<(Namespace, [Claim; 2])> {
    let (shop, claims) = filled(world, prefix).await?;
    let velero = world.velero_server();
    slow(world, &claims).await?;
    velero.back_up(shop.name(), shop.name(), &[]).await?;
    velero.backup_is(shop.name(), "WaitingForPluginOperations").await?;
    Ok((shop, claims))
}

/// The backup completes, and its claims come back.
async fn comes_back(world: &World, shop: &Namespace, claims: &[Claim], points: usize) -> Result<()> {
    comes_back_from(world, shop.name(), shop, claims, points).await
}

/// As [`comes_back`], from a backup by name.
async fn comes_back_from(world: &World, backup: &str, shop: &Namespace, claims: &[Claim], points: usize) -> Result<()> {
    let before = digests(claims)?;
    let velero = world.velero_server();
    velero.backup_is(backup, "Completed").await?;
    nothing_left(world, shop, points).await?;
    lose(claims).await?;
    velero.restore(backup, backup, &[]).await?;
    velero.restore_is(backup, "Completed").await?;
    same(world, shop.name(), &before).await?;
    nothing_left(world, shop, points).await
}

async fn a_backup_completes_although_the_api_server_was_away(world: World) -> Result<()> {
    let (shop, claims) = begun(&world, "vnoapi").await?;
    world.kill("kube-apiserver").await?;
    tokio::time::sleep(API_AWAY).await; // how long it is away, not a wait for anything
    world.start_process("kube-apiserver").await?;
    // what a kubelet would do for a driver that has lost its lease, and for whatever else has ended
    for process in [
        "kube-controller-manager",
        "kube-scheduler",
        "backup-driver",
        "data-manager-node-a",
        "data-manager-node-b",
        "velero",
    ] {
        world.start_process(process).await?;
    }
    heal(&world, &claims).await?;
    comes_back(&world, &shop, &claims, 2).await
}

async fn a_backup_completes_although_the_driver_was_away(world: World) -> Result<()> {
    let (shop, claims) = backed_up_once(&world, "vnodriver").await?;
    let velero = world.velero_server();
    world.kill("backup-driver").await?;
    velero.back_up(shop.name(), shop.name(), &[]).await?;
    let made = world.snapshots_when_made(shop.name(), 1).await;
    tokio::time::sleep(DRIVER_AWAY).await; // how long it is away, not a wait for anything
    world.start_process("backup-driver").await?;
    made?;
    comes_back(&world, &shop, &claims, 4).await
}

/// A claim whose call was cut off is not in the backup, nor are those that come before Velero notices that the plugin has
/// ended: up to it, and each is named. Then it starts the plugin anew. Disk snapshots that were asked for are uploaded all
/// the same, those of a lost claim by a Snapshot that nobody asks about any more.
async fn a_plugin_killed_in_the_middle_loses_no_claim_in_silence_and_no_later_backup(world: World) -> Result<()> {
    let (shop, claims) = backed_up_once(&world, "vnoplugin").await?;
    let velero = world.velero_server();
    let name = shop.name();
    world.kill("backup-driver").await?; // so that the plugin waits for its disk snapshot
    velero.back_up(name, name, &[]).await?;
    let killed = async {
        world.snapshots_when_made(name, 1).await?;
        world.kill_plugin().await
    };
    let killed = killed.await;
    world.start_process("backup-driver").await?;
    killed?;
    let backups = velero.backups();
    let ended = wait_until(&backups, name, VELERO_DEADLINE, "has ended", |b| {
        b.and_then(|b| b.status.as_ref()).is_some_and(|s| s.phase == "PartiallyFailed" || s.phase == "Completed")
    });
    let status = ended.await?.and_then(|b| b.status).unwrap_or_default();
    ensure!(status.phase == "PartiallyFailed", "it is {status:?}");
    let log = velero.log(name).await?;
    let is_named = |claim: &&Claim| {
        let of_claim = format!("name={}", claim.name);
        log.lines().any(|line| line.contains("Error backing up item") && line.trim_end().ends_with(&of_claim))
    };
    let lost = claims.iter().filter(is_named).count();
    let asked = world.snapshots_of(name).await?;
    for snapshot in &asked {
        snapshot.wait_for(SnapshotPhase::Uploaded).await?;
    }
    // the claim that was being asked for when the plugin was killed has a Snapshot, and is lost all the same
    ensure!((1..=2).contains(&lost) && asked.len() > 2 - lost, "{lost} are lost, {} Snapshots:\n{log}", asked.len());

    let later = format!("{name}-later");
    velero.back_up(&later, name, &[]).await?;
    comes_back_from(&world, &later, &shop, &claims, 4 + asked.len()).await
}

/// A namespace with two claims and a backup of them, so that it has its repository: making that needs the driver.
async fn backed_up_once(world: &World, prefix: &str) -> Result<(Namespace, [Claim; 2])> {
    let (shop, claims) = filled(world, prefix).await?;
    let (velero, first) = (world.velero_server(), format!("{}-first", shop.name()));
    velero.back_up(&first, shop.name(), &[]).await?;
    velero.backup_is(&first, "Completed").await?;
    Ok((shop, claims))
}
