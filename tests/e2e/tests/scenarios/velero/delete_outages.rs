//! Deletions during which a program goes away that the others need.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use api::conditions::{self, READY};
use api::{BackupRepositoryClaim, DeletePhase, Reason};
use e2e::{World, nothing_left};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};

use super::filled;

/// Longest time between our wish to delete and the end of Velero's deletion, while nobody heeds the wish: the 30 s that we
/// wait, and what a busy Velero takes for its own part.
const KEPT: Duration = Duration::from_secs(50);

crate::scenarios![a_deletion_outlasts_a_bucket_that_is_away, a_deletion_outlasts_the_backup_and_a_driver_that_is_away];

/// P-14, V-09: Velero drops the backup whatever a delete action says, so the DeleteSnapshot carries the duty. It says why
/// it is not done yet, and is done without help once the bucket is back.
async fn a_deletion_outlasts_a_bucket_that_is_away(world: World) -> Result<()> {
    let (shop, _claims) = filled(&world, "vaway").await?;
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    world.kill("backup-driver").await?; // nothing is deleted before the bucket is away
    velero.delete(name).await?;
    let asked = world.deletions_are(name, 1, "there", |_| true).await;
    world.kill("s3").await?;
    world.start_process("backup-driver").await?;
    let told = world
        .deletions_are(name, 1, "not done yet, and why", |d| {
            let status = d.status.as_ref();
            let ready = status.and_then(|s| conditions::get(&s.conditions, READY));
            ready.is_some_and(|c| c.reason == Reason::StoreUnreachable.as_str())
                && status.and_then(|s| s.message.as_deref()).is_some_and(|m| m.contains(Reason::StoreUnreachable.fix()))
        })
        .await;
    world.start_process("s3").await?;
    asked?;
    let told = told?;
    ensure!(told.iter().all(|d| d.phase() == Some(&DeletePhase::New)), "it goes on: {told:#?}");
    // Velero asks for the other claim once the first is done, and then for nothing more
    world.deletions_complete(name, 2).await?;
    velero.is_gone(name).await?;
    nothing_left(&world, &shop, 0).await?;
    world.locations_are_available().await
}

/// P-14, V-09: Velero's deletion waits 30 s for ours and no longer; the driver does it when it is there again. Also where
/// the repository's claim is gone, and nobody answers another one.
async fn a_deletion_outlasts_the_backup_and_a_driver_that_is_away(world: World) -> Result<()> {
    let shop = world.namespace("vlater").await?;
    shop.claim("data").mib(2).create().await?.fill_random(231)?;
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    world.kill("backup-driver").await?;
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(world.client(), world.velero());
    let of_shop = |claim: &BackupRepositoryClaim| {
        claim.allowed_namespaces.as_ref().is_some_and(|allowed| allowed.iter().any(|namespace| namespace == name))
    };
    for claim in claims.list(&ListParams::default()).await?.into_iter().filter(of_shop) {
        claims.delete(&claim.name_any(), &DeleteParams::default()).await?;
    }
    velero.delete(name).await?;
    let asked = world.deletions_are(name, 1, "written down", |_| true).await.map(|_| Instant::now());
    let gone = velero.is_gone(name).await.map(|()| Instant::now());
    let waits = world.deletions_of(name).await;
    world.start_process("backup-driver").await?;
    let (kept, waits) = (gone?.duration_since(asked?), waits?);
    println!("Velero's deletion was kept for {kept:?} by a driver that is away");
    ensure!(kept < KEPT, "Velero's deletion was kept for {kept:?} by a driver that is away");
    ensure!(waits.len() == 1, "{} duties were written down", waits.len());
    ensure!(waits[0].phase().is_none_or(|p| !p.is_terminal()), "nobody was there to do it");
    world.deletions_complete(name, 1).await?;
    nothing_left(&world, &shop, 0).await
}
