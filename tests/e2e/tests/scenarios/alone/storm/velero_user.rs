//! Somebody who backs up, restores and deletes with Velero's command line, whatever the weather.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::{CloneFromSnapshot, ClonePhase, DeletePhase, DeleteSnapshot, Snapshot, SnapshotPhase, labels};
use e2e::{Claim, Namespace, Velero, VeleroStatus, World, insist, nothing_left_of_the_dead, wait_until};
use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::customer::{PATIENCE, delete_by_hand, has_one_volume, stop_upload};
use super::days::{Life, Lives, loses_nothing};

/// How many backups are kept at most.
const BACKUPS: usize = 2;
/// Pause between two looks for a Snapshot.
const LOOK: Duration = Duration::from_millis(100);
/// Velero tries a deletion that it could not do no more: it is asked for again after so long.
const ASKED_AGAIN: Duration = Duration::from_secs(60);

/// How often an end is aimed at, while the weather brings another one.
const TRIES: u32 = 5;

/// What befalls a backup so that Velero calls it otherwise than *Completed*. Chance alone seldom does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// Somebody stops its Upload: *PartiallyFailed*.
    Stopped,
    /// Velero is killed while it collects: *Failed*.
    Forgotten,
}

impl Aim {
    const ALL: [Self; 2] = [Self::Stopped, Self::Forgotten];

    /// What Velero is to call the backup.
    fn phase(self) -> &'static str {
        match self {
            Self::Stopped => "PartiallyFailed",
            Self::Forgotten => "Failed",
        }
    }
}

/// A backup that Velero called Completed, and what the disk held then.
struct Kept {
    backup: String,
    digest: String,
}

/// A customer of Velero with one claim in a namespace of its own.
pub(super) struct VeleroUser {
    world: World,
    velero: Velero,
    shop: Namespace,
    life: Life,
    kept: Vec<Kept>,
    /// Backups that ended otherwise; some of their data may be there.
    others: Vec<String>,
}

impl VeleroUser {
    pub(super) async fn new(world: &World, number: u64, seed: u64) -> Result<Self> {
        let shop = world.namespace(&format!("storm-velero-{number}")).await?;
        let life = Life::begin(&shop, number, seed).await?;
        let (world, velero) = (world.clone(), world.velero_server());
        Ok(Self { world, velero, shop, life, kept: Vec::new(), others: Vec::new() })
    }

    /// Backs up until each end was met that somebody aims at.
    pub(super) async fn is_struck(&mut self) -> Result<()> {
        for aim in Aim::ALL {
            let phase = aim.phase();
            let mut tries = 0;
            while !self.life.ends.contains_key(&format!("backup {phase}")) {
                self.life.day += 1;
                tries += 1;
                ensure!(tries <= TRIES, "no backup of {} was ever {phase}: {:?}", self.shop.name(), self.life.ends);
                self.backs_up(Some(aim)).await.with_context(|| format!("a backup that is to be {phase}"))?;
            }
        }
        Ok(())
    }

    async fn backs_up(&mut self, aim: Option<Aim>) -> Result<()> {
        let (name, digest) = (format!("{}-{}", self.shop.name(), self.life.day), self.life.claim.digest()?);
        insist("ask Velero for a backup", || async {
            was_heard(self.velero.back_up(&name, self.shop.name(), &["--item-operation-timeout", "15m"]).await)
        })
        .await?;
        match aim {
            Some(Aim::Stopped) => self.somebody_stops_it(&name).await?,
            Some(Aim::Forgotten) => self.velero_dies_of_it(&name).await?,
            None => {}
        }
        let status = self.backup_that(&name, "has ended", VeleroStatus::has_ended).await?;
        self.notes("backup", &status);
        if status.phase == "Completed" {
            self.kept.push(Kept { backup: name, digest });
            return Ok(());
        }
        self.says_why("backup", &name, &status).await?;
        self.others.push(name);
        Ok(())
    }

    /// Stops the Upload of a backup's only claim, once it is there.
    async fn somebody_stops_it(&self, backup: &str) -> Result<()> {
        let begin = tokio::time::Instant::now();
        let (due, mut reminded) = (begin + PATIENCE, begin);
        while self.phase_of(backup).await.is_none_or(|status| !status.has_ended()) {
            // an API server that is away now is asked again
            if let Ok(snapshots) = self.world.snapshots_of(backup).await
                && let [job] = &snapshots[..]
            {
                return insist("ask an Upload to stop", || async { stop_upload(&self.world, job).await }).await;
            }
            ensure!(tokio::time::Instant::now() < due, "backup {backup} has no Snapshot and does not end");
            if reminded.elapsed() > ASKED_AGAIN {
                self.reminds_velero_of(backup).await?;
                reminded = tokio::time::Instant::now();
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(()) // it has ended before it asked for a Snapshot
    }

    /// Kills Velero while it collects what belongs to the backup, and starts it again.
    async fn velero_dies_of_it(&self, backup: &str) -> Result<()> {
        let is_begun = |status: &VeleroStatus| !["", "New", "Queued", "ReadyToStart"].contains(&status.phase.as_str());
        self.backup_that(backup, "is begun", is_begun).await?;
        let _ = self.world.kill("velero").await; // it may have ended by itself
        insist("start Velero again", || self.world.start_process("velero")).await
    }

    /// Waits until `is_so` holds for what Velero says of a backup.
    async fn backup_that(
        &self,
        backup: &str,
        what: &str,
        is_so: impl Fn(&VeleroStatus) -> bool,
    ) -> Result<VeleroStatus> {
        let due = tokio::time::Instant::now() + PATIENCE;
        loop {
            let seen = wait_until(&self.velero.backups(), backup, ASKED_AGAIN, what, |seen| {
                seen.and_then(|backup| backup.status.as_ref()).is_some_and(&is_so)
            })
            .await;
            match seen {
                Ok(seen) => return seen.and_then(|backup| backup.status).context("it was said in the status"),
                Err(error) => ensure!(tokio::time::Instant::now() < due, "{error:#}"),
            }
            self.reminds_velero_of(backup).await?;
        }
    }

    /// Velero 1.18 that was killed when a backup was `ReadyToStart` begins it only when somebody changes it.
    async fn reminds_velero_of(&self, backup: &str) -> Result<()> {
        if self.phase_of(backup).await.is_none_or(|status| status.phase != "ReadyToStart") {
            return Ok(());
        }
        let change = Patch::Merge(json!({"metadata": {"annotations": {"storm": uuid::Uuid::new_v4().to_string()}}}));
        let (backups, parameters) = (self.velero.backups(), PatchParams::default());
        let remind = || async { Ok(backups.patch(backup, &parameters, &change).await.map(drop)?) };
        insist("remind Velero of a backup", remind).await
    }

    /// What Velero calls a backup by now; `None` while nobody answers, or while it says nothing.
    async fn phase_of(&self, backup: &str) -> Option<VeleroStatus> {
        self.velero.backups().get(backup).await.ok()?.status
    }

    async fn restores(&mut self, which: usize) -> Result<()> {
        let (name, from) = (format!("{}-back-{}", self.shop.name(), self.life.day), &self.kept[which]);
        let mapping = format!("{}:{name}", self.shop.name());
        insist("ask Velero for a restore", || async {
            was_heard(self.velero.restore(&name, &from.backup, &["--namespace-mappings", &mapping]).await)
        })
        .await?;
        let ended = wait_until(&self.velero.restores(), &name, PATIENCE, "has ended", |seen| {
            seen.and_then(|restore| restore.status.as_ref()).is_some_and(VeleroStatus::has_ended)
        })
        .await?;
        let status = ended.and_then(|restore| restore.status).context("an end is a status")?;
        self.notes("restore", &status);
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.world.client(), &name);
        let there = insist("look for a claim", || async { Ok(claims.get_opt("data").await?) }).await?;
        let is_bound = there.and_then(|claim| claim.status?.phase).is_some_and(|phase| phase == "Bound");
        if status.phase == "Completed" || is_bound {
            // a claim gets its volume when the data is there, so one that has it is whole, whatever became of the rest
            let find = || async { Claim::bound(&self.world, &name, "data").await };
            let back = insist("find a restored claim", find).await;
            if back.is_err() {
                self.clones_say_why(&name).await?;
            }
            let back = back.with_context(|| format!("restore {name} is {status:?}"))?;
            ensure!(back.digest()? == self.kept[which].digest, "claim {name}/data came back different: {status:?}");
        }
        if status.phase != "Completed" {
            self.says_why("restore", &name, &status).await?;
        }
        self.clones_say_why(&name).await?;
        let namespaces: Api<KubeNamespace> = Api::all(self.world.client());
        insist("delete a namespace", || async {
            match namespaces.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
                deleted => Ok(deleted.map(drop)?),
            }
        })
        .await?;
        wait_until(&namespaces, &name, PATIENCE, "is gone", |seen: Option<&KubeNamespace>| seen.is_none()).await?;
        Ok(())
    }

    /// What became of the clones in a namespace that a restore was mapped to.
    async fn clones_say_why(&self, namespace: &str) -> Result<()> {
        let clones: Api<CloneFromSnapshot> = Api::namespaced(self.world.client(), namespace);
        for clone in insist("list clones", || async { Ok(clones.list(&ListParams::default()).await?) }).await? {
            if clone.phase() == Some(&ClonePhase::Completed) {
                continue;
            }
            let (name, status) = (clone.name_any(), clone.status.unwrap_or_default());
            println!("CloneFromSnapshot {namespace}/{name}: {}", json!(status));
            loses_nothing(&name, &status)?;
        }
        Ok(())
    }

    /// Asks until the backup is gone; then what Velero has told us to delete is deleted. Where it could not read the backup from the object
    /// store at that moment it asks nobody, and says so in its log alone: then somebody deletes by hand.
    async fn deletes(&mut self, backup: &str) -> Result<()> {
        self.asks_until_it_is_gone(backup).await?;
        if insist("look what is to be deleted", || self.world.deletions_of(backup)).await?.is_empty() {
            let log = self.world.logs("velero").await?;
            let skipped = format!("Unable to download tarball for backup {backup}, skipping");
            ensure!(log.contains(&skipped), "backup {backup} is gone, and nobody was told to delete what it holds");
            self.life.notes("deletion Untold".to_owned());
            return self.deletes_by_hand(backup).await;
        }
        insist("delete what was backed up", || self.deletions_are_done(backup)).await?;
        self.life.notes("deletion Completed".to_owned());
        Ok(())
    }

    async fn asks_until_it_is_gone(&self, backup: &str) -> Result<()> {
        let due = tokio::time::Instant::now() + PATIENCE;
        loop {
            insist("ask Velero for a deletion", || async {
                match self.velero.delete(backup).await {
                    Err(error) if format!("{error:#}").contains("not found") => Ok(()),
                    asked => asked,
                }
            })
            .await?;
            let gone = wait_until(&self.velero.backups(), backup, ASKED_AGAIN, "is gone", |seen| seen.is_none()).await;
            match gone {
                Ok(_) => return Ok(()),
                Err(error) => ensure!(tokio::time::Instant::now() < due, "{error:#}"),
            }
        }
    }

    /// Every deletion that Velero has told us of is done.
    async fn deletions_are_done(&self, backup: &str) -> Result<()> {
        let asked = self.world.deletions_of(backup).await?;
        let is_done = |asked: &DeleteSnapshot| asked.phase() == Some(&DeletePhase::Completed);
        ensure!(asked.iter().all(is_done), "not all are Completed: {asked:#?}");
        Ok(())
    }

    /// What is there of a backup that did not complete goes. One that Velero has called Failed it deletes without a word to us, as it has
    /// no content; so somebody deletes by hand what its Snapshots have taken.
    async fn clears_away(&mut self, backup: &str) -> Result<()> {
        self.deletes_by_hand(backup).await?;
        self.asks_until_it_is_gone(backup).await?;
        insist("delete what was backed up", || self.deletions_are_done(backup)).await
    }

    async fn deletes_by_hand(&self, backup: &str) -> Result<()> {
        for job in insist("find a backup's Snapshots", || self.world.snapshots_of(backup)).await? {
            let ended = wait_until(&job.api(), &job.name, PATIENCE, "has ended", |seen| {
                seen.and_then(Snapshot::phase).is_some_and(SnapshotPhase::is_terminal)
            })
            .await?;
            let snapshot = ended.context("a Snapshot that ended is there")?;
            if snapshot.status.as_ref().is_some_and(|status| status.snapshot_id.is_some()) {
                delete_by_hand(&self.world, &snapshot, &snapshot.spec.backup_repository).await?;
            }
        }
        Ok(())
    }

    /// Velero says in the status, in the job's log, or beside an operation, why it did not complete.
    async fn says_why(&self, job: &str, name: &str, status: &VeleroStatus) -> Result<()> {
        if status.phase != "PartiallyFailed" {
            ensure!(!status.reasons().is_empty(), "{job} {name} is {} and does not say why: {status:?}", status.phase);
            return Ok(());
        }
        ensure!(status.errors > 0, "{job} {name} is PartiallyFailed without an error: {status:?}");
        let read = || async {
            let log = self.velero.run(&[job, "logs", name]).await?;
            if log.lines().any(|line| line.contains("level=error")) {
                return Ok(());
            }
            // an operation that failed later is not in the log
            let told = self.velero.run(&[job, "describe", name, "--details"]).await?;
            let why = told.lines().find_map(|line| line.trim().strip_prefix("Operation Error:"));
            ensure!(
                why.is_some_and(|why| !why.trim().is_empty()),
                "{job} {name} says nowhere what failed:\n{told}\n{log}"
            );
            Ok(())
        };
        insist("read through Velero why it failed", read).await
    }

    fn notes(&mut self, job: &str, status: &VeleroStatus) {
        self.life.notes(format!("{job} {}", status.phase));
    }

    /// In the calm after it: every backup that Velero called Completed comes back, restic finds nothing wrong, nothing is left, and what
    /// is deleted then is gone.
    pub(super) async fn comes_out_whole(mut self) -> Result<()> {
        let name = self.shop.name().to_owned();
        println!("{name}: {} days through Velero, {:?}", self.life.day, self.life.ends);
        insist("wait for Velero's storage locations", || self.world.locations_are_available()).await?;
        let kept = self.kept.len();
        self.life.day += 1;
        self.life.ends.clear();
        self.backs_up(None).await.with_context(|| format!("{name}, in the calm"))?;
        ensure!(self.kept.len() > kept, "{name}: no backup in the calm: {:?}", self.life.ends);
        for which in 0..self.kept.len() {
            self.life.day += 1;
            self.life.ends.clear();
            self.restores(which).await.with_context(|| format!("{name}, in the calm"))?;
            ensure!(self.life.ends.keys().all(|end| end == "restore Completed"), "{name}: {:?}", self.life.ends);
        }
        let points = self.points().await?;
        for kept in &self.kept {
            let of_it = points.iter().filter(|backup| **backup == labels::backup_name(&kept.backup)).count();
            ensure!(of_it == 1, "{of_it} restore points of {}: {points:?}", kept.backup);
        }
        nothing_left_of_the_dead(&self.world, &self.shop, points.len()).await.with_context(|| name.clone())?;
        insist("count volumes", || has_one_volume(&self.world, &self.shop)).await?;
        self.world.restic(&name).check().await?;
        for backup in self.kept.iter().map(|kept| kept.backup.clone()).collect::<Vec<_>>() {
            self.deletes(&backup).await.with_context(|| format!("{name}, in the calm"))?;
        }
        self.kept.clear();
        for backup in std::mem::take(&mut self.others) {
            self.clears_away(&backup).await.with_context(|| format!("{name}, in the calm"))?;
        }
        let left = self.points().await?;
        ensure!(left.is_empty(), "restore points of {name} are left: {left:?}");
        self.life.claim.delete().await.with_context(|| name) // its disk is tracked, which no later scenario expects
    }

    /// The backups that restore points in the repository are of: none of those that were deleted.
    async fn points(&self) -> Result<Vec<String>> {
        let kept = self.kept.iter().map(|kept| labels::backup_name(&kept.backup));
        let known: BTreeSet<_> = kept.chain(self.others.iter().map(|name| labels::backup_name(name))).collect();
        let mut of = Vec::new();
        for point in self.world.restic(self.shop.name()).snapshots().await? {
            let tags = point["tags"].as_array().into_iter().flatten().filter_map(|tag| tag.as_str());
            let backup = tags.into_iter().find_map(|tag| tag.strip_prefix("backup=")).unwrap_or_default().to_owned();
            ensure!(
                known.contains(&backup),
                "a restore point is left of backup `{backup}`, which was deleted: {point}"
            );
            of.push(backup);
        }
        Ok(of)
    }
}

impl Lives for VeleroUser {
    const MOST: usize = BACKUPS;

    fn name(&self) -> String {
        self.shop.name().to_owned()
    }

    fn life(&mut self) -> &mut Life {
        &mut self.life
    }

    fn kept(&self) -> usize {
        self.kept.len()
    }

    async fn backs_up_today(&mut self) -> Result<()> {
        self.backs_up(None).await
    }

    async fn restores_one(&mut self, which: usize) -> Result<()> {
        self.restores(which).await
    }

    async fn deletes_one(&mut self, which: usize) -> Result<()> {
        let gone = self.kept.remove(which);
        self.deletes(&gone.backup).await
    }
}

/// A request that is there already was heard before, though the answer was lost.
fn was_heard(asked: Result<()>) -> Result<()> {
    match asked {
        Err(error) if format!("{error:#}").contains("already exists") => Ok(()),
        asked => asked,
    }
}
