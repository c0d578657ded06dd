//! `velero.io/vsphere`: the VolumeSnapshotter by which backups of plugin 1.0.2 and older were made. It takes no volume, so that Velero
//! never snapshots one through it; it restores and deletes what those backups have left.
//!
//! Velero waits for the disk within the call, with no deadline of its own. The disk is made by the driver and written by a node, by
//! way of a Download that names no volume; here it is asked for, waited for and taken over.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::conditions::{self, READY};
use api::entity::DiskEntity;
use api::{DeleteSnapshot, DeleteSnapshotSpec, Download, DownloadPhase, DownloadSpec, Reason, Time};
use api::{WITHOUT_BACKUP_REPOSITORY, labels, names};
use async_trait::async_trait;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::new_disk::{self, Owner};
use lifecycle::transfer::download as says;
use lifecycle::velero::parameters;
use serde_json::json;
use uuid::Uuid;

use super::patience::Patience;
use super::reads::Reads;
use super::waits::{self, Waited};
use super::{deletion, failed, refused};
use crate::Item;
use crate::protocol::kinds::{ActionError, VolumeInfo, VolumeSnapshotter};

/// The provider's word for our volumes.
const VOLUME_TYPE: &str = "ivd";
/// How long a node has to write the disk; as long as Velero lets the operations of a restore take by default.
const WRITTEN_WITHIN: Duration = Duration::from_secs(4 * 3600);
/// How long a deletion is watched, and how long after one that took longer: it goes on by itself.
const WATCHED_FOR: Duration = Duration::from_secs(30);
const WATCHED_AFTER_SILENCE: Duration = Duration::from_secs(5);
/// How long an API server that is away is asked again for what must be written down.
const WRITTEN_DOWN_WITHIN: Duration = Duration::from_secs(60);

/// What Velero calls it, as the original did.
pub(super) const NAME: &str = "velero.io/vsphere";

pub(super) struct OldSnapshots {
    pub(super) reads: Arc<Reads>,
    /// What the snapshot location says.
    pub(super) config: Mutex<HashMap<String, String>>,
    pub(super) patience: Patience,
    pub(super) made_within: Duration,
    pub(super) written_within: Duration,
}

impl OldSnapshots {
    pub(super) fn new(reads: Arc<Reads>) -> Self {
        Self {
            reads,
            config: Mutex::default(),
            patience: Patience::new(WATCHED_FOR, WATCHED_AFTER_SILENCE),
            made_within: new_disk::AWAITED_FOR,
            written_within: WRITTEN_WITHIN,
        }
    }

    /// The BackupRepository of the bucket that the snapshot location names; the storage location `default` where it names none.
    async fn repository(&self) -> Result<String, ActionError> {
        let config: BTreeMap<_, _> =
            self.config.lock().expect("no panic while it is held").clone().into_iter().collect();
        let Some(location) = parameters::of_snapshot_location(&config) else {
            return Ok(WITHOUT_BACKUP_REPOSITORY.to_owned());
        };
        let keys = self.reads.default_credentials().await?;
        // claims of no namespace were backed up so; the repository is only a way to the bucket
        let wanted = parameters::wanted(&location, self.reads.velero(), &keys).map_err(|problem| refused(&problem))?;
        self.reads.repository(&wanted).await
    }

    /// Asks for the disk, and waits until it is written. Whatever is asked for is taken over or given up.
    async fn restored(&self, source: &DiskEntity) -> Result<String, ActionError> {
        let downloads: Api<Download> = Api::namespaced(self.reads.client().await?, self.reads.velero());
        let wanted = download(source, &self.repository().await?);
        let made = downloads.create(&PostParams::default(), &wanted).await.map_err(failed("make a Download"))?;
        let name = made.name_any();
        tracing::info!(download = name, "a disk is made and written for a backup of an old version");
        let taken = async {
            let written = self.written(&downloads, &made).await?;
            let id = written.status.as_ref().and_then(|status| status.volume_id.as_deref()).unwrap_or_default();
            let disk = id
                .parse::<DiskEntity>()
                .map_err(|e| ActionError::new(format!("read the disk of Download {name}: {e}")))?;
            take_over(&downloads, written, WRITTEN_DOWN_WITHIN).await?;
            Ok(disk.disk.to_string())
        };
        let taken: Result<String, ActionError> = taken.await;
        if let Err(why) = &taken {
            let given_up =
                waits::insist(WRITTEN_DOWN_WITHIN, is_gone, || say(&downloads, &name, Owner::GivenUp, None)).await;
            // with a Download that is deleted goes its disk
            if let Err(error) = given_up
                && !is_gone(&error)
            {
                let (error, why) = (Problem::chain(&error), why.message());
                tracing::warn!(download = name, error, why, "it could not be given up; delete it");
            }
        }
        taken
    }

    /// Waits for the disk, then for its last byte.
    async fn written(&self, downloads: &Api<Download>, made: &Download) -> Result<Download, ActionError> {
        let name = made.name_any();
        let act = format!("wait for the disk of Download {name}");
        let ended = |seen: &Download| seen.phase().is_some_and(DownloadPhase::is_terminal);
        let begun = |seen: Option<&Download>| seen.is_none_or(|seen| ended(seen) || new_disk::names_a_volume(seen));
        let first = waits::from_now(downloads.clone(), made, self.made_within, &act, begun).await?;
        let last = match first {
            Waited::Settled(Some(seen)) if !ended(&seen) => {
                let over = |seen: Option<&Download>| seen.is_none_or(ended);
                waits::from_now(downloads.clone(), &seen, self.written_within, &act, over).await?
            }
            first => first,
        };
        match last {
            Waited::Settled(Some(seen)) if seen.phase() == Some(&DownloadPhase::Completed) => Ok(seen),
            Waited::Settled(Some(seen)) => Err(told(&act, &seen)),
            Waited::Settled(None) => {
                Err(refused(&Problem::lasting(Reason::RequestDeleted, format!("{act}: it was deleted meanwhile"))))
            }
            Waited::TooLate => {
                let seen = downloads.get(&name).await.map_err(failed(&act))?;
                Err(told(&format!("{act}: it was not there in time"), &seen))
            }
        }
    }

    async fn deleted(&self, id: &str) -> Result<(), ActionError> {
        let repository = self.repository().await?;
        let name = names::delete_snapshot(Uuid::new_v4());
        let spec = DeleteSnapshotSpec { snapshot_id: id.to_owned(), backup_repository: repository };
        let mut request = DeleteSnapshot::new(&name, spec);
        request.metadata.labels = Some(labels::ours());
        request.metadata.annotations = Some([(labels::SNAPSHOTTER.to_owned(), name)].into());
        let deletes: Api<DeleteSnapshot> = Api::namespaced(self.reads.client().await?, self.reads.velero());
        let made = deletes.create(&PostParams::default(), &request).await.map_err(failed("make a DeleteSnapshot"))?;
        let name = made.name_any();
        let act = format!("wait for DeleteSnapshot {name}");
        let waited = waits::from_now(deletes, &made, self.patience.lasts(), &act, deletion::is_over).await;
        deletion::told(&name, waited, &self.patience)
    }
}

/// A Download without a volume, whose disk Velero waits for.
fn download(source: &DiskEntity, repository: &str) -> Download {
    let snapshot = source.disk_snapshot().expect("the id was looked at").snapshot;
    let name = names::download(&snapshot, Uuid::new_v4());
    let now = Timestamp::now();
    let spec = DownloadSpec {
        snapshot_id: Some(source.to_string()),
        restore_timestamp: Some(Time(now)),
        backup_repository_name: Some(repository.to_owned()),
        ..DownloadSpec::default()
    };
    let mut download = Download::new(&name, spec);
    download.metadata.labels = Some(labels::ours());
    let awaited = Owner::Awaited.as_str().to_owned();
    download.metadata.annotations = Some(BTreeMap::from([(labels::NEW_DISK.to_owned(), awaited)]));
    download.status = Some(says::new(now));
    download
}

/// Takes the disk over from whoever removes what nobody takes: refused when that one was faster. An API server that is away for a moment
/// is no reason to lose a disk that is written, and neither is a Download that others change meanwhile: that is asked again for `within`.
pub(super) async fn take_over(
    downloads: &Api<Download>,
    mut written: Download,
    within: Duration,
) -> Result<(), ActionError> {
    let name = written.name_any();
    let act = format!("take over the disk of Download {name}");
    let (begun, mut conflicts) = (Instant::now(), 0_u32);
    loop {
        match Owner::of(&written) {
            Some(Owner::Awaited) => {}
            Some(Owner::Taken) if conflicts > 0 => return Ok(()), // by ourselves: the answer was lost
            _ => {
                let cause = format!("{act}: it was given up meanwhile");
                return Err(refused(&Problem::lasting(Reason::RequestDeleted, cause)));
            }
        }
        let version = written.resource_version();
        let taken = || say(downloads, &name, Owner::Taken, version.clone());
        match waits::insist(WRITTEN_DOWN_WITHIN, is_decided, taken).await {
            // changed meanwhile, by whomever: a last word of its node is no reason to lose a disk
            Err(kube::Error::Api(status)) if status.code == 409 => {
                conflicts += 1;
                if conflicts > 1 {
                    tokio::time::sleep(waits::PAUSE).await; // its node has said its last word by now: leave it a moment
                }
                let read = waits::insist(WRITTEN_DOWN_WITHIN, is_gone, || downloads.get(&name)).await;
                written = read.map_err(failed(&act))?;
                // looked at before it is given up: our own word may have been written, and its answer lost
                if begun.elapsed() >= within && Owner::of(&written) == Some(Owner::Awaited) {
                    return Err(ActionError::new(format!(
                        "{act}: somebody else changed it between each look and each word, {conflicts} times within {} s. See who \
                         writes to it (metadata.managedFields), then restore again.",
                        within.as_secs()
                    )));
                }
            }
            said => return said.map_err(failed(&act)),
        }
    }
}

/// Whether it is not there any more.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether saying the same once more gets the same answer.
fn is_decided(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409 | 422))
}

/// Says who answers for the disk from now on.
async fn say(downloads: &Api<Download>, name: &str, owner: Owner, version: Option<String>) -> kube::Result<()> {
    let mut patch = json!({"metadata": {"annotations": {labels::NEW_DISK: owner.as_str()}}});
    if let Some(version) = version {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    downloads.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// Why a Download did not become a disk, in its own words.
fn told(act: &str, seen: &Download) -> ActionError {
    let status = seen.status.clone().unwrap_or_default();
    let ready = conditions::get(&status.conditions, READY);
    let reason = ready.and_then(|ready| Reason::from_word(&ready.reason)).unwrap_or(Reason::DriverSilent);
    let why =
        ready.map(|ready| ready.message.clone()).or(status.message).unwrap_or_else(|| reason.meaning().to_owned());
    ActionError::new(format!("{reason}: {act}: {why}"))
}

/// The disk snapshot that such an id names: `ivd:<disk>:<disk snapshot>`.
fn source_of(snapshot: &str) -> Result<DiskEntity, ActionError> {
    let invalid = |why: String| {
        let cause = format!("read snapshot id `{snapshot}`: {why}");
        let fix =
            "Backups of plugin 1.0.2 and older have ids `ivd:DISK:SNAPSHOT`; this one was made by another plugin."
                .to_owned();
        refused(&Problem::lasting(Reason::InvalidSpec, cause).with_fix(Some(fix)))
    };
    let entity: DiskEntity = snapshot.parse().map_err(|e| invalid(Problem::chain(&e)))?;
    match entity.snapshot {
        Some(_) => Ok(entity),
        None => Err(invalid("it names a disk, not a disk snapshot".to_owned())),
    }
}

#[async_trait]
impl VolumeSnapshotter for OldSnapshots {
    async fn init(&self, config: &HashMap<String, String>) -> Result<(), ActionError> {
        self.config.lock().expect("no panic while it is held").clone_from(config);
        Ok(())
    }

    async fn create_volume(&self, snapshot: &str, _zone: &str, _info: &VolumeInfo) -> Result<String, ActionError> {
        self.restored(&source_of(snapshot)?).await
    }

    async fn volume_info(&self, _volume: &str, _zone: &str) -> Result<VolumeInfo, ActionError> {
        Ok(VolumeInfo { volume_type: VOLUME_TYPE.to_owned(), iops: Some(100) })
    }

    async fn create_snapshot(
        &self,
        volume: &str,
        _zone: &str,
        _tags: &HashMap<String, String>,
    ) -> Result<String, ActionError> {
        Err(ActionError::new(format!(
            "snapshot {volume}: snapshots are taken by the claim's own action, not through a snapshot location"
        )))
    }

    async fn delete_snapshot(&self, snapshot: &str) -> Result<(), ActionError> {
        self.deleted(&source_of(snapshot)?.to_string()).await
    }

    async fn volume_id(&self, _volume: &Item) -> Result<Option<String>, ActionError> {
        Ok(None) // "not mine": Velero leaves every volume to the claim's action
    }

    async fn set_volume_id(&self, mut volume: Item, id: &str) -> Result<Item, ActionError> {
        if volume.tree()["spec"]["csi"].is_null() {
            return Err(ActionError::new(format!("volume {}: it has no CSI source to name {id} in", volume.name())));
        }
        volume.set(&["spec", "csi", "volumeHandle"], id)?;
        Ok(volume)
    }
}
