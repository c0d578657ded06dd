//! What becomes of a claim, or of a volume, in a backup.

mod disk_snapshot;
mod volume;

use api::velero::Backup;
use api::{Reason, labels, names};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::Value;

pub use disk_snapshot::{Waited, not_in_time, recorded, snapshot_for, waited};
pub use volume::{VolumeDecision, VolumeFacts, decide_volume, marked};

use super::blocked::Blocked;
use super::policy::{Action, Policies};
use super::{Note, Settings, fs_backup, item};
use crate::snapshot::Backing;
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
    taken_by_csi(backup, item).map(Decision::Leave)
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
    if let Some(note) = volume.and_then(|volume| not_ours(&said, volume, settings)) {
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
fn not_ours(said: &str, volume: &PersistentVolume, settings: Settings) -> Option<Note> {
    let problem = match snapshot::backing(volume) {
        Ok(Backing::Migrated(migrated)) if !settings.migrated_volumes => {
            let (volume, switch) = (migrated.volume, Settings::MIGRATED_VOLUMES);
            return Some(Note::warning(format!(
                "{said} is left alone: volume {volume} is of the old in-tree driver, migrated to the CSI driver. To back it up \
                 set `{switch}: \"true\"` in ConfigMap {}",
                names::FEATURES
            )));
        }
        Ok(_) => return None,
        Err(problem) => problem,
    };
    let spec = volume.spec.as_ref();
    let of_the_csi_driver = spec.and_then(|s| s.csi.as_ref()).is_some_and(|csi| csi.driver == labels::CSI_DRIVER);
    let in_tree = spec.is_some_and(|s| s.vsphere_volume.is_some());
    let text = format!("{said} is left alone: {}", problem.cause);
    Some(match (of_the_csi_driver, in_tree) {
        (true, _) => Note::warning(format!("{text}. Use Velero's file-system backup for it")),
        (_, true) => Note::warning(text),
        (false, false) => Note::info(text),
    })
}

#[cfg(test)]
mod tests;
