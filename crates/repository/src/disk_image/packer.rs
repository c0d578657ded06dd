//! From chunk to stored pack: known? → compress → seal → pack → hash → put → index file. All cores, bounded memory.
//!
//! Work on bytes happens on blocking threads; a pack being filled holds a permit, so at most `puts + 1` packs of 16 MiB, or
//! the few more that are hashed together, exist at once, and the threads wait for the store instead of filling memory. The
//! first failure stops everything.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::checkpoint::Recorder;
use super::compress::Compression;
use crate::error::{Error, ErrorKind};
use crate::hash::{self, ChunkId};
use crate::index::{IndexFile, IndexPack};
use crate::lock::NoRival;
use crate::pack::{self, BlobKind, Buffers, PackBuilder, SealedBlob, SealedPack};
use crate::repository::Repository;
use crate::store::Body;
use crate::unpacked::{self, Folder};

/// Blobs after which an index file is written: 16 GiB of chunks of 512 KiB, below 8 MiB of JSON.
pub(crate) const INDEX_BLOBS: usize = 32 << 10;

/// Packs of trees at once, the one being filled included.
const TREE_PACKS: usize = 2;

/// Full packs that are hashed together where that is faster than one by one: as long as three take, and little memory.
const HASHED_TOGETHER: usize = 4;

/// Packs that may be filled while others are hashed.
const FILLED_MEANWHILE: usize = 3;

/// A pack and its right to be in memory.
type Filled = (PackBuilder, OwnedSemaphorePermit);

/// A pack being filled.
type Slot = Mutex<Option<Filled>>;

/// The sending half of a writer.
#[derive(Clone)]
pub(super) struct Packer {
    shared: Arc<Shared>,
}

struct Shared {
    repository: Repository,
    runtime: Handle,
    compression: Compression,
    buffers: Buffers,
    data: Slot,
    trees: Slot,
    /// Full packs of chunks that wait for others to be hashed with.
    full: Mutex<Vec<Filled>>,
    hashed_together: usize,
    data_permits: Arc<Semaphore>,
    tree_permits: Arc<Semaphore>,
    /// Blobs of this writer that no index file lists yet, and whether they are stored.
    under_way: Mutex<HashMap<(BlobKind, [u8; 32]), bool>>,
    /// Stored packs that no index file lists yet.
    unlisted: Mutex<Vec<IndexPack>>,
    uploads: TaskTracker,
    failure: Mutex<Failure>,
    stop: CancellationToken,
    bytes_stored: AtomicU64,
    /// Sets of packs that are being hashed.
    hashing: AtomicU64,
    waited_us: AtomicU64,
    recorder: Option<Arc<Recorder>>,
    /// Nothing is stored before it is known to hold.
    lock: Option<NoRival>,
}

#[derive(Default)]
enum Failure {
    #[default]
    None,
    /// Nobody was told yet.
    Fresh(Error),
    Told {
        first: String,
        kind: ErrorKind,
    },
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Packer {
    /// Must be called inside the runtime that shall do the puts.
    pub(super) fn new(
        repository: Repository,
        puts: usize,
        recorder: Option<Arc<Recorder>>,
        lock: Option<NoRival>,
    ) -> Self {
        let hashed_together = if hash::together() > 1 { HASHED_TOGETHER } else { 1 };
        let shared = Shared {
            repository,
            runtime: Handle::current(),
            compression: Compression::new(),
            buffers: Buffers::default(),
            data: Slot::default(),
            trees: Slot::default(),
            full: Mutex::default(),
            hashed_together,
            // while some are hashed together, others are filled
            data_permits: Arc::new(Semaphore::new((puts + 1).max(hashed_together + FILLED_MEANWHILE))),
            tree_permits: Arc::new(Semaphore::new(TREE_PACKS)),
            under_way: Mutex::default(),
            unlisted: Mutex::default(),
            uploads: TaskTracker::new(),
            failure: Mutex::default(),
            stop: CancellationToken::new(),
            bytes_stored: AtomicU64::new(0),
            hashing: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
            recorder,
            lock,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The runtime that does the puts.
    pub(super) fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// Bytes of packs that the store has acknowledged.
    pub(super) fn bytes_stored(&self) -> u64 {
        self.shared.bytes_stored.load(Relaxed)
    }

    /// How long packs could not be filled because the store had not taken those before.
    pub(super) fn waited_for_store(&self) -> Duration {
        Duration::from_micros(self.shared.waited_us.load(Relaxed))
    }

    /// Notes that something could not go on for so long because the store had not taken what came before.
    pub(super) fn waited(&self, time: Duration) {
        self.shared.waited_us.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Ends when the writer is stopped or has failed.
    pub(super) async fn stopped(&self) {
        self.shared.stop.cancelled().await;
    }

    /// Gives up; packs on their way may still arrive.
    pub(super) fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// Remembers the first failure and stops.
    pub(super) fn fail(&self, error: Error) {
        let mut failure = locked(&self.shared.failure);
        if matches!(*failure, Failure::None) {
            *failure = Failure::Fresh(error);
        }
        drop(failure);
        self.stop();
    }

    /// The first failure, in full to the first who asks.
    pub(super) fn state(&self) -> Result<(), Error> {
        let mut failure = locked(&self.shared.failure);
        match std::mem::take(&mut *failure) {
            Failure::None if self.shared.stop.is_cancelled() => {
                Err(Error::InvalidUse { cause: "the writer was stopped".to_owned() })
            }
            Failure::None => Ok(()),
            Failure::Fresh(error) => {
                *failure = Failure::Told { first: error.chain(), kind: error.kind() };
                Err(error)
            }
            Failure::Told { first, kind } => {
                *failure = Failure::Told { first: first.clone(), kind };
                Err(Error::WriterFailed { first, kind })
            }
        }
    }

    /// Whether the repository has the blob, or will have it through this writer.
    pub(super) fn knows(&self, kind: BlobKind, id: &[u8; 32]) -> bool {
        self.shared.repository.inner.index.find_lasting(kind, id).is_some()
            || locked(&self.shared.under_way).contains_key(&(kind, *id))
    }

    /// Whether a chunk that was settled is in the store, and not only in this writer's care.
    pub(super) fn is_stored(&self, id: &ChunkId) -> bool {
        locked(&self.shared.under_way).get(&(BlobKind::Data, id.0)) != Some(&false)
    }

    /// Stores a blob unless it is known; says whether it was new. Blocks: for blocking threads.
    pub(super) fn store(&self, kind: BlobKind, id: [u8; 32], plain: &[u8]) -> Result<bool, Error> {
        if self.shared.repository.inner.index.find_lasting(kind, &id).is_some() {
            return Ok(false);
        }
        if let Entry::Vacant(new) = locked(&self.shared.under_way).entry((kind, id)) {
            new.insert(false);
        } else {
            return Ok(false); // another thread is at it
        }
        let (content, plain_length) = self.shared.compression.compress(plain);
        let mut bytes = Vec::new();
        self.shared.repository.inner.cipher.seal_into(&mut bytes, &content);
        self.add(kind, &SealedBlob { id, bytes, plain_length })?;
        Ok(true)
    }

    fn add(&self, kind: BlobKind, blob: &SealedBlob) -> Result<(), Error> {
        let (slot, permits) = match kind {
            BlobKind::Data => (&self.shared.data, &self.shared.data_permits),
            BlobKind::Tree => (&self.shared.trees, &self.shared.tree_permits),
        };
        let mut slot = locked(slot); // held while waiting for a permit: that is how the other threads wait, too
        if slot.as_ref().is_some_and(|(builder, _)| builder.is_full_for(blob.bytes.len())) {
            self.full(kind, slot.take().expect("it was there a line ago"));
        }
        if slot.is_none() {
            let permit = self.permit(permits)?; // before the memory: then it is that of a pack that was sent
            *slot = Some((PackBuilder::new(kind, &self.shared.buffers), permit));
        }
        slot.as_mut().expect("it was just filled").0.add(blob);
        if let (BlobKind::Data, Some(recorder)) = (kind, &self.shared.recorder) {
            self.send_much(&mut slot, recorder.most_unsent());
        }
        Ok(())
    }

    fn permit(&self, permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let (began, for_store) = (Instant::now(), self.shared.hashing.load(Relaxed) == 0);
        let permits = permits.clone();
        let permit = self.shared.runtime.block_on(async {
            tokio::select! {
                permit = permits.acquire_owned() => permit.ok(),
                () = self.shared.stop.cancelled() => None,
            }
        });
        if for_store {
            self.waited(began.elapsed());
        }
        permit.ok_or_else(|| Error::InvalidUse { cause: "the writer was stopped".to_owned() })
    }

    /// Sends packs that are not full, or wait for others to be hashed with, once they hold so much of the disk that a kill
    /// would cost too much.
    fn send_much(&self, slot: &mut Option<Filled>, most: u64) {
        let mut full = locked(&self.shared.full);
        let unsent: u64 = full.iter().chain(slot.iter()).map(|(builder, _)| builder.plain_bytes()).sum();
        if unsent >= most {
            let all = full.drain(..).chain(slot.take()).collect();
            drop(full);
            self.send(all);
        }
    }

    /// Sends all that is full or being filled. Blocks: for blocking threads.
    pub(super) fn send_unsent(&self) {
        let mut slot = locked(&self.shared.data);
        let mut full = locked(&self.shared.full);
        let all: Vec<_> = full.drain(..).chain(slot.take()).collect();
        drop(full);
        if !all.is_empty() {
            self.send(all);
        }
    }

    /// A pack is full: it goes at once, or with others when there are enough to be hashed together.
    fn full(&self, kind: BlobKind, filled: Filled) {
        if kind == BlobKind::Tree {
            return self.send(vec![filled]);
        }
        let mut full = locked(&self.shared.full);
        full.push(filled);
        if full.len() >= self.shared.hashed_together {
            self.send(std::mem::take(&mut *full));
        }
    }

    /// Hashes packs together, then stores each.
    fn send(&self, filled: Vec<Filled>) {
        let packer = self.clone();
        self.shared.hashing.fetch_add(1, Relaxed);
        let hashing = move || {
            let cipher = &packer.shared.repository.inner.cipher;
            let closed = filled.into_iter().map(|(builder, permit)| (builder.kind(), builder.close(cipher), permit));
            let (mut kinds, mut packs) = (Vec::new(), Vec::new());
            for (kind, pack, permit) in closed {
                kinds.push((kind, permit));
                packs.push(pack);
            }
            let named = pack::named(packs);
            packer.shared.hashing.fetch_sub(1, Relaxed);
            for ((kind, permit), pack) in kinds.into_iter().zip(named) {
                packer.put(kind, pack, permit);
            }
        };
        self.shared.uploads.spawn_blocking_on(hashing, &self.shared.runtime);
    }

    fn put(&self, kind: BlobKind, pack: SealedPack, permit: OwnedSemaphorePermit) {
        let packer = self.clone();
        let upload = async move {
            tokio::select! {
                done = packer.upload(kind, pack) => if let Err(error) = done { packer.fail(error) },
                () = packer.shared.stop.cancelled() => {}
            }
            drop(permit);
        };
        self.shared.uploads.spawn_on(upload, &self.shared.runtime);
    }

    /// Waits until something may be stored.
    pub(super) async fn may_store(&self) -> Result<(), Error> {
        match &self.shared.lock {
            Some(lock) => lock.wait().await,
            None => Ok(()),
        }
    }

    async fn upload(&self, kind: BlobKind, pack: SealedPack) -> Result<(), Error> {
        self.may_store().await?;
        let key = pack::key(&pack.id);
        let body = Body { bytes: Bytes::from_owner(pack.bytes), sha256: Some(pack.id) };
        let length = body.bytes.len() as u64;
        self.shared
            .repository
            .inner
            .store
            .put(&key, body)
            .await
            .map_err(Error::store(format!("store a pack of {kind:?}")))?;
        self.shared.bytes_stored.fetch_add(length, Relaxed);
        let pack = IndexPack::new(pack.id, &pack.blobs);
        if let Some(recorder) = &self.shared.recorder {
            recorder.note_pack(&pack);
        }
        self.stored(pack).await
    }

    /// Makes a pack that an earlier writer stored and did not list this one's. Its checkpoint still names it.
    pub(super) async fn adopt(&self, pack: IndexPack) -> Result<(), Error> {
        self.stored(pack).await
    }

    /// A pack is in the store: what it holds counts, and is listed with others when there are enough.
    async fn stored(&self, pack: IndexPack) -> Result<(), Error> {
        locked(&self.shared.under_way).extend(pack.blobs.iter().map(|blob| (blob.key(), true)));
        if let Some(recorder) = &self.shared.recorder {
            recorder.look();
        }
        let full = {
            let mut unlisted = locked(&self.shared.unlisted);
            unlisted.push(pack);
            let enough = unlisted.iter().map(|pack| pack.blobs.len()).sum::<usize>() >= INDEX_BLOBS;
            if enough { std::mem::take(&mut *unlisted) } else { Vec::new() }
        };
        self.list(full).await
    }

    /// Writes an index file; from then on all transfers of this process know these blobs.
    async fn list(&self, packs: Vec<IndexPack>) -> Result<(), Error> {
        if packs.is_empty() {
            return Ok(());
        }
        self.may_store().await?;
        let cipher = self.shared.repository.inner.cipher.clone();
        let file = IndexFile { packs };
        let sealing = tokio::task::spawn_blocking(move || (unpacked::seal(&cipher, &file), file)).await;
        let (sealed, file) = sealing.expect("sealing an index file does not panic");
        let inner = &self.shared.repository.inner;
        inner
            .store
            .put(&Folder::Index.key(&sealed.id), sealed.body())
            .await
            .map_err(Error::store("store an index file"))?;
        inner.index.add(sealed.id, &file.packs);
        let mut under_way = locked(&self.shared.under_way);
        for blob in file.packs.iter().flat_map(|pack| &pack.blobs) {
            under_way.remove(&blob.key());
        }
        Ok(())
    }

    /// Sends what is being filled, waits until all of it is stored, and writes the last index file.
    pub(super) async fn flush(&self) -> Result<(), Error> {
        let mut rest = std::mem::take(&mut *locked(&self.shared.full));
        rest.extend(locked(&self.shared.data).take());
        let trees = locked(&self.shared.trees).take().into_iter().collect();
        for filled in [rest, trees].into_iter().filter(|filled: &Vec<Filled>| !filled.is_empty()) {
            self.send(filled);
        }
        self.settle().await;
        self.state()?;
        let rest = std::mem::take(&mut *locked(&self.shared.unlisted));
        self.list(rest).await
    }

    /// Waits until no put is under way.
    pub(super) async fn settle(&self) {
        self.shared.uploads.close();
        self.shared.uploads.wait().await;
        self.shared.uploads.reopen();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use futures::FutureExt as _;
    use secrecy::SecretString;
    use tokio::sync::watch;

    use super::*;
    use crate::store::{self, Fault, FaultyStore, FolderStore, Operation};

    fn sealed(packer: &Packer) -> SealedPack {
        let mut builder = PackBuilder::new(BlobKind::Data, &packer.shared.buffers);
        let blob = SealedBlob { id: [1; 32], plain_length: None, bytes: vec![7; 100] };
        builder.add(&blob);
        pack::named(vec![builder.close(&packer.shared.repository.inner.cipher)]).pop().unwrap()
    }

    #[tokio::test]
    async fn neither_a_pack_nor_an_index_is_stored_before_the_lock_is_known_to_hold() {
        let folder = tempfile::tempdir().unwrap();
        let made = crate::initialise(Arc::new(FolderStore::new(folder.path())), &SecretString::from("for tests")).await;
        let store = FaultyStore::new(made.as_ref().unwrap().inner.store.clone());
        let repository = made.unwrap().reopened(Arc::new(store.clone()));
        // whoever asks the store is told at once
        store.fail(Fault::always(Operation::Put, "", store::ErrorKind::Failed));
        let (answer, known) = watch::channel(None);
        let packer = Packer::new(repository, 1, None, Some(NoRival::when(known)));
        let listed = || vec![IndexPack::new([2; 32], &sealed(&packer).blobs)];
        assert!(packer.upload(BlobKind::Data, sealed(&packer)).now_or_never().is_none(), "it asked the store");
        assert!(packer.list(listed()).now_or_never().is_none(), "it asked the store");
        answer.send(Some(Ok(()))).unwrap();
        let told = packer.upload(BlobKind::Data, sealed(&packer)).await.unwrap_err();
        assert!(told.chain().contains("on purpose"), "{told}");
        store.heal();
        packer.upload(BlobKind::Data, sealed(&packer)).await.unwrap();
        packer.list(listed()).await.unwrap();
        assert_eq!(store.puts(), 2);
    }
}
