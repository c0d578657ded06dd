//! Lock files: what restic writes into them, and reading, writing and removing them.

use std::sync::PoisonError;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::letting_go;
use crate::error::Error;
use crate::repository::Repository;
use crate::restore_point::USERNAME;
use crate::store;
use crate::unpacked::{self, Folder};

/// A lock that nobody renewed for this long counts for nothing.
pub(super) const STALE: SignedDuration = SignedDuration::from_mins(30);

/// Lock files read at once.
const LOCKS_AT_ONCE: usize = 16;

/// The lock file that stands for a lock now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Current {
    pub(super) id: [u8; 32],
    pub(super) written: Timestamp,
}

/// A lock file, as restic spells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LockFile {
    pub(super) time: Timestamp,
    pub(super) exclusive: bool,
    #[serde(default)]
    pub(super) hostname: String,
    #[serde(default)]
    pub(super) username: String,
    #[serde(default)]
    pub(super) pid: u32,
}

impl LockFile {
    pub(super) fn new(holder: &str, exclusive: bool) -> Self {
        Self {
            time: Timestamp::now(),
            exclusive,
            hostname: holder.to_owned(),
            username: USERNAME.to_owned(),
            pid: std::process::id(),
        }
    }

    /// Whether another program forbids us to go on.
    pub(crate) fn keeps_us_out(&self, now: Timestamp) -> bool {
        self.exclusive && !self.is_ours() && !self.is_stale(now)
    }

    /// Whether a maintenance run must not begin: another program is at work, or another run.
    pub(crate) fn keeps_maintenance_out(&self, now: Timestamp) -> bool {
        (self.exclusive || !self.is_ours()) && !self.is_stale(now)
    }

    /// Whether a transfer of ours holds it.
    pub(crate) fn is_transfers(&self, now: Timestamp) -> bool {
        !self.exclusive && self.is_ours() && !self.is_stale(now)
    }

    fn is_ours(&self) -> bool {
        self.username == USERNAME
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        now.duration_since(self.time) >= STALE
    }
}

pub(super) async fn write(repository: &Repository, holder: &str, exclusive: bool) -> Result<Current, Error> {
    let file = LockFile::new(holder, exclusive);
    let sealed = unpacked::seal(&repository.inner.cipher, &file);
    let key = Folder::Locks.key(&sealed.id);
    let being_written = letting_go::BeingWritten::new(repository, sealed.id);
    let put = repository.inner.store.put(&key, sealed.body()).await.map_err(Error::store("lock the repository"));
    being_written.answered();
    put.inspect_err(|cause| letting_go::written_after_all(repository.clone(), sealed.id, cause))?;
    repository.inner.locks.lock().unwrap_or_else(PoisonError::into_inner).insert(sealed.id, file.clone());
    Ok(Current { id: sealed.id, written: file.time })
}

pub(super) async fn remove(repository: &Repository, id: &[u8; 32]) -> Result<(), Error> {
    let key = Folder::Locks.key(id);
    repository.inner.store.delete(&key).await.map_err(Error::store("unlock the repository"))
}

/// Asks by removing a lock that never existed; stores check the permission first.
pub(super) async fn may_delete(repository: &Repository) -> Result<(), Error> {
    let mut nobody = [0; 32];
    crate::crypto::random(&mut nobody);
    let asked = repository.inner.store.delete(&Folder::Locks.key(&nobody)).await;
    asked.map_err(|cause| match cause.kind() {
        store::ErrorKind::AccessDenied => {
            Error::store("lock the repository: the store's key may add but not delete")(cause)
        }
        _ => Error::store("lock the repository")(cause),
    })
}

/// All locks that can be read. One that does not decrypt is reported and left out.
pub(super) async fn all(repository: &Repository) -> Result<Vec<([u8; 32], LockFile)>, Error> {
    let ids = unpacked::ids(repository.inner.store.as_ref(), Folder::Locks).await?;
    let read = |id| async move { Ok(read(repository, id).await?.map(|lock| (id, lock))) };
    let all: Vec<_> = stream::iter(ids).map(read).buffered(LOCKS_AT_ONCE).try_collect().await?;
    let all: Vec<_> = all.into_iter().flatten().collect();
    *repository.inner.locks.lock().unwrap_or_else(PoisonError::into_inner) = all.iter().cloned().collect();
    Ok(all)
}

/// A lock; `None` where it is gone, or cannot be read.
async fn read(repository: &Repository, id: [u8; 32]) -> Result<Option<LockFile>, Error> {
    let (store, cipher) = (repository.inner.store.as_ref(), &repository.inner.cipher);
    let known = repository.inner.locks.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
    if known.is_some() {
        return Ok(known);
    }
    match unpacked::load(store, cipher, Folder::Locks, &id).await {
        Err(cause @ Error::Damaged { .. }) => {
            warn!(cause = cause.chain(), "an unreadable lock is ignored");
            Ok(None)
        }
        read => read,
    }
}

pub(super) fn held_by(lock: &LockFile) -> Error {
    let by = format!("{}@{} (process {})", lock.username, lock.hostname, lock.pid);
    Error::Locked { by, exclusive: lock.exclusive, since: lock.time }
}

/// Removes the locks of ours in the name of `holder`.
pub(crate) async fn remove_of(repository: &Repository, holder: &str) -> Result<usize, Error> {
    remove_ours(repository, |lock| lock.hostname == holder).await
}

/// Removes the locks of ours that were not renewed in time before `now`.
pub(crate) async fn remove_stale(repository: &Repository, now: Timestamp) -> Result<usize, Error> {
    remove_ours(repository, |lock| lock.is_stale(now)).await
}

async fn remove_ours(repository: &Repository, which: impl Fn(&LockFile) -> bool) -> Result<usize, Error> {
    let left: Vec<_> = all(repository).await?.into_iter().filter(|(_, lock)| lock.is_ours() && which(lock)).collect();
    for (id, lock) in &left {
        remove(repository, id).await?;
        info!(holder = lock.hostname, since = %lock.time, "removed a lock left behind");
    }
    Ok(left.len())
}
