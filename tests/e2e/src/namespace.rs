//! A namespace for one scenario, with a repository, and the jobs a user would apply in it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use api::{
    BackupRepositoryClaim, CloneFromSnapshot, CloneFromSnapshotSpec, ClonePhase, Download, Reason, ResourceHandle,
    SnapshotPhase, SnapshotSpec, Upload, labels,
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use uuid::Uuid;

use crate::asked::asked;
use crate::explained::event_with;
use crate::world::LOOK;
use crate::{Claim, DEADLINE, World, wait_until};

/// How the names of the claims begin that scenarios make: with keys in clear, as the original's.
pub const BY_HAND: &str = "brc-by-hand-";

/// A namespace of its own for one scenario.
#[derive(Clone)]
pub struct Namespace {
    world: World,
    name: String,
    repository: String,
}

impl Namespace {
    pub(crate) async fn create(world: &World, prefix: &str) -> Result<Self> {
        let name = format!("{prefix}-{}", &Uuid::new_v4().simple().to_string()[..8]);
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.client());
        let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        namespaces.create(&PostParams::default(), &object).await?;
        let mut namespace = Self { world: world.clone(), name, repository: String::new() };
        namespace.repository = namespace.repository_with(&[]).await?;
        Ok(namespace)
    }

    /// One that somebody else made, such as Velero; its repository is not known.
    pub(crate) fn known(world: &World, name: &str) -> Self {
        Self { world: world.clone(), name: name.to_owned(), repository: String::new() }
    }

    /// The CloneFromSnapshots in it.
    pub fn clones(&self) -> Api<CloneFromSnapshot> {
        Api::namespaced(self.world.client(), &self.name)
    }

    /// The one CloneFromSnapshot that was made here for a claim of that name, as soon as there is one.
    ///
    /// # Errors
    /// When there is none in time, or there are several.
    pub async fn clone_of(&self, claim: &str) -> Result<Clone> {
        let due = tokio::time::Instant::now() + DEADLINE;
        loop {
            let all = self.clones().list(&ListParams::default()).await?;
            let names = |clone: &CloneFromSnapshot| clone.spec.metadata.as_ref()?.claim().ok()?.metadata.name;
            let of_it: Vec<_> =
                all.iter().filter(|c| names(c).as_deref() == Some(claim)).map(|c| c.name_any()).collect();
            match of_it.as_slice() {
                [name] => {
                    return Ok(Clone { world: self.world.clone(), namespace: self.name.clone(), name: name.clone() });
                }
                [] if tokio::time::Instant::now() < due => tokio::time::sleep(crate::world::LOOK).await,
                _ => bail!("{} CloneFromSnapshots for claim {}/{claim}: {of_it:?}", of_it.len(), self.name),
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of its BackupRepository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// The claims in it.
    pub fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.world.client(), &self.name)
    }

    /// The parameters of the lab's bucket, as Velero's plugin would write them.
    pub fn parameters(&self) -> BTreeMap<String, String> {
        [
            ("region", self.world.var("AWS_REGION")),
            ("bucket", self.world.var("S3_BUCKET")),
            ("s3ForcePathStyle", "true"),
            ("s3Url", self.world.var("S3_ENDPOINT")),
            ("aws_access_key_id", self.world.var("AWS_ACCESS_KEY_ID")),
            ("aws_secret_access_key", self.world.var("AWS_SECRET_ACCESS_KEY")),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// Claims a repository with some parameters changed and returns the name of the BackupRepository.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub async fn repository_with(&self, changed: &[(&str, &str)]) -> Result<String> {
        let mut claim = BackupRepositoryClaim::new(&format!("{BY_HAND}{}", Uuid::new_v4()));
        claim.repository_parameters = self.parameters();
        for (key, value) in changed {
            claim.repository_parameters.insert((*key).to_owned(), (*value).to_owned());
        }
        claim.allowed_namespaces = Some(vec![self.name.clone()]);
        let api: Api<BackupRepositoryClaim> = Api::namespaced(self.world.client(), self.world.velero());
        api.create(&PostParams::default(), &claim).await?;
        let answered = wait_until(&api, &claim.name_any(), DEADLINE, "is answered", |claim| {
            claim.is_some_and(|c| c.backup_repository.as_ref().is_some_and(|name| !name.is_empty()))
        })
        .await?;
        answered.and_then(|c| c.backup_repository).context("an answered claim names its repository")
    }

    /// Applies a Snapshot of a claim, with the namespace's repository.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn snapshot(&self, claim: &Claim) -> Result<Snapshot> {
        self.snapshot_of(&claim.name, &self.repository).await
    }

    /// Applies a Snapshot of a claim by name, with a repository by name.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn snapshot_of(&self, claim: &str, repository: &str) -> Result<Snapshot> {
        let spec = SnapshotSpec {
            resource_handle: ResourceHandle::claim(claim),
            backup_repository: repository.to_owned(),
            ..SnapshotSpec::default()
        };
        self.apply_snapshot(spec).await
    }

    /// Applies a Snapshot with that spec.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn apply_snapshot(&self, spec: SnapshotSpec) -> Result<Snapshot> {
        let api: Api<api::Snapshot> = Api::namespaced(self.world.client(), &self.name);
        let object = api::Snapshot::new(&api::names::snapshot(Uuid::new_v4()), spec);
        let name = asked(&api, &object).await?;
        Ok(Snapshot { world: self.world.clone(), namespace: self.name.clone(), name })
    }

    /// Applies a CloneFromSnapshot of an uploaded Snapshot into this namespace, the claim under a new name.
    ///
    /// # Errors
    /// When the Snapshot has no id or metadata, or the API server refuses.
    pub async fn clone_as(&self, snapshot: &api::Snapshot, claim: &str) -> Result<Clone> {
        let status = snapshot.status.as_ref().context("the snapshot has a status")?;
        let metadata = status.metadata.as_ref().context("the snapshot has metadata")?;
        let mut wanted = metadata.claim()?;
        wanted.metadata.name = Some(claim.to_owned());
        wanted.metadata.namespace = Some(self.name.clone());
        let repository = snapshot.spec.backup_repository.clone();
        let id = status.snapshot_id.clone().context("the snapshot has an id")?;
        self.clone_with(&id, &wanted, &repository).await
    }

    /// Applies a CloneFromSnapshot from its parts.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn clone_with(&self, id: &str, wanted: &PersistentVolumeClaim, repository: &str) -> Result<Clone> {
        self.apply_clone(CloneFromSnapshotSpec {
            snapshot_id: id.to_owned(),
            metadata: Some(api::metadata::Blob::of(wanted)),
            kind: api::CLAIM_KIND.to_owned(),
            backup_repository: repository.to_owned(),
            ..CloneFromSnapshotSpec::default()
        })
        .await
    }

    /// Applies a CloneFromSnapshot with that spec.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn apply_clone(&self, spec: CloneFromSnapshotSpec) -> Result<Clone> {
        let object = CloneFromSnapshot::new(&Uuid::new_v4().to_string(), spec);
        let name = asked(&self.clones(), &object).await?;
        Ok(Clone { world: self.world.clone(), namespace: self.name.clone(), name })
    }
}

impl World {
    /// The Snapshots that Velero's plugin has made for a backup.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn snapshots_of(&self, backup: &str) -> Result<Vec<Snapshot>> {
        let of_backup = format!("{}={}", labels::BACKUP_NAME, labels::backup_name(backup));
        let all = Api::<api::Snapshot>::all(self.client()).list(&ListParams::default().labels(&of_backup)).await?;
        let applied = |made: api::Snapshot| Snapshot {
            world: self.clone(),
            namespace: made.namespace().unwrap_or_default(),
            name: made.name_any(),
        };
        Ok(all.into_iter().map(applied).collect())
    }

    /// Waits until Velero's plugin has made that many for a backup.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn snapshots_when_made(&self, backup: &str, count: usize) -> Result<Vec<Snapshot>> {
        let due = tokio::time::Instant::now() + DEADLINE;
        loop {
            let made = self.snapshots_of(backup).await?;
            if made.len() >= count {
                return Ok(made);
            }
            ensure!(tokio::time::Instant::now() < due, "{count} Snapshots for backup {backup}, not {}", made.len());
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A Snapshot that was applied.
pub struct Snapshot {
    world: World,
    namespace: String,
    /// Its name.
    pub name: String,
}

impl Snapshot {
    /// The object's API.
    pub fn api(&self) -> Api<api::Snapshot> {
        Api::namespaced(self.world.client(), &self.namespace)
    }

    /// Waits for a phase; another terminal phase is an error with the object in it.
    ///
    /// # Errors
    /// When the phase does not come in time.
    pub async fn wait_for(&self, phase: SnapshotPhase) -> Result<api::Snapshot> {
        self.wait_for_within(phase, DEADLINE).await
    }

    /// As [`Snapshot::wait_for`], with a deadline of one's own.
    ///
    /// # Errors
    /// When the phase does not come in time.
    pub async fn wait_for_within(&self, phase: SnapshotPhase, deadline: Duration) -> Result<api::Snapshot> {
        let seen = wait_until(&self.api(), &self.name, deadline, &format!("is {phase}"), |seen| {
            let now = seen.and_then(|s| s.status.as_ref()?.phase.clone());
            now.is_some_and(|now| now == phase || now.is_terminal())
        })
        .await?
        .context("the snapshot exists")?;
        let now = seen.status.as_ref().and_then(|s| s.phase.clone());
        ensure!(now == Some(phase.clone()), "{} should be {phase}; it is {:#?}", self.name, seen.status);
        Ok(seen)
    }

    /// All Uploads.
    pub(crate) fn uploads(&self) -> Api<Upload> {
        Api::namespaced(self.world.client(), self.world.velero())
    }

    /// The Upload it led to.
    ///
    /// # Errors
    /// When there is none.
    pub async fn upload(&self) -> Result<Upload> {
        let reference = format!("{}/{}", self.namespace, self.name);
        let all = self.uploads().list(&ListParams::default()).await?;
        all.into_iter()
            .find(|u| u.spec.snapshot_reference.as_deref() == Some(&reference))
            .with_context(|| format!("no Upload refers to {reference}"))
    }

    /// Waits for an event about it with that reason.
    ///
    /// # Errors
    /// When there is none in time; the message names those there are.
    pub async fn told(&self, reason: Reason) -> Result<()> {
        let kind = if reason.weight() == api::Weight::Trouble { "Warning" } else { "Normal" };
        event_with(&self.world, &self.namespace, &self.name, reason, kind).await.map(drop)
    }
}

/// A CloneFromSnapshot that was applied.
pub struct Clone {
    world: World,
    namespace: String,
    /// Its name.
    pub name: String,
}

impl Clone {
    /// The object's API.
    pub fn api(&self) -> Api<CloneFromSnapshot> {
        Api::namespaced(self.world.client(), &self.namespace)
    }

    /// Waits for a phase; another terminal phase is an error with the object in it.
    ///
    /// # Errors
    /// When the phase does not come in time.
    pub async fn wait_for(&self, phase: ClonePhase) -> Result<CloneFromSnapshot> {
        self.wait_for_within(phase, DEADLINE).await
    }

    /// As [`Clone::wait_for`], with a deadline of one's own.
    ///
    /// # Errors
    /// When the phase does not come in time.
    pub async fn wait_for_within(&self, phase: ClonePhase, deadline: Duration) -> Result<CloneFromSnapshot> {
        let seen = wait_until(&self.api(), &self.name, deadline, &format!("is {phase}"), |seen| {
            let now = seen.and_then(|s| s.status.as_ref()?.phase.clone());
            now.is_some_and(|now| now == phase || now.is_terminal())
        })
        .await?
        .context("the clone exists")?;
        let now = seen.status.as_ref().and_then(|s| s.phase.clone());
        ensure!(now == Some(phase.clone()), "{} should be {phase}; it is {:#?}", self.name, seen.status);
        Ok(seen)
    }

    /// All Downloads.
    pub(crate) fn downloads(&self) -> Api<Download> {
        Api::namespaced(self.world.client(), self.world.velero())
    }

    /// The Download it led to.
    ///
    /// # Errors
    /// When there is none.
    pub async fn download(&self) -> Result<Download> {
        let reference = format!("{}/{}", self.namespace, self.name);
        let all = self.downloads().list(&ListParams::default()).await?;
        all.into_iter()
            .find(|d| d.spec.clone_from_snapshot_reference.as_deref() == Some(&reference))
            .with_context(|| format!("no Download refers to {reference}"))
    }

    /// The disk that is being restored into, as soon as there is one.
    ///
    /// # Errors
    /// When no volume is made in time.
    pub async fn disk(&self) -> Result<String> {
        let uid = self.api().get(&self.name).await?.uid().context("an object has a uid")?;
        let scratch: Api<PersistentVolumeClaim> = Api::namespaced(self.world.client(), self.world.velero());
        let volume_of = |c: &PersistentVolumeClaim| c.spec.as_ref().and_then(|s| s.volume_name.clone());
        let claim = wait_until(&scratch, &format!("restore-{uid}"), DEADLINE, "has a volume", |claim| {
            claim.and_then(volume_of).is_some()
        })
        .await?;
        let volume = claim.as_ref().and_then(volume_of).context("a claim with a volume")?;
        let volumes: Api<PersistentVolume> = Api::all(self.world.client());
        let csi = volumes.get(&volume).await?.spec.and_then(|s| s.csi).context("a CSI volume")?;
        Ok(csi.volume_handle)
    }
}
