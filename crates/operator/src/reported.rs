//! How a kind reports: where its status lies and which words stand in it.

use api::{
    BackupRepositoryClaim, CloneFromSnapshot, CloneFromSnapshotStatus, DeleteSnapshot, DeleteSnapshotStatus, Download,
    DownloadStatus, RepositoryStatus, Snapshot, SnapshotStatus, Upload, UploadStatus,
};

/// Where a kind's status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusPlace {
    /// Its status subresource.
    Subresource,
    /// The object itself: Upload, Download and BackupRepositoryClaim have no subresource.
    Object,
}

/// A kind with a status that a [`Publisher`](crate::Publisher) can write.
pub trait Reported:
    kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + serde::de::DeserializeOwned
{
    /// Its status.
    type Status: serde::Serialize + Default + Clone + Send + Sync;
    /// Where its status is written.
    const PLACE: StatusPlace;
    /// The status it has.
    fn status(&self) -> Option<&Self::Status>;
    /// The phase in a status, empty when there is none.
    fn phase_of(status: &Self::Status) -> &str;
    /// Whether it has ended for good or bad.
    fn has_ended(status: &Self::Status) -> bool;
    /// The conditions in a status.
    fn conditions_of(status: &Self::Status) -> &[api::Condition];
}

macro_rules! reported {
    ($kind:ident, $status:ident, $place:ident) => {
        impl Reported for $kind {
            type Status = $status;
            const PLACE: StatusPlace = StatusPlace::$place;

            fn status(&self) -> Option<&$status> {
                self.status.as_ref()
            }

            fn phase_of(status: &$status) -> &str {
                status.phase.as_ref().map_or("", |phase| phase.as_str())
            }

            fn has_ended(status: &$status) -> bool {
                status.phase.as_ref().is_some_and(|phase| phase.is_terminal())
            }

            fn conditions_of(status: &$status) -> &[api::Condition] {
                &status.conditions
            }
        }
    };
}

reported!(Snapshot, SnapshotStatus, Subresource);
reported!(CloneFromSnapshot, CloneFromSnapshotStatus, Subresource);
reported!(DeleteSnapshot, DeleteSnapshotStatus, Subresource);
reported!(Upload, UploadStatus, Object);
reported!(Download, DownloadStatus, Object);

/// It has no phase: it is answered, or its condition says what is wrong with it.
impl Reported for BackupRepositoryClaim {
    type Status = RepositoryStatus;
    const PLACE: StatusPlace = StatusPlace::Object;

    fn status(&self) -> Option<&RepositoryStatus> {
        self.status.as_ref()
    }

    fn phase_of(_: &RepositoryStatus) -> &str {
        ""
    }

    fn has_ended(_: &RepositoryStatus) -> bool {
        false
    }

    fn conditions_of(status: &RepositoryStatus) -> &[api::Condition] {
        &status.conditions
    }
}
