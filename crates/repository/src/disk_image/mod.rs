//! A disk inside a restic repository: its layout, its writer, its check and its reader.

mod check;
mod commit;
mod compress;
mod folders;
mod image;
mod layout;
mod packer;
mod reader;
mod writer;

pub(crate) use image::facts;
pub use layout::{CHUNK_SIZE, ChunkRef, DiskFacts, EXTENT_SIZE};
pub(crate) use packer::INDEX_BLOBS;
pub(crate) use reader::Opening;
pub use reader::{Fetch, ReadChunk, Reader, Unread};
pub use writer::{TakeOver, Writer, WriterOptions, WriterStats};
