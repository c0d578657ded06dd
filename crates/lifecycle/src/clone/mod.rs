//! Decides about a `CloneFromSnapshot`: look for the restore point, make a volume through a scratch claim, let a node
//! write it, hand it to the real claim. No claim of a user is bound before its data is flushed (design D5a).
//!
//! With `claimCreator: Velero` the claim comes first: Velero makes it, with a selector that no volume satisfies and whose
//! value is the clone's uid. The volume is made like that claim. Whether the claim is still there, unbound and this
//! clone's is asked at every step and once more right before the volume is pointed at it ([`ownership`]).
//!
//! Decisions look at what exists: scratch claim, volume, Download and real claim are all named or marked by the clone's
//! uid. A failure is noted first, then everything is removed, then the phase says `Failed`; nothing is ever run again
//! after that. What its status says is in [`status`]; the claims it makes are in [`claims`].

pub mod claims;
pub mod ownership;
pub mod status;
pub mod volumes;

use api::conditions::{self, PROCEEDS};
use api::{CloneFromSnapshot, ClonePhase, Download, DownloadPhase, Reason, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::jiff::SignedDuration;

pub use ownership::{is_bound, is_ours};
pub use volumes::is_marked;

use crate::age::{self, Finished};
use crate::patience::Patience;
use crate::{Again, Problem};
use ownership::Target;

/// How long the CSI driver has to make a volume.
pub const PROVISIONING: SignedDuration = SignedDuration::from_mins(5);
/// How long a Download may wait for a node to take it.
pub const UNTAKEN: SignedDuration = SignedDuration::from_hours(1);
/// How long the CSI driver has to remove the volume of a restore that failed; after that the end is said all the same.
pub const REMOVAL: SignedDuration = SignedDuration::from_mins(10);
/// How long Velero has to create the claim.
pub const CLAIM_AWAITED: SignedDuration = SignedDuration::from_hours(1);

/// How long what the restore point is looked for with, and the volume made with, may be away.
pub const BEGINNING: Patience = Patience { condition: PROCEEDS, within: SignedDuration::from_mins(10) };
/// How long the API server may refuse the claim of a volume that is written already: somebody may have to raise a quota.
pub const HANDING: Patience = Patience { condition: PROCEEDS, within: SignedDuration::from_hours(1) };

/// How often Velero's claim is looked at while its data is on the way.
const CLAIM_LOOK: SignedDuration = SignedDuration::from_secs(30);

/// What exists for a clone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// The scratch claim in the Velero namespace.
    pub scratch: Option<PersistentVolumeClaim>,
    /// The volume: bound to the scratch claim, or marked as being handed over.
    pub volume: Option<PersistentVolume>,
    /// The Download.
    pub download: Option<Download>,
    /// A node is at work on the Download, or was until a moment ago: it holds the lease. Looked at when it ends.
    pub writing: bool,
    /// The claim of the wanted name in the clone's namespace, or with `claimCreator` the one that carries the uid.
    pub target: Option<PersistentVolumeClaim>,
    /// The volume that the claim names, where it names one.
    pub target_volume: Option<PersistentVolume>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// Nothing, until something changes.
    Rest,
    /// Nothing until then.
    WakeAt(Timestamp),
    /// It has ended and does not say when, as the original leaves it: write that.
    SayWhen,
    /// It has been finished for a day: delete it.
    Remove,
    /// Look for the restore point; if it is there, make the scratch claim.
    Provision,
    /// The CSI driver is making the volume; it has until then.
    AwaitVolume(Timestamp),
    /// Make the Download.
    Download,
    /// A node is writing; say how far it is. Look again at that time if nothing happens.
    Follow(Option<Timestamp>),
    /// The volume is written: one step of handing it over.
    Hand(Hand),
    /// Velero has not created the claim yet; it has until then.
    AwaitClaim(Timestamp),
    /// It cannot be done: note why, then remove what there is.
    GiveUp(Problem),
    /// It was asked to stop: note it, then remove what there is.
    StopNow,
    /// Delete the Download and wait until the node has let go of the disk.
    StopWriting,
    /// Remove what there is of scratch claim, volume and Download.
    Clean,
    /// Everything is removed: write the end that was noted.
    End,
    /// The claim is bound and holds the data.
    Complete,
}

/// The steps of handing a written volume to its claim, in order. Each may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hand {
    /// Mark the volume, and keep it when its scratch claim goes.
    Keep,
    /// Delete the scratch claim and wait until it is gone.
    DropScratch,
    /// Create the real claim, naming the volume.
    CreateClaim,
    /// Point the volume at the real claim, uid and all.
    Point,
    /// Wait until both are bound.
    AwaitBound,
    /// Give the volume its own reclaim policy back and remove the mark.
    Settle,
}

/// Decides.
pub fn plan(clone: &CloneFromSnapshot, seen: &Seen, now: Timestamp) -> Plan {
    if clone.metadata.deletion_timestamp.is_some() {
        return Plan::Rest; // what it leaves is swept: no finalizer may hang a namespace
    }
    let before = clone.status.clone().unwrap_or_default();
    if before.phase.as_ref().is_some_and(ClonePhase::is_terminal) {
        return match age::finished(before.completion_timestamp.as_ref(), now) {
            Finished::Untold => Plan::SayWhen,
            Finished::KeepUntil(at) => Plan::WakeAt(at),
            Finished::Remove => Plan::Remove,
        };
    }
    // our plugin, which leaves the claim to Velero, writes no status that would have to be waited for
    if before.phase.is_none()
        && clone.spec.claim_creator.is_none()
        && let Some(at) = age::settles_at(clone.metadata.creation_timestamp.as_ref(), now)
    {
        return Plan::WakeAt(at);
    }
    let target = ownership::of(clone, seen);
    if target == Target::Has {
        return if seen.volume.as_ref().is_some_and(is_marked) { Plan::Hand(Hand::Settle) } else { Plan::Complete };
    }
    if let Some(noted) = ending(&before.conditions) {
        return ending_plan(clone, seen, noted, now);
    }
    if clone.spec.clone_cancel {
        return Plan::StopNow;
    }
    if let Err(problem) = claims::understood(clone) {
        return Plan::GiveUp(problem);
    }
    match target {
        Target::Refused(problem) => return Plan::GiveUp(problem),
        Target::Absent if clone.spec.claim_creator.is_some() => return without_claim(clone, seen, now),
        Target::Absent | Target::Waits | Target::Has => {}
    }
    if seen.volume.as_ref().is_some_and(is_marked) {
        return hand_over(seen);
    }
    match seen.download.as_ref() {
        None => before_download(seen, now),
        Some(download) => during_download(seen, download, now),
    }
}

/// An end is noted: what is there goes first.
fn ending_plan(clone: &CloneFromSnapshot, seen: &Seen, noted: &api::Condition, now: Timestamp) -> Plan {
    if until(Some(&noted.last_transition_time), REMOVAL, now).is_none() || !has_leftovers(clone, seen) {
        return Plan::End;
    }
    if seen.writing {
        return Plan::StopWriting;
    }
    // the volume controller is binding the two at this moment: whoever takes the volume away now leaves a lost claim
    if volumes::is_being_bound(seen) { Plan::Hand(Hand::AwaitBound) } else { Plan::Clean }
}

/// Velero's claim is not there: not yet, or not any more.
fn without_claim(clone: &CloneFromSnapshot, seen: &Seen, now: Timestamp) -> Plan {
    let begun = seen.scratch.is_some() || seen.volume.is_some() || seen.download.is_some();
    if begun {
        let cause = "the claim that Velero made was deleted before its data was there";
        return Plan::GiveUp(
            Problem::lasting(Reason::ClaimNotFound, cause).with_fix(Some("Restore again.".to_owned())),
        );
    }
    match until(clone.metadata.creation_timestamp.as_ref(), CLAIM_AWAITED, now) {
        Some(at) => Plan::AwaitClaim(at),
        None => Plan::GiveUp(Problem::lasting(
            Reason::WaitingForClaim,
            format!("Velero did not create the claim within {} minutes", CLAIM_AWAITED.as_mins()),
        )),
    }
}

fn before_download(seen: &Seen, now: Timestamp) -> Plan {
    let Some(scratch) = seen.scratch.as_ref() else { return Plan::Provision };
    if is_bound(scratch) && seen.volume.is_some() {
        return Plan::Download;
    }
    match until(scratch.metadata.creation_timestamp.as_ref(), PROVISIONING, now) {
        Some(at) => Plan::AwaitVolume(at),
        None => Plan::GiveUp(Problem::lasting(
            Reason::ClaimBindTimeout,
            format!("the volume was not there within {} minutes", PROVISIONING.as_mins()),
        )),
    }
}

fn during_download(seen: &Seen, download: &Download, now: Timestamp) -> Plan {
    match download.phase() {
        Some(DownloadPhase::Completed) if seen.volume.is_some() => hand_over(seen),
        Some(DownloadPhase::Completed) => {
            Plan::GiveUp(Problem::lasting(Reason::Internal, "the volume vanished after it had been written"))
        }
        Some(DownloadPhase::Failed) => Plan::GiveUp(status::problem_of(download)),
        None | Some(DownloadPhase::New | DownloadPhase::Other(_)) => {
            match until(download.metadata.creation_timestamp.as_ref(), UNTAKEN, now) {
                Some(at) => Plan::Follow(Some(at)),
                None => Plan::GiveUp(
                    Problem::lasting(Reason::Queued, "no node took the download within an hour")
                        .with_fix(Some("See whether the data-managers run, then restore again.".to_owned())),
                ),
            }
        }
        Some(DownloadPhase::InProgress | DownloadPhase::Retry) => Plan::Follow(None),
    }
}

fn hand_over(seen: &Seen) -> Plan {
    let Some(volume) = seen.volume.as_ref().filter(|v| is_marked(v)) else { return Plan::Hand(Hand::Keep) };
    if seen.scratch.is_some() {
        return Plan::Hand(Hand::DropScratch);
    }
    let Some(target) = seen.target.as_ref() else { return Plan::Hand(Hand::CreateClaim) };
    if volumes::points_at(volume, target) { Plan::Hand(Hand::AwaitBound) } else { Plan::Hand(Hand::Point) }
}

/// `from` plus `time`, while that lies ahead.
fn until(from: Option<&api::Time>, time: SignedDuration, now: Timestamp) -> Option<Timestamp> {
    let at = from.map_or(now, |t| t.0).checked_add(time).ok()?;
    (at > now).then_some(at)
}

/// Whether anything is left that has to go. An unbound claim that we made goes too.
fn has_leftovers(clone: &CloneFromSnapshot, seen: &Seen) -> bool {
    let our_claim = clone.spec.claim_creator.is_none() && seen.target.as_ref().is_some_and(|t| is_ours(clone, t));
    seen.writing || seen.scratch.is_some() || seen.volume.is_some() || seen.download.is_some() || our_claim
}

/// How long to wait before Velero's claim is looked for again: it comes within a second as a rule, and nothing marks it
/// so that it could be watched for.
pub fn claim_pause(clone: &CloneFromSnapshot, now: Timestamp) -> SignedDuration {
    let age = clone.metadata.creation_timestamp.as_ref().map_or(SignedDuration::ZERO, |t| now.duration_since(t.0));
    (age / 4).clamp(SignedDuration::from_secs(1), SignedDuration::from_secs(15))
}

/// When to look again at the latest while somebody else works: a claim that Velero made may be deleted meanwhile, and
/// claims of users are not watched.
pub fn look_by(clone: &CloneFromSnapshot, at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    match clone.spec.claim_creator {
        Some(_) => Some(at.map_or(now + CLAIM_LOOK, |at| at.min(now + CLAIM_LOOK))),
        None => at,
    }
}

/// Until when a restore is tried again that met `problem` before it had a volume; `None`: it ends. What does not answer may come back;
/// everything else needs somebody. `due` as in [`Patience::until`].
pub fn begins_until(
    clone: &CloneFromSnapshot,
    problem: &Problem,
    due: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    hindered_until(clone, BEGINNING, problem, due, now).filter(|_| problem.unanswered().is_some())
}

/// The same for one whose volume is written, and whose claim the API server does not take for something that may pass.
pub fn hands_until(
    clone: &CloneFromSnapshot,
    problem: &Problem,
    due: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    hindered_until(clone, HANDING, problem, due, now)
}

fn hindered_until(
    clone: &CloneFromSnapshot,
    patience: Patience,
    problem: &Problem,
    due: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let said = clone.status.as_ref().map_or(&[][..], |status| &status.conditions);
    patience.until(said, due, now).filter(|_| problem.again == Again::Later)
}

/// Whether the backup may lie in the original's layout, since `problem` says that it has no restore point, or that damage hides whether
/// it has one. Without the key of a repository nobody here ever made one.
pub fn may_be_of_the_original(problem: &Problem) -> bool {
    use Reason::{RepositoryDamaged, RepositoryMissing, RepositoryPasswordMissing, RestorePointMissing};
    matches!(problem.reason, RepositoryMissing | RepositoryDamaged | RepositoryPasswordMissing | RestorePointMissing)
}

/// Whether an end was decided and is being prepared.
pub fn is_ending(clone: &CloneFromSnapshot) -> bool {
    clone.status.as_ref().is_some_and(|status| ending(&status.conditions).is_some())
}

/// The condition that an end was decided and is being prepared.
pub(crate) fn ending(conditions_: &[api::Condition]) -> Option<&api::Condition> {
    conditions::get(conditions_, status::ENDING)
}

#[cfg(test)]
mod tests;
