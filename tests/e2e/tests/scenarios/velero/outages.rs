//! Backups during which a program goes away that the others need.

use std::time::Duration;

use anyhow::{Result, ensure};
use api::SnapshotPhase;
use e2e::{Claim, Namespace, VELERO_DEADLINE, Velero, World, nothing_left, wait_until};

use super::backup_late::{heal, slow};
use super::{digests, filled, lose, same};

crate::scenarios![
    a_backup_completes_although_velero_was_killed_while_it_waited,
    a_plugin_killed_in_the_middle_costs_no_later_claim,
    a_backup_completes_although_the_api_server_was_away,
    a_backup_completes_although_the_driver_was_away,
];

/// Longer than the driver's lease (15 s) and than a request of the plugin may take (10 s to connect, 20 s in all), so
/// that each of them gives up at least once. A longer spell meets no other deadline below the minute of a transfer's
/// lease, which `an_upload_is_taken_over_from_a_dead_node` crosses.
const AWAY: Duration = Duration::from_secs(25);

async fn a_backup_completes_although_velero_was_killed_while_it_waited(world: World) -> Result<()> {
    let (shop, claims) = begun(&world, "vkilled").await?;
    let velero = world.velero_server();
    world.kill("velero").await?;
    heal(&world, &claims).await?;
    world.start_process("velero").await?;
    comes_back(&world, &velero, &shop, &claims, 2).await
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
async fn comes_back(world: &World, velero: &Velero, shop: &Namespace, claims: &[Claim], points: usize) -> Result<()> {
    let name = shop.name();
    let before = digests(claims)?;
    velero.backup_is(name, "Completed").await?;
    nothing_left(world, shop, points).await?;
    lose(claims).await?;
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    same(world, name, &before).await?;
    nothing_left(world, shop, points).await
}

async fn a_backup_completes_although_the_api_server_was_away(world: World) -> Result<()> {
    let (shop, claims) = begun(&world, "vnoapi").await?;
    world.kill("kube-apiserver").await?;
    tokio::time::sleep(AWAY).await; // how long it is away, not a wait for anything
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
    comes_back(&world, &world.velero_server(), &shop, &claims, 2).await
}

async fn a_backup_completes_although_the_driver_was_away(world: World) -> Result<()> {
    let (shop, claims) = backed_up_once(&world, "vnodriver").await?;
    let velero = world.velero_server();
    world.kill("backup-driver").await?;
    velero.back_up(shop.name(), shop.name(), &[]).await?;
    let made = world.snapshots_when_made(shop.name(), 1).await;
    tokio::time::sleep(AWAY).await; // how long it is away, not a wait for anything
    world.start_process("backup-driver").await?;
    made?;
    comes_back(&world, &velero, &shop, &claims, 4).await
}

/// A claim whose call was cut off is not in the backup, and the log says so; so may be the next one, when Velero has not
/// noticed yet that the plugin ended. Then it starts the plugin anew. Disk snapshots that were asked for are uploaded all the
/// same, those of a lost claim by a Snapshot that nobody asks about any more.
async fn a_plugin_killed_in_the_middle_costs_no_later_claim(world: World) -> Result<()> {
    let (shop, claims) = backed_up_once(&world, "vnoplugin").await?;
    let last = shop.claim("data-9").mib(2).create().await?;
    last.fill_random(251)?;
    let before = digests(std::slice::from_ref(&last))?;
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
    let errors: Vec<_> = log.lines().filter(|line| line.contains("level=error")).collect();
    let lost = |claim: &&Claim| errors.iter().any(|line| line.contains(&format!("name={})", claim.name)));
    ensure!(claims.iter().any(|claim| lost(&claim)) && !lost(&&last), "the log names what is not in it: {errors:#?}");
    let asked = world.snapshots_of(name).await?;
    for snapshot in &asked {
        snapshot.wait_for(SnapshotPhase::Uploaded).await?;
    }
    last.delete().await?;
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    same(&world, name, &before).await?;
    nothing_left(&world, &shop, 2 + asked.len()).await
}

/// A namespace with two claims and a backup of them, so that it has its repository: making that needs the driver.
async fn backed_up_once(world: &World, prefix: &str) -> Result<(Namespace, [Claim; 2])> {
    let (shop, claims) = filled(world, prefix).await?;
    let (velero, first) = (world.velero_server(), format!("{}-first", shop.name()));
    velero.back_up(&first, shop.name(), &[]).await?;
    velero.backup_is(&first, "Completed").await?;
    Ok((shop, claims))
}
