//! Takes the chunks of one disk, in any order and from many tasks, and commits them as one restore point.
//!
//! Knows neither where chunks come from nor why one is taken over. A writer that fails, or is dropped, leaves packs that
//! nobody refers to and nothing that looks like a restore point.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use disk::{ByteRange, Ranges};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::checkpoint::{self, AT_RISK, Care, Recorder, Source};
use super::folders::{Folders, FullFolder, Settled, tree_of};
use super::layout::{CHUNK_SIZE, EXTENT_SIZE, Layout};
use super::packer::Packer;
use super::resume;
use crate::error::Error;
use crate::hash::{self, ChunkId};
use crate::lock::NoRival;
use crate::pack::BlobKind;
use crate::repository::Repository;
use crate::restore_point::{NewRestorePoint, RestorePoint};
use crate::zero::is_zero;

/// More puts of 16 MiB at once than this do not fit the memory of a transfer.
const MOST_PUTS: usize = 8;

/// Bytes of chunks that are hashed together at most.
const HASHED_BYTES: u64 = 8 << 20;

/// What a writer may have in its care is at least so many times what waits to be hashed together, and a chunk: with less,
/// reading could stop before anything is worth a checkpoint.
const LEAST_AT_RISK: u64 = 5;

/// Chunks in memory for each that is hashed together with others: some wait in line, some are hashed, some go on.
const IN_LINE: usize = 4;

/// How a writer works.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Bytes of a chunk: a power of two from 4 KiB to 16 MiB.
    pub chunk_size: u64,
    /// Chunks hashed and compressed at once; 0 means one more than there are cores.
    pub workers: usize,
    /// Packs of 16 MiB on their way to the store at once, at most 8; `None` asks the store.
    pub puts_in_flight: Option<usize>,
    /// Writes checkpoints in this name, and goes on where an earlier writer of this name was cut short, if it copied the same
    /// disk snapshot ([`DiskFacts::snapshot`](crate::DiskFacts), which must be set). One writer of a name at a time. The
    /// checkpoints stay until [`Repository::forget_transfer`].
    pub transfer: Option<String>,
    /// Where checkpoints are written, the bytes of the disk that may have been read and are in none: what a kill costs. Reading
    /// waits before there are more. 208 MiB; less than 40 MiB, or five chunks, is taken for that.
    pub at_risk: u64,
    /// The lock that was begun for this writer, which stores nothing before it is known to hold ([`Repository::begin_lock`]). `None`
    /// for a writer whose lock is known to hold, or that has none.
    pub lock: Option<NoRival>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { chunk_size: CHUNK_SIZE, workers: 0, puts_in_flight: None, transfer: None, at_risk: AT_RISK, lock: None }
    }
}

/// What a writer has done so far; grows while it works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Bytes of the disk whose content is settled.
    pub bytes_settled: u64,
    /// Bytes of chunks that the repository did not have, before compression.
    pub bytes_new: u64,
    /// Bytes of packs that the store has acknowledged.
    pub bytes_stored: u64,
    /// Chunks that the repository did not have.
    pub chunks_new: u64,
    /// Chunks that were read and turned out to be known.
    pub chunks_known: u64,
    /// Chunks of zeroes.
    pub chunks_zero: u64,
    /// Chunks taken over unread.
    pub chunks_taken_over: u64,
    /// How long the writer could not go on because the store had not taken earlier packs.
    pub waited_for_store: Duration,
}

/// Whether a chunk could be taken over unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum TakeOver {
    /// It is in the repository; this part of the disk is settled.
    Done,
    /// The repository does not have it (any more): read it and put it.
    Unknown,
}

/// Writes one restore point. [`Writer::commit`] says what counts.
///
/// Holds at most `puts_in_flight + 1` packs of 16 MiB (at least seven where packs are hashed together), two of 4 MiB, and
/// `2 × workers` chunks, at least 60 where they are hashed together; `workers` of them three times over.
pub struct Writer {
    pub(super) state: Arc<State>,
    resumed: Ranges,
}

/// Shared with the threads that work on chunks.
pub(super) struct State {
    pub(super) repository: Repository,
    pub(super) layout: Layout,
    pub(super) point: NewRestorePoint,
    pub(super) packer: Packer,
    pub(super) folders: Mutex<Folders>,
    pub(super) tasks: TaskTracker,
    pub(super) committing: tokio::sync::Mutex<()>,
    pub(super) recorder: Option<Arc<Recorder>>,
    chunks_in_memory: Arc<Semaphore>,
    /// One for each piece of work on bytes.
    turns: Arc<Semaphore>,
    /// Chunks that wait for others to be hashed with.
    in_line: Mutex<Vec<Waiting>>,
    hashed_together: usize,
    zero: Bytes,
    zero_id: ChunkId,
    zero_tail: Option<ChunkId>,
    counters: Counters,
}

/// A chunk, and its right to be in memory and in the writer's care.
struct Waiting {
    index: u64,
    data: Bytes,
    permit: OwnedSemaphorePermit,
    care: Option<Care>,
}

/// Where chunks come from.
enum Origin {
    /// The disk: whoever goes on after a kill must know.
    Disk(Option<Care>),
    /// Another restore point, or a checkpoint.
    Repository,
}

#[derive(Default)]
struct Counters {
    bytes_settled: AtomicU64,
    bytes_new: AtomicU64,
    chunks_new: AtomicU64,
    chunks_known: AtomicU64,
    chunks_zero: AtomicU64,
    chunks_taken_over: AtomicU64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("path", &self.state.point.path).field("stats", &self.stats()).finish()
    }
}

impl Writer {
    /// Begins, or goes on where an earlier writer of the same transfer was cut short.
    pub(crate) async fn open(
        repository: Repository,
        point: NewRestorePoint,
        options: WriterOptions,
    ) -> Result<Self, Error> {
        let lock = options.lock.clone();
        let mut writer = Self::new(repository, point, options)?;
        if let Some(lock) = lock {
            let packer = writer.state.packer.clone();
            // what has nothing to store would go on reading to its end
            tokio::spawn(async move {
                if let Err(rival) = lock.wait().await {
                    packer.fail(rival);
                }
            });
        }
        if let Some(recorder) = writer.state.recorder.clone() {
            writer.resumed = resume::take_up(&writer, &recorder).await?;
            checkpoint::begin(&writer.state);
        }
        Ok(writer)
    }

    fn new(repository: Repository, point: NewRestorePoint, options: WriterOptions) -> Result<Self, Error> {
        let layout = Layout::new(point.disk.size_bytes, options.chunk_size, EXTENT_SIZE);
        let layout = layout.map_err(|cause| Error::InvalidUse { cause: format!("cannot store {cause}") })?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        // one more than there are cores: now and then one of them waits for another's lock
        let workers = if options.workers == 0 { cores + 1 } else { options.workers };
        let puts = options.puts_in_flight.unwrap_or_else(|| repository.inner.store.puts_in_flight());
        let hashed_together = usize::try_from(HASHED_BYTES / layout.chunk_size).expect("at most 2048");
        let hashed_together = hashed_together.clamp(1, hash::together());
        let zero = Bytes::from(vec![0; usize::try_from(layout.chunk_size).expect("at most 16 MiB")]);
        let tail = |length: u64| ChunkId::of(&zero[..usize::try_from(length).expect("shorter than a chunk")]);
        let at_risk = options.at_risk.max(LEAST_AT_RISK * layout.chunk_size.max(HASHED_BYTES));
        let recorder = options.transfer.as_deref().map(|transfer| recorder(transfer, &point, &layout, at_risk));
        let recorder = recorder.transpose()?;
        let state = State {
            packer: Packer::new(repository.clone(), puts.clamp(1, MOST_PUTS), recorder.clone(), options.lock),
            repository,
            layout,
            point,
            folders: Mutex::new(Folders::new(layout)),
            tasks: TaskTracker::new(),
            committing: tokio::sync::Mutex::default(),
            recorder,
            chunks_in_memory: Arc::new(Semaphore::new((2 * workers).max(IN_LINE * (hashed_together - 1)))),
            turns: Arc::new(Semaphore::new(workers)),
            in_line: Mutex::default(),
            hashed_together,
            zero_id: ChunkId::of(&zero),
            zero_tail: layout.short_tail().map(tail),
            zero,
            counters: Counters::default(),
        };
        Ok(Self { state: Arc::new(state), resumed: Ranges::new() })
    }

    /// Bytes of a chunk.
    pub fn chunk_size(&self) -> u64 {
        self.state.layout.chunk_size
    }

    /// Number of chunks of the disk.
    pub fn chunk_count(&self) -> u64 {
        self.state.layout.chunk_count()
    }

    /// The bytes of the disk that chunk `index` holds; the last one may be shorter.
    pub fn chunk_range(&self, index: u64) -> ByteRange {
        self.state.layout.chunk_range(index)
    }

    /// The bytes of the disk that an earlier writer of this transfer had done: settled already, not to be put again.
    pub fn resumed(&self) -> &Ranges {
        &self.resumed
    }

    /// Live counters.
    pub fn stats(&self) -> WriterStats {
        let counters = &self.state.counters;
        WriterStats {
            bytes_settled: counters.bytes_settled.load(Relaxed),
            bytes_new: counters.bytes_new.load(Relaxed),
            bytes_stored: self.state.packer.bytes_stored(),
            chunks_new: counters.chunks_new.load(Relaxed),
            chunks_known: counters.chunks_known.load(Relaxed),
            chunks_zero: counters.chunks_zero.load(Relaxed),
            chunks_taken_over: counters.chunks_taken_over.load(Relaxed),
            waited_for_store: self.state.packer.waited_for_store(),
        }
    }

    /// Takes the content of chunk `index`, exactly as long as [`Writer::chunk_range`] says. Returns when it is in memory's
    /// care and waits while that is full; what goes wrong later comes with a later call.
    pub async fn put_chunk(&self, index: u64, data: Bytes) -> Result<(), Error> {
        self.state.packer.state()?;
        self.state.expect_chunk(index, data.len() as u64)?;
        let admitted = async {
            let care = match &self.state.recorder {
                Some(_) => self.admitted(data.len() as u64).await,
                None => None,
            };
            let permit = self.state.chunks_in_memory.clone().acquire_owned().await;
            (permit.expect("this semaphore is never closed"), care)
        };
        let (permit, care) = tokio::select! {
            admitted = admitted => admitted,
            () = self.state.packer.stopped() => return self.state.packer.state(),
        };
        if let Some(chunks) = self.state.line_up(Waiting { index, data, permit, care }) {
            self.state.clone().hash(chunks);
        }
        Ok(())
    }

    /// The right to have so many bytes in the writer's care, where checkpoints are written.
    async fn admitted(&self, bytes: u64) -> Option<Care> {
        let recorder = self.state.recorder.as_ref()?;
        let began = Instant::now();
        let care = recorder.admit(bytes).await;
        self.state.packer.waited(began.elapsed());
        Some(care)
    }

    /// Notes that these chunks of the disk hold only zeroes, and were not read to find out.
    pub async fn put_zero(&self, indexes: Range<u64>) -> Result<(), Error> {
        self.take_zeroes(indexes, || Origin::Disk(None)).await
    }

    /// Notes that chunk `index` was read and holds only zeroes.
    pub async fn put_zero_chunk(&self, index: u64) -> Result<(), Error> {
        self.state.packer.state()?;
        let mut care = tokio::select! {
            care = self.admitted(self.state.layout.chunk_size) => care,
            () = self.state.packer.stopped() => return self.state.packer.state(),
        };
        self.take_zeroes(index..index + 1, move || Origin::Disk(care.take())).await
    }

    /// Notes that these chunks hold only zeroes in another restore point of this repository, or as a checkpoint says.
    pub async fn take_over_zero(&self, indexes: Range<u64>) -> Result<(), Error> {
        self.take_zeroes(indexes, || Origin::Repository).await
    }

    async fn take_zeroes(
        &self,
        indexes: Range<u64>,
        origin: impl FnMut() -> Origin + Send + 'static,
    ) -> Result<(), Error> {
        self.state.packer.state()?;
        if indexes.end > self.chunk_count() {
            return Err(Error::InvalidUse { cause: format!("chunk {} is beyond the disk", indexes.end - 1) });
        }
        self.state.clone().in_background(move |state| state.take_zeroes(indexes, origin)).await
    }

    /// Notes that chunk `index` is what another restore point of this repository has as `id`.
    pub async fn take_over(&self, index: u64, id: ChunkId) -> Result<TakeOver, Error> {
        self.state.packer.state()?;
        self.state.expect_chunk(index, self.state.layout.chunk_range(index).length)?;
        if id == self.state.zero_of(index) {
            self.take_over_zero(index..index + 1).await?;
        } else if self.state.packer.knows(BlobKind::Data, &id.0) {
            let full = self.state.settle(index..index + 1, id, Origin::Repository)?;
            self.state.counters.chunks_taken_over.fetch_add(1, Relaxed);
            if let Some(full) = full {
                self.state.clone().in_background(move |state| state.close_folder(&full)).await?;
            }
        } else {
            return Ok(TakeOver::Unknown);
        }
        Ok(TakeOver::Done)
    }

    /// Makes it a restore point: all packs stored, then the index, then a check of all that the trees refer to, then the
    /// snapshot file, read back, then the check again. Anything that fails removes the snapshot file.
    ///
    /// On [`Error::SendAgain`] put these chunks again, then commit again; after any other error the writer is of no use.
    pub async fn commit(&self) -> Result<RestorePoint, Error> {
        let point = super::commit::commit(&self.state).await?;
        self.state.end_recording().await;
        Ok(point)
    }

    /// Stops and waits until nothing of it runs any more. What was stored stays as packs that nobody refers to. Dropping a
    /// writer does the same without waiting.
    pub async fn abandon(self) {
        self.state.packer.stop();
        self.state.end_recording().await;
        self.state.in_line.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.state.tasks.close();
        self.state.tasks.wait().await;
        self.state.packer.settle().await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.state.packer.stop();
        if let Some(recorder) = &self.state.recorder {
            recorder.stop();
        }
    }
}

fn recorder(transfer: &str, point: &NewRestorePoint, layout: &Layout, at_risk: u64) -> Result<Arc<Recorder>, Error> {
    let invalid =
        |cause: &str| Error::InvalidUse { cause: format!("cannot write checkpoints of `{transfer}`: {cause}") };
    if transfer.is_empty() || transfer.contains('/') {
        return Err(invalid("its name cannot be part of a key"));
    }
    let snapshot = point.disk.snapshot.clone().ok_or_else(|| invalid("it copies no disk snapshot"))?;
    let source = Source { snapshot, size_bytes: layout.size, chunk_size: layout.chunk_size };
    Ok(Arc::new(Recorder::new(transfer, source, at_risk)))
}

impl State {
    async fn end_recording(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.end().await;
        }
    }

    fn expect_chunk(&self, index: u64, length: u64) -> Result<(), Error> {
        let cause = if index >= self.layout.chunk_count() {
            format!("chunk {index} is beyond the disk")
        } else if length != self.layout.chunk_range(index).length {
            format!("chunk {index} came with {length} bytes instead of {}", self.layout.chunk_range(index).length)
        } else {
            return Ok(());
        };
        Err(Error::InvalidUse { cause })
    }

    fn zero_of(&self, index: u64) -> ChunkId {
        let last = index + 1 == self.layout.chunk_count();
        self.zero_tail.filter(|_| last).unwrap_or(self.zero_id)
    }

    /// Runs work on a blocking thread that `commit` and `abandon` wait for, and hands its error to the caller.
    async fn in_background(
        self: Arc<Self>,
        work: impl FnOnce(&Self) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let state = self.clone();
        let done = self.tasks.spawn_blocking(move || {
            if let Err(error) = work(&state) {
                state.packer.fail(error);
            }
        });
        done.await.expect("work on chunks does not panic");
        self.packer.state()
    }

    /// Puts a chunk in line; gives all of the line once it is long enough to be hashed together.
    fn line_up(&self, chunk: Waiting) -> Option<Vec<Waiting>> {
        let mut line = self.in_line.lock().unwrap_or_else(PoisonError::into_inner);
        line.push(chunk);
        (line.len() >= self.hashed_together).then(|| std::mem::take(&mut *line))
    }

    /// Hashes what waits in line for more.
    pub(super) fn hash_the_rest(self: Arc<Self>) {
        let rest = std::mem::take(&mut *self.in_line.lock().unwrap_or_else(PoisonError::into_inner));
        if !rest.is_empty() {
            self.hash(rest);
        }
    }

    /// Hashes chunks together on one thread; then each goes its own way, on any thread.
    fn hash(self: Arc<Self>, chunks: Vec<Waiting>) {
        self.clone().work(move |state| {
            let ids = ChunkId::of_all(&chunks.iter().map(|chunk| chunk.data.as_ref()).collect::<Vec<_>>());
            for (Waiting { index, data, permit, care }, id) in chunks.into_iter().zip(ids) {
                state.clone().work(move |state| {
                    if let Err(error) = state.take_chunk(index, &data, id, care) {
                        state.packer.fail(error);
                    }
                    drop(permit);
                });
            }
        });
    }

    /// Does work on bytes on a blocking thread, in its turn: as many at once as there are workers. More would only take the
    /// cores from who reads the disk.
    fn work(self: Arc<Self>, work: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let state = self.clone();
        let in_turn = async move {
            let turn = state.turns.clone().acquire_owned().await.expect("this semaphore is never closed");
            let done = tokio::task::spawn_blocking(move || {
                work(&state);
                drop(turn);
            });
            done.await.expect("work on chunks does not panic");
        };
        self.tasks.spawn_on(in_turn, self.packer.runtime());
    }

    /// One chunk's way. For blocking threads.
    fn take_chunk(&self, index: u64, data: &[u8], id: ChunkId, care: Option<Care>) -> Result<(), Error> {
        if id == self.zero_of(index) && is_zero(data) {
            let mut care = care;
            return self.take_zeroes(index..index + 1, || Origin::Disk(care.take()));
        }
        if self.packer.store(BlobKind::Data, id.0, data)? {
            self.counters.chunks_new.fetch_add(1, Relaxed);
            self.counters.bytes_new.fetch_add(data.len() as u64, Relaxed);
        } else {
            self.counters.chunks_known.fetch_add(1, Relaxed);
        }
        match self.settle(index..index + 1, id, Origin::Disk(care))? {
            Some(full) => self.close_folder(&full),
            None => Ok(()),
        }
    }

    /// Zeroes of any number of folders. For blocking threads.
    fn take_zeroes(&self, indexes: Range<u64>, mut origin: impl FnMut() -> Origin) -> Result<(), Error> {
        let mut at = indexes.start;
        while at < indexes.end {
            let mut end = self.layout.folder_chunks(self.layout.folder_of(at)).end.min(indexes.end);
            if end == self.layout.chunk_count() && end - at > 1 && self.zero_tail.is_some() {
                end -= 1; // the short last chunk has an id of its own
            }
            let length = usize::try_from(self.layout.chunk_range(at).length).expect("at most 16 MiB");
            let id = self.zero_of(at);
            self.packer.store(BlobKind::Data, id.0, &self.zero[..length])?;
            self.counters.chunks_zero.fetch_add(end - at, Relaxed);
            if let Some(full) = self.settle(at..end, id, origin())? {
                self.close_folder(&full)?;
            }
            at = end;
        }
        Ok(())
    }

    /// Lets all chunks of a folder come again; gives them.
    pub(super) fn reopen_folder(&self, folder: u64) -> Range<u64> {
        let chunks = self.folders.lock().unwrap_or_else(PoisonError::into_inner).reopen(folder);
        let bytes = self.layout.chunk_range(chunks.end - 1).end() - self.layout.chunk_range(chunks.start).offset;
        self.counters.bytes_settled.fetch_sub(bytes, Relaxed);
        chunks
    }

    /// Notes the id of chunks of one folder.
    fn settle(&self, chunks: Range<u64>, id: ChunkId, origin: Origin) -> Result<Option<FullFolder>, Error> {
        let bytes = self.layout.chunk_range(chunks.end - 1).end() - self.layout.chunk_range(chunks.start).offset;
        match self.folders.lock().unwrap_or_else(PoisonError::into_inner).settle(chunks.clone(), id) {
            Settled::Now { full } => {
                self.counters.bytes_settled.fetch_add(bytes, Relaxed);
                if let (Some(recorder), Origin::Disk(care)) = (&self.recorder, origin) {
                    let content = (id != self.zero_of(chunks.start)).then_some(id);
                    recorder.note(chunks, content, care);
                }
                Ok(full)
            }
            Settled::Before => Ok(None), // sent again after a check: the tree has its id already
            Settled::Twice => Err(Error::InvalidUse { cause: format!("chunks from {} on came twice", chunks.start) }),
        }
    }

    /// Makes and stores a full folder's tree. For blocking threads.
    fn close_folder(&self, full: &FullFolder) -> Result<(), Error> {
        let (text, closed) = tree_of(&self.layout, full);
        self.packer.store(BlobKind::Tree, closed.tree, &text)?;
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).close(full.folder, closed);
        Ok(())
    }
}
