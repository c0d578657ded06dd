//! Packs: objects full of sealed blobs, with a sealed table of contents at the end.
//!
//! `blob ‖ … ‖ blob ‖ sealed header ‖ header length`. Bytes only; who stores them is above.

use std::sync::{Arc, Mutex, PoisonError};

use crate::crypto::{Cipher, OVERHEAD};
use crate::hash::{hex, sha256_all};

/// Bytes after which a data pack is closed.
pub(crate) const DATA_PACK_SIZE: usize = 16 << 20;
/// Bytes after which a tree pack is closed.
pub(crate) const TREE_PACK_SIZE: usize = 4 << 20;
/// Blobs after which a pack is closed, so that its header stays small (168 KiB) however well the content compresses.
const MAX_BLOBS: usize = 4096;

/// Bytes of address space a pack is filled in: above the largest size (32 MiB) up to which glibc, once such a buffer was
/// freed, keeps later ones in its arenas. Measured on two cores: 66 MiB resident instead of 240. Pages that are not
/// touched cost nothing.
const ROOM: usize = 33 << 20;

/// Buffers that are kept while nobody fills them: as many as a backup whose store keeps up goes round with.
const KEPT: usize = 3;

/// Memory that packs of chunks are filled in, one after another: new memory costs a page fault for each 4 KiB, a fifth of what
/// a backup spends in the kernel. Clones share it. Packs of trees are few and small, and have memory of their own.
#[derive(Clone, Default)]
pub(crate) struct Buffers {
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Buffers {
    fn take(&self, kind: BlobKind) -> PackBytes {
        if kind == BlobKind::Tree {
            return PackBytes { bytes: Vec::with_capacity(ROOM), home: None };
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        PackBytes { bytes: idle.unwrap_or_else(|| Vec::with_capacity(ROOM)), home: Some(self.clone()) }
    }
}

/// The bytes of a pack; the memory goes back when they are dropped.
pub(crate) struct PackBytes {
    bytes: Vec<u8>,
    home: Option<Buffers>,
}

impl AsRef<[u8]> for PackBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PackBytes {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut idle = home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(bytes);
        }
    }
}

/// What a blob is to restic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum BlobKind {
    Data,
    Tree,
}

impl BlobKind {
    /// Bytes after which a pack of this kind is closed.
    fn pack_size(self) -> usize {
        match self {
            Self::Data => DATA_PACK_SIZE,
            Self::Tree => TREE_PACK_SIZE,
        }
    }
}

/// A blob and its place in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) id: [u8; 32],
    pub(crate) kind: BlobKind,
    /// First byte in the pack.
    pub(crate) offset: u32,
    /// Sealed length in bytes.
    pub(crate) length: u32,
    /// Length before compression; `None` when it is not compressed.
    pub(crate) plain_length: Option<u32>,
}

impl Blob {
    fn header_length(&self) -> u64 {
        if self.plain_length.is_some() { 41 } else { 37 }
    }
}

/// A blob's content, compressed where that helps, and sealed.
pub(crate) struct SealedBlob {
    pub(crate) id: [u8; 32],
    pub(crate) bytes: Vec<u8>,
    pub(crate) plain_length: Option<u32>,
}

/// Key of a pack.
pub(crate) fn key(id: &[u8; 32]) -> String {
    let name = hex(id);
    format!("data/{}/{name}", &name[..2])
}

/// Length of the whole pack that holds exactly these blobs.
pub(crate) fn pack_length(blobs: &[Blob]) -> u64 {
    let content = blobs.iter().map(|blob| u64::from(blob.offset) + u64::from(blob.length)).max().unwrap_or(0);
    content + header_length(blobs) + 4
}

fn header_length(blobs: &[Blob]) -> u64 {
    blobs.iter().map(Blob::header_length).sum::<u64>() + OVERHEAD as u64
}

/// A pack being filled.
pub(crate) struct PackBuilder {
    kind: BlobKind,
    content: PackBytes,
    blobs: Vec<Blob>,
    plain_bytes: u64,
}

/// A pack with its header, and without its name.
pub(crate) struct FullPack {
    pub(crate) bytes: PackBytes,
    pub(crate) blobs: Vec<Blob>,
}

/// A finished pack.
pub(crate) struct SealedPack {
    pub(crate) id: [u8; 32],
    pub(crate) bytes: PackBytes,
    pub(crate) blobs: Vec<Blob>,
}

impl PackBuilder {
    pub(crate) fn new(kind: BlobKind, buffers: &Buffers) -> Self {
        Self { kind, content: buffers.take(kind), blobs: Vec::new(), plain_bytes: 0 }
    }

    pub(crate) fn kind(&self) -> BlobKind {
        self.kind
    }

    /// Bytes of its blobs before compression.
    pub(crate) fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Whether `more` bytes would make it larger than a pack shall be.
    pub(crate) fn is_full_for(&self, more: usize) -> bool {
        !self.is_empty() && (self.content.bytes.len() + more > self.kind.pack_size() || self.blobs.len() >= MAX_BLOBS)
    }

    pub(crate) fn add(&mut self, blob: &SealedBlob) {
        let at = |length: usize| u32::try_from(length).expect("a pack is far below 4 GiB");
        self.blobs.push(Blob {
            id: blob.id,
            kind: self.kind,
            offset: at(self.content.bytes.len()),
            length: at(blob.bytes.len()),
            plain_length: blob.plain_length,
        });
        self.plain_bytes += blob.plain_length.map_or(blob.bytes.len() as u64, u64::from);
        self.content.bytes.extend_from_slice(&blob.bytes);
    }

    /// Writes the header.
    pub(crate) fn close(mut self, cipher: &Cipher) -> FullPack {
        let bytes = &mut self.content.bytes;
        let start = bytes.len();
        let header = encode_header(&self.blobs);
        cipher.seal_into(bytes, &header);
        let length = u32::try_from(bytes.len() - start).expect("a header is far below 4 GiB");
        bytes.extend_from_slice(&length.to_le_bytes());
        FullPack { bytes: self.content, blobs: self.blobs }
    }
}

/// Names packs, which hashes all of them: for blocking threads.
pub(crate) fn named(packs: Vec<FullPack>) -> Vec<SealedPack> {
    let contents: Vec<&[u8]> = packs.iter().map(|pack| pack.bytes.as_ref()).collect();
    let ids = sha256_all(&contents);
    let sealed = packs.into_iter().zip(ids).map(|(pack, id)| SealedPack { id, bytes: pack.bytes, blobs: pack.blobs });
    sealed.collect()
}

pub(crate) fn encode_header(blobs: &[Blob]) -> Vec<u8> {
    let mut header = Vec::with_capacity(blobs.len() * 41);
    for blob in blobs {
        let kind = match blob.kind {
            BlobKind::Data => 0,
            BlobKind::Tree => 1,
        };
        header.push(kind | if blob.plain_length.is_some() { 2 } else { 0 });
        header.extend_from_slice(&blob.length.to_le_bytes());
        if let Some(plain) = blob.plain_length {
            header.extend_from_slice(&plain.to_le_bytes());
        }
        header.extend_from_slice(&blob.id);
    }
    header
}

/// The blobs that a header lists; `Err` says what is wrong with it.
pub(crate) fn decode_header(header: &[u8]) -> Result<Vec<Blob>, &'static str> {
    let mut rest = header;
    let mut take = |length: usize| -> Result<&[u8], &'static str> {
        let (part, after) = rest.split_at_checked(length).ok_or("it ends within an entry")?;
        rest = after;
        Ok(part)
    };
    let number = |part: &[u8]| u32::from_le_bytes(part.try_into().expect("four bytes were taken"));
    let (mut blobs, mut offset) = (Vec::new(), 0_u32);
    while let Ok(kind) = take(1).map(|kind| kind[0]) {
        if kind > 3 {
            return Err("it lists a blob of unknown type");
        }
        let length = number(take(4)?);
        let plain_length = if kind & 2 == 0 { None } else { Some(number(take(4)?)) };
        let mut id = [0; 32];
        id.copy_from_slice(take(32)?);
        let kind = if kind & 1 == 0 { BlobKind::Data } else { BlobKind::Tree };
        blobs.push(Blob { id, kind, offset, length, plain_length });
        offset = offset.checked_add(length).ok_or("it lists more than 4 GiB")?;
    }
    Ok(blobs)
}

/// Bytes read from the end of a pack at first: enough for the header of some 99 blobs.
pub(crate) const TAIL: u64 = 4096;

/// How long the header at the end of a pack is, its length field included; from the pack's last bytes.
pub(crate) fn header_size(tail: &[u8]) -> Option<u64> {
    let field = tail.last_chunk::<4>()?;
    Some(u64::from(u32::from_le_bytes(*field)) + 4)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;
    use crate::crypto::MasterKey;

    fn blob(byte: u8, length: usize, plain_length: Option<u32>) -> SealedBlob {
        SealedBlob { id: [byte; 32], bytes: vec![byte; length], plain_length }
    }

    #[test]
    fn a_pack_tells_by_itself_what_is_in_it() {
        let cipher = MasterKey::generate().cipher().unwrap();
        let buffers = Buffers::default();
        let mut builder = PackBuilder::new(BlobKind::Data, &buffers);
        builder.add(&blob(1, 100, None));
        builder.add(&blob(2, 50, Some(4096)));
        let pack = named(vec![builder.close(&cipher)]).pop().unwrap();
        let bytes = pack.bytes.as_ref();
        assert_eq!(bytes.len() as u64, pack_length(&pack.blobs));
        let size = usize::try_from(header_size(bytes).unwrap()).unwrap();
        let start = bytes.len() - size;
        let header = cipher.open(&bytes[start..bytes.len() - 4]).unwrap();
        assert_eq!(decode_header(&header).unwrap(), pack.blobs);
        assert_eq!(pack.blobs[1].offset, 100);
        drop(pack);
        let next = PackBuilder::new(BlobKind::Data, &buffers);
        assert!(
            next.content.bytes.is_empty() && next.content.bytes.capacity() >= ROOM,
            "the next one gets the memory, and nothing else"
        );
    }

    #[test]
    fn a_broken_header_is_an_error_and_not_fewer_blobs() {
        let blobs = [Blob { id: [1; 32], kind: BlobKind::Tree, offset: 0, length: 9, plain_length: Some(7) }];
        let header = encode_header(&blobs);
        assert_eq!(decode_header(&header).unwrap(), blobs);
        for length in 1..header.len() {
            assert!(decode_header(&header[..length]).is_err(), "{length}");
        }
        assert!(decode_header(&[9; 41]).is_err());
    }
}
