//! What a job, or all of them, has left behind: nothing, if all is well.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs::FileType;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::{
    CloneFromSnapshot, ClonePhase, DeletePhase, DeleteSnapshot, Download, DownloadPhase, Snapshot, SnapshotPhase,
    Upload, UploadPhase, labels, names,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::world::LOOK;
use crate::{Namespace, World};

/// How long leases, locks and volumes may take to go after the status that said the end.
const GOING: Duration = Duration::from_secs(60);

/// How long what nobody returns may stay: it runs out within a minute, and the driver looks every minute.
const SWEPT: Duration = Duration::from_secs(150);

/// Waits until the jobs of a namespace have left no disk snapshot, transfer lease, lock, checkpoint, scratch claim or marked volume;
/// then its repository must hold exactly `points` restore points, and no key without its config.
///
/// # Errors
/// When something stays; the message names it.
pub async fn nothing_left(world: &World, namespace: &Namespace, points: usize) -> Result<()> {
    nothing_left_within(world, namespace, points, GOING).await
}

/// Like [`nothing_left`], where a node died that would have cleaned up: what it left has the time until it is swept.
///
/// # Errors
/// As there.
pub async fn nothing_left_of_the_dead(world: &World, namespace: &Namespace, points: usize) -> Result<()> {
    nothing_left_within(world, namespace, points, SWEPT).await
}

async fn nothing_left_within(world: &World, namespace: &Namespace, points: usize, time: Duration) -> Result<()> {
    let waiting = async {
        while !still_there(world, namespace).await?.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    if let Ok(waited) = tokio::time::timeout(time, waiting).await {
        waited?;
    }
    let left = still_there(world, namespace).await?;
    ensure!(left.is_empty(), "left behind after {} s: {left:?}", time.as_secs());
    let repository = world.repository_folder(namespace.name());
    let found = files(&repository.join("snapshots"))?;
    ensure!(found.len() == points, "{points} restore points, not {found:?}");
    let keys = files(&repository.join("keys"))?;
    ensure!(keys.is_empty() || repository.join("config").is_file(), "a key without a config: {keys:?}");
    Ok(())
}

/// Waits until no job of the whole lab holds anything: also those whose objects are gone, which [`nothing_left`] cannot
/// tell from those of another scenario.
///
/// # Errors
/// When something stays; the message names it.
pub async fn nothing_left_at_all(world: &World) -> Result<()> {
    let waiting = async {
        while !left_at_all(world).await?.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    if let Ok(waited) = tokio::time::timeout(SWEPT, waiting).await {
        waited?;
    }
    let left = left_at_all(world).await?;
    ensure!(left.is_empty(), "left behind after {} s: {left:?}", SWEPT.as_secs());
    Ok(())
}

async fn left_at_all(world: &World) -> Result<Vec<String>> {
    let all = Api::<Lease>::namespaced(world.client(), world.velero()).list(&ListParams::default()).await?;
    let of_transfer =
        |name: &String| [names::upload_lease(""), names::download_lease("")].iter().any(|l| name.starts_with(l));
    let leases = all.iter().map(|lease| lease.name_any()).filter(of_transfer).map(|name| format!("lease {name}"));
    let mut left: Vec<String> = leases.collect();
    let marked = ListParams::default().labels(labels::SCRATCH_FOR);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.client(), world.velero());
    left.extend(claims.list(&marked).await?.iter().map(|claim| format!("scratch claim {}", claim.name_any())));
    let volumes = Api::<PersistentVolume>::all(world.client()).list(&ListParams::default()).await?;
    let half_restored = |volume: &&PersistentVolume| {
        let claim = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        let for_scratch = claim.is_some_and(|c| c.namespace.as_deref() == Some(world.velero()));
        volume.labels().contains_key(labels::SCRATCH_FOR) || for_scratch
    };
    left.extend(volumes.iter().filter(half_restored).map(|volume| format!("volume {}", volume.name_any())));
    left.extend(disk_snapshots_of(world, |_| true).await?);
    for repository in folders(&world.repository_folder(""))? {
        let locks = files(&repository.join("locks"))?;
        left.extend(locks.into_iter().map(|lock| format!("lock {lock} in {}", repository.display())));
        left.extend(checkpoints(&repository)?);
    }
    left.extend(
        helpers(world)?.iter().map(|h| format!("process {} with the disk library, of process {}", h.pid, h.parent)),
    );
    // where versitygw keeps the parts of uploads that were not completed
    for bucket in folders(&world.folder().join("s3"))? {
        let begun = folders(&bucket.join(".sgwtmp/multipart"))?;
        left.extend(begun.into_iter().map(|upload| format!("multipart upload {}", upload.display())));
    }
    Ok(left)
}

/// The jobs of the whole lab that have not ended, by kind and name. In local mode a Snapshot stays `Snapshotted` and is among them.
///
/// # Errors
/// When the API server does not answer.
pub async fn unended(world: &World) -> Result<Vec<String>> {
    let mut all = unended_of(world, |it: &Snapshot| it.phase().is_some_and(SnapshotPhase::is_terminal)).await?;
    all.extend(unended_of(world, |it: &Upload| it.phase().is_some_and(UploadPhase::is_terminal)).await?);
    all.extend(unended_of(world, |it: &CloneFromSnapshot| it.phase().is_some_and(ClonePhase::is_terminal)).await?);
    all.extend(unended_of(world, |it: &Download| it.phase().is_some_and(DownloadPhase::is_terminal)).await?);
    all.extend(unended_of(world, |it: &DeleteSnapshot| it.phase().is_some_and(DeletePhase::is_terminal)).await?);
    Ok(all)
}

async fn unended_of<K>(world: &World, has_ended: impl Fn(&K) -> bool) -> Result<Vec<String>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let all = Api::<K>::all(world.client()).list(&ListParams::default()).await?;
    let named = |it: &K| format!("{} {}/{}", K::kind(&()), it.namespace().unwrap_or_default(), it.name_any());
    Ok(all.iter().filter(|it| !has_ended(it)).map(named).collect())
}

/// Disks of the double that no volume names, and volumes of the CSI driver whose disk is not there.
///
/// # Errors
/// When the API server or the double does not answer.
pub async fn disks_without_volume(world: &World) -> Result<Vec<String>> {
    let known = world.control().disks().await?;
    let known = known.as_array().or_else(|| known["disks"].as_array()).context("the double lists its disks")?;
    let disks: BTreeSet<&str> = known.iter().filter_map(|disk| disk["id"].as_str()).collect();
    let volumes = Api::<PersistentVolume>::all(world.client()).list(&ListParams::default()).await?;
    let named: BTreeSet<&str> = volumes
        .iter()
        .filter_map(|volume| volume.spec.as_ref()?.csi.as_ref())
        .filter(|csi| csi.driver == "csi.vsphere.vmware.com")
        .map(|csi| csi.volume_handle.as_str())
        .collect();
    let loose = disks.difference(&named).map(|disk| format!("disk {disk} that no volume names"));
    let lost = named.difference(&disks).map(|disk| format!("a volume whose disk {disk} is not there"));
    Ok(loose.chain(lost).collect())
}

/// A process with the disk library.
pub(crate) struct Helper {
    /// Its process id.
    pub(crate) pid: String,
    /// Its parent's, a data-manager; `1` when that is gone.
    pub(crate) parent: String,
    /// Whether its parent is one of this lab's.
    pub(crate) is_ours: bool,
}

/// Processes with the disk library whose data-manager is one of the lab's, or gone.
pub(crate) fn helpers(world: &World) -> Result<Vec<Helper>> {
    let lab = world.folder();
    let mut found = Vec::new();
    for process in folders(Path::new("/proc"))? {
        let read = |process: &Path, file: &str| std::fs::read(process.join(file)).unwrap_or_default(); // it may have ended
        if read(&process, "comm").trim_ascii_end() != b"vddk-helper" {
            continue;
        }
        let status = String::from_utf8_lossy(&read(&process, "status")).into_owned();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or_default().trim().to_owned();
        let environment = read(&Path::new("/proc").join(&parent), "environ");
        let is_ours = String::from_utf8_lossy(&environment).contains(&*lab.to_string_lossy());
        if is_ours || parent == "1" {
            let pid = process.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(Helper { pid, parent, is_ours });
        }
    }
    Ok(found)
}

/// What the jobs of a namespace hold right now, in words.
///
/// # Errors
/// When the API server or the double does not answer.
pub async fn still_there(world: &World, namespace: &Namespace) -> Result<Vec<String>> {
    let mut left = disk_snapshots(world, namespace).await?;
    left.extend(leases(world, namespace).await?);
    left.extend(half_restored(world, namespace).await?);
    let locks = files(&world.repository_folder(namespace.name()).join("locks"))?;
    left.extend(locks.into_iter().map(|lock| format!("lock {lock}")));
    left.extend(checkpoints(&world.repository_folder(namespace.name()))?);
    Ok(left)
}

/// Checkpoints of transfers in a repository.
fn checkpoints(repository: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for transfer in folders(&repository.join("transfers"))? {
        let named = |number| format!("checkpoint {number} in {}", transfer.display());
        found.extend(files(&transfer)?.into_iter().map(named));
    }
    Ok(found)
}

async fn disk_snapshots(world: &World, namespace: &Namespace) -> Result<Vec<String>> {
    let volumes: Api<PersistentVolume> = Api::all(world.client());
    let all = volumes.list(&ListParams::default()).await?;
    let ours = |v: &&PersistentVolume| {
        v.spec.as_ref().and_then(|s| s.claim_ref.as_ref()?.namespace.as_deref()) == Some(namespace.name())
    };
    let disks: BTreeSet<&str> =
        all.iter().filter(ours).filter_map(|v| Some(v.spec.as_ref()?.csi.as_ref()?.volume_handle.as_str())).collect();
    disk_snapshots_of(world, |disk| disks.contains(disk)).await
}

async fn disk_snapshots_of(world: &World, is_meant: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let known = world.control().disks().await?;
    let known = known.as_array().or_else(|| known["disks"].as_array()).context("the double lists its disks")?;
    let held = known.iter().filter(|disk| disk["id"].as_str().is_some_and(&is_meant));
    let snapshots = held.flat_map(|disk| disk["snapshots"].as_array().into_iter().flatten());
    Ok(snapshots.map(|snapshot| format!("disk snapshot {}", snapshot["id"])).collect())
}

async fn leases(world: &World, namespace: &Namespace) -> Result<Vec<String>> {
    let of_namespace = |source: Option<&str>, reference: Option<&str>| {
        source == Some(namespace.name())
            || reference.and_then(|r| r.split_once('/')).is_some_and(|(from, _)| from == namespace.name())
    };
    let uploads = Api::<Upload>::namespaced(world.client(), world.velero()).list(&ListParams::default()).await?;
    let downloads = Api::<Download>::namespaced(world.client(), world.velero()).list(&ListParams::default()).await?;
    let uploads = uploads
        .iter()
        .filter(|u| of_namespace(u.spec.source_namespace.as_deref(), u.spec.snapshot_reference.as_deref()));
    let downloads = downloads
        .iter()
        .filter(|d| of_namespace(d.spec.source_namespace.as_deref(), d.spec.clone_from_snapshot_reference.as_deref()));
    let mut ours: BTreeSet<String> = uploads.map(|u| names::upload_lease(&u.name_any())).collect();
    ours.extend(downloads.map(|d| names::download_lease(&d.name_any())));
    let all = Api::<Lease>::namespaced(world.client(), world.velero()).list(&ListParams::default()).await?;
    let held = all.iter().map(|lease| lease.name_any()).filter(|name| ours.contains(name));
    Ok(held.map(|name| format!("lease {name}")).collect())
}

async fn half_restored(world: &World, namespace: &Namespace) -> Result<Vec<String>> {
    let clones: Api<CloneFromSnapshot> = Api::namespaced(world.client(), namespace.name());
    let uids: BTreeSet<String> =
        clones.list(&ListParams::default()).await?.iter().filter_map(|clone| clone.uid()).collect();
    let marked = ListParams::default().labels(labels::SCRATCH_FOR);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.client(), world.velero());
    let claims = claims.list(&marked).await?;
    let volumes = Api::<PersistentVolume>::all(world.client()).list(&ListParams::default()).await?;
    let of_us = |of: Option<&String>| of.is_some_and(|uid| uids.contains(uid));
    let claims = claims.iter().filter(|c| of_us(c.labels().get(labels::SCRATCH_FOR)));
    let mut left: Vec<String> = claims.map(|claim| format!("scratch claim {}", claim.name_any())).collect();
    let volumes = volumes.iter().filter(|volume| {
        let for_scratch = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()?.name.clone());
        let for_scratch = for_scratch.and_then(|name| name.strip_prefix("restore-").map(str::to_owned));
        of_us(volume.labels().get(labels::SCRATCH_FOR)) || of_us(for_scratch.as_ref())
    });
    left.extend(volumes.map(|volume| format!("volume {}", volume.name_any())));
    Ok(left)
}

/// Names of the files in a folder; none when there is no such folder.
fn files(folder: &Path) -> Result<Vec<String>> {
    let files = entries(folder, |kind| kind.is_file())?;
    Ok(files.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect())
}

/// The folders in a folder; none when there is no such folder.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    entries(folder, |kind| kind.is_dir())
}

fn entries(folder: &Path, is_meant: impl Fn(FileType) -> bool) -> Result<Vec<PathBuf>> {
    let listed = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.with_context(|| format!("list {}", folder.display()))?,
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry?;
        if is_meant(entry.file_type()?) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
