//! Backups and restores during which a program goes away that the others need.

use std::time::Duration;

use anyhow::{Result, ensure};
use api::{BackupRepositoryClaim, SnapshotPhase};
use e2e::{Claim, DEADLINE, Disks, Namespace, VELERO_DEADLINE, World, nothing_left, wait_until};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};

use super::backup_late::{heal, slow};
use super::{digests, filled, lose, same};

crate::scenarios![
    a_backup_completes_although_velero_was_killed_while_it_waited,
    a_plugin_killed_in_the_middle_loses_no_claim_in_silence_and_no_later_backup,
    a_backup_completes_although_the_api_server_was_away,
    a_backup_completes_although_the_driver_was_away,
    a_restore_completes_although_velero_was_killed_while_it_waited,
    a_restore_completes_although_the_api_server_and_the_driver_were_away,
    a_plugin_killed_in_a_restore_names_what_it_lost_and_the_next_restore_brings_it,
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
    api_server_is_away(&world).await?;
    world.start_process("backup-driver").await?;
    heal(&world, &claims).await?;
    comes_back(&world, &shop, &claims, 2).await?;
    for snapshot in world.snapshots_of(shop.name()).await? {
        let status = snapshot.upload().await?.status.unwrap_or_default();
        ensure!(status.retry_count == 0, "the API server's absence cost an attempt: {status:#?}");
    }
    Ok(())
}

/// Takes the API server away for a while. Whatever ended by that is started again, as a kubelet would, but for the driver.
async fn api_server_is_away(world: &World) -> Result<()> {
    world.kill("kube-apiserver").await?;
    tokio::time::sleep(API_AWAY).await; // how long it is away, not a wait for anything
    world.start_process("kube-apiserver").await?;
    // these look again only after a minute, which is not what is tried here
    for process in ["kube-controller-manager", "provisioner"] {
        world.kill(process).await?;
    }
    for process in [
        "kube-controller-manager",
        "provisioner",
        "kube-scheduler",
        "data-manager-node-a",
        "data-manager-node-b",
        "velero",
    ] {
        world.start_process(process).await?;
    }
    Ok(())
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

/// Disks of [`filled`], in MiB. What a restore writes has no name yet when it is to be slowed down.
const SIZES: [u64; 2] = [8, 17];

/// A restore whose disks are written so slowly that it waits for them, and what its claims are to hold.
async fn restoring(world: &World, prefix: &str) -> Result<(Namespace, Vec<(String, String)>)> {
    let (shop, claims) = filled(world, prefix).await?;
    let (name, velero, before) = (shop.name(), world.velero_server(), digests(&claims)?);
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    lose(&claims).await?;
    for mib in SIZES {
        world.control().slow(Disks::OfMib(mib), "Write").await?;
    }
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "WaitingForPluginOperations").await?;
    Ok((shop, before))
}

/// The restore goes on at full speed, completes, and has brought everything.
async fn is_restored(world: &World, shop: &Namespace, before: &[(String, String)]) -> Result<()> {
    for mib in SIZES {
        world.control().heal(Disks::OfMib(mib)).await?;
    }
    world.velero_server().restore_is(shop.name(), "Completed").await?;
    same(world, shop.name(), before).await?;
    nothing_left(world, shop, 2).await
}

async fn a_restore_completes_although_velero_was_killed_while_it_waited(world: World) -> Result<()> {
    let (shop, before) = restoring(&world, "vrkilled").await?;
    world.kill("velero").await?;
    world.start_process("velero").await?;
    is_restored(&world, &shop, &before).await
}

async fn a_restore_completes_although_the_api_server_and_the_driver_were_away(world: World) -> Result<()> {
    let (shop, before) = restoring(&world, "vrnobody").await?;
    world.kill("backup-driver").await?;
    let away = tokio::time::Instant::now();
    api_server_is_away(&world).await?;
    tokio::time::sleep_until(away + DRIVER_AWAY).await; // how long it is away, not a wait for anything
    world.start_process("backup-driver").await?;
    is_restored(&world, &shop, &before).await
}

/// The plugin asks for a repository, which nobody answers, and is killed. No claim is made in silence without its data.
async fn a_plugin_killed_in_a_restore_names_what_it_lost_and_the_next_restore_brings_it(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vrplugin").await?;
    let (name, velero, before) = (shop.name(), world.velero_server(), digests(&claims)?);
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    lose(&claims).await?;
    let asked: Api<BackupRepositoryClaim> = Api::namespaced(world.client(), world.velero());
    let of_shop = |c: &BackupRepositoryClaim| c.allowed_namespaces.iter().flatten().any(|allowed| allowed == name);
    for claim in asked.list(&ListParams::default()).await?.items.iter().filter(|claim| of_shop(claim)) {
        asked.delete(&claim.name_any(), &DeleteParams::default()).await?;
    }

    world.kill("backup-driver").await?;
    let first = format!("{name}-first");
    velero.restore(&first, name, &[]).await?;
    let killed = async {
        let due = tokio::time::Instant::now() + DEADLINE;
        while !asked.list(&ListParams::default()).await?.items.iter().any(of_shop) {
            ensure!(tokio::time::Instant::now() < due, "the plugin asks for no repository");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        world.kill_plugin().await
    };
    let killed = killed.await;
    world.start_process("backup-driver").await?;
    killed?;
    velero.restore_is(&first, "PartiallyFailed").await?;
    let told = velero.describe_restore(&first).await?;
    let mut back = 0;
    for claim in &claims {
        let made = shop.claims().get_opt(&claim.name).await?;
        let is_named = told.contains(&format!("persistentvolumeclaims/{name}/{}:", claim.name));
        ensure!(made.is_some() != is_named, "{}: made or named, not {made:?}:\n{told}", claim.name);
        back += usize::from(made.is_some());
    }
    ensure!(back < claims.len(), "the killed plugin's claim came back by nobody's work:\n{told}");

    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    same(&world, name, &before).await?;
    nothing_left(&world, &shop, 2).await
}
