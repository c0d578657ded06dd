//! A small repository with something to free, and its judge.

use std::collections::HashSet;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::memory::Memory;
use crate::disk_image::{DiskFacts, WriterOptions};
use crate::error::{Damage, Error};
use crate::maintenance::{MaintenanceOptions, Report};
use crate::repository::Repository;
use crate::restore_point::{NewRestorePoint, RestorePoint};
use crate::store::Store;

const PASSWORD: &str = "only for tests";
const CHUNK: usize = 4096;

/// A disk by the letters of its chunks; `.` is zeroes.
pub(super) type Disk = &'static str;

/// An empty repository: keys are made once, since that is slow on purpose.
pub(super) async fn empty() -> (Memory, Repository) {
    static EMPTY: OnceLock<(Memory, Repository)> = OnceLock::new();
    if EMPTY.get().is_none() {
        let memory = Memory::default();
        let repository = crate::initialise(Arc::new(memory.clone()), &PASSWORD.into()).await.unwrap();
        let _ = EMPTY.set((memory, repository)); // another test may have been faster
    }
    let (memory, repository) = EMPTY.get().unwrap();
    let memory = memory.fork();
    let repository = repository.over(Arc::new(memory.clone()));
    (memory, repository)
}

fn chunk(letter: u8) -> Bytes {
    if letter == b'.' {
        return Bytes::from(vec![0; CHUNK]);
    }
    let mut state = u64::from(letter).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..CHUNK).map(next).collect()
}

/// Backs a disk up as a node does: what the check misses is sent again, a few times.
pub(super) async fn back_up(repository: &Repository, disk: Disk) -> Result<RestorePoint, Error> {
    let facts = DiskFacts::of_size((disk.len() * CHUNK) as u64);
    let point = NewRestorePoint::new("cluster", format!("/namespace/{disk}"), Timestamp::UNIX_EPOCH, facts);
    let options =
        WriterOptions { chunk_size: CHUNK as u64, workers: 1, puts_in_flight: Some(1), ..WriterOptions::default() };
    let writer = repository.writer(point, options).await?;
    for (index, letter) in (0..).zip(disk.bytes()) {
        writer.put_chunk(index, chunk(letter)).await?;
    }
    for _ in 0..5 {
        match writer.commit().await {
            Err(Error::SendAgain { chunks }) => {
                for index in chunks {
                    let letter = disk.as_bytes()[usize::try_from(index).unwrap()];
                    writer.put_chunk(index, chunk(letter)).await?;
                }
            }
            other => return other,
        }
    }
    panic!("one run cannot make the check fail five times");
}

/// Leaves packs that no index file lists, like a backup that was killed.
pub(super) async fn killed_backup(memory: &Memory, repository: &Repository, disk: Disk) {
    let store = crate::store::FaultyStore::new(Arc::new(memory.clone()));
    let before = memory.keys("data/").len();
    store.die_after_puts(2);
    back_up(&repository.over(Arc::new(store)), disk).await.unwrap_err();
    assert!(memory.keys("data/").len() > before, "it left something");
}

pub(super) async fn maintain(repository: &Repository, grace: Duration, now: Timestamp) -> Result<Report, Error> {
    let options = MaintenanceOptions { grace, allow_short_grace: true, ..MaintenanceOptions::default() };
    crate::maintenance::run(repository, &options, now, &CancellationToken::new()).await
}

/// Every restore point is whole, and is the disk whose letters its path names.
pub(super) async fn assert_whole(memory: &Memory, repository: &Repository, want: &[Disk]) -> Result<(), String> {
    let fresh = repository.over(Arc::new(memory.clone()));
    let points = fresh.restore_points().await.map_err(|error| error.chain())?;
    let found: HashSet<_> = points.iter().map(|point| point.path.rsplit('/').next().unwrap().to_owned()).collect();
    let want: HashSet<_> = want.iter().map(|disk| (*disk).to_owned()).collect();
    if found != want {
        return Err(format!("there are {found:?} instead of {want:?}"));
    }
    for point in points {
        let disk = point.path.rsplit('/').next().unwrap().to_owned();
        let reader = fresh.reader(&point.id).await.map_err(|error| format!("{disk}: {}", error.chain()))?;
        let plan = reader.plan(0..reader.chunk_count());
        let chunks: Vec<_> =
            reader.read(plan, 2).try_collect().await.map_err(|error: Error| format!("{disk}: {}", error.chain()))?;
        for read in chunks {
            for index in read.at {
                let letter = disk.as_bytes()[usize::try_from(index).unwrap()];
                assert_eq!(read.data, chunk(letter), "chunk {index} of {disk}");
            }
        }
    }
    Ok(())
}

/// No index file lists a pack that is not there: restic would call that damage, though nobody needs it.
pub(super) async fn lost_packs(memory: &Memory, repository: &Repository) -> Vec<Damage> {
    let fresh = repository.over(Arc::new(memory.clone()));
    let ids = crate::unpacked::ids(memory, crate::unpacked::Folder::Index).await.unwrap();
    let mut lost = Vec::new();
    let keys: HashSet<_> = memory.keys("data/").into_iter().collect();
    let each = |_, packs: &[crate::index::IndexPack]| {
        for object in packs.iter().map(|pack| crate::pack::key(&pack.id)).filter(|key| !keys.contains(key)) {
            lost.push(Damage::ObjectMissing { object });
        }
    };
    crate::index::read_files(memory, &fresh.inner.cipher, ids, each).await.unwrap();
    lost
}

/// Real restic finds no error.
pub(super) fn assert_restic_agrees(memory: &Memory) {
    let folder = tempfile::tempdir().unwrap();
    memory.save(folder.path());
    for lock in std::fs::read_dir(folder.path().join("locks")).into_iter().flatten() {
        std::fs::remove_file(lock.unwrap().path()).unwrap(); // of the run that was killed; it would be stale by now
    }
    let mut restic = Command::new("restic");
    restic.args(["--no-cache", "--repo"]).arg(folder.path()).args(["check", "--read-data"]);
    let output =
        restic.env("RESTIC_PASSWORD", PASSWORD).output().expect("restic is installed (Debian package `restic`)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("no errors were found"), "{text}");
}

/// Restore points of `kept` and what became garbage when that of `gone` was deleted; and what a killed backup left.
pub(super) async fn with_garbage(kept: Disk, gone: Disk) -> (Memory, Repository) {
    let (memory, repository) = empty().await;
    back_up(&repository, kept).await.unwrap();
    let deleted = back_up(&repository, gone).await.unwrap();
    repository.forget(&deleted.id).await.unwrap();
    killed_backup(&memory, &repository, "xy").await;
    (memory, repository)
}

impl Repository {
    /// The same repository in another store, as another process would open it.
    pub(super) fn over(&self, store: Arc<dyn Store>) -> Self {
        self.reopened(store)
    }
}
