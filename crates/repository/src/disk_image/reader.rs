//! One restore point, open for reading: what each chunk of its disk is, and which pack has it. How chunks are read is in
//! [`super::fetch`].
//!
//! Opening one looks at all its packs, so that damage shows before a volume is made for it.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use disk::ByteRange;

use super::check::broken_packs;
use super::fetch::Headers;
use super::image::Image;
use super::layout::{ChunkRef, DiskFacts, Layout};
use crate::error::{Damage, Error};
use crate::hash::{ChunkId, hex};
use crate::index::PackRef;
use crate::nearby::Nearby;
use crate::pack::BlobKind;
use crate::repository::Repository;
use crate::restore_point::RestorePoint;

/// The pack of contents that no index lists.
pub(super) const NOWHERE: u32 = u32::MAX;

/// The number of a content that is not known, as the tree that names it is damaged.
pub(super) const UNKNOWN: u32 = u32::MAX - 1;

/// One restore point, open for reading. Clones share everything.
#[derive(Clone)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) repository: Repository,
    pub(super) point: RestorePoint,
    image: Image,
    /// For each chunk of the disk its content's number plus one; 0 is zeroes.
    pub(super) contents: Vec<u32>,
    /// Chunks that are [`UNKNOWN`], folder by folder, and why.
    pub(super) unknown: Vec<(Range<u64>, Damage)>,
    /// The different contents in the order of their first place: id, and number of the pack or [`NOWHERE`].
    pub(super) unique: Vec<(ChunkId, u32)>,
    pub(super) packs: Vec<PackRef>,
    pub(super) headers: Mutex<Headers>,
    pub(super) reading: AtomicU64,
    pub(super) opening: AtomicU64,
}

/// Whether a restore point is opened of which not all is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Only when all of it can be had.
    Whole,
    /// Also when packs, or trees of folders, are gone or broken: reading says which places of the disk are lost.
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
    unknown: Vec<(Range<u64>, Damage)>,
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

    fn add_unknown(&mut self, chunks: Range<u64>, damage: Damage) {
        self.contents.extend(chunks.clone().map(|_| UNKNOWN + 1));
        self.unknown.push((chunks, damage));
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

pub(super) fn not_indexed(act: &str, chunk: &ChunkId) -> Error {
    Error::damaged(act, Damage::NotIndexed { chunk: hex(&chunk.0) })
}

impl Reader {
    pub(crate) async fn open(repository: Repository, point: RestorePoint, opening: Opening) -> Result<Self, Error> {
        let mut blobs = Nearby::new(&repository);
        let image = Image::read(&mut blobs, &point.id.to_string(), &point.tree).await?;
        let zeroes = vec![0; usize::try_from(image.layout.chunk_size).expect("at most 16 MiB")];
        let zero = ChunkId::of(&zeroes);
        let tail =
            image.layout.short_tail().map(|n| ChunkId::of(&zeroes[..usize::try_from(n).expect("below a chunk")]));
        let last = image.layout.chunk_count() - 1;
        let mut numbering = Numbering::default();
        let read = image.read_folders(&mut blobs, |folder, ids| {
            let chunks = image.layout.folder_chunks(folder);
            let ids = match ids {
                Err(Error::Damaged { source, .. }) if opening == Opening::Remains => {
                    numbering.add_unknown(chunks, source);
                    return Ok(());
                }
                ids => ids?,
            };
            for (id, index) in ids.iter().zip(chunks) {
                if *id == tail.filter(|_| index == last).unwrap_or(zero) {
                    numbering.contents.push(0);
                } else {
                    numbering.add(&repository, *id, opening)?;
                }
            }
            Ok(())
        });
        read.await?;
        let Numbering { contents, unknown, unique, packs, .. } = numbering;
        if opening == Opening::Whole {
            // before anyone makes a volume for it: is all of it there?
            let mut broken = broken_packs(&repository, packs.iter().copied().collect()).await?;
            broken.iter().for_each(|(pack, _)| repository.inner.index.distrust(pack));
            let others = broken.len().saturating_sub(1);
            if let Some((_, damage)) = broken.pop() {
                let act = match others {
                    0 => "open a restore point".to_owned(),
                    _ => format!(
                        "open a restore point: {} of its {} packs are damaged, one of them",
                        others + 1,
                        packs.len()
                    ),
                };
                return Err(Error::damaged(act, damage));
            }
        }
        let (reading, opening) = Default::default();
        let headers = Mutex::default();
        let shared = Shared { repository, point, image, contents, unknown, unique, packs, headers, reading, opening };
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

    /// How long chunks were read from the store, and opened (decrypted, decompressed, hashed), in all; what goes on at the
    /// same time counts as often.
    pub fn spent(&self) -> (Duration, Duration) {
        let time = |micros: &AtomicU64| Duration::from_micros(micros.load(Relaxed));
        (time(&self.shared.reading), time(&self.shared.opening))
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
            Some(UNKNOWN) => ChunkRef::Unknown,
            Some(content) => ChunkRef::Data(self.shared.unique[content as usize].0),
        }
    }
}
