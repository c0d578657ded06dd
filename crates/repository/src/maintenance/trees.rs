//! Walks the trees of snapshots, whoever wrote them, and notes what they refer to.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::id_set::IdSet;
use crate::error::{Damage, Error};
use crate::hash::{ChunkId, from_hex, hex};
use crate::index::{IndexPack, PackRef};
use crate::pack::{Blob, BlobKind};
use crate::repository::{Repository, open_blob};
use crate::tree::Tree;
use crate::unpacked::{self, Folder};

/// Trees read at once; one of a folder of 4 GiB has some 550 KiB.
const TREES_AT_ONCE: usize = 8;

/// Where each tree is. Some 60 bytes a tree, of which a disk has one for 4 GiB.
#[derive(Default)]
pub(super) struct TreePlaces {
    places: HashMap<[u8; 32], Place>,
    packs: Vec<PackRef>,
}

#[derive(Clone, Copy)]
struct Place {
    pack: u32,
    offset: u32,
    length: u32,
    plain_length: Option<u32>,
}

impl TreePlaces {
    /// Notes the trees of a pack; of a tree that is in several, the first place.
    pub(super) fn add(&mut self, pack: &IndexPack) {
        let number = u32::try_from(self.packs.len()).expect("fewer than 2^32 packs");
        let mut new = false;
        for blob in pack.blobs.iter().map(Blob::from).filter(|blob| blob.kind == BlobKind::Tree) {
            let Blob { offset, length, plain_length, .. } = blob;
            let place = Place { pack: number, offset, length, plain_length };
            self.places.entry(blob.id).or_insert_with(|| {
                new = true;
                place
            });
        }
        if new {
            self.packs.push(PackRef { id: pack.id, length: pack.length() });
        }
    }

    pub(super) fn has(&self, tree: &[u8; 32]) -> bool {
        self.places.contains_key(tree)
    }

    async fn read(&self, repository: &Repository, id: [u8; 32]) -> Result<([u8; 32], Refers), Error> {
        let not_indexed = || Error::damaged("read a tree", Damage::NotIndexed { chunk: hex(&id) });
        let place = *self.places.get(&id).ok_or_else(not_indexed)?;
        let pack = self.packs[place.pack as usize];
        let Place { offset, length, plain_length, .. } = place;
        let blob = Blob { id, kind: BlobKind::Tree, offset, length, plain_length };
        let sealed = repository.read_pack(&pack, u64::from(offset), u64::from(length)).await?;
        let cipher = repository.inner.cipher.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let text = open_blob(&cipher, &pack, &blob, &sealed)?;
            Refers::parse(&text).map_err(|cause| {
                let (object, cause) = (crate::pack::key(&pack.id), format!("in it tree {}: {cause}", hex(&id)));
                Error::damaged("read a tree", Damage::Malformed { object, cause })
            })
        });
        Ok((id, reading.await.expect("reading a tree does not panic")?))
    }
}

/// What a tree refers to.
struct Refers {
    trees: Vec<[u8; 32]>,
    chunks: Vec<ChunkId>,
}

impl Refers {
    fn parse(text: &[u8]) -> Result<Self, String> {
        let mut refers = Self { trees: Vec::new(), chunks: Vec::new() };
        for node in Tree::parse(text)?.nodes {
            let id = || format!("`{}` refers to something that is no id", node.name);
            let (tree, chunks) = node.refers_to().ok_or_else(id)?;
            refers.trees.extend(tree);
            refers.chunks.extend(chunks);
        }
        Ok(refers)
    }
}

/// A snapshot of anyone; only its tree matters here.
#[derive(Debug, Deserialize)]
struct Snapshot {
    tree: String,
}

/// The tree of a snapshot; `None` when the snapshot is gone.
pub(super) async fn root_of(repository: &Repository, snapshot: &[u8; 32]) -> Result<Option<[u8; 32]>, Error> {
    let (store, cipher) = (repository.inner.store.as_ref(), &repository.inner.cipher);
    let Some(file) = unpacked::load::<Snapshot>(store, cipher, Folder::Snapshots, snapshot).await? else {
        return Ok(None);
    };
    let malformed = || {
        let cause = format!("its tree `{}` is no id", file.tree);
        Error::damaged("read a snapshot", Damage::Malformed { object: Folder::Snapshots.key(snapshot), cause })
    };
    from_hex(&file.tree).map(Some).ok_or_else(malformed)
}

/// What a walk has met so far.
pub(super) struct Used {
    /// Trees and chunks.
    pub(super) blobs: IdSet,
    trees: HashSet<[u8; 32]>,
}

impl Used {
    pub(super) fn new() -> Self {
        Self { blobs: IdSet::new(), trees: HashSet::new() }
    }

    /// After a walk that failed: what it left half-walked must be walked again by whoever else refers to it.
    pub(super) fn walk_all_again(&mut self) {
        self.trees.clear();
    }

    /// Walks from a root, level by level; what was met before is not read again. Gives the trees that no index listed: they
    /// are to be walked once it does.
    pub(super) async fn walk(
        &mut self,
        repository: &Repository,
        places: &TreePlaces,
        from: Vec<[u8; 32]>,
        cancel: &CancellationToken,
    ) -> Result<Vec<[u8; 32]>, Error> {
        let mut unlisted = Vec::new();
        let mut level = from;
        while !level.is_empty() {
            level.retain(|id| !self.trees.contains(id));
            level.sort_unstable();
            level.dedup();
            let (here, not_here): (Vec<_>, Vec<_>) = level.into_iter().partition(|id| places.has(id));
            unlisted.extend(not_here);
            let mut next = Vec::new();
            let mut read = stream::iter(here).map(|id| places.read(repository, id)).buffer_unordered(TREES_AT_ONCE);
            while let Some((id, refers)) = read.try_next().await? {
                if cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                self.trees.insert(id);
                self.blobs.insert(&id);
                refers.chunks.iter().for_each(|chunk| self.blobs.insert(&chunk.0));
                next.extend(refers.trees);
            }
            level = next;
        }
        Ok(unlisted)
    }
}
