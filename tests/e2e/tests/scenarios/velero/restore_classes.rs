//! Restores into other storage classes, sizes and binding modes, and the pods that wait for them.

use anyhow::{Context as _, Result, ensure};
use api::{Reason, labels};
use e2e::{Claim, Disks, Namespace, Velero, World, nothing_left, wait_until, warned};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::{Described, count_moves, digests, pods, same};

crate::scenarios![a_pod_never_sees_a_restored_volume_before_its_data_is_there, a_resource_modifier_has_the_last_word,];

/// Sizes that no other scenario has: their writes are slow.
const MAPPED: u64 = 33;
const IMMEDIATE: u64 = 35;

/// A class of this scenario's own, like the lab's `vsphere`.
async fn own_class(world: &World, name: &str) -> Result<Api<StorageClass>> {
    let classes: Api<StorageClass> = Api::all(world.client());
    let class = serde_json::from_value(json!({
        "metadata": {"name": name},
        "provisioner": labels::CSI_DRIVER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }))?;
    classes.create(&PostParams::default(), &class).await?;
    Ok(classes)
}

async fn class_of(namespace: &Namespace, claim: &str) -> Result<Option<String>> {
    Ok(namespace.claims().get(claim).await?.spec.and_then(|spec| spec.storage_class_name))
}

/// The mapping of classes is one ConfigMap for all restores: this scenario maps a class that is its own, and no other
/// scenario may have a mapping.
async fn a_pod_never_sees_a_restored_volume_before_its_data_is_there(world: World) -> Result<()> {
    let shop = world.namespace("vclass").await?;
    let class = format!("class-of-{}", shop.name());
    let classes = own_class(&world, &class).await?;
    let marks = [(labels::PLUGIN_CONFIG, ""), (labels::CHANGE_STORAGE_CLASS, "RestoreItemAction")];
    let velero = world.velero_server();
    velero.config_map(&class, &marks, &[(&class, "vsphere-wffc")]).await?;
    let outcome = restored_behind_pods(&world, &velero, &shop, &class).await;
    velero.config_maps().delete(&class, &DeleteParams::default()).await?;
    classes.delete(&class, &DeleteParams::default()).await?;
    for mib in [MAPPED, IMMEDIATE] {
        world.control().heal(Disks::OfMib(mib)).await?;
    }
    outcome
}

async fn restored_behind_pods(world: &World, velero: &Velero, shop: &Namespace, class: &str) -> Result<()> {
    let mapped = shop.claim("mapped").mib(MAPPED).class(class).create().await?;
    let usual = shop.claim("usual").mib(IMMEDIATE).create().await?;
    mapped.fill_random(111)?;
    usual.fill_random(112)?;
    for claim in ["mapped", "usual"] {
        pods::mount(world, shop.name(), claim).await?;
    }
    let before = digests(&[mapped, usual])?;
    let (name, target) = (shop.name(), format!("{}-copy", shop.name()));
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;

    for mib in [MAPPED, IMMEDIATE] {
        world.control().slow(Disks::OfMib(mib), "Write").await?;
    }
    velero.restore(&target, name, &["--namespace-mappings", &format!("{name}:{target}")]).await?;
    velero.restore_is(&target, "WaitingForPluginOperations").await?;
    let copy = world.known_namespace(&target);
    pods::is_refused(world, &target, "usual").await?;
    pods::waits(world, &target, "mapped").await?;
    for claim in ["mapped", "usual"] {
        let waiting = copy.claims().get(claim).await?.spec.context("a claim has a spec")?;
        ensure!(waiting.volume_name.is_none(), "claim {claim} has a volume before its data is there");
        let clone = copy.clone_of(claim).await?;
        let phase = clone.api().get(&clone.name).await?.phase().cloned();
        let goes_on = phase.as_ref().is_none_or(|phase| !phase.is_terminal());
        ensure!(goes_on, "{claim} was over before its pod was looked at: {phase:?}");
    }
    count_moves(velero, Described::Restore(&target), IMMEDIATE << 20).await?;
    for mib in [MAPPED, IMMEDIATE] {
        world.control().heal(Disks::OfMib(mib)).await?;
    }

    velero.restore_is(&target, "Completed").await?;
    same(world, &target, &before).await?;
    for pod in ["mapped", "usual"] {
        let clone = copy.clone_of(pod).await?;
        let downloaded = clone.download().await?.status.and_then(|status| status.completion_timestamp);
        pods::runs(world, &target, pod, &downloaded.context("when the data was there")?).await?;
    }
    let class = class_of(&copy, "mapped").await?;
    ensure!(class.as_deref() == Some("vsphere-wffc"), "the class is mapped, not {class:?}");
    nothing_left(world, &copy, 0).await?;
    nothing_left(world, shop, 2).await
}

/// A rule that puts a value into claims whose name is this.
fn rule(claim: &str, path: &str, value: &str) -> String {
    format!(
        "- conditions:\n    groupResource: persistentvolumeclaims\n    resourceNameRegex: \"^{claim}$\"\n  patches:\n  \
         - operation: replace\n    path: {path}\n    value: \"\\\"{value}\\\"\"\n"
    )
}

/// V-11: modifiers apply after every restore action, so the driver looks at the claim that came of them. V-07: plain
/// `describe` does not say why an operation failed, so the claim says it.
async fn a_resource_modifier_has_the_last_word(world: World) -> Result<()> {
    let shop = world.namespace("vmodify").await?;
    let moved = shop.claim("moved").mib(8).create().await?;
    let grown = shop.claim("grown").mib(9).create().await?;
    let shrunk = shop.claim("shrunk").mib(5).create().await?;
    for (seed, claim) in (121..).zip([&moved, &grown, &shrunk]) {
        claim.fill_random(seed)?;
    }
    let velero = world.velero_server();
    let (name, target) = (shop.name(), format!("{}-copy", shop.name()));
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;

    let storage = "/spec/resources/requests/storage";
    let rules = [
        rule("moved", "/spec/storageClassName", "vsphere-wffc"),
        rule("grown", storage, "13Mi"),
        rule("shrunk", storage, "2Mi"),
    ];
    let rules = format!("version: v1\nresourceModifierRules:\n{}", rules.concat());
    velero.config_map(&target, &[], &[("rules.yaml", &rules)]).await?;
    let mapping = format!("{name}:{target}");
    velero
        .restore(&target, name, &["--namespace-mappings", &mapping, "--resource-modifier-configmap", &target])
        .await?;
    velero.restore_is(&target, "PartiallyFailed").await?;

    let copy = world.known_namespace(&target);
    same(&world, &target, &digests(&[moved])?).await?;
    let class = class_of(&copy, "moved").await?;
    ensure!(class.as_deref() == Some("vsphere-wffc"), "the modifier says vsphere-wffc, not {class:?}");
    begins_like(&Claim::bound(&world, &target, "grown").await?, &grown, 13 << 20)?;

    let words = ["shrunk", "asks for 2Mi", "5Mi", Reason::TargetTooSmall.fix()];
    warned(&world, &target, "shrunk", Reason::TargetTooSmall, &words).await?;
    let told = velero.describe_restore(&target).await?;
    for word in words.iter().chain(&["TargetTooSmall"]) {
        ensure!(told.contains(word), "describe --details does not say `{word}`:\n{told}");
    }
    let unbound = |c: Option<&PersistentVolumeClaim>| {
        c.and_then(|c| c.spec.as_ref()).is_some_and(|spec| spec.volume_name.is_none())
    };
    wait_until(&copy.claims(), "shrunk", e2e::DEADLINE, "has no volume", unbound).await?;
    nothing_left(&world, &copy, 0).await?;
    nothing_left(&world, &shop, 3).await
}

/// The disk has that size, and the other's bytes at its beginning.
fn begins_like(disk: &Claim, other: &Claim, size: u64) -> Result<()> {
    ensure!(disk.size()? == size, "{} is {} bytes large, not {size}", disk.name, disk.size()?);
    let (new, old) = (std::fs::read(&disk.file)?, std::fs::read(&other.file)?);
    ensure!(new.starts_with(&old), "claim {} came back different", disk.name);
    ensure!(new[old.len()..].iter().all(|byte| *byte == 0), "what a larger disk has more is not blank");
    Ok(())
}
