//! What `tests/fuzz` reaches of the private parts of this crate. Built for it alone.
//!
//! What lies in a bucket is sealed, so a stranger's bytes end at the seal. Who has the key may still be another program, or an earlier
//! or later one of ours: whatever is below the seal must be read without a panic.

use std::sync::LazyLock;

use crate::config::Config;
use crate::crypto::{Cipher, MasterKey};
use crate::disk_image::{DiskDocument, Layout};
use crate::index::{Index, IndexFile};
use crate::lock::LockFile;
use crate::pack::{self, pack_length};
use crate::restore_point::{RestorePointId, SnapshotFile};
use crate::tree::Tree;
use crate::{hash, unpacked};

static CIPHER: LazyLock<Cipher> = LazyLock::new(|| Cipher::new(&[7; 64]));

/// A document as `unpacked` reads it: compressed or plain, of each kind.
pub fn document(plain: &[u8]) {
    let sealed = CIPHER.seal(plain);
    if let Ok(file) = unpacked::unseal::<IndexFile>(&CIPHER, "index/x", &sealed) {
        let index = Index::new();
        index.add([1; 32], &file.packs);
        for pack in &file.packs {
            let _ = pack.length();
            for blob in &pack.blobs {
                let (kind, id) = blob.key();
                let _ = (index.find(kind, &id), index.find_lasting(kind, &id));
            }
        }
    }
    if let Ok(file) = unpacked::unseal::<SnapshotFile>(&CIPHER, "snapshots/x", &sealed) {
        let _ = file.clone().tagged(&[("backup", "nightly")]);
        let id: RestorePointId = hash::hex(&[1; 32]).parse().expect("an id");
        let _ = file.restore_point(id).map(|point| point.identity());
    }
    if let Ok(file) = unpacked::unseal::<LockFile>(&CIPHER, "locks/x", &sealed) {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let _ = (file.keeps_us_out(now), file.keeps_maintenance_out(now), file.is_transfers(now));
    }
    let _ = Config::open(&sealed, &CIPHER);
}

/// What is JSON below the seal and not a document of its own: folders, `/disk.json`, a key.
pub fn json(text: &[u8]) {
    if let Ok(tree) = Tree::parse(text) {
        for node in &tree.nodes {
            let _ = (node.chunks(), node.subtree(), node.refers_to(), tree.node(&node.name));
        }
    }
    if let Ok(key) = serde_json::from_slice::<MasterKey>(text) {
        let _ = key.cipher();
    }
    if let Ok(disk) = serde_json::from_slice::<DiskDocument>(text)
        && let Ok(layout) = Layout::new(disk.facts.size_bytes, disk.chunk_size, disk.extent_size)
    {
        let last = layout.chunk_count() - 1;
        assert_eq!(layout.chunk_range(last).end(), layout.size);
        let _ = (layout.folder_chunks(layout.folder_of(last)), layout.short_tail(), layout.chunks_per_extent());
        assert_eq!(layout.folder_of(last) + 1, layout.folder_count());
    }
}

/// The header of a pack, opened, and the end of a pack as it lies there.
pub fn pack(header: &[u8]) {
    let _ = pack::header_size(header);
    if let Ok(blobs) = pack::decode_header(header) {
        let _ = pack_length(&blobs);
        assert_eq!(pack::encode_header(&blobs), header, "what is read is all that was there");
    }
}
