//! How a disk is cut: chunks, extents, folders, and what `/disk.json` says.
//!
//! Pure arithmetic and text. The first backup froze it: a change here must keep reading what is out there.

use disk::{ByteRange, ChangeId, DiskSnapshot};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::hash::ChunkId;

/// Bytes of a chunk in new restore points (`docs/decisions/0002-chunk-size.md`). Others are read as well.
pub const CHUNK_SIZE: u64 = 512 << 10;

/// Bytes of an extent: one file of the snapshot's tree.
pub const EXTENT_SIZE: u64 = 16 << 20;

/// Bytes of a folder below `/extents`: 256 extents.
pub(crate) const FOLDER_SIZE: u64 = 1 << 32;

/// Version of `/disk.json` written here.
pub(crate) const SCHEMA: u32 = 1;

/// What a chunk of a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkRef {
    /// All bytes zero.
    Zero,
    /// This content.
    Data(ChunkId),
    /// Nobody knows: the tree that names it is damaged. Only in a restore point that was opened despite damage.
    Unknown,
}

/// What is known about a disk when its restore point is made, for whoever looks for a base or a restore target later.
/// Everything but the size is optional: the command line knows no vSphere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskFacts {
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// The disk and the snapshot of it that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<DiskSnapshot>,
    /// When vSphere created the disk; another disk may get the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_time: Option<Timestamp>,
    /// vSphere's datastore id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// vSphere's path of the backing file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_path: Option<String>,
    /// vSphere's id of the backing object (vSAN, vVol).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing_object_id: Option<String>,
    /// Where the disk's change tracking stood at the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_id: Option<ChangeId>,
    /// When the disk was last read without asking what changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_read: Option<Timestamp>,
    /// Restore points in a row that rest on change tracking, this one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracked_in_a_row: Option<u32>,
    /// Which vCenter, by its instance id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcenter: Option<String>,
    /// Namespace of the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Name of the Snapshot object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_object: Option<String>,
    /// How the content was found: `full`, `changed-areas`, …; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_found: Option<String>,
}

impl DiskFacts {
    /// A disk of which nothing but its size in bytes is known.
    pub fn of_size(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            snapshot: None,
            create_time: None,
            datastore: None,
            file_path: None,
            backing_object_id: None,
            change_id: None,
            full_read: None,
            tracked_in_a_row: None,
            vcenter: None,
            namespace: None,
            claim: None,
            snapshot_object: None,
            content_found: None,
        }
    }
}

/// `/disk.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DiskDocument {
    pub(crate) schema: u32,
    pub(crate) chunk_size: u64,
    pub(crate) extent_size: u64,
    /// SHA-256 over the folders' digests in disk order, each the SHA-256 over its chunks' ids (32 bytes each) in disk
    /// order. By folder, so that a folder finished early needs no ids kept.
    pub(crate) digest: String,
    #[serde(flatten)]
    pub(crate) facts: DiskFacts,
}

/// No file is longer (`off_t`), and no offset on the way to a disk's end overflows.
const LARGEST: u64 = i64::MAX.unsigned_abs();

/// How one disk is cut into chunks, extents and folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) size: u64,
    pub(crate) chunk_size: u64,
    pub(crate) extent_size: u64,
}

impl Layout {
    /// `Err` says what does not fit.
    pub(crate) fn new(size: u64, chunk_size: u64, extent_size: u64) -> Result<Self, String> {
        if size == 0 || size > LARGEST {
            return Err(format!("a disk of {size} bytes"));
        }
        let power = |n: u64| n.is_power_of_two();
        if !power(chunk_size) || !(4096..=EXTENT_SIZE).contains(&chunk_size) {
            return Err(format!("chunks of {chunk_size} bytes"));
        }
        if !power(extent_size) || !(chunk_size..=FOLDER_SIZE).contains(&extent_size) {
            return Err(format!("extents of {extent_size} bytes with chunks of {chunk_size}"));
        }
        Ok(Self { size, chunk_size, extent_size })
    }

    pub(crate) fn chunk_count(&self) -> u64 {
        self.size.div_ceil(self.chunk_size)
    }

    pub(crate) fn chunk_range(&self, index: u64) -> ByteRange {
        let start = index * self.chunk_size;
        ByteRange::between(start, (start + self.chunk_size).min(self.size))
    }

    pub(crate) fn folder_count(&self) -> u64 {
        self.size.div_ceil(FOLDER_SIZE)
    }

    pub(crate) fn chunks_per_folder(&self) -> u64 {
        FOLDER_SIZE / self.chunk_size
    }

    pub(crate) fn chunks_per_extent(&self) -> u64 {
        self.extent_size / self.chunk_size
    }

    pub(crate) fn folder_of(&self, index: u64) -> u64 {
        index / self.chunks_per_folder()
    }

    /// The chunks of a folder.
    pub(crate) fn folder_chunks(&self, folder: u64) -> std::ops::Range<u64> {
        let first = folder * self.chunks_per_folder();
        first..(first + self.chunks_per_folder()).min(self.chunk_count())
    }

    /// Whether the last chunk is shorter than the others.
    pub(crate) fn short_tail(&self) -> Option<u64> {
        Some(self.size % self.chunk_size).filter(|rest| *rest != 0)
    }
}

/// `XXXX`: bits 32 and up of the offset.
pub(crate) fn folder_name(folder: u64) -> String {
    format!("{folder:04x}")
}

/// `YYYYYYYY`: the low 32 bits of the offset.
pub(crate) fn extent_name(offset: u64) -> String {
    format!("{:08x}", offset & (FOLDER_SIZE - 1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    #[test]
    fn names_sort_like_offsets_so_that_tar_gives_the_disk_in_order() {
        assert_eq!(folder_name(0), "0000");
        assert_eq!(folder_name(0x1ff), "01ff");
        assert_eq!(extent_name(EXTENT_SIZE), "01000000");
        assert_eq!(extent_name(FOLDER_SIZE + 255 * EXTENT_SIZE), "ff000000");
        let names: Vec<_> = (0..256).map(|n| extent_name(n * EXTENT_SIZE)).collect();
        assert!(names.is_sorted());
    }

    #[test]
    fn every_byte_of_a_disk_is_in_exactly_one_chunk() {
        for size in [1, 4096, 1 << 20, (17 << 20) + 512, FOLDER_SIZE, FOLDER_SIZE + 1] {
            let layout = Layout::new(size, CHUNK_SIZE, EXTENT_SIZE).unwrap();
            let mut at = 0;
            for index in 0..layout.chunk_count() {
                assert_eq!(layout.chunk_range(index).offset, at);
                assert!(!layout.chunk_range(index).is_empty());
                at = layout.chunk_range(index).end();
            }
            assert_eq!(at, size);
            assert_eq!(layout.folder_chunks(layout.folder_count() - 1).end, layout.chunk_count());
        }
    }

    #[test]
    fn a_layout_that_nobody_could_read_is_refused() {
        for (size, chunk, extent) in [(0, CHUNK_SIZE, EXTENT_SIZE), (1, 3000, EXTENT_SIZE), (1, 8192, 4096), (1, 0, 0)]
        {
            assert!(Layout::new(size, chunk, extent).is_err());
        }
    }

    #[test]
    fn a_disk_larger_than_any_file_is_refused_and_the_largest_one_has_an_end() {
        for size in [0, LARGEST + 1, u64::MAX] {
            let why = Layout::new(size, CHUNK_SIZE, EXTENT_SIZE).unwrap_err();
            assert_eq!(why, format!("a disk of {size} bytes"));
        }
        let largest = Layout::new(LARGEST, CHUNK_SIZE, EXTENT_SIZE).unwrap();
        assert_eq!(largest.chunk_range(largest.chunk_count() - 1).end(), LARGEST);
        assert_eq!(largest.folder_chunks(largest.folder_count() - 1).end, largest.chunk_count());
    }
}
