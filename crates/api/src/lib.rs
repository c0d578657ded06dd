//! Kubernetes types: our seven kinds, their conditions and reasons, and the names, labels, ids and blobs that
//! other programs read.
//!
//! The main types are the kinds themselves ([`Snapshot`], [`CloneFromSnapshot`], [`DeleteSnapshot`],
//! [`BackupRepositoryClaim`], [`BackupRepository`], [`Upload`], [`Download`]), [`Reason`] and
//! [`entity::PvcSnapshotId`]. Spellings that look odd are read by other programs and stay as they are.
//! This crate holds values only: no client, no clock.
//!
//! ```
//! use api::{Snapshot, SnapshotSpec, ResourceHandle, entity::PvcSnapshotId};
//!
//! let spec = SnapshotSpec { resource_handle: ResourceHandle::claim("data-0"), ..SnapshotSpec::default() };
//! let snapshot = Snapshot::new("snap-1", spec);
//! let json = serde_json::to_value(&snapshot)?;
//! assert_eq!(json["apiVersion"], "backupdriver.cnsdp.vmware.com/v1alpha1");
//!
//! let id: PvcSnapshotId = "pvc:shop/data-0:aXZkOmRpc2s6c25hcA".parse()?;
//! assert_eq!(id.disk_snapshot.to_string(), "disk:snap");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Reading is tolerant: a field that makes no sense reads as absent, so that one odd object never stops a watch.

mod backup_repository;
mod clone_from_snapshot;
pub mod conditions;
pub mod crd;
mod delete_snapshot;
mod download;
pub mod entity;
pub mod labels;
pub mod metadata;
pub mod names;
pub mod parameters;
mod phase;
mod progress;
mod reason;
mod resource;
mod snapshot;
mod tolerant;
mod upload;
pub mod velero;

pub use backup_repository::{
    BackupRepository, BackupRepositoryClaim, CredentialSecret, REPOSITORY_DRIVER, RepositoryStatus,
};
pub use clone_from_snapshot::{ClaimCreator, CloneFromSnapshot, CloneFromSnapshotSpec, CloneFromSnapshotStatus};
pub use delete_snapshot::{DeleteSnapshot, DeleteSnapshotSpec, DeleteSnapshotStatus};
pub use download::{Download, DownloadCheckpoint, DownloadSpec, DownloadStatus};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
pub use k8s_openapi::jiff::Timestamp;
pub use phase::{ClonePhase, DeletePhase, DownloadPhase, SnapshotPhase, UploadPhase};
pub use progress::Progress;
pub use reason::{Reason, Weight};
pub use resource::{BackupDriverV1alpha1, DatamoverV1alpha1};
pub use snapshot::{CLAIM_KIND, ResourceHandle, Snapshot, SnapshotSpec, SnapshotStatus};
pub use upload::{Upload, UploadSpec, UploadStatus, WITHOUT_BACKUP_REPOSITORY};
