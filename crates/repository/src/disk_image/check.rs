//! Is everything there that a restore point refers to? Asked before its snapshot file is written, and after.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use tracing::warn;

use super::image::Image;
use crate::error::{Damage, Error};
use crate::hash::{ChunkId, hex};
use crate::index::PackRef;
use crate::pack::{self, BlobKind};
use crate::repository::Repository;

/// Up to this many packs are asked for one by one; for more the store's listing is shorter.
const ASK_SINGLY: usize = 200;

/// Questions to the store at once.
const QUESTIONS_AT_ONCE: usize = 8;

/// Reads the trees back, finds every blob in the index as the store has it now, and checks every pack's length.
///
/// Packs that are gone or too short are not trusted from here on, so that a chunk sent again is stored again.
pub(super) async fn check(repository: &Repository, name: &str, root: &[u8; 32]) -> Result<(), Error> {
    let mut found = find_all(repository, name, root).await?;
    if found.missing.is_empty() {
        if !distrust_broken_packs(repository, std::mem::take(&mut found.packs)).await? {
            return Ok(());
        }
        found = find_all(repository, name, root).await?;
    }
    let mut chunks: Vec<_> = found.missing.into_values().collect();
    chunks.sort_unstable();
    Err(Error::SendAgain { chunks })
}

/// Looks at the packs that the index has for these blobs, and stops trusting those that are gone or too short; says
/// whether there were any.
pub(super) async fn distrust_broken(repository: &Repository, blobs: &[(BlobKind, [u8; 32])]) -> Result<bool, Error> {
    let packs = blobs.iter().filter_map(|(kind, id)| repository.inner.index.find(*kind, id)).collect();
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

async fn find_all(repository: &Repository, name: &str, root: &[u8; 32]) -> Result<Found, Error> {
    let index = &repository.inner.index;
    let image = Image::read(repository, name, root).await?;
    let mut found = Found { packs: HashSet::new(), missing: HashMap::new() };
    let fixed = [root, &image.extents].into_iter().chain(&image.folders).map(|id| (BlobKind::Tree, id));
    for (kind, id) in fixed.chain(image.document_chunks.iter().map(|id| (BlobKind::Data, &id.0))) {
        let lost = || Error::damaged("check the new restore point", Damage::NotIndexed { chunk: hex(id) });
        found.packs.insert(index.find(kind, id).ok_or_else(lost)?);
    }
    let read = image.read_folders(repository, |folder, ids| {
        let first = image.layout.folder_chunks(folder).start;
        for (id, place) in ids.iter().zip(first..) {
            match index.find(BlobKind::Data, &id.0) {
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
