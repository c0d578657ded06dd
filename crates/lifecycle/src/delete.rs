//! Decides about a `DeleteSnapshot`: stop an Upload that still runs, then erase disk snapshot and restore point.
//!
//! Velero forgets a backup as soon as its delete action returns, whatever it returned, so this object alone carries the
//! duty: it is tried again with growing pauses until both are gone, and only a request that nobody can understand ends as
//! `Failed`; so does one made by hand that does not say in which repository its backup is, where [none is found](found_first). Every
//! step may be repeated, also by another `DeleteSnapshot` of the same snapshot at the same time: what is gone already counts as
//! deleted. What the status says is in [`status`].

pub mod status;

use std::time::Duration;

use api::conditions::{self, BACKUP_FOUND, READY};
use api::entity::{EntityId, PvcSnapshotId};
use api::{
    BackupRepository, DeletePhase, DeleteSnapshot, Reason, Timestamp, Upload, UploadPhase, WITHOUT_BACKUP_REPOSITORY,
    Weight, labels, names,
};
use disk::DiskSnapshot;
use k8s_openapi::jiff::SignedDuration;

use crate::Problem;
use crate::age::{self, Finished};

/// How long an Upload may take to stop before somebody should look.
pub const STOPPING: SignedDuration = SignedDuration::from_mins(10);
/// How often a deletion that waits for an Upload looks at the clock; the end of the Upload comes as an event.
const WAITING: Duration = Duration::from_secs(60);
/// How often it looks where no event will come: the Upload is gone, its node lets go of the disk.
const LETTING_GO: Duration = Duration::from_secs(2);

/// What is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The disk snapshot, which is also the identity of the restore point.
    pub disk_snapshot: DiskSnapshot,
    /// Namespace the claim was backed up from; `None` for backups of versions up to 1.0.2.
    pub namespace: Option<String>,
}

impl Target {
    /// From which namespace it was backed up: the one that the id names, else the only one that the repository is for.
    pub fn namespace_among(&self, allowed: &[String]) -> Option<String> {
        let only = if let [one] = allowed { Some(one.clone()) } else { None };
        self.namespace.clone().or(only)
    }
}

/// What exists around a deletion.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// The Upload of the disk snapshot.
    pub upload: Option<Upload>,
    /// A node is at work on that Upload, or was until a moment ago: it holds the lease.
    pub writing: bool,
    /// When the next attempt is due, after one that failed: to erase, or to look for the backup before its Upload is stopped.
    pub due: Option<Timestamp>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing, until something changes.
    Rest,
    /// Nothing until then.
    WakeAt(Timestamp),
    /// It has ended and does not say when, as the original leaves it: write that.
    SayWhen,
    /// It has been finished for a day: delete it.
    Remove,
    /// It cannot be done.
    Fail(Problem),
    /// Ask the Upload that still runs to stop.
    CancelUpload,
    /// Wait until the Upload has stopped, for this reason: nobody may pull its disk snapshot away, and a restore point
    /// that is committed after we looked would stay.
    AwaitUpload(Waits),
    /// Delete the disk snapshot and the restore point.
    Erase,
}

/// Why an Upload has not stopped yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// The word.
    pub reason: Reason,
    /// What is waited for.
    pub message: String,
}

/// Reads what is to be deleted.
pub fn target(delete: &DeleteSnapshot) -> Result<Target, Problem> {
    let invalid = |e: &dyn std::fmt::Display| {
        Problem::lasting(Reason::InvalidSpec, format!("read spec.snapshotID `{}`: {e}", delete.spec.snapshot_id))
    };
    let id: EntityId = delete.spec.snapshot_id.parse().map_err(|e| invalid(&e))?;
    let disk_snapshot = id.disk_snapshot().map_err(|e| invalid(&e))?;
    let namespace = match id {
        EntityId::Claim { namespace, .. } => Some(namespace),
        EntityId::Disk(_) | EntityId::GuestVolume { .. } => None,
    };
    Ok(Target { disk_snapshot, namespace })
}

/// From which namespace's repository the restore point goes; `None`: such a backup lies in the original's layout, as those of versions up
/// to 1.0.2, which knew neither repositories nor namespaces.
///
/// # Errors
/// `InvalidSpec` where a repository is named and nobody says which of the namespaces whose backups are there.
pub fn namespace(
    delete: &DeleteSnapshot,
    target: &Target,
    described: &BackupRepository,
) -> Result<Option<String>, Problem> {
    if target.namespace.is_none() && velero_asks(delete) {
        return Ok(None);
    }
    let all: Vec<String> = described.namespaces().into_iter().map(str::to_owned).collect();
    match target.namespace_among(&all) {
        None if delete.spec.backup_repository != WITHOUT_BACKUP_REPOSITORY => {
            let cause = "neither the id nor the repository says from which namespace the claim was backed up";
            Err(Problem::lasting(Reason::InvalidSpec, cause).with_fix(Some(NAME_THE_NAMESPACE.to_owned())))
        }
        namespace => Ok(namespace),
    }
}

/// Whether the backup must be found before anything of it is removed: where no repository is looked in, somebody may mean a restore point,
/// which stays. Velero's plugin asks so for backups of versions up to 1.0.2 alone, and what is gone counts as deleted. What was found once
/// may be half removed by now.
pub fn is_to_be_found(delete: &DeleteSnapshot, from: Option<&str>) -> bool {
    let said = delete.status.as_ref().and_then(|s| conditions::get(&s.conditions, BACKUP_FOUND));
    let found = said.is_some_and(|said| said.observed_generation == delete.metadata.generation); // of this very spec
    from.is_none() && !velero_asks(delete) && !found
}

/// Whether Velero's plugin asks, for a backup of a version up to 1.0.2.
fn velero_asks(delete: &DeleteSnapshot) -> bool {
    let annotated = delete.metadata.annotations.as_ref().and_then(|a| a.get(labels::SNAPSHOTTER));
    annotated.is_some() && annotated == delete.metadata.name.as_ref() // a copy has another name
}

/// What the looks say that are made before anything is removed: where the backup lies; `None`: nowhere, which the end will say. `theirs` is
/// the look in the original's layout; `ours` the namespace whose repository is looked in as well, and whether that has the restore point,
/// which needs to be known only where the first look failed.
///
/// # Errors
/// Where it was looked for in the original's layout alone, and is not there; where that look failed and there is no restore point, or
/// nobody can say.
pub fn found_first(
    target: &Target,
    theirs: Result<bool, Problem>,
    ours: Option<(&str, Result<bool, Problem>)>,
) -> Result<Option<String>, Problem> {
    match (theirs, ours) {
        (Ok(true), _) => Ok(Some("the backup lies in the original's layout".to_owned())),
        (_, Some((from, Ok(true)))) => {
            Ok(Some(format!("the restore point lies in the repository of namespace {from}")))
        }
        (Ok(false), Some(_)) => Ok(None),
        (Ok(false), None) => Err(not_found(target)),
        (Err(_), Some((_, Err(unknown)))) => Err(unknown), // there is more in it than in a folder that may be none of ours
        (Err(refused), Some(_)) if refused.reason == Reason::StoreAccessDenied => {
            Err(refused.with_fix(Some(NAME_THE_NAMESPACE_OR_REACH.to_owned())))
        }
        (Err(unknown), _) => Err(unknown),
    }
}

/// What is wrong where it is not there.
fn not_found(target: &Target) -> Problem {
    let cause = format!(
        "delete the backup of {}: there is none in the original's layout, and neither the id nor the repository says in which namespace's \
         repository it may be",
        target.disk_snapshot
    );
    Problem::lasting(Reason::InvalidSpec, cause).with_fix(Some(NAME_THE_NAMESPACE.to_owned()))
}

const NAME_THE_NAMESPACE: &str = "Make a new one with the id that status.snapshotID of the Snapshot says: it begins with `pvc:` and names \
                                  the namespace. If the backup is gone already, there is nothing to do.";

const NAME_THE_NAMESPACE_OR_REACH: &str = "Let the keys read and delete in the original's folder. Where it is no backup of the original, make a \
                                           new one with the id that status.snapshotID of the Snapshot says: it begins with `pvc:`.";

/// Why what was found with the disk snapshot of the id is not what the id names: `found` (words such as `the restore point`), whose `path` is
/// `/<namespace>/<claim>`, is of another claim of that namespace. Somebody has put two ids together, and one of the two is not meant.
///
/// `None` where nobody can say that: what an Upload made by hand wrote may name no claim, or the disk in its place.
pub fn of_another_claim(delete: &DeleteSnapshot, found: &str, path: &str) -> Option<Problem> {
    let EntityId::Claim { namespace, claim, .. } = delete.spec.snapshot_id.parse::<EntityId>().ok()? else {
        return None;
    };
    let disk_snapshot = target(delete).ok()?.disk_snapshot;
    let theirs = path.strip_prefix('/')?.strip_prefix(namespace.as_str())?.strip_prefix('/')?;
    if theirs == claim || theirs == disk_snapshot.disk.as_str() || !names::is_object_name(theirs) {
        return None;
    }
    let cause = format!(
        "delete the backup of claim {namespace}/{claim}: {found} with that disk snapshot is of claim {namespace}/{theirs}, and the id names \
         {namespace}/{claim}"
    );
    let theirs = PvcSnapshotId { namespace, claim: theirs.to_owned(), disk_snapshot };
    let fix = format!(
        "It stays. Make a new one: with the id `{theirs}` if that backup is meant, else with what `vsphere-backup list --output \
         json` says of the other one as `snapshotID`."
    );
    Some(Problem::lasting(Reason::InvalidSpec, cause).with_fix(Some(fix)))
}

/// Whether only the disk snapshot is to be deleted: local mode.
pub fn is_local(delete: &DeleteSnapshot) -> bool {
    delete.spec.backup_repository.is_empty()
}

/// Decides.
pub fn plan(delete: &DeleteSnapshot, seen: &Seen, now: Timestamp) -> Plan {
    if delete.metadata.deletion_timestamp.is_some() {
        return Plan::Rest;
    }
    let status = delete.status.clone().unwrap_or_default();
    if status.phase.as_ref().is_some_and(DeletePhase::is_terminal) {
        return match age::finished(status.completion_timestamp.as_ref(), now) {
            Finished::Untold => Plan::SayWhen,
            Finished::KeepUntil(at) => Plan::WakeAt(at),
            Finished::Remove => Plan::Remove,
        };
    }
    if status.phase.is_none()
        && let Some(at) = age::begins_at(&delete.metadata, now)
    {
        return Plan::WakeAt(at);
    }
    if let Err(problem) = target(delete) {
        return Plan::Fail(problem);
    }
    let due_later = seen.due.filter(|due| *due > now);
    match seen.upload.as_ref() {
        Some(upload) if has_let_go(upload) => {}
        Some(upload) if !upload.spec.upload_cancel && upload.metadata.deletion_timestamp.is_none() => {
            // each word of an Upload that copies brings us here: a look at the backup that failed has its pause all the same
            return due_later.map_or(Plan::CancelUpload, Plan::WakeAt);
        }
        Some(upload) if upload.metadata.deletion_timestamp.is_none() || seen.writing => {
            return Plan::AwaitUpload(waits(delete, upload, seen.writing, now));
        }
        None if seen.writing => return Plan::AwaitUpload(waits_for_node(delete, now)),
        Some(_) | None => {}
    }
    due_later.map_or(Plan::Erase, Plan::WakeAt)
}

/// After what time a deletion that waits for its Upload looks again. A node that lets go of the disk of one that is gone sends no event; one
/// that has not done so for [long](STOPPING) is waited for without haste.
pub fn look_again(delete: &DeleteSnapshot, seen: &Seen, now: Timestamp) -> Duration {
    let gone = seen.upload.as_ref().is_none_or(|upload| upload.metadata.deletion_timestamp.is_some());
    if gone && !is_late(delete, now) { LETTING_GO } else { WAITING }
}

/// Whether nobody reads the disk snapshot or commits a restore point any more.
pub fn has_let_go(upload: &Upload) -> bool {
    upload.phase().is_some_and(|p| p.is_terminal() || *p == UploadPhase::CleanupFailed)
}

/// What a deletion waits for: what the Upload itself says where that is trouble, else who should look once it is late.
fn waits(delete: &DeleteSnapshot, upload: &Upload, writing: bool, now: Timestamp) -> Waits {
    let name = upload.metadata.name.as_deref().unwrap_or_default();
    let theirs = upload.status.as_ref().and_then(|s| conditions::get(&s.conditions, READY));
    let trouble = theirs.and_then(|c| Reason::from_word(&c.reason)).filter(|r| r.weight() == Weight::Trouble);
    let stopping = upload.phase() == Some(&UploadPhase::Canceling);
    if let (Some(reason), Some(condition), true) = (trouble, theirs, stopping) {
        let message = format!("Upload {name} is being stopped and says: {}", condition.message);
        return Waits { reason, message };
    }
    if !is_late(delete, now) {
        return Waits { reason: Reason::Canceling, message: format!("waiting until Upload {name} has stopped") };
    }
    let why = if writing { "its node has not stopped it" } else { "no node has taken it up" };
    let minutes = STOPPING.as_mins();
    let problem = Problem::passing(
        Reason::NotStopping,
        format!("Upload {name} was asked to stop more than {minutes} minutes ago and {why}"),
    );
    Waits { reason: problem.reason, message: problem.message() }
}

/// The same where the Upload is gone and a node still holds its lease: that node may read the disk snapshot.
fn waits_for_node(delete: &DeleteSnapshot, now: Timestamp) -> Waits {
    if !is_late(delete, now) {
        let message = "the Upload is gone; waiting until the node that copied has let go of the disk";
        return Waits { reason: Reason::Canceling, message: message.to_owned() };
    }
    let minutes = STOPPING.as_mins();
    let cause = format!(
        "the Upload is gone; this was asked for more than {minutes} minutes ago, and the node that copied holds the disk still"
    );
    let problem = Problem::passing(Reason::NotStopping, cause);
    Waits { reason: problem.reason, message: problem.message() }
}

/// Whether somebody should look, as the deletion was asked for so long ago.
fn is_late(delete: &DeleteSnapshot, now: Timestamp) -> bool {
    let asked = delete.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    now.duration_since(asked) > STOPPING
}

#[cfg(test)]
mod tests;
