//! Where blobs are: restic's index files, and a compact table of them in memory.
//!
//! The table holds 20 bytes a blob: the first 16 bytes of the id and a pack's number. Fewer bits than these 128 are
//! never taken for a hit. Offsets are not kept; a pack's own header has them when something is read.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::crypto::Cipher;
use crate::error::Error;
use crate::hash::{from_hex, hex};
use crate::pack::{Blob, BlobKind, pack_length};
use crate::store::Store;
use crate::unpacked::{self, Folder};

/// Index files read at once; each may take some 30 MiB while it is parsed.
const FILES_AT_ONCE: usize = 3;

/// Listings before we say that the index does not hold still. A maintenance run replaces its files once.
const LISTINGS: usize = 10;

/// An index file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct IndexFile {
    pub(crate) packs: Vec<IndexPack>,
}

/// A pack and what is in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct IndexPack {
    #[serde(serialize_with = "to_hex", deserialize_with = "of_hex")]
    pub(crate) id: [u8; 32],
    pub(crate) blobs: Vec<IndexBlob>,
}

/// A blob of a pack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct IndexBlob {
    #[serde(serialize_with = "to_hex", deserialize_with = "of_hex")]
    pub(crate) id: [u8; 32],
    #[serde(rename = "type")]
    kind: IndexKind,
    offset: u32,
    length: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uncompressed_length: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum IndexKind {
    Data,
    Tree,
}

fn to_hex<S: Serializer>(id: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(id))
}

fn of_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    from_hex(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not an id")))
}

impl From<&Blob> for IndexBlob {
    fn from(blob: &Blob) -> Self {
        let kind = match blob.kind {
            BlobKind::Data => IndexKind::Data,
            BlobKind::Tree => IndexKind::Tree,
        };
        Self { id: blob.id, kind, offset: blob.offset, length: blob.length, uncompressed_length: blob.plain_length }
    }
}

impl IndexBlob {
    /// What tells it from others.
    pub(crate) fn key(&self) -> (BlobKind, [u8; 32]) {
        let blob = Blob::from(self);
        (blob.kind, blob.id)
    }
}

impl From<&IndexBlob> for Blob {
    fn from(blob: &IndexBlob) -> Self {
        let kind = match blob.kind {
            IndexKind::Data => BlobKind::Data,
            IndexKind::Tree => BlobKind::Tree,
        };
        Self { id: blob.id, kind, offset: blob.offset, length: blob.length, plain_length: blob.uncompressed_length }
    }
}

impl IndexPack {
    pub(crate) fn new(id: [u8; 32], blobs: &[Blob]) -> Self {
        Self { id, blobs: blobs.iter().map(IndexBlob::from).collect() }
    }

    /// Bytes of the whole object.
    pub(crate) fn length(&self) -> u64 {
        pack_length(&self.blobs.iter().map(Blob::from).collect::<Vec<_>>())
    }
}

/// A pack as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PackRef {
    pub(crate) id: [u8; 32],
    /// Length of the object in bytes.
    pub(crate) length: u64,
}

const SHARDS: usize = 1024;
const ENTRY: usize = 20;
type Entry = [u8; ENTRY];

/// Sorted entries, in shards so that adding one moves little.
struct Table {
    shards: Vec<Vec<Entry>>,
}

impl Table {
    fn new() -> Self {
        Self { shards: vec![Vec::new(); SHARDS] }
    }

    fn shard(id: &[u8; 32]) -> usize {
        usize::from(u16::from_be_bytes([id[0], id[1]]) >> 6)
    }

    fn find(&self, id: &[u8; 32]) -> Option<u32> {
        let shard = &self.shards[Self::shard(id)];
        let at = shard.binary_search_by(|entry| entry[..16].cmp(&id[..16])).ok()?;
        let number = shard[at].last_chunk::<4>().expect("an entry has 20 bytes");
        Some(u32::from_le_bytes(*number))
    }

    /// The first pack of a blob stays, unless another one shall take its place.
    fn insert(&mut self, id: &[u8; 32], pack: u32, replaceable: impl Fn(u32) -> bool) {
        let shard = &mut self.shards[Self::shard(id)];
        let at = match shard.binary_search_by(|entry| entry[..16].cmp(&id[..16])) {
            Ok(at) => {
                let number = shard[at].last_chunk_mut::<4>().expect("an entry has 20 bytes");
                if replaceable(u32::from_le_bytes(*number)) {
                    *number = pack.to_le_bytes();
                }
                return;
            }
            Err(at) => at,
        };
        let mut entry = [0; ENTRY];
        entry[..16].copy_from_slice(&id[..16]);
        entry[16..].copy_from_slice(&pack.to_le_bytes());
        if shard.len() == shard.capacity() {
            shard.reserve_exact(shard.len() / 8 + 8); // doubling would waste half the budget of 20 bytes
        }
        shard.insert(at, entry);
    }
}

struct Tables {
    data: Table,
    trees: Table,
    packs: Vec<PackRef>,
    numbers: HashMap<[u8; 32], u32>,
    files: HashSet<[u8; 32]>,
    /// Packs that an index lists and that are not there in full: ids, and numbers of those seen.
    lost: HashSet<[u8; 32]>,
    distrusted: HashSet<u32>,
    /// Packs that a maintenance run is about to remove: ids, and numbers of those seen.
    condemned: HashSet<[u8; 32]>,
    avoided: HashSet<u32>,
    /// Grows whenever something that was known may have stopped to be.
    generation: u64,
}

impl Tables {
    fn without(lost: HashSet<[u8; 32]>) -> Self {
        Self {
            data: Table::new(),
            trees: Table::new(),
            packs: Vec::new(),
            numbers: HashMap::new(),
            files: HashSet::new(),
            lost,
            distrusted: HashSet::new(),
            condemned: HashSet::new(),
            avoided: HashSet::new(),
            generation: 0,
        }
    }

    fn distrust(&mut self, pack: &[u8; 32]) {
        self.lost.insert(*pack);
        if let Some(number) = self.numbers.get(pack) {
            self.distrusted.insert(*number);
        }
    }

    fn avoid(&mut self, condemned: HashSet<[u8; 32]>) {
        self.avoided = condemned.iter().filter_map(|id| self.numbers.get(id).copied()).collect();
        self.condemned = condemned;
    }

    /// Knows nothing of blobs; what is lost and condemned stays so.
    fn emptied(&self) -> Self {
        let mut empty = Self::without(self.lost.clone());
        empty.condemned = self.condemned.clone();
        empty.generation = self.generation + 1;
        empty
    }

    fn add(&mut self, file: [u8; 32], packs: &[IndexPack]) {
        self.files.insert(file);
        for pack in packs {
            let next = u32::try_from(self.packs.len()).expect("fewer than 2^32 packs");
            let number = *self.numbers.entry(pack.id).or_insert(next);
            if number == next {
                self.packs.push(PackRef { id: pack.id, length: pack.length() });
                if self.lost.contains(&pack.id) {
                    self.distrusted.insert(number);
                }
                if self.condemned.contains(&pack.id) {
                    self.avoided.insert(number);
                }
            }
            let (distrusted, avoided) = (&self.distrusted, &self.avoided);
            let replaceable = |number| distrusted.contains(&number) || avoided.contains(&number);
            for blob in &pack.blobs {
                match blob.kind {
                    IndexKind::Data => self.data.insert(&blob.id, number, replaceable),
                    IndexKind::Tree => self.trees.insert(&blob.id, number, replaceable),
                }
            }
        }
    }

    fn table(&self, kind: BlobKind) -> &Table {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }

    fn find(&self, kind: BlobKind, id: &[u8; 32]) -> Option<u32> {
        self.table(kind).find(id).filter(|number| !self.distrusted.contains(number))
    }
}

/// All that the repository's index files say, shared by everything that one process does with the repository.
pub(crate) struct Index {
    tables: RwLock<Tables>,
    renewing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Index(..)")
    }
}

impl Index {
    /// Knows nothing before it is renewed.
    pub(crate) fn new() -> Self {
        Self { tables: RwLock::new(Tables::without(HashSet::new())), renewing: tokio::sync::Mutex::default() }
    }

    /// The pack that holds a blob, for who reads.
    pub(crate) fn find(&self, kind: BlobKind, id: &[u8; 32]) -> Option<PackRef> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.find(kind, id).map(|number| tables.packs[number as usize])
    }

    /// A pack that index files list for a blob, be it there or not, for who wants to say what is lost.
    pub(crate) fn find_even_lost(&self, kind: BlobKind, id: &[u8; 32]) -> Option<PackRef> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.table(kind).find(id).map(|number| tables.packs[number as usize])
    }

    /// The pack that holds a blob, for who wants to refer to it: none that a maintenance run is about to remove.
    pub(crate) fn find_lasting(&self, kind: BlobKind, id: &[u8; 32]) -> Option<PackRef> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let number = tables.find(kind, id).filter(|number| !tables.avoided.contains(number))?;
        Some(tables.packs[number as usize])
    }

    /// Whether an index file lists this pack.
    pub(crate) fn lists(&self, pack: &[u8; 32]) -> bool {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).numbers.contains_key(pack)
    }

    /// Whether a maintenance run is about to remove this pack.
    pub(crate) fn condemns(&self, pack: &[u8; 32]) -> bool {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).condemned.contains(pack)
    }

    /// Another number than before means: something that was known then may not be known or not last any more.
    pub(crate) fn generation(&self) -> u64 {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).generation
    }

    /// Notes which packs, and no others, a maintenance run is about to remove.
    pub(crate) fn avoid(&self, condemned: HashSet<[u8; 32]>) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        if tables.condemned != condemned {
            tables.generation += 1;
            tables.avoid(condemned);
        }
    }

    /// How many packs are known to be gone or too short, whatever index files say.
    pub(crate) fn lost(&self) -> usize {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).lost.len()
    }

    /// Forgets what a pack holds: it is gone or too short, whatever index files say.
    pub(crate) fn distrust(&self, pack: &PackRef) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.generation += 1;
        tables.distrust(&pack.id);
    }

    /// Reads all index files anew, beside what is known: others go on with that until it is replaced. With `keep_distrust`
    /// lost packs stay lost, so that a blob that is in one of these and in another pack is found in the other.
    pub(crate) async fn rebuild(&self, store: &dyn Store, cipher: &Cipher, keep_distrust: bool) -> Result<(), Error> {
        let _one_at_a_time = self.renewing.lock().await;
        let forgiven = match keep_distrust {
            true => HashSet::new(),
            false => self.tables.read().unwrap_or_else(PoisonError::into_inner).lost.clone(),
        };
        for _ in 0..LISTINGS {
            let listed = unpacked::ids(store, Folder::Index).await?;
            if self.read_anew(store, cipher, listed, &forgiven).await? {
                return Ok(());
            }
        }
        Err(Error::IndexUnsteady)
    }

    /// Takes note of an index file that we wrote.
    pub(crate) fn add(&self, file: [u8; 32], packs: &[IndexPack]) {
        self.tables.write().unwrap_or_else(PoisonError::into_inner).add(file, packs);
    }

    /// Lists the index files afresh, reads the new ones, and forgets what vanished ones said.
    pub(crate) async fn renew(&self, store: &dyn Store, cipher: &Cipher) -> Result<(), Error> {
        let _one_at_a_time = self.renewing.lock().await;
        for _ in 0..LISTINGS {
            if self.renew_once(store, cipher).await? {
                return Ok(());
            }
        }
        Err(Error::IndexUnsteady)
    }

    /// `false` when a file vanished between the listing and its turn: what took its place is in the next listing.
    async fn renew_once(&self, store: &dyn Store, cipher: &Cipher) -> Result<bool, Error> {
        // known before the listing: what another writer of this process adds meanwhile has not vanished, it came too late for it
        let before = self.tables.read().unwrap_or_else(PoisonError::into_inner).files.clone();
        let listed: HashSet<_> = unpacked::ids(store, Folder::Index).await?.into_iter().collect();
        let vanished = before.difference(&listed).next().is_some();
        let new: Vec<_> = {
            let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
            listed.difference(&tables.files).copied().collect()
        };
        if !vanished {
            return read_files(store, cipher, new, |id, packs| self.add(id, packs)).await;
        }
        self.read_anew(store, cipher, listed.into_iter().collect(), &HashSet::new()).await
    }

    /// Puts what these index files say in the place of what is known; `false` when one is gone since the listing. Packs
    /// that were lost and are `forgiven` count as there again.
    async fn read_anew(
        &self,
        store: &dyn Store,
        cipher: &Cipher,
        listed: Vec<[u8; 32]>,
        forgiven: &HashSet<[u8; 32]>,
    ) -> Result<bool, Error> {
        let mut fresh = self.tables.read().unwrap_or_else(PoisonError::into_inner).emptied();
        fresh.lost.retain(|pack| !forgiven.contains(pack));
        let complete = read_files(store, cipher, listed, |id, packs| fresh.add(id, packs)).await?;
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        // what was learnt about packs while the files were read
        fresh.generation = tables.generation + 1;
        tables.lost.iter().filter(|pack| !forgiven.contains(*pack)).for_each(|pack| fresh.distrust(pack));
        fresh.avoid(std::mem::take(&mut tables.condemned));
        *tables = fresh;
        Ok(complete)
    }
}

/// Reads index files a few at a time; `false` when one is gone since the listing.
pub(crate) async fn read_files(
    store: &dyn Store,
    cipher: &Cipher,
    ids: Vec<[u8; 32]>,
    mut each: impl FnMut([u8; 32], &[IndexPack]),
) -> Result<bool, Error> {
    let read = |id: [u8; 32]| async move {
        let file: Option<IndexFile> = unpacked::load(store, cipher, Folder::Index, &id).await?;
        Ok::<_, Error>(file.map(|file| (id, file)))
    };
    let mut files = stream::iter(ids).map(read).buffer_unordered(FILES_AT_ONCE);
    let mut complete = true;
    while let Some(file) = files.try_next().await? {
        match file {
            Some((id, file)) => each(id, &file.packs),
            None => complete = false,
        }
    }
    Ok(complete)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;
    use crate::hash::sha256;

    fn id(n: u32) -> [u8; 32] {
        sha256(&n.to_le_bytes())
    }

    fn pack(number: u32, blobs: std::ops::Range<u32>) -> IndexPack {
        let blob = |n| Blob { id: id(n), kind: BlobKind::Data, offset: 0, length: 40, plain_length: None };
        IndexPack::new(id(1_000_000 + number), &blobs.map(blob).collect::<Vec<_>>())
    }

    #[test]
    fn a_chunk_is_found_in_the_pack_that_holds_it_and_no_other_is_found() {
        let index = Index::new();
        for number in 0..100 {
            index.add(id(2_000_000 + number), &[pack(number, number * 50..number * 50 + 50)]);
        }
        for n in 0..5000 {
            assert_eq!(index.find(BlobKind::Data, &id(n)).unwrap().id, id(1_000_000 + n / 50));
        }
        assert_eq!(index.find(BlobKind::Data, &id(5000)), None);
        assert_eq!(index.find(BlobKind::Tree, &id(1)), None, "a tree is not a chunk");
        let mut near = id(7);
        near[15] ^= 1;
        assert_eq!(index.find(BlobKind::Data, &near), None, "all of the 16 bytes count");
    }

    #[test]
    fn the_table_takes_twenty_bytes_a_chunk_and_an_eighth_to_grow() {
        let mut table = Table::new();
        for n in 0..200_000 {
            table.insert(&id(n), 1, |_| false);
        }
        let bytes: usize = table.shards.iter().map(|shard| shard.capacity() * ENTRY).sum();
        assert!(bytes < 200_000 * 24, "{bytes} bytes");
    }
}
