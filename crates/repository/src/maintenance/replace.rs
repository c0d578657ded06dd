//! New index files in the place of old ones. The new ones are there, and read back, before the first old one goes.

use std::collections::HashSet;

use crate::disk_image::INDEX_BLOBS;
use crate::error::{Damage, Error};
use crate::index::IndexFile;
use crate::repository::Repository;
use crate::unpacked::{self, Folder};

/// Old index files whose content is elsewhere, as far as it stays.
#[must_use]
pub(super) struct Replaced {
    old: Vec<[u8; 32]>,
}

/// Stores what `old` list, without the packs that go.
pub(super) async fn store_without(
    repository: &Repository,
    old: Vec<[u8; 32]>,
    going: &HashSet<[u8; 32]>,
) -> Result<Replaced, Error> {
    let mut left = IndexFile::default();
    let mut blobs = 0;
    for id in &old {
        let file: Option<IndexFile> =
            unpacked::load(repository.inner.store.as_ref(), &repository.inner.cipher, Folder::Index, id).await?;
        for pack in file.ok_or(Error::IndexUnsteady)?.packs {
            if going.contains(&pack.id) {
                continue;
            }
            blobs += pack.blobs.len();
            left.packs.push(pack);
            if blobs >= INDEX_BLOBS {
                store(repository, std::mem::take(&mut left)).await?;
                blobs = 0;
            }
        }
    }
    if !left.packs.is_empty() {
        store(repository, left).await?;
    }
    Ok(Replaced { old })
}

async fn store(repository: &Repository, file: IndexFile) -> Result<(), Error> {
    let (store, cipher) = (repository.inner.store.as_ref(), repository.inner.cipher.clone());
    let sealing = tokio::task::spawn_blocking(move || unpacked::seal(&cipher, &file)).await;
    let sealed = sealing.expect("sealing an index file does not panic");
    let key = Folder::Index.key(&sealed.id);
    store.put(&key, sealed.body()).await.map_err(Error::store("store an index file"))?;
    let back = store.get(&key).await.map_err(Error::store("read an index file back"))?;
    if back == sealed.bytes {
        Ok(())
    } else {
        Err(Error::damaged("read an index file back", Damage::Sealed { object: key }))
    }
}

impl Replaced {
    pub(super) async fn remove_old(self, repository: &Repository) -> Result<(), Error> {
        super::remove_all(repository, self.old.iter().map(|id| Folder::Index.key(id))).await
    }
}
