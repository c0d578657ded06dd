//! What `velero backup` and `velero restore` do with our claims, by Velero's own server and command line.

use anyhow::{Context as _, Result, ensure};
use e2e::{Claim, Namespace, World, nothing_left, wait_until};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

crate::scenarios![
    a_namespace_comes_back_through_velero,
    a_backup_is_not_completed_before_its_data_is_in_the_bucket,
    a_claim_that_is_already_there_is_left_alone,
    a_restore_lands_in_the_mapped_namespace,
    one_broken_claim_does_not_cost_the_others,
    deleting_a_backup_deletes_its_restore_points,
];

/// The scenarios of this folder.
pub(crate) fn scenarios() -> impl Iterator<Item = &'static (&'static str, crate::Scenario)> {
    [SCENARIOS].into_iter().flatten()
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

async fn a_backup_is_not_completed_before_its_data_is_in_the_bucket(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vwaits").await?;
    for claim in &claims {
        world.control().slow(claim.disk.as_str(), "Read").await?;
    }
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "WaitingForPluginOperations").await?;
    let told = velero.describe(name).await?;
    ensure!(told.contains("bytes") || told.contains("Bytes"), "describe shows how far it is:\n{told}");
    for claim in &claims {
        world.control().heal(claim.disk.as_str()).await?;
    }
    velero.backup_is(name, "Completed").await?;
    let points = world.restic(name).snapshots().await?;
    ensure!(points.len() == 2, "Completed with {} restore points", points.len());
    nothing_left(&world, &shop, 2).await
}

async fn a_claim_that_is_already_there_is_left_alone(world: World) -> Result<()> {
    let (shop, [one, two]) = filled(&world, "vthere").await?;
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    let lost = (two.name.clone(), two.digest()?);
    two.delete().await?;
    one.fill_random(103)?; // younger than the backup
    let younger = (one.name.clone(), one.digest()?);
    velero.restore(name, name, &["--existing-resource-policy", "update"]).await?;
    velero.restore_is(name, "Completed").await?;
    same(&world, name, &[lost, younger]).await?;
    nothing_left(&world, &shop, 2).await
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
    let told = velero.describe(name).await?;
    let log = velero.run(&["backup", "logs", name]).await?;
    ensure!(
        log.contains("broken") && log.contains("DiskMissing") || log.contains(broken.disk.as_str()),
        "the log names claim and cause\n{told}"
    );
    for (claim, _) in &before {
        delete_claim(&shop, claim).await?;
    }
    velero.restore(name, name, &[]).await?;
    let restored = wait_until(&velero.restores(), name, e2e::VELERO_DEADLINE, "has ended", |r| {
        r.and_then(|r| r.status.as_ref()).is_some_and(|s| s.phase == "Completed" || s.phase == "PartiallyFailed")
    })
    .await?;
    ensure!(restored.is_some(), "the restore is there");
    same(&world, name, &before).await
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
