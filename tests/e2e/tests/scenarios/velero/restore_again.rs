//! A claim that was restored is as the lost one was, and can be backed up and restored again.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use api::labels;
use e2e::{Claim, DEADLINE, Namespace, World, nothing_left, wait_until};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::backup_choices::config_map;
use super::{digests, filled, lose, same};

crate::scenarios![a_restored_claim_is_as_it_was_and_can_be_backed_up_again];

/// The volume that a claim is bound to.
pub(super) async fn volume_of(world: &World, namespace: &str, claim: &str) -> Result<PersistentVolume> {
    let claims = world.known_namespace(namespace).claims();
    let name = claims.get(claim).await?.spec.and_then(|spec| spec.volume_name).context("a bound claim")?;
    Ok(Api::<PersistentVolume>::all(world.client()).get(&name).await?)
}

/// Changes the volume of a claim as a user would.
pub(super) async fn change_volume(world: &World, namespace: &str, claim: &str, patch: &Value) -> Result<()> {
    let name = volume_of(world, namespace, claim).await?.name_any();
    let volumes: Api<PersistentVolume> = Api::all(world.client());
    volumes.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// Reclaim policy and a user's label of the volume, which its class would not give it.
pub(super) async fn kept_as_its_user_said(world: &World, namespace: &str, claim: &str) -> Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(world.client());
    let name = volume_of(world, namespace, claim).await?.name_any();
    let policy = |v: &PersistentVolume| v.spec.as_ref()?.persistent_volume_reclaim_policy.clone();
    let as_it_was = |v: Option<&PersistentVolume>| {
        v.is_some_and(|v| {
            policy(v).as_deref() == Some("Retain") && v.labels().get("tier").map(String::as_str) == Some("gold")
        })
    };
    wait_until(&volumes, &name, DEADLINE, "has its reclaim policy and label back", as_it_was).await?;
    Ok(())
}

/// What a user says about a volume, and its class does not.
pub(super) fn as_its_user_says() -> Value {
    json!({"metadata": {"labels": {"tier": "gold"}}, "spec": {"persistentVolumeReclaimPolicy": "Retain"}})
}

/// V-05: Velero's finalizer puts nothing back. V-12: the second backup drops the selector of the restored claim. V-06: our
/// own objects travel in it and stay away. V-08: each action runs once per claim. V-02: no backup stays *Finalizing*.
async fn a_restored_claim_is_as_it_was_and_can_be_backed_up_again(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vagain").await?;
    let before = digests(&claims)?;
    let name = shop.name();
    change_volume(&world, name, "data-0", &as_its_user_says()).await?;
    config_map(&world, name, "owner", json!({})).await?;
    let owner = Api::<ConfigMap>::namespaced(world.client(), name).get("owner").await?.uid();
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner});
    let note = json!({"metadata": {"annotations": {"team": "shop"}, "ownerReferences": [owner]}});
    shop.claims().patch("data-0", &PatchParams::default(), &Patch::Merge(note)).await?;
    let velero = world.velero_server();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    change_volume(&world, name, "data-0", &json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}})).await?;
    lose(&claims).await?;
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    same(&world, name, &before).await?;
    kept_as_its_user_said(&world, name, "data-0").await?;
    let back = shop.claims().get("data-0").await?;
    ensure!(back.labels().get("app").map(String::as_str) == Some("shop"), "its label is gone: {:?}", back.labels());
    ensure!(back.annotations().get("team").map(String::as_str) == Some("shop"), "its annotation is gone");
    ensure!(back.owner_references().is_empty(), "it goes with an owner of old (W-41): {:?}", back.owner_references());

    let (again, target) = (format!("{name}-again"), format!("{name}-copy"));
    velero.back_up(&again, name, &[]).await?;
    velero.backup_is(&again, "Completed").await?;
    velero.restore(&target, &again, &["--namespace-mappings", &format!("{name}:{target}")]).await?;
    velero.restore_is(&target, "Completed").await?;
    same(&world, &target, &before).await?;
    kept_as_its_user_said(&world, &target, "data-0").await?;
    let copy = world.known_namespace(&target);
    requested_once(&world, &shop, &copy).await?;
    a_backup_that_skips_a_claim_names_no_data_of_it(&world, &shop).await?;
    change_volume(&world, name, "data-0", &json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}})).await?;
    change_volume(&world, &target, "data-0", &json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}})).await?;
    nothing_left(&world, &copy, 0).await?;
    nothing_left(&world, &shop, 4).await
}

/// W-12: the claims were restored, so they may carry the record of the backup that they come from. A later backup that
/// skips one of them, so that we never see it, must not name its data: whoever deletes that one would delete it.
async fn a_backup_that_skips_a_claim_names_no_data_of_it(world: &World, shop: &Namespace) -> Result<()> {
    let (velero, name) = (world.velero_server(), format!("{}-skips", shop.name()));
    let label = json!({"metadata": {"labels": {"tier": "cache"}}});
    shop.claims().patch("data-0", &PatchParams::default(), &Patch::Merge(label)).await?;
    let policies = "version: v1\nvolumePolicies:\n- conditions: {pvcLabels: {tier: cache}}\n  action: {type: skip}\n";
    config_map(world, world.velero(), &name, json!({"policies": policies})).await?;
    velero.back_up(&name, shop.name(), &["--resource-policies-configmap", &name]).await?;
    velero.backup_is(&name, "Completed").await?;
    velero.config_maps().delete(&name, &DeleteParams::default()).await?;
    velero.delete(&name).await?;
    velero.is_gone(&name).await?;
    let asked = world.deletions_complete(&name, 1).await?;
    ensure!(asked[0].spec.snapshot_id.contains("/data-1:"), "data of another backup was to be deleted: {asked:#?}");
    Ok(())
}

/// Two backups made one request each for each claim, and the restores one; those of the past did not come back.
async fn requested_once(world: &World, shop: &Namespace, copy: &Namespace) -> Result<()> {
    let snapshots = |namespace: &str| Api::<api::Snapshot>::namespaced(world.client(), namespace);
    let mut of_claim: BTreeMap<String, usize> = BTreeMap::new();
    for made in snapshots(shop.name()).list(&ListParams::default()).await? {
        *of_claim.entry(made.spec.resource_handle.name).or_default() += 1;
    }
    let want: BTreeMap<String, usize> = [("data-0", 2), ("data-1", 2)].map(|(c, n)| (c.to_owned(), n)).into();
    ensure!(of_claim == want, "Snapshots of two backups: {of_claim:?}");
    let came = snapshots(copy.name()).list(&ListParams::default()).await?.items.len();
    ensure!(came == 0, "{came} Snapshots of the past were restored");
    let clones = copy.clones().list(&ListParams::default()).await?;
    let of_this_restore =
        clones.iter().all(|c| c.labels().get(labels::RESTORE_NAME).map(String::as_str) == Some(copy.name()));
    ensure!(clones.items.len() == 2 && of_this_restore, "CloneFromSnapshots of the past were restored: {clones:?}");
    for claim in ["data-0", "data-1"] {
        copy.clone_of(claim).await?;
        Claim::bound(world, copy.name(), claim).await?;
    }
    Ok(())
}
