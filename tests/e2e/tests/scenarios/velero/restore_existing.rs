//! Claims that are there already, or take the place of a restored one: nothing of a user's is touched.

use anyhow::{Result, ensure};
use api::{ClonePhase, Reason, labels};
use e2e::{DEADLINE, Disks, Namespace, VELERO_DEADLINE, World, nothing_left, wait_until, warned};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, ResourceQuota};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::{filled, same};

crate::scenarios![
    a_claim_that_is_already_there_is_left_alone,
    a_claim_that_takes_the_place_of_a_restored_one_keeps_its_data,
    a_restore_that_takes_too_long_is_stopped_and_leaves_nothing,
    a_claim_that_velero_may_not_create_leaves_no_volume,
];

/// V-03: the action runs all the same when its claim exists, with either policy, and `update` even relabels that claim.
async fn a_claim_that_is_already_there_is_left_alone(world: World) -> Result<()> {
    let (shop, [one, two]) = filled(&world, "vthere").await?;
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    let lost = (two.name.clone(), two.digest()?);
    two.delete().await?;
    one.fill_random(103)?; // younger than the backup
    let kept = [lost, (one.name.clone(), one.digest()?)];
    for policy in ["update", "none"] {
        let restore = format!("{name}-{policy}");
        velero.restore(&restore, name, &["--existing-resource-policy", policy]).await?;
        velero.restore_is(&restore, "Completed").await?;
        same(&world, name, &kept).await?;
        let log = velero.run(&["restore", "logs", &restore]).await?;
        let said = format!("claim {name}/{} is already there; its data is left as it is", one.name);
        ensure!(log.contains(&said), "the log of {restore} does not say that {} was left alone", one.name);
    }
    let label = shop.claims().get(&one.name).await?.labels().get(labels::RESTORE_NAME).cloned();
    ensure!(label.as_deref() == Some(&format!("{name}-update")), "Velero has written its label onto it: {label:?}");
    shop.clone_of(&two.name).await?; // one restore brought it back, the other found it there
    let made = shop.clones().list(&ListParams::default()).await?.items.len();
    ensure!(made == 1, "{made} requests for data where one claim of two was missing");
    nothing_left(&world, &shop, 2).await
}

/// Starts a restore into a namespace of its own whose only claim is written slowly; returns when it is being written.
async fn restored_slowly(
    world: &World,
    shop: &Namespace,
    mib: u64,
    more: &[&str],
) -> Result<(Namespace, e2e::Clone, String)> {
    let claim = shop.claim("data").mib(mib).create().await?;
    claim.fill_random(104)?;
    let velero = world.velero_server();
    let (name, target) = (shop.name(), format!("{}-copy", shop.name()));
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    world.control().slow(Disks::OfMib(mib), "Write").await?;
    let mapping = format!("{name}:{target}");
    let mut words = vec!["--namespace-mappings", mapping.as_str()];
    words.extend(more);
    velero.restore(&target, name, &words).await?;
    let copy = world.known_namespace(&target);
    let clone = copy.clone_of("data").await?;
    let disk = clone.disk().await?;
    Ok((copy, clone, disk))
}

/// V-03, V-04: the claim that Velero made is deleted and a user's takes its name while the data is on the way.
async fn a_claim_that_takes_the_place_of_a_restored_one_keeps_its_data(world: World) -> Result<()> {
    const MIB: u64 = 37;
    let shop = world.namespace("vplace").await?;
    let (copy, clone, disk) = restored_slowly(&world, &shop, MIB, &[]).await?;
    clone.copying().await?;
    let restored = copy.claims().delete("data", &DeleteParams::default()).await?.left();
    let uid = restored.and_then(|claim| claim.uid());
    let gone = |c: Option<&PersistentVolumeClaim>| c.is_none_or(|c| uid.is_none() || c.uid() != uid);
    wait_until(&copy.claims(), "data", DEADLINE, "is gone", gone).await?;
    let users = copy.claim("data").mib(6).create().await?;
    users.fill_random(105)?;
    let mine = users.digest()?;

    let velero = world.velero_server();
    velero.restore_is(copy.name(), "PartiallyFailed").await?;
    world.control().heal(Disks::OfMib(MIB)).await?;
    let told = velero.describe_restore(copy.name()).await?;
    let word_of_either = ["is already there and is not overwritten", "was deleted before its data was there"];
    ensure!(word_of_either.iter().any(|word| told.contains(word)), "describe does not say why:\n{told}");
    world.control().disk_goes(&disk).await?;
    same(&world, copy.name(), &[("data".to_owned(), mine)]).await?;
    let volumes = Api::<PersistentVolume>::all(world.client()).list(&ListParams::default()).await?;
    let names_it = |v: &&PersistentVolume| {
        v.spec.as_ref().and_then(|s| s.claim_ref.as_ref()?.namespace.as_deref()) == Some(copy.name())
    };
    let pointing: Vec<_> = volumes.iter().filter(names_it).map(|v| v.name_any()).collect();
    ensure!(pointing.len() == 1, "only the user's own volume may name the claim: {pointing:?}");
    nothing_left(&world, &copy, 0).await?;
    nothing_left(&world, &shop, 1).await
}

/// V-10: Velero gives an operation up without a word to anybody; the work is stopped by us. V-07: the claim says why.
async fn a_restore_that_takes_too_long_is_stopped_and_leaves_nothing(world: World) -> Result<()> {
    const MIB: u64 = 39;
    let shop = world.namespace("vlate").await?;
    let (copy, clone, disk) = restored_slowly(&world, &shop, MIB, &["--item-operation-timeout", "12s"]).await?;
    let velero = world.velero_server();
    velero.restore_is(copy.name(), "PartiallyFailed").await?;
    let told = velero.describe_restore(copy.name()).await?;
    ensure!(told.contains("wait 12 s"), "describe does not say how long it was waited for:\n{told}");
    wait_until(&clone.api(), &clone.name, VELERO_DEADLINE, "is Canceled", |c| {
        c.and_then(api::CloneFromSnapshot::phase) == Some(&ClonePhase::Canceled)
    })
    .await?;
    world.lets_go_of(&disk).await?;
    world.control().disk_goes(&disk).await?;
    world.control().heal(Disks::OfMib(MIB)).await?;
    warned(&world, copy.name(), "data", Reason::Canceled, &[&clone.name, "asked to stop"]).await?;
    let unbound = copy.claims().get("data").await?.spec.is_some_and(|spec| spec.volume_name.is_none());
    ensure!(unbound, "the claim was given a volume whose data is not all there");
    nothing_left(&world, &copy, 0).await?;
    nothing_left(&world, &shop, 1).await
}

/// A quota of the namespace refuses the claim after our action has asked for its data.
async fn a_claim_that_velero_may_not_create_leaves_no_volume(world: World) -> Result<()> {
    let shop = world.namespace("vquota").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(106)?;
    let velero = world.velero_server();
    let name = shop.name();
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    let copy = world.namespace("vquota-copy").await?;
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"persistentvolumeclaims": "0"}}});
    let quotas: Api<ResourceQuota> = Api::namespaced(world.client(), copy.name());
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    let counted = json!({"status": {"hard": {"persistentvolumeclaims": "0"}, "used": {"persistentvolumeclaims": "0"}}});
    quotas.patch_status("none", &PatchParams::default(), &Patch::Merge(counted)).await?; // what a controller would say
    no_claim_may_be_made(&copy).await?;
    let mapping = format!("{name}:{}", copy.name());
    velero.restore(copy.name(), name, &["--namespace-mappings", &mapping, "--item-operation-timeout", "12s"]).await?;
    velero.restore_is(copy.name(), "PartiallyFailed").await?;
    let told = velero.describe_restore(copy.name()).await?;
    for word in ["forbidden", "wait 12 s", Reason::WaitingForClaim.as_str()] {
        ensure!(told.contains(word), "describe does not say `{word}`:\n{told}");
    }
    let clone = copy.clone_of("data").await?;
    clone.wait_for(ClonePhase::Canceled).await?;
    ensure!(copy.claims().list(&ListParams::default()).await?.items.is_empty(), "there is a claim");
    nothing_left(&world, &copy, 0).await?;
    nothing_left(&world, &shop, 1).await
}

/// Waits until the API server has heard of the quota: it remembers for a while that a namespace had none.
async fn no_claim_may_be_made(namespace: &Namespace) -> Result<()> {
    let trial: PersistentVolumeClaim = serde_json::from_value(json!({
        "metadata": {"name": "trial"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }))?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let due = tokio::time::Instant::now() + DEADLINE;
    while namespace.claims().create(&params, &trial).await.is_ok() {
        ensure!(tokio::time::Instant::now() < due, "the quota does not count");
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    Ok(())
}
