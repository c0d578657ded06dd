//! Disks for backups of plugin 1.0.2 and older which nobody takes, or which Velero takes and gives to no volume.

use anyhow::{Context as _, Result, ensure};
use api::conditions::{self, DISK_REMOVED, READY};
use api::{Download, DownloadPhase, Reason, labels, names};
use e2e::{DEADLINE, Namespace, World, delete_if_there, nothing_left, put_right, wait_until, warned};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::DATA_MANAGERS;
use super::migrated::{cut_the_records, in_tree, let_the_records_be_read};
use super::orphans::{restart_driver, until};
use crate::original::{OldBackup, downloads, ended};

crate::scenarios![
    a_disk_that_velero_took_and_gave_to_no_volume_goes_and_one_that_had_a_volume_stays,
    a_node_that_does_not_let_go_of_a_disk_that_nobody_takes_is_told_of,
    a_request_that_is_deleted_while_its_disk_is_made_leaves_none,
    of_two_disks_that_vcenter_made_for_one_request_none_is_left_over,
    a_disk_stays_as_long_as_nobody_can_tell_whether_a_volume_has_it,
];

const DRIVER: &str = "backup-driver";

/// A backup of plugin 1.0.2.
async fn old_backup(world: &World, prefix: &str) -> Result<(Namespace, OldBackup)> {
    world.nodes_name_their_machines().await?;
    let shop = world.namespace(prefix).await?;
    let claim = shop.claim("data").mib(2).create().await?;
    claim.fill_random(98)?;
    let old = OldBackup::of(world, &shop, &claim, 1 << 20).await?;
    Ok((shop, old))
}

/// Says who answers for the disk, as the plugin does.
async fn say(world: &World, name: &str, owner: &str) -> Result<()> {
    let said = json!({"metadata": {"annotations": {labels::NEW_DISK: owner}}});
    downloads(world).patch(name, &PatchParams::default(), &Patch::Merge(said)).await?;
    Ok(())
}

/// Waits until that is who answers for the disk.
async fn is_said(world: &World, name: &str, owner: &str) -> Result<Download> {
    let said = |seen: Option<&Download>| {
        seen.and_then(|d| d.metadata.annotations.as_ref()?.get(labels::NEW_DISK)).is_some_and(|said| said == owner)
    };
    let seen = wait_until(&downloads(world), name, DEADLINE, &format!("says `{owner}`"), said).await?;
    seen.context("a Download")
}

fn disk_of(download: &Download) -> Result<String> {
    let id = download.spec.protected_entity_id.as_deref().context("a disk")?;
    Ok(id.trim_start_matches("ivd:").to_owned())
}

/// Asks as the plugin does, and waits until the disk is written.
async fn written(world: &World, shop: &Namespace, old: &OldBackup) -> Result<(String, String)> {
    let name = old.in_a_new_disk(world, shop, Some("awaited")).await?;
    let seen = ended(world, &name).await?;
    ensure!(seen.phase() == Some(&DownloadPhase::Completed), "it is {:#?}", seen.status);
    Ok((name, disk_of(&seen)?))
}

/// A volume of that disk, as Velero brings one back, and as an administrator keeps one.
struct Volume {
    api: Api<PersistentVolume>,
    name: String,
}

impl Volume {
    async fn of(world: &World, shop: &Namespace, disk: &str) -> Result<Self> {
        let (api, name): (Api<PersistentVolume>, _) = (Api::all(world.client()), format!("{}-{disk}", shop.name()));
        let volume = json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "2Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": name,
                "persistentVolumeReclaimPolicy": "Retain",
                "csi": {"driver": labels::CSI_DRIVER, "volumeHandle": disk, "fsType": "ext4"},
            },
        });
        api.create(&PostParams::default(), &serde_json::from_value(volume)?).await?;
        Ok(Self { api, name })
    }

    async fn delete(self) -> Result<()> {
        self.api.delete(&self.name, &DeleteParams::default()).await?;
        wait_until(&self.api, &self.name, DEADLINE, "is gone", |volume| volume.is_none()).await.map(drop)
    }
}

/// Ids of the disks that were made for that Download.
async fn made_for(world: &World, uid: &str) -> Result<Vec<String>> {
    let (all, name) = (world.control().disks().await?, format!("velero-restore-{uid}"));
    let all = all.as_array().context("the double lists its disks")?;
    Ok(all.iter().filter(|disk| disk["name"] == name).filter_map(|d| d["id"].as_str().map(str::to_owned)).collect())
}

/// M-9-8: Velero was killed after it took the disk. The same disk with a volume of the policy Retain that was deleted since is somebody's.
async fn a_disk_that_velero_took_and_gave_to_no_volume_goes_and_one_that_had_a_volume_stays(
    world: World,
) -> Result<()> {
    let (shop, old) = old_backup(&world, "took").await?;
    let (lost, lost_disk) = written(&world, &shop, &old).await?;
    let (kept, kept_disk) = written(&world, &shop, &old).await?;
    let (used, used_disk) = written(&world, &shop, &old).await?;
    let volume = Volume::of(&world, &shop, &used_disk).await?;
    for name in [&lost, &kept, &used] {
        say(&world, name, "taken").await?;
    }
    is_said(&world, &used, "used").await?;
    let of_kept = Volume::of(&world, &shop, &kept_disk).await?;
    is_said(&world, &kept, "used").await?;
    of_kept.delete().await?;

    restart_driver(&world, &[("LEFTOVERS_SECONDS", "1"), ("ORPHAN_AGE_SECONDS", "1")]).await?;
    let outcome = async {
        is_said(&world, &lost, "removed").await?;
        ensure!(world.control().disk(&lost_disk).await.is_err(), "it says so, and the disk is there");
        let counted = "vsphere_backup_orphans_removed_total{kind=\"new-disk\",component=\"backup-driver\"} 1";
        let metrics = world.metrics(DRIVER).await?;
        ensure!(metrics.contains(counted), "no {counted} in\n{metrics}");
        world
            .control()
            .disk(&kept_disk)
            .await
            .context("its volume was deleted, the policy says that the disk stays")?;
        world.control().disk(&used_disk).await.context("a volume has it")
    };
    let outcome = outcome.await;
    restart_driver(&world, &[]).await?;
    outcome?;
    volume.delete().await?;
    for name in [&lost, &kept, &used] {
        downloads(&world).delete(name, &DeleteParams::default()).await?;
    }
    for disk in [&kept_disk, &used_disk] {
        world.control().remove_disk(disk).await?;
    }
    nothing_left(&world, &shop, 0).await
}

async fn a_node_that_does_not_let_go_of_a_disk_that_nobody_takes_is_told_of(world: World) -> Result<()> {
    let (shop, old) = old_backup(&world, "stuckdisk").await?;
    for name in DATA_MANAGERS {
        world.kill(name).await?; // nobody writes but the one that we play
    }
    let outcome = stuck(&world, &shop, &old).await;
    for name in DATA_MANAGERS {
        world.start_process(name).await?;
    }
    outcome?;
    nothing_left(&world, &shop, 0).await
}

async fn stuck(world: &World, shop: &Namespace, old: &OldBackup) -> Result<()> {
    let has_disk = |seen: Option<&Download>| seen.is_some_and(|d| d.spec.protected_entity_id.is_some());
    let mut asked = Vec::new();
    for _ in 0..2 {
        let name = old.in_a_new_disk(world, shop, Some("awaited")).await?;
        let seen = wait_until(&downloads(world), &name, DEADLINE, "has a disk", has_disk).await?;
        asked.push((name, disk_of(&seen.context("a Download")?)?));
    }
    let [(stuck, stuck_disk), (other, other_disk)] = &asked[..] else { anyhow::bail!("two, not {asked:?}") };
    let leases: Api<Lease> = Api::namespaced(world.client(), world.velero());
    let lease = names::download_lease(stuck);
    let held = json!({
        "metadata": {"name": lease},
        "spec": {"holderIdentity": "node-stuck", "leaseDurationSeconds": 3600},
    });
    leases.create(&PostParams::default(), &serde_json::from_value(held)?).await?;
    for name in [stuck, other] {
        say(world, name, "given-up").await?;
    }
    world.control().disk_goes(other_disk).await.context("the other node's disk")?;

    let is_told = |seen: Option<&Download>| {
        seen.and_then(|d| d.status.as_ref()).is_some_and(|s| conditions::get(&s.conditions, DISK_REMOVED).is_some())
    };
    let told = wait_until(&downloads(world), stuck, DEADLINE, "says why the disk stays", is_told).await?;
    let conditions = told.and_then(|d| d.status).context("a status")?.conditions;
    let why = conditions::get(&conditions, DISK_REMOVED).context("a condition")?;
    let (reason, words) = (Reason::NotStopping, ["node-stuck", Reason::NotStopping.fix()]);
    ensure!(why.reason == reason.as_str() && words.iter().all(|word| why.message.contains(word)), "it says {why:?}");
    warned(world, world.velero(), stuck, reason, &words).await?;
    let ready = conditions::get(&conditions, READY).context("a condition")?;
    ensure!(ready.reason == Reason::Canceled.as_str(), "why the disk is not wanted is said no more: {ready:?}");
    world.control().disk(stuck_disk).await.context("the disk while a node holds it")?;

    leases.delete(&lease, &DeleteParams::default()).await?;
    world.control().disk_goes(stuck_disk).await.context("its node has let go")?;
    let removed = is_said(world, stuck, "removed").await?;
    let conditions = removed.status.map(|status| status.conditions).unwrap_or_default();
    ensure!(conditions::get(&conditions, DISK_REMOVED).is_none(), "it says still that the disk stays: {conditions:?}");
    for name in [stuck, other] {
        downloads(world).delete(name, &DeleteParams::default()).await?;
    }
    Ok(())
}

/// The deletion comes when there is no disk yet, and the disk when there is no Download any more.
async fn a_request_that_is_deleted_while_its_disk_is_made_leaves_none(world: World) -> Result<()> {
    let (shop, old) = old_backup(&world, "deldisk").await?;
    let asked = old.in_a_new_disk(&world, &shop, Some("awaited")).await?;
    let uid = downloads(&world).get(&asked).await?.uid().context("a uid")?;
    let disk = format!("velero-restore-{uid}");
    let late = json!({"method": "CnsCreateVolume", "disk": disk, "where": "task", "delayMs": 4000, "count": 1});
    let rule = world.control().fault(&late).await?;
    let begun = |seen: Option<&Download>| {
        let ready = seen.and_then(|d| conditions::get(&d.status.as_ref()?.conditions, READY));
        ready.is_some_and(|ready| ready.reason == Reason::Provisioning.as_str())
    };
    wait_until(&downloads(&world), &asked, DEADLINE, "is begun", begun).await?;
    downloads(&world).delete(&asked, &DeleteParams::default()).await?;
    let removed = async |word: &str| {
        let log = world.logs(DRIVER).await?;
        anyhow::Ok(log.lines().any(|line| line.contains(&disk) && line.contains(word)))
    };
    let outcome = until("the disk is made and removed", || removed("deleted a disk that nobody takes")).await;
    world.control().fault_is_over(&rule).await?;
    outcome?;
    let left = made_for(&world, &uid).await?;
    ensure!(left.is_empty(), "disks that nobody will remove: {left:?}");
    nothing_left(&world, &shop, 0).await
}

/// The answer to the first request is lost, and its disk comes only when a second one was asked for.
async fn of_two_disks_that_vcenter_made_for_one_request_none_is_left_over(world: World) -> Result<()> {
    let (shop, old) = old_backup(&world, "twodisks").await?;
    for owner in ["given-up", "taken"] {
        two_disks(&world, &shop, &old, owner).await.with_context(|| format!("the restore is {owner}"))?;
    }
    nothing_left(&world, &shop, 0).await
}

async fn two_disks(world: &World, shop: &Namespace, old: &OldBackup, owner: &str) -> Result<()> {
    let asked = old.in_a_new_disk(world, shop, Some("awaited")).await?;
    let uid = downloads(world).get(&asked).await?.uid().context("a uid")?;
    let of_it = |rule: serde_json::Value| {
        let mut rule = rule;
        rule["method"] = "CnsCreateVolume".into();
        rule["disk"] = format!("velero-restore-{uid}").into();
        rule["count"] = 1.into();
        rule
    };
    world.control().fault(&of_it(json!({"lostReply": true}))).await?;
    world.control().fault(&of_it(json!({"where": "task", "delayMs": 15_000}))).await?;
    let seen = ended(world, &asked).await?;
    ensure!(seen.phase() == Some(&DownloadPhase::Completed), "it is {:#?}", seen.status);
    let disk = disk_of(&seen)?;
    until("vCenter has two disks", || async { Ok(made_for(world, &uid).await?.len() == 2) }).await?;
    say(world, &asked, owner).await?;
    if owner == "taken" {
        let volume = Volume::of(world, shop, &disk).await?;
        is_said(world, &asked, "used").await?;
        until("the other one is gone", || async { Ok(made_for(world, &uid).await?.len() < 2) }).await?;
        ensure!(made_for(world, &uid).await? == [disk.clone()], "the volume's disk is gone");
        volume.delete().await?;
        world.control().remove_disk(&disk).await?;
    } else {
        is_said(world, &asked, "removed").await?;
        let left = made_for(world, &uid).await?;
        ensure!(left.is_empty(), "disks that nobody will remove: {left:?}");
    }
    downloads(world).delete(&asked, &DeleteParams::default()).await.map(drop).context("delete the Download")
}

/// A volume of the in-tree driver is there, and its record may not be read: it may be the one that has the disk. And a node that no
/// virtual machine stands behind, which the disk was made without.
async fn a_disk_stays_as_long_as_nobody_can_tell_whether_a_volume_has_it(world: World) -> Result<()> {
    let (shop, old) = old_backup(&world, "untold").await?;
    let nodes: Api<Node> = Api::all(world.client());
    let stranger = format!("{}-node", shop.name());
    nodes.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": stranger}}))?).await?;
    let volumes: Api<PersistentVolume> = Api::all(world.client());
    let volume = in_tree(shop.name(), "[lab ds] kubevols/unread.vmdk", shop.name(), None)?;
    volumes.create(&PostParams::default(), &volume).await?;
    let whole = cut_the_records(&world).await?;
    let outcome = stays(&world, &shop, &old, &stranger).await;
    let acts = [
        let_the_records_be_read(&world, &whole).await,
        delete_if_there(&volumes, shop.name()).await,
        delete_if_there(&nodes, &stranger).await,
    ];
    let (name, disk) = put_right(outcome, acts)?;
    world.control().disk_goes(&disk).await.context("no volume has it, as can be told now")?;
    is_said(&world, &name, "removed").await?;
    downloads(&world).delete(&name, &DeleteParams::default()).await?;
    nothing_left(&world, &shop, 0).await
}

/// The Download and its disk, which nobody takes and which is there all the same.
async fn stays(world: &World, shop: &Namespace, old: &OldBackup, stranger: &str) -> Result<(String, String)> {
    let (name, disk) = written(world, shop, old).await?;
    warned(world, world.velero(), &name, Reason::NodesLeftOut, &[stranger, "spec.providerID"]).await?;
    say(world, &name, "given-up").await?;
    let words = ["cnsvspherevolumemigrations", Reason::ClusterForbidden.fix()];
    warned(world, world.velero(), &name, Reason::ClusterForbidden, &words).await?;
    let conditions = downloads(world).get(&name).await?.status.context("a status")?.conditions;
    let why = conditions::get(&conditions, DISK_REMOVED).context("a condition")?;
    ensure!(why.status == "False" && why.reason == Reason::ClusterForbidden.as_str(), "it says {why:?}");
    world.control().disk(&disk).await.context("the disk, as long as nobody can tell")?;
    Ok((name, disk))
}
