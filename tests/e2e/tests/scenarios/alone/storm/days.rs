//! What is the same for every customer: one day after the other, until it is calm.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use api::conditions::{self, READY};
use api::{CloneFromSnapshotStatus, Reason};
use e2e::{Claim, Namespace};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

/// Size of each customer's disk: faults of the disk library strike disks of this size.
pub(super) const MIB: u64 = 24;
/// How much of it holds data from the start.
const DATA: u64 = 16 << 20;
/// How much changes each day.
const CHANGE: u64 = 1 << 20;

/// A claim, and what has become of it so far.
pub(super) struct Life {
    pub(super) claim: Claim,
    pub(super) chance: StdRng,
    pub(super) day: u64,
    /// How jobs ended, and how often.
    pub(super) ends: BTreeMap<String, u32>,
}

impl Life {
    /// That of customer `number`, in a namespace of its own.
    pub(super) async fn begin(shop: &Namespace, number: u64, seed: u64) -> Result<Self> {
        let claim = shop.claim("data").mib(MIB).create().await?;
        claim.write_random(seed.wrapping_add(number), 0, DATA)?;
        let chance = StdRng::seed_from_u64(seed.wrapping_add(1 + number));
        Ok(Self { claim, chance, day: 0, ends: BTreeMap::new() })
    }

    /// One more job ended so.
    pub(super) fn notes(&mut self, end: String) {
        *self.ends.entry(end).or_default() += 1;
    }
}

/// Somebody who backs up every day, and now and then restores and deletes.
pub(super) trait Lives {
    /// How many backups are kept at most.
    const MOST: usize;

    fn name(&self) -> String;
    fn life(&mut self) -> &mut Life;
    /// How many backups there are that must come back.
    fn kept(&self) -> usize;
    async fn backs_up_today(&mut self) -> Result<()>;
    async fn restores_one(&mut self, which: usize) -> Result<()>;
    async fn deletes_one(&mut self, which: usize) -> Result<()>;
}

/// No weather takes away what was backed up: a restore may end otherwise than it should, but never because its data is not there.
pub(super) fn loses_nothing(clone: &str, status: &CloneFromSnapshotStatus) -> Result<()> {
    use Reason::{
        RepositoryDamaged, RepositoryMissing, RepositoryPasswordWrong, RestorePointDamaged, RestorePointMissing,
    };
    let losses =
        [RepositoryDamaged, RepositoryMissing, RepositoryPasswordWrong, RestorePointDamaged, RestorePointMissing];
    let said = conditions::get(&status.conditions, READY).and_then(|ready| Reason::from_word(&ready.reason));
    ensure!(said.is_none_or(|said| !losses.contains(&said)), "a backup is lost, says {clone}: {status:#?}");
    Ok(())
}

/// Day after day until it is calm.
pub(super) async fn live<L: Lives>(mut who: L, is_calm: watch::Receiver<bool>) -> Result<L> {
    while !*is_calm.borrow() {
        who.life().day += 1;
        let day = who.life().day;
        live_a_day(&mut who).await.with_context(|| format!("on day {day} of {}", who.name()))?;
    }
    Ok(who)
}

async fn live_a_day<L: Lives>(who: &mut L) -> Result<()> {
    let life = who.life();
    let place = life.chance.random_range(0..(MIB << 20) - CHANGE);
    let seed = life.chance.random();
    life.claim.write_random(seed, place, CHANGE)?;
    who.backs_up_today().await.context("the backup")?;
    let kept = who.kept();
    if kept > 0 && who.life().chance.random_ratio(1, 2) {
        let which = who.life().chance.random_range(0..kept);
        who.restores_one(which).await.context("the restore")?;
    }
    if kept > L::MOST || (kept > 1 && who.life().chance.random_ratio(1, 3)) {
        let which = who.life().chance.random_range(0..kept);
        who.deletes_one(which).await.context("the deletion")?;
    }
    Ok(())
}
