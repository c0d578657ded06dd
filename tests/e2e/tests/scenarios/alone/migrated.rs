//! Volumes that the in-tree driver of Kubernetes made, and that the vSphere CSI driver has taken over (M-10-2, M-7-3).

use anyhow::{Context as _, Result, ensure};
use api::conditions::{DISK_KNOWN, READY};
use api::{CloneFromSnapshot, ClonePhase, Reason, Snapshot, SnapshotPhase, labels, names};
use e2e::{
    Claim, Clone, DEADLINE, Namespace, World, delete_if_there, digest, explained, nothing_left, put_right, wait_until,
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{await_condition, conditions};
use serde_json::json;

use super::orphans::{DIES, may_die_again, restart_driver, until};
use crate::velero::backup_choices::says;

crate::scenarios![
    a_migrated_in_tree_volume_is_backed_up_restored_and_deleted_like_any_other,
    a_restore_whose_disk_nobody_may_tell_says_so_ends_in_time_and_works_the_next_time,
];

const DRIVER: &str = "backup-driver";
/// Where the CSI driver records which disk a migrated volume has.
const DEFINITION: &str = "cnsvspherevolumemigrations.cns.vmware.com";

/// A claim of the in-tree driver's time, bound to its volume.
struct Old {
    world: World,
    name: String,
    namespace: String,
    volume: String,
    path: String,
    /// What it was made from: its disk and the raw file behind it.
    seed: Claim,
}

impl Old {
    /// Has the CSI driver make a disk, and lets a volume of the in-tree driver take the place of its own.
    async fn new(world: &World, shop: &Namespace, name: &str, mode: &'static str) -> Result<Self> {
        let seed = shop.claim(name).mib(9).create().await?;
        seed.write_random(91, 0, 1 << 20)?;
        seed.write_random(92, 8 << 20, 1 << 20)?;
        leave_its_disk(world, shop, name).await?;
        let (volume, namespace) = (format!("{}-{name}", shop.name()), shop.name().to_owned());
        let old = Self {
            world: world.clone(),
            name: name.to_owned(),
            path: format!("[lab ds] kubevols/{volume}.vmdk"),
            volume,
            namespace,
            seed,
        };
        old.exists(shop, mode).await?;
        Ok(old)
    }

    async fn exists(&self, shop: &Namespace, mode: &str) -> Result<()> {
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": self.volume, "annotations": {labels::MIGRATED_TO: labels::CSI_DRIVER}},
            "spec": {
                "capacity": {"storage": "9Mi"}, "accessModes": [mode], "storageClassName": "vsphere",
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": self.namespace, "name": self.name},
                "vsphereVolume": {"volumePath": self.path, "fsType": "ext4"},
            },
        }))?;
        self.volumes().create(&PostParams::default(), &volume).await?;
        let claim = serde_json::from_value(json!({
            "metadata": {"name": self.name},
            "spec": {
                "storageClassName": "vsphere", "accessModes": [mode], "volumeName": self.volume,
                "resources": {"requests": {"storage": "9Mi"}},
            },
        }))?;
        shop.claims().create(&PostParams::default(), &claim).await?;
        let bound = |claim: Option<&PersistentVolumeClaim>| {
            claim.and_then(|c| c.status.as_ref()?.phase.as_deref()) == Some("Bound")
        };
        wait_until(&shop.claims(), &self.name, DEADLINE, "is Bound", bound).await.map(drop)
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.world.client())
    }

    async fn recorded(&self, path: &str, disk: &str) -> Result<()> {
        record(&self.world, path, disk).await
    }

    async fn not_recorded(&self, disk: &str) -> Result<()> {
        records(&self.world).delete(disk, &DeleteParams::default()).await.map(drop).context("forget a migrated volume")
    }

    async fn disk_snapshots(&self) -> Result<usize> {
        let told = self.world.control().disk(self.seed.disk.as_str()).await?;
        Ok(told["snapshots"].as_array().map_or(0, Vec::len))
    }

    /// A Snapshot of it fails and says all of that.
    async fn fails(&self, shop: &Namespace, words: &[&str]) -> Result<()> {
        let asked = shop.snapshot_of(&self.name, shop.repository()).await?;
        let seen = asked.wait_for(SnapshotPhase::SnapshotFailed).await?;
        let conditions = seen.status.map(|status| status.conditions).unwrap_or_default();
        let words: Vec<&str> = words.iter().copied().chain([Reason::MigrationUnknown.fix(), &self.path]).collect();
        explained(&self.world, shop.name(), &asked.name, &conditions, Reason::MigrationUnknown, &words).await?;
        ensure!(self.disk_snapshots().await? == 0, "a disk snapshot was taken");
        // one made by hand has no label that keeps it out of backups, where it is a blocked resource
        asked.api().delete(&asked.name, &DeleteParams::default()).await.map(drop).context("delete the Snapshot")
    }

    /// Takes claim, volume and disk away, as with a cluster that is lost.
    async fn is_lost(&self, shop: &Namespace) -> Result<()> {
        shop.claims().delete(&self.name, &DeleteParams::default()).await?;
        wait_until(&shop.claims(), &self.name, DEADLINE, "is gone", |c: Option<&PersistentVolumeClaim>| c.is_none())
            .await?;
        self.volumes().delete(&self.volume, &DeleteParams::default()).await?;
        wait_until(&self.volumes(), &self.volume, DEADLINE, "is gone", |volume| volume.is_none()).await?;
        self.world.control().remove_disk(self.seed.disk.as_str()).await
    }
}

/// Takes a claim and its volume away, and leaves the disk behind.
async fn leave_its_disk(world: &World, shop: &Namespace, claim: &str) -> Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(world.client());
    let made = shop.claims().get(claim).await?.spec.and_then(|spec| spec.volume_name).context("a volume")?;
    let keep = Patch::Merge(json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}}));
    volumes.patch(&made, &PatchParams::default(), &keep).await?;
    shop.claims().delete(claim, &DeleteParams::default()).await?;
    wait_until(&shop.claims(), claim, DEADLINE, "is gone", |claim: Option<&PersistentVolumeClaim>| claim.is_none())
        .await?;
    volumes.delete(&made, &DeleteParams::default()).await?;
    wait_until(&volumes, &made, DEADLINE, "is gone", |volume| volume.is_none()).await.map(drop)
}

/// The CSI driver records that a path is a disk. The record is called as it calls them, after the disk.
async fn record(world: &World, path: &str, disk: &str) -> Result<()> {
    let record = serde_json::from_value(json!({
        "apiVersion": "cns.vmware.com/v1alpha1", "kind": "CnsVSphereVolumeMigration",
        "metadata": {"name": disk}, "spec": {"volumepath": path, "volumeid": disk},
    }))?;
    records(world).create(&PostParams::default(), &record).await.map(drop).context("record a migrated volume")
}

fn records(world: &World) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("cns.vmware.com", "v1alpha1", "CnsVSphereVolumeMigration");
    Api::all_with(world.client(), &ApiResource::from_gvk_with_plural(&kind, "cnsvspherevolumemigrations"))
}

/// What the CSI driver installs where volumes may be migrated.
async fn definition(world: &World) -> Result<()> {
    let text = json!({"type": "string"});
    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": DEFINITION},
        "spec": {
            "group": "cns.vmware.com", "scope": "Cluster",
            "names": {"kind": "CnsVSphereVolumeMigration", "plural": "cnsvspherevolumemigrations", "singular": "cnsvspherevolumemigration"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {
                    "type": "object", "required": ["volumeid", "volumepath"], "properties": {"volumeid": text, "volumepath": text}}}}}}],
        },
    }))?;
    let definitions: Api<CustomResourceDefinition> = Api::all(world.client());
    definitions.create(&PostParams::default(), &definition).await?;
    let served = await_condition(definitions, DEFINITION, conditions::is_crd_established());
    tokio::time::timeout(DEADLINE, served).await.context("the definition is served")??;
    // it is established a moment before it answers
    until("its objects can be listed", || async { Ok(records(world).list(&ListParams::default()).await.is_ok()) }).await
}

async fn a_migrated_in_tree_volume_is_backed_up_restored_and_deleted_like_any_other(world: World) -> Result<()> {
    let shop = world.namespace("intree").await?;
    let old = Old::new(&world, &shop, "data", "ReadWriteOnce").await?;
    let outcome = async {
        left_alone_until_it_is_switched_on(&world, &shop, &old).await?;
        unclear_records_cost_no_more_than_the_backup(&world, &shop, &old).await?;
        backed_up_lost_and_restored(&world, &shop, &old).await
    };
    let outcome = outcome.await;
    let acts = [
        world.set(names::FEATURES, &json!({"csi-migrated-volume-support": null})).await,
        delete_if_there(&Api::<CustomResourceDefinition>::all(world.client()), DEFINITION).await,
    ];
    put_right(outcome, acts)
}

async fn left_alone_until_it_is_switched_on(world: &World, shop: &Namespace, old: &Old) -> Result<()> {
    let (velero, name) = (world.velero_server(), shop.name());
    let off = format!("{name}-off");
    velero.back_up(&off, name, &[]).await?;
    velero.backup_is(&off, "Completed").await?;
    let words = ["level=warning", &format!("claim {name}/data is left alone"), "csi-migrated-volume-support"];
    says(&velero.log(&off).await?, &words)?;
    ensure!(world.snapshots_of(&off).await?.is_empty(), "it was snapshotted");

    // without the definition there is no record: an error of this claim, and nothing crashes
    world.set(names::FEATURES, &json!({"csi-migrated-volume-support": "true"})).await?;
    let bare = format!("{name}-bare");
    velero.back_up(&bare, name, &[]).await?;
    velero.backup_is(&bare, "PartiallyFailed").await?;
    let words = ["level=error", "name=data", "MigrationUnknown", &format!("no definition {DEFINITION}"), &old.volume];
    says(&velero.log(&bare).await?, &words)
}

async fn unclear_records_cost_no_more_than_the_backup(world: &World, shop: &Namespace, old: &Old) -> Result<()> {
    definition(world).await?;
    let disk = old.seed.disk.as_str();
    old.fails(shop, &["none of 0 cnsvspherevolumemigrations"]).await?;
    old.recorded(&format!("{} ", old.path), disk).await?;
    old.fails(shop, &[&format!("one says `{} `", old.path)]).await?;
    old.not_recorded(disk).await?;
    let other = shop.claim("other").mib(1).create().await?;
    old.recorded(&old.path, disk).await?;
    old.recorded(&old.path, other.disk.as_str()).await?;
    old.fails(shop, &["different disks", disk, other.disk.as_str()]).await?;
    old.not_recorded(other.disk.as_str()).await?;
    other.delete().await
}

async fn backed_up_lost_and_restored(world: &World, shop: &Namespace, old: &Old) -> Result<()> {
    // the in-tree driver never looked at access modes, and a disk is read as a whole whatever they say
    let many = Old::new(world, shop, "many", "ReadWriteMany").await?;
    many.recorded(&many.path, many.seed.disk.as_str()).await?;
    let (before, velero, name) = (digest(&old.seed.file)?, world.velero_server(), shop.name());
    velero.back_up(name, name, &[]).await?;
    velero.backup_is(name, "Completed").await?;
    ensure!((old.disk_snapshots().await?, many.disk_snapshots().await?) == (0, 0), "disk snapshots are left");
    nothing_left(world, shop, 2).await?;

    swept_like_any_other(world, shop, old).await?;
    for lost in [old, &many] {
        lost.is_lost(shop).await?;
    }
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    for claim in ["data", "many"] {
        let back = Claim::bound(world, name, claim).await?; // a volume of the CSI driver
        ensure!(back.digest()? == before, "claim {claim} came back different");
        let volume = shop.claims().get(claim).await?.spec.and_then(|spec| spec.volume_name).context("a volume")?;
        ensure!(volume != old.volume && volume != many.volume, "the old volume came back without its disk");
    }
    nothing_left(world, shop, 2).await?;
    velero.delete(name).await?;
    velero.is_gone(name).await?;
    world.deletions_complete(name, 2).await?;
    nothing_left(world, shop, 0).await
}

/// A disk snapshot that a killed driver took of such a disk, and whose Snapshot was deleted, goes.
async fn swept_like_any_other(world: &World, shop: &Namespace, old: &Old) -> Result<()> {
    may_die_again(world);
    let outcome = async {
        restart_driver(world, &[DIES]).await?;
        let asked = shop.snapshot_of(&old.name, shop.repository()).await?;
        let died = world.ended(DRIVER).await;
        asked.api().delete(&asked.name, &DeleteParams::default()).await?;
        died.context("the driver never took the disk snapshot")?;
        ensure!(old.disk_snapshots().await? == 1, "no disk snapshot to sweep");
        world.start_process_with(DRIVER, &[("ORPHAN_GRACE_SECONDS", "1")]).await?;
        until("the disk snapshot that nobody owns is gone", || async { Ok(old.disk_snapshots().await? == 0) }).await
    };
    let outcome = outcome.await;
    may_die_again(world);
    let _ = world.kill(DRIVER).await; // it may have died
    put_right(outcome, [world.start_process(DRIVER).await])
}

/// A class whose volumes this scenario makes itself, in the form of the in-tree driver.
const BY_HAND: &str = "intree-by-hand";
/// What the records of the CSI driver need.
const MIGRATIONS: &str = "cnsvspherevolumemigrations";

async fn a_restore_whose_disk_nobody_may_tell_says_so_ends_in_time_and_works_the_next_time(world: World) -> Result<()> {
    let shop = world.namespace("notold").await?;
    let (claim, seed) = (shop.claim("data").mib(2).create().await?, shop.claim("seed").mib(2).create().await?);
    claim.fill_random(307)?;
    let taken = shop.snapshot(&claim).await?.wait_for(SnapshotPhase::Uploaded).await?;
    leave_its_disk(&world, &shop, "seed").await?;
    let classes: Api<StorageClass> = Api::all(world.client());
    let class = serde_json::from_value(json!({
        "metadata": {"name": BY_HAND}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "Immediate",
    }))?;
    classes.create(&PostParams::default(), &class).await?;
    let whole = cut_the_records(&world).await?;
    let outcome = async {
        not_told(&world, &shop, &taken).await?;
        let_the_records_be_read(&world, &whole).await?;
        definition(&world).await?;
        told(&world, &shop, &taken, &seed, &claim.digest()?).await
    };
    let outcome = outcome.await;
    let acts = [
        let_the_records_be_read(&world, &whole).await,
        delete_if_there(&Api::<CustomResourceDefinition>::all(world.client()), DEFINITION).await,
        delete_if_there(&classes, BY_HAND).await,
    ];
    put_right(outcome, acts)
}

const ROLE: &str = "velero-vsphere:backup-driver";

/// The driver may not read the records any more. Gives the rules of its role as they were.
pub(super) async fn cut_the_records(world: &World) -> Result<Vec<PolicyRule>> {
    let roles: Api<ClusterRole> = Api::all(world.client());
    let whole = roles.get(ROLE).await?.rules.context("rules")?;
    let lists = |rule: &PolicyRule| rule.resources.as_deref() == Some(&[MIGRATIONS.to_owned()]);
    ensure!(whole.iter().any(lists), "the role has a rule for the records");
    let cut: Vec<_> = whole.iter().filter(|rule| !lists(rule)).cloned().collect();
    let_the_records_be_read(world, &cut).await?;
    Ok(whole)
}

/// Gives the driver's role these rules.
pub(super) async fn let_the_records_be_read(world: &World, rules: &[PolicyRule]) -> Result<()> {
    let roles: Api<ClusterRole> = Api::all(world.client());
    let patch = Patch::Merge(json!({"rules": rules}));
    roles.patch(ROLE, &PatchParams::default(), &patch).await.map(drop).context("write a role")
}

/// A volume in the in-tree form, of 2 MiB.
pub(super) fn in_tree(name: &str, path: &str, class: &str, claim: Option<(&str, &str)>) -> Result<PersistentVolume> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": {labels::MIGRATED_TO: labels::CSI_DRIVER}},
        "spec": {
            "capacity": {"storage": "2Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": claim.map(|(namespace, name)| json!({"namespace": namespace, "name": name})),
            "vsphereVolume": {"volumePath": path, "fsType": "ext4"},
        },
    }))?)
}

/// A restore, and the volume in the in-tree form that its scratch claim gets.
async fn restored_by_hand(world: &World, shop: &Namespace, taken: &Snapshot, path: &str) -> Result<(Clone, String)> {
    let status = taken.status.as_ref().context("status")?;
    let mut wanted = status.metadata.as_ref().context("metadata")?.claim()?;
    wanted.metadata.name = Some("back".to_owned());
    wanted.spec.get_or_insert_default().storage_class_name = Some(BY_HAND.to_owned());
    let id = status.snapshot_id.as_ref().context("an id")?;
    let clone = shop.clone_with(id, &wanted, shop.repository()).await?;
    let uid = clone.api().get(&clone.name).await?.metadata.uid.context("a uid")?;
    let (scratch, volume) = (format!("restore-{uid}"), format!("intree-{uid}"));
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.client(), world.velero());
    wait_until(&claims, &scratch, DEADLINE, "is there", |claim| claim.is_some()).await?;
    let made = in_tree(&volume, path, BY_HAND, Some((world.velero(), &scratch)))?;
    Api::<PersistentVolume>::all(world.client()).create(&PostParams::default(), &made).await?;
    Ok((clone, volume))
}

/// Our account may not list the records: the restore says so within a minute, and a quarter of an hour later it is over.
async fn not_told(world: &World, shop: &Namespace, taken: &Snapshot) -> Result<()> {
    let (clone, volume) = restored_by_hand(world, shop, taken, "[lab ds] kubevols/untold.vmdk").await?;
    let said = |c: Option<&CloneFromSnapshot>| {
        c.and_then(|c| c.status.as_ref()).is_some_and(|s| s.conditions.iter().any(|c| c.type_ == DISK_KNOWN))
    };
    let waits = wait_until(&clone.api(), &clone.name, DEADLINE, "says that the disk is not known", said).await?;
    let mut all = waits.and_then(|c| c.status).context("a status")?.conditions;
    let words = [MIGRATIONS, &volume, Reason::ClusterForbidden.fix()];
    explained(world, shop.name(), &clone.name, &all, Reason::ClusterForbidden, &words).await?;

    let long_ago = k8s_openapi::jiff::SignedDuration::from_mins(15);
    let told = all.iter_mut().find(|c| c.type_ == DISK_KNOWN).context("since when")?;
    told.last_transition_time.0 -= long_ago;
    let patch = Patch::Merge(json!({"status": {"conditions": all}}));
    clone.api().patch_status(&clone.name, &PatchParams::default(), &patch).await?;
    reclaim(world, &volume).await?;
    let ended = clone.wait_for(ClonePhase::Failed).await?.status.context("a status")?;
    let ready = ended.conditions.iter().find(|c| c.type_ == READY).context("why it failed")?;
    let words = [MIGRATIONS, "15 minutes", "then restore again"];
    ensure!(ready.reason == Reason::ClusterForbidden.as_str(), "it says {ready:?}");
    ensure!(words.iter().all(|word| ready.message.contains(word)), "it says {ready:?}");
    ensure!(clone.download().await.is_err(), "a Download was made for a disk that nobody knows");
    ensure!(shop.claims().get_opt("back").await?.is_none(), "a claim without its data was made");
    nothing_left(world, shop, 1).await
}

/// Deletes a volume once its claim is gone, as the CSI driver would.
async fn reclaim(world: &World, volume: &str) -> Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(world.client());
    let is_released = |v: Option<&PersistentVolume>| {
        v.and_then(|v| v.status.as_ref()?.phase.as_deref()).is_none_or(|p| matches!(p, "Released" | "Failed"))
    };
    wait_until(&volumes, volume, DEADLINE, "is let go", is_released).await?;
    delete_if_there(&volumes, volume).await?;
    // the volume controller keeps it until its driver has removed the disk
    let removed = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    match volumes.patch(volume, &PatchParams::default(), &removed).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        patched => Ok(patched.map(drop)?),
    }
}

/// The same restore, once the records can be read.
async fn told(world: &World, shop: &Namespace, taken: &Snapshot, seed: &Claim, want: &str) -> Result<()> {
    let path = "[lab ds] kubevols/told.vmdk";
    record(world, path, seed.disk.as_str()).await?;
    let (clone, volume) = restored_by_hand(world, shop, taken, path).await?;
    let ended = clone.wait_for(ClonePhase::Completed).await?.status.context("a status")?;
    let disk = ended.resource_handle.map(|handle| handle.name);
    ensure!(disk == Some(format!("ivd:{}", seed.disk)), "it says that it has written {disk:?}");
    ensure!(digest(&seed.file)? == want, "it came back different");
    shop.claims().delete("back", &DeleteParams::default()).await?;
    reclaim(world, &volume).await?;
    nothing_left(world, shop, 1).await
}
