//! Reads the trees of a restore point back and checks that they are a disk as we write it.

use super::folders::{digest_of, disk_digest};
use super::layout::{DiskDocument, DiskFacts, FOLDER_SIZE, Layout, SCHEMA, extent_name, folder_name};
use crate::error::{Damage, Error};
use crate::hash::{ChunkId, hex};
use crate::nearby::Nearby;
use crate::pack::BlobKind;
use crate::repository::Repository;
use crate::tree::{Node, Tree};

/// Names in the root of a restore point.
pub(super) const DOCUMENT: &str = "disk.json";
pub(super) const EXTENTS: &str = "extents";

/// `/disk.json` and the list of folders.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// What messages call the restore point.
    name: String,
    pub(super) document: DiskDocument,
    pub(super) layout: Layout,
    /// Trees of the folders in disk order.
    pub(super) folders: Vec<[u8; 32]>,
}

/// What `/disk.json` says of the disk, and the bytes of its chunks. `name` is what messages call the restore point.
pub(crate) async fn facts(repository: &Repository, name: &str, root: &[u8; 32]) -> Result<(DiskFacts, u64), Error> {
    let image = Image::read(&mut Nearby::new(repository), name, root).await?;
    Ok((image.document.facts, image.document.chunk_size))
}

fn odd(name: &str, cause: impl Into<String>) -> Error {
    Error::damaged("read a restore point", Damage::Image { point: name.to_owned(), cause: cause.into() })
}

async fn tree(blobs: &mut Nearby<'_>, name: &str, id: &[u8; 32]) -> Result<Tree, Error> {
    let text = blobs.blob(BlobKind::Tree, id).await?;
    Tree::parse(&text).map_err(|cause| odd(name, format!("tree {} cannot be read: {cause}", hex(id))))
}

impl Image {
    /// Reads the root, `/disk.json` and the list of folders. `name` is what messages call the restore point.
    pub(super) async fn read(blobs: &mut Nearby<'_>, name: &str, root: &[u8; 32]) -> Result<Self, Error> {
        let root = tree(blobs, name, root).await?;
        let node = root.node(DOCUMENT).ok_or_else(|| odd(name, "it has no /disk.json"))?;
        let document_chunks = node.chunks().ok_or_else(|| odd(name, "/disk.json has a chunk without id"))?;
        let mut text = Vec::new();
        for chunk in &document_chunks {
            text.extend(blobs.blob(BlobKind::Data, &chunk.0).await?);
        }
        let document: DiskDocument =
            serde_json::from_slice(&text).map_err(|cause| odd(name, format!("/disk.json cannot be read: {cause}")))?;
        if document.schema != SCHEMA {
            return Err(odd(name, format!("/disk.json has schema {} and not {SCHEMA}", document.schema)));
        }
        let layout = Layout::new(document.facts.size_bytes, document.chunk_size, document.extent_size);
        let layout = layout.map_err(|cause| odd(name, format!("/disk.json speaks of {cause}")))?;
        let extents = root.node(EXTENTS).and_then(Node::subtree).ok_or_else(|| odd(name, "it has no /extents"))?;
        let listed = tree(blobs, name, &extents).await?;
        let names = listed.nodes.iter().map(|node| node.name.as_str());
        if !names.eq((0..layout.folder_count()).map(folder_name)) {
            return Err(odd(name, "folders are missing or too many in /extents"));
        }
        let folders: Option<Vec<_>> = listed.nodes.iter().map(Node::subtree).collect();
        let folders = folders.ok_or_else(|| odd(name, "a folder in /extents has no tree"))?;
        Ok(Self { name: name.to_owned(), document, layout, folders })
    }

    /// Reads the chunks' ids folder by folder, and hands each folder's to `each`, or why they cannot be read: `each` says
    /// whether that ends it. Ends with a check of the digest, if all could be read.
    pub(super) async fn read_folders(
        &self,
        blobs: &mut Nearby<'_>,
        mut each: impl FnMut(u64, Result<&[ChunkId], Error>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut last: Option<([u8; 32], u64, Vec<ChunkId>)> = None;
        let mut damaged: Option<([u8; 32], String, Damage)> = None; // many folders of a thin disk share a tree
        let mut digests = Vec::with_capacity(self.folders.len());
        for (id, number) in self.folders.iter().zip(0_u64..) {
            let size = self.layout.folder_chunks(number);
            let again =
                |(known, length, _): &([u8; 32], u64, Vec<ChunkId>)| known == id && *length == size.end - size.start;
            if let Some((known, act, damage)) = &damaged
                && known == id
            {
                each(number, Err(Error::damaged(act, damage.clone())))?;
                continue;
            }
            if !last.as_ref().is_some_and(again) {
                match self.read_folder(blobs, number, id).await {
                    Ok(ids) => last = Some((*id, size.end - size.start, ids)),
                    Err(error) => {
                        if let Error::Damaged { act, source } = &error {
                            damaged = Some((*id, act.clone(), source.clone()));
                        }
                        each(number, Err(error))?;
                        continue;
                    }
                }
            }
            let (_, _, ids) = last.as_ref().expect("it was just set");
            digests.push(digest_of(ids));
            each(number, Ok(ids))?;
        }
        if digests.len() < self.folders.len() {
            return Ok(()); // whoever goes on behind a damaged folder has been told
        }
        let digest = hex(&disk_digest(digests.into_iter()));
        if digest != self.document.digest {
            return Err(odd(&self.name, "its chunks are not those that /disk.json was written for"));
        }
        Ok(())
    }

    async fn read_folder(&self, blobs: &mut Nearby<'_>, number: u64, id: &[u8; 32]) -> Result<Vec<ChunkId>, Error> {
        let odd = |cause: &str| odd(&self.name, format!("/extents/{}: {cause}", folder_name(number)));
        let listed = tree(blobs, &self.name, id).await?;
        let (start, end) = (number * FOLDER_SIZE, ((number + 1) * FOLDER_SIZE).min(self.layout.size));
        let mut nodes = listed.nodes.iter();
        let mut ids = Vec::new();
        let mut offset = start;
        while offset < end {
            let size = self.layout.extent_size.min(end - offset);
            let node = nodes.next().filter(|node| node.name == extent_name(offset) && node.size == size);
            let chunks =
                node.and_then(Node::chunks).filter(|c| c.len() as u64 == size.div_ceil(self.layout.chunk_size));
            ids.extend(chunks.ok_or_else(|| odd(&format!("extent {} is not as it should be", extent_name(offset))))?);
            offset += size;
        }
        if nodes.next().is_some() {
            return Err(odd("there are more extents than the disk has"));
        }
        Ok(ids)
    }
}
