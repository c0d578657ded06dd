//! A claim that is bound elsewhere after the driver has looked at it for the last time. Kills the driver and the volume
//! controller, so it has a lab to itself.

use anyhow::{Context as _, Result, ensure};
use api::{ClaimCreator, CloneFromSnapshotSpec, ClonePhase, SnapshotPhase, labels};
use e2e::{Claim, DEADLINE, Namespace, World, nothing_left, wait_until};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

crate::scenarios![a_claim_bound_elsewhere_at_the_last_moment_leaves_no_volume_to_a_later_one];

const DRIVER: &str = "backup-driver";
const VOLUME_CONTROLLER: &str = "kube-controller-manager";
/// The claim whose data comes back.
const NAME: &str = "back";

/// V-04: the volume is pointed at a claim that is given another volume at that moment. It loses the claim's uid and becomes
/// available: the next claim of that name would take it. The driver points it back at its scratch claim, which is gone, and
/// so it goes.
async fn a_claim_bound_elsewhere_at_the_last_moment_leaves_no_volume_to_a_later_one(world: World) -> Result<()> {
    let shop = world.namespace("vmoment").await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(131)?;
    let snapshot = shop.snapshot(&claim).await?.wait_for(SnapshotPhase::Uploaded).await?;
    let outcome = pointed_too_late(&world, &shop, &snapshot).await;
    for process in [VOLUME_CONTROLLER, DRIVER] {
        world.start_process(process).await?; // the next scenario needs them, however this one ended
    }
    outcome
}

async fn pointed_too_late(world: &World, shop: &Namespace, snapshot: &api::Snapshot) -> Result<()> {
    doomed(world, "ScratchDropped").await?;
    let clone = asked_as_velero_does(shop, snapshot).await?;
    world.ended(DRIVER).await.context("the driver has dropped the scratch claim")?;
    let ours = marked_volume(world, &clone).await?;
    let handle = ours.spec.as_ref().and_then(|s| s.csi.as_ref()).context("a CSI volume")?.volume_handle.clone();
    world.kill(VOLUME_CONTROLLER).await?; // nobody binds what the driver points at
    doomed(world, "VolumePointed").await?;
    world.ended(DRIVER).await.context("the driver has pointed the volume at the claim")?;

    let theirs = give_another_volume(world, shop).await?;
    world.start_process(VOLUME_CONTROLLER).await?;
    let volumes: Api<PersistentVolume> = Api::all(world.client());
    let without_uid = |v: Option<&PersistentVolume>| {
        let reference = v.and_then(|v| v.spec.as_ref()?.claim_ref.as_ref());
        reference.is_some_and(|r| r.name.as_deref() == Some(NAME) && r.uid.is_none())
    };
    wait_until(&volumes, &ours.name_any(), DEADLINE, "is anybody's by now (V-04)", without_uid).await?;

    world.start_process(DRIVER).await?;
    let ended = clone.wait_for(ClonePhase::Failed).await?;
    let ready = ended.status.and_then(|s| s.message).unwrap_or_default();
    ensure!(ready.contains(NAME) && ready.contains(&theirs), "it does not say who has the claim: {ready}");
    wait_until(&volumes, &ours.name_any(), DEADLINE, "is gone", |v| v.is_none()).await?;
    world.control().disk_goes(&handle).await?;
    nothing_left(world, shop, 1).await?;

    // the claim keeps what it was given, and a later one of that name gets a volume of its own
    let volume = shop.claims().get(NAME).await?.spec.and_then(|spec| spec.volume_name);
    ensure!(volume.as_deref() == Some(&theirs), "the claim was given {theirs}; it has {volume:?}");
    shop.claims().delete(NAME, &DeleteParams::default()).await?;
    wait_until(&shop.claims(), NAME, DEADLINE, "is gone", |c: Option<&PersistentVolumeClaim>| c.is_none()).await?;
    volumes.delete(&theirs, &DeleteParams::default()).await?;
    let later = shop.claim(NAME).mib(2).create().await?;
    let blank = std::fs::read(&later.file)?.iter().all(|byte| *byte == 0);
    ensure!(blank && later.disk.as_str() != handle, "a later claim of that name got the volume of the restore");
    Claim::delete(&later).await
}

/// Starts the driver so that it dies after that step, also when an earlier scenario of this lab made it die there.
async fn doomed(world: &World, step: &str) -> Result<()> {
    let _ = world.kill(DRIVER).await; // it may be dead already
    let mark = world.folder().join("pods").join(DRIVER).join("scratch").join(format!("died-after-{step}"));
    match std::fs::remove_file(&mark) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).context("forget an earlier death"),
        _ => {}
    }
    world.start_process_with(DRIVER, &[("BACKUP_DRIVER_DIE_AFTER", step)]).await
}

/// The CloneFromSnapshot that the item action makes, and the claim that Velero makes.
async fn asked_as_velero_does(shop: &Namespace, snapshot: &api::Snapshot) -> Result<e2e::Clone> {
    let status = snapshot.status.clone().context("a status")?;
    let mut wanted = status.metadata.context("metadata")?.claim()?;
    wanted.metadata.name = Some(NAME.to_owned());
    let clone = shop
        .apply_clone(CloneFromSnapshotSpec {
            snapshot_id: status.snapshot_id.context("an id")?,
            metadata: Some(api::metadata::Blob::of(&wanted)),
            kind: api::CLAIM_KIND.to_owned(),
            backup_repository: snapshot.spec.backup_repository.clone(),
            claim_creator: Some(ClaimCreator::Velero),
            ..CloneFromSnapshotSpec::default()
        })
        .await?;
    let uid = clone.api().get(&clone.name).await?.uid().context("a uid")?;
    let claim = serde_json::from_value(json!({
        "metadata": {"name": NAME},
        "spec": {
            "storageClassName": "vsphere",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "2Mi"}},
            "selector": {"matchLabels": {labels::CLONE_SELECTOR: uid}},
        },
    }))?;
    shop.claims().create(&PostParams::default(), &claim).await?;
    Ok(clone)
}

/// The volume that was written for a clone and is being handed over.
async fn marked_volume(world: &World, clone: &e2e::Clone) -> Result<PersistentVolume> {
    let uid = clone.api().get(&clone.name).await?.uid().context("a uid")?;
    let marked = ListParams::default().labels(&format!("{}={uid}", labels::SCRATCH_FOR));
    let found = Api::<PersistentVolume>::all(world.client()).list(&marked).await?.items;
    found.into_iter().next().context("the volume of the restore is marked")
}

/// A volume of the user's own, made for the claim, and the claim naming it.
async fn give_another_volume(world: &World, shop: &Namespace) -> Result<String> {
    let name = format!("{}-own", shop.name());
    let volume = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "storageClassName": "vsphere",
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "2Mi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": shop.name(), "name": NAME},
        },
    }))?;
    Api::<PersistentVolume>::all(world.client()).create(&PostParams::default(), &volume).await?;
    let takes = Patch::Merge(json!({"spec": {"volumeName": name}}));
    shop.claims().patch(NAME, &PatchParams::default(), &takes).await?;
    Ok(name)
}
