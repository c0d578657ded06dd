//! From settled chunks to a restore point: packs → index → check → snapshot file → read back → check again.
//!
//! The snapshot file is the commit. Whatever fails after it may exist removes it again.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use super::check::{check, distrust_broken};
use super::folders::{ClosedFolder, disk_digest};
use super::image::{DOCUMENT, EXTENTS};
use super::layout::{DiskDocument, SCHEMA, folder_name};
use super::writer::State;
use crate::error::{Damage, Error};
use crate::hash::{ChunkId, hex, sha256};
use crate::index::Renewed;
use crate::pack::BlobKind;
use crate::repository::Repository;
use crate::restore_point::{RestorePoint, RestorePointId, SnapshotFile};
use crate::tree::TreeText;
use crate::unpacked::{self, Folder, Sealed};

/// Tries to remove a snapshot file that must not stay, and the wait between them.
const REMOVALS: u32 = 5;
const BETWEEN_REMOVALS: Duration = Duration::from_secs(2);

pub(super) async fn commit(state: &Arc<State>) -> Result<RestorePoint, Error> {
    let _one_at_a_time = state.committing.lock().await;
    state.tasks.close();
    state.tasks.wait().await;
    state.tasks.reopen();
    state.packer.state()?;
    let folders = state.folders.lock().unwrap_or_else(PoisonError::into_inner).closed();
    let folders = folders.map_err(|chunk| Error::InvalidUse { cause: format!("chunk {chunk} never came") })?;
    let folders = Arc::new(folders);
    let mut head = store_in_background(state, &folders).await?;
    let repository = &state.repository;
    if distrust_broken(repository, &head.blobs).await? {
        head = store_in_background(state, &folders).await?; // what was lost is unknown now, so it is stored again
    }
    state.packer.flush().await?;

    let root = head.root;
    let snapshot = SnapshotFile::new(&state.point, &root);
    repository.renew_index().await?;
    check(repository, &state.point.path, &root).await?;
    let sealed = unpacked::seal(&repository.inner.cipher, &snapshot);
    let unproven = Unproven { repository: Some(repository.clone()), id: sealed.id };
    match prove(repository, &sealed, &state.point.path, &root).await {
        Ok(()) => unproven.keep(),
        Err(error) => return Err(unproven.remove(error).await),
    }
    let id = RestorePointId(sealed.id);
    info!(restore_point = %id, path = %state.point.path, "restore point committed");
    Ok(snapshot.restore_point(id).expect("we wrote it in our name, with a tree"))
}

/// What stands above the chunks of a restore point.
struct Head {
    root: [u8; 32],
    /// Everything from the root down to the folders' trees.
    blobs: Vec<(BlobKind, [u8; 32])>,
}

async fn store_in_background(state: &Arc<State>, folders: &Arc<Vec<ClosedFolder>>) -> Result<Head, Error> {
    let (state, folders) = (state.clone(), folders.clone());
    tokio::task::spawn_blocking(move || store_head(&state, &folders)).await.expect("building trees does not panic")
}

/// Stores `/disk.json`, the list of folders and the root. For blocking threads.
fn store_head(state: &State, folders: &[ClosedFolder]) -> Result<Head, Error> {
    let document = DiskDocument {
        schema: SCHEMA,
        chunk_size: state.layout.chunk_size,
        extent_size: state.layout.extent_size,
        digest: hex(&disk_digest(folders.iter().map(|folder| folder.digest))),
        facts: state.point.disk.clone(),
    };
    let document = serde_json::to_vec_pretty(&document).expect("strings, numbers and times are JSON");
    let document_id = ChunkId::of(&document);
    state.packer.store(BlobKind::Data, document_id.0, &document)?;

    let tree = |text: TreeText| {
        let text = text.finish();
        let id = sha256(&text);
        state.packer.store(BlobKind::Tree, id, &text).map(|_| id)
    };
    let mut extents = TreeText::new();
    for (folder, number) in folders.iter().zip(0..) {
        extents.folder(&folder_name(number), &folder.tree);
    }
    let extents = tree(extents)?;
    let mut root = TreeText::new();
    root.file(DOCUMENT, document.len() as u64, [document_id].iter());
    root.folder(EXTENTS, &extents);
    let root = tree(root)?;
    let trees = folders.iter().map(|folder| folder.tree).chain([extents, root]);
    let blobs = trees.map(|id| (BlobKind::Tree, id)).chain([(BlobKind::Data, document_id.0)]).collect();
    Ok(Head { root, blobs })
}

/// Writes the snapshot file, reads it back, and makes sure that nothing it needs vanished meanwhile.
async fn prove(repository: &Repository, sealed: &Sealed, name: &str, root: &[u8; 32]) -> Result<(), Error> {
    let (store, key) = (repository.inner.store.as_ref(), Folder::Snapshots.key(&sealed.id));
    store.put(&key, sealed.body()).await.map_err(Error::store("store the snapshot file"))?;
    let back = store.get(&key).await.map_err(Error::store("read the snapshot file back"))?;
    if back != sealed.bytes {
        return Err(Error::damaged("read the snapshot file back", Damage::Sealed { object: key }));
    }
    match repository.renew_index().await? {
        Renewed::Grown => Ok(()), // all that the first check found listed still is
        Renewed::Rebuilt => check(repository, name, root).await,
    }
}

/// A snapshot file that may exist and does not count yet. Dropped like this, it is removed in the background.
struct Unproven {
    repository: Option<Repository>,
    id: [u8; 32],
}

impl Unproven {
    fn keep(mut self) {
        self.repository = None;
    }

    /// Removes it and gives the error that was the reason.
    async fn remove(mut self, error: Error) -> Error {
        if let Some(repository) = self.repository.take() {
            remove_for_good(&repository, &self.id).await;
        }
        error
    }
}

impl Drop for Unproven {
    fn drop(&mut self) {
        let (Some(repository), Ok(runtime)) = (self.repository.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let id = self.id;
        runtime.spawn(async move { remove_for_good(&repository, &id).await });
    }
}

async fn remove_for_good(repository: &Repository, id: &[u8; 32]) {
    for attempt in 1..=REMOVALS {
        match repository.forget(&RestorePointId(*id)).await {
            Ok(()) => return,
            Err(cause) if attempt == REMOVALS => {
                warn!(restore_point = %hex(id), cause = %cause.chain(), "a restore point that is not proven could not be removed");
            }
            Err(_) => tokio::time::sleep(BETWEEN_REMOVALS).await,
        }
    }
}
