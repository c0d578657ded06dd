//! What a restored volume carries while it is handed over and after: marks of ours, and what the old volume had.

use std::collections::BTreeMap;

use api::{CloneFromSnapshot, labels};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::Seen;

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
