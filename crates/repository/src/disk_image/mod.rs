//! A disk inside a restic repository: its layout, its writer, its check and its reader.

mod check;
mod checkpoint;
mod commit;
mod compress;
mod fetch;
mod folders;
mod image;
mod layout;
mod packer;
mod reader;
mod resume;
mod writer;

pub use fetch::{Fetch, ReadChunk, Unread};
pub(crate) use image::facts;
pub use layout::{CHUNK_SIZE, ChunkRef, DiskFacts, EXTENT_SIZE};
#[cfg(fuzzing)]
pub(crate) use layout::{DiskDocument, Layout};
pub(crate) use packer::INDEX_BLOBS;
pub(crate) use reader::Opening;
pub use reader::Reader;
pub(crate) use resume::{forget as forget_transfer, sweep as sweep_transfers};
pub use writer::{TakeOver, Writer, WriterOptions, WriterStats};
