//! What a restored volume carries while it is handed over and after: marks of ours, and what the old volume had.

use std::collections::BTreeMap;

use api::{CloneFromSnapshot, Reason, Timestamp, labels};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::jiff::SignedDuration;

use super::{Seen, until};
use crate::{Again, Problem};

/// How long the CSI driver has to record the disk of a volume that it made in the in-tree driver's name.
pub const RECORDED_WITHIN: SignedDuration = SignedDuration::from_mins(5);

/// Labels that say where a volume can be used: the new one's own count.
const PLACES: [&str; 2] = ["topology.kubernetes.io/", "failure-domain.beta.kubernetes.io/"];

/// Whether a volume is marked as written and being handed over.
pub fn is_marked(volume: &PersistentVolume) -> bool {
    volume.metadata.labels.as_ref().is_some_and(|l| l.contains_key(labels::SCRATCH_FOR))
}

/// Whether a volume names this very claim, uid and all.
pub fn points_at(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let points_at = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()?.uid.as_ref());
    points_at.is_some() && points_at == claim.metadata.uid.as_ref()
}

/// Whether the volume controller has bound the volume to the claim and is about to say so in the claim.
pub fn is_being_bound(seen: &Seen) -> bool {
    let (Some(volume), Some(claim)) = (&seen.volume, &seen.target) else { return false };
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    claim.metadata.deletion_timestamp.is_none() && points_at(volume, claim) && phase == Some("Bound")
}

/// The volume a claim names.
pub fn named_by(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether the volume of that name is the one this clone has made: the one that is marked now, or that was until it was
/// settled.
pub fn is_this_clones(clone: &CloneFromSnapshot, seen: &Seen, name: &str) -> bool {
    let is_named = |volume: &&PersistentVolume| volume.metadata.name.as_deref() == Some(name);
    if seen.volume.as_ref().is_some_and(|v| is_named(&v) && is_marked(v)) {
        return true;
    }
    let settled = seen.target_volume.as_ref().filter(is_named).and_then(|v| v.metadata.annotations.as_ref());
    settled.and_then(|a| a.get(labels::CLONE_UID)).is_some_and(|uid| Some(uid) == clone.metadata.uid.as_ref())
}

/// What becomes of a restore whose volume is there, and which disk it is could not be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownDisk {
    /// A class of the in-tree driver's time made it, and the CSI driver may yet record it.
    IsRecorded,
    /// Nobody answers who could tell, or we may not ask: tried again as long as that lasts, however old the volume is.
    MayPass,
    /// Nobody will tell.
    IsUnknown,
}

/// Which it is.
pub fn unknown_disk(volume: &PersistentVolume, problem: &Problem, now: Timestamp) -> UnknownDisk {
    let is_young = until(volume.metadata.creation_timestamp.as_ref(), RECORDED_WITHIN, now).is_some();
    match problem.again {
        Again::Later => UnknownDisk::MayPass,
        Again::Never if problem.reason == Reason::MigrationUnknown && is_young => UnknownDisk::IsRecorded,
        Again::Never => UnknownDisk::IsUnknown,
    }
}

/// The reclaim policy the volume ends with: the old volume's where the restore says it (Velero puts back neither it nor
/// the labels of our volumes, V-05), else `own`, which the storage class gave it.
pub fn reclaim_policy<'p>(clone: &'p CloneFromSnapshot, own: &'p str) -> &'p str {
    let annotations = clone.metadata.annotations.as_ref();
    let old = annotations.and_then(|a| a.get(labels::RECLAIM_POLICY)).map(String::as_str);
    old.filter(|policy| matches!(*policy, "Delete" | "Retain")).unwrap_or(own)
}

/// The labels of the old volume that the new one gets: all it does not have itself, but none of ours and none that says
/// where a volume is.
pub fn labels_put_back(clone: &CloneFromSnapshot, volume: &PersistentVolume) -> BTreeMap<String, String> {
    let text = clone.metadata.annotations.as_ref().and_then(|a| a.get(labels::VOLUME_LABELS));
    let old: BTreeMap<String, String> = text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
    let own = volume.metadata.labels.as_ref();
    let wanted = |key: &String| {
        !PLACES.iter().any(|place| key.starts_with(place))
            && key != labels::SCRATCH_FOR
            && own.is_none_or(|own| !own.contains_key(key))
    };
    old.into_iter().filter(|(key, _)| wanted(key)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::Time;

    /// An API server that was away while the driver started must not cost a restore whose volume is an hour old.
    #[test]
    fn an_api_server_that_is_away_for_a_moment_ends_no_restore_of_a_migrated_volume_however_old_that_is() {
        let noon: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let away = Problem::passing(Reason::ClusterUnreachable, "list cnsvspherevolumemigrations: away");
        let forbidden = Problem::passing(Reason::ClusterForbidden, "list cnsvspherevolumemigrations: forbidden");
        let unknown = Problem::lasting(Reason::MigrationUnknown, "no record");
        let foreign = Problem::lasting(Reason::ForeignDriver, "another driver's");
        let cases = [
            (0, &away, UnknownDisk::MayPass),
            (60, &away, UnknownDisk::MayPass),
            (60, &forbidden, UnknownDisk::MayPass),
            (4, &unknown, UnknownDisk::IsRecorded),
            (5, &unknown, UnknownDisk::IsUnknown),
            (0, &foreign, UnknownDisk::IsUnknown),
        ];
        for (minutes, problem, want) in cases {
            let mut volume = PersistentVolume::default();
            volume.metadata.creation_timestamp = Some(Time(noon - SignedDuration::from_mins(minutes)));
            assert_eq!(unknown_disk(&volume, problem, noon), want, "{minutes} minutes: {problem}");
        }
    }
}
