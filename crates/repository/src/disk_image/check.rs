//! Is everything there, and here to stay, that a restore point refers to? Asked before its snapshot file is written, and
//! after.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use tracing::warn;

use super::image::Image;
use crate::error::{Damage, Error};
use crate::hash::{ChunkId, hex};
use crate::index::{Index, PackRef};
use crate::nearby::Nearby;
use crate::pack::{self, BlobKind};
use crate::repository::Repository;

/// Up to this many packs are asked for one by one; for more the store's listing is shorter.
const ASK_SINGLY: usize = 200;

/// Questions to the store at once.
const QUESTIONS_AT_ONCE: usize = 8;

/// Looks before we give up on trees that are listed and cannot be read.
const LOOKS: usize = 3;

/// What stands above the chunks of a restore point.
pub(super) struct Head {
    pub(super) root: [u8; 32],
    pub(super) extents: [u8; 32],
    /// The chunk of `/disk.json`.
    pub(super) document: [u8; 32],
    /// Trees of the folders in disk order.
    pub(super) folders: Vec<[u8; 32]>,
}

impl Head {
    fn top(&self) -> [(BlobKind, [u8; 32]); 3] {
        [(BlobKind::Tree, self.root), (BlobKind::Tree, self.extents), (BlobKind::Data, self.document)]
    }

    fn blobs(&self) -> impl Iterator<Item = (BlobKind, [u8; 32])> + '_ {
        self.top().into_iter().chain(self.folders.iter().map(|id| (BlobKind::Tree, *id)))
    }

    fn missing(&self, index: &Index) -> Missing {
        let gone = |(kind, id): (BlobKind, [u8; 32])| index.find_lasting(kind, &id).is_none();
        let folders = self.folders.iter().zip(0..).filter(|(id, _)| gone((BlobKind::Tree, **id)));
        Missing {
            top: self.top().into_iter().any(gone),
            folders: folders.map(|(_, number)| number).collect(),
            chunks: Vec::new(),
        }
    }
}

/// What a restore point refers to and the repository does not have, or will not have for long.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// The root, the list of folders or `/disk.json`: made again without the disk.
    pub(super) top: bool,
    /// Numbers of folders whose tree is missing.
    pub(super) folders: Vec<u64>,
    /// Chunks, each by the first place that needs it.
    pub(super) chunks: Vec<u64>,
}

impl Missing {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Finds every blob in the index as it was last renewed, reads the trees back, and checks every pack's length.
///
/// Packs that are gone or too short are not trusted from here on, so that a chunk sent again is stored again.
pub(super) async fn check(repository: &Repository, name: &str, head: &Head) -> Result<Missing, Error> {
    let mut looks = 0;
    loop {
        looks += 1;
        let missing = head.missing(&repository.inner.index);
        if !missing.is_empty() {
            return Ok(missing);
        }
        match find_all(repository, name, head).await {
            Ok(found) if !found.missing.is_empty() => {
                let mut chunks: Vec<_> = found.missing.into_values().collect();
                chunks.sort_unstable();
                return Ok(Missing { chunks, ..Missing::default() });
            }
            Ok(found) => {
                if !distrust_broken_packs(repository, found.packs).await? {
                    return Ok(Missing::default());
                }
            }
            // a tree's pack may have gone since it was found: then the next look says whose
            Err(error @ Error::Damaged { .. }) => {
                distrust_broken(repository, head).await?;
                if looks == LOOKS || head.missing(&repository.inner.index).is_empty() {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Looks at the packs that the index has for trees and `/disk.json`, and stops trusting those that are gone or too short;
/// says whether there were any.
pub(super) async fn distrust_broken(repository: &Repository, head: &Head) -> Result<bool, Error> {
    let packs = head.blobs().filter_map(|(kind, id)| repository.inner.index.find_lasting(kind, &id)).collect();
    distrust_broken_packs(repository, packs).await
}

async fn distrust_broken_packs(repository: &Repository, packs: HashSet<PackRef>) -> Result<bool, Error> {
    let broken = broken_packs(repository, packs).await?;
    for (pack, damage) in &broken {
        warn!(pack = %hex(&pack.id), %damage, "a pack of the repository is damaged; what it held is stored again");
        repository.inner.index.distrust(pack);
    }
    Ok(!broken.is_empty())
}

/// What the trees of a restore point refer to.
struct Found {
    packs: HashSet<PackRef>,
    /// Chunks that no index lists, each with the first place that needs it.
    missing: HashMap<ChunkId, u64>,
}

async fn find_all(repository: &Repository, name: &str, head: &Head) -> Result<Found, Error> {
    let index = &repository.inner.index;
    let mut blobs = Nearby::new(repository);
    let image = Image::read(&mut blobs, name, &head.root).await?;
    let mut found = Found { packs: HashSet::new(), missing: HashMap::new() };
    for (kind, id) in head.blobs() {
        let lost = || Error::damaged("check the new restore point", Damage::NotIndexed { chunk: hex(&id) });
        found.packs.insert(index.find_lasting(kind, &id).ok_or_else(lost)?);
    }
    let read = image.read_folders(&mut blobs, |folder, ids| {
        let first = image.layout.folder_chunks(folder).start;
        for (id, place) in ids?.iter().zip(first..) {
            match index.find_lasting(BlobKind::Data, &id.0) {
                Some(pack) => drop(found.packs.insert(pack)),
                None => drop(found.missing.entry(*id).or_insert(place)),
            }
        }
        Ok(())
    });
    read.await?;
    Ok(found)
}

/// The packs that are not there, or not as long as the index says.
pub(super) async fn broken_packs(
    repository: &Repository,
    packs: HashSet<PackRef>,
) -> Result<Vec<(PackRef, Damage)>, Error> {
    let store = repository.inner.store.as_ref();
    let judge = |pack: PackRef, size: Option<u64>| {
        let object = pack::key(&pack.id);
        match size {
            Some(found) if found == pack.length => None,
            Some(found) => Some((pack, Damage::Length { object, expected: pack.length, found })),
            None => Some((pack, Damage::ObjectMissing { object })),
        }
    };
    if packs.len() > ASK_SINGLY {
        let listed = store.list("data/").await.map_err(Error::store("list the packs"))?;
        let sizes: HashMap<_, _> = listed.into_iter().map(|object| (object.key, object.size)).collect();
        return Ok(packs.into_iter().filter_map(|p| judge(p, sizes.get(&pack::key(&p.id)).copied())).collect());
    }
    let ask = |pack: PackRef| async move {
        let key = pack::key(&pack.id);
        let size = store.size(&key).await.map_err(Error::store(format!("look at {key}")))?;
        Ok::<_, Error>(judge(pack, size))
    };
    let asked = stream::iter(packs).map(ask).buffer_unordered(QUESTIONS_AT_ONCE);
    asked.try_filter_map(|broken| async { Ok(broken) }).try_collect().await
}
