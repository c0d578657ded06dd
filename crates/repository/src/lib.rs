//! Restore points of disks in a restic repository (format version 2), in object storage or in a folder.
//!
//! [`open`] or [`initialise()`] give a [`Repository`]; its [`Writer`] takes the chunks of one disk and commits them as one
//! restore point, its [`Reader`] gives them back verified. What the objects are called and how they are encrypted is
//! restic's documented format, so `restic` itself can list, check and read everything written here
//! (`docs/repository.md` says how a disk lies in it, and in which order things are written).
//!
//! This crate knows no disk protocol, no cluster and no vCenter. Below it there is only a [`store::Store`].
//!
//! ```
//! use std::sync::Arc;
//! use bytes::Bytes;
//! use repository::{DiskFacts, NewRestorePoint, WriterOptions, store::FolderStore};
//!
//! # #[tokio::main(flavor = "multi_thread", worker_threads = 2)]
//! # async fn main() -> Result<(), repository::Error> {
//! # let folder = tempfile::tempdir().expect("a temporary folder");
//! let store = Arc::new(FolderStore::new(folder.path()));
//! let repository = repository::initialise(store, &"not so secret".into()).await?;
//!
//! let disk = DiskFacts::of_size(1 << 20);
//! let point = NewRestorePoint::new("this-machine", "/var/lib/disk.raw", jiff::Timestamp::now(), disk);
//! let writer = repository.writer(point, WriterOptions::default()).await?;
//! writer.put_zero(0..1).await?;
//! writer.put_chunk(1, Bytes::from(vec![7; 512 * 1024])).await?;
//! let written = writer.commit().await?;
//!
//! let reader = repository.reader(&written.id).await?;
//! assert_eq!(reader.read_chunk(1).await?[..4], [7; 4]);
//! # Ok(())
//! # }
//! ```

mod config;
mod crypto;
mod disk_image;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hash;
mod index;
mod initialise;
mod keys;
mod location;
mod lock;
pub mod maintenance;
mod nearby;
mod pack;
mod repository;
mod restore_point;
pub mod store;
mod tree;
mod unpacked;
mod zero;

pub use disk_image::{
    CHUNK_SIZE, ChunkRef, DiskFacts, EXTENT_SIZE, Fetch, ReadChunk, Reader, TakeOver, Unread, Writer, WriterOptions,
    WriterStats,
};
pub use error::{Damage, Error, ErrorKind};
pub use hash::ChunkId;
pub use initialise::{initialise, open};
pub use keys::Untried;
pub use location::{Credentials, InvalidLocation, Location, S3Options};
pub use lock::{Lock, NoRival};
pub use maintenance::{MaintenanceOptions, Report};
pub use repository::{Points, Repository};
pub use restore_point::{NewRestorePoint, ParseRestorePointIdError, RestorePoint, RestorePointId};
pub use zero::is_zero;
