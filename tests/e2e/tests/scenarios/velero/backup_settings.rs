//! The two settings of the original that end a backup early. They are the whole lab's, so each scenario has one to itself.

use anyhow::{Result, ensure};
use api::names;
use e2e::{World, nothing_left};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use super::{digests, filled, lose, same};

crate::scenarios![
    a_backup_in_local_mode_is_its_disk_snapshots_and_goes_with_them,
    a_backup_that_is_completed_early_is_uploaded_all_the_same_and_deleted_in_the_middle,
];

async fn a_backup_in_local_mode_is_its_disk_snapshots_and_goes_with_them(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vlocal").await?;
    let name = shop.name();
    let velero = world.velero_server();
    world.set(names::FEATURES, &json!({"local-mode": "true"})).await?;
    let made = async {
        velero.back_up(name, name, &[]).await?;
        velero.backup_is(name, "Completed").await
    };
    let made = made.await;
    world.set(names::FEATURES, &json!({"local-mode": null})).await?;
    made?;
    let told = velero.describe(name).await?;
    ensure!(told.contains("local mode: the disk snapshot stays in vSphere"), "it does not say so:\n{told}");
    for claim in &claims {
        ensure!(claim.disk_snapshots().await?.len() == 1, "{} has its disk snapshot", claim.name);
    }
    ensure!(!world.repository_folder(name).join("snapshots").exists(), "something was uploaded");

    let copy = format!("{name}-copy");
    velero.restore(&copy, name, &["--namespace-mappings", &format!("{name}:{copy}")]).await?;
    velero.restore_is(&copy, "PartiallyFailed").await?;
    let told = velero.run(&["restore", "describe", &copy, "--details"]).await?;
    ensure!(
        told.contains("local mode, nothing was uploaded") && told.contains("revert to that in vSphere"),
        "it does not say where the data is:\n{told}"
    );
    Api::<Namespace>::all(world.client()).delete(&copy, &DeleteParams::default()).await?;

    velero.delete(name).await?; // in another mode than it was made in (W-48)
    velero.is_gone(name).await?;
    world.deletions_complete(name, 2).await?;
    nothing_left(&world, &shop, 0).await
}

async fn a_backup_that_is_completed_early_is_uploaded_all_the_same_and_deleted_in_the_middle(
    world: World,
) -> Result<()> {
    let (shop, claims) = filled(&world, "vearly").await?;
    let before = digests(&claims)?;
    let (name, second) = (shop.name(), format!("{}-second", shop.name()));
    let velero = world.velero_server();
    world.set(names::CONFIG, &json!({"complete_after_snapshot": "true"})).await?;
    let outcome = async {
        for claim in &claims {
            world.control().slow(claim.disk.as_str(), "Read").await?;
        }
        velero.back_up(name, name, &[]).await?;
        velero.backup_is(name, "Completed").await?;
        let taken: Vec<_> = world.snapshots_of(name).await?;
        ensure!(taken.len() == 2, "one Snapshot a claim, not {}", taken.len());
        ensure!(world.restic(name).snapshots().await.map_or(0, |points| points.len()) < 2, "it waited for the uploads");
        for claim in &claims {
            world.control().heal(claim.disk.as_str()).await?;
        }
        for snapshot in &taken {
            snapshot.wait_for(api::SnapshotPhase::Uploaded).await?;
        }
        nothing_left(&world, &shop, 2).await?;

        // the second one is deleted while it uploads: nobody has to wait for hours to get rid of a mistake
        for (claim, seed) in claims.iter().zip(211..) {
            claim.fill_random(seed)?;
            world.control().slow(claim.disk.as_str(), "Read").await?;
        }
        velero.back_up(&second, name, &[]).await?;
        velero.backup_is(&second, "Completed").await?;
        let taken = world.snapshots_of(&second).await?;
        taken[0].copying().await?;
        velero.delete(&second).await?;
        world.deletions_complete(&second, 2).await?;
        velero.is_gone(&second).await
    };
    let outcome = outcome.await;
    world.set(names::CONFIG, &json!({"complete_after_snapshot": null})).await?;
    for claim in &claims {
        world.control().heal(claim.disk.as_str()).await?;
    }
    outcome?;
    nothing_left(&world, &shop, 2).await?;
    world.restic(name).check().await?;
    lose(&claims).await?;
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    same(&world, name, &before).await?;
    nothing_left(&world, &shop, 2).await
}
