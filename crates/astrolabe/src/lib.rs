//! The original's layout in a bucket: one disk as raw bytes in segments, a description in XML, and a `peinfo` object that
//! makes both a backup.
//!
//! A [`Tree`] is the original's folder of one bucket. It finds a backup by its disk snapshot, opens it as an [`OldDisk`],
//! which refuses whatever is not whole, deletes it, and begins a [`Writer`] of a new one. What the objects are called and
//! hold is pure ([`Keys`], [`Peinfo`], [`Description`], [`Segments`]); all of it goes through the bucket of the `repository`
//! crate.
//!
//! ```no_run
//! # async fn example(bucket: repository::store::S3Store) -> Result<(), Box<dyn std::error::Error>> {
//! use astrolabe::{Address, Tree};
//!
//! let prefixes = vec!["plugins/vsphere-astrolabe-repo".to_owned()];
//! let tree = Tree::new(bucket, Address { bucket: "backups".to_owned(), host: String::new(), prefixes });
//! let snapshot = "2b6d0f5e-1c3a-4e57-9d1b-0a8c6f3e7d42:c9f1d7aa-60b2-4c1e-8f3d-5e2b9a714c06".parse()?;
//! if let Some(disk) = tree.open(&snapshot).await? {
//!     let first = disk.read(disk::ByteRange::new(0, 1 << 20)).await?;
//!     println!("{} bytes, of which the first is {}", disk.size(), first[0]);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! This crate knows no disk protocol, no cluster and no vCenter.

mod description;
mod error;
mod keys;
mod old_disk;
mod peinfo;
mod segments;
mod tree;
mod writer;

pub use description::Description;
pub use error::{Broken, Error};
pub use keys::Keys;
pub use old_disk::OldDisk;
pub use peinfo::Peinfo;
pub use segments::{Segment, Segments};
pub use tree::{Address, Removed, Tree};
pub use writer::{Cut, OpenSegment, Writer};
