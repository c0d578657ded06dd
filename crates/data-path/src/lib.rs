//! The copy engine: a disk behind NBD into a restore point, a restore point onto a disk, and whether the two match.
//!
//! [`backup()`], [`restore()`] and [`verify()`] move the bytes between a [`Disk`] and the repository's writer and reader,
//! `restore` also from the original's layout (any [`Source`]);
//! [`Progress`] may be read meanwhile. Memory is bounded by the constants in [`limits`], every wait ends by the NBD
//! client's and the store's deadlines, and a cancelled token ends a transfer within seconds.
//!
//! This crate knows neither vCenter nor Kubernetes, and retries nothing: who started a transfer decides that. Only a server
//! that has no memory for more requests is asked for less at a time, and again.
//!
//! ```no_run
//! use data_path::{BackupOptions, Disk, Progress};
//! use repository::{DiskFacts, NewRestorePoint, Repository, WriterOptions};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(repository: Repository) -> Result<(), Box<dyn std::error::Error>> {
//! let disk = Disk::connect(&"nbd+unix:///?socket=/run/disk.sock".parse()?, nbd::ConnectOptions::default()).await?;
//! let point = NewRestorePoint::new("host", "/disk", jiff::Timestamp::now(), DiskFacts::of_size(disk.size()));
//! let writer = repository.writer(point, WriterOptions::default()).await?;
//! let (progress, cancel) = (Progress::new(), CancellationToken::new());
//! let report = data_path::backup(&disk, writer, &BackupOptions::default(), &progress, &cancel).await?;
//! println!("{}: {} bytes read, {} stored", report.point.id, report.counts.read, report.counts.stored);
//! # Ok(())
//! # }
//! ```

mod backup;
mod checkpoint;
mod content;
mod disk_access;
mod error;
pub mod limits;
mod original;
mod progress;
mod restore;
mod retreat;
mod select;
mod source;
mod throttle;
mod verify;
mod waits;

pub use backup::{BackupOptions, BackupReport, backup};
pub use checkpoint::{Checkpoint, Checkpoints, Unfit};
pub use content::Content;
pub use disk_access::Disk;
pub use error::{Error, ErrorKind};
pub use original::{OriginalReport, back_up_as_original};
pub use progress::{Counts, Progress};
pub use restore::{RestoreOptions, RestoreReport, TargetContent, restore};
pub use source::Source;
pub use throttle::Throttle;
pub use verify::{VerifyReport, verify};
pub use waits::Waits;
