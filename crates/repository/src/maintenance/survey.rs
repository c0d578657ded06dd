//! Which packs are there, which does an index list, and which does a snapshot need? Reads only.
//!
//! Index files are streamed, once for the trees' places and once, when it is known what snapshots refer to, for the packs.

use std::collections::{HashMap, HashSet};

use tokio_util::sync::CancellationToken;

use super::trees::{TreePlaces, Used, root_of};
use crate::error::{Damage, Error};
use crate::hash::{from_hex, hex};
use crate::index::{IndexBlob, IndexPack, read_files};
use crate::repository::Repository;
use crate::unpacked::{self, Folder};

/// What a run knows about a repository.
pub(super) struct Survey {
    /// Packs in the store with their sizes.
    present: HashMap<[u8; 32], u64>,
    /// Packs that the index files of the first listing list; whether they are needed.
    indexed: HashMap<[u8; 32], bool>,
    /// Packs that index files found later list.
    listed_since: HashSet<[u8; 32]>,
    /// Index files of the first listing with the packs in them that were not needed.
    holders: HashMap<[u8; 32], Vec<[u8; 32]>>,
    index_files: HashSet<[u8; 32]>,
    snapshots: HashSet<[u8; 32]>,
    places: TreePlaces,
    used: Used,
}

impl Survey {
    /// Looks at everything. The index before the packs before the snapshots: what an index file lists was stored before it,
    /// and what comes later is nothing that this run would remove.
    pub(super) async fn take(repository: &Repository, cancel: &CancellationToken) -> Result<Self, Error> {
        let first = unpacked::ids(repository.inner.store.as_ref(), Folder::Index).await?;
        let mut survey = Self {
            present: present(repository).await?,
            indexed: HashMap::new(),
            listed_since: HashSet::new(),
            holders: HashMap::new(),
            index_files: first.iter().copied().collect(),
            snapshots: HashSet::new(),
            places: TreePlaces::default(),
            used: Used::new(),
        };
        let (present, places) = (&survey.present, &mut survey.places);
        let there = |pack: &&IndexPack| present.get(&pack.id) == Some(&pack.length());
        stream_index(repository, first.clone(), |_, packs| packs.iter().filter(there).for_each(|p| places.add(p)))
            .await?;
        survey.walk_new_snapshots(repository, cancel).await?;
        survey.judge_packs(repository, first.clone()).await?;
        survey.give_up_lost_packs(repository, first).await?;
        Ok(survey)
    }

    /// Looks for what came since: snapshots, and index files that list packs of `due`. Gives those of `due` that are needed.
    pub(super) async fn look_again(
        &mut self,
        repository: &Repository,
        due: &HashSet<[u8; 32]>,
        cancel: &CancellationToken,
    ) -> Result<HashSet<[u8; 32]>, Error> {
        let new_snapshots = self.walk_new_snapshots(repository, cancel).await?;
        self.read_new_index_files(repository).await?;
        let mut needed: HashSet<_> = due.intersection(&self.listed_since).copied().collect();
        if new_snapshots {
            let files = self.index_files_with(due);
            let used = &self.used.blobs;
            let needs = |pack: &&IndexPack| pack.blobs.iter().any(|blob| used.contains(&blob.id));
            stream_index(repository, files, |_, packs| {
                needed.extend(packs.iter().filter(|pack| due.contains(&pack.id)).filter(needs).map(|pack| pack.id));
            })
            .await?;
        }
        Ok(needed)
    }

    /// Packs that nobody needs, with their sizes: those that an index lists, and those that none does.
    pub(super) fn unused(&self) -> HashMap<[u8; 32], u64> {
        let size = |id: &[u8; 32]| (*id, self.present.get(id).copied().unwrap_or_default());
        let indexed = self.indexed.iter().filter(|(_, needed)| !**needed).map(|(id, _)| id);
        let known = |id: &&[u8; 32]| self.indexed.contains_key(*id) || self.listed_since.contains(*id);
        let strays = self.present.keys().filter(|id| !known(id));
        indexed.chain(strays).map(size).collect()
    }

    /// Index files of the first listing that list one of these packs.
    pub(super) fn index_files_with(&self, packs: &HashSet<[u8; 32]>) -> Vec<[u8; 32]> {
        let lists = |held: &[[u8; 32]]| held.iter().any(|pack| packs.contains(pack));
        self.holders.iter().filter(|(_, held)| lists(held)).map(|(file, _)| *file).collect()
    }

    pub(super) fn present(&self) -> &HashMap<[u8; 32], u64> {
        &self.present
    }

    pub(super) fn snapshots(&self) -> usize {
        self.snapshots.len()
    }

    /// Walks the trees of snapshots not seen yet; says whether there were any.
    async fn walk_new_snapshots(&mut self, repository: &Repository, cancel: &CancellationToken) -> Result<bool, Error> {
        let listed = unpacked::ids(repository.inner.store.as_ref(), Folder::Snapshots).await?;
        let mut any = false;
        for snapshot in listed {
            if !self.snapshots.insert(snapshot) {
                continue;
            }
            let Some(root) = root_of(repository, &snapshot).await? else { continue };
            any = true;
            match self.walk(repository, root, cancel).await {
                // a backup that takes its snapshot file back may have good reason
                Err(Error::Damaged { act, source }) if still_there(repository, &snapshot).await? => {
                    let act = format!("read snapshot {}: {act}", hex(&snapshot));
                    return Err(Error::Damaged { act, source });
                }
                Err(Error::Damaged { .. }) => self.used.walk_all_again(),
                Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        self.used.blobs.settle();
        Ok(any)
    }

    async fn walk(&mut self, repository: &Repository, root: [u8; 32], cancel: &CancellationToken) -> Result<(), Error> {
        let unlisted = self.used.walk(repository, &self.places, vec![root], cancel).await?;
        if unlisted.is_empty() {
            return Ok(());
        }
        // a snapshot newer than our listing of the index: its index files were there before it
        self.read_new_index_files(repository).await?;
        match self.used.walk(repository, &self.places, unlisted, cancel).await?.first() {
            None => Ok(()),
            Some(tree) => Err(Error::damaged("walk its trees", Damage::NotIndexed { chunk: hex(tree) })),
        }
    }

    async fn read_new_index_files(&mut self, repository: &Repository) -> Result<(), Error> {
        let listed = unpacked::ids(repository.inner.store.as_ref(), Folder::Index).await?;
        let new: Vec<_> = listed.into_iter().filter(|id| self.index_files.insert(*id)).collect();
        let (places, listed_since) = (&mut self.places, &mut self.listed_since);
        stream_index(repository, new, |_, packs| {
            packs.iter().for_each(|pack| places.add(pack));
            listed_since.extend(packs.iter().map(|pack| pack.id));
        })
        .await
    }

    async fn judge_packs(&mut self, repository: &Repository, files: Vec<[u8; 32]>) -> Result<(), Error> {
        let used = &self.used.blobs;
        let (indexed, holders) = (&mut self.indexed, &mut self.holders);
        stream_index(repository, files, |file, packs| {
            for pack in packs {
                let needed = pack.blobs.iter().any(|blob| used.contains(&blob.id));
                *indexed.entry(pack.id).or_default() |= needed;
                if !needed {
                    holders.entry(file).or_default().push(pack.id);
                }
            }
        })
        .await
    }

    /// A pack that is listed and gone is of no use either when other packs hold what snapshots need of it, as after a backup
    /// stored that again. restic calls a repository damaged that lists it. Where it is the only one, it stays listed.
    async fn give_up_lost_packs(&mut self, repository: &Repository, files: Vec<[u8; 32]>) -> Result<(), Error> {
        let (present, indexed, used) = (&self.present, &mut self.indexed, &self.used.blobs);
        let lost = |pack: &IndexPack| !present.contains_key(&pack.id);
        if !indexed.iter().any(|(id, needed)| *needed && !present.contains_key(id)) {
            return Ok(());
        }
        let mut wanted: HashMap<[u8; 32], HashSet<_>> = HashMap::new();
        stream_index(repository, files.clone(), |_, packs| {
            for pack in packs.iter().filter(|pack| lost(pack)) {
                let needs = pack.blobs.iter().map(IndexBlob::key).filter(|(_, id)| used.contains(id));
                wanted.entry(pack.id).or_default().extend(needs);
            }
        })
        .await?;
        let mut elsewhere: HashSet<_> = HashSet::new();
        let all: HashSet<_> = wanted.values().flatten().copied().collect();
        stream_index(repository, files.clone(), |_, packs| {
            let there = packs.iter().filter(|pack| !lost(pack)).flat_map(|pack| &pack.blobs);
            elsewhere.extend(there.map(IndexBlob::key).filter(|key| all.contains(key)));
        })
        .await?;
        wanted.retain(|_, blobs| blobs.is_subset(&elsewhere));
        for pack in wanted.keys() {
            indexed.insert(*pack, false);
        }
        let holders = &mut self.holders;
        stream_index(repository, files, |file, packs| {
            let given_up = packs.iter().filter(|pack| wanted.contains_key(&pack.id)).map(|pack| pack.id);
            given_up.for_each(|pack| holders.entry(file).or_default().push(pack));
        })
        .await
    }
}

/// All packs of the store with their sizes.
async fn present(repository: &Repository) -> Result<HashMap<[u8; 32], u64>, Error> {
    let objects = repository.inner.store.list("data/").await.map_err(Error::store("list the packs"))?;
    let id = |key: &str| from_hex(key.rsplit('/').next()?);
    Ok(objects.iter().filter_map(|object| Some((id(&object.key)?, object.size))).collect())
}

/// Nobody but us may remove index files now.
async fn stream_index(
    repository: &Repository,
    files: Vec<[u8; 32]>,
    each: impl FnMut([u8; 32], &[IndexPack]),
) -> Result<(), Error> {
    let complete = read_files(repository.inner.store.as_ref(), &repository.inner.cipher, files, each).await?;
    if complete { Ok(()) } else { Err(Error::IndexUnsteady) }
}

async fn still_there(repository: &Repository, snapshot: &[u8; 32]) -> Result<bool, Error> {
    let key = Folder::Snapshots.key(snapshot);
    let size = repository.inner.store.size(&key).await.map_err(Error::store(format!("look at {key}")))?;
    Ok(size.is_some())
}
