//! A restore into a second, empty cluster: another API server and another vCenter, the same bucket.

use anyhow::{Context as _, Result, ensure};
use api::Reason;
use e2e::{Claim, VELERO_DEADLINE, World, nothing_left, wait_until};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, Secret};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::restore_again::{as_its_user_says, change_volume, kept_as_its_user_said};
use super::{digests, filled, same};

crate::scenarios![a_second_empty_cluster_gets_everything_back];

/// The Secret with the key of the repositories, and the key's name in it: what a user has to carry over.
const KEY: (&str, &str) = ("vsphere-backup-repository-key", "repository-password");

async fn a_second_empty_cluster_gets_everything_back(world: World) -> Result<()> {
    let (shop, claims) = filled(&world, "vfar").await?;
    let name = shop.name();
    change_volume(&world, name, "data-0", &as_its_user_says()).await?;
    let maps: Api<ConfigMap> = Api::namespaced(world.client(), name);
    let menu = serde_json::from_value(json!({"metadata": {"name": "menu"}, "data": {"soup": "pea"}}))?;
    maps.create(&PostParams::default(), &menu).await?;
    let velero = world.velero_server();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    nothing_left(&world, &shop, 2).await?;

    let far = world.second_cluster().await?;
    let outcome = restored_far_away(&far, name, &digests(&claims)?).await;
    far.stop().await?;
    outcome
}

async fn restored_far_away(far: &World, name: &str, before: &[(String, String)]) -> Result<()> {
    let velero = far.velero_server();
    wait_until(&velero.backups(), name, VELERO_DEADLINE, "is seen in the bucket", |b| b.is_some()).await?;
    nothing_comes_without_the_key(far, name).await?;

    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    let maps: Api<ConfigMap> = Api::namespaced(far.client(), name);
    let soup = maps.get("menu").await?.data.unwrap_or_default().remove("soup");
    ensure!(soup.as_deref() == Some("pea"), "the ConfigMap came back different: {soup:?}");
    same(far, name, before).await?;
    kept_as_its_user_said(far, name, "data-0").await?;
    each_claim_has_one_volume_of_this_vcenter(far, name, before).await?;
    nothing_left(far, &far.known_namespace(name), 2).await
}

/// With another key than the backups were made with, a restore says so and makes nothing. Then the key is carried over.
async fn nothing_comes_without_the_key(far: &World, backup: &str) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(far.client(), far.velero());
    let right = secrets.get(KEY.0).await?.data.unwrap_or_default().remove(KEY.1).context("the key")?;
    let put = async |secret: serde_json::Value| {
        secrets.patch(KEY.0, &PatchParams::default(), &Patch::Merge(secret)).await.map(drop)
    };
    put(json!({"stringData": {KEY.1: "of another cluster"}})).await?;
    let (velero, early) = (far.velero_server(), format!("{backup}-early"));
    velero.restore(&early, backup, &["--namespace-mappings", &format!("{backup}:{early}")]).await?;
    velero.restore_is(&early, "PartiallyFailed").await?;
    let told = velero.describe_restore(&early).await?;
    for word in [Reason::RepositoryPasswordWrong.as_str(), Reason::RepositoryPasswordWrong.fix()] {
        ensure!(told.contains(word), "describe does not say `{word}`:\n{told}");
    }
    let volumes = Api::<PersistentVolume>::all(far.client()).list(&ListParams::default()).await?.items.len();
    ensure!(volumes == 0, "{volumes} volumes without data");
    put(json!({"data": {KEY.1: right}})).await?;
    Ok(())
}

/// V-01: a volume with policy Retain would come back as it was, bound to a disk that this vCenter does not have.
async fn each_claim_has_one_volume_of_this_vcenter(far: &World, name: &str, claims: &[(String, String)]) -> Result<()> {
    let volumes = Api::<PersistentVolume>::all(far.client()).list(&ListParams::default()).await?;
    let all: Vec<_> = volumes.iter().map(|volume| volume.name_any()).collect();
    ensure!(all.len() == claims.len(), "a volume too many, or too few: {all:?}");
    for (claim, _) in claims {
        let claim = Claim::bound(far, name, claim).await?;
        far.control().disk(claim.disk.as_str()).await.context("its disk is in this vCenter")?;
    }
    Ok(())
}
