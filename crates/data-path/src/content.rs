//! Which parts of a disk a backup has to read: all that may hold data, or only what changed since an earlier restore point.
//! What did not change is taken over chunk by chunk, after a sample of it was read and found to be true.

use disk::{ByteRange, Ranges};
use repository::{ChunkId, ChunkRef, Reader, Writer, is_zero};

use crate::disk_access::Disk;
use crate::error::Error;
use crate::select;

/// For so many chunks that changed one is read of those that did not where the base has data, and one where it has none.
const AUDIT_SHARE: u64 = 40;
/// Fewest and most chunks of each kind.
const AUDIT: std::ops::RangeInclusive<u64> = 1..=128;
/// Changed areas from this many bytes on are asked for holes; asking costs more than reading smaller ones.
const ASK_FROM: u64 = 16 << 20;

/// What a backup reads.
#[derive(Debug, Clone, Default)]
pub enum Content {
    /// Whatever the disk's server does not call a hole.
    #[default]
    Allocated,
    /// Only what changed.
    Changed {
        /// The bytes that may differ from the base.
        areas: Ranges,
        /// A restore point of the same disk with chunks of the same size.
        base: Reader,
    },
}

impl Content {
    /// The base, if there is one.
    pub(crate) fn base(&self) -> Option<&Reader> {
        match self {
            Self::Allocated => None,
            Self::Changed { base, .. } => Some(base),
        }
    }

    /// Whether the base fits what is written.
    pub(crate) fn expect_fit(&self, writer: &Writer, size: u64) -> Result<(), Error> {
        match self.base() {
            Some(base) if base.size() != size || base.chunk_size() != writer.chunk_size() => {
                Err(Error::OtherBase { base: base.size(), chunk: base.chunk_size() })
            }
            _ => Ok(()),
        }
    }

    /// The bytes of `window` that may have changed, as whole chunks; `None`: any.
    pub(crate) fn touched(&self, window: ByteRange, chunk: u64) -> Option<Ranges> {
        match self {
            Self::Allocated => None,
            Self::Changed { areas, .. } => Some(select::whole_chunks(areas, window, chunk)),
        }
    }

    /// The bytes of `window` that have to be read, given those that may have changed.
    pub(crate) async fn data(source: &Disk, window: ByteRange, touched: Option<&Ranges>) -> Result<Ranges, Error> {
        let Some(touched) = touched else { return source.data_in(window).await };
        let mut data = Ranges::new();
        for range in touched.iter() {
            if range.length < ASK_FROM {
                data.insert(range);
            } else {
                source.data_in(range).await?.iter().for_each(|held| data.insert(held));
            }
        }
        Ok(data)
    }

    /// Reads a sample of what is said not to have changed, before any of it is taken over. Returns the bytes read.
    ///
    /// # Errors
    /// [`Error::NotAsTracked`] names the first chunk that is not as the base has it.
    pub(crate) async fn audit(&self, source: &Disk) -> Result<u64, Error> {
        let Self::Changed { areas, base } = self else { return Ok(0) };
        let disk = ByteRange::new(0, base.size());
        let touched = select::whole_chunks(areas, disk, base.chunk_size());
        let kept = touched.complement_in(disk);
        let count = (touched.bytes() / base.chunk_size() / AUDIT_SHARE).clamp(*AUDIT.start(), *AUDIT.end());
        let mut read = 0;
        for index in sample(base, &kept, usize::try_from(count).expect("at most 128")) {
            let range = base.chunk_range(index);
            let data = source.read(range).await?;
            let expected = base.chunk(index);
            let is_true = tokio::task::spawn_blocking(move || match expected {
                ChunkRef::Zero => is_zero(&data),
                ChunkRef::Data(id) => ChunkId::of(&data) == id,
                ChunkRef::Unknown => false, // nothing is taken over from a base that is not whole
            });
            if !is_true.await.expect("hashing does not panic") {
                return Err(Error::NotAsTracked { range });
            }
            read += range.length;
        }
        Ok(read)
    }
}

/// Chunks of `kept`, drawn at random: up to `count` with data in the base, and as many without.
fn sample(base: &Reader, kept: &Ranges, count: usize) -> Vec<u64> {
    let mut random = rand::rng();
    let (mut data, mut zero) = (Drawn::default(), Drawn::default());
    for index in kept.iter().flat_map(|range| select::chunks(range, base.chunk_size())) {
        let drawn = if base.chunk(index) == ChunkRef::Zero { &mut zero } else { &mut data };
        drawn.offer(index, count, &mut random);
    }
    let mut all = [data.chunks, zero.chunks].concat();
    all.sort_unstable();
    all
}

/// A sample in which each that was offered is with the same chance.
#[derive(Default)]
struct Drawn {
    chunks: Vec<u64>,
    offered: usize,
}

impl Drawn {
    fn offer(&mut self, index: u64, count: usize, random: &mut impl rand::Rng) {
        self.offered += 1;
        if self.chunks.len() < count {
            self.chunks.push(index);
        } else if let Some(place) = self.chunks.get_mut(random.random_range(0..self.offered)) {
            *place = index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_may_be_in_a_sample() {
        let mut seen = [0_u32; 10];
        for _ in 0..1000 {
            let mut drawn = Drawn::default();
            (0..10).for_each(|index| drawn.offer(index, 3, &mut rand::rng()));
            assert_eq!(drawn.chunks.len(), 3);
            drawn.chunks.iter().for_each(|index| seen[usize::try_from(*index).expect("below ten")] += 1);
        }
        // 300 each are expected; 150 are eleven standard deviations away
        assert!(seen.iter().all(|count| *count > 150), "{seen:?}");
    }
}
