//! Our actions, by the names under which Velero knows them. What to do is decided by `lifecycle::velero`; here it is read
//! and written. Nothing here knows gRPC.

mod change;
mod claim_backup;
mod claim_delete;
mod claim_restore;
mod deletion;
mod patience;
mod reads;
mod repositories;
mod skipped;
mod snapshotter;
mod volume_backup;
mod waits;

use std::sync::Arc;

use lifecycle::Problem;
use lifecycle::velero::{Level, Note};

use crate::protocol::kinds::ActionError;
use crate::{Action, Host, Registry, RegistryError};

use reads::Reads;

/// Everything that this executable does for Velero, in the order in which it runs.
///
/// # Errors
/// When two of them have one name, or one has none that Velero takes.
pub fn registry(host: &Host) -> Result<Registry, RegistryError> {
    let reads = Arc::new(Reads::new(host.clone()));
    Registry::new([
        ("velero.io/vsphere-pvc-backupper", Action::Backup(Arc::new(claim_backup::ClaimBackup(reads.clone())))),
        ("cnsdp.vmware.com/volume-backupper", Action::Backup(Arc::new(volume_backup::VolumeBackup(reads.clone())))),
        ("velero.io/vsphere-pvc-restorer", Action::Restore(Arc::new(claim_restore::ClaimRestore(reads.clone())))),
        ("cnsdp.vmware.com/volume-restorer", Action::Restore(Arc::new(skipped::Volumes))),
        ("cnsdp.vmware.com/own-kinds-restorer", Action::Restore(Arc::new(skipped::OwnKinds))),
        ("velero.io/vsphere-pvc-deleter", Action::Delete(Arc::new(claim_delete::ClaimDelete::new(reads.clone())))),
        (snapshotter::NAME, Action::VolumeSnapshotter(Arc::new(snapshotter::OldSnapshots::new(reads)))),
    ])
}

/// A problem as Velero shows it: the reason's word, cause and fix.
#[track_caller]
fn refused(problem: &Problem) -> ActionError {
    ActionError::new(problem.in_one_line())
}

/// A request to the API server that failed: what it was for, and why.
fn failed(act: &str) -> impl FnOnce(kube::Error) -> ActionError + use<> {
    let act = act.to_owned();
    move |error| ActionError::new(format!("{act}: {}", Problem::chain(&error)))
}

/// Why an item is left alone. A warning shows in `velero backup describe`; an error line would fail the backup (P-09).
fn say(note: &Note) {
    match note.level {
        Level::Info => tracing::info!("{}", note.text),
        Level::Warning => tracing::warn!("{}", note.text),
    }
}

#[cfg(test)]
mod tests;
