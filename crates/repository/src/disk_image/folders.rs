//! Which chunks of a disk are settled, folder by folder. A finished folder keeps its tree's id only, so a writer holds
//! the ids of the folders it is working on and not of the whole disk.
//!
//! Pure bookkeeping: stores nothing.

use std::ops::Range;

use super::layout::{Layout, extent_name};
use crate::hash::{ChunkId, Hasher, sha256};
use crate::tree::TreeText;

/// One folder of 4 GiB.
enum Folder {
    Untouched,
    Filling {
        ids: Vec<Option<ChunkId>>,
        left: usize,
    },
    /// Its tree is being made.
    Closing,
    Done(ClosedFolder),
}

/// What is left of a folder all of whose chunks are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClosedFolder {
    /// Id of its tree.
    pub(super) tree: [u8; 32],
    /// SHA-256 over its chunks' ids.
    pub(super) digest: [u8; 32],
}

/// A folder that has just been completed; make its tree with [`tree_of`], store it, then [`Folders::close`].
#[derive(Debug)]
pub(super) struct FullFolder {
    pub(super) folder: u64,
    pub(super) ids: Vec<ChunkId>,
}

/// All folders of a disk.
pub(super) struct Folders {
    layout: Layout,
    folders: Vec<Folder>,
}

/// How a chunk was found when it was to be settled.
#[derive(Debug)]
pub(super) enum Settled {
    /// It was open and is now settled; `full` when that completed its folder.
    Now { full: Option<FullFolder> },
    /// Its folder is closed already: someone sends it again.
    Before,
    /// It is settled, and its folder is still open: the caller has mixed something up.
    Twice,
}

impl Folders {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, folders: (0..layout.folder_count()).map(|_| Folder::Untouched).collect() }
    }

    fn folder_mut(&mut self, folder: u64) -> &mut Folder {
        &mut self.folders[usize::try_from(folder).expect("a disk has far fewer folders than memory has bytes")]
    }

    /// Settles chunks of one folder that all have the same content.
    pub(super) fn settle(&mut self, chunks: Range<u64>, id: ChunkId) -> Settled {
        let number = self.layout.folder_of(chunks.start);
        let all = self.layout.folder_chunks(number);
        let size = usize::try_from(all.end - all.start).expect("a folder has at most a million chunks");
        let folder = self.folder_mut(number);
        if let Folder::Untouched = folder {
            *folder = Folder::Filling { ids: vec![None; size], left: size };
        }
        let Folder::Filling { ids, left } = folder else { return Settled::Before };
        let at = |index: u64| usize::try_from(index - all.start).expect("within the folder");
        let places = &mut ids[at(chunks.start)..at(chunks.end)];
        if places.iter().any(Option::is_some) {
            return Settled::Twice;
        }
        places.fill(Some(id));
        *left -= places.len();
        if *left > 0 {
            return Settled::Now { full: None };
        }
        let Folder::Filling { ids, .. } = std::mem::replace(folder, Folder::Closing) else { unreachable!("just seen") };
        let ids = ids.into_iter().map(|id| id.expect("none is left")).collect();
        Settled::Now { full: Some(FullFolder { folder: number, ids }) }
    }

    /// Notes the tree of a full folder.
    pub(super) fn close(&mut self, folder: u64, closed: ClosedFolder) {
        *self.folder_mut(folder) = Folder::Done(closed);
    }

    /// Forgets what a closed folder was made of, so that all of its chunks can come again. Gives its chunks.
    pub(super) fn reopen(&mut self, folder: u64) -> Range<u64> {
        *self.folder_mut(folder) = Folder::Untouched;
        self.layout.folder_chunks(folder)
    }

    /// All folders in disk order; `Err` is the first chunk that never came.
    pub(super) fn closed(&self) -> Result<Vec<ClosedFolder>, u64> {
        let closed = |(folder, number): (&Folder, u64)| match folder {
            Folder::Done(closed) => Ok(*closed),
            Folder::Filling { ids, .. } => {
                let missing = ids.iter().position(Option::is_none).unwrap_or_default();
                Err(self.layout.folder_chunks(number).start + missing as u64)
            }
            Folder::Untouched | Folder::Closing => Err(self.layout.folder_chunks(number).start),
        };
        self.folders.iter().zip(0..).map(closed).collect()
    }
}

/// The tree of a folder and its digest.
pub(super) fn tree_of(layout: &Layout, full: &FullFolder) -> (Vec<u8>, ClosedFolder) {
    let per_extent = usize::try_from(layout.chunks_per_extent()).expect("an extent has at most a million chunks");
    let mut offset = layout.folder_chunks(full.folder).start * layout.chunk_size;
    let mut text = TreeText::new();
    for extent in full.ids.chunks(per_extent) {
        let size = layout.extent_size.min(layout.size - offset);
        text.file(&extent_name(offset), size, extent.iter());
        offset += size;
    }
    let text = text.finish();
    let tree = sha256(&text);
    (text, ClosedFolder { tree, digest: digest_of(&full.ids) })
}

/// SHA-256 over the ids of a folder's chunks.
pub(super) fn digest_of(ids: &[ChunkId]) -> [u8; 32] {
    let mut hasher = Hasher::new();
    ids.iter().for_each(|id| hasher.update(&id.0));
    hasher.finish()
}

/// SHA-256 over the digests of all folders.
pub(super) fn disk_digest(folders: impl Iterator<Item = [u8; 32]>) -> [u8; 32] {
    let mut hasher = Hasher::new();
    folders.for_each(|digest| hasher.update(&digest));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::super::layout::{CHUNK_SIZE, EXTENT_SIZE, FOLDER_SIZE};
    use super::*;

    const ID: ChunkId = ChunkId([7; 32]);

    #[test]
    fn a_disk_is_complete_only_when_every_chunk_came() {
        let layout = Layout::new(FOLDER_SIZE + 1, CHUNK_SIZE, EXTENT_SIZE).unwrap();
        let mut folders = Folders::new(layout);
        assert!(matches!(folders.settle(1..8192, ID), Settled::Now { full: None }));
        assert_eq!(folders.closed().unwrap_err(), 0);
        assert!(matches!(folders.settle(5..6, ID), Settled::Twice));
        let Settled::Now { full: Some(full) } = folders.settle(0..1, ID) else { panic!("it is full now") };
        folders.close(0, tree_of(&layout, &full).1);
        assert_eq!(folders.closed().unwrap_err(), 8192);
        assert!(matches!(folders.settle(5..6, ID), Settled::Before));
        let Settled::Now { full: Some(full) } = folders.settle(8192..8193, ID) else { panic!("it is full now") };
        folders.close(1, tree_of(&layout, &full).1);
        assert_eq!(folders.closed().unwrap().len(), 2);
    }

    #[test]
    fn all_empty_folders_are_one_tree() {
        let layout = Layout::new(2 * FOLDER_SIZE, CHUNK_SIZE, EXTENT_SIZE).unwrap();
        let tree = |folder| tree_of(&layout, &FullFolder { folder, ids: vec![ID; 8192] }).1.tree;
        assert_eq!(tree(0), tree(1));
    }
}
