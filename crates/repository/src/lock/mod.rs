//! Locks as restic makes them, so that its `prune`, `forget` and `check` keep away while a transfer runs.
//!
//! Those of transfers are shared. They protect our transfers from other programs, not from each other: the format only adds.
//! That of a maintenance run is exclusive: to other programs and other runs, not to our transfers.

mod file;
mod letting_go;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::error::Error;
use crate::repository::Repository;
use crate::store;
pub(crate) use file::LockFile;
use file::{Current, all, held_by, remove, write};
pub(crate) use file::{remove_of, remove_stale};

/// A lock is renewed this often. restic calls one stale after 30 minutes.
const REFRESH: Duration = Duration::from_secs(300);
/// Between writing a lock and looking for rivals, as restic waits: one that listed before our file was there has written its own by
/// then.
const SETTLE: Duration = Duration::from_millis(200);
/// Who holds an exclusive lock relies on it for this long after renewing it: a process that was stopped for longer finds
/// out before it removes anything.
const RELIABLE: SignedDuration = SignedDuration::from_mins(20);
/// How long a lock may take to go. A store that does not answer would keep the end of a transfer from being told.
const LETTING_GO: Duration = Duration::from_secs(60);
/// Between two looks whether transfers have ended.
const LOOK: Duration = Duration::from_millis(500);

/// What a shared lock is for, and so whether its holder can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A backup: it proves its restore point once more where it has no lock.
    Writing,
    /// A restore or a verification: it checks every byte it reads, and may be all that is left to a user whose store is
    /// full.
    Reading,
}

impl Purpose {
    /// Whether a lock that could not be written for this cause is gone without.
    fn does_without(self, cause: &Error) -> bool {
        let Error::Store { source, .. } = cause else { return false };
        match source.kind() {
            store::ErrorKind::AccessDenied => true,
            store::ErrorKind::Failed => self == Self::Reading, // full, over a quota, failing
            store::ErrorKind::Unreachable | store::ErrorKind::BucketMissing | store::ErrorKind::NotFound => false,
        }
    }
}

/// A lock; renewed in the background until [`Lock::release`]. Dropped without that, it is removed in the
/// background, so a status written right after may come too early.
#[derive(Debug)]
pub struct Lock {
    repository: Repository,
    held: Option<Held>,
    skipped: Option<String>,
    no_rival: NoRival,
}

/// Becomes known 200 ms after a lock was written: whether another program had the repository to itself by then.
#[derive(Debug, Clone)]
pub struct NoRival(watch::Receiver<Option<Result<(), Arc<Error>>>>);

impl NoRival {
    fn known() -> Self {
        Self(watch::channel(Some(Ok(()))).1)
    }

    /// What a test makes known, when it does.
    #[cfg(test)]
    pub(crate) fn when(known: watch::Receiver<Option<Result<(), Arc<Error>>>>) -> Self {
        Self(known)
    }

    /// Looks in the background.
    fn look(repository: Repository) -> Self {
        let (answer, known) = watch::channel(None);
        tokio::spawn(async move {
            tokio::time::sleep(SETTLE).await;
            answer.send_replace(Some(give_way(&repository).await.map_err(Arc::new)));
        });
        Self(known)
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// [`Error::Locked`] where there is a rival; [`Error::LockUnproven`] where nobody could look; [`Error::Cancelled`] while the
    /// program ends.
    pub async fn wait(&self) -> Result<(), Error> {
        let mut answer = self.0.clone();
        let known = answer.wait_for(Option::is_some).await.map_err(|_| Error::Cancelled)?;
        match known.as_ref().expect("waited for") {
            Ok(()) => Ok(()),
            Err(cause) => Err(again(cause)),
        }
    }
}

/// The error once more, for another who waited for the same.
fn again(cause: &Arc<Error>) -> Error {
    match &**cause {
        Error::Locked { by, exclusive, since } => {
            Error::Locked { by: by.clone(), exclusive: *exclusive, since: *since }
        }
        _ => Error::LockUnproven { source: cause.clone() },
    }
}

#[derive(Debug)]
struct Held {
    current: Arc<tokio::sync::Mutex<Current>>,
    stop: CancellationToken,
    renewing: JoinHandle<()>,
    _counted: Counted,
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
    /// Takes a shared lock and waits until no rival is known to be at work.
    pub(crate) async fn take(repository: Repository, holder: &str, purpose: Purpose) -> Result<Self, Error> {
        let lock = Self::write(repository, holder, purpose, REFRESH).await?;
        if lock.held.is_none() {
            return Ok(lock);
        }
        tokio::time::sleep(SETTLE).await;
        if let Err(rival) = give_way(&lock.repository).await {
            return Err(lock.give_way_to(rival).await);
        }
        Ok(lock)
    }

    /// Takes a shared lock; whether there was a rival becomes known later: [`Lock::no_rival`].
    pub(crate) async fn begin(repository: Repository, holder: &str, purpose: Purpose) -> Result<Self, Error> {
        let mut lock = Self::write(repository, holder, purpose, REFRESH).await?;
        if lock.held.is_some() {
            lock.no_rival = NoRival::look(lock.repository.clone());
        }
        Ok(lock)
    }

    /// A shared lock of which nobody has looked yet whether there is a rival.
    async fn write(repository: Repository, holder: &str, purpose: Purpose, every: Duration) -> Result<Self, Error> {
        give_way(&repository).await?;
        let written = async {
            file::may_delete(&repository).await?;
            file::write(&repository, holder, false).await
        };
        let first = match written.await {
            Err(cause) if purpose.does_without(&cause) => {
                let reason = cause.chain();
                warn!(reason, "going on without a lock: prune the repository only when this has ended");
                return Ok(Self { repository, held: None, skipped: Some(reason), no_rival: NoRival::known() });
            }
            other => other?,
        };
        let held = Held::start(repository.clone(), holder.to_owned(), false, first, every);
        Ok(Self { repository, held: Some(held), skipped: None, no_rival: NoRival::known() })
    }

    /// Whether another program had the repository to itself when this lock was taken: for
    /// [`WriterOptions::lock`](crate::WriterOptions), so that a writer reads and hashes while that is found out.
    pub fn no_rival(&self) -> NoRival {
        self.no_rival.clone()
    }

    /// An exclusive lock, for maintenance. Our transfers do not mind it and do not keep it from being taken.
    pub(crate) async fn take_exclusive(repository: Repository, holder: &str) -> Result<Self, Error> {
        alone(&repository, None).await?;
        let first = write(&repository, holder, true).await?;
        let held = Held::start(repository.clone(), holder.to_owned(), true, first, REFRESH);
        let lock = Self { repository, held: Some(held), skipped: None, no_rival: NoRival::known() };
        tokio::time::sleep(SETTLE).await;
        if let Err(rival) = alone(&lock.repository, Some(first.id)).await {
            return Err(lock.give_way_to(rival).await);
        }
        Ok(lock)
    }

    /// Lets go of the lock for a rival, of whom the caller is told whatever becomes of the lock.
    async fn give_way_to(self, rival: Error) -> Error {
        if let Err(cause) = self.release().await {
            warn!(cause = cause.chain(), "our lock may be there for a while, though another program keeps us out");
        }
        rival
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

    /// Why there is no lock after all: the store's key may add but not delete, or, for a reader, the store is full.
    pub fn skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    /// Removes the lock and waits until it is gone, a minute at most; goes on removing it in the background, also where the store was
    /// away.
    pub async fn release(mut self) -> Result<(), Error> {
        let Some(held) = self.held.take() else { return Ok(()) };
        held.stop.cancel();
        let repository = self.repository.clone();
        let going = tokio::spawn(async move {
            let _ = held.renewing.await; // it ends at the token; a panic in it leaves the id we know
            let id = held.current.lock().await.id;
            let removed = remove(&repository, &id).await;
            removed.inspect_err(|cause| letting_go::removed_later(repository.clone(), id, cause))
        });
        match tokio::time::timeout(LETTING_GO, going).await {
            Ok(gone) => gone.expect("removing a lock does not panic"),
            Err(_) => Err(Error::LockStays { within: LETTING_GO }),
        }
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
                warn!(cause = cause.chain(), "a lock was not removed");
                letting_go::removed_later(repository, id, &cause);
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
                            warn!(cause = cause.chain(), "an old lock was not removed");
                            letting_go::removed_later(repository.clone(), old.id, &cause);
                        }
                    }
                    Err(cause) => warn!(cause = cause.chain(), "could not renew the repository's lock"),
                }
            }
        });
        Self { current, stop, renewing, _counted: counted }
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use secrecy::SecretString;

    use super::*;
    use crate::restore_point::USERNAME;
    use crate::store::FolderStore;
    use crate::unpacked::{self, Folder};
    use crate::{DiskFacts, NewRestorePoint, WriterOptions};

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
        let lock =
            Lock::write(repository.clone(), "upload-1", Purpose::Writing, Duration::from_millis(50)).await.unwrap();
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

    /// Its lock was written after we had looked, and before it could have seen ours.
    #[tokio::test]
    async fn a_rival_that_is_found_late_ends_a_backup_before_it_stores_anything() {
        let folder = tempfile::tempdir().unwrap();
        let repository = repository(folder.path()).await;
        let lock = Lock::write(repository.clone(), "upload-1", Purpose::Writing, REFRESH).await.unwrap();
        let rival = LockFile { username: "root".to_owned(), ..LockFile::new("rival", true) };
        let sealed = unpacked::seal(&repository.inner.cipher, &rival);
        repository.inner.store.put(&Folder::Locks.key(&sealed.id), sealed.body()).await.unwrap();
        let no_rival = NoRival::look(repository.clone());

        let point = || NewRestorePoint::new("a-cluster", "/shop/claim", Timestamp::now(), DiskFacts::of_size(1 << 20));
        let options = || WriterOptions { lock: Some(no_rival.clone()), ..WriterOptions::default() };
        let idle = repository.writer(point(), options()).await.unwrap();
        let writer = repository.writer(point(), options()).await.unwrap();
        for chunk in 0..writer.chunk_count() {
            writer.put_chunk(chunk, vec![7; 512 << 10].into()).await.unwrap();
        }
        let told = writer.commit().await.unwrap_err();
        assert!(matches!(told, Error::Locked { exclusive: true, .. }), "{told}");
        for folder in ["data/", "index/", "snapshots/"] {
            assert_eq!(repository.inner.store.list(folder).await.unwrap(), [], "{folder}");
        }
        // a disk of which everything is known already would be read to its end
        let reading = async {
            loop {
                match idle.put_zero(0..1).await {
                    Ok(()) => tokio::task::yield_now().await,
                    Err(told) => break told,
                }
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(30), reading).await.expect("reading goes on");
        assert!(matches!(told, Error::Locked { .. }), "{told}");
        lock.release().await.unwrap();
        assert_eq!(ids(&repository).await, [sealed.id]);
    }

    /// The user would look for what is wrong with the store, and another program has the repository.
    #[tokio::test(start_paused = true)]
    async fn a_rival_is_named_also_where_our_own_lock_cannot_be_removed() {
        for exclusive in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let repository = repository(folder.path()).await;
            let store = crate::store::FaultyStore::new(repository.inner.store.clone());
            let ours = repository.reopened(Arc::new(store.clone()));
            let away =
                crate::store::Fault::always(crate::store::Operation::Delete, "locks/", store::ErrorKind::Unreachable);
            store.fail(away.after(usize::from(!exclusive))); // a transfer asks first whether it may delete
            let taking = tokio::spawn(async move {
                match exclusive {
                    true => Lock::take_exclusive(ours, "maintenance").await,
                    false => Lock::take(ours, "upload-1", Purpose::Writing).await,
                }
            });
            let begun = std::time::Instant::now(); // the runtime's clock stands still
            while ids(&repository).await.is_empty() {
                assert!(begun.elapsed() < Duration::from_secs(30), "exclusive {exclusive}: our lock was not written");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let rival = LockFile { username: "root".to_owned(), ..LockFile::new("rival", true) };
            let sealed = unpacked::seal(&repository.inner.cipher, &rival);
            repository.inner.store.put(&Folder::Locks.key(&sealed.id), sealed.body()).await.unwrap();
            let taken = tokio::time::timeout(Duration::from_secs(3600), taking).await; // of the runtime's clock
            let told = taken.expect("it finds the rival").unwrap().unwrap_err();
            assert!(matches!(told, Error::Locked { exclusive: true, .. }), "{}", told.chain());
            assert_eq!(store.struck(), 1, "our lock could not be removed");
        }
    }

    #[tokio::test]
    async fn who_cannot_look_for_a_rival_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let repository = repository(folder.path()).await;
        let store = crate::store::FaultyStore::new(repository.inner.store.clone());
        let repository = repository.reopened(Arc::new(store.clone()));
        let lock = Lock::write(repository.clone(), "upload-1", Purpose::Writing, REFRESH).await.unwrap();
        let away = crate::store::Fault::always(crate::store::Operation::List, "locks", store::ErrorKind::Unreachable);
        store.fail(away);
        let told = NoRival::look(repository).wait().await.unwrap_err();
        assert_eq!(told.kind(), crate::ErrorKind::Unreachable, "{told}");
        assert!(
            told.chain().contains("look whether our lock holds") && told.chain().contains("on purpose"),
            "{}",
            told.chain()
        );
        store.heal();
        lock.release().await.unwrap();
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
