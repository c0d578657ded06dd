//! Backups in the original's layout: those that it made, laid into the bucket object by object, and those that we write there.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use api::entity::{DiskEntity, PvcSnapshotId};
use api::{
    ClonePhase, DeletePhase, DeleteSnapshot, DeleteSnapshotSpec, Download, DownloadPhase, DownloadSpec, Reason,
    SnapshotPhase, labels,
};
use disk::DiskSnapshot;
use e2e::{Claim, DEADLINE, Disks, Namespace, World, asked, digest, explained, nothing_left, wait_until};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use uuid::Uuid;

crate::scenarios![
    a_backup_of_the_original_comes_back_byte_for_byte_and_keeps_its_holes,
    a_backup_of_the_original_without_one_segment_makes_no_volume,
    a_deleted_backup_of_the_original_leaves_nothing_in_the_bucket,
    a_backup_written_in_the_originals_layout_can_be_read_there_restored_and_deleted,
    an_upload_in_the_originals_layout_that_is_cancelled_leaves_nothing,
    a_disk_that_is_asked_for_by_hand_is_made_and_written_and_stays,
    a_disk_that_nobody_takes_goes,
];

/// A backup as the original leaves it in the bucket.
pub(crate) struct OldBackup {
    /// `pvc:<namespace>/<claim>:…`
    id: String,
    /// `ivd:<disk>:<disk snapshot>`
    entity: String,
    /// The folder `ivd` on the S3 server's own disk.
    folder: PathBuf,
    /// The claim as the original noted it.
    claim: PersistentVolumeClaim,
}

impl OldBackup {
    /// Lays the disk of a claim there, cut at `cut` bytes. The claim stays.
    pub(crate) async fn of(world: &World, shop: &Namespace, claim: &Claim, cut: usize) -> Result<Self> {
        let disk_snapshot = DiskSnapshot { disk: claim.disk.clone(), snapshot: Uuid::new_v4().to_string().parse()? };
        let old = Self::at(world, shop, claim, disk_snapshot).await?;
        let bytes = std::fs::read(&claim.file)?;
        put(&old.data().join("000000-0000000000000000"), &bytes[..cut])?;
        put(&old.data().join(format!("000001-{cut:016}")), &bytes[cut..])?;
        put(&old.description().join("000000-0000000000000000"), description(bytes.len() >> 20).as_bytes())?;
        put(&old.peinfo(), peinfo(&old.entity).as_bytes())?;
        Ok(old)
    }

    /// Where the backup of a disk snapshot lies, whether it does or not.
    async fn at(world: &World, shop: &Namespace, claim: &Claim, disk_snapshot: DiskSnapshot) -> Result<Self> {
        let entity = format!("ivd:{disk_snapshot}");
        let id = PvcSnapshotId { namespace: claim.namespace.clone(), claim: claim.name.clone(), disk_snapshot };
        let ours = world.repository_folder(shop.name());
        let bucket = ours.ancestors().nth(3).context("a repository lies three folders deep in its bucket")?;
        let folder = bucket.join("plugins/vsphere-astrolabe-repo/ivd");
        let mut noted = shop.claims().get(&claim.name).await?;
        noted.metadata.name = Some("back".to_owned());
        Ok(Self { id: id.to_string(), entity, folder, claim: noted })
    }

    /// The objects of it that there are.
    fn objects(&self) -> Result<Vec<PathBuf>> {
        let mut found = vec![self.peinfo()];
        for folder in [self.data(), self.description()] {
            if folder.is_dir() {
                for object in std::fs::read_dir(folder)? {
                    found.push(object?.path());
                }
            }
        }
        found.retain(|object| object.is_file());
        Ok(found)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data").join(format!("{}.data", self.entity))
    }

    fn description(&self) -> PathBuf {
        self.folder.join("md").join(format!("{}.md", self.entity))
    }

    fn peinfo(&self) -> PathBuf {
        self.folder.join("peinfo").join(&self.entity)
    }

    async fn restore(&self, shop: &Namespace) -> Result<e2e::Clone> {
        shop.clone_with(&self.id, &self.claim, shop.repository()).await
    }
}

fn put(file: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::create_dir_all(file.parent().context("a folder")?)?;
    Ok(std::fs::write(file, bytes)?)
}

fn description(mib: usize) -> String {
    format!(
        "  <metadata>\n      <virtualStorageObject>\n          <config>\n              <capacityInMB>{mib}</capacityInMB>\n          \
         </config>\n      </virtualStorageObject>\n  </metadata>"
    )
}

fn peinfo(entity: &str) -> String {
    format!(
        r#"{{"combinedTransports":[],"componentSpecs":[],"dataTransports":[{{"params":{{}},"transportType":"s3"}}],"id":"{entity}","metadataTransports":[{{"params":{{}},"transportType":"s3"}}],"name":"pvc-old"}}"#
    )
}

/// A claim of 24 MiB with data in its first and last MiB and in between.
async fn claim_with_holes(shop: &Namespace) -> Result<Claim> {
    let claim = shop.claim("data").mib(24).create().await?;
    for (seed, mib) in [(81, 0), (82, 11), (83, 23)] {
        claim.write_random(seed, mib << 20, 1 << 20)?;
    }
    Ok(claim)
}

async fn a_backup_of_the_original_comes_back_byte_for_byte_and_keeps_its_holes(world: World) -> Result<()> {
    let shop = world.namespace("oldback").await?;
    let claim = claim_with_holes(&shop).await?;
    // the cut lies within what is one chunk to us
    let old = OldBackup::of(&world, &shop, &claim, (11 << 20) + 4096).await?;
    let before = claim.digest()?;
    let clone = old.restore(&shop).await?;
    clone.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(&world, shop.name(), "back").await?;
    ensure!(back.disk != claim.disk && back.digest()? == before, "it came back different");
    ensure!(back.allocated()? <= 4 << 20, "holes were written: {} bytes are allocated", back.allocated()?);
    nothing_left(&world, &shop, 0).await
}

async fn a_backup_of_the_original_without_one_segment_makes_no_volume(world: World) -> Result<()> {
    let shop = world.namespace("oldgap").await?;
    let claim = claim_with_holes(&shop).await?;
    let old = OldBackup::of(&world, &shop, &claim, 8 << 20).await?;
    let lost = old.data().join(format!("000001-{:016}", 8 << 20));
    std::fs::remove_file(&lost)?;
    let clone = old.restore(&shop).await?;
    let seen = clone.wait_for(ClonePhase::Failed).await?;
    let conditions = seen.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    // which object, and what was expected
    let words = ["000000-0000000000000000", "expected 25165824", Reason::OldBackupIncomplete.fix()];
    explained(&world, shop.name(), &clone.name, &conditions, Reason::OldBackupIncomplete, &words).await?;
    ensure!(clone.download().await.is_err(), "a Download was made");
    ensure!(shop.claims().get_opt("back").await?.is_none(), "a claim was made");
    nothing_left(&world, &shop, 0).await
}

async fn a_deleted_backup_of_the_original_leaves_nothing_in_the_bucket(world: World) -> Result<()> {
    let shop = world.namespace("olddelete").await?;
    let claim = claim_with_holes(&shop).await?;
    let (old, other) =
        (OldBackup::of(&world, &shop, &claim, 8 << 20).await?, OldBackup::of(&world, &shop, &claim, 8 << 20).await?);
    let unfinished = OldBackup::of(&world, &shop, &claim, 8 << 20).await?;
    std::fs::remove_file(unfinished.peinfo())?;
    for gone in [&old, &unfinished] {
        delete(&world, gone, shop.repository()).await?;
        let left = gone.objects()?;
        ensure!(left.is_empty(), "still there: {left:?}");
    }
    ensure!(other.peinfo().is_file(), "another backup of the same disk is gone too");
    other.restore(&shop).await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(&world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "the other backup was damaged");
    nothing_left(&world, &shop, 0).await
}

async fn a_backup_written_in_the_originals_layout_can_be_read_there_restored_and_deleted(world: World) -> Result<()> {
    let shop = world.namespace("oldformat").await?;
    let claim = claim_with_holes(&shop).await?;
    let before = claim.digest()?;
    let repository = shop.repository_with(&[("repositoryFormat", "legacy")]).await?;
    let asked = shop.snapshot_of(&claim.name, &repository).await?;
    let snapshot = asked.wait_for(SnapshotPhase::Uploaded).await?;
    ensure!(claim.disk_snapshots().await?.is_empty(), "a disk snapshot was left behind");
    let told = asked.upload().await?.status.context("a status")?;
    ensure!(told.progress.bytes_done == claim.size()?, "all of it is told: {:?}", told.progress);
    ensure!(told.progress.bytes_read <= 4 << 20, "holes were read: {:?}", told.progress);

    let id = snapshot.status.as_ref().and_then(|s| s.snapshot_id.as_ref()).context("a snapshot id")?;
    let old = OldBackup::at(&world, &shop, &claim, id.parse::<PvcSnapshotId>()?.disk_snapshot).await?;
    let first = "000000-0000000000000000";
    ensure!(digest(&old.data().join(first))? == before, "the segment is not the disk");
    let description = std::fs::read_to_string(old.description().join(first))?;
    for (element, value) in [("id", claim.disk.as_str()), ("capacityInMB", "24"), ("provisioningType", "thin")] {
        let wanted = format!("<{element}>{value}</{element}>");
        ensure!(description.contains(&wanted), "no {wanted} in {description}");
    }
    let peinfo: serde_json::Value = serde_json::from_slice(&std::fs::read(old.peinfo())?)?;
    let key = format!("plugins/vsphere-astrolabe-repo/ivd/data/{}.data", old.entity);
    ensure!(peinfo["id"] == old.entity && peinfo["dataTransports"][0]["params"]["key"] == key, "{peinfo}");
    ensure!(old.objects()?.len() == 3, "more than three objects: {:?}", old.objects()?);

    shop.clone_as(&snapshot, "back").await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(&world, shop.name(), "back").await?;
    ensure!(back.digest()? == before, "it came back different");
    ensure!(back.allocated()? <= 4 << 20, "holes were written: {} bytes are allocated", back.allocated()?);
    delete(&world, &old, &repository).await?;
    ensure!(old.objects()?.is_empty(), "still there: {:?}", old.objects()?);
    nothing_left(&world, &shop, 0).await
}

async fn an_upload_in_the_originals_layout_that_is_cancelled_leaves_nothing(world: World) -> Result<()> {
    let shop = world.namespace("oldcancel").await?;
    let claim = shop.claim("data").mib(48).create().await?;
    claim.fill_random(84)?;
    world.control().slow(claim.disk.as_str(), "Read").await?;
    let repository = shop.repository_with(&[("repositoryFormat", "legacy")]).await?;
    let asked = shop.snapshot_of(&claim.name, &repository).await?;
    asked.copying().await?;
    let id = asked.upload().await?.spec.snapshot_id.context("a snapshot id")?;
    asked.cancel().await?;
    world.lets_go_of(claim.disk.as_str()).await?;
    ensure!(claim.disk_snapshots().await?.is_empty(), "Canceled says that the disk snapshot is gone");
    let disk_snapshot = id.parse::<DiskEntity>()?.disk_snapshot().context("a disk snapshot")?;
    let old = OldBackup::at(&world, &shop, &claim, disk_snapshot).await?;
    ensure!(old.objects()?.is_empty(), "still there: {:?}", old.objects()?);
    nothing_left(&world, &shop, 0).await?;
    world.control().heal(claim.disk.as_str()).await
}

impl OldBackup {
    /// Asks for it in a disk of its own, as restores of plugin 1.0.2 and older did.
    pub(crate) async fn in_a_new_disk(&self, world: &World, shop: &Namespace, owner: Option<&str>) -> Result<String> {
        let spec = DownloadSpec {
            snapshot_id: Some(self.entity.clone()),
            backup_repository_name: Some(shop.repository().to_owned()),
            ..DownloadSpec::default()
        };
        let mut download = Download::new(&format!("download-{}", Uuid::new_v4()), spec);
        let owner = owner.map(|owner| (labels::NEW_DISK.to_owned(), owner.to_owned()));
        download.metadata.annotations = owner.map(|owner| [owner].into());
        downloads(world)
            .create(&PostParams::default(), &download)
            .await
            .map(|made| made.name_any())
            .context("ask for a disk")
    }
}

pub(crate) fn downloads(world: &World) -> Api<Download> {
    Api::namespaced(world.client(), world.velero())
}

/// Waits until a Download has ended, well or not.
pub(crate) async fn ended(world: &World, name: &str) -> Result<Download> {
    let ended = |seen: Option<&Download>| seen.and_then(Download::phase).is_some_and(DownloadPhase::is_terminal);
    wait_until(&downloads(world), name, DEADLINE, "has ended", ended).await?.context("a Download")
}

/// The raw file of a disk.
pub(crate) async fn file_of(world: &World, disk: &str) -> Result<PathBuf> {
    let told = world.control().disk(disk).await?;
    told["path"].as_str().map(PathBuf::from).with_context(|| format!("where disk {disk} lies: {told}"))
}

async fn a_disk_that_is_asked_for_by_hand_is_made_and_written_and_stays(world: World) -> Result<()> {
    world.nodes_name_their_machines().await?;
    let shop = world.namespace("oldhand").await?;
    let claim = claim_with_holes(&shop).await?;
    let old = OldBackup::of(&world, &shop, &claim, 8 << 20).await?;
    let asked = old.in_a_new_disk(&world, &shop, None).await?;
    let status = ended(&world, &asked).await?.status.context("a status")?;
    ensure!(status.phase == Some(DownloadPhase::Completed), "it is {status:#?}");
    let disk = status.volume_id.context("a volume")?.parse::<DiskEntity>()?.disk;
    ensure!(
        disk != claim.disk && digest(&file_of(&world, disk.as_str()).await?)? == claim.digest()?,
        "it is different"
    );
    downloads(&world).delete(&asked, &DeleteParams::default()).await?;

    let gap = OldBackup::of(&world, &shop, &claim, 8 << 20).await?;
    std::fs::remove_file(gap.data().join("000000-0000000000000000"))?;
    let asked = gap.in_a_new_disk(&world, &shop, None).await?;
    let seen = ended(&world, &asked).await?;
    let conditions = seen.status.map(|status| status.conditions).unwrap_or_default();
    let (velero, reason) = (world.velero(), Reason::OldBackupIncomplete);
    explained(&world, velero, &asked, &conditions, reason, &["000000-0000000000000000", reason.fix()]).await?;
    ensure!(seen.spec.protected_entity_id.is_none(), "a disk was made for a backup that is not whole");
    // nobody took the first one away meanwhile: it was asked for, so it is somebody's
    world.control().disk(disk.as_str()).await.context("the disk of the first one")?;
    world.control().remove_disk(disk.as_str()).await?;
    nothing_left(&world, &shop, 0).await
}

/// A size that no other scenario has: its writes are slow.
const SLOW: u64 = 57;

async fn a_disk_that_nobody_takes_goes(world: World) -> Result<()> {
    world.nodes_name_their_machines().await?;
    let shop = world.namespace("oldnobody").await?;
    let claim = shop.claim("data").mib(SLOW).create().await?;
    claim.fill_random(85)?;
    let old = OldBackup::of(&world, &shop, &claim, 8 << 20).await?;
    world.control().slow(Disks::OfMib(SLOW), "Write").await?;
    let outcome = async {
        // whoever asked waits no longer
        let (asked, disk) = being_written(&world, &shop, &old).await?;
        let given_up = json!({"metadata": {"annotations": {labels::NEW_DISK: "given-up"}}});
        downloads(&world).patch(&asked, &PatchParams::default(), &Patch::Merge(given_up)).await?;
        let status = ended(&world, &asked).await?.status.context("a status")?;
        let ready = api::conditions::get(&status.conditions, api::conditions::READY).context("a condition")?;
        ensure!(ready.reason == Reason::Canceled.as_str(), "it is {status:#?}");
        world.control().disk_goes(&disk).await.context("it was given up")?;
        let removed = |seen: Option<&Download>| {
            let owner = seen.and_then(|d| d.metadata.annotations.as_ref()?.get(labels::NEW_DISK));
            owner.is_some_and(|owner| owner == "removed")
        };
        wait_until(&downloads(&world), &asked, DEADLINE, "says that the disk is removed", removed).await?;
        // or somebody deletes the request
        let (asked, disk) = being_written(&world, &shop, &old).await?;
        downloads(&world).delete(&asked, &DeleteParams::default()).await?;
        world.control().disk_goes(&disk).await.context("its Download was deleted")
    };
    let outcome = outcome.await;
    world.control().heal(Disks::OfMib(SLOW)).await?;
    outcome?;
    nothing_left(&world, &shop, 0).await
}

/// Asks as our plugin does, and waits until a node writes the disk.
async fn being_written(world: &World, shop: &Namespace, old: &OldBackup) -> Result<(String, String)> {
    let asked = old.in_a_new_disk(world, shop, Some("awaited")).await?;
    let begun = |seen: Option<&Download>| {
        seen.and_then(|d| d.status.as_ref()).is_some_and(|status| status.progress.bytes_done > 0)
    };
    let seen =
        wait_until(&downloads(world), &asked, DEADLINE, "is being written", begun).await?.context("a Download")?;
    let disk = seen.spec.protected_entity_id.context("a disk")?.parse::<DiskEntity>()?.disk;
    Ok((asked, disk.to_string()))
}

async fn delete(world: &World, old: &OldBackup, repository: &str) -> Result<()> {
    let spec = DeleteSnapshotSpec { snapshot_id: old.id.clone(), backup_repository: repository.to_owned() };
    let api: Api<DeleteSnapshot> = Api::namespaced(world.client(), world.velero());
    let name = asked(&api, &DeleteSnapshot::new(&api::names::delete_snapshot(Uuid::new_v4()), spec)).await?;
    let done = |seen: Option<&DeleteSnapshot>| {
        seen.and_then(|seen| seen.status.as_ref()?.phase.clone()) == Some(DeletePhase::Completed)
    };
    let seen = wait_until(&api, &name, DEADLINE, "is Completed", done).await?;
    ensure!(seen.is_some_and(|seen| seen.name_any() == name));
    Ok(())
}
