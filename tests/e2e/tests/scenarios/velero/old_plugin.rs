//! Backups of plugin 1.0.2 and older (M-9-8): Velero itself knew their disks, by the VolumeSnapshotter `velero.io/vsphere`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use api::entity::PvcSnapshotId;
use api::{Download, Reason, SnapshotPhase, labels};
use e2e::{Claim, DEADLINE, Namespace, World, nothing_left, wait_until};
use k8s_openapi::api::core::v1::Namespace as KubernetesNamespace;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::lose;

crate::scenarios![a_backup_of_plugin_1_0_2_comes_back_with_its_disk_and_goes_with_it];

/// A backup as plugin 1.0.2 has left it: the disk in the original's layout, and its id in Velero's own list of snapshots.
struct OldBackup {
    /// The folder of the bucket on the S3 server's own disk.
    bucket: PathBuf,
    /// `ivd:<disk>:<disk snapshot>`
    id: String,
}

impl OldBackup {
    async fn of(world: &World, shop: &Namespace, claim: &Claim) -> Result<Self> {
        let legacy = shop.repository_with(&[("repositoryFormat", "legacy")]).await?;
        let uploaded = shop.snapshot_of(&claim.name, &legacy).await?;
        let written = uploaded.wait_for(SnapshotPhase::Uploaded).await?;
        let id = written.status.and_then(|status| status.snapshot_id).context("an id")?;
        let id = format!("ivd:{}", id.parse::<PvcSnapshotId>()?.disk_snapshot);
        uploaded.api().delete(&uploaded.name, &DeleteParams::default()).await?;
        // plugin 1.0.2 left claims as they are: so does ours in a backup without snapshots
        let (velero, name) = (world.velero_server(), shop.name());
        let volume =
            shop.claims().get(&claim.name).await?.spec.and_then(|spec| spec.volume_name).context("a volume")?;
        velero.back_up(name, name, &["--snapshot-volumes=false"]).await?;
        velero.backup_is(name, "Completed").await?;
        velero.run(&["snapshot-location", "create", name, "--provider", "velero.io/vsphere"]).await?;
        let old = Self { bucket: world.folder().join("s3").join(world.var("S3_BUCKET")), id };
        old.listed_by_velero(world, name, &volume).await?;
        Ok(old)
    }

    /// Velero of that time noted the snapshots of a backup, and nothing else about its volumes.
    async fn listed_by_velero(&self, world: &World, backup: &str, volume: &str) -> Result<()> {
        let folder = self.bucket.join("backups").join(backup);
        let listed = json!([{
            "spec": {
                "backupName": backup, "backupUID": "0b7c1a52-9f0e-4d57-8a33-1c2d3e4f5a6b", "location": backup,
                "persistentVolumeName": volume, "providerVolumeID": "", "volumeType": "ivd", "volumeAZ": "", "volumeIOPS": 100,
            },
            "status": {"providerSnapshotID": self.id, "phase": "Completed"},
        }]);
        let file = folder.join(format!("{backup}-volumesnapshots.json"));
        std::fs::write(&file, listed.to_string())?;
        world.run("gzip", &["-f", file.to_str().context("a path in UTF-8")?]).await?;
        std::fs::remove_file(folder.join(format!("{backup}-volumeinfo.json.gz")))
            .context("what newer ones note besides")
    }

    /// The objects of the disk that there are.
    fn objects(&self) -> Result<Vec<PathBuf>> {
        let ivd = self.bucket.join("plugins/vsphere-astrolabe-repo/ivd");
        let mut found = vec![ivd.join("peinfo").join(&self.id)];
        for (folder, ending) in [("data", "data"), ("md", "md")] {
            let stream = ivd.join(folder).join(format!("{}.{ending}", self.id));
            if stream.is_dir() {
                for object in std::fs::read_dir(stream)? {
                    found.push(object?.path());
                }
            }
        }
        found.retain(|object| object.is_file());
        Ok(found)
    }
}

/// Disks that were made for backups of old versions.
async fn made_disks(world: &World) -> Result<Vec<String>> {
    let known = world.control().disks().await?;
    let known = known.as_array().context("a list of disks")?;
    let ours =
        known.iter().filter(|disk| disk["name"].as_str().is_some_and(|name| name.starts_with("velero-restore-")));
    Ok(ours.filter_map(|disk| disk["id"].as_str().map(str::to_owned)).collect())
}

async fn a_backup_of_plugin_1_0_2_comes_back_with_its_disk_and_goes_with_it(world: World) -> Result<()> {
    world.nodes_name_their_machines().await?;
    let shop = world.namespace("vold").await?;
    let claim = shop.claim("data").mib(21).create().await?;
    claim.write_random(61, 0, 1 << 20)?;
    claim.write_random(62, 20 << 20, 1 << 20)?;
    let before = claim.digest()?;
    let old = OldBackup::of(&world, &shop, &claim).await?;
    ensure!(old.objects()?.len() == 3, "data, description and peinfo: {:?}", old.objects()?);
    lose(std::slice::from_ref(&claim)).await?;
    let others = made_disks(&world).await?;

    a_lost_segment_makes_no_disk(&world, &shop, &old).await?;
    ensure!(made_disks(&world).await? == others, "a disk was made");

    let (velero, name) = (world.velero_server(), shop.name());
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    let back = Claim::bound(&world, name, "data").await?;
    ensure!(back.disk != claim.disk && back.digest()? == before, "it came back different");
    ensure!(made_disks(&world).await?.contains(&back.disk.to_string()), "its volume names another disk");
    let downloads: Api<Download> = Api::namespaced(world.client(), world.velero());
    let target = format!("ivd:{}", back.disk);
    let all = downloads.list(&ListParams::default()).await?;
    let of_it = all.iter().find(|d| d.spec.protected_entity_id.as_deref() == Some(&target)).context("its Download")?;
    let is_used = |seen: Option<&Download>| {
        let owner = seen.and_then(|d| d.metadata.annotations.as_ref()?.get(labels::NEW_DISK));
        owner.is_some_and(|owner| owner == "used")
    };
    wait_until(&downloads, &of_it.name_any(), DEADLINE, "says that a volume has the disk", is_used).await?;
    nothing_left(&world, &shop, 0).await?;

    velero.delete(name).await?;
    velero.is_gone(name).await?;
    ensure!(old.objects()?.is_empty(), "still there: {:?}", old.objects()?);
    ensure!(back.digest()? == before, "the restored disk went with its backup");
    lose(&[back]).await // and the disk with it: it is a volume like any other
}

async fn a_lost_segment_makes_no_disk(world: &World, shop: &Namespace, old: &OldBackup) -> Result<()> {
    let (velero, name) = (world.velero_server(), format!("{}-gap", shop.name()));
    let objects = old.objects()?;
    let segment = objects.iter().find(|object| object.to_string_lossy().contains(".data/")).context("a segment")?;
    let aside = world.folder().join(format!("{name}-segment"));
    std::fs::rename(segment, &aside)?;
    velero.restore(&name, shop.name(), &["--namespace-mappings", &format!("{}:{name}", shop.name())]).await?;
    let ended = velero.restore_is(&name, "PartiallyFailed").await;
    std::fs::rename(&aside, segment)?;
    ended?;
    let told = velero.describe_restore(&name).await?;
    for word in [Reason::OldBackupIncomplete.as_str(), Reason::OldBackupIncomplete.fix(), &old.id] {
        ensure!(told.contains(word), "it does not say `{word}`:\n{told}");
    }
    Api::<KubernetesNamespace>::all(world.client()).delete(&name, &DeleteParams::default()).await?;
    Ok(())
}
