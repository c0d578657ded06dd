//! What a writer has done, written down while it works, so that another one goes on where it was cut short.
//!
//! Objects `transfers/<transfer>/<number>`, sealed like every document; restic does not look there. Each says which chunks
//! came from the disk and what they are, and which packs were stored that no index file lists yet. A chunk is named only once
//! what it holds is in the store: so what a checkpoint says stays true, whatever becomes of the writer. An object is written
//! anew while it grows, and the next one begins when it is full.
//!
//! Bounds what a kill can cost: a chunk is in the writer's care until a checkpoint names it, and only so many bytes are.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use disk::DiskSnapshot;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::writer::State;
use crate::error::Error;
use crate::hash::ChunkId;
use crate::index::IndexPack;
use crate::repository::Repository;
use crate::unpacked;

/// Where the checkpoints of all transfers are.
pub(crate) const FOLDER: &str = "transfers/";

/// Version of the document written here. Others are not read: then the disk is.
const SCHEMA: u32 = 1;

/// Bytes of chunks that a writer may have in its care. With what is being read (32 MiB), a kill costs at most 256 MiB of reading.
pub(super) const AT_RISK: u64 = 208 << 20;

/// So many parts of what may be at risk are worth a checkpoint: 48 MiB.
const WORTH: u64 = 3;

/// So many parts of it may lie in packs that are not on their way: 96 MiB of plaintext. Less than all by what is on its way,
/// so that reading seldom waits. Where it does, they go as they are: what repeats on the disk fills no pack.
const UNSENT: u64 = 6;

/// Of so many parts.
const PARTS: u64 = 13;

/// Bytes that one permit stands for.
const UNIT: u64 = 4 << 10;

/// Digits of an object's number.
pub(super) const DIGITS: usize = 8;

/// How long an object that is on its way when the writer ends may take to arrive.
const LAST: Duration = Duration::from_secs(1);

/// Chunks, and runs of zeroes, after which another object begins: 512 MiB of the disk.
const FULL: usize = 1024;

/// One object.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Checkpoint {
    schema: u32,
    #[serde(flatten)]
    pub(super) source: Source,
    /// When this was written.
    pub(super) written: Timestamp,
    /// Packs that were stored meanwhile.
    pub(super) packs: Vec<IndexPack>,
    pub(super) done: Vec<Run>,
}

/// What is copied: the same bytes, cut in the same way, whoever reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Source {
    pub(super) snapshot: DiskSnapshot,
    pub(super) size_bytes: u64,
    pub(super) chunk_size: u64,
}

/// Chunks that lie side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Run {
    /// `count` chunks of zeroes.
    Zero { first: u64, count: u64 },
    /// These.
    Data { first: u64, ids: Vec<ChunkId> },
}

impl Checkpoint {
    fn new(source: Source) -> Self {
        Self { schema: SCHEMA, source, written: Timestamp::now(), packs: Vec::new(), done: Vec::new() }
    }

    /// Whether it can be read, and is of `source`.
    pub(super) fn is_of(&self, source: &Source) -> bool {
        self.schema == SCHEMA && self.source == *source
    }

    fn add(&mut self, done: &Done) {
        let (first, count) = (done.chunks.start, done.chunks.end - done.chunks.start);
        match (self.done.last_mut(), done.id) {
            (Some(Run::Zero { first: start, count: so_far }), None) if *start + *so_far == first => *so_far += count,
            (Some(Run::Data { first: start, ids }), Some(id)) if *start + ids.len() as u64 == first => ids.push(id),
            (_, None) => self.done.push(Run::Zero { first, count }),
            (_, Some(id)) => self.done.push(Run::Data { first, ids: vec![id] }),
        }
    }

    fn is_full(&self) -> bool {
        let weight = |run: &Run| match run {
            Run::Zero { .. } => 1,
            Run::Data { ids, .. } => ids.len(),
        };
        let blobs: usize = self.packs.iter().map(|pack| pack.blobs.len()).sum();
        self.done.iter().map(weight).sum::<usize>().max(blobs / 2) >= FULL
    }
}

/// The right to have a chunk in the writer's care.
pub(super) type Care = OwnedSemaphorePermit;

/// Chunks that came from the disk.
struct Done {
    chunks: Range<u64>,
    /// What they all hold; `None` is zeroes.
    id: Option<ChunkId>,
    care: Option<Care>,
}

/// Writes down what one writer has done.
pub(super) struct Recorder {
    transfer: String,
    recording: Mutex<Recording>,
    /// Bytes of chunks that may be in care.
    at_risk: u64,
    care: Arc<Semaphore>,
    news: Notify,
    stop: CancellationToken,
    saving: TaskTracker,
}

struct Recording {
    /// Number of the object that is growing.
    number: u64,
    current: Checkpoint,
    /// Not in `current` yet: what they hold may not be stored.
    pending: Vec<Done>,
    /// Bytes in `pending` that came since somebody last looked.
    fresh: u64,
}

impl Recorder {
    pub(super) fn new(transfer: &str, source: Source, at_risk: u64) -> Self {
        let permits = usize::try_from(at_risk / UNIT).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        let recording = Recording { number: 0, current: Checkpoint::new(source), pending: Vec::new(), fresh: 0 };
        Self {
            transfer: transfer.to_owned(),
            recording: Mutex::new(recording),
            at_risk,
            care: Arc::new(Semaphore::new(permits)),
            news: Notify::new(),
            stop: CancellationToken::new(),
            saving: TaskTracker::new(),
        }
    }

    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is copied.
    pub(super) fn source(&self) -> Source {
        self.recording().current.source.clone()
    }

    /// Where the objects of the transfer are.
    pub(super) fn folder(&self) -> String {
        folder(&self.transfer)
    }

    /// Bytes of chunks that are worth a checkpoint.
    fn worth(&self) -> u64 {
        self.at_risk / PARTS * WORTH
    }

    /// Plaintext that packs which are not on their way may hold.
    pub(super) fn most_unsent(&self) -> u64 {
        self.at_risk / PARTS * UNSENT
    }

    /// Begins after the objects that are there.
    pub(super) fn begin_at(&self, number: u64) {
        self.recording().number = number;
    }

    /// Waits until a chunk of `bytes` may be taken.
    pub(super) async fn admit(&self, bytes: u64) -> Care {
        let permits = u32::try_from(bytes.div_ceil(UNIT)).expect("a chunk has at most 16 MiB");
        self.care.clone().acquire_many_owned(permits).await.expect("this semaphore is never closed")
    }

    /// Notes chunks that came from the disk and now are what `id` names; `None`: zeroes.
    pub(super) fn note(&self, chunks: Range<u64>, id: Option<ChunkId>, care: Option<Care>) {
        let mut recording = self.recording();
        recording.fresh += recording.current.source.bytes(&chunks);
        recording.pending.push(Done { chunks, id, care });
        if recording.fresh >= self.worth() || self.is_short() {
            recording.fresh = 0;
            self.news.notify_one();
        }
    }

    /// Notes a pack that the store has acknowledged. Call it before chunks in it count as stored.
    pub(super) fn note_pack(&self, pack: &IndexPack) {
        self.recording().current.packs.push(pack.clone());
    }

    /// Says that chunks may count as stored now.
    pub(super) fn look(&self) {
        self.news.notify_one();
    }

    fn is_short(&self) -> bool {
        (self.care.available_permits() as u64) < self.worth() / UNIT
    }

    /// What is worth an object now, with its number; the care of what it names goes to `held`.
    fn gather(&self, held: &mut Vec<Care>, is_stored: impl Fn(&ChunkId) -> bool) -> Option<(u64, Checkpoint)> {
        let mut recording = self.recording();
        let Recording { pending, current, number, .. } = &mut *recording;
        let (mut stored, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(pending).into_iter().partition(|done| done.id.as_ref().is_none_or(&is_stored));
        let bytes: u64 = stored.iter().map(|done| current.source.bytes(&done.chunks)).sum();
        if bytes == 0 || (bytes < self.worth() && !self.is_short()) {
            *pending = stored;
            pending.extend(waiting);
            return None;
        }
        *pending = waiting;
        stored.sort_by_key(|done| done.chunks.start);
        for done in stored {
            current.add(&done);
            held.extend(done.care);
        }
        current.written = Timestamp::now();
        let this = *number;
        if !current.is_full() {
            return Some((this, current.clone()));
        }
        *number += 1; // packs that are stored from now on belong to the next
        let next = Checkpoint::new(current.source.clone());
        Some((this, std::mem::replace(current, next)))
    }

    /// Another number, after an object could not be written: a store that may add only lets nothing be written anew.
    fn another_number(&self) -> u64 {
        let mut recording = self.recording();
        recording.number += 1;
        recording.number
    }

    /// Ends; nothing is written any more when this returns.
    pub(super) async fn end(&self) {
        self.stop();
        self.saving.close();
        self.saving.wait().await;
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Source {
    /// Bytes of chunks, the last one taken for a whole one.
    fn bytes(&self, chunks: &Range<u64>) -> u64 {
        (chunks.end - chunks.start) * self.chunk_size
    }
}

/// Where the checkpoints of a transfer are.
pub(super) fn folder(transfer: &str) -> String {
    format!("{FOLDER}{transfer}/")
}

/// Writes checkpoints in the background until the recorder is stopped.
pub(super) fn begin(state: &Arc<State>) {
    let Some(recorder) = &state.recorder else { return };
    recorder.saving.spawn(save(state.clone(), recorder.clone()));
}

async fn save(state: Arc<State>, recorder: Arc<Recorder>) {
    let mut held = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = recorder.stop.cancelled() => return,
            () = recorder.news.notified() => {}
        }
        let Some((number, checkpoint)) = recorder.gather(&mut held, |id| state.packer.is_stored(id)) else {
            if recorder.is_short() {
                let packer = state.packer.clone();
                let sending = tokio::task::spawn_blocking(move || packer.send_unsent());
                sending.await.expect("sending packs does not panic");
            }
            continue;
        };
        let mut writing = std::pin::pin!(async {
            state.packer.may_store().await?;
            write(&state.repository, &recorder, number, checkpoint).await
        });
        let written = tokio::select! {
            biased;
            () = recorder.stop.cancelled() => {
                // what arrives later would be left behind, or take the place of another writer's
                let _ = tokio::time::timeout(LAST, writing).await;
                return;
            }
            written = &mut writing => written,
        };
        if let Err(error) = written {
            // it costs what a kill would: the backup itself goes on
            tracing::warn!(error = error.chain(), "a checkpoint of the transfer was not written");
            recorder.another_number();
        }
        held.clear();
    }
}

/// Writes an object, under another number where this one is not taken.
async fn write(repository: &Repository, recorder: &Recorder, number: u64, checkpoint: Checkpoint) -> Result<(), Error> {
    let cipher = repository.inner.cipher.clone();
    let sealing = tokio::task::spawn_blocking(move || unpacked::seal(&cipher, &checkpoint));
    let sealed = sealing.await.expect("sealing a checkpoint does not panic");
    let put = |number: u64| {
        let (key, body) = (format!("{}{number:0DIGITS$}", recorder.folder()), sealed.body());
        async move { repository.inner.store.put(&key, body).await.map_err(Error::store(format!("store {key}"))) }
    };
    match put(number).await {
        Ok(()) => Ok(()),
        Err(_) => put(recorder.another_number()).await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    const CHUNK: u64 = 512 << 10;

    fn recorder() -> Recorder {
        let snapshot = "disk:snapshot".parse().unwrap();
        Recorder::new("upload-1", Source { snapshot, size_bytes: 1 << 40, chunk_size: CHUNK }, AT_RISK)
    }

    fn id(n: u64) -> ChunkId {
        ChunkId::of(&n.to_le_bytes())
    }

    #[test]
    fn a_chunk_is_named_only_once_what_it_holds_is_stored() {
        let recorder = recorder();
        for n in (0..200).rev() {
            recorder.note(n..n + 1, Some(id(n)), None);
        }
        recorder.note(200..5000, None, None);
        let even = |stored: &ChunkId| (0..200).step_by(2).any(|n| id(n) == *stored);
        let mut held = Vec::new();
        let (number, first) = recorder.gather(&mut held, even).unwrap();
        assert_eq!(number, 0);
        assert_eq!(first.done.len(), 101);
        assert_eq!(first.done[1], Run::Data { first: 2, ids: vec![id(2)] });
        assert_eq!(first.done[100], Run::Zero { first: 200, count: 4800 });
        let (number, second) = recorder.gather(&mut held, |_| true).unwrap();
        assert_eq!((number, second.done.len()), (0, 201), "the same object grows");
        assert!(recorder.gather(&mut held, |_| true).is_none(), "nothing is new");
    }

    #[test]
    fn little_is_not_worth_an_object_unless_reading_waits_for_it() {
        let recorder = recorder();
        let mut held = Vec::new();
        let care = |bytes: u64| recorder.care.clone().try_acquire_many_owned(u32::try_from(bytes / UNIT).unwrap()).ok();
        recorder.note(0..1, Some(id(0)), care(CHUNK));
        assert!(recorder.gather(&mut held, |_| true).is_none());
        let others = care(AT_RISK - CHUNK).unwrap();
        assert!(recorder.gather(&mut held, |_| false).is_none());
        let (_, checkpoint) = recorder.gather(&mut held, |_| true).unwrap();
        assert_eq!(checkpoint.done, [Run::Data { first: 0, ids: vec![id(0)] }]);
        assert!(care(UNIT).is_none(), "it is in care until the object is written");
        held.clear();
        assert!(care(CHUNK).is_some());
        drop(others);
    }

    #[test]
    fn an_object_that_is_full_or_could_not_be_written_anew_is_followed_by_another() {
        let recorder = recorder();
        let mut held = Vec::new();
        recorder.note(0..100, None, None);
        let (number, _) = recorder.gather(&mut held, |_| true).unwrap();
        assert_eq!(number, 0);
        recorder.another_number();
        for n in 100..100 + FULL as u64 {
            recorder.note(n..n + 1, Some(id(n)), None);
        }
        let (number, both) = recorder.gather(&mut held, |_| true).unwrap();
        assert_eq!((number, both.done.len()), (1, 2), "what was not written comes again");
        let pack = IndexPack::new([7; 32], &[]);
        recorder.note_pack(&pack); // while the full one is on its way
        recorder.another_number();
        recorder.note(5000..9000, None, None);
        let (number, next) = recorder.gather(&mut held, |_| true).unwrap();
        assert_eq!((number, next.done.len()), (3, 1), "a full one is not carried along");
        assert_eq!(next.packs.len(), 1, "a pack is never forgotten");
    }

    #[test]
    fn checkpoints_of_another_disk_or_of_a_later_version_say_nothing() {
        let mut checkpoint = Checkpoint::new(recorder().source());
        let source = checkpoint.source.clone();
        assert!(checkpoint.is_of(&source));
        assert!(!checkpoint.is_of(&Source { size_bytes: 1, ..source.clone() }));
        assert!(!checkpoint.is_of(&Source { chunk_size: 4096, ..source.clone() }));
        assert!(!checkpoint.is_of(&Source { snapshot: "disk:other".parse().unwrap(), ..source.clone() }));
        checkpoint.schema += 1;
        assert!(!checkpoint.is_of(&source));
    }
}
