//! Settings of the original that are the whole lab's, so each scenario has one to itself.

use anyhow::{Context as _, Result, ensure};
use api::names::{self, BLOCKED_RESOURCES as BLOCKED};
use api::{Reason, Snapshot};
use e2e::{DiskFault, World, nothing_left, warned};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::backup_choices::{config_map, says};
use super::{digests, filled, lose, same};

crate::scenarios![
    a_backup_in_local_mode_is_its_disk_snapshots_and_goes_with_them,
    a_backup_that_is_completed_early_is_uploaded_all_the_same_and_deleted_in_the_middle,
    a_claim_that_cannot_be_uploaded_costs_only_itself,
    a_blocked_resource_is_refused_until_it_is_taken_off_the_list,
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
        // W-11: what is not in the bucket yet is not restored as a blank disk
        let soon = format!("{name}-soon");
        velero.restore(&soon, name, &["--namespace-mappings", &format!("{name}:{soon}")]).await?;
        velero.restore_is(&soon, "PartiallyFailed").await?;
        let told = velero.describe_restore(&soon).await?;
        ensure!(told.contains("RestorePointMissing"), "it does not say why:\n{told}");
        for claim in &claims {
            let made = world.known_namespace(&soon).claims().get(&claim.name).await?;
            ensure!(made.spec.is_some_and(|spec| spec.volume_name.is_none()), "{} was given a volume", claim.name);
        }
        Api::<Namespace>::all(world.client()).delete(&soon, &DeleteParams::default()).await?;
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

/// All disk snapshots exist and Velero waits; then one disk cannot be read, and no attempt is left.
async fn a_claim_that_cannot_be_uploaded_costs_only_itself(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vunread").await?;
    let sick = shop.claim("sick").mib(16).create().await?;
    sick.fill_random(221)?;
    let before = digests(&claims)?;
    let (name, velero) = (shop.name(), world.velero_server());
    let fault = DiskFault { code: 7, at_offset: Some(9 << 20), ..DiskFault::new(sick.disk.as_str(), "Read", "fail") };
    world.set(names::CONFIG, &json!({"upload-cr-retry-max": "0"})).await?;
    let ended = async {
        world.control().disk_fault(&fault).await?;
        velero.back_up(name, name, &[]).await?;
        velero.backup_is(name, "PartiallyFailed").await
    };
    let ended = ended.await;
    world.set(names::CONFIG, &json!({"upload-cr-retry-max": null})).await?;
    world.control().heal(sick.disk.as_str()).await?;
    let status = ended?;
    ensure!(status.errors == 1, "one claim failed: {status:?}");
    let told = velero.describe(name).await?;
    let operations = told.split("Operation for persistentvolumeclaims ");
    let of_sick: Vec<_> = operations.filter(|one| one.starts_with(&format!("{name}/sick:"))).collect();
    let [of_sick] = of_sick[..] else { anyhow::bail!("one operation of the claim:\n{told}") };
    for word in ["Failed", "DiskReadFailed", Reason::DiskReadFailed.fix()] {
        ensure!(of_sick.contains(word), "`{word}` is missing: claim, cause and fix belong together:\n{told}");
    }
    nothing_left(&world, &shop, 2).await?;

    lose(&claims).await?;
    lose(&[sick]).await?;
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "PartiallyFailed").await?;
    same(&world, name, &before).await?;
    warned(&world, name, "sick", Reason::RestorePointMissing, &[Reason::RestorePointMissing.fix()]).await?;
    let volume = shop.claims().get("sick").await?.spec.context("a spec")?.volume_name;
    ensure!(volume.is_none(), "a claim without data was given volume {volume:?}");
    nothing_left(&world, &shop, 2).await?;
    velero.delete(name).await?;
    velero.is_gone(name).await?;
    world.deletions_complete(name, 3).await?;
    nothing_left(&world, &shop, 0).await
}

/// W-35: in a backup and in a restore, and only that resource. M-7-5: a new installation, without the ConfigMap, has the
/// default list, with requests of our own on it.
async fn a_blocked_resource_is_refused_until_it_is_taken_off_the_list(world: World) -> Result<()> {
    let shop = world.namespace("vblocked").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(231)?;
    let before = digests(std::slice::from_ref(&claim))?;
    let (name, velero) = (shop.name(), world.velero_server());
    let (refused, whole) = (format!("{name}-refused"), format!("{name}-whole"));
    let by_default = format!("{name}-default");
    let request = json!({"metadata": {"name": "by-hand"}, "spec": {"resourceHandle": {"kind": "Secret", "name": "x"}, "backupRepository": ""}});
    let requests: Api<Snapshot> = Api::namespaced(world.client(), name);
    requests.create(&PostParams::default(), &serde_json::from_value(request)?).await?;
    velero.back_up(&by_default, name, &["--include-resources", "snapshots.backupdriver.cnsdp.vmware.com"]).await?;
    velero.backup_is(&by_default, "PartiallyFailed").await?;
    let words = ["level=error", "ResourceBlocked", "by-hand", "snapshots.backupdriver.cnsdp.vmware.com"];
    says(&velero.log(&by_default).await?, &words)?;
    requests.delete("by-hand", &DeleteParams::default()).await?;

    config_map(&world, name, "menu", json!({"soup": "leek"})).await?;
    world.set(BLOCKED, &json!({"configmaps": "maybe"})).await?;
    let outcome = async {
        velero.back_up(&refused, name, &[]).await?;
        velero.backup_is(&refused, "PartiallyFailed").await?;
        let log = velero.log(&refused).await?;
        says(&log, &["level=error", "ResourceBlocked", "menu"])?;
        says(&log, &["level=warning", BLOCKED, "configmaps is `maybe`", "it is blocked"])?;
        nothing_left(&world, &shop, 1).await?; // the claim's data is there all the same

        world.set(BLOCKED, &json!({"configmaps": "false"})).await?;
        velero.back_up(&whole, name, &[]).await?;
        velero.backup_is(&whole, "Completed").await?;
        lose(std::slice::from_ref(&claim)).await?;
        let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(world.client(), name);
        maps.delete("menu", &DeleteParams::default()).await?;

        world.set(BLOCKED, &json!({"configmaps": "true"})).await?;
        velero.restore(&refused, &whole, &[]).await?;
        velero.restore_is(&refused, "PartiallyFailed").await?;
        let told = velero.describe_restore(&refused).await?;
        ensure!(told.contains("ResourceBlocked"), "it does not say why:\n{told}");
        ensure!(maps.get_opt("menu").await?.is_none(), "it was restored all the same");
        same(&world, name, &before).await?;

        world.set(BLOCKED, &json!({"configmaps": null})).await?;
        velero.restore(&whole, &whole, &[]).await?;
        velero.restore_is(&whole, "Completed").await?;
        maps.get("menu").await.map(drop).context("it is not blocked any more")
    };
    let outcome = outcome.await;
    world.set(BLOCKED, &json!({"configmaps": null})).await?;
    outcome?;
    nothing_left(&world, &shop, 2).await
}
