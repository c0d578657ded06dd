//! Gives the chunks of one restore point back, verified.
//!
//! Opening one looks at all its packs, so that damage shows before a volume is made for it.
//! The index says which pack has a chunk, the pack's own header says where in it. Neighbours are read together.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use disk::ByteRange;
use futures::{Stream, StreamExt, stream};
use tokio::sync::OnceCell;

use super::check::broken_packs;
use super::image::Image;
use super::layout::{ChunkRef, DiskFacts, Layout};
use crate::error::{Damage, Error};
use crate::hash::{ChunkId, hex};
use crate::index::PackRef;
use crate::pack::{self, Blob, BlobKind};
use crate::repository::{Repository, open_blobs};
use crate::restore_point::RestorePoint;

/// Plaintext bytes one fetch gives at most (a larger chunk comes alone).
const FETCH: u64 = 8 << 20;

/// Unwanted bytes between two wanted chunks that are read along rather than asked around.
const GAP: u64 = 128 << 10;

/// The pack of contents that no index lists.
const NOWHERE: u32 = u32::MAX;

/// Pack headers kept; at most 230 KiB each.
const HEADERS: usize = 64;

/// One restore point, open for reading. Clones share everything.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

struct Shared {
    repository: Repository,
    point: RestorePoint,
    image: Image,
    /// For each chunk of the disk its content's number plus one; 0 is zeroes.
    contents: Vec<u32>,
    /// The different contents in the order of their first place: id, and number of the pack or [`NOWHERE`].
    unique: Vec<(ChunkId, u32)>,
    packs: Vec<PackRef>,
    headers: Mutex<HashMap<u32, Header>>,
}

type Header = Arc<OnceCell<Arc<Vec<Blob>>>>;

/// A read of neighbouring chunks of one pack.
#[derive(Debug, Clone)]
pub struct Fetch {
    pack: u32,
    /// Contents with the places that want them.
    wanted: Vec<(u32, Vec<u64>)>,
    plain_bytes: u64,
}

impl Fetch {
    /// Bytes of plaintext it gives: at most 8 MiB, unless a single chunk is larger.
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// The chunks of the disk it gives, in no particular order.
    pub fn chunks(&self) -> impl Iterator<Item = u64> + '_ {
        self.wanted.iter().flat_map(|(_, at)| at.iter().copied())
    }

    fn first(&self) -> u64 {
        self.wanted.first().map_or(0, |(_, at)| at[0])
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

/// Whether a restore point is opened of which not all is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Only when all of it can be had.
    Whole,
    /// Also when packs are gone or broken: reading says which places of the disk are lost.
    Remains,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("point", &self.shared.point).finish_non_exhaustive()
    }
}

/// Numbers contents and packs in the order in which they come.
#[derive(Default)]
struct Numbering {
    contents: Vec<u32>,
    unique: Vec<(ChunkId, u32)>,
    packs: Vec<PackRef>,
    by_id: HashMap<ChunkId, u32>,
    by_pack: HashMap<[u8; 32], u32>,
}

fn number(length: usize) -> u32 {
    u32::try_from(length).expect("a disk has fewer than 2^32 chunks")
}

impl Numbering {
    fn add(&mut self, repository: &Repository, id: ChunkId, opening: Opening) -> Result<(), Error> {
        let known = match self.by_id.get(&id) {
            Some(known) => *known,
            None => {
                let index = &repository.inner.index;
                let pack_number = match (index.find(BlobKind::Data, &id.0), opening) {
                    (Some(pack), _) => self.add_pack(pack),
                    (None, Opening::Whole) => return Err(not_indexed("open a restore point", &id)),
                    (None, Opening::Remains) => {
                        index.find_even_lost(BlobKind::Data, &id.0).map_or(NOWHERE, |pack| self.add_pack(pack))
                    }
                };
                let new = number(self.unique.len());
                self.unique.push((id, pack_number));
                self.by_id.insert(id, new);
                new
            }
        };
        self.contents.push(known + 1);
        Ok(())
    }

    fn add_pack(&mut self, pack: PackRef) -> u32 {
        let next = number(self.packs.len());
        let known = *self.by_pack.entry(pack.id).or_insert(next);
        if known == next {
            self.packs.push(pack);
        }
        known
    }
}

fn not_indexed(act: &str, chunk: &ChunkId) -> Error {
    Error::damaged(act, Damage::NotIndexed { chunk: hex(&chunk.0) })
}

impl Reader {
    pub(crate) async fn open(repository: Repository, point: RestorePoint, opening: Opening) -> Result<Self, Error> {
        let image = Image::read(&repository, &point.id.to_string(), &point.tree).await?;
        let zeroes = vec![0; usize::try_from(image.layout.chunk_size).expect("at most 16 MiB")];
        let zero = ChunkId::of(&zeroes);
        let tail =
            image.layout.short_tail().map(|n| ChunkId::of(&zeroes[..usize::try_from(n).expect("below a chunk")]));
        let last = image.layout.chunk_count() - 1;
        let mut numbering = Numbering::default();
        let read = image.read_folders(&repository, |folder, ids| {
            for (id, index) in ids.iter().zip(image.layout.folder_chunks(folder)) {
                if *id == tail.filter(|_| index == last).unwrap_or(zero) {
                    numbering.contents.push(0);
                } else {
                    numbering.add(&repository, *id, opening)?;
                }
            }
            Ok(())
        });
        read.await?;
        let Numbering { contents, unique, packs, .. } = numbering;
        if opening == Opening::Whole {
            // before anyone makes a volume for it: is all of it there?
            let mut broken = broken_packs(&repository, packs.iter().copied().collect()).await?;
            broken.iter().for_each(|(pack, _)| repository.inner.index.distrust(pack));
            if let Some((_, damage)) = broken.pop() {
                return Err(Error::damaged("open a restore point", damage));
            }
        }
        let shared = Shared { repository, point, image, contents, unique, packs, headers: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    fn layout(&self) -> &Layout {
        &self.shared.image.layout
    }

    /// The restore point.
    pub fn point(&self) -> &RestorePoint {
        &self.shared.point
    }

    /// What `/disk.json` says about the disk.
    pub fn facts(&self) -> &DiskFacts {
        &self.shared.image.document.facts
    }

    /// What identifies its content, whatever its name: the digest over the ids of its chunks, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.shared.image.document.digest
    }

    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.layout().size
    }

    /// Bytes of a chunk.
    pub fn chunk_size(&self) -> u64 {
        self.layout().chunk_size
    }

    /// Number of chunks of the disk.
    pub fn chunk_count(&self) -> u64 {
        self.layout().chunk_count()
    }

    /// The bytes of the disk that chunk `index` holds; the last one may be shorter.
    pub fn chunk_range(&self, index: u64) -> ByteRange {
        self.layout().chunk_range(index)
    }

    /// What chunk `index` is.
    ///
    /// # Panics
    /// When the disk has no such chunk.
    pub fn chunk(&self, index: u64) -> ChunkRef {
        let index = usize::try_from(index).expect("a disk has fewer than 2^32 chunks");
        match self.shared.contents[index].checked_sub(1) {
            None => ChunkRef::Zero,
            Some(content) => ChunkRef::Data(self.shared.unique[content as usize].0),
        }
    }

    /// The reads that give the wanted chunks, by their first place on the disk. Zero chunks are left out; a content that is
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
        let (mut open, mut done): (HashMap<u32, Fetch>, Vec<Fetch>) = (HashMap::new(), Vec::new());
        for same in places.chunk_by(|a, b| a.0 == b.0) {
            let (content, at) = (same[0].0, same.iter().map(|(_, index)| *index).collect::<Vec<_>>());
            let (bytes, pack) = (self.chunk_range(at[0]).length, self.shared.unique[content as usize].1);
            let empty = || Fetch { pack, wanted: Vec::new(), plain_bytes: 0 };
            let fetch = open.entry(pack).or_insert_with(empty);
            if fetch.plain_bytes + bytes > FETCH && !fetch.wanted.is_empty() {
                done.push(std::mem::replace(fetch, empty()));
            }
            fetch.plain_bytes += bytes;
            fetch.wanted.push((content, at));
        }
        done.extend(open.into_values());
        done.sort_by_key(Fetch::first);
        done
    }

    /// Does one read; decrypts, decompresses and checks on a blocking thread.
    pub async fn fetch(&self, fetch: &Fetch) -> Result<Vec<ReadChunk>, Error> {
        self.examine_fetch(fetch).await.into_iter().map(|chunk| chunk.map_err(|unread| *unread.error)).collect()
    }

    /// Does one read, and goes on behind what is damaged.
    async fn examine_fetch(&self, fetch: &Fetch) -> Vec<Result<ReadChunk, Unread>> {
        let id = |content: u32| self.shared.unique[content as usize].0;
        if fetch.pack == NOWHERE {
            let lost = |(content, at): &(u32, Vec<u64>)| {
                Err(Unread { at: at.clone(), error: not_indexed("read a chunk", &id(*content)).into() })
            };
            return fetch.wanted.iter().map(lost).collect();
        }
        let pack = self.shared.packs[fetch.pack as usize];
        let header = match self.header(fetch.pack, &pack).await {
            Ok(header) => header,
            Err(error) => return vec![Err(Unread { at: fetch.chunks().collect(), error: error.into() })],
        };
        let (mut wanted, mut chunks) = (Vec::with_capacity(fetch.wanted.len()), Vec::new());
        for (content, at) in &fetch.wanted {
            let id = id(*content);
            match header.iter().find(|blob| blob.kind == BlobKind::Data && blob.id == id.0) {
                Some(blob) => wanted.push((*blob, at.clone())),
                None => {
                    let (object, cause) = (pack::key(&pack.id), format!("its header does not list chunk {id}"));
                    let error = Error::damaged("read a chunk", Damage::Malformed { object, cause });
                    chunks.push(Err(Unread { at: at.clone(), error: error.into() }));
                }
            }
        }
        wanted.sort_by_key(|(blob, _)| blob.offset);
        for run in neighbours(&wanted) {
            chunks.extend(self.read_run(&pack, run.to_vec()).await);
        }
        chunks
    }

    /// Runs a plan with up to `in_flight` reads at once; chunks come in the order of the plan.
    pub fn read(
        &self,
        plan: Vec<Fetch>,
        in_flight: usize,
    ) -> impl Stream<Item = Result<ReadChunk, Error>> + Send + 'static {
        let reader = self.clone();
        let fetched = stream::iter(plan).map(move |fetch| {
            let reader = reader.clone();
            async move { reader.fetch(&fetch).await }
        });
        fetched.buffered(in_flight.max(1)).flat_map(|answer| {
            stream::iter(match answer {
                Ok(chunks) => chunks.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            })
        })
    }

    /// Like [`Reader::read`], and goes on behind what is damaged, so that all of it comes to light.
    pub fn examine(
        &self,
        plan: Vec<Fetch>,
        in_flight: usize,
    ) -> impl Stream<Item = Result<ReadChunk, Unread>> + Send + 'static {
        let reader = self.clone();
        let examined = stream::iter(plan).map(move |fetch| {
            let reader = reader.clone();
            async move { reader.examine_fetch(&fetch).await }
        });
        examined.buffered(in_flight.max(1)).flat_map(stream::iter)
    }

    /// One chunk's content, also when it is zeroes. For a look into a disk; to read much, [`Reader::plan`] it.
    pub async fn read_chunk(&self, index: u64) -> Result<Bytes, Error> {
        if index >= self.chunk_count() {
            return Err(Error::InvalidUse { cause: format!("chunk {index} is beyond the disk") });
        }
        let plan = self.plan([index]);
        let Some(fetch) = plan.first() else {
            let length = usize::try_from(self.chunk_range(index).length).expect("at most 16 MiB");
            return Ok(Bytes::from(vec![0; length]));
        };
        let mut chunks = self.fetch(fetch).await?;
        Ok(chunks.pop().expect("one was asked for").data)
    }

    async fn header(&self, number: u32, pack: &PackRef) -> Result<Arc<Vec<Blob>>, Error> {
        let cell = {
            let mut headers = self.shared.headers.lock().unwrap_or_else(PoisonError::into_inner);
            if headers.len() >= HEADERS && !headers.contains_key(&number) {
                headers.clear(); // plans walk along the disk, so old ones are not asked for again
            }
            headers.entry(number).or_default().clone()
        };
        let read = || async { self.shared.repository.pack_content(pack).await.map(Arc::new) };
        cell.get_or_try_init(read).await.cloned()
    }

    /// One ranged read of blobs that lie side by side.
    async fn read_run(&self, pack: &PackRef, run: Vec<(Blob, Vec<u64>)>) -> Vec<Result<ReadChunk, Unread>> {
        let start = run.first().map_or(0, |(blob, _)| u64::from(blob.offset));
        let end = run.last().map_or(0, |(blob, _)| u64::from(blob.offset) + u64::from(blob.length));
        let bytes = match self.shared.repository.read_pack(pack, start, end - start).await {
            Ok(bytes) => bytes,
            Err(error) => {
                return vec![Err(Unread { at: run.into_iter().flat_map(|(_, at)| at).collect(), error: error.into() })];
            }
        };
        let (reader, pack) = (self.clone(), *pack);
        let opened = tokio::task::spawn_blocking(move || {
            let sealed = |(blob, _): &(Blob, Vec<u64>)| {
                let offset = usize::try_from(u64::from(blob.offset) - start).expect("within what was read");
                (*blob, &bytes[offset..offset + blob.length as usize])
            };
            let opened =
                open_blobs(&reader.shared.repository.inner.cipher, &pack, &run.iter().map(sealed).collect::<Vec<_>>());
            let fit = |((_, at), opened): ((Blob, Vec<u64>), Result<Vec<u8>, Error>)| match opened
                .and_then(|data| reader.fitting(&at, data))
            {
                Ok(data) => Ok(ReadChunk { at, data }),
                Err(error) => Err(Unread { at, error: error.into() }),
            };
            run.iter().cloned().zip(opened).map(fit).collect()
        });
        opened.await.expect("opening chunks does not panic")
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

/// Blobs sorted by offset, cut where a gap is not worth reading.
fn neighbours(wanted: &[(Blob, Vec<u64>)]) -> impl Iterator<Item = &[(Blob, Vec<u64>)]> {
    wanted.chunk_by(|(a, _), (b, _)| u64::from(a.offset) + u64::from(a.length) + GAP >= u64::from(b.offset))
}
