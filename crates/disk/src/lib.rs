//! What every crate may name: disk and snapshot ids, and byte ranges with their algebra.
//!
//! The main types are [`DiskSnapshot`] (one disk at one moment held by vSphere), [`ByteRange`] and [`Ranges`].
//! This crate knows no protocol, no cluster and no clock.
//!
//! ```
//! use disk::{ByteRange, DiskSnapshot, Ranges};
//!
//! let snapshot: DiskSnapshot = "2b6d0f5e:c9f1d7aa".parse()?;
//! assert_eq!(snapshot.disk.as_str(), "2b6d0f5e");
//!
//! let allocated = Ranges::from_iter([ByteRange::new(0, 4096), ByteRange::new(4096, 4096)]);
//! assert_eq!(allocated.iter().collect::<Vec<_>>(), [ByteRange::new(0, 8192)]);
//! # Ok::<(), disk::ParseIdError>(())
//! ```

mod ids;
mod ranges;

pub use ids::{ChangeId, DiskId, DiskSnapshot, DiskSnapshotId, ParseIdError};
pub use ranges::{ByteRange, Ranges};
