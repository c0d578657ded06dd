//! An open repository: its key, its index, its restore points.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use disk::{DiskId, DiskSnapshot};
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use zstd::bulk::Decompressor;

use crate::config::{self, Config, VERSION};
use crate::crypto::Cipher;
use crate::disk_image::{self, DiskFacts, Opening, Reader, Writer, WriterOptions};
use crate::error::{Damage, Error};
use crate::hash::{ChunkId, hex, sha256_all};
use crate::index::{Index, PackRef};
use crate::keys::OpenKey;
use crate::lock::{Lock, LockFile, Purpose};
use crate::maintenance::{MaintenanceOptions, Report};
use crate::pack::{self, Blob};
use crate::restore_point::{NewRestorePoint, RestorePoint, RestorePointId, SnapshotFile};
use crate::store::{self, Store};
use crate::unpacked::{self, Folder};

/// Snapshot files read at once.
const SNAPSHOTS_AT_ONCE: usize = 16;

/// For how long a writer that begins believes what was learnt of the index before it.
const LATELY: Duration = Duration::from_secs(30);

/// Listings of the snapshot files before those that vanish again and again are taken for removed.
const LOOKS_AT_POINTS: usize = 10;

/// An open repository. Clones share one index; keep one per repository and process.
#[derive(Debug, Clone)]
pub struct Repository {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cipher: Cipher,
    config: Config,
    pub(crate) index: Index,
    /// When the index was last renewed for writing.
    renewing_for_writing: tokio::sync::Mutex<Option<Instant>>,
    /// Locks of restic's kind that this process holds through this value and its clones.
    pub(crate) locks_held: AtomicUsize,
    /// Snapshot files never change, so each is read once; those that were there at the last look. `None`: another program's.
    points: Mutex<HashMap<[u8; 32], Option<RestorePoint>>>,
    /// Lock files never change either; those that were there at the last look.
    pub(crate) locks: Mutex<HashMap<[u8; 32], LockFile>>,
}

/// What lies under `snapshots/`.
#[derive(Debug)]
pub struct Points {
    /// All restore points of ours that can be read, oldest first.
    pub readable: Vec<RestorePoint>,
    /// Snapshot files, of whomever, that cannot be read, each with [`Error::Damaged`]: any of them may be the newest
    /// restore point of any disk.
    pub damaged: Vec<(RestorePointId, Error)>,
}

/// What a snapshot file turns out to be.
enum Listed {
    Ours(RestorePoint),
    /// Another program's.
    Foreign,
    /// It was removed since it was listed.
    Gone,
}

impl Repository {
    pub(crate) fn with(store: Arc<dyn Store>, config: Config, key: OpenKey) -> Result<Self, Error> {
        if config.version != VERSION {
            return Err(Error::Unsupported { location: store.place(), version: config.version });
        }
        let inner = Inner {
            store,
            cipher: key.cipher,
            config,
            index: Index::new(),
            renewing_for_writing: tokio::sync::Mutex::default(),
            locks_held: AtomicUsize::new(0),
            points: Mutex::default(),
            locks: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same repository in `store`, as another process would open it, without deriving its key again.
    #[cfg(test)]
    pub(crate) fn reopened(&self, store: Arc<dyn Store>) -> Self {
        let key = OpenKey { object: String::new(), cipher: self.inner.cipher.clone() };
        Self::with(store, self.inner.config.clone(), key).expect("it was opened before")
    }

    /// The id in `config`: 64 hex digits.
    pub fn id(&self) -> &str {
        &self.inner.config.id
    }

    /// The store's name for messages.
    pub fn place(&self) -> String {
        self.inner.store.place()
    }

    /// Whether the store still holds this very repository, and not another, or none, since somebody wiped it.
    pub async fn is_current(&self) -> Result<bool, Error> {
        let sealed = match self.inner.store.get(config::KEY).await {
            Err(cause) if cause.kind() == store::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(Error::store("read the repository's config"))?,
        };
        let now = Config::open(&sealed, &self.inner.cipher).and_then(Result::ok);
        Ok(now.is_some_and(|now| now.id == self.inner.config.id))
    }

    /// All restore points of ours, oldest first. Snapshots of other programs are left out, and so are unreadable ones, with
    /// a warning: one damaged file must not hide all others.
    pub async fn restore_points(&self) -> Result<Vec<RestorePoint>, Error> {
        let Points { readable, damaged } = self.points().await?;
        for (_, damage) in damaged {
            tracing::warn!(damage = damage.chain(), "a snapshot file is left out");
        }
        Ok(readable)
    }

    /// All restore points of ours, and the snapshot files that cannot be read: for who asks which restore point is the newest.
    ///
    /// A file that is gone when its turn comes may have been written anew under another name, as [`Repository::tag`] and
    /// restic do it: so the listing is taken again, a few times.
    pub async fn points(&self) -> Result<Points, Error> {
        let mut looks = 0;
        loop {
            looks += 1;
            let (points, gone) = self.points_once().await?;
            if gone == 0 || looks == LOOKS_AT_POINTS {
                return Ok(points);
            }
        }
    }

    /// The points of one listing, and how many of it were gone.
    async fn points_once(&self) -> Result<(Points, usize), Error> {
        let ids = unpacked::ids(self.inner.store.as_ref(), Folder::Snapshots).await?;
        // others remove them as well; one that was written since the listing is only read once more
        let there: HashSet<_> = ids.iter().copied().collect();
        self.inner.points.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| there.contains(id));
        let point = |id| async move { (id, self.point(id).await) };
        let mut read = stream::iter(ids).map(point).buffer_unordered(SNAPSHOTS_AT_ONCE);
        let (mut points, mut gone) = (Points { readable: Vec::new(), damaged: Vec::new() }, 0);
        while let Some((id, point)) = read.next().await {
            match point {
                Ok(Listed::Ours(point)) => points.readable.push(point),
                Ok(Listed::Foreign) => {}
                Ok(Listed::Gone) => gone += 1,
                Err(damage @ Error::Damaged { .. }) => points.damaged.push((RestorePointId(id), damage)),
                Err(other) => return Err(other),
            }
        }
        points.readable.sort_by_key(|point| (point.time, point.id));
        Ok((points, gone))
    }

    async fn point(&self, id: [u8; 32]) -> Result<Listed, Error> {
        let known = self.inner.points.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(known) = known {
            return Ok(known.map_or(Listed::Foreign, Listed::Ours));
        }
        let (store, cipher) = (self.inner.store.as_ref(), &self.inner.cipher);
        let Some(file) = unpacked::load::<SnapshotFile>(store, cipher, Folder::Snapshots, &id).await? else {
            return Ok(Listed::Gone);
        };
        let point = file.restore_point(RestorePointId(id));
        self.inner.points.lock().unwrap_or_else(PoisonError::into_inner).insert(id, point.clone());
        Ok(point.map_or(Listed::Foreign, Listed::Ours))
    }

    /// Takes note of a snapshot file that we wrote and read back.
    pub(crate) fn note(&self, point: &RestorePoint) {
        self.inner.points.lock().unwrap_or_else(PoisonError::into_inner).insert(point.id.0, Some(point.clone()));
    }

    /// The newest restore point of this disk snapshot, whatever restic's id for it is by now. Where none is found and a
    /// snapshot file cannot be read, it may be that one: then the damage is the answer.
    pub async fn find(&self, identity: &DiskSnapshot) -> Result<Option<RestorePoint>, Error> {
        let Points { readable, damaged } = self.points().await?;
        let found = readable.into_iter().rev().find(|point| point.identity().as_ref() == Some(identity));
        match (found, damaged.into_iter().next()) {
            (None, Some((_, damage))) => Err(damage),
            (found, _) => Ok(found),
        }
    }

    /// Whether there is a readable restore point of this disk snapshot, for who would write it again.
    pub async fn find_readable(&self, identity: &DiskSnapshot) -> Result<Option<RestorePoint>, Error> {
        let points = self.restore_points().await?;
        Ok(points.into_iter().rev().find(|point| point.identity().as_ref() == Some(identity)))
    }

    /// The readable restore points of this disk, oldest first.
    pub async fn points_of(&self, disk: &DiskId) -> Result<Vec<RestorePoint>, Error> {
        let of_disk = |point: &RestorePoint| point.identity().is_some_and(|identity| identity.disk == *disk);
        Ok(self.restore_points().await?.into_iter().filter(of_disk).collect())
    }

    /// Adds tags to a restore point, as `restic tag` does it: a new snapshot file takes the place of the old one, which goes
    /// last. One that has them, is gone, or goes meanwhile, is left alone.
    pub async fn tag(&self, id: &RestorePointId, tags: &[(&str, &str)]) -> Result<(), Error> {
        let (store, cipher) = (self.inner.store.as_ref(), &self.inner.cipher);
        let act = || Error::store(format!("tag restore point {id}"));
        let file = unpacked::load::<SnapshotFile>(store, cipher, Folder::Snapshots, &id.0).await?;
        let Some(tagged) = file.and_then(|file| file.tagged(tags)) else { return Ok(()) };
        let sealed = unpacked::seal(cipher, &tagged);
        store.put(&Folder::Snapshots.key(&sealed.id), sealed.body()).await.map_err(act())?;
        let outcome = match store.size(&Folder::Snapshots.key(&id.0)).await.map_err(act()) {
            Ok(Some(_)) => self.forget(id).await,
            // somebody removed it meanwhile: it must not come back
            Ok(None) => return self.forget(&RestorePointId(sealed.id)).await,
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            self.forget(&RestorePointId(sealed.id)).await?; // rather no tag than two of one restore point
        }
        outcome
    }

    /// The restore point whose id begins with `prefix` (hex digits). Those that cannot be read count as well: the one that was meant may
    /// be among them.
    pub async fn find_by_prefix(&self, prefix: &str) -> Result<RestorePoint, Error> {
        let Points { mut readable, mut damaged } = self.points().await?;
        let fits = |id: &RestorePointId| id.to_string().starts_with(prefix);
        readable.retain(|point| fits(&point.id));
        damaged.retain(|(id, _)| fits(id));
        let count = readable.len() + damaged.len();
        if count > 1 || (count == 1 && prefix.is_empty()) {
            return Err(Error::PointAmbiguous { wanted: prefix.to_owned(), count });
        }
        match (readable.pop(), damaged.pop()) {
            (Some(point), _) => Ok(point),
            (None, Some((_, damage))) => Err(damage),
            (None, None) => Err(Error::PointMissing { wanted: prefix.to_owned() }),
        }
    }

    /// Removes a restore point; one that is already gone is fine. Its data goes when maintenance or `restic prune` runs.
    pub async fn forget(&self, id: &RestorePointId) -> Result<(), Error> {
        let key = Folder::Snapshots.key(&id.0);
        self.inner.store.delete(&key).await.map_err(Error::store(format!("remove restore point {id}")))?;
        self.inner.points.lock().unwrap_or_else(PoisonError::into_inner).remove(&id.0);
        Ok(())
    }

    /// Takes a shared lock to write under, in the name of `holder` (the Upload's name, or the machine's).
    pub async fn lock(&self, holder: &str) -> Result<Lock, Error> {
        Lock::take(self.clone(), holder, Purpose::Writing).await
    }

    /// Like [`Repository::lock`], without the 200 ms in which other programs show themselves: the writer must be told of the
    /// lock ([`WriterOptions::lock`]), and stores nothing before they have passed.
    ///
    /// # Errors
    /// When another program had the repository to itself before, or the lock cannot be written. A rival that is found later is an
    /// error of the writer.
    pub async fn begin_lock(&self, holder: &str) -> Result<Lock, Error> {
        Lock::begin(self.clone(), holder, Purpose::Writing).await
    }

    /// Takes a shared lock to read under, in the name of `holder` (the Download's name, or the machine's). A store that takes
    /// no lock, since it is full for instance, does not keep anyone from their data: [`Lock::skipped`] says why.
    pub async fn lock_to_read(&self, holder: &str) -> Result<Lock, Error> {
        Lock::take(self.clone(), holder, Purpose::Reading).await
    }

    /// Removes the locks of ours that `holder` left behind; says how many.
    pub async fn remove_locks_of(&self, holder: &str) -> Result<usize, Error> {
        crate::lock::remove_of(self, holder).await
    }

    /// Removes the locks of ours that nobody has renewed for 30 minutes; says how many.
    pub async fn remove_stale_locks(&self) -> Result<usize, Error> {
        crate::lock::remove_stale(self, jiff::Timestamp::now()).await
    }

    /// Begins a restore point, or goes on with one: see [`WriterOptions::transfer`].
    ///
    /// What another writer of this process learnt of the index a moment ago is not asked for again: it is looked at anew before
    /// the restore point is written.
    pub async fn writer(&self, point: NewRestorePoint, options: WriterOptions) -> Result<Writer, Error> {
        let renewed = *self.inner.renewing_for_writing.lock().await;
        if renewed.is_none_or(|at| at.elapsed() > LATELY) {
            self.renew_for_writing().await?;
        }
        Writer::open(self.clone(), point, options).await
    }

    /// Removes the checkpoints of a transfer that has ended; none is fine. What is left by those who did not come to it goes
    /// in a maintenance run.
    pub async fn forget_transfer(&self, transfer: &str) -> Result<(), Error> {
        disk_image::forget_transfer(self, transfer).await
    }

    /// What `/disk.json` of a restore point says of the disk, and the bytes of its chunks; reads no more of it.
    pub async fn facts(&self, id: &RestorePointId) -> Result<(DiskFacts, u64), Error> {
        let missing = || Error::PointMissing { wanted: id.to_string() };
        let Listed::Ours(point) = self.point(id.0).await? else { return Err(missing()) };
        self.renew_index().await?;
        disk_image::facts(self, &id.to_string(), &point.tree).await
    }

    /// Opens a restore point: reads its trees and finds all its chunks in the index.
    pub async fn reader(&self, id: &RestorePointId) -> Result<Reader, Error> {
        self.open(id, Opening::Whole).await
    }

    /// Finds the restore point of this disk snapshot, as [`Repository::find`] does, and opens it; `None` where there is none. One whose
    /// snapshot file is written anew under another name meanwhile, as for a tag, is found again.
    ///
    /// # Errors
    /// As [`Repository::find`] and [`Repository::reader`].
    pub async fn reader_of(&self, identity: &DiskSnapshot) -> Result<Option<Reader>, Error> {
        let mut looks = 0;
        while let Some(point) = self.find(identity).await? {
            looks += 1;
            match self.reader(&point.id).await {
                Err(Error::PointMissing { .. }) if looks < LOOKS_AT_POINTS => {}
                opened => return opened.map(Some),
            }
        }
        Ok(None)
    }

    /// Opens a restore point also when chunks of it, or trees that name them, are lost, for who wants to know which:
    /// [`Reader::examine`] says so. Its root, the list of its folders and `/disk.json` must be readable.
    pub async fn reader_despite_damage(&self, id: &RestorePointId) -> Result<Reader, Error> {
        self.open(id, Opening::Remains).await
    }

    async fn open(&self, id: &RestorePointId, opening: Opening) -> Result<Reader, Error> {
        // the snapshot before the index: what it needs was indexed before it was written
        let missing = || Error::PointMissing { wanted: id.to_string() };
        let file =
            unpacked::load::<SnapshotFile>(self.inner.store.as_ref(), &self.inner.cipher, Folder::Snapshots, &id.0);
        let file = file.await?.ok_or_else(missing)?;
        let point = file.restore_point(*id).ok_or_else(missing)?;
        self.renew_index().await?;
        let mut first = None;
        loop {
            let lost = self.inner.index.lost();
            let damage = match Reader::open(self.clone(), point.clone(), Opening::Whole).await {
                Err(damage @ Error::Damaged { .. }) => damage,
                other => return other,
            };
            let damage = first.take().unwrap_or(damage);
            if self.inner.index.lost() == lost {
                let opened = match opening {
                    Opening::Whole => Err(damage),
                    Opening::Remains => Reader::open(self.clone(), point, opening).await,
                };
                // whoever asks next looks with fresh eyes
                if let Err(cause) = self.rebuild_index(false).await {
                    tracing::warn!(cause = cause.chain(), "the index was not read anew after a damage");
                }
                return opened;
            }
            first = Some(damage);
            // what a lost pack held may have been stored again since, in a pack that other index files list
            self.rebuild_index(true).await?;
        }
    }

    async fn rebuild_index(&self, keep_distrust: bool) -> Result<(), Error> {
        self.inner.index.rebuild(self.inner.store.as_ref(), &self.inner.cipher, keep_distrust).await
    }

    /// Lists the index files afresh, for who reads.
    pub(crate) async fn renew_index(&self) -> Result<(), Error> {
        self.inner.index.renew(self.inner.store.as_ref(), &self.inner.cipher).await
    }

    /// Learns which packs a maintenance run is about to remove, then lists the index files afresh, for who writes.
    ///
    /// In this order: a run withdraws its word only after it has replaced the index files, so who sees no word any more sees
    /// the new files. The other way round, a run that ends between the two would go unnoticed.
    pub(crate) async fn renew_for_writing(&self) -> Result<(), Error> {
        let mut renewed = self.inner.renewing_for_writing.lock().await; // the newest word last
        let began = Instant::now();
        let condemned = crate::maintenance::condemned(self).await?;
        self.renew_index().await?;
        self.inner.index.avoid(condemned);
        *renewed = Some(began);
        Ok(())
    }

    /// Frees the space of what no restore point needs; see [`crate::maintenance`].
    ///
    /// # Errors
    /// [`ErrorKind::Locked`](crate::ErrorKind::Locked) while another program or another run works on the repository,
    /// `AccessDenied` when the store's key may not delete, `Damaged` when a restore point cannot be read in full (nothing is
    /// removed then), `Cancelled`. After any of them all restore points are whole and the next run goes on.
    pub async fn maintain(&self, options: &MaintenanceOptions, cancel: &CancellationToken) -> Result<Report, Error> {
        crate::maintenance::run(self, options, jiff::Timestamp::now(), cancel).await
    }

    /// Bytes of a pack; a pack that is gone or too short is damage, not a missing file.
    pub(crate) async fn read_pack(&self, pack: &PackRef, offset: u64, length: u64) -> Result<Bytes, Error> {
        let object = pack::key(&pack.id);
        match self.inner.store.get_range(&object, offset, length).await {
            Ok(bytes) => Ok(bytes),
            Err(cause) if cause.kind() == store::ErrorKind::NotFound => {
                self.inner.index.distrust(pack);
                Err(Error::damaged("read a pack", Damage::ObjectMissing { object }))
            }
            // a store that does not answer would only be waited for once more
            Err(cause) if cause.kind() == store::ErrorKind::Unreachable => {
                Err(Error::store(format!("read {object}"))(cause))
            }
            Err(cause) => match self.inner.store.size(&object).await {
                Ok(Some(found)) if found != pack.length => {
                    self.inner.index.distrust(pack);
                    Err(Error::damaged("read a pack", Damage::Length { object, expected: pack.length, found }))
                }
                _ => Err(Error::store(format!("read {object}"))(cause)),
            },
        }
    }
}

/// Decrypts, decompresses and checks one blob. For blocking threads.
pub(crate) fn open_blob(cipher: &Cipher, pack: &PackRef, blob: &Blob, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    open_blobs(cipher, pack, &[(*blob, sealed)]).pop().expect("one answer for one blob")
}

/// Decrypts, decompresses and checks blobs of one pack; all that can be read are hashed together. For blocking threads.
pub(crate) fn open_blobs(cipher: &Cipher, pack: &PackRef, blobs: &[(Blob, &[u8])]) -> Vec<Result<Vec<u8>, Error>> {
    let mut decompressor = Decompressor::new().expect("zstd has memory for a context");
    let opened: Vec<_> =
        blobs.iter().map(|(blob, sealed)| plain(cipher, &mut decompressor, pack, blob, sealed)).collect();
    let contents: Vec<&[u8]> = opened.iter().map(|plain| plain.as_deref().unwrap_or_default()).collect();
    let ids = sha256_all(&contents);
    let named = opened.into_iter().zip(blobs.iter().zip(ids));
    named
        .map(|(opened, ((blob, _), id))| match opened {
            Ok(_) if id != blob.id => Err(damaged(pack, blob, format!("its content is {}", ChunkId(id)))),
            opened => opened,
        })
        .collect()
}

fn plain(
    cipher: &Cipher,
    decompressor: &mut Decompressor<'_>,
    pack: &PackRef,
    blob: &Blob,
    sealed: &[u8],
) -> Result<Vec<u8>, Error> {
    let opened = cipher.open(sealed).ok_or_else(|| damaged(pack, blob, "it does not decrypt".to_owned()))?;
    match blob.plain_length {
        Some(length) => {
            let plain = decompressor.decompress(&opened, length as usize);
            plain.map_err(|cause| damaged(pack, blob, cause.to_string()))
        }
        None => Ok(opened),
    }
}

fn damaged(pack: &PackRef, blob: &Blob, cause: String) -> Error {
    let damage = Damage::Chunk { chunk: hex(&blob.id), pack: hex(&pack.id), offset: u64::from(blob.offset), cause };
    Error::damaged("read a chunk", damage)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use secrecy::SecretString;

    use super::*;
    use crate::store::FolderStore;

    /// What a process keeps of them would grow for ever: the driver removes what has expired, the nodes never do.
    #[tokio::test]
    async fn restore_points_that_another_process_removed_take_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(FolderStore::new(folder.path()));
        let repository = crate::initialise(store.clone(), &SecretString::from("a key for tests")).await.unwrap();
        let mut written = Vec::new();
        for path in ["/shop/claim-1", "/shop/claim-2"] {
            let point = NewRestorePoint::new("a-cluster", path, jiff::Timestamp::now(), DiskFacts::of_size(1 << 20));
            let writer = repository.writer(point, WriterOptions::default()).await.unwrap();
            writer.put_zero(0..writer.chunk_count()).await.unwrap();
            written.push(writer.commit().await.unwrap().id);
        }
        let kept = || -> HashSet<_> { repository.inner.points.lock().unwrap().keys().copied().collect() };
        repository.restore_points().await.unwrap();
        assert_eq!(kept(), written.iter().map(|id| id.0).collect::<HashSet<_>>());

        repository.reopened(store).forget(&written[0]).await.unwrap();
        assert_eq!(repository.restore_points().await.unwrap().len(), 1);
        assert_eq!(kept(), HashSet::from([written[1].0]));
    }
}
