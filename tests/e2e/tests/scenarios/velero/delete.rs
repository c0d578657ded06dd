//! `velero backup delete`: the data goes with the backup, whatever is away, and its space is freed.

use anyhow::{Context as _, Result, ensure};
use api::names;
use e2e::{DEADLINE, VELERO_DEADLINE, World, nothing_left, wait_until};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use super::filled;

crate::scenarios![
    a_backup_is_deleted_twice_at_once_after_its_namespace_is_gone,
    a_backup_that_may_not_be_deleted_yet_stays_whole,
    the_bucket_shrinks_once_a_deleted_backup_is_maintained,
];

async fn a_backup_is_deleted_twice_at_once_after_its_namespace_is_gone(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vtwice").await?;
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    let namespaces: Api<Namespace> = Api::all(world.client());
    namespaces.delete(name, &DeleteParams::default()).await?;
    wait_until(&namespaces, name, DEADLINE, "is gone", |n| n.is_none()).await?;
    let (once, twice) = tokio::join!(velero.delete(name), velero.delete(name));
    ensure!(once.is_ok() || twice.is_ok(), "neither was taken: {once:?}, {twice:?}");
    velero.is_gone(name).await?;
    nothing_left(&world, &shop, 0).await.context("the restore points went with it")?;
    let done = world.deletions_of(name).await?;
    for claim in &claims {
        let of_claim = done.iter().filter(|d| d.spec.snapshot_id.starts_with(&format!("pvc:{name}/{}:", claim.name)));
        ensure!(of_claim.count() >= 1, "nobody asked for {}: {done:#?}", claim.name);
    }
    world.deletions_complete(name, done.len()).await?;
    Ok(())
}

/// Velero deletes no backup that it still works on; one that is completed early is deleted in the middle of its uploads by
/// `a_backup_that_is_completed_early_is_uploaded_all_the_same_and_deleted_in_the_middle`.
async fn a_backup_that_may_not_be_deleted_yet_stays_whole(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vbusy").await?;
    let velero = world.velero_server();
    let name = shop.name();
    for claim in &claims {
        world.control().slow(claim.disk.as_str(), "Read").await?;
    }
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "WaitingForPluginOperations").await?;
    velero.delete(name).await?;
    for claim in &claims {
        world.control().heal(claim.disk.as_str()).await?;
    }
    velero.backup_is(name, "Completed").await?;
    ensure!(world.deletions_of(name).await?.is_empty(), "nothing of it was to be deleted");
    nothing_left(&world, &shop, 2).await?;
    velero.delete(name).await?;
    velero.is_gone(name).await?;
    nothing_left(&world, &shop, 0).await
}

async fn the_bucket_shrinks_once_a_deleted_backup_is_maintained(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vshrinks").await?;
    let velero = world.velero_server();
    let (name, kept) = (shop.name(), format!("{}-kept", shop.name()));
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    for (claim, seed) in claims.iter().zip(241..) {
        claim.fill_random(seed)?; // nothing of the first backup is in the second
    }
    velero.back_up(&kept, name, &[]).await?;
    velero.backup_is(&kept, "Completed").await?;
    let size = || bytes_below(&world.repository_folder(name).join("data"));
    let both = size()?;
    velero.delete(name).await?;
    velero.is_gone(name).await?;
    let done = world.deletions_complete(name, 2).await?;
    let repository = &done[0].spec.backup_repository;
    // nobody else in this lab asks for maintenance meanwhile, so the short grace is this repository's alone
    world.set(names::CONFIG, &json!({"maintenance-grace": "1s", "allow-short-grace": "true"})).await?;
    let shrunk = shrinks(&world, repository, both * 6 / 10, size).await;
    world.set(names::CONFIG, &json!({"maintenance-grace": null, "allow-short-grace": null})).await?;
    let after = shrunk?;
    world.restic(name).check().await?;
    nothing_left(&world, &shop, 2).await?;
    println!("{both} bytes of packs before, {after} after");
    Ok(())
}

/// Maintains the repository until its packs have at most that many bytes; returns how many they have.
async fn shrinks(world: &World, repository: &str, most: u64, size: impl Fn() -> Result<u64>) -> Result<u64> {
    world.maintain(repository, "mark").await?;
    // the second run is due by itself when the grace of what the first has marked is over; it is asked for all the same
    let due = tokio::time::Instant::now() + VELERO_DEADLINE;
    while size()? > most {
        ensure!(tokio::time::Instant::now() < due, "{} bytes are still there, not {most}", size()?);
        world.maintain(repository, "remove").await?;
    }
    size()
}

fn bytes_below(folder: &std::path::Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        match entry.metadata() {
            Ok(found) if found.is_dir() => sum += bytes_below(&entry.path())?,
            Ok(found) => sum += found.len(),
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {} // deleted while we look
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sum)
}
