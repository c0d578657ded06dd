//! What we read of Velero's own kinds: Backup, Restore, BackupStorageLocation and VolumeSnapshotLocation of `velero.io/v1`.
//!
//! These are views, not the whole: they are read and never written. Every Velero release adds fields, and what a plugin
//! gets over the wire may miss or null any of them, so nothing here fails because of one field: what makes no sense
//! reads as absent.
//!
//! ```
//! use api::velero::Backup;
//!
//! let backup: Backup = serde_json::from_str(
//!     r#"{"metadata": {"name": "nightly", "labels": null}, "spec": {"snapshotVolumes": null, "ttl": 7, "news": []}}"#,
//! )?;
//! assert_eq!(backup.name(), "nightly");
//! assert_eq!(backup.spec.snapshot_volumes, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backup;
mod duration;
mod location;
mod reading;
mod restore;

pub use backup::{Backup, BackupSpec, BackupStatus, DEFAULT_CSI_SNAPSHOT_TIMEOUT, DEFAULT_ITEM_OPERATION_TIMEOUT};
pub use duration::go_duration;
pub use location::{
    BackupStorageLocation, BackupStorageLocationSpec, ObjectStorage, VolumeSnapshotLocation, VolumeSnapshotLocationSpec,
};
pub use restore::{ExistingResourcePolicy, Restore, RestoreSpec, RestoreStatus};

/// A reference to an object in the same namespace: kind and name.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Reference {
    /// Kind, as the user wrote it; Velero compares it without regard to case.
    #[serde(deserialize_with = "crate::tolerant::or_default")]
    pub kind: String,
    /// Name.
    #[serde(deserialize_with = "crate::tolerant::or_default")]
    pub name: String,
}

/// Implements kube's view of a kind of `velero.io/v1`.
macro_rules! velero_kind {
    ($kind:ident, $plural:literal) => {
        crate::resource::resource!($kind, "velero.io", "v1", $plural, NamespaceResourceScope);

        impl $kind {
            /// Its name; empty when it has none.
            pub fn name(&self) -> &str {
                self.metadata.name.as_deref().unwrap_or_default()
            }

            /// Its uid; empty when it has none.
            pub fn uid(&self) -> &str {
                self.metadata.uid.as_deref().unwrap_or_default()
            }
        }
    };
}
pub(crate) use velero_kind;
