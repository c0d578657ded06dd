//! What becomes of a claim, or of a volume, in a backup.

use api::conditions::{self, READY};
use api::velero::Backup;
use api::{Reason, ResourceHandle, Snapshot, SnapshotPhase, SnapshotSpec, labels};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::SignedDuration;
use serde_json::Value;

use super::blocked::Blocked;
use super::policy::{Action, Policies};
use super::{Note, Settings, blob, fs_backup, item};
use crate::{Problem, snapshot};

/// Annotations that Velero's own CSI action has just put on a claim whose snapshot it took.
const TAKEN_BY_CSI: [&str; 2] = ["velero.io/volume-snapshot-name", "velero.io/data-upload-name"];

/// What is known when a claim is to be decided.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The backup.
    pub backup: &'a Backup,
    /// The item as Velero gives it.
    pub item: &'a Value,
    /// The list of blocked resources.
    pub blocked: &'a Blocked,
    /// The user's settings.
    pub settings: Settings,
    /// The volume policies that the backup names, if it names some.
    pub policies: Option<&'a Policies>,
    /// The volume that the claim names; `None` when it names none or there is none of that name.
    pub volume: Option<&'a PersistentVolume>,
    /// The pods of the claim's namespace.
    pub pods: &'a [Pod],
}

/// Where the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Into the repository of the storage location.
    Repository,
    /// Nowhere: the disk snapshot stays in vSphere.
    Local,
}

/// What becomes of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It goes into the backup without data of ours, and without [old marks](item::without_our_marks).
    Leave(Note),
    /// It does not go into the backup, which ends *PartiallyFailed*.
    Refuse(Problem),
    /// Its disk is backed up.
    Take(Destination),
}

/// What can be decided before anything is read from the API server; `None` when that does not suffice.
pub fn before_reading(backup: &Backup, item: &Value, blocked: &Blocked) -> Option<Decision> {
    let said = item::said(item);
    if backup.is_finalizing() {
        return Some(Decision::Leave(Note::info(format!("{said}: the backup is finalizing, nothing is begun")))); // P-12
    }
    if backup.spec.snapshot_volumes == Some(false) {
        return Some(Decision::Leave(Note::info(format!("{said}: the backup was made with --snapshot-volumes=false"))));
    }
    if let Some(problem) = blocked.refuses(item) {
        return Some(Decision::Refuse(problem));
    }
    if !item::is_claim(item) {
        return Some(Decision::Leave(Note::info(format!("{said} is no claim"))));
    }
    taken_by_csi(backup, item).map(|note| Decision::Leave(note))
}

/// Decides about a claim.
pub fn decide(facts: &Facts<'_>) -> Decision {
    if let Some(early) = before_reading(facts.backup, facts.item, facts.blocked) {
        return early;
    }
    match item::claim(facts.item) {
        Ok(claim) => decide_claim(facts.backup, facts.settings, facts.policies, &claim, facts.volume, facts.pods),
        Err(problem) => Decision::Refuse(problem),
    }
}

fn decide_claim(
    backup: &Backup,
    settings: Settings,
    policies: Option<&Policies>,
    claim: &PersistentVolumeClaim,
    volume: Option<&PersistentVolume>,
    pods: &[Pod],
) -> Decision {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let said = format!("claim {}/{name}", claim.metadata.namespace.as_deref().unwrap_or_default());
    let leave = |why: &str| Decision::Leave(Note::info(format!("{said}: {why}")));
    let action = policies.and_then(|p| p.action_for(volume, Some(claim)));
    if action == Some(&Action::Skip) {
        return leave("a volume policy says skip");
    }
    if let Err(decision) = bound(&said, claim, volume.is_some()) {
        return decision;
    }
    if let Some(note) = volume.and_then(|volume| not_ours(&said, volume)) {
        return Decision::Leave(note);
    }
    match action {
        Some(Action::FsBackup) => return leave("a volume policy gives it to Velero's file-system backup"),
        Some(Action::Custom) => return leave("a volume policy gives it to another plugin (custom)"),
        Some(Action::Other(word)) => {
            return Decision::Leave(Note::warning(format!(
                "{said}: a volume policy says `{word}`, which is not known"
            )));
        }
        Some(Action::Snapshot) => {}
        Some(Action::Skip) | None => {
            if let Some((pod, volume)) = fs_backup::taken_by(backup, pods, name) {
                return leave(&format!("Velero's file-system backup copies it as volume {volume} of pod {pod}"));
            }
        }
    }
    Decision::Take(if settings.local_mode { Destination::Local } else { Destination::Repository })
}

/// Whether Velero's CSI action has already taken this claim in this backup: it runs before ours.
fn taken_by_csi(backup: &Backup, item: &Value) -> Option<Note> {
    let mark = TAKEN_BY_CSI.into_iter().find(|key| item::annotation(item, key).is_some())?;
    let of_this_backup = item::label(item, "velero.io/backup-name").is_some_and(|l| is_label_of(l, backup.name()));
    let how = match backup.spec.snapshot_move_data {
        Some(true) => "Velero moves a CSI snapshot of it (--snapshot-move-data)",
        Some(false) | None => "Velero has taken a CSI snapshot of it (--features=EnableCSI)",
    };
    of_this_backup.then(|| Note::info(format!("{}: {how}, as annotation {mark} says", item::said(item))))
}

/// Whether a label's value stands for a backup's name: Velero keeps 57 characters of a long one and adds a hash.
pub(super) fn is_label_of(label: &str, backup: &str) -> bool {
    label == backup
        || label == labels::backup_name(backup)
        || (backup.len() > 63 && label.len() == 63 && backup.get(..57).is_some_and(|start| label.starts_with(start)))
}

/// Whether there is a volume behind a claim. One that never had any goes into the backup as it is (W-44); one that has
/// lost its volume is told, since its data is not in the backup and never will be.
fn bound(said: &str, claim: &PersistentVolumeClaim, volume_exists: bool) -> Result<(), Decision> {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    let lost = |why: String| {
        let fix = "Restore or delete the claim; or exclude it from the backup.".to_owned();
        Err(Decision::Refuse(Problem::lasting(Reason::ClaimNotBound, why).with_fix(Some(fix))))
    };
    match phase {
        "Lost" => lost(format!("{said} has lost its volume {named}")),
        "Bound" if !volume_exists => lost(format!("{said} is bound to volume {named}, which does not exist")),
        "Bound" if !named.is_empty() => Ok(()),
        _ => Err(Decision::Leave(Note::warning(format!(
            "{said} is {phase} and has no volume; it is backed up without data"
        )))),
    }
}

/// Why a volume is not one that we back up.
fn not_ours(said: &str, volume: &PersistentVolume) -> Option<Note> {
    let problem = snapshot::disk_of(volume).err()?;
    let spec = volume.spec.as_ref();
    let of_the_csi_driver = spec.and_then(|s| s.csi.as_ref()).is_some_and(|csi| csi.driver == labels::CSI_DRIVER);
    let in_tree = spec.is_some_and(|s| s.vsphere_volume.is_some());
    let text = format!("{said} is left alone: {}", problem.cause);
    Some(match (of_the_csi_driver, in_tree) {
        (true, _) => Note::warning(format!("{text}. Use Velero's file-system backup for it")),
        (_, true) => {
            Note::warning(format!("{text}: a vSphere volume of the old in-tree driver, which is not supported"))
        }
        (false, false) => Note::info(text),
    })
}

/// What is known when a volume is to be decided.
#[derive(Debug, Clone, Copy)]
pub struct VolumeFacts<'a> {
    /// The backup.
    pub backup: &'a Backup,
    /// The volume.
    pub volume: &'a PersistentVolume,
    /// The claim that it is bound to, if there is one.
    pub claim: Option<&'a PersistentVolumeClaim>,
    /// The user's settings.
    pub settings: Settings,
    /// The volume policies that the backup names, if it names some.
    pub policies: Option<&'a Policies>,
    /// The pods of the claim's namespace.
    pub pods: &'a [Pod],
}

/// What becomes of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeDecision {
    /// It goes into the backup as it is.
    Leave(Note),
    /// It goes into the backup [marked](marked), so that a restore does not bring it back without its data (V-01).
    Mark,
}

/// Decides about a volume, which comes before its claim: the same rules, asked for the claim that it is bound to.
///
/// That Velero's CSI action may yet take the claim cannot be seen from here and does not matter: a restore provisions
/// such a volume anew and never asks about the old one.
pub fn decide_volume(facts: &VolumeFacts<'_>) -> VolumeDecision {
    let said = format!("volume {}", facts.volume.metadata.name.as_deref().unwrap_or_default());
    let leave = |why: &str| VolumeDecision::Leave(Note::info(format!("{said}: {why}")));
    if facts.backup.is_finalizing() || facts.backup.spec.snapshot_volumes == Some(false) {
        return leave("no volume is snapshotted");
    }
    let Some(claim) = facts.claim.filter(|claim| is_bound_to(facts.volume, claim)) else {
        return leave("no claim is bound to it");
    };
    let excluded = claim.metadata.labels.as_ref().and_then(|l| l.get(labels::EXCLUDE_FROM_BACKUP));
    if excluded.is_some_and(|value| value == "true") {
        return leave("its claim is excluded from backups by label");
    }
    let volume = Some(facts.volume);
    match decide_claim(facts.backup, facts.settings, facts.policies, claim, volume, facts.pods) {
        Decision::Take(Destination::Repository) => VolumeDecision::Mark,
        Decision::Take(Destination::Local) => leave("local mode, its data stays in vSphere"),
        Decision::Leave(note) => VolumeDecision::Leave(Note { text: format!("{said} of {}", note.text), ..note }),
        Decision::Refuse(problem) => leave(&problem.cause),
    }
}

fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_ref());
    named.is_some() && named == volume.metadata.name.as_ref()
}

/// A volume that a restore does not bring back.
pub fn marked(volume: &Value) -> Value {
    let mut changed = volume.clone();
    item::annotate(&mut changed, labels::VOLUME_DATA, labels::IN_REPOSITORY);
    changed
}

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
pub(super) fn problem_of(snapshot: &Snapshot) -> Problem {
    let status = snapshot.status.clone().unwrap_or_default();
    super::progress::told(&status.conditions, status.message.as_deref())
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

/// The claim as it goes into the backup: with its record, without what belongs to the cluster it is in.
///
/// # Errors
/// As [`blob::write`], and `InvalidSpec` when the item is no claim.
pub fn recorded(item: &Value, snapshot: &Snapshot, plugin_version: &str) -> Result<Value, Problem> {
    let record = blob::write(snapshot, &item::claim(item)?)?;
    let mut changed = item.clone();
    item::remove_our_marks(&mut changed);
    item::remove_annotations(&mut changed, &labels::VOLUME_HEALTH);
    item::annotate(&mut changed, labels::SNAPSHOT_BLOB, &record);
    item::annotate(&mut changed, labels::PLUGIN_VERSION, plugin_version);
    Ok(changed)
}
