//! What becomes of a volume in a backup: the same decision as for its claim, so that a restore does not bring back a
//! volume whose data comes back in a new one (V-01).

use api::labels;
use api::velero::Backup;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::Value;

use super::{Decision, Destination, decide_claim};
use crate::velero::policy::Policies;
use crate::velero::{Note, Settings, item};

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
    /// It goes into the backup [marked], so that a restore does not bring it back without its data (V-01).
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
