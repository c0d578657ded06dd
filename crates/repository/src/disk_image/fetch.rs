//! Reads chunks of a restore point: pack by pack, in ranged reads of neighbours, opened and hashed together.
//!
//! The index says which pack has a chunk, the pack's own header says where in it. What is wanted of a pack is cut into
//! *batches* of some sixteen chunks in the order in which they lie there: enough to be hashed side by side, few enough that
//! several fit in memory. Headers are read ahead of the batches they cut.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::{Stream, StreamExt, future, stream};
use tokio::sync::OnceCell;

use super::reader::{NOWHERE, Reader, UNKNOWN, not_indexed};
use crate::error::{Damage, Error};
use crate::hash::ChunkId;
use crate::index::PackRef;
use crate::nearby::Ending;
use crate::pack::{self, Blob, BlobKind};
use crate::repository::open_blobs;

/// Plaintext bytes of one batch at most (a larger chunk comes alone).
const BATCH: u64 = 8 << 20;

/// Unwanted bytes between two wanted chunks that are read along rather than asked around: another request costs as much.
const GAP: u64 = 512 << 10;

/// Pack headers kept; at most 230 KiB each.
const HEADERS: usize = 64;

/// Headers of packs by the pack's number.
pub(super) type Headers = HashMap<u32, Arc<OnceCell<Arc<Vec<Blob>>>>>;

/// What is wanted of one pack.
#[derive(Debug, Clone)]
pub struct Fetch {
    pack: u32,
    /// Contents with the places that want them.
    wanted: Vec<(u32, Vec<u64>)>,
}

impl Fetch {
    fn first(&self) -> u64 {
        self.wanted.first().map_or(0, |(_, at)| at[0])
    }

    fn places(&self) -> Vec<u64> {
        self.wanted.iter().flat_map(|(_, at)| at.iter().copied()).collect()
    }
}

/// One content with every wanted place of the disk that has it.
#[derive(Debug, Clone)]
pub struct ReadChunk {
    /// Numbers of the chunks on the disk, rising, all of them asked for.
    pub at: Vec<u64>,
    /// The verified content.
    pub data: Bytes,
}

/// Contents that cannot be read, and why.
#[derive(Debug)]
pub struct Unread {
    /// Numbers of the wanted chunks on the disk that have them.
    pub at: Vec<u64>,
    /// What is wrong; [`Error::Damaged`] unless the store failed.
    pub error: Box<Error>,
}

type Outcome = Result<ReadChunk, Unread>;

/// A blob with the places that want it.
type Wanted = (Blob, Vec<u64>);

/// Something to be done, or what became of it already.
enum Step {
    Read(PackRef, Vec<Wanted>),
    Known(Vec<Outcome>),
}

impl Reader {
    /// The packs that have the wanted chunks, by their first place on the disk. Zero chunks are left out; a content that is
    /// wanted at many places is read once.
    pub fn plan(&self, wanted: impl IntoIterator<Item = u64>) -> Vec<Fetch> {
        let mut places: Vec<(u32, u64)> = Vec::new();
        for index in wanted.into_iter().filter(|index| *index < self.chunk_count()) {
            let at = usize::try_from(index).expect("a disk has fewer than 2^32 chunks");
            if let Some(content) = self.shared.contents[at].checked_sub(1) {
                places.push((content, index));
            }
        }
        places.sort_unstable();
        places.dedup();
        let mut fetches: HashMap<u32, Fetch> = HashMap::new();
        for same in places.chunk_by(|a, b| a.0 == b.0) {
            let (content, at) = (same[0].0, same.iter().map(|(_, index)| *index).collect::<Vec<_>>());
            let pack = if content == UNKNOWN { NOWHERE } else { self.shared.unique[content as usize].1 };
            fetches.entry(pack).or_insert_with(|| Fetch { pack, wanted: Vec::new() }).wanted.push((content, at));
        }
        let mut plan: Vec<_> = fetches.into_values().collect();
        plan.sort_by_key(Fetch::first);
        plan
    }

    /// Runs a plan with up to `in_flight` batches at once, of at most 8 MiB each unless a single chunk is larger; what lies
    /// together in a pack comes together.
    pub fn read(
        &self,
        plan: Vec<Fetch>,
        in_flight: usize,
    ) -> impl Stream<Item = Result<ReadChunk, Error>> + Send + 'static {
        self.examine(plan, in_flight).map(|chunk| chunk.map_err(|unread| *unread.error))
    }

    /// Like [`Reader::read`], and goes on behind what is damaged, so that all of it comes to light.
    pub fn examine(
        &self,
        plan: Vec<Fetch>,
        in_flight: usize,
    ) -> impl Stream<Item = Result<ReadChunk, Unread>> + Send + 'static {
        let (locating, reading) = (self.clone(), self.clone());
        let located = stream::iter(plan).map(move |fetch| {
            let reader = locating.clone();
            async move { reader.locate(&fetch).await }
        });
        let steps = located.buffered(in_flight.max(1)).flat_map(stream::iter);
        let outcomes = steps.map(move |step| {
            let reader = reading.clone();
            async move {
                match step {
                    Step::Read(pack, batch) => reader.read_batch(&pack, batch).await,
                    Step::Known(outcomes) => outcomes,
                }
            }
        });
        outcomes.buffered(in_flight.max(1)).flat_map(stream::iter)
    }

    /// One chunk's content, also when it is zeroes. For a look into a disk; to read much, [`Reader::plan`] it.
    pub async fn read_chunk(&self, index: u64) -> Result<Bytes, Error> {
        if index >= self.chunk_count() {
            return Err(Error::InvalidUse { cause: format!("chunk {index} is beyond the disk") });
        }
        let mut chunks = std::pin::pin!(self.read(self.plan([index]), 1));
        match chunks.next().await {
            Some(chunk) => chunk.map(|chunk| chunk.data),
            None => {
                let length = usize::try_from(self.chunk_range(index).length).expect("at most 16 MiB");
                Ok(Bytes::from(vec![0; length]))
            }
        }
    }

    /// Where in its pack what is wanted of it lies, cut into batches.
    async fn locate(&self, fetch: &Fetch) -> Vec<Step> {
        let id = |content: u32| self.shared.unique[content as usize].0;
        if fetch.pack == NOWHERE {
            let lost = |(content, at): &(u32, Vec<u64>)| match *content {
                UNKNOWN => self.unknown_at(at),
                content => vec![Unread { at: at.clone(), error: not_indexed("read a chunk", &id(content)).into() }],
            };
            return vec![Step::Known(fetch.wanted.iter().flat_map(lost).map(Err).collect())];
        }
        let pack = self.shared.packs[fetch.pack as usize];
        let header = match self.header(fetch.pack, &pack).await {
            Ok(header) => header,
            Err(error) => return vec![Step::Known(vec![Err(Unread { at: fetch.places(), error: error.into() })])],
        };
        let listed: HashMap<ChunkId, &Blob> =
            header.iter().filter(|blob| blob.kind == BlobKind::Data).map(|blob| (ChunkId(blob.id), blob)).collect();
        let (mut wanted, mut unlisted) = (Vec::with_capacity(fetch.wanted.len()), Vec::new());
        for (content, at) in &fetch.wanted {
            match listed.get(&id(*content)) {
                Some(blob) => wanted.push((**blob, at.clone())),
                None => unlisted.push(Err(unlisted_in(&pack, &id(*content), at.clone()))),
            }
        }
        wanted.sort_by_key(|(blob, _)| blob.offset);
        let batches = batches(wanted, self.chunk_size()).into_iter().map(|batch| Step::Read(pack, batch));
        let unlisted = Some(unlisted).filter(|unlisted| !unlisted.is_empty()).map(Step::Known);
        unlisted.into_iter().chain(batches).collect()
    }

    /// Why the chunks at these places, which rise, are not known: one answer for each damaged tree.
    fn unknown_at(&self, at: &[u64]) -> Vec<Unread> {
        let within = |chunks: &Range<u64>| {
            let (first, end) =
                (at.partition_point(|index| *index < chunks.start), at.partition_point(|index| *index < chunks.end));
            at[first..end].to_vec()
        };
        let told = |(chunks, damage): &(Range<u64>, Damage)| {
            let error = Error::damaged("read the tree of a folder", damage.clone());
            Some(Unread { at: within(chunks), error: error.into() }).filter(|unread| !unread.at.is_empty())
        };
        self.shared.unknown.iter().filter_map(told).collect()
    }

    async fn header(&self, number: u32, pack: &PackRef) -> Result<Arc<Vec<Blob>>, Error> {
        let cell = {
            let mut headers = self.shared.headers.lock().unwrap_or_else(PoisonError::into_inner);
            if headers.len() >= HEADERS && !headers.contains_key(&number) {
                headers.clear(); // plans walk along the disk, so old ones are not asked for again
            }
            headers.entry(number).or_default().clone()
        };
        let read = || async { Ok(Arc::new(Ending::read(&self.shared.repository, pack).await?.blobs)) };
        cell.get_or_try_init(read).await.cloned()
    }

    /// Reads the runs of a batch, then opens all that came on one thread.
    async fn read_batch(&self, pack: &PackRef, batch: Vec<Wanted>) -> Vec<Outcome> {
        let runs = batch.chunk_by(|(a, _), (b, _)| end(a) + GAP >= u64::from(b.offset));
        let began = Instant::now();
        let read = future::join_all(runs.map(|run| self.read_run(pack, run))).await;
        count(&self.shared.reading, began);
        let (mut sealed, mut outcomes) = (Vec::with_capacity(batch.len()), Vec::new());
        for run in read {
            match run {
                Ok(blobs) => sealed.extend(blobs),
                Err(unread) => outcomes.push(Err(unread)),
            }
        }
        let (reader, pack) = (self.clone(), *pack);
        let opening = move || {
            let began = Instant::now();
            let opened = reader.open_all(&pack, sealed);
            count(&reader.shared.opening, began);
            opened
        };
        let opened = tokio::task::spawn_blocking(opening).await;
        outcomes.extend(opened.expect("opening chunks does not panic"));
        outcomes
    }

    /// One ranged read of blobs that lie side by side.
    async fn read_run(&self, pack: &PackRef, run: &[Wanted]) -> Result<Vec<(Wanted, Bytes)>, Unread> {
        let start = run.first().map_or(0, |(blob, _)| u64::from(blob.offset));
        let length = run.last().map_or(0, |(blob, _)| end(blob) - start);
        match self.shared.repository.read_pack(pack, start, length).await {
            Ok(bytes) => {
                let part = |blob: &Blob| {
                    let offset = usize::try_from(u64::from(blob.offset) - start).expect("within what was read");
                    bytes.slice(offset..offset + blob.length as usize)
                };
                Ok(run.iter().map(|wanted| (wanted.clone(), part(&wanted.0))).collect())
            }
            Err(error) => {
                Err(Unread { at: run.iter().flat_map(|(_, at)| at.iter().copied()).collect(), error: error.into() })
            }
        }
    }

    /// For blocking threads.
    fn open_all(&self, pack: &PackRef, sealed: Vec<(Wanted, Bytes)>) -> Vec<Outcome> {
        let blobs: Vec<_> = sealed.iter().map(|((blob, _), bytes)| (*blob, bytes.as_ref())).collect();
        let opened = open_blobs(&self.shared.repository.inner.cipher, pack, &blobs);
        let fit = |(((_, at), _), opened): ((Wanted, Bytes), Result<Vec<u8>, Error>)| match opened
            .and_then(|data| self.fitting(&at, data))
        {
            Ok(data) => Ok(ReadChunk { at, data }),
            Err(error) => Err(Unread { at, error: error.into() }),
        };
        sealed.into_iter().zip(opened).map(fit).collect()
    }

    /// A chunk's content, if it is as long as its places on the disk.
    fn fitting(&self, at: &[u64], data: Vec<u8>) -> Result<Bytes, Error> {
        if let Some(index) = at.iter().find(|index| self.chunk_range(**index).length != data.len() as u64) {
            let cause = format!("chunk {index} has {} bytes", data.len());
            let damage = Damage::Image { point: self.shared.point.id.to_string(), cause };
            return Err(Error::damaged("read a restore point", damage));
        }
        Ok(Bytes::from(data))
    }
}

fn count(micros: &AtomicU64, began: Instant) {
    micros.fetch_add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
}

fn end(blob: &Blob) -> u64 {
    u64::from(blob.offset) + u64::from(blob.length)
}

fn unlisted_in(pack: &PackRef, id: &ChunkId, at: Vec<u64>) -> Unread {
    let (object, cause) = (pack::key(&pack.id), format!("its header does not list chunk {id}"));
    Unread { at, error: Error::damaged("read a chunk", Damage::Malformed { object, cause }).into() }
}

/// As few batches as memory allows, of about equal length, so that none is left with a chunk or two to be hashed alone.
fn batches(mut wanted: Vec<Wanted>, chunk_size: u64) -> Vec<Vec<Wanted>> {
    let most = usize::try_from(BATCH / chunk_size).expect("at most 2048").max(1);
    let mut left = wanted.len().div_ceil(most);
    let mut batches = Vec::with_capacity(left);
    while left > 0 {
        let rest = wanted.split_off(wanted.len().div_ceil(left));
        batches.push(std::mem::replace(&mut wanted, rest));
        left -= 1;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wanted_chunk_is_in_one_batch_and_none_is_left_alone() {
        let blob = |n: u32| Blob { id: [0; 32], kind: BlobKind::Data, offset: n, length: 1, plain_length: None };
        for count in 0..100_u32 {
            let cut = batches((0..count).map(|n| (blob(n), vec![u64::from(n)])).collect(), 512 << 10);
            assert_eq!(cut.len(), count.div_ceil(16) as usize, "{count}");
            let offsets: Vec<_> = cut.iter().flatten().map(|(blob, _)| blob.offset).collect();
            assert_eq!(offsets, (0..count).collect::<Vec<_>>());
            let least = cut.iter().map(Vec::len).min().unwrap_or_default();
            assert!(count <= 16 || least >= 8, "{count}: one has {least}");
        }
        assert_eq!(batches(vec![(blob(0), vec![0]), (blob(1), vec![1])], 16 << 20).len(), 2, "large ones come alone");
    }
}
