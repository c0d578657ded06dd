//! Somebody whose claim is backed up, restored and deleted, day after day, whatever the weather.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use api::conditions::{self, READY};
use api::{
    CloneFromSnapshot, ClonePhase, Condition, DeletePhase, DeleteSnapshot, DeleteSnapshotSpec, Snapshot, SnapshotPhase,
};
use e2e::{Claim, Namespace, World, asked, insist, nothing_left_of_the_dead, wait_until};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use rand::Rng as _;
use serde_json::json;

use super::days::{Life, Lives, loses_nothing};

/// How many restore points a customer keeps at most.
const POINTS: usize = 3;
/// How long a job may take in a storm: what takes longer hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// A restore point, and what the disk held then.
struct Point {
    snapshot: Snapshot,
    digest: String,
}

/// Whether a job is asked to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Will {
    LetsIt,
    StopsIt,
}

/// A customer with one claim in a namespace of its own.
pub(super) struct Customer {
    world: World,
    shop: Namespace,
    life: Life,
    points: Vec<Point>,
}

impl Customer {
    pub(super) async fn new(world: &World, number: u64, seed: u64) -> Result<Self> {
        let shop = world.namespace(&format!("storm-{number}")).await?;
        let life = Life::begin(&shop, number, seed).await?;
        Ok(Self { world: world.clone(), shop, life, points: Vec::new() })
    }

    fn will(&mut self) -> Will {
        if self.life.chance.random_ratio(1, 6) { Will::StopsIt } else { Will::LetsIt }
    }

    async fn backs_up(&mut self, will: Will) -> Result<()> {
        let digest = self.life.claim.digest()?;
        let job = self.shop.snapshot(&self.life.claim).await?;
        if will == Will::StopsIt {
            insist("ask an Upload to stop", || async { stop_upload(&self.world, &job).await }).await?;
        }
        let jobs = job.api();
        let ended = wait_until(&jobs, &job.name, PATIENCE, "has ended", |seen| {
            seen.and_then(Snapshot::phase).is_some_and(SnapshotPhase::is_terminal)
        });
        let ended = ended.await?.context("a Snapshot that ended is there")?;
        let status = ended.status.clone().context("an end is a status")?;
        match status.phase.as_ref() {
            Some(SnapshotPhase::Uploaded) => self.points.push(Point { snapshot: ended, digest }),
            Some(SnapshotPhase::Canceled) if will == Will::StopsIt => {}
            _ => says_why(&status.conditions).with_context(|| format!("Snapshot {} is {status:#?}", job.name))?,
        }
        self.notes("backup", status.phase.map(|phase| phase.to_string()), &status.conditions);
        Ok(())
    }

    async fn restores(&mut self, point: usize, will: Will) -> Result<()> {
        let (name, point) = (format!("back-{}", self.life.day), &self.points[point]);
        let job = self.shop.clone_as(&point.snapshot, &name).await?;
        if will == Will::StopsIt {
            let stop = Patch::Merge(json!({"spec": {"cloneCancel": true}}));
            let (clones, parameters) = (job.api(), PatchParams::default());
            let ask = || async { Ok(clones.patch(&job.name, &parameters, &stop).await?) };
            insist("ask a CloneFromSnapshot to stop", ask).await?;
        }
        let jobs = job.api();
        let ended = wait_until(&jobs, &job.name, PATIENCE, "has ended", |seen| {
            seen.and_then(CloneFromSnapshot::phase).is_some_and(ClonePhase::is_terminal)
        });
        let status = ended.await?.and_then(|clone| clone.status).context("an end is a status")?;
        match status.phase.as_ref() {
            Some(ClonePhase::Completed) => self.has_back(&name, &point.digest).await?,
            end => {
                if end != Some(&ClonePhase::Canceled) || will == Will::LetsIt {
                    says_why(&status.conditions).with_context(|| format!("clone {} is {status:#?}", job.name))?;
                }
                loses_nothing(&job.name, &status)?;
                let claim =
                    insist("look for a claim", || async { Ok(self.shop.claims().get_opt(&name).await?) }).await?;
                ensure!(claim.is_none(), "the restore ended {end:?} and left claim {name}: {claim:#?}");
            }
        }
        self.notes("restore", status.phase.map(|phase| phase.to_string()), &status.conditions);
        Ok(())
    }

    /// A restored claim is bound and holds what it should; then it goes.
    async fn has_back(&self, name: &str, digest: &str) -> Result<()> {
        let find = || async { Claim::bound(&self.world, self.shop.name(), name).await };
        let back = insist("find a restored claim", find).await?;
        ensure!(back.digest()? == digest, "claim {name} came back different");
        let claims = self.shop.claims();
        let delete = || async {
            match claims.delete(name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()), // an earlier request was heard
                deleted => Ok(deleted.map(drop)?),
            }
        };
        insist("delete a claim", delete).await
    }

    async fn deletes(&mut self, point: &Point) -> Result<()> {
        delete_by_hand(&self.world, &point.snapshot, self.shop.repository()).await?;
        self.notes("deletion", Some("Completed".to_owned()), &[]);
        Ok(())
    }

    fn notes(&mut self, job: &str, phase: Option<String>, conditions: &[Condition]) {
        let why = conditions::get(conditions, READY).map_or("", |ready| ready.reason.as_str());
        let end = format!("{job} {} {why}", phase.unwrap_or_default());
        self.life.notes(end.trim_end().to_owned());
    }

    /// In the calm after it: every restore point comes back, restic finds nothing wrong, and nothing is left.
    pub(super) async fn comes_out_whole(mut self) -> Result<()> {
        let name = self.shop.name().to_owned();
        println!("{name}: {} days, {:?}", self.life.day, self.life.ends);
        let points = self.points.len();
        self.backs_up(Will::LetsIt).await.with_context(|| format!("{name}, in the calm"))?;
        ensure!(self.points.len() > points, "{name}: no backup in the calm: {:?}", self.life.ends);
        for point in 0..self.points.len() {
            self.life.day += 1;
            self.life.ends.clear();
            self.restores(point, Will::LetsIt).await.with_context(|| format!("{name}, in the calm"))?;
            ensure!(
                self.life.ends.keys().all(|end| end.starts_with("restore Completed")),
                "{name}: {:?}",
                self.life.ends
            );
        }
        nothing_left_of_the_dead(&self.world, &self.shop, self.points.len()).await.with_context(|| name.clone())?;
        insist("count volumes", || has_one_volume(&self.world, &self.shop)).await?;
        self.world.restic(&name).check().await?;
        self.life.claim.delete().await.with_context(|| name) // its disk is tracked, which no later scenario expects
    }
}

/// Asks the Upload of a Snapshot to stop, unless the Snapshot has ended without one.
pub(super) async fn stop_upload(world: &World, job: &e2e::Snapshot) -> Result<()> {
    let jobs = job.api();
    let seen = wait_until(&jobs, &job.name, PATIENCE, "has an Upload", |seen| {
        let status = seen.and_then(|s| s.status.as_ref());
        status.is_some_and(|s| s.snapshot_id.is_some() || s.phase.as_ref().is_some_and(SnapshotPhase::is_terminal))
    });
    if seen.await?.as_ref().and_then(Snapshot::phase).is_some_and(SnapshotPhase::is_terminal) {
        return Ok(());
    }
    let name = job.upload().await?.name_any();
    let stop = Patch::Merge(json!({"spec": {"uploadCancel": true}}));
    let uploads: Api<api::Upload> = Api::namespaced(world.client(), world.velero());
    uploads.patch(&name, &PatchParams::default(), &stop).await?;
    Ok(())
}

/// Deletes by hand what a Snapshot has backed up, as a user does whose backup program has forgotten it.
pub(super) async fn delete_by_hand(world: &World, snapshot: &Snapshot, repository: &str) -> Result<()> {
    let status = snapshot.status.as_ref().context("a Snapshot has a status")?;
    let spec = DeleteSnapshotSpec {
        snapshot_id: status.snapshot_id.clone().context("it names what it has taken")?,
        backup_repository: repository.to_owned(),
    };
    let deletions: Api<DeleteSnapshot> = Api::namespaced(world.client(), world.velero());
    let name = api::names::delete_snapshot(uuid::Uuid::new_v4());
    let name = asked(&deletions, &DeleteSnapshot::new(&name, spec)).await?;
    let ended = wait_until(&deletions, &name, PATIENCE, "is Completed", |seen| {
        seen.and_then(DeleteSnapshot::phase) == Some(&DeletePhase::Completed)
    });
    ended.await.map(drop)
}

impl Lives for Customer {
    const MOST: usize = POINTS;

    fn name(&self) -> String {
        self.shop.name().to_owned()
    }

    fn life(&mut self) -> &mut Life {
        &mut self.life
    }

    fn kept(&self) -> usize {
        self.points.len()
    }

    async fn backs_up_today(&mut self) -> Result<()> {
        let will = self.will();
        self.backs_up(will).await
    }

    async fn restores_one(&mut self, which: usize) -> Result<()> {
        let will = self.will();
        self.restores(which, will).await
    }

    async fn deletes_one(&mut self, which: usize) -> Result<()> {
        let point = self.points.remove(which);
        self.deletes(&point).await
    }
}

/// Only the claim's own volume is left of a customer: in its namespace, and in those that its backups were restored to.
pub(super) async fn has_one_volume(world: &World, shop: &Namespace) -> Result<()> {
    let all = Api::<PersistentVolume>::all(world.client()).list(&ListParams::default()).await?;
    let ours = all.iter().filter(|volume| {
        let claim = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        claim.and_then(|c| c.namespace.as_deref()).is_some_and(|namespace| namespace.starts_with(shop.name()))
    });
    let ours: Vec<String> = ours.map(|volume| volume.name_any()).collect();
    ensure!(ours.len() == 1, "volumes of {}: {ours:?}", shop.name());
    Ok(())
}

/// The object says what went wrong in a word and in a sentence.
fn says_why(conditions: &[Condition]) -> Result<()> {
    let Some(ready) = conditions::get(conditions, READY) else { bail!("it does not say why") };
    ensure!(ready.status == "False" && !ready.reason.is_empty() && !ready.message.is_empty(), "it does not say why");
    Ok(())
}
