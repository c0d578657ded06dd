//! Names that Velero shortens, names that a schedule makes, and a second storage location.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use e2e::{Namespace, World, nothing_left};
use kube::ResourceExt as _;
use kube::api::ListParams;

use super::{digests, filled, lose, same};

crate::scenarios![
    a_backup_with_a_name_of_200_characters_restores_and_is_deleted_whole,
    a_backup_of_a_schedule_is_one_like_any_other,
    a_backup_to_a_second_location_lies_there_alone,
];

async fn a_backup_with_a_name_of_200_characters_restores_and_is_deleted_whole(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vlong").await?;
    let before = digests(&claims)?;
    let velero = world.velero_server();
    // two backups whose names differ only where labels no longer reach
    let name_of = |last: char| {
        let mut name = format!("{}.", shop.name());
        while name.len() < 198 {
            name.push_str("nightly.backup-of-the-shop.");
        }
        name.truncate(198);
        format!("{}x{last}", name.trim_end_matches(['.', '-']))
    };
    let (name, other) = (name_of('a'), name_of('b'));
    ensure!((198..=200).contains(&name.len()), "{} characters", name.len());
    for backup in [&name, &other] {
        velero.back_up(backup, shop.name(), &[]).await?;
        velero.backup_is(backup, "Completed").await?;
    }
    nothing_left(&world, &shop, 4).await?;
    velero.delete(&other).await?;
    velero.is_gone(&other).await?;
    nothing_left(&world, &shop, 2).await.context("the one went whole, the other stays whole")?;
    lose(&claims).await?;
    velero.restore(shop.name(), &name, &[]).await?;
    velero.restore_is(shop.name(), "Completed").await?;
    same(&world, shop.name(), &before).await?;
    velero.delete(&name).await?;
    velero.is_gone(&name).await?;
    nothing_left(&world, &shop, 0).await
}

async fn a_backup_of_a_schedule_is_one_like_any_other(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vnightly").await?;
    let before = digests(&claims)?;
    let velero = world.velero_server();
    let name = shop.name();
    velero.run(&["schedule", "create", name, "--schedule", "@every 24h", "--include-namespaces", name]).await?;
    velero.run(&["backup", "create", "--from-schedule", name]).await?;
    let of_schedule = ListParams::default().labels(&format!("velero.io/schedule-name={name}"));
    let made = velero.backups().list(&of_schedule).await?;
    let backup = made.iter().next().context("a backup of the schedule")?.name_any();
    let time = backup.strip_prefix(&format!("{name}-")).context("the schedule's name comes first")?;
    ensure!(time.len() == 14 && time.bytes().all(|b| b.is_ascii_digit()), "{backup} ends with a time");
    velero.backup_is(&backup, "Completed").await?;
    nothing_left(&world, &shop, 2).await?;
    lose(&claims).await?;
    velero.run(&["restore", "create", name, "--from-schedule", name]).await?;
    velero.restore_is(name, "Completed").await?;
    same(&world, name, &before).await?;
    velero.run(&["schedule", "delete", name, "--confirm"]).await?;
    velero.delete(&backup).await?;
    velero.is_gone(&backup).await?;
    nothing_left(&world, &shop, 0).await
}

async fn a_backup_to_a_second_location_lies_there_alone(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vsecond").await?;
    let before = digests(&claims)?;
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &["--storage-location", "second"]).await?;
    velero.backup_is(name, "Completed").await?;
    nothing_left(&world, &shop, 0).await.context("nothing lies in the first location")?;
    ensure!(!world.repository_folder(name).exists(), "the first location has a folder for it");
    let points = points_in_second(&world, &shop)?;
    ensure!(points.len() == 2, "two restore points below the prefix, not {points:?}");
    lose(&claims).await?;
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    same(&world, name, &before).await?;
    velero.delete(name).await?;
    velero.is_gone(name).await?;
    world.deletions_complete(name, 2).await?;
    let points = points_in_second(&world, &shop)?;
    ensure!(points.is_empty(), "they are gone: {points:?}");
    nothing_left(&world, &shop, 0).await
}

/// The restore points of a namespace below the second location's prefix, on the S3 server's own disk.
fn points_in_second(world: &World, shop: &Namespace) -> Result<Vec<PathBuf>> {
    let below = world.folder().join("s3/second/clusters/lab");
    let points: &Path = &below.join("plugins/vsphere-restic-repo").join(shop.name()).join("snapshots");
    let listed = match std::fs::read_dir(points) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.with_context(|| format!("list {}", points.display()))?,
    };
    Ok(listed.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<_>>()?)
}
