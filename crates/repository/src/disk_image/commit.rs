//! From settled chunks to a restore point: packs → index → check → snapshot file → read back → check again.
//!
//! The snapshot file is the commit. Whatever fails after it may exist removes it again.
//!
//! A maintenance run may be under way all the while. It says what it is about to remove, *then* lists the snapshots; we
//! store the snapshot file, *then* ask what is about to be removed. So one of the two sees the other, and the restore
//! point is never left without what it needs.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use super::check::{Head, Missing, check, distrust_broken};
use super::folders::{ClosedFolder, disk_digest};
use super::image::{DOCUMENT, EXTENTS};
use super::layout::{DiskDocument, SCHEMA, folder_name};
use super::writer::State;
use crate::error::{Damage, Error};
use crate::hash::{ChunkId, hex, sha256};
use crate::pack::BlobKind;
use crate::repository::Repository;
use crate::restore_point::{RestorePoint, RestorePointId, SnapshotFile};
use crate::tree::TreeText;
use crate::unpacked::{self, Folder, Sealed};

/// Tries to remove a snapshot file that must not stay, and the wait between them.
const REMOVALS: u32 = 5;
const BETWEEN_REMOVALS: Duration = Duration::from_secs(2);

/// Times that the trees above the chunks are made again before the caller is told to start over.
const ATTEMPTS: usize = 4;

pub(super) async fn commit(state: &Arc<State>) -> Result<RestorePoint, Error> {
    let _one_at_a_time = state.committing.lock().await;
    state.clone().hash_the_rest();
    state.tasks.close();
    state.tasks.wait().await;
    state.tasks.reopen();
    state.packer.state()?;
    state.packer.may_store().await?;
    for _ in 0..ATTEMPTS {
        if let Some(point) = attempt(state).await? {
            return Ok(point);
        }
    }
    Err(Error::SendAgain { chunks: Vec::new() })
}

/// `None`: only what is made without the disk has vanished, so try again.
async fn attempt(state: &Arc<State>) -> Result<Option<RestorePoint>, Error> {
    let folders = state.folders.lock().unwrap_or_else(PoisonError::into_inner).closed();
    let folders = folders.map_err(|chunk| Error::InvalidUse { cause: format!("chunk {chunk} never came") })?;
    let folders = Arc::new(folders);
    let mut head = store_in_background(state, &folders).await?;
    let repository = &state.repository;
    if distrust_broken(repository, &head).await? {
        head = store_in_background(state, &folders).await?; // what was lost is unknown now, so it is stored again
    }
    state.packer.flush().await?;

    repository.renew_for_writing().await?;
    let seen = repository.inner.index.generation();
    let missing = check(repository, &state.point.path, &head).await?;
    if !missing.is_empty() {
        return send_again(state, missing).map(|()| None);
    }
    let snapshot = SnapshotFile::new(&state.point, &head.root);
    let sealed = unpacked::seal(&repository.inner.cipher, &snapshot);
    let unproven = Unproven { repository: Some(repository.clone()), id: sealed.id };
    let missing = match prove(state, &sealed, &head, seen).await {
        Ok(missing) => missing,
        Err(error) => {
            unproven.remove().await;
            return Err(error);
        }
    };
    if !missing.is_empty() {
        info!(path = %state.point.path, "what the new restore point needs vanished while it was committed");
        unproven.remove().await;
        return send_again(state, missing).map(|()| None);
    }
    unproven.keep();
    let id = RestorePointId(sealed.id);
    info!(restore_point = %id, path = %state.point.path, "restore point committed");
    let point = snapshot.restore_point(id).expect("we wrote it in our name, with a tree");
    repository.note(&point);
    Ok(Some(point))
}

/// Asks the caller for what only the disk has. A folder whose tree is missing is asked for in whole: its chunks' ids are
/// not kept.
fn send_again(state: &State, missing: Missing) -> Result<(), Error> {
    let mut chunks = missing.chunks;
    for folder in missing.folders {
        chunks.extend(state.reopen_folder(folder));
    }
    if chunks.is_empty() {
        return Ok(());
    }
    chunks.sort_unstable();
    chunks.dedup();
    Err(Error::SendAgain { chunks })
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
    Ok(Head { root, extents, document: document_id.0, folders: folders.iter().map(|folder| folder.tree).collect() })
}

/// Writes the snapshot file, reads it back, and looks whether something it needs vanished meanwhile.
async fn prove(state: &State, sealed: &Sealed, head: &Head, seen: u64) -> Result<Missing, Error> {
    let repository = &state.repository;
    let (store, key) = (repository.inner.store.as_ref(), Folder::Snapshots.key(&sealed.id));
    store.put(&key, sealed.body()).await.map_err(Error::store("store the snapshot file"))?;
    let back = store.get(&key).await.map_err(Error::store("read the snapshot file back"))?;
    if back != sealed.bytes {
        return Err(Error::damaged("read the snapshot file back", Damage::Sealed { object: key }));
    }
    repository.renew_for_writing().await?;
    // without a lock, other programs may remove packs without a word
    let locked = repository.inner.locks_held.load(Ordering::SeqCst) > 0;
    if locked && repository.inner.index.generation() == seen {
        return Ok(Missing::default()); // all that the first check found is still listed
    }
    check(repository, &state.point.path, head).await
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

    async fn remove(mut self) {
        if let Some(repository) = self.repository.take() {
            remove_for_good(&repository, &self.id).await;
        }
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
                warn!(restore_point = %hex(id), cause = cause.chain(), "a restore point that is not proven could not be removed");
            }
            Err(_) => tokio::time::sleep(BETWEEN_REMOVALS).await,
        }
    }
}
