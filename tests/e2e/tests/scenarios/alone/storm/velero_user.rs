//! Somebody who backs up, restores and deletes with Velero's command line, whatever the weather.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::{DeletePhase, DeleteSnapshot, labels};
use e2e::{Claim, Namespace, Velero, VeleroStatus, World, insist, nothing_left_of_the_dead, wait_until};
use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, PersistentVolumeClaim};
use kube::Api;
use kube::api::DeleteParams;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use super::customer::{CHANGE, DATA, MIB, PATIENCE, has_one_volume};

/// How many backups are kept at most.
const BACKUPS: usize = 2;
/// Velero tries a deletion that it could not do no more: it is asked for again after so long.
const ASKED_AGAIN: Duration = Duration::from_secs(60);

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
    claim: Claim,
    chance: StdRng,
    kept: Vec<Kept>,
    /// Backups that ended otherwise; some of their data may be there.
    others: Vec<String>,
    day: u64,
    /// How jobs ended, and how often.
    ends: BTreeMap<String, u32>,
}

impl VeleroUser {
    pub(super) async fn new(world: &World, number: u64, seed: u64) -> Result<Self> {
        let shop = world.namespace(&format!("storm-velero-{number}")).await?;
        let claim = shop.claim("data").mib(MIB).create().await?;
        claim.write_random(seed.wrapping_add(number), 0, DATA)?;
        let chance = StdRng::seed_from_u64(seed.wrapping_add(1 + number));
        let (world, velero) = (world.clone(), world.velero_server());
        Ok(Self {
            world,
            velero,
            shop,
            claim,
            chance,
            kept: Vec::new(),
            others: Vec::new(),
            day: 0,
            ends: BTreeMap::new(),
        })
    }

    /// Day after day until it is calm.
    pub(super) async fn lives(mut self, is_calm: watch::Receiver<bool>) -> Result<Self> {
        while !*is_calm.borrow() {
            self.day += 1;
            let (day, name) = (self.day, self.shop.name().to_owned());
            self.lives_a_day().await.with_context(|| format!("on day {day} of {name}"))?;
        }
        Ok(self)
    }

    async fn lives_a_day(&mut self) -> Result<()> {
        let place = self.chance.random_range(0..(MIB << 20) - CHANGE);
        let seed = self.chance.random();
        self.claim.write_random(seed, place, CHANGE)?;
        self.backs_up().await.context("the backup")?;
        if !self.kept.is_empty() && self.chance.random_ratio(1, 2) {
            let which = self.chance.random_range(0..self.kept.len());
            self.restores(which).await.context("the restore")?;
        }
        if self.kept.len() > BACKUPS || (self.kept.len() > 1 && self.chance.random_ratio(1, 3)) {
            let gone = self.kept.remove(self.chance.random_range(0..self.kept.len()));
            self.deletes(&gone.backup).await.context("the deletion")?;
        }
        Ok(())
    }

    async fn backs_up(&mut self) -> Result<()> {
        let (name, digest) = (format!("{}-{}", self.shop.name(), self.day), self.claim.digest()?);
        insist("ask Velero for a backup", || async {
            was_heard(self.velero.back_up(&name, self.shop.name(), &["--item-operation-timeout", "15m"]).await)
        })
        .await?;
        let ended = wait_until(&self.velero.backups(), &name, PATIENCE, "has ended", |seen| {
            seen.and_then(|backup| backup.status.as_ref()).is_some_and(VeleroStatus::has_ended)
        })
        .await?;
        let status = ended.and_then(|backup| backup.status).context("an end is a status")?;
        self.notes("backup", &status);
        if status.phase == "Completed" {
            self.kept.push(Kept { backup: name, digest });
            return Ok(());
        }
        self.says_why("backup", &name, &status).await?;
        self.others.push(name);
        Ok(())
    }

    async fn restores(&mut self, which: usize) -> Result<()> {
        let (name, from) = (format!("{}-back-{}", self.shop.name(), self.day), &self.kept[which]);
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
        if status.phase == "Completed" || there.is_some() {
            // a claim is made with its volume, so one that is there is whole, whatever became of the rest
            let find = || async { Claim::bound(&self.world, &name, "data").await };
            let back = insist("find a restored claim", find).await?;
            ensure!(back.digest()? == self.kept[which].digest, "claim {name}/data came back different: {status:?}");
        }
        if status.phase != "Completed" {
            self.says_why("restore", &name, &status).await?;
        }
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

    /// Asks until the backup is gone; then what Velero has told us to delete is deleted.
    async fn deletes(&mut self, backup: &str) -> Result<()> {
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
                Ok(_) => break,
                Err(error) => ensure!(tokio::time::Instant::now() < due, "{error:#}"),
            }
        }
        let is_done = |asked: &DeleteSnapshot| asked.phase() == Some(&DeletePhase::Completed);
        insist("delete what was backed up", || async {
            let asked = self.world.deletions_of(backup).await?;
            ensure!(!asked.is_empty(), "backup {backup} is gone, and nobody was told to delete what it holds");
            ensure!(asked.iter().all(is_done), "not all are Completed: {asked:#?}");
            Ok(())
        })
        .await?;
        *self.ends.entry("deletion Completed".to_owned()).or_default() += 1;
        Ok(())
    }

    /// Velero says in the status, or in the job's log, why it did not complete.
    async fn says_why(&self, job: &str, name: &str, status: &VeleroStatus) -> Result<()> {
        if status.phase != "PartiallyFailed" {
            ensure!(!status.reasons().is_empty(), "{job} {name} is {} and does not say why: {status:?}", status.phase);
            return Ok(());
        }
        ensure!(status.errors > 0, "{job} {name} is PartiallyFailed without an error: {status:?}");
        let read = || async {
            let log = self.velero.run(&[job, "logs", name]).await?;
            ensure!(
                log.lines().any(|line| line.contains("level=error")),
                "the log of {job} {name} has no error:\n{log}"
            );
            Ok(())
        };
        insist("read a log through Velero", read).await
    }

    fn notes(&mut self, job: &str, status: &VeleroStatus) {
        *self.ends.entry(format!("{job} {}", status.phase)).or_default() += 1;
    }

    /// In the calm after it: every backup that Velero called Completed comes back, restic finds nothing wrong, nothing is left, and what
    /// is deleted then is gone.
    pub(super) async fn comes_out_whole(mut self) -> Result<()> {
        let name = self.shop.name().to_owned();
        println!("{name}: {} days through Velero, {:?}", self.day, self.ends);
        insist("wait for Velero's storage locations", || self.world.locations_are_available()).await?;
        let kept = self.kept.len();
        self.day += 1;
        self.ends.clear();
        self.backs_up().await.with_context(|| format!("{name}, in the calm"))?;
        ensure!(self.kept.len() > kept, "{name}: no backup in the calm: {:?}", self.ends);
        for which in 0..self.kept.len() {
            self.day += 1;
            self.ends.clear();
            self.restores(which).await.with_context(|| format!("{name}, in the calm"))?;
            ensure!(self.ends.keys().all(|end| end == "restore Completed"), "{name}: {:?}", self.ends);
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
        self.points().await?;
        self.claim.delete().await.with_context(|| name) // its disk is tracked, which no later scenario expects
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

/// A request that is there already was heard before, though the answer was lost.
fn was_heard(asked: Result<()>) -> Result<()> {
    match asked {
        Err(error) if format!("{error:#}").contains("already exists") => Ok(()),
        asked => asked,
    }
}
