//! Blobs read one after the other that lie near each other: a pack's header is read once for all of them, and what came with it is
//! not asked for again. A small restore point has all its trees in the end of one pack.

use bytes::Bytes;

use crate::error::{Damage, Error};
use crate::hash::hex;
use crate::index::PackRef;
use crate::pack::{self, Blob, BlobKind};
use crate::repository::{Repository, open_blob};

/// Reads blobs through the index and keeps the ends of the two packs it read last, one of trees and one of data.
pub(crate) struct Nearby<'r> {
    repository: &'r Repository,
    trees: Option<(PackRef, Ending)>,
    data: Option<(PackRef, Ending)>,
}

/// The end of a pack: what its header lists, and the bytes that were read for that.
pub(crate) struct Ending {
    pub(crate) blobs: Vec<Blob>,
    /// The last bytes of the pack.
    tail: Bytes,
    /// Where in the pack they begin.
    start: u64,
}

impl Ending {
    /// Reads it from the store; a pack that is gone or too short is damage.
    pub(crate) async fn read(repository: &Repository, pack: &PackRef) -> Result<Self, Error> {
        let malformed = |cause: &str| {
            let damage = Damage::Malformed { object: pack::key(&pack.id), cause: cause.to_owned() };
            Error::damaged("read a pack's header", damage)
        };
        let mut start = pack.length.saturating_sub(pack::TAIL);
        let mut tail = repository.read_pack(pack, start, pack.length - start).await?;
        let size = pack::header_size(&tail).filter(|size| *size <= pack.length);
        let size = size.ok_or_else(|| malformed("its header is longer than it"))?;
        if size > tail.len() as u64 {
            start = pack.length - size;
            tail = repository.read_pack(pack, start, size).await?;
        }
        let header = tail.len() - usize::try_from(size).map_err(|_| malformed("its header is longer than memory"))?;
        let header =
            repository.inner.cipher.open(&tail[header..tail.len() - 4]).ok_or_else(|| {
                Error::damaged("read a pack's header", Damage::Sealed { object: pack::key(&pack.id) })
            })?;
        let blobs = pack::decode_header(&header).map_err(|cause| malformed(&format!("in its header {cause}")))?;
        Ok(Self { blobs, tail, start })
    }

    /// The bytes of a blob, where they came with the header.
    fn sealed(&self, blob: &Blob) -> Option<Bytes> {
        let from = usize::try_from(u64::from(blob.offset).checked_sub(self.start)?).ok()?;
        let to = from.checked_add(blob.length as usize)?;
        (to <= self.tail.len()).then(|| self.tail.slice(from..to))
    }
}

impl<'r> Nearby<'r> {
    pub(crate) fn new(repository: &'r Repository) -> Self {
        Self { repository, trees: None, data: None }
    }

    /// One blob, found by the index, verified.
    pub(crate) async fn blob(&mut self, kind: BlobKind, id: &[u8; 32]) -> Result<Vec<u8>, Error> {
        let not_indexed = || Error::damaged("find a blob", Damage::NotIndexed { chunk: hex(id) });
        let index = &self.repository.inner.index;
        // of a pack that is known to be lost the error names the pack, which helps more than that no index lists the blob
        let pack = index.find(kind, id).or_else(|| index.find_even_lost(kind, id)).ok_or_else(not_indexed)?;
        let ending = self.ending(kind, pack).await?;
        let unlisted = || {
            let (object, cause) = (pack::key(&pack.id), format!("its header does not list chunk {}", hex(id)));
            Error::damaged("find a blob", Damage::Malformed { object, cause })
        };
        let blob = *ending.blobs.iter().find(|blob| blob.kind == kind && blob.id == *id).ok_or_else(unlisted)?;
        let sealed = match ending.sealed(&blob) {
            Some(sealed) => sealed,
            None => self.repository.read_pack(&pack, u64::from(blob.offset), u64::from(blob.length)).await?,
        };
        let cipher = self.repository.inner.cipher.clone();
        let opened = tokio::task::spawn_blocking(move || open_blob(&cipher, &pack, &blob, &sealed)).await;
        opened.expect("opening a blob does not panic")
    }

    async fn ending(&mut self, kind: BlobKind, pack: PackRef) -> Result<&Ending, Error> {
        let place = match kind {
            BlobKind::Data => &mut self.data,
            BlobKind::Tree => &mut self.trees,
        };
        let kept = match place.take().filter(|(kept, _)| *kept == pack) {
            Some(kept) => kept,
            None => (pack, Ending::read(self.repository, &pack).await?),
        };
        Ok(&place.insert(kept).1)
    }
}
