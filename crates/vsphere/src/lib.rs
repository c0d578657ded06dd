//! A small typed client for what a backup needs of vCenter: first-class disks, their snapshots and change tracking, and CNS
//! volumes.
//!
//! [`Vcenter`] is the client: cheap to clone, one session per process. [`Config`] says which server, who we are and
//! what is trusted; [`secret::parse`] reads it from the Secret that the CSI driver uses. [`Error`] says what was being
//! done, why it failed, whether another try helps ([`Error::recovery`]) and what to change ([`Error::fix`]).
//!
//! This crate knows no cluster and moves no bytes of disks. It speaks SOAP to three endpoints (`/sdk`, `/vslm/sdk`,
//! `/vsanHealth`) and is the only place that knows so.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! let text = std::fs::read_to_string("csi-vsphere.conf")?;
//! let centers = vsphere::secret::parse(&text)?;
//! let config = centers[0].config(|path| std::fs::read_to_string(path))?;
//! let vcenter = vsphere::Vcenter::new(config)?;
//!
//! let disk = "2b6d0f5e-1c3a-4a55-9d0e-8c5f6a1b2c3d".parse()?;
//! let token = "velero/5e0c…/2b6d…"; // unique to the backup: asked for twice, there is still one snapshot
//! let snapshot = vcenter.create_snapshot(&disk, token, Duration::from_secs(600)).await?;
//! println!("{snapshot}");
//! vcenter.logout().await;
//! # Ok(()) }
//! ```

mod catalog;
mod config;
mod disks;
mod error;
mod fault;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hosts;
mod machines;
mod pace;
mod refusals;
mod rights;
pub mod secret;
mod session;
mod snapshots;
mod tasks;
mod tls;
mod tracking;
mod transport;
mod vcenter;
mod version;
mod volumes;
mod xml;

pub use catalog::CatalogEntry;
pub use config::{Config, Deadlines, ParseThumbprintError, Thumbprint, Trust};
pub use disks::Disk;
pub use error::{Cause, Error, ReasonKind};
pub use fault::{Act, Fault, FaultKind, Recovery};
pub use machines::Machine;
pub use rights::Entity;
pub use snapshots::{Deleted, SnapshotDetails, SnapshotInfo};
pub use vcenter::{About, Vcenter};
pub use volumes::{ClusterFlavor, CreatedVolume, NewVolume, Volume};
