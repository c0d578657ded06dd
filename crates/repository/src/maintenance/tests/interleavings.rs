//! One backup and one maintenance run, step by step in every order with up to three changes of turn.
//!
//! A step is a listing, a put, a removal or a look at a size; the store runs one at a time. The grace is nothing, so that
//! the run removes whatever it finds unused, the packs of the very backup included, or that of packs marked long ago.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::memory::{Memory, Schedule, Scheduled};
use super::world::{Disk, assert_restic_agrees, assert_whole, back_up, lost_packs, maintain, with_garbage};
use crate::maintenance::GRACE;
use crate::repository::Repository;

const BACKUP: usize = 0;
const MAINTENANCE: usize = 1;
const KEPT: Disk = "bcd";
const ALL: usize = usize::MAX;

/// What a history starts from and what happens in it.
struct Scene {
    memory: Memory,
    repository: Repository,
    disk: Disk,
    grace: Duration,
    now: Timestamp,
}

impl Scene {
    /// All garbage goes at once.
    async fn without_grace(disk: Disk) -> Self {
        let (memory, repository) = with_garbage(KEPT, "aefg").await;
        Self { memory, repository, disk, grace: Duration::ZERO, now: Timestamp::now() }
    }

    /// What was marked 72 hours ago goes.
    async fn with_grace(disk: Disk) -> Self {
        let (memory, repository) = with_garbage(KEPT, "aefg").await;
        maintain(&repository, GRACE, Timestamp::now()).await.unwrap();
        let now = Timestamp::now() + SignedDuration::try_from(GRACE).unwrap();
        Self { memory, repository, disk, grace: GRACE, now }
    }

    /// Plays one history; gives the steps that each did and what is left in the store.
    async fn play(&self, parts: &[(usize, usize)]) -> ([usize; 2], Memory) {
        let (memory, schedule) = (self.memory.fork(), Schedule::new(parts));
        let seen_by = |actor| {
            let scheduled = Scheduled { inner: memory.clone(), schedule: schedule.clone(), actor };
            self.repository.over(Arc::new(scheduled))
        };
        let (writing, freeing) = (seen_by(BACKUP), seen_by(MAINTENANCE));
        let backup = async {
            let done = back_up(&writing, self.disk).await;
            schedule.leave(BACKUP);
            done
        };
        let maintenance = async {
            let done = maintain(&freeing, self.grace, self.now).await;
            schedule.leave(MAINTENANCE);
            done
        };
        let both = async { tokio::join!(backup, maintenance) };
        let both = tokio::time::timeout(Duration::from_secs(60), both).await;
        let (point, report) = both.unwrap_or_else(|_| panic!("{parts:?} does not end"));
        point.unwrap_or_else(|error| panic!("{parts:?}: {}", error.chain()));
        report.unwrap_or_else(|error| panic!("{parts:?}: {}", error.chain()));
        (schedule.steps(), memory)
    }

    /// Plays it, then judges it, also after the next run.
    async fn holds(&self, parts: &[(usize, usize)], restic: bool) {
        let (_, memory) = self.play(parts).await;
        let whole = assert_whole(&memory, &self.repository, &[KEPT, self.disk]).await;
        whole.unwrap_or_else(|cause| panic!("{parts:?}: {cause}"));
        let next = self.repository.over(Arc::new(memory.clone()));
        maintain(&next, Duration::ZERO, self.now).await.unwrap_or_else(|error| panic!("{parts:?}: {}", error.chain()));
        let whole = assert_whole(&memory, &self.repository, &[KEPT, self.disk]).await;
        whole.unwrap_or_else(|cause| panic!("after {parts:?} and another run: {cause}"));
        assert_eq!(lost_packs(&memory, &self.repository).await, [], "{parts:?}");
        if restic {
            assert_restic_agrees(&memory);
        }
    }
}

type Parts = Vec<(usize, usize)>;

/// Every order with two changes of turn, whoever begins.
fn two_changes(steps: [usize; 2]) -> Vec<Parts> {
    let orders = [(BACKUP, MAINTENANCE), (MAINTENANCE, BACKUP)].into_iter().flat_map(|(first, second)| {
        (0..=steps[first])
            .flat_map(move |i| (1..=steps[second]).map(move |j| vec![(first, i), (second, j), (first, ALL)]))
    });
    orders.collect()
}

/// Some with up to six changes, the same each time.
fn many_changes(count: usize) -> Vec<Parts> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    (0..count).map(|n| (0..6).map(|part| ((n + part) % 2, 1 + next(9))).collect()).collect()
}

/// Plays and judges histories, many side by side: most of each is waiting for a lock to settle.
async fn all_hold(scene: &Scene, orders: Vec<Parts>, restic_every: usize) {
    use futures::StreamExt;
    let played = futures::stream::iter(orders.into_iter().enumerate()).map(|(n, parts)| async move {
        scene.holds(&parts, n % restic_every == restic_every / 2).await;
    });
    played.buffer_unordered(48).for_each(|()| async {}).await;
}

async fn walk(scene: Scene, restic_every: usize) {
    let (steps, _) = scene.play(&[(BACKUP, ALL), (MAINTENANCE, ALL)]).await;
    assert!(steps[BACKUP] >= 10 && steps[MAINTENANCE] >= 15, "{steps:?}");
    all_hold(&scene, two_changes(steps), restic_every).await;
    all_hold(&scene, many_changes(200), restic_every).await;
}

// the disk is the deleted one again: chunks, trees and all are taken over from what is about to go
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_the_deleted_disk_stays_whole_beside_a_run_that_removes_what_it_takes_over() {
    walk(Scene::with_grace("aefg").await, 200).await;
}

// new chunks, some of the deleted disk, one of a killed backup, and packs of its own that nobody refers to yet
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_stays_whole_beside_a_run_that_removes_even_its_own_packs() {
    walk(Scene::without_grace("afxn").await, 200).await;
}
