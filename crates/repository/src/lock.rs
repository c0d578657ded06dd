//! Locks as restic makes them, so that its `prune`, `forget` and `check` keep away while a transfer runs.
//!
//! Those of transfers are shared. They protect our transfers from other programs, not from each other: the format only adds.
//! That of a maintenance run is exclusive: to other programs and other runs, not to our transfers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::Error;
use crate::repository::Repository;
use crate::restore_point::USERNAME;
use crate::store;
use crate::unpacked::{self, Folder};

/// A lock is renewed this often. restic calls one stale after 30 minutes.
const REFRESH: Duration = Duration::from_secs(300);
/// Between writing a lock and looking for rivals, as restic waits.
const SETTLE: Duration = Duration::from_millis(200);
/// A lock that nobody renewed for this long counts for nothing.
const STALE: SignedDuration = SignedDuration::from_mins(30);
/// Who holds an exclusive lock relies on it for this long after renewing it: a process that was stopped for longer finds
/// out before it removes anything.
const RELIABLE: SignedDuration = SignedDuration::from_mins(20);
/// Between two looks whether transfers have ended.
const LOOK: Duration = Duration::from_millis(500);

/// A lock file, as restic spells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LockFile {
    time: Timestamp,
    exclusive: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    pid: u32,
}

impl LockFile {
    fn new(holder: &str, exclusive: bool) -> Self {
        Self {
            time: Timestamp::now(),
            exclusive,
            hostname: holder.to_owned(),
            username: USERNAME.to_owned(),
            pid: std::process::id(),
        }
    }

    /// Whether another program forbids us to go on.
    fn keeps_us_out(&self, now: Timestamp) -> bool {
        self.exclusive && !self.is_ours() && !self.is_stale(now)
    }

    /// Whether a maintenance run must not begin: another program is at work, or another run.
    fn keeps_maintenance_out(&self, now: Timestamp) -> bool {
        (self.exclusive || !self.is_ours()) && !self.is_stale(now)
    }

    /// Whether a transfer of ours holds it.
    fn is_transfers(&self, now: Timestamp) -> bool {
        !self.exclusive && self.is_ours() && !self.is_stale(now)
    }

    fn is_ours(&self) -> bool {
        self.username == USERNAME
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        now.duration_since(self.time) >= STALE
    }
}

/// A lock; renewed in the background until [`Lock::release`]. Dropped without that, it is removed in the
/// background, so a status written right after may come too early.
#[derive(Debug)]
pub struct Lock {
    repository: Repository,
    held: Option<Held>,
    skipped: Option<String>,
}

#[derive(Debug)]
struct Held {
    current: Arc<tokio::sync::Mutex<Current>>,
    stop: CancellationToken,
    renewing: JoinHandle<()>,
    _counted: Counted,
}

/// The lock file that stands for a lock now.
#[derive(Debug, Clone, Copy)]
struct Current {
    id: [u8; 32],
    written: Timestamp,
}

/// Counts a lock that is held, for writers that look closer without one.
#[derive(Debug)]
struct Counted(Repository);

impl Counted {
    fn new(repository: &Repository) -> Self {
        repository.inner.locks_held.fetch_add(1, Ordering::SeqCst);
        Self(repository.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.inner.locks_held.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Lock {
    pub(crate) async fn take(repository: Repository, holder: &str) -> Result<Self, Error> {
        Self::take_renewed_every(repository, holder, REFRESH).await
    }

    async fn take_renewed_every(repository: Repository, holder: &str, every: Duration) -> Result<Self, Error> {
        give_way(&repository).await?;
        if let Some(reason) = may_not_delete(&repository).await? {
            warn!(%reason, "no lock taken");
            return Ok(Self { repository, held: None, skipped: Some(reason) });
        }
        let first = match write(&repository, holder, false).await {
            Err(Error::Store { source, .. }) if source.kind() == store::ErrorKind::AccessDenied => {
                let reason = format!("the store's key may not write locks: {source}");
                warn!(%reason, "no lock taken");
                return Ok(Self { repository, held: None, skipped: Some(reason) });
            }
            other => other?,
        };
        let held = Held::start(repository.clone(), holder.to_owned(), false, first, every);
        let lock = Self { repository, held: Some(held), skipped: None };
        tokio::time::sleep(SETTLE).await; // a rival that listed before our file was there has written its own by now
        if let Err(rival) = give_way(&lock.repository).await {
            lock.release().await?;
            return Err(rival);
        }
        Ok(lock)
    }

    /// An exclusive lock, for maintenance. Our transfers do not mind it and do not keep it from being taken.
    pub(crate) async fn take_exclusive(repository: Repository, holder: &str) -> Result<Self, Error> {
        alone(&repository, None).await?;
        let first = write(&repository, holder, true).await?;
        let held = Held::start(repository.clone(), holder.to_owned(), true, first, REFRESH);
        let lock = Self { repository, held: Some(held), skipped: None };
        tokio::time::sleep(SETTLE).await;
        if let Err(rival) = alone(&lock.repository, Some(first.id)).await {
            lock.release().await?;
            return Err(rival);
        }
        Ok(lock)
    }

    /// Waits until no transfer of ours holds a lock, at most for `patience`.
    pub(crate) async fn wait_for_transfers(&self, patience: Duration) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let now = Timestamp::now();
            let at_work = all(&self.repository).await?.into_iter().find(|(_, lock)| lock.is_transfers(now));
            match at_work {
                None => return Ok(()),
                Some((_, lock)) if tokio::time::Instant::now() >= deadline => return Err(held_by(&lock)),
                Some(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// An error when the lock was not renewed in time, so that others may rely on its being dead.
    pub(crate) async fn still_held(&self) -> Result<(), Error> {
        let Some(held) = &self.held else { return Ok(()) };
        let renewed = held.current.lock().await.written;
        let now = Timestamp::now();
        if now.duration_since(renewed) < RELIABLE { Ok(()) } else { Err(Error::LockLost { renewed }) }
    }

    /// Why there is no lock after all: the store's key may add but not delete.
    pub fn skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    /// Removes the lock and waits until it is gone.
    pub async fn release(mut self) -> Result<(), Error> {
        let Some(held) = self.held.take() else { return Ok(()) };
        held.stop.cancel();
        let _ = held.renewing.await; // it ends at the token; a panic in it leaves the id we know
        let id = held.current.lock().await.id;
        remove(&self.repository, &id).await
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        held.stop.cancel();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let repository = self.repository.clone();
        runtime.spawn(async move {
            let _ = held.renewing.await;
            let id = held.current.lock().await.id;
            if let Err(cause) = remove(&repository, &id).await {
                warn!(%cause, "a lock stays behind until it is stale");
            }
        });
    }
}

impl Held {
    fn start(repository: Repository, holder: String, exclusive: bool, first: Current, every: Duration) -> Self {
        let counted = Counted::new(&repository);
        let current = Arc::new(tokio::sync::Mutex::new(first));
        let stop = CancellationToken::new();
        let (renewed, stopped) = (current.clone(), stop.clone());
        let renewing = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    () = tokio::time::sleep(every) => {}
                }
                // not cut short by `stopped`: a new file without its id noted would stay behind
                match write(&repository, &holder, exclusive).await {
                    Ok(new) => {
                        let old = std::mem::replace(&mut *renewed.lock().await, new);
                        if let Err(cause) = remove(&repository, &old.id).await {
                            warn!(%cause, "an old lock stays behind until it is stale");
                        }
                    }
                    Err(cause) => warn!(%cause, "could not renew the repository's lock"),
                }
            }
        });
        Self { current, stop, renewing, _counted: counted }
    }
}

async fn write(repository: &Repository, holder: &str, exclusive: bool) -> Result<Current, Error> {
    let file = LockFile::new(holder, exclusive);
    let sealed = unpacked::seal(&repository.inner.cipher, &file);
    let key = Folder::Locks.key(&sealed.id);
    repository.inner.store.put(&key, sealed.body()).await.map_err(Error::store("lock the repository"))?;
    Ok(Current { id: sealed.id, written: file.time })
}

async fn remove(repository: &Repository, id: &[u8; 32]) -> Result<(), Error> {
    let key = Folder::Locks.key(id);
    repository.inner.store.delete(&key).await.map_err(Error::store("unlock the repository"))
}

/// Asks by removing a lock that never existed; stores check the permission first.
async fn may_not_delete(repository: &Repository) -> Result<Option<String>, Error> {
    let mut nobody = [0; 32];
    crate::crypto::random(&mut nobody);
    match repository.inner.store.delete(&Folder::Locks.key(&nobody)).await {
        Err(cause) if cause.kind() == store::ErrorKind::AccessDenied => {
            Ok(Some(format!("the store's key may add but not delete: {cause}")))
        }
        other => other.map(|()| None).map_err(Error::store("lock the repository")),
    }
}

/// All locks that can be read. One that does not decrypt is reported and left out.
async fn all(repository: &Repository) -> Result<Vec<([u8; 32], LockFile)>, Error> {
    let (store, cipher) = (repository.inner.store.as_ref(), &repository.inner.cipher);
    let mut locks = Vec::new();
    for id in unpacked::ids(store, Folder::Locks).await? {
        match unpacked::load(store, cipher, Folder::Locks, &id).await {
            Ok(Some(lock)) => locks.push((id, lock)),
            Ok(None) => {}
            Err(cause @ Error::Damaged { .. }) => warn!(%cause, "an unreadable lock is ignored"),
            Err(cause) => return Err(cause),
        }
    }
    Ok(locks)
}

/// An error when another program has the repository to itself.
async fn give_way(repository: &Repository) -> Result<(), Error> {
    let now = Timestamp::now();
    match all(repository).await?.into_iter().find(|(_, lock)| lock.keeps_us_out(now)) {
        None => Ok(()),
        Some((_, lock)) => Err(held_by(&lock)),
    }
}

/// An error when another program or another maintenance run is at work; `own` does not count.
async fn alone(repository: &Repository, own: Option<[u8; 32]>) -> Result<(), Error> {
    let now = Timestamp::now();
    let rival = |(id, lock): &([u8; 32], LockFile)| Some(*id) != own && lock.keeps_maintenance_out(now);
    match all(repository).await?.into_iter().find(rival) {
        None => Ok(()),
        Some((_, lock)) => Err(held_by(&lock)),
    }
}

fn held_by(lock: &LockFile) -> Error {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use secrecy::SecretString;

    use super::*;
    use crate::store::FolderStore;

    async fn repository(folder: &std::path::Path) -> Repository {
        let store = Arc::new(FolderStore::new(folder));
        crate::initialise(store, &SecretString::from("a key for tests")).await.unwrap()
    }

    async fn ids(repository: &Repository) -> Vec<[u8; 32]> {
        unpacked::ids(repository.inner.store.as_ref(), Folder::Locks).await.unwrap()
    }

    #[tokio::test]
    async fn a_transfer_of_many_hours_keeps_restics_prune_away_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let repository = repository(folder.path()).await;
        let lock = Lock::take_renewed_every(repository.clone(), "upload-1", Duration::from_millis(50)).await.unwrap();
        let first = ids(&repository).await;
        assert_eq!(first.len(), 1);
        let renewed = tokio::time::timeout(Duration::from_secs(30), async {
            while ids(&repository).await.iter().any(|id| first.contains(id)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        renewed.await.expect("a new lock took the place of the first");
        assert!(!ids(&repository).await.is_empty(), "at no time is there none");
        lock.release().await.unwrap();
        assert!(ids(&repository).await.is_empty(), "the last of them is gone when it is released");
    }

    #[tokio::test]
    async fn only_our_own_stale_locks_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let repository = repository(folder.path()).await;
        let old = Timestamp::now() - SignedDuration::from_mins(31);
        for (username, time) in [(USERNAME, old), ("root", old), (USERNAME, Timestamp::now())] {
            let lock = LockFile { time, username: username.to_owned(), ..LockFile::new("upload-1", false) };
            let sealed = unpacked::seal(&repository.inner.cipher, &lock);
            repository.inner.store.put(&Folder::Locks.key(&sealed.id), sealed.body()).await.unwrap();
        }
        assert_eq!(remove_stale(&repository, Timestamp::now()).await.unwrap(), 1);
        let left = all(&repository).await.unwrap();
        assert_eq!(left.len(), 2, "restic's own, and that of a running transfer: {left:?}");
    }
}
