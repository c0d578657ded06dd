//! Deletes the disk snapshots that carry the mark of one Snapshot; never any other, and never one that an Upload names.

use std::time::Duration;

use api::Reason;
use connections::from_vsphere;
use disk::{DiskId, DiskSnapshot};
use lifecycle::Problem;
use vsphere::{ReasonKind, Vcenter};

/// How long a disk snapshot that nobody will use is worth trying to delete.
pub(super) const UNDOING: Duration = Duration::from_secs(120);

/// Deletes what may have been taken under our token: a Snapshot that failed leaves no disk snapshot. What cannot be
/// deleted now is left to the sweep of [`crate::orphans`].
pub(super) async fn undo(vcenter: &Vcenter, disk: &DiskId, token: &str) {
    if let Err(problem) = delete_marked(vcenter, disk, token).await {
        tracing::warn!(%disk, %problem, "a disk snapshot that nobody needs may be there until it is swept");
    }
}

/// Deletes the disk snapshots of a disk that carry our token.
pub(super) async fn delete_marked(vcenter: &Vcenter, disk: &DiskId, token: &str) -> Result<(), Problem> {
    let found = match vcenter.list_snapshots(disk).await {
        Ok(found) => found,
        // the catalog may deny a disk for a moment
        Err(error) if error.reason_kind() == ReasonKind::NotFound => return gone(vcenter, disk).await,
        Err(error) => return Err(from_vsphere("look for a disk snapshot that was taken", &error)),
    };
    for left in found.into_iter().filter(|s| s.description.trim() == token) {
        let left = DiskSnapshot { disk: disk.clone(), snapshot: left.id };
        let deleted = vcenter.delete_snapshot(&left, UNDOING).await;
        deleted.map_err(|e| from_vsphere("delete a disk snapshot that nobody needs", &e))?;
        tracing::info!(disk_snapshot = %left, "deleted a disk snapshot that nobody needs");
    }
    Ok(())
}

/// Whether a disk is gone, and its disk snapshots with it.
///
/// # Errors
/// It is not, or nobody can say.
async fn gone(vcenter: &Vcenter, disk: &DiskId) -> Result<(), Problem> {
    let act = "look whether the disk is gone";
    match vcenter.retrieve_disk(disk).await {
        Err(error) if error.reason_kind() == ReasonKind::NotFound => Ok(()),
        Err(error) => Err(from_vsphere(act, &error)),
        Ok(_) => {
            let cause = format!("{act}: disk {disk} is there, and its disk snapshots are not listed");
            Err(Problem::passing(Reason::VCenterFailed, cause))
        }
    }
}
