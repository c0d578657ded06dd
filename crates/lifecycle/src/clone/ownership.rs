//! Whether the claim that is there is the one this clone may give its volume to.
//!
//! A claim that the driver made proves it by an annotation. One that Velero made proves it by its selector: nobody can
//! change it, while labels and annotations are written anew by Velero onto claims that were there before (V-03).

use api::{CloneFromSnapshot, Reason, labels};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::{Seen, claims, volumes};
use crate::Problem;

/// What a clone finds where its claim should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// No claim.
    Absent,
    /// Its claim, without a volume or with this clone's, not bound yet.
    Waits,
    /// Its claim, bound to the volume this clone has written.
    Has,
    /// A claim that it must not touch, or cannot serve any more.
    Refused(Problem),
}

/// Looks at the claim.
pub fn of(clone: &CloneFromSnapshot, seen: &Seen) -> Target {
    let Some(claim) = seen.target.as_ref() else { return Target::Absent };
    if !was_made_for(clone, claim) {
        return Target::Refused(in_the_way(clone, claim));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        let problem = match clone.spec.claim_creator {
            Some(_) => deleted(claim),
            None => in_the_way(clone, claim),
        };
        return Target::Refused(problem);
    }
    match volumes::named_by(claim) {
        Some(volume) if !volumes::is_this_clones(clone, seen, volume) => Target::Refused(taken(claim, volume)),
        Some(_) if is_bound(claim) => Target::Has,
        _ => Target::Waits,
    }
}

/// Asked once more right before the volume is pointed at `claim`, as it is now: it must be the one that was looked at,
/// still unbound, still this clone's and not going.
pub fn check_again(
    clone: &CloneFromSnapshot,
    looked_at: &PersistentVolumeClaim,
    claim: Option<&PersistentVolumeClaim>,
    own_volume: &str,
) -> Result<(), Problem> {
    let Some(claim) = claim.filter(|c| c.metadata.uid == looked_at.metadata.uid) else {
        return Err(deleted(looked_at));
    };
    if !was_made_for(clone, claim) {
        return Err(in_the_way(clone, claim));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(deleted(claim));
    }
    match volumes::named_by(claim) {
        Some(other) if other != own_volume => Err(taken(claim, other)),
        _ => Ok(()),
    }
}

/// Whether a claim was made for this clone, and not deleted since.
pub fn is_ours(clone: &CloneFromSnapshot, claim: &PersistentVolumeClaim) -> bool {
    was_made_for(clone, claim) && claim.metadata.deletion_timestamp.is_none()
}

/// Whether a claim was made for this clone.
pub fn was_made_for(clone: &CloneFromSnapshot, claim: &PersistentVolumeClaim) -> bool {
    let mark = match clone.spec.claim_creator {
        Some(_) => {
            let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref()?.match_labels.as_ref());
            selector.and_then(|labels| labels.get(labels::CLONE_SELECTOR))
        }
        None => claim.metadata.annotations.as_ref().and_then(|a| a.get(labels::CLONE_UID)),
    };
    mark.is_some() && mark == clone.metadata.uid.as_ref()
}

/// Whether a claim is bound.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

fn in_the_way(clone: &CloneFromSnapshot, claim: &PersistentVolumeClaim) -> Problem {
    let name = claim.metadata.name.clone().or_else(|| claims::name(clone)).unwrap_or_default();
    let namespace = clone.metadata.namespace.as_deref().unwrap_or_default();
    let cause = format!("claim {namespace}/{name} is already there and is not overwritten");
    let problem = Problem::lasting(Reason::ClaimExists, cause);
    match clone.spec.claim_creator {
        None if is_younger(clone, claim) => problem.with_fix(Some(where_half_written())),
        _ => problem,
    }
}

/// Whether the claim was made after the clone, as the original makes it for a restore.
fn is_younger(clone: &CloneFromSnapshot, claim: &PersistentVolumeClaim) -> bool {
    let (claim, clone) = (claim.metadata.creation_timestamp.as_ref(), clone.metadata.creation_timestamp.as_ref());
    claim.zip(clone).is_some_and(|(claim, clone)| claim.0 > clone.0)
}

fn where_half_written() -> String {
    let begun = "If the original had begun this restore, the claim may hold a part of the backup only";
    format!("{begun}: delete it and restore again. Else: {}", Reason::ClaimExists.fix())
}

fn deleted(claim: &PersistentVolumeClaim) -> Problem {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    Problem::lasting(Reason::ClaimNotFound, format!("claim {name} was deleted before its data was there"))
        .with_fix(Some("Restore again.".to_owned()))
}

fn taken(claim: &PersistentVolumeClaim, volume: &str) -> Problem {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let cause = format!("claim {name} was given another volume, {volume}, while its data was being restored");
    Problem::lasting(Reason::ClaimExists, cause).with_fix(Some(
        "If the volume was restored with its old claim, delete both and restore again with the volume excluded."
            .to_owned(),
    ))
}
