//! The disk snapshot of a claim: asking for it, waiting for it, and recording it on the claim in the backup.

use api::conditions::{self, READY};
use api::velero::Backup;
use api::{Reason, ResourceHandle, Snapshot, SnapshotPhase, SnapshotSpec, labels};
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::jiff::SignedDuration;
use serde_json::Value;

use crate::Problem;
use crate::velero::{blob, item, progress};

/// The Snapshot to make for a claim, with the uid of the backup on it. `repository` is empty in local mode.
pub fn snapshot_for(backup: &Backup, claim: &Value, repository: &str, name: &str) -> Snapshot {
    let spec = SnapshotSpec {
        resource_handle: ResourceHandle::claim(item::name(claim)),
        backup_repository: repository.to_owned(),
        snapshot_cancel: false,
    };
    let mut snapshot = Snapshot::new(name, spec);
    snapshot.metadata.namespace = Some(item::namespace(claim).to_owned());
    let mut marks = labels::ours();
    marks.insert(labels::BACKUP_NAME.to_owned(), labels::backup_name(backup.name()));
    if !backup.uid().is_empty() {
        marks.insert(labels::BACKUP_UID.to_owned(), backup.uid().to_owned());
    }
    snapshot.metadata.labels = Some(marks);
    snapshot
}

/// How a Snapshot that is waited for stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waited {
    /// No disk snapshot yet.
    NotYet,
    /// The disk snapshot exists and is recorded: `Execute` may return.
    Ready,
    /// There will be none.
    Failed(Problem),
}

/// Whether `Execute` may return: when the disk snapshot exists, whatever the phase says by then.
pub fn waited(snapshot: Option<&Snapshot>) -> Waited {
    let Some(snapshot) = snapshot else {
        let cause = "wait for the disk snapshot: its Snapshot was deleted meanwhile";
        return Waited::Failed(Problem::lasting(Reason::RequestDeleted, cause));
    };
    match snapshot.phase() {
        Some(SnapshotPhase::SnapshotFailed | SnapshotPhase::Canceled | SnapshotPhase::UploadFailedAfterRetry) => {
            Waited::Failed(problem_of(snapshot))
        }
        _ if is_recorded(snapshot) => Waited::Ready,
        _ => Waited::NotYet,
    }
}

fn is_recorded(snapshot: &Snapshot) -> bool {
    let id = snapshot.status.as_ref().and_then(|s| s.snapshot_id.as_deref());
    id.is_some_and(|id| !id.is_empty())
}

/// Why a Snapshot ended without what it is for.
fn problem_of(snapshot: &Snapshot) -> Problem {
    let status = snapshot.status.clone().unwrap_or_default();
    progress::told(&status.conditions, status.message.as_deref())
}

/// The disk snapshot was not there in time; what it waits for is in the Snapshot, if the driver has seen it at all.
pub fn not_in_time(snapshot: &Snapshot, timeout: SignedDuration) -> Problem {
    let name = snapshot.metadata.name.as_deref().unwrap_or_default();
    let minutes = timeout.as_mins();
    let status = snapshot.status.clone().unwrap_or_default();
    let Some(ready) = conditions::get(&status.conditions, READY) else {
        let cause = format!("wait for the disk snapshot of Snapshot {name}: nobody acted on it within {minutes} min");
        return Problem::passing(Reason::DriverSilent, cause);
    };
    let reason = Reason::from_word(&ready.reason).unwrap_or(Reason::DriverSilent);
    let cause =
        format!("wait for the disk snapshot of Snapshot {name}: not there after {minutes} min, {}", ready.message);
    Problem::passing(reason, cause)
}

/// The claim as it goes into the backup: with its record, and without what belongs to the cluster it is in. Labels and
/// reclaim policy of its volume travel along, since a restore has the claim alone before it (V-05).
///
/// # Errors
/// As [`blob::write`], and `InvalidSpec` when the item is no claim.
pub fn recorded(
    item: &Value,
    volume: Option<&PersistentVolume>,
    snapshot: &Snapshot,
    plugin_version: &str,
) -> Result<Value, Problem> {
    let record = blob::write(snapshot, &item::claim(item)?)?;
    let mut changed = item.clone();
    item::remove_our_marks(&mut changed);
    item::remove_annotations(&mut changed, &labels::VOLUME_HEALTH);
    item::annotate(&mut changed, labels::SNAPSHOT_BLOB, &record);
    item::annotate(&mut changed, labels::PLUGIN_VERSION, plugin_version);
    let policy = volume.and_then(|v| v.spec.as_ref()?.persistent_volume_reclaim_policy.as_deref());
    if let Some(policy) = policy {
        item::annotate(&mut changed, labels::RECLAIM_POLICY, policy);
    }
    if let Some(own) = volume.and_then(|v| v.metadata.labels.as_ref()).filter(|l| !l.is_empty()) {
        let json = serde_json::to_string(own).expect("texts are always JSON");
        item::annotate(&mut changed, labels::VOLUME_LABELS, &json);
    }
    Ok(changed)
}
