//! What `velero backup` and `velero restore` do with our claims, by Velero's own server and command line.

pub(crate) mod backup_choices;
mod backup_late;
mod backup_names;
mod backup_settings;
mod csi;
mod delete;
mod delete_outages;
pub(crate) mod last_moment;
mod many_claims;
mod old_plugin;
mod outages;
mod pods;
mod replaced_keys;
mod restore_again;
mod restore_classes;
mod restore_existing;
mod s3_server;
mod second_cluster;
pub(crate) mod storage_locations;
mod temporary_keys;

use anyhow::{Context as _, Result, bail, ensure};
use api::Reason;
use e2e::{Claim, DEADLINE, Namespace, Velero, World, bytes_done_and_total, nothing_left, wait_until};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

crate::scenarios![
    a_namespace_comes_back_through_velero,
    a_backup_is_not_completed_before_its_data_is_in_the_bucket,
    a_restore_lands_in_the_mapped_namespace,
    one_broken_claim_does_not_cost_the_others,
    deleting_a_backup_deletes_its_restore_points,
];

/// The scenarios of this folder.
pub(crate) fn scenarios() -> impl Iterator<Item = &'static (&'static str, crate::Scenario)> {
    [
        SCENARIOS,
        backup_choices::SCENARIOS,
        backup_names::SCENARIOS,
        backup_late::SCENARIOS,
        delete::SCENARIOS,
        old_plugin::SCENARIOS,
        restore_again::SCENARIOS,
        restore_classes::SCENARIOS,
        restore_existing::SCENARIOS,
        second_cluster::SCENARIOS,
        storage_locations::SCENARIOS,
        temporary_keys::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// Those of this folder that need a lab to themselves.
pub(crate) fn alone() -> impl Iterator<Item = &'static (&'static str, crate::Scenario)> {
    [
        many_claims::SCENARIOS,
        outages::SCENARIOS,
        backup_settings::SCENARIOS,
        csi::SCENARIOS,
        delete_outages::SCENARIOS,
        replaced_keys::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// A namespace with two claims of ours, filled.
async fn filled(world: &World, prefix: &str) -> Result<(Namespace, [Claim; 2])> {
    let shop = world.namespace(prefix).await?;
    let (one, two) = (shop.claim("data-0").mib(8).create().await?, shop.claim("data-1").mib(17).create().await?);
    one.fill_random(101)?;
    two.fill_random(102)?;
    Ok((shop, [one, two]))
}

/// Deletes the claims and waits until they are gone.
async fn lose(claims: &[Claim]) -> Result<()> {
    for claim in claims {
        claim.delete().await?;
    }
    Ok(())
}

async fn same(world: &World, namespace: &str, before: &[(String, String)]) -> Result<()> {
    for (name, digest) in before {
        let back = Claim::bound(world, namespace, name).await?;
        ensure!(back.digest()? == *digest, "claim {name} came back different");
    }
    Ok(())
}

fn digests(claims: &[Claim]) -> Result<Vec<(String, String)>> {
    claims.iter().map(|claim| Ok((claim.name.clone(), claim.digest()?))).collect()
}

async fn a_namespace_comes_back_through_velero(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vround").await?;
    let before = digests(&claims)?;
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    nothing_left(&world, &shop, 2).await?;
    let told = velero.describe(name).await?;
    ensure!(told.contains("velero.io/vsphere-pvc-backupper") && told.contains("complete (Bytes)"), "it says\n{told}");
    lose(&claims).await?;
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    same(&world, name, &before).await?;
    nothing_left(&world, &shop, 2).await
}

/// Two claims of ours, one of another driver, and ConfigMaps.
async fn a_backup_is_not_completed_before_its_data_is_in_the_bucket(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vwaits").await?;
    let before = digests(&claims)?;
    let foreign = backup_choices::foreign(&world, &shop).await?;
    backup_choices::config_map(&world, shop.name(), "menu", json!({"soup": "leek"})).await?;
    backup_choices::config_map(&world, shop.name(), "hours", json!({"monday": "closed"})).await?;
    for claim in &claims {
        world.control().slow(claim.disk.as_str(), "Read").await?;
    }
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "WaitingForPluginOperations").await?;
    count_moves(&velero, Described::Backup(name), claims[1].size()?).await?;
    for claim in &claims {
        world.control().heal(claim.disk.as_str()).await?;
    }
    velero.backup_is(name, "Completed").await?;
    let points = world.restic(name).snapshots().await?;
    ensure!(points.len() == 2, "Completed with {} restore points", points.len());
    nothing_left(&world, &shop, 2).await?;

    let maps: Api<ConfigMap> = Api::namespaced(world.client(), name);
    for map in ["menu", "hours"] {
        maps.delete(map, &DeleteParams::default()).await?;
    }
    lose(&claims).await?;
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    same(&world, name, &before).await?;
    let menu = maps.get("menu").await?.data.unwrap_or_default();
    ensure!(menu.get("soup").is_some_and(|soup| soup == "leek"), "the ConfigMap came back as {menu:?}");
    maps.get("hours").await?;
    Api::<PersistentVolume>::all(world.client()).delete(&foreign, &DeleteParams::default()).await?;
    nothing_left(&world, &shop, 2).await
}

/// What is described while its bytes are counted.
enum Described<'n> {
    Backup(&'n str),
    Restore(&'n str),
}

/// Waits until `describe` has shown two counts of the claim of that size, both above nothing and below all of it.
async fn count_moves(velero: &Velero, what: Described<'_>, size: u64) -> Result<()> {
    let due = tokio::time::Instant::now() + DEADLINE;
    let mut first = None;
    loop {
        let told = match what {
            Described::Backup(name) => velero.describe(name).await?,
            Described::Restore(name) => velero.describe_restore(name).await?,
        };
        let counts = bytes_done_and_total(&told);
        let now = counts.iter().find(|(_, total)| *total == size).map(|(done, _)| *done).filter(|done| *done > 0);
        match (first, now) {
            (_, Some(done)) if done >= size => bail!("all {size} bytes are there before the count was seen to move"),
            (Some(before), Some(done)) if done > before => return Ok(()),
            (Some(before), Some(done)) if done < before => bail!("the count went back from {before} to {done}"),
            _ => first = first.or(now),
        }
        ensure!(tokio::time::Instant::now() < due, "describe shows no count that moves:\n{told}");
    }
}

async fn a_restore_lands_in_the_mapped_namespace(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vmapped").await?;
    let before = digests(&claims)?;
    let velero = world.velero_server();
    let (name, target) = (shop.name(), format!("{}-copy", shop.name()));
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    let mapping = format!("{name}:{target}");
    velero.restore(&target, name, &["--namespace-mappings", &mapping]).await?;
    velero.restore_is(&target, "Completed").await?;
    same(&world, &target, &before).await?;
    same(&world, name, &before).await?;

    let bare = format!("{name}-bare");
    let mapping = format!("{name}:{bare}");
    velero.restore(&bare, name, &["--namespace-mappings", &mapping, "--restore-volumes=false"]).await?;
    velero.restore_is(&bare, "Completed").await?;
    let blank = Claim::bound(&world, &bare, &before[0].0).await?;
    ensure!(std::fs::read(&blank.file)?.iter().all(|byte| *byte == 0), "data came back although none was asked for");
    let asked = world.known_namespace(&bare).clones().list(&ListParams::default()).await?.items;
    ensure!(asked.is_empty(), "data was asked for: {asked:#?}");
    nothing_left(&world, &shop, 2).await
}

async fn one_broken_claim_does_not_cost_the_others(world: World) -> Result<()> {
    let (shop, [one, two]) = filled(&world, "vbroken").await?;
    let broken = shop.claim("broken").mib(4).create().await?;
    world.control().remove_disk(broken.disk.as_str()).await?;
    let before = digests(&[one, two])?;
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "PartiallyFailed").await?;
    let log = velero.run(&["backup", "logs", name]).await?;
    let told = log.lines().find(|line| line.contains("level=error") && line.contains("name=broken"));
    let told = told.with_context(|| format!("no error names the claim:\n{log}"))?;
    for word in ["DiskMissing", broken.disk.as_str(), Reason::DiskMissing.fix()] {
        ensure!(told.contains(word), "`{word}` is missing: claim, cause and fix belong together:\n{told}");
    }
    for (claim, _) in &before {
        delete_claim(&shop, claim).await?;
    }
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?; // what failed is not in the backup, so nothing of it fails here
    same(&world, name, &before).await?;
    nothing_left(&world, &shop, 2).await
}

async fn delete_claim(shop: &Namespace, name: &str) -> Result<()> {
    shop.claims().delete(name, &kube::api::DeleteParams::default()).await?;
    wait_until(&shop.claims(), name, e2e::DEADLINE, "is gone", |c: Option<&PersistentVolumeClaim>| c.is_none()).await?;
    Ok(())
}

async fn deleting_a_backup_deletes_its_restore_points(world: World) -> Result<()> {
    let (shop, _claims) = filled(&world, "vdelete").await?;
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    velero.run(&["backup", "delete", name, "--confirm"]).await?;
    wait_until(&velero.backups(), name, e2e::VELERO_DEADLINE, "is gone", |b| b.is_none()).await?;
    nothing_left(&world, &shop, 0).await.context("the restore points went with it")
}
